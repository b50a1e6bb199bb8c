"""The cohort: who counts, who is left out and why, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fhir_adapters.clock import DAY_S
from fhir_adapters.decode import Gathered, decode_lines
from fhir_adapters.facts import build_record
from models.cohort import Cohort, build_cohort, cohort_of
from models.package import Package, Specification
from models.predict import reference_scores
from models.synthetic.bulk import write_bulk_data
from models.synthetic.charts import READMISSION, SyntheticPatient, draw_patients
from models.synthetic.readmission import STUDY_END

SEED, PATIENTS = 40_404, 700
FOLLOWED = STUDY_END.timestamp() + 31 * DAY_S
"""Every index stay is followed for its thirty days."""
EXCLUDED_AS = {
    "in-hospital-death": "deceased",
    "under-18": "under-18",
    "obstetric": "obstetric",
    "short-contact": "stay-too-short",
    "psychiatric": "psychiatric",
    "palliative": "palliative",
}
"""What the generator calls a patient who does not count, and what the cohort does."""


def gathered(patients: Sequence[SyntheticPatient]) -> Iterator[tuple[str, Gathered]]:
    """Each patient's record, decoded."""
    for patient in patients:
        yield patient.patient_id, decode_lines([line for _, line in patient.resources])


def cohort_until(
    spec: Specification, patients: Sequence[SyntheticPatient], data_until: float
) -> Cohort:
    return cohort_of(spec, gathered(patients), data_until, total=len(patients))


@pytest.fixture(scope="module")
def drawn() -> list[SyntheticPatient]:
    """Fresh patients with what only the generator knows."""
    return list(draw_patients(SEED, PATIENTS))


@pytest.fixture(scope="module")
def cohort(package: Package, drawn: list[SyntheticPatient]) -> Cohort:
    """Their cohort, followed to the end."""
    return cohort_until(package, drawn, FOLLOWED)


@pytest.fixture(scope="module")
def with_scores(package: Package, drawn: list[SyntheticPatient]) -> Cohort:
    """The same cohort, with the package's reference scores."""
    return cohort_of(package, gathered(drawn), FOLLOWED, total=len(drawn), with_scores=True)


# ---- who counts -----------------------------------------------------------------------------


def test_every_stay_is_a_row_or_has_the_reason_it_is_not(cohort: Cohort) -> None:
    assert cohort.patients == PATIENTS
    assert cohort.indexes == len(cohort.frame) + sum(cohort.excluded.values())


def test_who_is_left_out_is_who_the_generator_left_out(
    cohort: Cohort, drawn: list[SyntheticPatient]
) -> None:
    """Reason by reason; only lacking blood tests leave out others besides."""
    truth = {EXCLUDED_AS[p.truth.exclusion] for p in drawn if p.truth.exclusion}
    assert truth <= set(cohort.excluded)
    for name, reason in EXCLUDED_AS.items():
        assert cohort.excluded[reason] == sum(p.truth.exclusion == name for p in drawn), name
    others = set(cohort.excluded) - set(EXCLUDED_AS.values())
    assert all(reason.startswith("insufficient data: ") for reason in others)


def test_every_row_is_the_index_discharge_the_generator_drew(
    cohort: Cohort, drawn: list[SyntheticPatient]
) -> None:
    ends = {p.patient_id: p.truth.index_end for p in drawn}
    found = dict(zip(cohort.frame["patient"], cohort.frame["index_time"], strict=True))
    assert all(moment.timestamp() == ends[patient] for patient, moment in found.items())
    assert len(found) == len(cohort.frame), "one stay of each patient"


def test_the_outcomes_are_those_that_were_drawn(
    cohort: Cohort, drawn: list[SyntheticPatient]
) -> None:
    """Readmitted is an event, dead first is competing, and days count from the discharge."""
    truth = {p.patient_id: p.truth for p in drawn}
    for row in cohort.of_head("readmission").itertuples():
        known = truth[str(row.patient)]
        assert (row.state == "event") == known.readmitted
        if known.readmitted and known.readmitted_at is not None:
            assert float(str(row.days)) * DAY_S == pytest.approx(
                known.readmitted_at - known.index_end, abs=1
            )
        if row.state == "competing":
            assert known.died_at is not None
            assert known.died_at <= known.index_end + 30 * DAY_S
        if row.state == "no-event":
            assert math.isnan(float(str(row.days)))


