"""The synthetic readmission cohort: honest numbers, exact contacts, valid FHIR, reproducible."""

import csv
import importlib
import itertools
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fhir_adapters.codes import code_table
from models.synthetic import codings
from models.synthetic.anchors import Anchor, load_anchors
from models.synthetic.bulk import write_bulk_data
from models.synthetic.charts import READMISSION, SyntheticPatient, block_patients, draw_patients
from models.synthetic.fhir_lines import RESOURCE_TYPES
from models.synthetic.readmission import (
    Block,
    generate_block,
    known_log_odds,
    risk_terms,
)

HOUR_S = 3600
DAY_S = 86_400
DOCS = Path(__file__).parents[3] / "docs" / "synthetic-cohorts.md"


@pytest.fixture(scope="module")
def block() -> Block:
    """20,000 patients as arrays."""
    return generate_block(2024, 0, 20_000)


@pytest.fixture(scope="module")
def written() -> list[SyntheticPatient]:
    """400 patients as FHIR."""
    return list(draw_patients(2024, 400))


def resources(patient: SyntheticPatient, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for found, line in patient.resources if found == kind]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def linked_stays(patient: SyntheticPatient) -> list[dict[str, Any]]:
    """Inpatient and emergency contacts at most four hours apart as one, oldest first."""
    contacts = sorted(
        (seconds(e["period"]["start"]), seconds(e["period"]["end"]), e)
        for e in resources(patient, "Encounter")
        if e["class"]["code"] in {"IMP", "EMER"}
    )
    stays: list[dict[str, Any]] = []
    for start, end, encounter in contacts:
        if stays and start - stays[-1]["end"] <= 4 * HOUR_S:
            stays[-1]["end"] = max(end, stays[-1]["end"])
            stays[-1]["classes"].add(encounter["class"]["code"])
            continue
        acute = encounter["priority"]["coding"][0]["code"] != "EL"
        classes = {encounter["class"]["code"]}
        stays.append({"start": start, "end": end, "acute": acute, "classes": classes})
    return stays


def is_admission(stay: dict[str, Any]) -> bool:
    return bool(stay["end"] - stay["start"] >= 12 * HOUR_S)


# ---- the anchors --------------------------------------------------------------------------------


def all_anchors() -> list[tuple[str, Anchor]]:
    anchors = load_anchors()
    groups = ("marginal", "prevalence", "odds_ratio", "death_odds_ratio", "noise", "missing")
    return [(f"{g}.{n}", a) for g in groups for n, a in getattr(anchors, g).items()]


def test_every_number_has_a_source_and_says_how_sure_we_are() -> None:
    for name, anchor in all_anchors():
        assert anchor.source.strip(), name
        assert anchor.unit.strip(), name
        assert anchor.evidence in {"S", "C", "M", "D"}, name


def test_the_documentation_shows_every_odds_ratio_with_its_value() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for group in ("odds_ratio", "death_odds_ratio"):
        for name, anchor in getattr(load_anchors(), group).items():
            assert f"| `{name}` | {anchor.value:g} |" in text


def test_every_odds_ratio_is_used_and_nothing_else_enters_the_risk(block: Block) -> None:
    assert set(risk_terms(block.true)) == set(load_anchors().odds_ratio)


def test_age_alone_moves_nobodys_risk(block: Block) -> None:
    """Pedersen 2019: age is no driver of readmission in Denmark once earlier use is known."""
    older = block.true | {"age": block.true["age"] + 10}
    assert np.allclose(known_log_odds(block.true), known_log_odds(older))


# ---- the population -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(load_anchors().prevalence))
def test_illnesses_are_as_common_as_anchored(block: Block, name: str) -> None:
    target = load_anchors().prevalence[name].value
    found = float(np.mean(block.true[name][block.eligible]))
    assert found == pytest.approx(target, abs=0.012)


