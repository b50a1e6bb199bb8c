"""A cohort: features and outcomes of every eligible index in Bulk Data, and who was left out.

An index is a moment the question could have been asked at: the end of a stay, or a set of findings.
The features come from the same `FeatureSet.compute` that serves hooks; the verdict on who counts
from the same `verdict_on`. The frame has one row per index: `patient`, `index_time`, the model's
columns (NaN missing), and per head `state:<head>` (event, no-event, competing, censored,
not-applicable) and `days:<head>` to the event. Asked for, the package's reference scores stand
beside them, of the same record at the same moment: `score:<name>` (points, or the risk of a score
that has none) and `score-risk:<name>` (0 to 1); NaN where the score does not apply, lacks an input,
or gives no risk.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fhir_adapters.bulk import index_bulk_data, read_patients
from fhir_adapters.clock import DAY_S, to_datetime
from fhir_adapters.decode import Gathered
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record, newest_time
from fhir_adapters.features.compute import FeatureRow
from fhir_adapters.outcomes import Later, Outcome, discharged_stays, find_outcome
from fhir_adapters.record import PatientRecord, Stay
from fhir_adapters.sets import set_times
from fhir_adapters.stays import is_admission
from models.errors import TrainingRefused
from models.manifest import Head
from models.package import Specification
from models.predict import applies, verdict_on
from models.scores.score import ReferenceScore


@dataclass(frozen=True, slots=True)
class CohortRow:
    """One index that counts: values in the order of the columns, outcomes in that of the heads.

    `scores`: points and risk of each reference score in the package's order; empty where they
    were not asked for.
    """

    patient: str
    index_time: float
    values: list[float]
    outcomes: list[Outcome]
    scores: list[float]


@dataclass(slots=True)
class Cohort:
    """The frame, and how many indexes were left out for which reason."""

    frame: pd.DataFrame
    patients: int
    indexes: int
    excluded: dict[str, int]

    def of_head(self, head: str) -> pd.DataFrame:
        """The rows a head is for, with its outcome as `state` and `days`."""
        return frame_of_head(self.frame, head)


def frame_of_head(frame: pd.DataFrame, head: str) -> pd.DataFrame:
    """The rows of a cohort frame a head is for, with its outcome as `state` and `days`."""
    others = [c for c in frame.columns if c.startswith(("state:", "days:"))]
    kept = frame.drop(columns=others)
    kept["state"], kept["days"] = frame[f"state:{head}"], frame[f"days:{head}"]
    return kept[kept["state"] != "not-applicable"].reset_index(drop=True)


def build_cohort(
    spec: Specification,
    folder: Path,
    *,
    data_until: float | None = None,
    with_scores: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """The cohort of a folder of Bulk Data NDJSON.

    `data_until`: where the data end; by default the export's own time, else its newest resource.
    `with_scores`: compute the package's reference scores too, for comparison. `progress` is told
    patients done and patients in all. Raises UnreadableInput for a folder that is no Bulk Data,
    TrainingRefused for a package whose question has no index of its own.
    """
    index = index_bulk_data(folder)
    until = data_until or index.until or _newest(read_patients(index))
    return cohort_of(
        spec,
        read_patients(index),
        until,
        total=len(index),
        with_scores=with_scores,
        progress=progress,
    )


def _newest(patients: Iterable[tuple[str, Gathered]]) -> float:
    times = (newest_time(gathered) for _, gathered in patients)
    return max((t for t in times if t is not None), default=math.inf)


def cohort_of(
    spec: Specification,
    patients: Iterable[tuple[str, Gathered]],
    data_until: float,
    *,
    total: int,
    with_scores: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """The cohort of patients one by one."""
    if spec.manifest.index.kind == "as-of":
        raise TrainingRefused("index.kind is as-of: no moment of a record is an index")
    rows: list[CohortRow] = []
    excluded: Counter[str] = Counter()
    indexes = 0
    done = 0
    for done, (patient_id, gathered) in enumerate(patients, start=1):
        try:
            record = build_record(gathered, spec.wanted_later, patient_id=patient_id)
        except UnreadableInput:
            excluded["patient unreadable"] += 1
            continue
        for found in _indexes(spec, record, data_until, with_scores=with_scores):
            indexes += 1
            if isinstance(found, CohortRow):
                rows.append(found)
            else:
                excluded[found] += 1
        if progress and done % 100 == 0:
            progress(done, total)
    if progress:
        progress(done, total)
    frame = _frame(spec, rows, with_scores=with_scores)
    return Cohort(frame, done, indexes, dict(excluded.most_common()))


def _indexes(
    spec: Specification, record: PatientRecord, data_until: float, *, with_scores: bool
) -> Iterator[CohortRow | str]:
    """Every index the cohort takes, as a row or as the reason it does not count."""
    later = Later(record, spec.manifest.stay, data_until)
    for moment in _taken(spec, record, data_until):
        row = spec.features.compute(record, moment)
        verdict = verdict_on(spec, record, row)
        if verdict.status == "not-eligible":
            yield verdict.reason or "not eligible"
        elif verdict.status == "insufficient-data":
            yield f"insufficient data: {verdict.reason}"
        else:
            outcomes = [_outcome(head, later, row, moment) for head in spec.manifest.heads]
            scores = _scores(spec, record, moment) if with_scores else []
            yield CohortRow(record.patient_id, moment, row.numbers(spec.columns), outcomes, scores)


def _scores(spec: Specification, record: PatientRecord, moment: float) -> list[float]:
    """Points and risk of every reference score of the package, one score after the other."""
    found = spec.scores.every(record, moment) if spec.scores else []
    return [number for score in found for number in (_ranked(score), _or_nan(score.risk))]


def _ranked(score: ReferenceScore) -> float:
    """What a score puts patients in order by: points, or risk where it has no points."""
    return _or_nan(score.risk if score.points is None else score.points)


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else float(number)


def _outcome(head: Head, later: Later, row: FeatureRow, moment: float) -> Outcome:
    if not applies(head, row):
        return Outcome("not-applicable", reason="the head is not for the patient")
    return find_outcome(head.rule, later, moment)


def _taken(spec: Specification, record: PatientRecord, data_until: float) -> list[float]:
    """The moments with enough history, every one or each patient's first."""
    if spec.manifest.index.kind == "stay":
        return [stay.end for stay in _taken_stays(spec, record, data_until)]
    words, rule = spec.manifest.cohort, spec.manifest.index.set_rule
    times = set_times(record, rule, data_until) if rule else []
    if words.history_days:  # without it, a patient never in contact with a hospital counts as well
        times = [time for time in times if time - _begins(record) >= words.history_days * DAY_S]
    return times if words.stays == "every" else times[:1]


