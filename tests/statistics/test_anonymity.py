"""k-anonymity, l-diversity and identifiers, held against counting by hand and known answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.anonymise import Limits, anonymise, generalised
from validation.anonymity import (
    Finding,
    holds_cpr,
    identifiers_in,
    k_of,
    l_of,
    rare_flags,
    unique_share,
)

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["40-49", "50-59", None]),
        st.sampled_from([0.0, 1.0, np.nan]),
        st.sampled_from(["low", "high", None]),
        st.sampled_from(["p1", "p2", "p3", "p4"]),
    ),
    max_size=14,
)
INDIRECT = ("age", "male")


def table_of(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as a table."""
    return pd.DataFrame(rows, columns=["age", "male", "band", "patient"]).astype({"male": float})


def classes(rows: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """By hand: rows that agree in age and sex, where missing agrees with missing."""

    def agree(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        return all(
            a == b or (pd.isna(a) and pd.isna(b)) for a, b in zip(one[:2], other[:2], strict=True)
        )

    return [[other for other in rows if agree(one, other)] for one in rows]


@given(ROWS)
def test_k_is_what_counting_by_hand_gives(rows: list[tuple[Any, ...]]) -> None:
    """The patients of the smallest class, each counted once however many rows they have."""
    table = table_of(rows)
    by_hand = min((len({row[3] for row in one}) for one in classes(rows)), default=0)
    assert k_of(table, INDIRECT, table["patient"]) == by_hand


@given(ROWS)
def test_l_is_what_counting_by_hand_gives(rows: list[tuple[Any, ...]]) -> None:
    """The different bands of the least diverse class; a missing one is none."""
    table = table_of(rows)
    by_hand = min((len({row[2] for row in one} - {None}) for one in classes(rows)), default=0)
    assert l_of(table, INDIRECT, ["band"]) == by_hand


@settings(max_examples=25)
@given(ROWS)
def test_whatever_leaves_meets_the_limits(rows: list[tuple[Any, ...]]) -> None:
    """Counted by hand in the table that leaves, each row standing for three patients."""
    many = [(age, male, band, f"{who}{n}") for age, male, band, who in rows for n in range(3)]
    table = table_of(many).rename(columns={"age": "unit"})
    limits = Limits(k=5, l=2, most_suppressed=0.99, sensitive=("band",), keep_unit=True)
    done = anonymise(table, table["patient"], limits=limits)
    assert (done.table is None) == bool(done.refused)
    if done.table is not None:
        sizes = done.table.groupby(["unit", "male"], dropna=False)["band"]
        assert sizes.size().min() >= 5
        assert sizes.nunique().min() >= 2


def test_the_example_of_the_paper() -> None:
    """Machanavajjhala 2007, figures 1 to 3: four classes' patients, 4-anonymous, one class of which
    all have cancer: 1-diverse."""
    table = pd.DataFrame(
        {
            "zip": ["130**"] * 4 + ["1485*"] * 4 + ["130**"] * 4,
            "age": ["<30"] * 4 + [">=40"] * 4 + ["3*"] * 4,
            "condition": ["heart", "heart", "viral", "viral", "cancer", "heart", "viral", "viral"]
            + ["cancer"] * 4,
        }
    )
    patients = pd.Series([str(number) for number in range(12)])
    assert k_of(table, ["zip", "age"], patients) == 4
    assert l_of(table, ["zip", "age"], ["condition"]) == 1


def test_no_rows_meet_nothing() -> None:
    """An empty table has a k of 0, and is refused."""
    empty = table_of([])
    assert k_of(empty, INDIRECT, empty["patient"]) == 0
    assert l_of(empty, INDIRECT, ["band"]) == 0
    assert l_of(empty, INDIRECT, []) is None
    assert unique_share(empty) == 0.0
    assert anonymise(empty, empty["patient"], limits=Limits()).table is None


def test_a_diagnosis_of_few_points_at_them() -> None:
    """Had by one to k - 1 patients, or lacked by so few; of a value nobody lacks it does not."""
    patients = pd.Series([str(number) for number in range(20)])
    table = pd.DataFrame(
        {
            "rare": [1.0] * 3 + [0.0] * 17,
            "common": [1.0] * 10 + [0.0] * 10,
            "nobody": [0.0] * 20,
            "usual": [0.0] * 3 + [1.0] * 17,
            "stage": [2.0] * 3 + [0.0] * 17,
        }
    )
    assert rare_flags(table, patients, 5) == ["rare", "usual"]


def test_rows_with_a_rare_diagnosis_are_left_out() -> None:
    """It becomes an indirect identifier, its class is too small, the rest passes."""
    patients = pd.Series([str(number) for number in range(60)])
    table = pd.DataFrame(
        {"band:x": ["low", "high"] * 30, "transplant": [1.0] * 3 + [0.0] * 57, "male": 1.0}
    )
    done = anonymise(table, patients, limits=Limits())
    assert done.table is not None
    assert done.table["transplant"].unique().tolist() == [0.0]
    assert done.report["rows"] == {"given": 60, "left": 57}
    assert done.report["share_left_out"] == pytest.approx(0.05)


def test_a_cell_of_one_to_four_is_not_told() -> None:
    """A text that three have is left empty; a value nobody else has becomes a neighbour's."""
    patients = pd.Series([str(number) for number in range(60)])
    table = pd.DataFrame(
        {
            "arm": ["a"] * 57 + ["b"] * 3,
            "crp": [float(number) for number in range(59)] + [480.0],
            "band:x": ["low", "high"] * 30,
        }
    )
    done = anonymise(table, patients, limits=Limits())
    assert done.table is not None
    assert done.table["arm"].isna().sum() == 3
    assert done.table["crp"].max() < 60
    assert done.table["crp"].value_counts().min() >= 5


def test_what_is_left_out_beyond_the_limit_refuses() -> None:
    """Half the rows stand alone: too much would be lost."""
    patients = pd.Series([str(number) for number in range(40)])
    table = pd.DataFrame({"unit": ["A"] * 20 + [f"B{n}" for n in range(20)], "male": 1.0})
    done = anonymise(table, patients, limits=Limits(keep_unit=True))
    assert done.table is None
    assert done.refused == ("50.0% of the rows would be left out, at most 20.0% may be",)


@pytest.mark.parametrize(
    ("name", "given_values", "told"),
    [
        (
            "age",
            [0.0, 39.9, 40.0, 89.9, 90.0, 104.0],
            ["0-9", "30-39", "40-49", "80-89", "90+", "90+"],
        ),
        ("creatinine", [0.0, 68.4, 1234.0, -5.55], [0.0, 68.0, 1200.0, -5.6]),
        ("haemoglobin", [7.64, 8.06], [7.6, 8.1]),
        ("risk:x", [0.1649, 0.9951], [0.16, 1.0]),
        ("diabetes", [0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_values_are_made_coarser(name: str, given_values: list[float], told: list[Any]) -> None:
    """Ages in bands, risks to two decimals, values to two digits or as many decimals as named."""
    limits = Limits(decimals={"haemoglobin": 1})
    assert generalised(pd.DataFrame({name: given_values}), limits)[name].tolist() == told


@pytest.mark.parametrize(
    ("period", "told"), [("month", "2026-11"), ("quarter", "2026Q4"), ("year", "2026")]
)
def test_times_become_periods(period: Any, told: str) -> None:
    """In UTC; what is missing stays so."""
    times = pd.to_datetime(pd.Series(["2026-11-21T12:00:00Z", None]), utc=True)
    column = generalised(pd.DataFrame({"as_of": times}), Limits(period=period))["as_of"]
    assert column[0] == told
    assert pd.isna(column[1])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0102031234", True),
        ("010203-1234", True),
        ("290204 9999", True),
        ("2902001234", True),
        ("patient 0201919990 seen", True),
        ("010203D12X", False),
        ("0102031AB2", True),
        ("3102031234", False),
        ("2902031234", False),
        ("0113031234", False),
        ("00102031234", False),
        ("a0102031234", False),
        ("01020312345", False),
    ],
)
def test_a_cpr_number_is_known_by_its_date_not_by_a_check_digit(text: str, *, is_one: bool) -> None:
    """Numbers that modulus 11 does not fit are real since 2007; what is no date is no number."""
    assert holds_cpr(text) is is_one


def test_identifiers_are_named_by_column_and_kind_alone() -> None:
    """A number whose first zero was lost, a reference, a name of staff in any case, a column."""
    table = pd.DataFrame(
        {
            "crp": [4.0, 102031234.0],
            "unit": ["Overlæge a. BERG", "Encounter/7"],
            "cpr": ["", ""],
            "fine": [1e12, 1.5],
        }
    )
    assert identifiers_in(table, ["A. Berg", "B"]) == [
        Finding("cpr", "column", 2),
        Finding("crp", "CPR number", 1),
        Finding("unit", "FHIR reference", 1),
        Finding("unit", "name of staff", 1),
    ]
