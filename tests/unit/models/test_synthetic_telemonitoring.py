"""The synthetic telemonitoring cohorts: deteriorations first, measurements second, valid FHIR."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fhir_adapters.codes import code_table
from fhir_adapters.decode import decode_lines
from fhir_adapters.facts import build_record, newest_time
from fhir_adapters.reading.wanted import AnswerRule, Wanted
from models.synthetic import GENERATORS
from models.synthetic.bulk import NOTICE, Drawn, write_bulk_data
from models.synthetic.telemonitoring.anchors import (
    DISEASES,
    Disease,
    load_tables,
    numbers_of,
    rate_ratios,
)
from models.synthetic.telemonitoring.chart import Chart
from models.synthetic.telemonitoring.codings import FORMS, ILLNESS
from models.synthetic.telemonitoring.cohort import (
    BLOCK_SIZE,
    DATA_END,
    Block,
    charts_of,
    draw_block,
    draw_charts,
)
from models.synthetic.telemonitoring.course import ADMISSION, COURSE, draw_course
from models.synthetic.telemonitoring.home import SYMPTOMS, draw_sets, prodrome
from models.synthetic.telemonitoring.lines import WORDS, person_lines
from models.synthetic.telemonitoring.people import draw_people, rate_terms

MODELS = {"copd": "copd-deterioration", "heart_failure": "hf-deterioration"}
DAY_S = 86_400
SEED = 2026
both = pytest.mark.parametrize("disease", DISEASES)


@cache
def blocks(disease: Disease) -> list[Block]:
    """800 persons as arrays."""
    return [draw_block(disease, SEED, number=number) for number in range(16)]


@cache
def charts(disease: Disease) -> list[Chart]:
    """50 persons' charts."""
    return list(charts_of(blocks(disease)[0]))


@cache
def records(disease: Disease) -> list[list[dict[str, Any]]]:
    """The same 50 persons as FHIR, each a list of resources."""
    drawn = charts_of(blocks(disease)[0])
    return [[json.loads(line) for _, line in person_lines(chart)] for chart in drawn]


def of(resources: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources if resource["resourceType"] == kind]


