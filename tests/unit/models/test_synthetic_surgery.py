"""The synthetic surgery cohort: honest numbers, outcomes in the record, valid and reproducible."""

import csv
import importlib
import json
import math
import tomllib
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fhir_adapters.codes import code_table
from fhir_adapters.decode import decode_lines
from fhir_adapters.facts import build_record
from fhir_adapters.reading.wanted import Wanted
from models.synthetic import GENERATORS, codings
from models.synthetic.anchors import Anchor
from models.synthetic.bulk import write_bulk_data
from models.synthetic.people import People
from models.synthetic.surgery import codings as surgical
from models.synthetic.surgery import people
from models.synthetic.surgery.anchors import load_anchors
from models.synthetic.surgery.before import NUMBERS, PLAN
from models.synthetic.surgery.cohort import DATA_END, Block, generate_block
from models.synthetic.surgery.records import SyntheticPatient, block_patients, draw_patients
from models.synthetic.surgery.resources import RESOURCE_TYPES
from models.synthetic.surgery.risks import CHANCES, known_log_odds, terms_of

DAY_S = 86_400
MANIFEST = Path(__file__).parents[2] / "data" / "manifests" / "crc-surgery.toml"


@pytest.fixture(scope="module")
def block() -> Block:
    """30,000 patients as arrays."""
    return generate_block(2026, 0, 30_000)


@pytest.fixture(scope="module")
def written() -> list[SyntheticPatient]:
    """250 patients as FHIR."""
    return list(draw_patients(2026, 250))


@cache
def parsed(lines: tuple[tuple[str, bytes], ...]) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, json.loads(line)) for kind, line in lines]


def resources(patient: SyntheticPatient, *kinds: str) -> Iterator[dict[str, Any]]:
    return (resource for kind, resource in parsed(patient.resources) if kind in kinds)


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def times(resource: dict[str, Any]) -> list[int]:
    """Every full moment a resource tells."""
    periods = [resource.get(name, {}) for name in ("period", "performedPeriod")]
    texts = [text for period in periods for text in period.values()]
    names = ("effectiveDateTime", "authored", "authoredOn", "performedDateTime", "recordedDate")
    texts += [resource[name] for name in names if name in resource]
    return [seconds(text) for text in texts if "T" in text]


def codes(resource: dict[str, Any]) -> set[str]:
    return {coding["code"] for coding in resource.get("code", {}).get("coding", ())}


# ---- the anchors --------------------------------------------------------------------------------


def all_anchors() -> list[tuple[str, Anchor]]:
    anchors = load_anchors()
    groups = ("marginal", "prevalence", *CHANCES, "noise", "missing")
    return [(f"{g}.{n}", a) for g in groups for n, a in getattr(anchors, g).items()]


def test_every_number_has_a_source_and_says_how_sure_we_are() -> None:
    for name, anchor in all_anchors():
        assert anchor.source.strip(), name
        assert anchor.unit.strip(), name
        assert anchor.evidence in {"S", "C", "M", "D"}, name


@pytest.mark.parametrize("chance", CHANCES)
def test_every_odds_ratio_has_its_term(block: Block, chance: str) -> None:
    assert set(load_anchors().odds_ratios(chance)) <= set(terms_of(block.true))


# The feature that carries each term, where the model is held to one direction.
MONOTONE_FEATURE = {
    "age": "age", "who": "who_performance", "frailty_scale": "cfs", "asa_2": "asa", "asa_3": "asa",
    "asa_4": "asa", "emergency": "emergency", "heart_failure": "heart_failure", "copd": "copd",
    "ckd": "ckd", "dementia": "dementia", "liver_disease": "liver_disease", "diabetes": "diabetes",
    "metastatic": "cm1", "t4": "ct4", "obstruction": "obstruction", "rectum": "rectal_cancer",
    "multivisceral": "multivisceral", "neoadjuvant": "neoadjuvant", "stoma": "stoma",
    "smoker": "smoker", "steroid": "steroid", "immunosuppressant": "immunosuppressant",
    "underweight": "bmi_low", "weight_loss": "weight_loss_6m", "albumin": "albumin",
    "haemoglobin": "haemoglobin", "crp": "crp", "creatinine": "creatinine_now",
    "low_sodium": "sodium_deficit", "low_mets": "mets_below_4", "heavy_drinker": "alcohol_above_14",
    "ten_drugs": "ten_drugs", "acute_admissions": "admissions_12m", "ed_visits": "ed_visits_12m",
}  # fmt: skip


