"""Public outcome data as FHIR: every value arrives where it should, and none that leaks."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fhir_adapters.bulk import index_bulk_data, read_patients
from fhir_adapters.clock import parse_time
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow
from fhir_adapters.outcomes import Later, Outcome, discharged_stays, find_outcome
from fhir_adapters.record import PatientRecord
from fhir_adapters.sets import set_times
from models.cohort import Cohort, build_cohort
from models.package import Specification, read_specification
from tests.bench import outcomes, outcomes_diabetes130
from tests.bench.outcomes_diabetes130 import diagnosis
from tests.bench.outcomes_fhir import COMPARATOR, DATA_END
from tests.bench.outcomes_measure import missed

LEAK = "31415926"
"""Stands in every column nothing may be made of, and must be found nowhere."""

DIABETES130: Mapping[str, str] = {
    **dict.fromkeys(outcomes_diabetes130.DRUGS, "No"),
    "encounter_id": "10", "patient_nbr": "7", "gender": "Female", "age": "[70-80)",
    "admission_type_id": "1", "discharge_disposition_id": "1", "admission_source_id": "7",
    "time_in_hospital": "4", "num_procedures": "2", "num_medications": "5",
    "number_outpatient": "0", "number_emergency": "1", "number_inpatient": "2",
    "diag_1": "428", "diag_2": "250.42", "diag_3": "?", "max_glu_serum": "None",
    "A1Cresult": ">8", "metformin": "Steady", "insulin": "Up", "readmitted": "<30",
    "race": LEAK, "payer_code": LEAK, "weight": LEAK,
}  # fmt: skip
SUPPORT2: Mapping[str, str] = {
    "": "7", "age": "62.37", "sex": "male", "dzgroup": "CHF", "scoma": "0", "hday": "3",
    "diabetes": "1", "dementia": "0", "ca": "no", "hrt": "88", "resp": "28", "temp": "37.5",
    "wblc": "11.7", "alb": "", "bili": "0.4", "crea": "2.0", "sod": "132", "ph": "7.47",
    "glucose": "", "bun": "28", "meanbp": "78", "pafi": "309.5", "adls": "1", "death": "1",
    "d.time": "59", "surv6m": "0.82",
    **dict.fromkeys(
        ("surv2m", "prg2m", "prg6m", "sps", "aps", "dnr", "dnrday", "avtisst", "charges",
         "totcst", "totmcst", "slos", "sfdm2", "hospdead", "race", "income", "adlp", "adlsc"),
        LEAK,
    ),
}  # fmt: skip
HF299: Mapping[str, str] = {
    "age": "75", "sex": "1", "diabetes": "0", "smoking": "1", "ejection_fraction": "20",
    "serum_creatinine": "1.9", "serum_sodium": "130", "platelet": "265000", "DEATH_EVENT": "1",
    "time": LEAK, "anaemia": "0", "creatinine_phosphokinase": "582",
}  # fmt: skip
ROWS = {"diabetes130": DIABETES130, "support2": SUPPORT2, "hf299": HF299}


def written(folder: Path, dataset: str, *changes: Mapping[str, str]) -> Path:
    """The Bulk Data of a data set with one row for each set of changes."""
    rows = [{**ROWS[dataset], **change} for change in changes or ({},)]
    source = folder / f"{dataset}.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    out = folder / "fhir"
    outcomes.to_fhir(dataset, source, out)
    return out


def specification(dataset: str) -> Specification:
    """The manifest the data set's package is trained from."""
    return read_specification(outcomes.MANIFESTS / dataset)


def record_of(dataset: str, data: Path) -> PatientRecord:
    """The one patient's record."""
    ((patient, gathered),) = read_patients(index_bulk_data(data))
    record = build_record(gathered, specification(dataset).wanted_later, patient_id=patient)
    assert record.troubles == []
    return record