def test_the_frame_has_the_model_s_columns_in_order(cohort: Cohort, package: Package) -> None:
    columns = list(cohort.frame.columns)
    assert columns == [
        "patient",
        "index_time",
        *package.columns,
        "state:readmission",
        "days:readmission",
    ]
    assert np.isfinite(cohort.frame["age"]).all()
    assert cohort.frame["albumin"].isna().any(), "what is missing stays missing"


def test_a_visit_to_the_emergency_department_does_not_take_the_place_of_the_admission(
    cohort: Cohort, drawn: list[SyntheticPatient]
) -> None:
    """The index is each patient's first admission, also where a short contact came before it."""
    eligible = sum(not p.truth.exclusion for p in drawn)
    lacking = sum(n for reason, n in cohort.excluded.items() if reason.startswith("insuff"))
    assert len(cohort.frame) == eligible - lacking


# ---- reference scores ------------------------------------------------------------------------


def test_scores_stand_in_the_frame_only_where_they_were_asked_for(
    cohort: Cohort, with_scores: Cohort, package: Package
) -> None:
    """Two columns a score the package names; all else is the same."""
    named = package.manifest.reference_scores
    columns = [f"{kind}:{name}" for name in named for kind in ("score", "score-risk")]
    assert not [c for c in cohort.frame.columns if c.startswith("score")]
    pd.testing.assert_frame_equal(with_scores.frame.drop(columns=columns), cohort.frame)
    assert list(with_scores.of_head("readmission").columns)[-2 - len(columns) : -2] == columns


def test_a_row_has_the_scores_a_card_would_have_shown_at_that_moment(
    with_scores: Cohort, package: Package, drawn: list[SyntheticPatient]
) -> None:
    """Same record, same moment, same function; NaN where the card says what is lacking."""
    rows = with_scores.frame.set_index("patient")
    lacking = 0
    for patient_id, found in gathered(drawn[:150]):
        if patient_id not in rows.index:
            continue
        record = build_record(found, package.wanted, patient_id=patient_id)
        row = rows.loc[patient_id]
        moment = row["index_time"].timestamp()
        for score in reference_scores(package, package.features.at(record, moment), language="en"):
            shown = (score.points, score.risk)
            kept = (row[f"score:{score.score}"], row[f"score-risk:{score.score}"])
            assert kept == pytest.approx(
                tuple(math.nan if n is None else n for n in shown), nan_ok=True
            )
            lacking += bool(score.missing)
    assert lacking, "somebody with cancer has no HOSPITAL score"


# ---- time -----------------------------------------------------------------------------------


def test_a_stay_not_followed_for_its_horizon_is_censored_whatever_came_early(
    package: Package, drawn: list[SyntheticPatient], cohort: Cohort
) -> None:
    """Else the newest month would hold its readmissions but not those who stayed at home."""
    cut = float(np.median([p.truth.index_end for p in drawn if not p.truth.exclusion]))
    rows = cohort.of_head("readmission")
    full = dict(zip(rows["patient"], rows["state"], strict=True))
    early = cohort_until(package, drawn, cut).of_head("readmission")
    followed = early["index_time"] + pd.Timedelta(days=30) <= pd.Timestamp(cut, unit="s", tz="UTC")
    assert early["state"].tolist() == [
        full[patient] if whole else "censored"
        for patient, whole in zip(early["patient"], followed, strict=True)
    ]
    assert (early["state"] == "censored").any()


def test_nothing_after_the_end_of_the_data_is_known(
    package: Package, drawn: list[SyntheticPatient]
) -> None:
    cut = float(np.median([p.truth.index_end for p in drawn]))
    frame = cohort_until(package, drawn, cut).frame
    assert all(moment.timestamp() <= cut for moment in frame["index_time"])