@pytest.mark.parametrize("chance", CHANCES)
def test_no_risk_falls_where_the_model_may_only_rise(chance: str) -> None:
    """The signs of the manifest and of the odds ratios agree, so that no constraint binds."""
    features = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["features"]
    sign = {feature["name"]: feature.get("monotone", 0) for feature in features}
    for term, anchor in load_anchors().odds_ratios(chance).items():
        held = sign[MONOTONE_FEATURE[term]] if term in MONOTONE_FEATURE else 0
        assert math.log(anchor.value) * held >= 0, term


# ---- the population -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(load_anchors().prevalence))
def test_illnesses_are_as_common_as_anchored(block: Block, name: str) -> None:
    target = load_anchors().prevalence[name].value
    assert block.true[name].mean() == pytest.approx(target, abs=0.01)


def shares(true: People) -> dict[str, float]:
    found = {f"asa_{n}": (true["asa"] == n).mean() for n in (1, 2, 3, 4)}
    found |= {"who_0": (true["who"] == 0).mean(), "who_2_up": (true["who"] >= 2).mean()}
    elective = true["emergency"] == 0
    found |= {name: true[name][elective].mean() for name in ("rectum", "t4", "metastatic")}
    plain = ("male", "emergency", "anastomosis", "smoker", "abdominal_surgery")
    found |= {name: true[name].mean() for name in plain}
    return found | {"heavy_drinker": (true["drinks"] > 14).mean()}


@pytest.mark.parametrize("name", list(shares(generate_block(1, 0, 10).true)))
def test_shares_are_as_anchored(block: Block, name: str) -> None:
    target = load_anchors().marginal[name].value
    assert shares(block.true)[name] == pytest.approx(target, abs=0.012)


@pytest.mark.parametrize(
    ("name", "anchor", "tolerance"),
    [
        ("age", "age_mean", 0.5),
        ("acute_admissions", "acute_admissions_mean", 0.04),
        ("planned_admissions", "planned_admissions_mean", 0.02),
        ("ed_visits", "ed_visits_mean", 0.04),
        ("outpatient", "outpatient_mean", 0.08),
    ],
)
def test_means_are_as_anchored(block: Block, name: str, anchor: str, tolerance: float) -> None:
    target = load_anchors().marginal[anchor].value
    assert block.true[name].mean() == pytest.approx(target, abs=tolerance)


def test_half_of_the_patients_are_over_72_as_in_denmark(block: Block) -> None:
    """Bräuner 2024: median 72 years."""
    assert np.median(block.true["age"]) == pytest.approx(72, abs=1)


def test_half_of_the_patients_are_home_within_six_days(block: Block) -> None:
    target = load_anchors().marginal["stay_median_days"].value
    assert np.median(block.outcomes.course.discharge_day) == pytest.approx(target, abs=0.4)


@pytest.mark.parametrize("name", ["albumin", "crp", "frailty_scale", "who", "mets", "hba1c"])
def test_what_is_missing_is_as_common_as_anchored(block: Block, name: str) -> None:
    target = load_anchors().missing[name].value
    assert np.isnan(block.seen[name]).mean() == pytest.approx(target, abs=0.012)


# ---- risk and outcome ---------------------------------------------------------------------------