@pytest.mark.parametrize(
    ("name", "anchor", "tolerance"),
    [
        ("age", "age_mean", 0.5),
        ("male", "male", 0.02),
        ("acute_index", "acute_index", 0.01),
        ("acute_admissions", "acute_admissions_mean", 0.08),
        ("planned_admissions", "planned_admissions_mean", 0.02),
        ("ed_visits", "ed_visits_mean", 0.06),
        ("outpatient", "outpatient_mean", 0.12),
        ("filler_drugs", "drugs_mean", 0.25),
        ("procedure", "procedure", 0.01),
        ("icu", "icu", 0.01),
    ],
)
def test_marginals_are_as_anchored(block: Block, name: str, anchor: str, tolerance: float) -> None:
    found = float(np.mean(block.true[name][block.eligible]))
    assert found == pytest.approx(load_anchors().marginal[anchor].value, abs=tolerance)


def test_old_patients_and_stays_are_as_old_and_long_as_published(block: Block) -> None:
    marginal = load_anchors().marginal
    age, days = block.true["age"][block.eligible], block.true["stay_days"][block.eligible]
    assert np.median(age[age >= 65]) == pytest.approx(marginal["age_median_65_plus"].value, abs=3)
    assert np.median(days) == pytest.approx(marginal["stay_median_days"].value, abs=0.2)


def test_what_is_missing_is_as_common_as_anchored(block: Block) -> None:
    missing = load_anchors().missing
    for name, anchored in (
        ("albumin", "albumin"),
        ("crp", "crp"),
        ("frailty_scale", "frailty_scale"),
        ("pulse", "vitals"),
        ("haemoglobin", "lab_panel"),
    ):
        found = float(np.mean(np.isnan(block.seen[name])))
        assert found == pytest.approx(missing[anchored].value, abs=0.012)


# ---- risk and outcome ---------------------------------------------------------------------------


def test_one_in_seven_is_readmitted_and_one_in_twenty_five_dies(block: Block) -> None:
    marginal, after, eligible = load_anchors().marginal, block.outcomes, block.eligible
    readmitted = np.isfinite(after.readmission_day[eligible])
    assert readmitted.mean() == pytest.approx(marginal["readmitted_30d"].value, abs=0.008)
    assert after.true_risk[eligible].mean() == pytest.approx(readmitted.mean(), abs=0.008)
    died = after.death_day[eligible] <= 30.6
    assert died.mean() == pytest.approx(marginal["died_30d"].value, abs=0.005)


def test_half_of_the_readmissions_come_within_about_eight_days(block: Block) -> None:
    """Klinge 2020: median 8 days (3 to 16)."""
    days = block.outcomes.readmission_day[block.eligible]
    low, median, high = np.percentile(days[np.isfinite(days)], [25, 50, 75])
    assert low == pytest.approx(3, abs=1)
    assert median == pytest.approx(8, abs=1)
    assert high == pytest.approx(16, abs=2)
    assert days.min() > 4 / 24
    assert days[np.isfinite(days)].max() <= 30


def test_nobody_is_readmitted_after_death(block: Block) -> None:
    readmitted = np.isfinite(block.outcomes.readmission_day)
    assert (block.outcomes.readmission_day < block.outcomes.death_day)[readmitted].all()


def test_the_true_risk_is_calibrated(block: Block) -> None:
    risk = block.outcomes.true_risk[block.eligible]
    readmitted = np.isfinite(block.outcomes.readmission_day)[block.eligible]
    for tenth in np.array_split(np.argsort(risk), 10):
        assert readmitted[tenth].mean() == pytest.approx(risk[tenth].mean(), abs=0.04)


def test_even_an_oracle_predicts_only_moderately(block: Block) -> None:
    """A generator that could be predicted better than published models would be dishonest."""
    readmitted = np.isfinite(block.outcomes.readmission_day)[block.eligible]
    oracle = roc_auc_score(readmitted, block.outcomes.true_risk[block.eligible])
    known = roc_auc_score(readmitted, known_log_odds(block.true)[block.eligible])
    assert 0.71 <= oracle <= 0.75
    assert 0.67 <= known <= oracle - 0.02


