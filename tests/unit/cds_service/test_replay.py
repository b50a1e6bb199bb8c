"""A prediction computed again from what was logged of it alone, for every bundled model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from cds_service.assess import Asked, Question, assess, log_row
from cds_service.card_ids import id_beside
from cds_service.errors import Erased, LogUnavailable
from cds_service.evidence.compared import Difference
from cds_service.evidence.replay import Replay, as_json, replay, whole_record
from cds_service.identities.privacy import Privacy
from cds_service.settings import Settings
from fhir_adapters.clock import COPENHAGEN, HOUR_S, parse_time, to_iso
from fhir_adapters.decode import decode_bundle
from models.examples import read_example
from models.package import Package, load_package, sums_checksum
from models.prediction import HitRate, Standing
from models.registry import BUNDLED, folder_of, package_folders
from models.versions import LONGEST, libraries

EXAMPLES = sorted(
    (path.parents[1].name, path.name) for path in BUNDLED.glob("*/examples/[0-9]*.json")
)
STANDING = Standing(state="live", since="2026-11-01T00:00:00Z", clinical_owner="A. Berg")
RATE = HitRate(ppv=0.4, low=0.3, high=0.5, flagged=120, from_="2026-01-01T00:00:00Z",
               to="2026-06-30T00:00:00Z", synthetic=True)  # fmt: skip
WHO = "syn-patient-17"
Row = dict[str, Any]


@cache
def package_of(model: str) -> Package:
    """A bundled package, loaded once."""
    return load_package(BUNDLED / model)


@cache
def privacy() -> Privacy:
    """Pseudonyms under keys of the test."""
    return Privacy(Settings(pseudonym_key="cA" * 21 + "c=", seal_key="cA" * 21 + "c=").keys)


def logged(model: str, example: str = "04.json", **asked: Any) -> Row:
    """The log row of a worked example, as `read` gives it back, asked about in some way."""
    package = package_of(model)
    patient = read_example(package.folder / "examples" / example)
    as_of = parse_time(patient.as_of)
    question = Question(
        **{
            "prediction_id": "6f1c0d4e-0000-8000-8000-000000000001",
            "patient_id": None, "as_of": as_of, "now": as_of + 3600.5, "language": "da",
            "standing": STANDING,
            "hit_rates": {head.id: RATE for head in package.manifest.heads},
            "page_url": "https://varsel.example/explanations/6f1c0d4e",
        }
        | asked
    )  # fmt: skip
    answer = assess(package, decode_bundle(bytes(patient.bundle)), question)
    return row_of(log_row(answer, ASKED, privacy()))


ASKED = Asked(
    organisation="org", caller="ehr", hook="patient-view", hook_instance="h", content_digest="c",
    context_digest="d", fhir_base="https://ehr.example/fhir", patient_id=WHO, encounter_id="enc-17",
    user_id="Practitioner/9",
)  # fmt: skip


def row_of(stored: Row) -> Row:
    """What reading it back gives: the references sealed."""
    kept = {k: v for k, v in stored.items() if k not in ("references", "cpr_pseudonym")}
    return kept | {"erasure": None, "key_id": "k", "seal_key": "0", "sealed": b"?", "wrapped": b"?"}


def again(row: Mapping[str, Any]) -> Replay:
    """The row computed again with the package that made it."""
    return replay(row, package_of(row["model_id"]), COPENHAGEN)


def with_feature(row: Row, name: str, **changed: Any) -> Row:
    """The row with a logged feature changed."""
    features = json.loads(row["features"])
    for feature in features:
        if feature["name"] == name:
            feature |= changed
    return row | {"features": json.dumps(features)}


def places(row: Row) -> list[str]:
    return [difference.field for difference in again(row).differences]


# ---- equal ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "example", "language"),
    [(*one, "da") for one in EXAMPLES] + [(*one, "en") for one in EXAMPLES if "04" in one[1]],
)
def test_every_worked_example_is_computed_again_to_the_last_bit(
    model: str, example: str, language: str
) -> None:
    """Risk, points, interval, baseline, missing, alarms, and the cards as text."""
    row = logged(model, example, language=language)
    assert row["status"] == "scored"
    assert again(row).differences == []


@pytest.mark.parametrize("asked", [{"mode": "silent"}, {"page_url": None}, {"hit_rates": {}}])
def test_however_it_was_asked(asked: dict[str, Any]) -> None:
    """Silent, without a page, without a known hit rate."""
    assert again(logged("readmission-30d", **asked)).equal


@pytest.mark.parametrize("state", ["paused", "retired"])
def test_a_model_that_was_stopped_said_nothing_and_says_nothing(state: Any) -> None:
    """No risk is computed where none was; why is taken from the log."""
    row = logged("readmission-30d", standing=Standing(state=state, since="2026-11-01T00:00:00Z"))
    assert row["status"] == "refused"
    done = again(row)
    assert done.equal
    assert "status" in done.taken


def test_a_patient_the_model_is_not_for_has_no_features_and_no_number() -> None:
    """Years later there is no stay to ask about: nothing is kept of the patient's values."""
    row = logged("readmission-30d", as_of=parse_time("2031-01-01"))
    assert (row["status"], row["features"]) == ("not-eligible", None)
    assert again(row).equal