def second(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def drawn(disease: Disease, n: int) -> list[tuple[str, tuple[Any, ...], tuple[Any, ...]]]:
    cohort: Iterator[Drawn] = GENERATORS[MODELS[disease]].draw(SEED, n)
    return [(one.patient_id, tuple(one.resources), tuple(one.truth)) for one in cohort]


# ---- the anchors --------------------------------------------------------------------------------


def test_every_number_has_a_source_and_says_how_sure_we_are() -> None:
    for table, anchors in load_tables().items():
        for name, anchor in anchors.items():
            assert anchor.source.strip(), f"{table}.{name}"
            assert anchor.unit.strip(), f"{table}.{name}"
            assert anchor.evidence in {"S", "C", "M", "D"}, f"{table}.{name}"


@both
def test_every_rate_ratio_is_used_and_nothing_else_moves_the_rate(disease: Disease) -> None:
    people = draw_people(np.random.default_rng(1), 10, disease)
    assert set(rate_terms(people, disease)) == set(rate_ratios(disease))


# ---- who is enrolled ----------------------------------------------------------------------------


@both
def test_persons_are_as_anchored(disease: Disease) -> None:
    numbers = numbers_of(disease)
    people = draw_people(np.random.default_rng(7), 20_000, disease)
    assert people["age"].mean() == pytest.approx(numbers["age_mean"], abs=0.5)
    assert people["age"].std() == pytest.approx(numbers["age_sd"], abs=0.6)
    for name in ("male", "smoker", "cuff", "oximeter", "own_limits", "beta_blocker"):
        assert people[name].mean() == pytest.approx(numbers[name], abs=0.012), name
    for name in ("af", "ckd", "diabetes", "ihd", "anxiety", "depression", "cancer"):
        assert people[name].mean() == pytest.approx(numbers[name], abs=0.03), name
    severity = "fev1" if disease == "copd" else "lvef"
    assert people[severity].mean() == pytest.approx(numbers[f"{severity}_mean"], abs=1.0)
    assert people["adherence"].mean() == pytest.approx(numbers["adherence"], abs=0.01)


# ---- deteriorations -----------------------------------------------------------------------------


@both
def test_the_frequent_ones_of_one_year_are_calmer_in_the_next(disease: Disease) -> None:
    """Regression to the mean: many who had two or more have none the year after."""
    onset = np.vstack([block.course.onset for block in blocks(disease)])
    before = (onset < 0).sum(axis=1)
    after = ((onset >= 0) & (onset < 365)).sum(axis=1)
    frequent = before >= 2
    assert after[frequent].mean() < 0.8 * before[frequent].mean()
    assert after[frequent].mean() > 1.5 * after[~frequent].mean()
    assert (after[frequent] == 0).mean() > 0.2


@both
def test_no_deterioration_begins_within_two_weeks_of_another(disease: Disease) -> None:
    onset = np.vstack([block.course.onset for block in blocks(disease)])
    gaps = np.diff(np.where(np.isfinite(onset), onset, np.nan), axis=1)
    assert np.nanmin(gaps) > numbers_of(disease)["calm_days"] - 1


@both
def test_winter_brings_more_than_summer(disease: Disease) -> None:
    found = Counter[bool]()
    for block in blocks(disease):
        days = (block.course.onset + block.enrolled[:, None]).ravel()
        of_year = days[np.isfinite(days)] % 365.25
        found.update(((of_year < 90) | (of_year > 305)).tolist())
    assert found[True] / (150 / 365.25) > 1.1 * found[False] / (215 / 365.25)


@both
def test_what_they_lead_to_is_as_anchored(disease: Disease) -> None:
    numbers = numbers_of(disease)
    known = [np.isfinite(block.course.onset) for block in blocks(disease)]
    kinds = np.concatenate(
        [b.course.kind[there] for b, there in zip(blocks(disease), known, strict=True)]
    )
    assert (kinds == ADMISSION).mean() == pytest.approx(numbers["admitted"], abs=0.08)
    visible = np.concatenate(
        [b.course.prodrome_days[there] > 0 for b, there in zip(blocks(disease), known, strict=True)]
    )
    assert visible.mean() == pytest.approx(numbers["visible"], abs=0.04)
    assert ((kinds == COURSE).sum() == 0) == (disease == "heart_failure")


# ---- measurements -------------------------------------------------------------------------------


def _ahead(block: Block, *, visible: bool) -> np.ndarray[Any, Any]:
    """Which sets lie in the last five days before a deterioration that shows, or does not."""
    course, day = block.course, block.sets.day
    shows = (course.prodrome_days > 0) == visible
    ahead = np.where(shows, course.onset, np.inf)[:, None, :] - day[:, :, None]
    return np.asarray(((ahead > 0) & (ahead < 5)).any(axis=2))


def _moved(disease: Disease, name: str, *, visible: bool) -> float:
    """How far a signal lies from usual in those sets, in own standard deviations."""
    found = []
    for block in blocks(disease):
        usual = block.people[f"{name}_usual"][:, None]
        if name == "weight":
            usual = usual + block.people["weight_trend"][:, None] * block.sets.day / 365.25
        away = (block.sets.values[name] - usual) / numbers_of(disease)[f"sd_{name}"]
        calm = prodrome(block.course, block.sets.day, 30.0) == 0.0
        chosen = _ahead(block, visible=visible) & (calm | visible)
        found.append(away[chosen])
    return float(np.nanmean(np.concatenate(found)))


@pytest.mark.parametrize(
    ("disease", "name", "sign"),
    [("copd", "spo2", -1), ("copd", "pulse", 1), ("heart_failure", "weight", 1)],
)
def test_prodromes_come_before_the_event_and_only_where_it_shows(
    disease: Disease, name: str, sign: int
) -> None:
    assert sign * _moved(disease, name, visible=True) > 0.3
    assert abs(_moved(disease, name, visible=False)) < 0.3


@both
def test_what_comes_later_changes_no_earlier_set(disease: Disease) -> None:
    """Another deterioration on day 200 leaves every set before its prodrome as it was."""
    people = draw_people(np.random.default_rng(3), 50, disease)
    enrolled = np.full(50, 19_500)
    course = draw_course(np.random.default_rng(4), people, disease, enrolled=enrolled)
    course = course._replace(death=np.full(50, np.inf))
    onset, length = course.onset.copy(), course.prodrome_days.copy()
    onset[:, -1], length[:, -1] = 200.0, 10.0
    changed = course._replace(onset=onset, prodrome_days=length)
    first = draw_sets(np.random.default_rng(5), people, course, disease)
    other = draw_sets(np.random.default_rng(5), people, changed, disease)
    early, late = first.day < 190.0, (first.day > 195.0) & (first.day < 200.0)
    assert np.array_equal(first.sent, other.sent)
    for name in first.values:
        assert np.array_equal(first.values[name][early], other.values[name][early], equal_nan=True)
    for name in first.answers:
        before, after = first.answers[name][early], other.answers[name][early]
        assert np.array_equal(before, after, equal_nan=True)
    moved = "spo2" if disease == "copd" else "weight"
    assert not np.array_equal(first.values[moved][late], other.values[moved][late], equal_nan=True)


@both
def test_sets_are_sent_as_faithfully_as_anchored_until_death(disease: Disease) -> None:
    numbers = numbers_of(disease)
    weeks = int(numbers["weeks"])
    living = [b.sets.sent[np.isinf(b.course.death), :weeks].mean() for b in blocks(disease)]
    assert np.mean(living) == pytest.approx(numbers["adherence"], abs=0.02)
    for block in blocks(disease):
        assert not (block.sets.sent & (block.sets.day >= block.course.death[:, None])).any()


# ---- as FHIR ------------------------------------------------------------------------------------


def _wanted(disease: Disease) -> Wanted:
    answers = tuple(
        AnswerRule(name, frozenset((name,)), {word: i for i, word in enumerate(WORDS)})
        for name in SYMPTOMS[disease]
    )
    concepts = {"spo2", "pulse", "sbp", "dbp", "weight", "height", "creatinine", "smoking"}
    concepts |= {"fev1_pct", "mrc_dyspnoea", "cat_score", "nyha", "lvef", "nt_probnp"}
    concepts |= {"copd", "heart_failure", "copd_exacerbation", "prednisolone", "loop_diuretic"}
    concepts |= {"episode_of_care", *SYMPTOMS[disease]}
    return Wanted(concepts=frozenset(concepts), answers=answers)


@both
def test_everything_written_is_read_without_troubles(disease: Disease) -> None:
    wanted = _wanted(disease)
    for chart in list(draw_charts(disease, SEED, n=25)):
        gathered = decode_lines([line for _, line in person_lines(chart)])
        record = build_record(gathered, wanted, patient_id=chart.person.patient_id)
        assert record.troubles == []
        assert record.of(disease)
        assert len(record.of("episode_of_care")) == 1
        assert not any(f.status == "refused-unit" for facts in record.facts.values() for f in facts)
        pulses = [f for f in record.of("pulse") if f.status == "ok"]
        sent = sum("pulse" in one.values for one in chart.sets)
        assert sent - 6 <= len(pulses) <= sent
        newest = newest_time(gathered)
        assert newest is not None
        assert newest < DATA_END.timestamp()


@both
def test_values_come_back_in_the_unit_of_the_concept(disease: Disease) -> None:
    """Fractions, pounds and metres are read as what was measured."""
    usual = {"weight": "weight_usual", "height": "height", "pulse": "pulse_usual"}
    for chart in list(draw_charts(disease, SEED, n=20)):
        lines = [line for _, line in person_lines(chart)]
        record = build_record(decode_lines(lines), _wanted(disease))
        for concept, name in usual.items():
            values = [f.value for f in record.of(concept) if f.status == "ok" and f.value]
            if values:
                assert np.median(values) == pytest.approx(chart.person.true[name], rel=0.2)


@both
def test_every_deterioration_is_found_in_the_record_where_it_happened(disease: Disease) -> None:
    for chart, resources in zip(charts(disease), records(disease), strict=True):
        contacts = {second(e["period"]["start"]): e for e in of(resources, "Encounter")}
        drugs = {second(m["authoredOn"]) for m in of(resources, "MedicationRequest")}
        for event in chart.deteriorations:
            if event.kind == COURSE:
                assert event.at in drugs
            else:
                contact = contacts[event.at]
                assert contact["class"]["code"] in {"IMP", "EMER"}
                assert contact["priority"]["coding"][0]["code"] != "EL"


@both
def test_contacts_for_other_reasons_touch_no_deterioration(disease: Disease) -> None:
    for chart in charts(disease):
        by_start = sorted(chart.contacts, key=lambda c: c.start)
        for one, following in itertools.pairwise(by_start):
            joined = one.reason == following.reason and following.start == one.end
            assert joined or following.start > one.end + 4 * 3600


@both
def test_at_every_moment_one_dose_of_diuretic_goes_on(disease: Disease) -> None:
    """A new dose begins when the last one ends: no status of today tells what came later."""
    for chart in charts(disease):
        doses = [s for s in chart.supplies if s.atc.startswith("C03CA")]
        assert bool(doses) == (chart.person.true.get("loop_diuretic", 0.0) > 0.5)
        for one, following in itertools.pairwise(doses):
            assert one.end == following.start


def test_own_limits_are_in_the_unit_of_their_measurement() -> None:
    """A saturation sent as a fraction has its limits as fractions."""
    seen = set()
    for resources in records("copd"):
        for one in of(resources, "Observation"):
            for stated in one.get("referenceRange", ()):
                unit = one["valueQuantity"]["unit"]
                ends = [stated[side] for side in ("low", "high") if side in stated]
                assert {end["unit"] for end in ends} == {unit}
                seen.add((unit, stated["type"]["coding"][0]["code"]))
    assert {("1", "RAL"), ("%", "RAL"), ("%", "GAL"), ("/min", "RAL")} <= seen


@both
def test_the_noise_that_readers_must_cope_with_is_there(disease: Disease) -> None:
    observations = [one for resources in records(disease) for one in of(resources, "Observation")]
    assert any(one["status"] == "entered-in-error" for one in observations)
    assert any(one["id"].endswith("-again") for one in observations)
    statuses = [
        condition["verificationStatus"]["coding"][0]["code"]
        for resources in records(disease)
        for condition in of(resources, "Condition")
        if "verificationStatus" in condition
    ]
    assert {"refuted", "unconfirmed", "entered-in-error"} & set(statuses)


def test_every_code_that_is_written_is_known_to_the_reader() -> None:
    table = code_table()
    for forms in FORMS.values():
        for form in forms:
            assert any(table.concepts_of(system, code) for system, code in form.codings)
    for name, codes in ILLNESS.items():
        for code in codes:
            found = table.concepts_of("urn:oid:1.2.208.176.2.4.12", "D" + code)
            assert name in {one.concept for one in found}


# ---- reproducible, and labelled -----------------------------------------------------------------


@both
def test_fewer_patients_are_a_prefix_of_more(disease: Disease) -> None:
    assert drawn(disease, BLOCK_SIZE + 1) == drawn(disease, BLOCK_SIZE + 3)[: BLOCK_SIZE + 1]


def test_the_two_cohorts_of_one_seed_are_not_the_same_people() -> None:
    copd, heart_failure = blocks("copd")[0], blocks("heart_failure")[0]
    assert not np.array_equal(copd.enrolled, heart_failure.enrolled)


@both
def test_the_same_seed_writes_the_same_bytes_and_says_that_it_is_synthetic(
    disease: Disease, tmp_path: Path
) -> None:
    generator = GENERATORS[MODELS[disease]]
    for name in ("one", "two"):
        write_bulk_data(generator, tmp_path / name, patients=12, seed=9, progress=lambda _: None)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    provenance = json.loads((tmp_path / "one" / "PROVENANCE.json").read_text())
    assert provenance["synthetic"] is True
    assert provenance["notice"] == NOTICE
    patients = (tmp_path / "one" / "Patient.ndjson").read_text().splitlines()
    for patient in map(json.loads, patients):
        assert patient["id"].startswith("syn-")
        assert patient["meta"]["security"][0]["code"] == "HTEST"
    with (tmp_path / "one" / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["patient_id"] for row in rows} == {json.loads(p)["id"] for p in patients}


@both
def test_the_truth_stands_in_no_record(disease: Disease) -> None:
    """Rates, prodromes and true values are the generator's own: no field of FHIR holds them."""
    for chart, resources in zip(charts(disease)[:20], records(disease), strict=False):
        text = json.dumps(resources)
        assert str(chart.person.rate) not in text
        assert dataclasses.asdict(chart.person)["disease"] == disease