def happened(block: Block) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Outcome and true risk of each head, of those it asks about."""
    o, c = block.outcomes, block.outcomes.course
    days = {
        "mort90": c.death_day,
        "compl30": c.complication_day,
        "leak30": c.leak_day,
        "reop30": c.reoperation_day,
        "readm30": o.readmission_day,
    }
    risk = {head: getattr(o, head) for head in days}
    asked = {head: ~np.isnan(risk[head]) for head in days}
    return {h: (np.isfinite(days[h])[asked[h]], risk[h][asked[h]]) for h in days}


@pytest.mark.parametrize(
    ("head", "anchor", "tolerance"),
    [
        ("mort90", "died_90d", 0.004),
        ("compl30", "complicated_30d", 0.009),
        ("leak30", "leaked_30d", 0.005),
        ("reop30", "reoperated_30d", 0.006),
        ("readm30", "readmitted_30d", 0.007),
    ],
)
def test_outcomes_are_as_common_as_anchored_and_as_their_risk(
    block: Block, head: str, anchor: str, tolerance: float
) -> None:
    outcome, risk = happened(block)[head]
    assert outcome.mean() == pytest.approx(load_anchors().marginal[anchor].value, abs=tolerance)
    assert risk.mean() == pytest.approx(outcome.mean(), abs=tolerance)
    for fifth in np.array_split(np.argsort(risk), 5):
        assert outcome[fifth].mean() == pytest.approx(risk[fifth].mean(), abs=0.02)


@pytest.mark.parametrize(
    ("head", "low", "high"),
    [
        ("mort90", 0.855, 0.89),
        ("compl30", 0.67, 0.71),
        ("leak30", 0.62, 0.68),
        ("reop30", 0.64, 0.695),
        ("readm30", 0.655, 0.70),
    ],
)
def test_even_an_oracle_predicts_only_moderately(
    block: Block, head: str, low: float, high: float
) -> None:
    """A generator that could be predicted better than published models would be dishonest."""
    assert low <= roc_auc_score(*happened(block)[head]) <= high


def test_a_leak_is_a_reoperation_and_a_reoperation_a_complication(block: Block) -> None:
    course, o = block.outcomes.course, block.outcomes
    assert (course.leak_day >= course.reoperation_day).all()
    assert (course.reoperation_day >= course.complication_day).all()
    assert (o.reop30 <= o.compl30).all()
    assert np.isinf(course.leak_day[block.true["anastomosis"] == 0]).all()


def test_death_hides_no_outcome(block: Block) -> None:
    """Complications and readmissions of who dies come before death, and inside their window."""
    o, course = block.outcomes, block.outcomes.course
    hurt = np.isfinite(course.complication_day)
    assert (course.complication_day < course.death_day)[hurt].all()
    assert course.complication_day[hurt].max() < 30
    again = np.isfinite(o.readmission_day)
    home = course.discharge_day[again] + o.readmission_day[again]
    assert (home + 0.5 < course.death_day[again]).all()
    assert o.readmission_day[again].min() > 4 / 24
    assert o.readmission_day[again].max() <= 30


def test_a_gap_in_the_record_says_nothing_of_the_risk(block: Block) -> None:
    outcome, _ = happened(block)["compl30"]
    for name in ("albumin", "crp", "who", "frailty_scale", "mets", "haemoglobin"):
        gap = np.isnan(block.seen[name])
        difference = outcome[gap].mean() - outcome[~gap].mean()
        spread = math.sqrt(0.24 * 0.76 * (1 / gap.sum() + 1 / (~gap).sum()))
        assert abs(difference) < 4 * spread, name


def test_known_risk_rises_with_what_is_known_to_harm(block: Block) -> None:
    sicker = block.true | {"asa": np.minimum(block.true["asa"] + 1, 4.0)}
    for chance in CHANCES:
        assert (known_log_odds(sicker, chance) >= known_log_odds(block.true, chance)).all()


# ---- the record ---------------------------------------------------------------------------------


def test_nothing_after_the_operation_is_known_at_the_assessment(
    written: list[SyntheticPatient],
) -> None:
    """Outcomes, and what a hospital measures and gives after an operation, come after it."""
    later = {code for kind in surgical.COMPLICATIONS.values() for code in kind}
    for patient in written:
        truth = patient.truth
        for resource in resources(patient, "Procedure", "MedicationRequest"):
            found = codes(resource) | {
                c["code"] for c in resource.get("medicationCodeableConcept", {}).get("coding", ())
            }
            if any(code.startswith(("KJW", "KJF", "KJG", "NAB", "B01AB")) for code in found):
                assert truth.operated_at is not None
                assert min(times(resource)) >= truth.operated_at
        for resource in resources(patient, "Condition"):
            if codes(resource) & {f"D{code}" for code in later - {"J189", "I219"}}:
                assert min(times(resource)) > (truth.operated_at or math.inf)


def test_the_assessment_is_the_moment_an_asa_class_was_given(
    written: list[SyntheticPatient],
) -> None:
    for patient in written:
        given = [
            seconds(o["effectiveDateTime"])
            for o in resources(patient, "Observation")
            if codes(o) == {"302132005"} and o["status"] == "final"
        ]
        assert min(given) == patient.truth.index_time


def test_every_record_holds_more_than_a_year_of_contacts_before_the_assessment(
    written: list[SyntheticPatient],
) -> None:
    for patient in written:
        opened = min(seconds(e["period"]["start"]) for e in resources(patient, "Encounter"))
        assert patient.truth.index_time - opened > 365 * DAY_S


def found_after(patient: SyntheticPatient, concepts: set[str], kind: str) -> int | None:
    """When the first of the concepts begins after the operation, read as the product reads it."""
    lines = [line for _, line in patient.resources]
    wanted = Wanted(frozenset(concepts))
    record = build_record(decode_lines(lines), wanted, patient_id=patient.patient_id)
    operated = patient.truth.operated_at or math.inf
    begins = [f.start for name in concepts for f in record.of(name) if f.start > operated]
    assert all(f.source.startswith(kind) for name in concepts for f in record.of(name))
    return int(min(begins)) if begins else None


def test_pneumonia_after_the_operation_is_a_drawn_complication_or_late(
    written: list[SyntheticPatient],
) -> None:
    for patient in written:
        begun = found_after(patient, {"pneumonia"}, "Condition/")
        truth = patient.truth
        if begun is not None and truth.operated_at and begun <= truth.operated_at + 30 * DAY_S:
            assert begun == truth.complicated_at


def test_every_resection_is_one_for_the_code_table(written: list[SyntheticPatient]) -> None:
    for patient in written:
        found = found_after(patient, {"colorectal_resection"}, "Procedure/")
        assert found is None  # nothing strictly after the operation itself
        operations = [
            p for p in resources(patient, "Procedure") if "performedPeriod" in p and codes(p)
        ]
        starts = {seconds(p["performedPeriod"]["start"]) for p in operations}
        assert patient.truth.operated_at is None or patient.truth.operated_at in starts


def test_reoperations_carry_the_code_of_their_cause(written: list[SyntheticPatient]) -> None:
    leaks = 0
    for patient in written:
        truth = patient.truth
        done = {
            next(iter(codes(p))): seconds(p["performedDateTime"])
            for p in resources(patient, "Procedure")
            if any(code.startswith("KJW") for code in codes(p))
        }
        leak = [at for code, at in done.items() if code.startswith("KJWF")]
        again = [at for code, at in done.items() if not code.startswith("KJWB")]
        assert leak == ([truth.leaked_at] if truth.leaked_at else [])
        assert (min(again) if again else None) == truth.reoperated_at
        leaks += bool(leak)
    assert leaks


def linked_stays(patient: SyntheticPatient) -> list[dict[str, Any]]:
    """Inpatient and emergency contacts at most four hours apart as one, oldest first."""
    contacts = sorted(
        (seconds(e["period"]["start"]), seconds(e["period"]["end"]), e["id"], e)
        for e in resources(patient, "Encounter")
        if e["class"]["code"] in {"IMP", "EMER"}
    )
    stays: list[dict[str, Any]] = []
    for start, end, _, encounter in contacts:
        if stays and start - stays[-1]["end"] <= 4 * 3600:
            stays[-1]["end"] = max(end, stays[-1]["end"])
            continue
        acute = encounter["priority"]["coding"][0]["code"] != "EL"
        stays.append({"start": start, "end": end, "acute": acute})
    return stays


def test_only_an_acute_admission_within_thirty_days_is_a_readmission(
    written: list[SyntheticPatient],
) -> None:
    for patient in written:
        truth = patient.truth
        if truth.operated_at is None:
            continue
        stays = linked_stays(patient)
        own = next(s for s in stays if s["start"] <= truth.operated_at <= s["end"])
        assert own["end"] == (truth.discharged_at or truth.died_at)
        if truth.discharged_at is None:
            assert truth.risk_readm30 is None
            continue
        outcomes = [
            s["start"]
            for s in stays
            if truth.discharged_at < s["start"] <= truth.discharged_at + 30 * DAY_S
            and s["acute"]
            and s["end"] - s["start"] >= 12 * 3600
        ]
        assert truth.readmitted_at == (outcomes[0] if outcomes else None)


def test_the_conference_form_says_the_plan(written: list[SyntheticPatient]) -> None:
    asked = set(PLAN) | set(NUMBERS)
    answers = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["answers"]
    assert asked == set(answers)
    for patient in written:
        forms = [
            form
            for form in resources(patient, "QuestionnaireResponse")
            if form["status"] in {"completed", "amended"}
        ]
        assert bool(forms) != (patient.truth.exclusion == "no-form")
        for form in forms:
            assert seconds(form["authored"]) <= patient.truth.index_time
            assert {item["linkId"] for item in form["item"][0]["item"]} <= asked


def test_left_out_assessments_show_why_in_the_record(written: list[SyntheticPatient]) -> None:
    reasons = {patient.truth.exclusion for patient in written}
    assert reasons == {"", "palliative", "not-operated", "no-form"}
    for patient in written:
        text = b"".join(line for _, line in patient.resources).decode()
        palliative = "Z515" in text or "Z51.5" in text
        assert palliative == (patient.truth.exclusion == "palliative")
        assert (patient.truth.operated_at is None) == (patient.truth.exclusion == "not-operated")
        assert (patient.truth.risk_mort90 is None) == (patient.truth.operated_at is None)


def test_every_record_is_read_without_trouble(written: list[SyntheticPatient]) -> None:
    names = {name for name in code_table().names() if code_table().concept(name).kind != "answer"}
    for patient in written:
        gathered = decode_lines([line for _, line in patient.resources])
        wanted = Wanted(frozenset(names))
        record = build_record(gathered, wanted, patient_id=patient.patient_id)
        assert record.troubles == []
        unusable = {f.concept for facts in record.facts.values() for f in facts if f.status != "ok"}
        assert not unusable


def test_every_resource_is_valid_r4(written: list[SyntheticPatient]) -> None:
    models = {
        kind: getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
        for kind in RESOURCE_TYPES
    }
    checked = dict.fromkeys(RESOURCE_TYPES, 0)
    for patient in written[:25]:
        ids = set()
        for kind, line in patient.resources:
            ids.add(models[kind].model_validate_json(line).id)
            checked[kind] += 1
        assert len(ids) == len(patient.resources)
    assert min(checked.values()) > 0


def test_no_record_outlives_its_patient_or_the_data(written: list[SyntheticPatient]) -> None:
    for patient in written:
        last = max(t for r in resources(patient, *RESOURCE_TYPES) for t in times(r))
        assert last < DATA_END.timestamp()
        person = next(resources(patient, "Patient"))
        died = person.get("deceasedDateTime")
        assert (seconds(died) if died else None) == patient.truth.died_at
        ends = [seconds(e["period"]["end"]) for e in resources(patient, "Encounter")]
        assert patient.truth.died_at is None or max(ends) <= patient.truth.died_at


def test_patients_are_labelled_as_invented_and_have_no_civil_registration_number(
    written: list[SyntheticPatient],
) -> None:
    for patient in written[:40]:
        person = next(resources(patient, "Patient"))
        assert person["meta"]["security"][0]["code"] == "HTEST"
        assert [i["system"] for i in person["identifier"]] == [
            "http://example.org/varsel/synthetic-patient"
        ]
        assert "name" not in person


@pytest.mark.parametrize("name", sorted(surgical.FORMS.keys() - codings.FORMS.keys()))
def test_every_code_of_a_measurement_is_known_to_the_code_table(name: str) -> None:
    known_as = {"drinks": "alcohol"}.get(name, name)
    for form in surgical.FORMS[name]:
        for system, code in form.codings:
            concepts = {found.concept for found in code_table().concepts_of(system, code)}
            assert known_as in concepts, (system, code)


@pytest.mark.parametrize(
    ("concept", "answers"),
    [
        ("asa_class", surgical.ASA_ANSWERS),
        ("who_performance", surgical.WHO_ANSWERS),
        ("smoking", surgical.SMOKING_ANSWERS),
    ],
)
def test_coded_answers_are_worth_what_was_meant(
    concept: str, answers: tuple[tuple[tuple[str, str], ...], ...]
) -> None:
    meant = {"asa_class": [1, 2, 3, 4], "who_performance": [0, 1, 2, 3, 4], "smoking": [0, 0, 1]}
    for of_system in answers:
        worth = [code_table().answer_of(concept, *answer) for answer in of_system]
        assert worth == meant[concept]


def test_the_other_medicines_are_no_steroids_and_prime_in_number() -> None:
    total = len(surgical.OTHER_DRUGS)
    assert total > people.MAX_OTHER_DRUGS
    assert all(total % divisor for divisor in range(2, total))
    assert not any(atc.startswith("H02AB") for atc in surgical.OTHER_DRUGS)


# ---- the same every time ------------------------------------------------------------------------


def test_fewer_patients_are_a_prefix_of_more_and_a_block_needs_no_other() -> None:
    assert list(draw_patients(5, 6))[:3] == list(draw_patients(5, 3))
    first, again = (next(block_patients(generate_block(5, 1))) for _ in range(2))
    assert first == again
    assert first.patient_id.endswith("-00001000")


def test_another_seed_gives_other_patients() -> None:
    one, other = next(draw_patients(1, 1)), next(draw_patients(2, 1))
    assert one.patient_id != other.patient_id
    assert one.truth != other.truth


def test_the_folder_is_the_same_to_the_byte_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    generator = GENERATORS["crc-surgery"]
    few, many = tmp_path / "few", tmp_path / "many"
    for folder, patients in ((few, 30), (many, 45), (tmp_path / "again", 45)):
        write_bulk_data(generator, folder, patients=patients, seed=9, progress=lambda _: None)
    for file in sorted(many.iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    for kind in RESOURCE_TYPES:
        name = f"{kind}.ndjson"
        assert (many / name).read_bytes().startswith((few / name).read_bytes())
    provenance = json.loads((many / "PROVENANCE.json").read_bytes())
    assert provenance["synthetic"] is True
    assert provenance["generator"] == "models.synthetic.surgery"


def test_the_truth_has_one_row_a_patient_with_the_risk_of_every_head(tmp_path: Path) -> None:
    generator = GENERATORS["crc-surgery"]
    write_bulk_data(generator, tmp_path, patients=40, seed=9, progress=lambda _: None)
    with (tmp_path / "truth.csv").open(newline="") as file:
        rows = {row["patient_id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 40
    for patient in draw_patients(9, 40):
        row = rows[patient.patient_id]
        assert seconds(row["index_time"]) == patient.truth.index_time
        for head in ("mort90", "compl30", "leak30", "reop30", "readm30"):
            risk = getattr(patient.truth, f"risk_{head}")
            assert row[f"risk_{head}"] == ("" if risk is None else str(risk))


def test_the_documentation_shows_every_anchored_odds_ratio() -> None:
    """The table of docs/synthetic-cohorts.md is the table the cohort is drawn from."""
    text = (Path(__file__).parents[3] / "docs" / "synthetic-cohorts.md").read_text("utf-8")
    anchors = load_anchors()
    for group in (anchors.mortality, anchors.leak, anchors.reoperation, anchors.complication):
        for name, anchor in group.items():
            assert f"| `{name}` | {anchor.value:g} |" in text