def record_matrix(block: Block) -> np.ndarray:
    """What a model could see: noisy values with gaps (filled by the median), facts, contacts."""
    facts = [
        "age", "male", "acute_index", "acute_admissions", "ed_visits", "bed_days", "stay_days",
        "icu", "drugs", "opioid", "anticoagulant", "insulin", "diuretic", "digoxin",
        *(name for name in load_anchors().prevalence if name not in block.seen),
        "metastatic_cancer",
    ]  # fmt: skip
    since = np.minimum(block.true["days_since_discharge"], 400.0)
    columns = [block.true[name] for name in facts] + [since, since <= 30]
    columns += [np.where(np.isnan(seen), np.nanmedian(seen), seen) for seen in block.seen.values()]
    return np.column_stack(columns)[block.eligible]


def test_a_model_on_the_record_lands_where_published_models_do(block: Block) -> None:
    """European readmission models: AUROC 0.65 to 0.72."""
    other = generate_block(77, 0, 20_000)
    readmitted = [np.isfinite(b.outcomes.readmission_day)[b.eligible] for b in (block, other)]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
    model.fit(record_matrix(block), readmitted[0])
    risk = model.predict_proba(record_matrix(other))[:, 1]
    assert 0.66 <= roc_auc_score(readmitted[1], risk) <= 0.71


def test_a_gap_in_the_record_says_nothing_of_the_risk(block: Block) -> None:
    readmitted = np.isfinite(block.outcomes.readmission_day)[block.eligible]
    for name, seen in block.seen.items():
        gap = np.isnan(seen)[block.eligible]
        difference = readmitted[gap].mean() - readmitted[~gap].mean()
        spread = math.sqrt(0.15 * 0.85 * (1 / gap.sum() + 1 / (~gap).sum()))
        assert abs(difference) < 4 * spread, name


# ---- the record ---------------------------------------------------------------------------------


def test_linked_contacts_give_back_the_drawn_history(written: list[SyntheticPatient]) -> None:
    """Admissions, visits, days and bed-days are exact, whatever way the stays are recorded."""
    for patient in written:
        truth = patient.truth
        stays = linked_stays(patient)
        assert (truth.index_start, truth.index_end) in {(s["start"], s["end"]) for s in stays}
        earlier = [s for s in stays if s["start"] < truth.index_start]
        admissions = [s for s in earlier if is_admission(s)]
        assert sum(s["acute"] for s in admissions) == truth.acute_admissions_365d
        assert all(s["start"] > truth.index_start - 365 * DAY_S for s in admissions)
        half_year = truth.index_start - 180 * DAY_S
        visits = [s for s in earlier if not is_admission(s) and s["start"] >= half_year]
        assert sum("EMER" in s["classes"] for s in visits) == truth.ed_visits_180d
        bed_days = sum(s["end"] - s["start"] for s in admissions) / DAY_S
        assert bed_days == pytest.approx(truth.bed_days_365d, abs=1e-3)
        if truth.days_since_discharge is None:
            assert not admissions
        else:
            since = (truth.index_start - max(s["end"] for s in admissions)) / DAY_S
            assert since == pytest.approx(truth.days_since_discharge, abs=1e-3)


def test_only_an_acute_admission_within_thirty_days_is_the_outcome(
    written: list[SyntheticPatient],
) -> None:
    for patient in written:
        end = patient.truth.index_end
        outcomes = [
            s["start"]
            for s in linked_stays(patient)
            if end + 4 * HOUR_S < s["start"] <= end + 30 * DAY_S and s["acute"] and is_admission(s)
        ]
        assert patient.truth.readmitted is bool(outcomes)
        assert patient.truth.readmitted_at == (outcomes[0] if outcomes else None)


