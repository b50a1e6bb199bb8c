"""Which reference score is compared with which outcome of a model in validation; data only.

A comparison by rank (AUROC) is fair where both are about who fares worst, even if the score was
made for another outcome or time, and the report says so. The risk a score gives is held against the
outcome only where it is a risk of that outcome. Called by `varsel validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

RiskOf = Literal["outcome", "outcome-or-death"]
"""What the risk of a score is a risk of, in the words of the head it is compared with."""

Comparators = Mapping[str, RiskOf | None]
"""A score's id, and what its risk is of; None where its rank alone can be compared."""

_ILLNESS: Comparators = {"charlson": None, "charlson-quan2011": None}
_HOSPITAL: Comparators = dict.fromkeys(
    ("hospital-2016", "hospital-2013", "hospital-simplified-5d", "hospital-simplified-8d")
)

COMPARED: Mapping[tuple[str, str], Comparators] = {
    # LACE: death or unplanned readmission within 30 days. HOSPITAL: avoidable readmissions only.
    ("readmission-30d", "readmission"): {"lace": "outcome-or-death", **_HOSPITAL, **_ILLNESS},
    # CR-POSSUM and SORT: death within 30 days, not 90.
    ("crc-surgery", "mort90"): {"cr-possum": None, "sort": None, **_ILLNESS},
    ("crc-surgery", "compl30"): _ILLNESS,
    # Leak and reoperation hang on the operation; no score of illness was made for them.
    ("crc-surgery", "leak30"): {},
    ("crc-surgery", "reop30"): {},
    ("crc-surgery", "readm30"): _ILLNESS,
    # MAGGIC: death within a year or three, not deterioration within two weeks.
    ("hf-deterioration", "deterioration"): {"maggic-1y": None, "maggic-3y": None, **_ILLNESS},
    # NEWS2 needs what is not measured at home; DECAF and PEARL are for admitted patients.
    ("copd-deterioration", "deterioration"): _ILLNESS,
}
"""By model and head. A package that is not here is compared with every score it names, by rank."""


def comparators(model: str, head: str, named: Sequence[str]) -> Comparators:
    """The scores among those a package names that one of its heads is compared with."""
    compared = COMPARED.get((model, head))
    if compared is None:
        return dict.fromkeys(named)
    return {name: compared[name] for name in named if name in compared}
