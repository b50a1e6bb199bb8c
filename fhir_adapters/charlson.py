"""The Charlson comorbidity index, from ICD-10 codes or from the groups a record already names.

The groups are concepts of the code table (`charlson_*`: ICD-10 prefixes of Quan 2005, and SNOMED CT
codes of the same diseases), so that patients coded in either count alike. Which diagnoses hold at a
given time is not decided here. Called by the derived features and the reference scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from fhir_adapters.codes import ICD_10, code_table, normalise_coding

Variant = Literal["original", "quan2011"]

# Weights, points. original: Charlson et al., J Chronic Dis 1987, doi 10.1016/0021-9681(87)90171-8,
# in the groups of Quan et al., Med Care 2005, doi 10.1097/01.mlr.0000182534.19832.83.
# quan2011: Quan et al., Am J Epidemiol 2011, doi 10.1093/aje/kwq433.
WEIGHTS: Mapping[Variant, Mapping[str, int]] = {
    "original": {
        "charlson_mi": 1,
        "charlson_chf": 1,
        "charlson_pvd": 1,
        "charlson_cvd": 1,
        "charlson_dementia": 1,
        "charlson_cpd": 1,
        "charlson_rheum": 1,
        "charlson_pud": 1,
        "charlson_liver_mild": 1,
        "charlson_dm_uncomp": 1,
        "charlson_dm_comp": 2,
        "charlson_plegia": 2,
        "charlson_renal": 2,
        "charlson_cancer": 2,
        "charlson_liver_severe": 3,
        "charlson_metastatic": 6,
        "charlson_hiv": 6,
    },
    "quan2011": {
        "charlson_mi": 0,
        "charlson_chf": 2,
        "charlson_pvd": 0,
        "charlson_cvd": 0,
        "charlson_dementia": 2,
        "charlson_cpd": 1,
        "charlson_rheum": 1,
        "charlson_pud": 0,
        "charlson_liver_mild": 2,
        "charlson_dm_uncomp": 0,
        "charlson_dm_comp": 1,
        "charlson_plegia": 2,
        "charlson_renal": 1,
        "charlson_cancer": 2,
        "charlson_liver_severe": 4,
        "charlson_metastatic": 6,
        "charlson_hiv": 4,
    },
}
GROUPS = frozenset(WEIGHTS["original"])

# The severe form counts instead of the mild one, not beside it (Quan 2005).
_SUPERSEDED_BY: Mapping[str, str] = {
    "charlson_liver_mild": "charlson_liver_severe",
    "charlson_dm_uncomp": "charlson_dm_comp",
    "charlson_cancer": "charlson_metastatic",
}


def charlson_index_of_groups(groups: Iterable[str], variant: Variant) -> int:
    """The index of a set of Charlson groups, points; each group counts once.

    No group is 0 points, which is a finding only if the diagnoses were asked for. ValueError for a
    name that is no group.
    """
    present = frozenset(groups)
    unknown = present - GROUPS
    if unknown:
        raise ValueError(f"not a Charlson group: {min(unknown)}")
    weights = WEIGHTS[variant]
    return sum(weights[group] for group in present if _SUPERSEDED_BY.get(group) not in present)


def charlson_groups(codes: Iterable[str], dropped: tuple[str, ...] = ()) -> frozenset[str]:
    """The Charlson groups of ICD-10 codes, with or without dot and the Danish D.

    Codes that begin with one of `dropped` are left out: the disease the prognosis is about is no
    comorbidity of itself (colorectal surgery: C18, C19, C20, C77 to C80). ValueError for an empty
    prefix, which would leave out everything.
    """
    left_out = tuple(_stem(prefix) for prefix in dropped)
    if "" in left_out:
        raise ValueError("a dropped prefix is empty")
    return frozenset(
        coded.concept
        for stem in map(_stem, codes)
        if not (left_out and stem.startswith(left_out))
        for coded in code_table().concepts_of(ICD_10, stem)
        if coded.concept in GROUPS
    )


def charlson_index(codes: Iterable[str], variant: Variant, dropped: tuple[str, ...] = ()) -> int:
    """The Charlson comorbidity index of ICD-10 codes, points; see `charlson_groups`.

    Example: `charlson_index(["DI252", "DJ449"], "original")` is 2, by "quan2011" 1.
    """
    return charlson_index_of_groups(charlson_groups(codes, dropped), variant)


def _stem(code: str) -> str:
    return normalise_coding(ICD_10, code)[1]