def asked(dataset: str, data: Path) -> tuple[FeatureRow, Outcome]:
    """Features and outcome at the one index of the data set: the longest stay, or the set."""
    spec, record = specification(dataset), record_of(dataset, data)
    until = parse_time(DATA_END.isoformat())
    if spec.manifest.index.set_rule:
        (moment,) = set_times(record, spec.manifest.index.set_rule, until)
    else:
        stays = discharged_stays(record, spec.manifest.stay, until)
        moment = max(stays, key=lambda stay: stay.end - stay.start).end
    rule = spec.manifest.heads[0].rule
    later = Later(record, spec.manifest.stay, until)
    return spec.features.compute(record, moment), find_outcome(rule, later, moment)


def cohort_of(dataset: str, data: Path) -> Cohort:
    """The cohort the product makes of the data."""
    return build_cohort(specification(dataset), data)


@pytest.mark.parametrize("dataset", ROWS)
def test_nothing_of_a_column_that_leaks_or_is_left_out_is_in_the_fhir(
    dataset: str, tmp_path: Path
) -> None:
    data = written(tmp_path, dataset)
    texts = [path.read_text(encoding="utf-8") for path in data.glob("*")]
    assert texts
    assert not any(LEAK in text for text in texts)


@pytest.mark.parametrize("dataset", ROWS)
def test_no_column_named_as_leaking_is_read(dataset: str) -> None:
    leaking = {
        "surv2m", "surv6m", "prg2m", "prg6m", "sps", "aps", "dnr", "dnrday", "avtisst", "charges",
        "totcst", "totmcst", "slos", "sfdm2", "d.time", "death", "hospdead", "time",
        "DEATH_EVENT", "readmitted", "adlp", "adlsc",
    }  # fmt: skip
    assert not outcomes.DATASETS[dataset].columns & leaking


def test_diabetes130_features_read_back_to_the_row(tmp_path: Path) -> None:
    row, outcome = asked("diabetes130", written(tmp_path, "diabetes130"))
    said = {name: value.value for name, value in row.values.items()}
    assert {name: said[name] for name in ("inpatient_12m", "emergency_12m", "outpatient_12m")} == {
        "inpatient_12m": 2, "emergency_12m": 1, "outpatient_12m": 0,
    }  # fmt: skip
    assert said["acute"] == 1
    assert said["length_of_stay"] == pytest.approx(4 + 4 / 24)
    assert (said["procedures"], said["drugs"]) == (2, 5)
    assert (said["insulin"], said["insulin_change"]) == (1, 1)
    assert (said["for_heart_failure"], said["heart_failure"], said["dm_comp"]) == (1, 1, 1)
    assert (said["for_copd"], said["copd"]) == (0, 0)
    assert said["hba1c"] == pytest.approx(74.9, abs=0.1)  # 9 %
    assert said["glucose"] is None
    assert (said["to_nursing_home"], said["home_care"], said["rehabilitation"]) == (0, 0, 0)
    assert 70 <= (said["age"] or 0) < 80
    assert said["male"] == 0
    assert outcome.state == "event"


@pytest.mark.parametrize(
    ("to", "feature"), [("3", "to_nursing_home"), ("6", "home_care"), ("22", "rehabilitation")]
)
def test_where_a_diabetes130_patient_went_is_a_feature_and_no_procedure(
    to: str, feature: str, tmp_path: Path
) -> None:
    data = written(tmp_path, "diabetes130", {"discharge_disposition_id": to})
    row, _ = asked("diabetes130", data)
    assert row.values[feature].value == 1
    assert row.values["procedures"].value == 2


@pytest.mark.parametrize(
    ("said", "state"), [("<30", "event"), (">30", "no-event"), ("NO", "no-event")]
)
def test_diabetes130_readmission_is_found_as_the_row_says(
    said: str, state: str, tmp_path: Path
) -> None:
    rows = [{"patient_nbr": str(n), "readmitted": said} for n in range(40)]
    frame = cohort_of("diabetes130", written(tmp_path, "diabetes130", *rows)).frame
    assert list(frame["state:readmission"]) == [state] * 40