def test_the_answer_of_a_silent_version_beside_another_is_computed_again() -> None:
    """Nothing of it was returned, and nothing is: its risks are compared all the same."""
    row = logged("readmission-30d", mode="silent")
    document = json.loads(row["document"]) | {"returned": "shadow"}
    shadow = row | {"returned": "shadow", "document": json.dumps(document)}
    assert again(shadow).equal
    assert "heads[readmission].risk" in places(with_feature(shadow, "age", value=20.0))


def test_a_card_that_was_left_out_as_shown_before_is_no_difference() -> None:
    """The log says that it was."""
    row = logged("crc-surgery")
    document = json.loads(row["document"]) | {"returned": "shown-before"}
    without = row | {
        "returned": "shown-before", "document": json.dumps(document), "response": '{"cards":[]}',
    }  # fmt: skip
    assert again(without).equal
    assert places(row | {"response": '{"cards":[]}'}) == ["cards[0]"]


def test_too_few_data_are_too_few_again() -> None:
    """Without measurements there is no number, then and now; with them there would be one."""
    package = package_of("hf-deterioration")
    patient = read_example(package.folder / "examples" / "04.json")
    bundle = json.loads(bytes(patient.bundle))
    bundle["entry"] = [
        e for e in bundle["entry"]
        if e["resource"]["resourceType"] != "Observation"
        or e["resource"]["effectiveDateTime"] > str(to_iso(parse_time(patient.as_of) - 12 * HOUR_S))
    ]  # fmt: skip
    as_of = parse_time(patient.as_of)
    question = Question(
        prediction_id="6f1c0d4e-0000-8000-8000-000000000001", patient_id=None, as_of=as_of,
        now=as_of, language="da", standing=STANDING, hit_rates={},
    )  # fmt: skip
    answer = assess(package, decode_bundle(json.dumps(bundle).encode()), question)
    row = row_of(log_row(answer, ASKED, privacy()))
    assert row["status"] == "insufficient-data"
    assert again(row).differences == []
    document = json.loads(row["document"]) | {"reason": "something else"}
    assert places(row | {"document": json.dumps(document), "reason": "something else"})[0] == (
        "reason"
    )


# ---- not equal ------------------------------------------------------------------------------


def test_a_changed_feature_is_named_with_what_it_changes() -> None:
    """The value as it is shown, the risk, the points of its category; both values of each."""
    row = logged("readmission-30d")
    done = again(with_feature(row, "age", value=20.0))
    found = {difference.field: difference for difference in done.differences}
    (value,) = (f for f in found if f.endswith("features[age].value"))
    assert found[value].computed == 20.0
    before = json.loads(row["document"])["heads"][0]["risk"]
    assert found["heads[readmission].risk"].logged == before
    assert found["heads[readmission].risk"].computed != before
    assert done.largest is not None


def test_a_risk_changed_in_its_last_bit_is_found() -> None:
    """Equality has no tolerance."""
    row = logged("hf-deterioration")
    document = json.loads(row["document"])
    risk = document["heads"][0]["risk"]
    document["heads"][0]["risk"] = float.fromhex(float(risk).hex()) + 2**-54
    assert places(row | {"document": json.dumps(document)}) == ["heads[deterioration].risk"]


def test_a_changed_card_is_found() -> None:
    """What was shown is what must be shown again, word for word."""
    row = logged("readmission-30d")
    response = json.loads(row["response"])
    response["cards"][0]["summary"] = "Ingen risiko"
    (difference,) = again(row | {"response": json.dumps(response)}).differences
    assert difference.field == "cards[0].summary"
    assert difference.logged == "Ingen risiko"


def test_the_same_card_written_differently_is_not_the_text_that_was_sent() -> None:
    """Spaces between members: nothing we write has them."""
    row = logged("readmission-30d")
    spaced = json.dumps(json.loads(row["response"]), ensure_ascii=False)
    assert places(row | {"response": spaced}) == ["response"]


