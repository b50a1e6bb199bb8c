"""From features to a prediction: eligible or not, enough known or not, and a risk that adds up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fhir_adapters.clock import DAY_S, HOUR_S, parse_time, to_iso
from fhir_adapters.decode import decode_bundle
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow
from fhir_adapters.features.language import Text
from fhir_adapters.record import PatientRecord
from models.examples import read_example
from models.manifest import SafetyRule
from models.package import Package
from models.predict import (
    Verdict,
    band_of,
    head_predictions,
    implausible_alarms,
    index_time,
    lacking_minimum,
    missing_features,
    safety_alarms,
    verdict_on,
)
from models.prediction import RuleAlarm
from tests.spec.drawn import row, specs

Resource = dict[str, Any]


class Case:
    """A bundled example's patient, whose resources a test may change before they are read."""

    def __init__(self, path: Path) -> None:
        example = read_example(path)
        self.bundle: Resource = json.loads(bytes(example.bundle))
        self.as_of = float(parse_time(example.as_of))

    @property
    def resources(self) -> list[Resource]:
        return [entry["resource"] for entry in self.bundle["entry"]]

    def keep(self, wanted: Callable[[Resource], bool]) -> Case:
        self.bundle["entry"] = [{"resource": r} for r in self.resources if wanted(r)]
        return self

    def add(self, resource: Resource) -> Case:
        self.bundle["entry"].append({"resource": resource})
        return self

    def read(self, package: Package) -> tuple[PatientRecord, FeatureRow]:
        record = build_record(decode_bundle(json.dumps(self.bundle).encode()), package.wanted)
        return record, package.features.compute(record, self.as_of)

    def verdict(self, package: Package) -> Verdict:
        record, row = self.read(package)
        return verdict_on(package, record, row)

    def patient(self) -> Resource:
        return next(r for r in self.resources if r["resourceType"] == "Patient")


@pytest.fixture
def case(package: Package) -> Case:
    """The first worked example: an eligible patient at discharge."""
    return Case(package.folder / "examples" / "01.json")


def codes(resource: Resource) -> set[str]:
    return {c["code"] for c in resource.get("code", {}).get("coding", [])}