def test_only_stays_of_the_data_set_count_and_each_keeps_its_own_year(tmp_path: Path) -> None:
    """What is invented around a stay is no index, and is not counted for the patient's next one."""
    rows = [
        {"encounter_id": "1", "number_inpatient": "3", "readmitted": ">30"},
        {"encounter_id": "2", "number_inpatient": "0", "readmitted": "NO"},
        {"encounter_id": "3", "number_inpatient": "1", "readmitted": "<30"},
    ]
    cohort = cohort_of("diabetes130", written(tmp_path, "diabetes130", *rows))
    assert list(cohort.frame["inpatient_12m"]) == [3, 0, 1]
    assert list(cohort.frame["state:readmission"]) == ["no-event", "no-event", "event"]
    assert cohort.frame["patient"].nunique() == 1


@pytest.mark.parametrize(("to", "why"), [("11", "deceased"), ("13", "palliative")])
def test_deaths_and_hospice_discharges_are_excluded(to: str, why: str, tmp_path: Path) -> None:
    data = written(tmp_path, "diabetes130", {"discharge_disposition_id": to})
    cohort = cohort_of("diabetes130", data)
    assert len(cohort.frame) == 0
    assert cohort.excluded[why] == 1


def test_a_birth_date_does_not_tell_whether_rows_follow(tmp_path: Path) -> None:
    """An age that suited all rows would say how many are to come: whether the patient returned."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone = record_of("diabetes130", written(tmp_path / "one", "diabetes130", {}))
    rows = {"encounter_id": "10"}, {"encounter_id": "11", "age": "[80-90)"}
    followed = record_of("diabetes130", written(tmp_path / "two", "diabetes130", *rows))
    assert alone.birth_date == followed.birth_date


def test_support2_features_read_back_to_the_row(tmp_path: Path) -> None:
    row, outcome = asked("support2", written(tmp_path, "support2"))
    said = {name: value.value for name, value in row.values.items()}
    assert (said["pulse"], said["resp_rate"], said["temperature"]) == (88, 28, 37.5)
    assert (said["leukocytes"], said["sodium"], said["ph_arterial"]) == (11.7, 132, 7.47)
    assert said["creatinine"] == pytest.approx(2.0 * 88.42, rel=1e-3)
    assert said["urea"] == pytest.approx(28 * 0.357, rel=1e-3)
    assert (said["albumin"], said["glucose"]) == (None, None)
    assert (said["heart_failure"], said["copd"], said["diabetes"]) == (1, 0, 1)
    assert (said["sepsis"], said["coma"], said["lung_cancer"]) == (0, 0, 0)
    assert (said["mean_arterial_pressure"], said["pao2_fio2"]) == (78, 309.5)
    assert (said["coma_score"], said["adl_dependencies"]) == (0, 1)
    assert said["days_in_hospital"] == pytest.approx(4)  # 2 before the study, 2 in it
    assert (said["age"], said["male"]) == (62, 1)
    assert outcome.state == "event"
    assert outcome.days == pytest.approx(57)


def test_support2_disease_groups_are_told_apart_and_no_pressure_is_no_value(
    tmp_path: Path,
) -> None:
    """Sepsis, coma and lung cancer by their own codes; a mean pressure of 0 leaves the model."""
    rows = [
        {"": str(n), "dzgroup": group, "meanbp": "0", "scoma": "44", "adls": ""}
        for n, group in enumerate(("ARF/MOSF w/Sepsis", "Coma", "Lung Cancer"))
    ]
    frame = cohort_of("support2", written(tmp_path, "support2", *rows)).frame.sort_values("patient")
    assert frame[["sepsis", "coma", "lung_cancer"]].to_numpy().tolist() == np.eye(3).tolist()
    assert frame["respiratory_failure"].tolist() == [1, 0, 0]
    assert frame["cancer"].tolist() == [0, 0, 1]
    assert frame["mean_arterial_pressure"].isna().all()
    assert frame["coma_score"].tolist() == [44.0] * 3
    assert frame["adl_dependencies"].isna().all()


@pytest.mark.parametrize(
    ("death", "days", "state"),
    [
        ("1", "180", "event"),
        ("1", "181", "no-event"),
        ("0", "400", "no-event"),
        ("1", "3", "event"),
    ],
)
def test_support2_death_counts_up_to_day_180(
    death: str, days: str, state: str, tmp_path: Path
) -> None:
    _, outcome = asked("support2", written(tmp_path, "support2", {"death": death, "d.time": days}))
    assert outcome.state == state


def test_who_was_not_followed_for_180_days_is_left_out(tmp_path: Path) -> None:
    rows = {"": "1", "death": "0", "d.time": "90"}, {"": "2", "death": "0", "d.time": "400"}
    cohort = cohort_of("support2", written(tmp_path, "support2", *rows))
    assert list(cohort.frame["patient"]) == ["support2-2"]


def test_the_published_model_is_kept_apart_from_the_records(tmp_path: Path) -> None:
    data = written(tmp_path, "support2")
    assert (data / COMPARATOR).read_text() == "patient,risk\nsupport2-7,0.180000000\n"
    assert not any("0.82" in path.read_text() for path in data.glob("*.ndjson"))


def test_hf299_features_read_back_to_the_row(tmp_path: Path) -> None:
    row, outcome = asked("hf299", written(tmp_path, "hf299"))
    said = {name: value.value for name, value in row.values.items()}
    assert (said["lvef"], said["sodium"], said["platelets"]) == (20, 130, 265)
    assert said["creatinine"] == pytest.approx(1.9 * 88.42, rel=1e-3)
    assert (said["smoking"], said["diabetes"], said["heart_failure"]) == (1, 0, 1)
    assert (said["age"], said["male"]) == (75, 1)
    assert outcome.state == "event"


def test_hf299_survivors_have_no_event(tmp_path: Path) -> None:
    _, outcome = asked("hf299", written(tmp_path, "hf299", {"DEATH_EVENT": "0"}))
    assert outcome.state == "no-event"


def test_counts_of_what_was_written_stand_in_the_export_manifest(tmp_path: Path) -> None:
    manifest: Any = json.loads((written(tmp_path, "diabetes130") / "manifest.json").read_bytes())
    counts = {part["type"]: part["count"] for part in manifest["output"]}
    assert counts == {
        "Patient": 1, "Encounter": 5, "Condition": 2, "Observation": 1, "MedicationRequest": 6,
        "Procedure": 2, "QuestionnaireResponse": 1,
    }  # fmt: skip


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path, "diabetes130")
    before = {path.name: path.read_bytes() for path in first.glob("*")}
    again = written(tmp_path, "diabetes130")
    assert {path.name: path.read_bytes() for path in again.glob("*")} == before


def test_a_file_without_a_column_is_refused_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hf299.csv"
    source.write_text("age,sex\n75,1\n")
    assert outcomes.main(["to-fhir", "hf299", str(source), str(tmp_path / "out")]) == 2
    assert "no column 'DEATH_EVENT'" in capsys.readouterr().err


def test_the_bench_says_where_it_looked_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcomes.main(["bench", str(tmp_path)]) == 2
    assert "OUTCOMES_DATA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("icd9", "icd10"),
    [
        ("428", ["I50"]),
        ("250", ["E119"]),
        ("250.42", ["E112"]),
        ("250.13", ["E101"]),
        ("403", ["I12", "N18"]),
        ("V27", []),
    ],
)
def test_icd_9_codes_keep_their_own_and_gain_those_they_are_known_to_mean(
    icd9: str, icd10: list[str]
) -> None:
    first, *others = diagnosis(icd9)
    assert first == ("http://hl7.org/fhir/sid/icd-9-cm", icd9)
    assert [code for _, code in others] == icd10


def test_what_lies_more_than_two_hundredths_below_its_reference_is_missed() -> None:
    def group(auroc: float) -> dict[str, Any]:
        return {"auroc": {"value": auroc}, "reference": {"auroc": 0.7, "what": ""}}

    figures = {"dataset": "d", "groups": {"all": group(0.679), "copd": group(0.681)}}
    assert missed(figures) == ["d, all: AUROC 0.679, reference 0.7"]
