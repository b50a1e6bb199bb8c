"""Who is analysed, and that everyone else is accounted for."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.cohort import STATES, sample_of, select_cohort
from validation.errors import InvalidFrame

PREDICTIONS = pd.DataFrame(
    [
        # patient  when                    risk  what became of it
        ("anna", "2026-01-01T08:00:00Z", 0.30, "event"),
        ("anna", "2026-02-01T08:00:00Z", 0.40, "no-event"),
        ("bent", "2026-01-05T08:00:00Z", 0.10, "no-event"),
        ("carl", "2026-01-07T08:00:00Z", 0.60, "competing"),
        ("dora", "2026-03-01T08:00:00Z", 0.20, "pending"),
        ("erik", "2026-01-09T08:00:00Z", 0.20, "censored"),
    ],
    columns=["patient", "index_time", "risk", "state"],
)


def test_flow_names_every_way_out_and_adds_up() -> None:
    """The flow starts with those the caller left out and ends with the outcomes of the analysed."""
    flow = select_cohort(PREDICTIONS, {"not eligible: under 18 years": 7}).flow
    assert [tuple(step) for step in flow] == [
        ("considered", 13, ""),
        ("excluded", 7, "not eligible: under 18 years"),
        ("excluded", 1, "outcome still pending: follow-up not complete"),
        ("excluded", 1, "outcome censored: follow-up ended before the horizon"),
        ("analysed", 4, "3 patients"),
        ("of these", 1, "outcome came"),
        ("of these", 2, "outcome did not come within the horizon"),
        ("of these", 1, "died before the outcome could come (counted as no outcome)"),
    ]


def test_pending_outcome_is_not_a_negative() -> None:
    """Predictions whose outcome is not known yet are not in the sample at all."""
    sample = sample_of(select_cohort(PREDICTIONS, {}))
    assert sample.risk.tolist() == [0.30, 0.40, 0.10, 0.60]
    assert sample.event.tolist() == [True, False, False, False]


def test_death_is_no_event_and_in_the_sensitivity_analysis_an_event() -> None:
    """Carl died first: without the outcome in the primary analysis, with it in the composite."""
    sample = sample_of(select_cohort(PREDICTIONS, {}), death_as_event=True)
    assert sample.event.tolist() == [True, False, False, True]


def test_predictions_of_one_patient_stay_together() -> None:
    """Anna's two predictions carry the same patient number."""
    sample = sample_of(select_cohort(PREDICTIONS, {}))
    assert sample.patient.tolist() == [0, 0, 1, 2]
    assert sample.patients == 3


@given(
    states=st.lists(st.sampled_from(STATES), min_size=1, max_size=40),
    left_out=st.dictionaries(st.text(min_size=1), st.integers(0, 1000), max_size=4),
)
def test_flow_always_adds_up(states: list[str], left_out: dict[str, int]) -> None:
    """Considered less excluded is analysed; the outcomes sum to the analysed."""
    frame = pd.DataFrame(
        {"patient": "p", "index_time": "2026-01-01T00:00:00Z", "risk": 0.5, "state": states}
    )
    flow = select_cohort(frame, left_out).flow
    total = {step: sum(one.n for one in flow if one.step == step) for step, _, _ in flow}
    assert total["considered"] - total["excluded"] == total["analysed"] == total["of these"]


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("risk", 1.0, "1 rows not above 0 and below 1"),
        ("risk", 12.5, "1 rows not above 0 and below 1"),
        ("risk", None, "1 rows without a value"),
        ("risk", "high", "not every row is a number"),
        ("state", "dead", "1 rows not one of"),
        ("patient", None, "1 rows without a value"),
        ("index_time", "last Tuesday", "not every row is an ISO 8601 time"),
    ],
)
def test_wrong_value_is_refused_by_column(column: str, value: object, says: str) -> None:
    """A frame that breaks the contract is refused; the message names the column, not the value."""
    frame = PREDICTIONS.astype(object)
    frame[column] = [value, *frame[column][1:]]
    with pytest.raises(InvalidFrame, match=says) as refused:
        select_cohort(frame, {})
    assert refused.value.column == column


def test_absent_column_is_refused() -> None:
    """A frame without the states cannot be validated."""
    with pytest.raises(InvalidFrame, match="column 'state': is absent"):
        select_cohort(PREDICTIONS.drop(columns="state"), {})