def an_observation(case: Case, code: str, value: float, unit: str) -> Resource:
    """A vital sign measured an hour before the moment of the case."""
    return {
        "resourceType": "Observation",
        "id": "added",
        "status": "final",
        "category": [{"coding": [{"code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{case.patient()['id']}"},
        "effectiveDateTime": to_iso(case.as_of - HOUR_S),
        "valueQuantity": {
            "value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit,
        },
    }  # fmt: skip


# ---- may a number be given ------------------------------------------------------------------


def test_an_eligible_patient_with_enough_known_is_scored(case: Case, package: Package) -> None:
    assert case.verdict(package) == Verdict("scored")


def test_without_a_stay_around_the_moment_the_model_does_not_apply(
    case: Case, package: Package
) -> None:
    case.as_of += 400 * DAY_S  # past whatever followed the stay
    later = case.verdict(package)
    assert later == Verdict("not-eligible", "no-index-stay")


def test_a_stay_under_twelve_hours_is_no_admission(case: Case, package: Package) -> None:
    """Asked three hours after the patient came in: the record has the stay, it is too short yet."""
    _, row = case.read(package)
    assert row.index is not None
    case.as_of = row.index.start + 3 * HOUR_S
    assert case.verdict(package) == Verdict("not-eligible", "stay-too-short")


def test_who_died_in_the_stay_gets_no_number_and_who_died_later_does(
    case: Case, package: Package
) -> None:
    """Death known only after the moment asked about is not known yet."""
    case.patient()["deceasedDateTime"] = to_iso(case.as_of - HOUR_S)
    assert case.verdict(package) == Verdict("not-eligible", "deceased")
    case.patient()["deceasedDateTime"] = to_iso(case.as_of + 5 * DAY_S)
    assert case.verdict(package) == Verdict("scored")


def test_a_child_is_not_eligible(case: Case, package: Package) -> None:
    case.patient()["birthDate"] = to_iso(case.as_of - 17 * 365.25 * DAY_S)[:10]
    assert case.verdict(package) == Verdict("not-eligible", "under-18")


def test_without_a_date_of_birth_the_missing_part_is_named(case: Case, package: Package) -> None:
    """Unknown age excludes nobody, but no number is given without it."""
    del case.patient()["birthDate"]
    assert case.verdict(package) == Verdict("insufficient-data", "date of birth")


def test_without_blood_tests_of_the_stay_no_number_is_given(case: Case, package: Package) -> None:
    case.keep(
        lambda r: (
            not (
                r["resourceType"] == "Observation"
                and any(c.get("code") == "laboratory" for k in r["category"] for c in k["coding"])
            )
        )
    )
    found = case.verdict(package)
    assert found.status == "insufficient-data"
    assert found.reason == ("blood tests from this stay (haemoglobin, sodium or creatinine)")
    _, row = case.read(package)
    assert [part.any_of[0] for part in lacking_minimum(package.manifest, row)] == ["haemoglobin"]


def test_the_question_is_about_the_discharge_or_about_now_while_the_patient_is_in(
    case: Case, package: Package
) -> None:
    _, row = case.read(package)
    assert row.index is not None
    assert index_time(row) == row.index.end <= case.as_of
    case.as_of = row.index.end - HOUR_S
    _, before = case.read(package)
    assert index_time(before) == case.as_of
    case.as_of = row.index.end + 30 * DAY_S
    _, after = case.read(package)
    assert index_time(after) is None


# ---- the prediction -------------------------------------------------------------------------


def test_every_input_stands_in_one_category_with_its_value_and_status(
    case: Case, package: Package
) -> None:
    _, row = case.read(package)
    (head,) = head_predictions(package, row, "da")
    features = [f for c in head.contributions for f in c.features]
    assert sorted(f.name for f in features) == sorted(package.columns)
    for f in features:
        assert f.value == row.values[f.name].value
        assert f.status == row.values[f.name].status
        assert (f.value is None) == (f.status not in {"measured", "stale"})
    assert [c.category for c in head.contributions] == [c.id for c in package.manifest.categories]


def test_what_raises_and_what_lowers_within_a_category_add_up_to_it(
    case: Case, package: Package
) -> None:
    _, row = case.read(package)
    (head,) = head_predictions(package, row, "da")
    for c in head.contributions:
        assert c.positive >= 0 >= c.negative
        assert c.positive + c.negative == pytest.approx(c.points, abs=1e-9)
        assert math.fsum(f.points for f in c.features) == pytest.approx(c.points, abs=1e-9)
        sizes = [abs(f.points) for f in c.features]
        assert sizes == sorted(sizes, reverse=True), "the heaviest first"


def test_language_changes_the_labels_and_nothing_else(case: Case, package: Package) -> None:
    _, row = case.read(package)
    (danish,), (english,) = (head_predictions(package, row, code) for code in ("da", "en"))
    assert danish.risk == english.risk
    pairs = list(zip(danish.contributions, english.contributions, strict=True))
    assert all(da.points == en.points for da, en in pairs)
    assert [da.label for da, _ in pairs] != [en.label for _, en in pairs]


def test_the_baseline_stands_beside_the_risk_and_is_another_number(
    case: Case, package: Package
) -> None:
    _, row = case.read(package)
    (head,) = head_predictions(package, row, "da")
    assert head.baseline_risk is not None
    assert 0 < head.baseline_risk < 1
    assert head.baseline_risk != head.risk
    assert abs(head.baseline_risk - head.risk) < 0.15


def test_a_band_begins_at_its_limit_and_is_chosen_by_the_unrounded_risk(package: Package) -> None:
    head = package.manifest.heads[0]
    limits = [band.from_risk for band in head.bands]
    for below, band in zip([None, *head.bands], head.bands, strict=False):
        assert band_of(head, band.from_risk).id == band.id
        if below is not None:
            assert band_of(head, math.nextafter(band.from_risk, 0)).id == below.id
    assert band_of(head, 0.99).id == head.bands[-1].id
    assert limits == sorted(limits)


def test_a_value_outside_what_training_saw_is_called_unusual(case: Case, package: Package) -> None:
    case.add(an_observation(case, "8867-4", 170, "/min"))
    _, row = case.read(package)
    assert row.values["pulse"].value == 170
    (head,) = head_predictions(package, row, "da")
    unusual = {f.name for c in head.contributions for f in c.features if f.unusual}
    assert "pulse" in unusual


# ---- what is missing, what cannot be right --------------------------------------------------


def test_what_is_missing_is_named_with_its_reason(case: Case, package: Package) -> None:
    pulses = {"8867-4", "NPU21692"}
    case.keep(lambda r: not codes(r) & pulses)
    _, row = case.read(package)
    found = {m.feature: m for m in missing_features(package, row, "en")}
    assert row.values["pulse"].value is None
    assert found["pulse"].label == "Pulse"
    assert found["pulse"].reason.split(" ")[0] == row.values["pulse"].status
    assert set(found) <= set(package.columns), "features for scope only are not the model's"


def test_a_value_that_cannot_be_right_leaves_the_model_and_raises_an_alarm(
    case: Case, package: Package
) -> None:
    """An oxygen saturation of 20 is an error or an emergency: shown raw, not used."""
    case.add(an_observation(case, "2708-6", 20, "%"))
    _, row = case.read(package)
    (alarm,) = implausible_alarms(row, "da")
    assert (alarm.rule, alarm.value, alarm.unit) == ("implausible-spo2", 20, "%")
    assert alarm.label == "Iltmætning"
    low, _, high = alarm.limit.partition("-")
    assert float(low) > 20
    assert float(high) == 100
    assert row.values["spo2"].value != 20
    assert (
        implausible_alarms(Case(package.folder / "examples/01.json").read(package)[1], "da") == []
    )


# ---- safety rules ---------------------------------------------------------------------------

RULES_FEATURES = """
[spo2_now]
recipe = "last"
of = ["spo2"]
window = ["as_of - 2 d", "as_of"]
unit = "%"
[spo2_red_low]
recipe = "limit"
of = ["spo2"]
attribute = "red-low"
"""


def alarms(package: Package, table: str, as_of: str = "2026-11-21 12:00") -> list[RuleAlarm]:
    rule = SafetyRule(
        id="spo2-low",
        feature="spo2_now",
        op="<=",
        limit=88.0,
        own_limit="spo2_red_low",
        label=Text("Iltmætning", "Oxygen saturation"),
        action=Text("Ring", "Call"),
        indicator="critical",
    )
    features = specs(RULES_FEATURES)
    manifest = msgspec.structs.replace(package.manifest, features=features, rules=[rule])
    return safety_alarms(manifest, row(table, RULES_FEATURES, as_of=as_of), "da")


@pytest.mark.parametrize(
    ("measured", "own", "limit"),
    [
        ("88 %", "", "<= 88"),
        ("89 %", "", None),
        ("88 %", " | red 84 ..", None),
        ("84 %", " | red 84 ..", "<= 84"),
        ("91 %", " | red 92 ..", "<= 92"),
        ("0.88 1", "", "<= 88"),
    ],
)
def test_a_rule_is_met_by_the_patient_s_own_limit_where_there_is_one(
    package: Package, measured: str, own: str, limit: str | None
) -> None:
    """A patient used to 85 is no alarm at 86, and one with a stricter limit is."""
    found = alarms(package, f"Observation | saturation | 2026-11-21 08:00 | {measured}{own}")
    assert [alarm.limit for alarm in found] == ([limit] if limit else [])
    assert all(alarm.own_limit == bool(own) for alarm in found)


def test_a_rule_is_not_met_by_what_was_not_measured(package: Package) -> None:
    """No saturation within two days is no low saturation."""
    assert alarms(package, "Observation | pulse | 2026-11-21 08:00 | 80 /min") == []
    assert alarms(package, "Observation | saturation | 2026-11-18 08:00 | 80 %") == []