def test_contacts_that_are_no_outcome_also_follow_discharges(
    written: list[SyntheticPatient],
) -> None:
    kinds = set()
    for patient in written:
        for stay in linked_stays(patient):
            if stay["start"] > patient.truth.index_end:
                kinds.add((stay["acute"], is_admission(stay)))
    assert {(True, True), (False, True), (True, False)} <= kinds


def test_the_index_is_the_first_stay_with_a_year_of_record_before_it(
    written: list[SyntheticPatient],
) -> None:
    for patient in (p for p in written if p.truth.exclusion != "short-contact"):
        opened = min(seconds(e["period"]["start"]) for e in resources(patient, "Encounter"))
        known = [
            stay["start"]
            for stay in linked_stays(patient)
            if is_admission(stay) and stay["start"] - opened >= 365 * DAY_S
        ]
        assert known[0] == patient.truth.index_start


def test_left_out_stays_show_why_in_the_record(written: list[SyntheticPatient]) -> None:
    reasons = set()
    for patient in (p for p in written if p.truth.exclusion):
        reasons.add(patient.truth.exclusion)
        text = b"".join(line for _, line in patient.resources).decode()
        truth = patient.truth
        shown = {
            "in-hospital-death": '"exp"' in text and "deceasedDateTime" in text,
            "under-18": truth.age_years < 18,
            "obstetric": "O809" in text or "O80.9" in text,
            "short-contact": truth.index_end - truth.index_start < 12 * HOUR_S,
            "psychiatric": "F200" in text or "F20.0" in text,
            "palliative": "Z515" in text or "Z51.5" in text,
        }
        assert shown[truth.exclusion], truth.exclusion
        assert math.isnan(truth.true_risk)
    assert len(reasons) >= 5


def test_birth_date_and_death_agree_with_the_truth(written: list[SyntheticPatient]) -> None:
    for patient in written:
        person = resources(patient, "Patient")[0]
        discharged = datetime.fromtimestamp(patient.truth.index_end, UTC).date()
        born = datetime.fromisoformat(person["birthDate"]).date()
        assert (discharged - born).days / 365.25 == pytest.approx(patient.truth.age_years, abs=0.01)
        died = person.get("deceasedDateTime")
        assert (seconds(died) if died else None) == patient.truth.died_at
        last = max(seconds(e["period"]["end"]) for e in resources(patient, "Encounter"))
        assert patient.truth.died_at is None or last <= patient.truth.died_at


def test_every_resource_is_valid_r4(written: list[SyntheticPatient]) -> None:
    models = {
        kind: getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
        for kind in RESOURCE_TYPES
    }
    checked = dict.fromkeys(RESOURCE_TYPES, 0)
    for patient in written[:40]:
        ids = set()
        for kind, line in patient.resources:
            ids.add(models[kind].model_validate_json(line).id)
            checked[kind] += 1
        assert len(ids) == len(patient.resources)
    assert min(checked.values()) > 0


def test_references_stay_inside_the_patients_own_record(written: list[SyntheticPatient]) -> None:
    for patient in written[:40]:
        held = {f"{kind}/{json.loads(line)['id']}" for kind, line in patient.resources}
        for _, line in patient.resources:
            for piece in line.split(b'"reference":"')[1:]:
                assert piece.split(b'"')[0].decode() in held


def test_patients_are_labelled_as_invented_and_have_no_civil_registration_number(
    written: list[SyntheticPatient],
) -> None:
    for patient in written[:40]:
        person = resources(patient, "Patient")[0]
        assert person["meta"]["security"][0]["code"] == "HTEST"
        assert [i["system"] for i in person["identifier"]] == [
            "http://example.org/varsel/synthetic-patient"
        ]
        assert "name" not in person


def test_a_record_has_the_size_of_a_real_one(written: list[SyntheticPatient]) -> None:
    sizes = [len(patient.resources) for patient in written]
    assert 35 <= sum(sizes) / len(sizes) <= 60


