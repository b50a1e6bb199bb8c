"""The Charlson index of worked examples, Danish and international."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.charlson import (
    GROUPS,
    WEIGHTS,
    Variant,
    charlson_groups,
    charlson_index,
    charlson_index_of_groups,
)
from fhir_adapters.codes import SNOMED_CT, code_table

# Worked by hand from the published groups and weights (Quan 2005, Quan 2011).
WORKED = [
    (["DI252", "DJ449"], 2, 1),
    (["DI509", "DE112", "DN183"], 5, 4),
    (["DE119", "DE112"], 2, 1),  # diabetes with complications instead of without
    (["DC187", "DC787"], 6, 6),  # metastases instead of the tumour
    (["DK703", "DK721"], 3, 4),  # severe liver disease instead of mild
    (["DF001", "DI639", "DG819"], 4, 4),
    (["DB24", "DC443"], 6, 4),  # skin cancer other than melanoma does not count
    (["DZ038", "DI489"], 0, 0),
    ([], 0, 0),
]


@pytest.mark.parametrize(("codes", "original", "quan2011"), WORKED)
def test_worked_examples(codes: list[str], original: int, quan2011: int) -> None:
    assert charlson_index(codes, "original") == original
    assert charlson_index(codes, "quan2011") == quan2011


@pytest.mark.parametrize(("codes", "original", "quan2011"), WORKED)
def test_international_spelling_counts_the_same(
    codes: list[str], original: int, quan2011: int
) -> None:
    """J44.9 is DJ449."""
    dotted = [f"{code[1:4]}.{code[4:]}".rstrip(".") for code in codes]
    assert charlson_index(dotted, "original") == original
    assert charlson_index(dotted, "quan2011") == quan2011


COLORECTAL = ("C18", "C19", "C20", "C77", "C78", "C79", "C80")


@pytest.mark.parametrize(
    ("codes", "index"),
    [
        (["DC187", "DC787", "DI509"], 1),  # the disease operated on is no comorbidity
        (["DC187M", "DI509"], 1),
        (["DC187", "DC509"], 2),  # another cancer is
        (["DC209"], 0),
    ],
)
def test_the_disease_in_question_is_left_out(codes: list[str], index: int) -> None:
    assert charlson_index(codes, "original", dropped=COLORECTAL) == index


def test_dropping_nothing_in_particular_is_refused() -> None:
    """An empty prefix would begin every code."""
    with pytest.raises(ValueError, match="prefix is empty"):
        charlson_index(["DI509"], "original", dropped=("",))


def test_a_name_that_is_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match="copd"):
        charlson_index_of_groups(["charlson_cpd", "copd"], "original")


def test_a_disease_counts_once_however_often_it_is_coded() -> None:
    assert charlson_index(["DJ449", "J44.1", "DJ459"], "original") == 1


def test_patients_coded_in_snomed_ct_count_alike() -> None:
    """Heart failure, emphysema, kidney disease stage 3 and metastases, as Synthea codes them."""
    found = {
        coded.concept
        for code in ("88805009", "87433001", "433144002", "94260004")
        for coded in code_table().concepts_of(SNOMED_CT, code)
        if coded.concept in GROUPS
    }
    same = ["DI509", "DJ439", "DN183", "DC785"]
    assert found == charlson_groups(same)
    assert charlson_index_of_groups(found, "quan2011") == charlson_index(same, "quan2011") == 10


def test_the_largest_index_is_that_of_all_groups() -> None:
    """Original: 29 (Quan 2005); 2011 weights: 24 (Quan 2011)."""
    assert charlson_index_of_groups(GROUPS, "original") == 29
    assert charlson_index_of_groups(GROUPS, "quan2011") == 24


def test_groups_and_concepts_of_the_code_table_are_the_same() -> None:
    named = {name for name in code_table().names() if name.startswith("charlson_")}
    assert named == GROUPS == frozenset(WEIGHTS["quan2011"])


@given(st.sets(st.sampled_from(sorted(GROUPS))), st.sampled_from(sorted(GROUPS)))
def test_a_further_disease_never_lowers_the_index(present: set[str], further: str) -> None:
    variants: tuple[Variant, ...] = ("original", "quan2011")
    for variant in variants:
        before = charlson_index_of_groups(present, variant)
        assert charlson_index_of_groups({*present, further}, variant) >= before