def test_an_answer_shown_under_the_id_of_another_one_is_no_difference() -> None:
    """Two replicas answered one call in different words: the second row has an id of its own, which
    follows from the one shown and from the response. The report says so; any other id is found."""
    row = logged("readmission-30d")
    beside = row | {"prediction_id": id_beside(row["prediction_id"], row["response"])}
    done = again(beside)
    assert done.equal
    assert done.prediction_id == beside["prediction_id"]
    assert f"prediction_id: shown as {row['prediction_id']}" in done.taken
    assert not any(one.startswith("prediction_id") for one in again(row).taken)
    assert places(row | {"prediction_id": id_beside(row["prediction_id"], "other")}) == [
        "columns.prediction_id"
    ]


@pytest.mark.parametrize("column", ["status", "mode", "model_version", "returned", "computed_at"])
def test_a_column_that_does_not_say_what_its_document_says_is_found(column: str) -> None:
    """What questions are asked of and what is read back whole are one record."""
    row = logged("readmission-30d")
    other = row["as_of"] if column == "computed_at" else "other"
    assert places(row | {column: other}) == [f"columns.{column}"]


def test_a_feature_that_was_taken_away_is_found() -> None:
    """Nothing is computed from half of the features."""
    row = logged("readmission-30d")
    features = [f for f in json.loads(row["features"]) if f["name"] != "age"]
    done = again(row | {"features": json.dumps(features)})
    (difference,) = [d for d in done.differences if d.field == "features"]
    assert "age" in difference.computed
    assert "age" not in difference.logged


def test_another_package_is_not_the_one_that_made_it() -> None:
    """The checksum is part of the document."""
    row = logged("readmission-30d")
    other = msgspec.json.decode(row["document"])
    other["model"]["checksum"] = "0" * 64
    found = places(row | {"document": json.dumps(other), "package_checksum": "0" * 64})
    assert found == ["model.checksum"]


def test_it_is_equal_also_after_the_installations_time_zone_was_changed() -> None:
    """Times on cards are those of the zone they were made in, which the document holds."""
    row = logged("readmission-30d", zone=ZoneInfo("Asia/Kolkata"))
    assert row["response"] != logged("readmission-30d")["response"]
    done = again(row)
    assert done.equal
    assert (done.zone, done.zone_logged) == ("Asia/Kolkata", True)
    assert (again(logged("readmission-30d"))).zone == "Europe/Copenhagen"


def without_zone(row: Row) -> Row:
    """The row as earlier software logged it."""
    document = json.loads(row["document"])
    del document["timezone"]
    return row | {"document": json.dumps(document)}


def test_of_older_rows_the_zone_is_the_installations_and_that_is_said() -> None:
    """Where it is another one, cards read differently and the numbers do not."""
    row = without_zone(logged("readmission-30d"))
    assert again(row).equal
    done = replay(row, package_of("readmission-30d"), ZoneInfo("Asia/Kolkata"))
    assert {difference.field.split("[")[0] for difference in done.differences} == {"cards"}
    said = as_json(done)
    assert (said["zone"], said["zone_logged"]) == ("Asia/Kolkata", False)


@pytest.mark.parametrize("name", ["Atlantis/Poseidonis", "../etc/passwd", ""])
def test_a_zone_that_is_none_is_our_failure(name: str) -> None:
    """Nobody guesses in which one the times were."""
    row = logged("readmission-30d")
    document = json.loads(row["document"]) | {"timezone": name}
    with pytest.raises(LogUnavailable, match="time zone"):
        again(row | {"document": json.dumps(document)})


# ---- alarms ---------------------------------------------------------------------------------


def alarming(at: float = 0.0) -> Row:
    """A row in which a hard rule on the saturation is met; asked so many seconds after its set."""
    package = package_of("copd-deterioration")
    patient = read_example(package.folder / "examples" / "04.json")
    bundle = json.loads(bytes(patient.bundle))
    newest = max(
        (
            e["resource"] for e in bundle["entry"]
            if e["resource"]["resourceType"] == "Observation"
            and e["resource"].get("valueQuantity", {}).get("unit") == "%"
            and e["resource"]["effectiveDateTime"] <= patient.as_of
        ),
        key=lambda r: r["effectiveDateTime"],
    )  # fmt: skip
    newest["valueQuantity"]["value"] = 71
    as_of = parse_time(patient.as_of) + at
    question = Question(
        prediction_id="6f1c0d4e-0000-8000-8000-000000000001", patient_id=None, as_of=as_of,
        now=as_of, language="da", standing=STANDING, hit_rates={},
    )  # fmt: skip
    answer = assess(package, decode_bundle(json.dumps(bundle).encode()), question)
    return row_of(log_row(answer, ASKED, privacy()))