MEASURED_AS = {
    "respiration": "resp_rate",
    "oxygen": "supplemental_oxygen",
    "early_warning": "tobs",
}


@pytest.mark.parametrize("name", list(codings.FORMS))
def test_every_code_of_a_measurement_is_known_to_the_code_table(name: str) -> None:
    for form in codings.FORMS[name]:
        for system, code in form.codings:
            concepts = {found.concept for found in code_table().concepts_of(system, code)}
            assert MEASURED_AS.get(name, name) in concepts, (system, code)


@pytest.mark.parametrize(
    ("name", "system", "danish", "recorded"),
    [
        ("haemoglobin", codings.AMERICAN_SYSTEM, 8.0, (12.9, "g/dL")),
        ("creatinine", codings.AMERICAN_SYSTEM, 88.42, (1.0, "mg/dL")),
        ("albumin", codings.AMERICAN_SYSTEM, 36.0, (3.6, "g/dL")),
        ("spo2", codings.NPU_OID_SYSTEM, 96.0, (0.96, "1")),
        ("spo2", codings.MEDCOM_SYSTEM, 96.0, (96, "%")),
        ("temperature", codings.AMERICAN_SYSTEM, 37.0, (98.6, "[degF]")),
        ("crp", codings.MEDCOM_SYSTEM, 21.0, (200, "nmol/L")),
        ("sodium", codings.MEDCOM_SYSTEM, 138.0, (138, None)),
    ],
)
def test_the_same_value_is_recorded_in_the_units_of_the_place(
    name: str, system: int, danish: float, recorded: tuple[float, str | None]
) -> None:
    quantity = codings.FORMS[name][system].quantity(danish)
    assert (quantity["value"], quantity.get("code")) == recorded


# ---- the same every time ------------------------------------------------------------------------


def test_a_block_drawn_alone_is_the_same_as_in_the_whole_cohort() -> None:
    whole = list(itertools.islice(draw_patients(5, 1010), 1000, 1010))
    alone = list(itertools.islice(block_patients(generate_block(5, 1)), 10))
    assert whole == alone


def test_another_seed_gives_other_patients() -> None:
    one, other = next(draw_patients(1, 1)), next(draw_patients(2, 1))
    assert one.patient_id != other.patient_id
    assert one.truth != other.truth


def test_the_folder_is_bulk_data_in_one_order_and_says_that_it_is_synthetic(
    tmp_path: Path,
) -> None:
    reports: list[int] = []
    manifest = write_bulk_data(
        READMISSION, tmp_path / "one", patients=30, seed=9, progress=reports.append
    )
    again = write_bulk_data(
        READMISSION, tmp_path / "two", patients=30, seed=9, progress=reports.append
    )
    assert manifest == again
    assert reports == [30, 30]
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()

    export = json.loads((tmp_path / "one" / "manifest.json").read_bytes())
    for output in export["output"]:
        lines = (tmp_path / "one" / output["url"]).read_bytes().splitlines()
        assert len(lines) == output["count"] == manifest.counts[output["type"]]
        ids = [json.loads(line).get("subject", {}).get("reference") for line in lines]
        assert ids == sorted(ids, key=str)
    provenance = json.loads((tmp_path / "one" / "PROVENANCE.json").read_bytes())
    assert provenance["synthetic"] is True
    assert provenance["seed"] == 9


def test_the_truth_joins_on_patient_and_index_discharge(tmp_path: Path) -> None:
    write_bulk_data(READMISSION, tmp_path, patients=20, seed=9, progress=lambda _: None)
    with (tmp_path / "truth.csv").open(newline="") as file:
        rows = {row["patient_id"]: row for row in csv.DictReader(file)}
    for patient in draw_patients(9, 20):
        row = rows[patient.patient_id]
        assert seconds(row["index_end"]) == patient.truth.index_end
        risk = float(row["true_risk"]) if row["true_risk"] else math.nan
        assert risk == pytest.approx(patient.truth.true_risk, nan_ok=True)
