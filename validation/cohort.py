"""Who is analysed: the states of an outcome, the flow from predictions to the analysed sample.

Lives here: the input contract of `validate`, the flow, the sample as arrays.
Does not live here: finding outcomes (fhir_adapters) and statistics (`statistics`, `resampling`).
Called by `validation.analysis`.

The input is a frame with one row per prediction:

    patient      str                       the cluster: the pseudonym of the patient
    index_time   datetime64 or ISO 8601    when the prediction was made; without a zone it is UTC
    risk         float, above 0, below 1   the predicted risk, not percent
    state        str                       one of `STATES`, the state of the outcome

    score:<id>   float, NaN            a published score, where all of it is known (may be absent)
    score-risk:<id>  float, NaN        the risk it gives (may be absent)

Other columns are ignored. A missing value in any of the four is an error, never a "no event".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from validation.errors import InvalidFrame

EVENT: Final = "event"
NO_EVENT: Final = "no-event"
COMPETING: Final = "competing"
CENSORED: Final = "censored"
PENDING: Final = "pending"
STATES: Final = (EVENT, NO_EVENT, COMPETING, CENSORED, PENDING)

SCORE: Final = "score:"
RISK_OF_SCORE: Final = "score-risk:"

NOT_ANALYSED: Final[Mapping[str, str]] = {
    PENDING: "outcome still pending: follow-up not complete",
    CENSORED: "outcome censored: follow-up ended before the horizon",
}
"""States that leave the analysis, with the reason given in the flow. They are never counted as
"no event": an outcome not yet ripe is not a negative."""


class FlowStep(NamedTuple):
    """One line of the cohort flow: `n` predictions; `reason` is empty where none applies."""

    step: str
    n: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What every statistic takes: three arrays of the same length, one place per prediction.

    `event` is true where the outcome came, `risk` is the predicted risk in (0, 1), `patient`
    numbers the patients from 0, so that predictions of the same patient stay together.
    """

    event: npt.NDArray[np.bool_]
    risk: npt.NDArray[np.float64]
    patient: npt.NDArray[np.intp]

    @property
    def n(self) -> int:
        """Number of predictions."""
        return len(self.event)

    @property
    def events(self) -> int:
        """Number of predictions followed by the outcome."""
        return int(self.event.sum())

    @property
    def patients(self) -> int:
        """Number of different patients."""
        return int(self.patient.max()) + 1 if self.n else 0


@dataclass(frozen=True, slots=True)
class Cohort:
    """The analysed predictions and how one came to them."""

    rows: pd.DataFrame
    flow: tuple[FlowStep, ...]

    @property
    def has_competing(self) -> bool:
        """Whether any patient died before the outcome could come."""
        return bool((self.rows["state"] == COMPETING).any())


def select_cohort(frame: pd.DataFrame, excluded: Mapping[str, int]) -> Cohort:
    """The predictions with a known outcome, and the flow that leads to them.

    `excluded` holds what the caller left out before the frame was made, as reason and number of
    predictions ("not eligible: stay under 12 hours": 40); the flow begins with those included.
    Pending and censored predictions leave and are counted. Raises `InvalidFrame`.
    """
    checked = check_frame(frame)
    rows = checked[~checked["state"].isin(list(NOT_ANALYSED))].reset_index(drop=True)
    return Cohort(rows=rows, flow=tuple(_flow(checked, rows, excluded)))


def sample_of(cohort: Cohort, *, death_as_event: bool = False) -> Sample:
    """The cohort as arrays.

    A patient who died before the outcome could come counts as "no event", which is what the risk
    predicts (the chance that the outcome really comes). With `death_as_event` the death counts as
    an event instead (composite outcome), as a sensitivity analysis.
    """
    states = [EVENT, COMPETING] if death_as_event else [EVENT]
    codes, _ = pd.factorize(cohort.rows["patient"])
    return Sample(
        event=cohort.rows["state"].isin(states).to_numpy(dtype=bool),
        risk=cohort.rows["risk"].to_numpy(dtype=np.float64),
        patient=codes,
    )


def check_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns with the right types; `InvalidFrame` names the first that is wrong."""
    for column in ("patient", "index_time", "risk", "state"):
        if column not in frame.columns:
            raise InvalidFrame(column, "is absent")
        if missing := int(frame[column].isna().sum()):
            raise InvalidFrame(column, f"{missing} rows without a value")
    return pd.DataFrame(
        {
            "patient": frame["patient"].astype(str),
            "index_time": _times(frame["index_time"]),
            "risk": _risks(frame["risk"]),
            "state": _states(frame["state"]),
            **{str(name): _numbers(frame[name]) for name in frame.columns if _is_score(name)},
        }
    )


def _is_score(name: object) -> bool:
    return str(name).startswith((SCORE, RISK_OF_SCORE))


def _times(column: pd.Series) -> pd.Series:
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise InvalidFrame("index_time", "not every row is an ISO 8601 time") from error


def _risks(column: pd.Series) -> pd.Series:
    """Risks strictly between 0 and 1: of exactly 0 or 1 the log-odds are infinite."""
    risks = _numbers(column)
    if outside := int((~((risks > 0) & (risks < 1))).sum()):
        raise InvalidFrame("risk", f"{outside} rows not above 0 and below 1")
    return risks


def _numbers(column: pd.Series) -> pd.Series:
    try:
        return column.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidFrame(str(column.name), "not every row is a number") from error


def _states(column: pd.Series) -> pd.Series:
    if unknown := int((~column.isin(STATES)).sum()):
        raise InvalidFrame("state", f"{unknown} rows not one of {', '.join(STATES)}")
    return column.astype(str)


def _flow(checked: pd.DataFrame, rows: pd.DataFrame, excluded: Mapping[str, int]) -> list[FlowStep]:
    states = checked["state"].value_counts()
    before = [FlowStep("excluded", n, reason) for reason, n in excluded.items()]
    here = [
        FlowStep("excluded", int(states.get(state, 0)), reason)
        for state, reason in NOT_ANALYSED.items()
    ]
    outcomes = {
        EVENT: "outcome came",
        NO_EVENT: "outcome did not come within the horizon",
        COMPETING: "died before the outcome could come (counted as no outcome)",
    }
    return [
        FlowStep("considered", len(checked) + sum(excluded.values()), ""),
        *before,
        *here,
        FlowStep("analysed", len(rows), f"{rows['patient'].nunique():,} patients"),
        *(FlowStep("of these", int(states.get(s, 0)), text) for s, text in outcomes.items()),
    ]