@pytest.mark.parametrize("later_s", [0.0, 7200.0])
def test_an_alarm_of_what_the_model_saw_is_computed_again(later_s: float) -> None:
    """Asked at once, or two hours after the set."""
    row = alarming(later_s)
    assert [a["kind"] for a in json.loads(row["document"])["rule_alarms"]] == ["safety"]
    done = again(row)
    assert done.differences == []
    assert not [place for place in done.taken if place.startswith("rule_alarms")]


def test_an_alarm_that_must_stand_and_does_not_is_found() -> None:
    """Taken out of document and response: the features still say it."""
    row = alarming()
    document = json.loads(row["document"])
    (alarm,) = document["rule_alarms"]
    response = json.loads(row["response"])
    found = places(
        row
        | {
            "document": json.dumps(document | {"rule_alarms": []}),
            "response": json.dumps({"cards": response["cards"][1:]}),
        }
    )
    assert f"rule_alarms[{alarm['rule']}]" in found


def test_an_alarm_no_feature_explains_is_found() -> None:
    """Saturation is known and was not low: nothing could have raised it."""
    row = alarming()
    quiet = with_feature(row, spo2_feature(row), value=97.0)
    assert any(place.startswith("rule_alarms[") for place in places(quiet))


def spo2_feature(row: Row) -> str:
    """The feature of the rule that is met."""
    (alarm,) = json.loads(row["document"])["rule_alarms"]
    rules = package_of(row["model_id"]).manifest.rules
    return next(rule.feature for rule in rules if rule.id == alarm["rule"])


def test_an_alarm_met_by_a_bound_is_taken_from_the_log() -> None:
    """ "< 85 %" is no value, so it is no feature; the report says that it was not computed."""
    row = alarming()
    bound = with_feature(row, spo2_feature(row), value=None, status="missing")
    (alarm,) = json.loads(row["document"])["rule_alarms"]
    assert f"rule_alarms[{alarm['rule']}]" in again(bound).taken


# ---- what cannot be computed, and what the record is ----------------------------------------


def test_an_erased_prediction_cannot_be_computed() -> None:
    """It says so; it does not call nothing equal to nothing."""
    with pytest.raises(Erased):
        again(logged("readmission-30d") | dict.fromkeys(("features", "document", "response")))


@pytest.mark.parametrize("column", ["features", "document", "response"])
def test_a_payload_that_cannot_be_read_is_our_failure(column: str) -> None:
    """A broken text is never an equal one."""
    with pytest.raises(LogUnavailable):
        again(logged("readmission-30d") | {column: '{"half":'})


def test_the_report_says_with_which_libraries_then_and_now() -> None:
    """Where they differ, a last bit may; who reads the report must see it."""
    row = logged("readmission-30d") | {"libraries": "numpy 1.0.0"}
    said = as_json(again(row))
    assert said["libraries"] == {"logged": "numpy 1.0.0", "now": libraries()}
    assert said["equal"] is True
    assert all(f"{name} " in libraries() for name in ("numpy", "shap", "xgboost"))
    assert len(libraries()) <= LONGEST


def test_the_whole_record_names_nobody() -> None:
    """An auditor reads what was computed of what; not of whom."""
    row = logged("readmission-30d")
    record = whole_record(row | {"link": b"\x00\xff", "salt": b"secret-salt"}, {})
    text = json.dumps(record)
    for name in (WHO, "enc-17", "Practitioner/9", "ehr.example", "sealed", "wrapped", "salt"):
        assert name not in text.replace("identity_sealed", ""), name
    assert record["identity_sealed"] is True
    assert record["link"] == "00ff"
    assert record["document"]["heads"][0]["risk"] == json.loads(row["document"])["heads"][0]["risk"]
    assert record["as_of"].endswith("Z")
    assert {"features", "response", "timings", "libraries", "legal_ground"} <= set(record)


def test_an_erased_record_is_shown_as_what_is_left_of_it() -> None:
    """That it was made, and that its content is gone."""
    gone = dict.fromkeys(("features", "document", "response", "timings", "sealed"))
    record = whole_record(logged("readmission-30d") | gone | {"erasure": "decision-1"}, {})
    assert record["document"] is None
    assert record["identity_sealed"] is False
    assert record["erasure"] == "decision-1"


def test_a_package_is_found_by_its_checksum() -> None:
    """Whatever its folder is called."""
    package = package_of("crc-surgery")
    assert sums_checksum(package.folder) == package.checksum
    assert folder_of(package_folders(BUNDLED), package.checksum) == package.folder
    assert folder_of(package_folders(BUNDLED), "0" * 64) is None


def test_differences_are_listed_with_both_values() -> None:
    """As JSON, for who keeps the report."""
    row = logged("readmission-30d") | {"mode": "silent"}
    assert as_json(again(row))["differences"] == [
        Difference("columns.mode", "silent", "live")._asdict()
    ]