def _begins(record: PatientRecord) -> float:
    """When the record's contacts begin; never where there is none."""
    return min((contact.start for contact in record.contacts), default=math.inf)


def _taken_stays(spec: Specification, record: PatientRecord, data_until: float) -> list[Stay]:
    """The discharged stays with enough history, every one or each patient's first.

    The first is the first admission: a short contact before it does not take its place, and stands
    for the patient only where there is no admission at all.
    """
    words = spec.manifest.cohort
    stays = [
        stay
        for stay in discharged_stays(record, spec.manifest.stay, data_until)
        if stay.start - _begins(record) >= words.history_days * DAY_S
    ]
    if words.stays == "every":
        return stays
    admissions = [s for s in stays if is_admission(s, spec.manifest.stay, s.end)]
    return (admissions or stays)[:1]


def _frame(spec: Specification, rows: list[CohortRow], *, with_scores: bool) -> pd.DataFrame:
    named = spec.manifest.reference_scores if with_scores else []
    columns = [*spec.columns, *(f"{kind}:{n}" for n in named for kind in ("score", "score-risk"))]
    numbers = [row.values + row.scores for row in rows]
    frame = pd.DataFrame(numbers, columns=columns, dtype="float64")
    frame.insert(0, "patient", [row.patient for row in rows])
    frame.insert(
        1, "index_time", pd.to_datetime([to_datetime(r.index_time) for r in rows], utc=True)
    )
    for place, head in enumerate(spec.manifest.heads):
        found = [row.outcomes[place] for row in rows]
        frame[f"state:{head.id}"] = [outcome.state for outcome in found]
        frame[f"days:{head.id}"] = [math.nan if o.days is None else o.days for o in found]
    return frame