def test_features_are_those_known_at_discharge(
    package: Package, drawn: list[SyntheticPatient], cohort: Cohort
) -> None:
    """What is recorded after the index discharge changes no feature, only the outcome."""
    later = cohort.frame.set_index("patient")[package.columns]
    counted = [p for p in drawn[:120] if p.patient_id in later.index]
    for patient in counted:
        then = cohort_until(package, [patient], float(patient.truth.index_end)).frame
        values = then[package.columns].to_numpy()[0]
        assert np.array_equal(values, later.loc[patient.patient_id].to_numpy(), equal_nan=True)


# ---- rules of the manifest ------------------------------------------------------------------


def test_the_rule_of_the_manifest_decides_which_stays_are_taken(
    package: Package, drawn: list[SyntheticPatient], cohort: Cohort
) -> None:
    """Every stay instead of the first with a year of history: more stays, the same rows among."""
    rule = package.manifest.cohort
    assert (rule.history_days, rule.stays) == (365.0, "first")
    some = drawn[:150]
    more = cohort_until(
        replace_cohort_rule(package, history_days=0.0, stays="every"), some, FOLLOWED
    )
    one = cohort_until(package, some, FOLLOWED)
    assert one.indexes <= len(some) < more.indexes
    pairs = [set(zip(c.frame["patient"], c.frame["index_time"], strict=True)) for c in (one, more)]
    assert pairs[0] <= pairs[1]
    assert pairs[0] <= set(zip(cohort.frame["patient"], cohort.frame["index_time"], strict=True))


def replace_cohort_rule(package: Package, *, history_days: float, stays: str) -> Specification:
    """The package's specification with another rule of which stays count."""
    rule = msgspec.structs.replace(package.manifest.cohort, history_days=history_days, stays=stays)
    return Specification(msgspec.structs.replace(package.manifest, cohort=rule), package.features)


# ---- from files -----------------------------------------------------------------------------


def test_a_folder_of_bulk_data_gives_the_cohort_its_patients_give(
    package: Package, tmp_path: Path
) -> None:
    """Files or stream: one feature path, one answer. The export says itself where it ends."""
    write_bulk_data(READMISSION, tmp_path, patients=60, seed=SEED, progress=lambda _: None)
    told: list[tuple[int, int]] = []
    read = build_cohort(package, tmp_path, progress=lambda done, total: told.append((done, total)))
    streamed = cohort_until(package, list(draw_patients(SEED, 60)), STUDY_END.timestamp())
    by_patient = [c.frame.sort_values("patient").reset_index(drop=True) for c in (read, streamed)]
    assert by_patient[0].equals(by_patient[1])
    assert read.excluded == streamed.excluded
    assert told[-1] == (60, 60)


def test_an_unreadable_patient_is_counted_and_costs_nobody_else(
    package: Package, drawn: list[SyntheticPatient]
) -> None:
    some = list(drawn[:30])
    without = [line for kind, line in some[0].resources if kind != "Patient"]
    broken = [("broken", decode_lines(without)), *gathered(some[1:])]
    found = cohort_of(package, broken, FOLLOWED, total=30)
    assert found.excluded["patient unreadable"] == 1
    assert found.frame.equals(cohort_until(package, some[1:], FOLLOWED).frame)


# ---- against the truth ----------------------------------------------------------------------


def test_the_model_is_not_better_than_the_oracle(
    package: Package, cohort: Cohort, drawn: list[SyntheticPatient]
) -> None:
    """A smoke test on few patients; the gate does it on 100,000."""
    oracle_risk = {p.patient_id: p.truth.true_risk for p in drawn}
    event = (cohort.of_head("readmission")["state"] == "event").to_numpy()
    oracle = cohort.frame["patient"].map(oracle_risk).to_numpy(dtype=np.float64)
    risk = package.heads[0].trees.risk(cohort.frame[package.columns].to_numpy(dtype=np.float64))
    assert np.isfinite(oracle).all()
    assert 0.55 < roc_auc_score(event, risk) <= roc_auc_score(event, oracle) + 0.05
