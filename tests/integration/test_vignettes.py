"""The telemonitoring and surgery packages over HTTP, on their own worked patients."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from cds_service.app import create_app
from cds_service.settings import Settings
from fhir_adapters.clock import DAY_S, parse_time, to_iso
from fhir_adapters.prefetch import answer_queries
from models.examples import Example, read_example
from models.package import Package
from models.prediction import State
from models.registry import BUNDLED, Registry, admit
from tests.decided import decided

Resource = dict[str, Any]
Rows = Callable[[], list[sqlite3.Row]]
TELE = ("copd-deterioration", "hf-deterioration")
MODELS = (*TELE, "crc-surgery", "readmission-30d")
HIGH, LOW = "04.json", "01.json"
"""The worked examples are sorted by risk; the last lies above every threshold."""


@cache
def served(model: str) -> Package:
    return admit(BUNDLED / model, allow_synthetic=True)


@pytest.fixture
def everything(settings: Settings) -> Iterator[TestClient]:
    """A service with the four packages."""
    registry = Registry({m: served(m) for m in MODELS}, {})
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


def example(model: str, name: str) -> Example:
    return read_example(served(model).folder / "examples" / name)


def request(
    model: str,
    name: str,
    *,
    later_s: float = 0.0,
    change: Callable[[list[Resource]], None] | None = None,
) -> Resource:
    """A patient-view of a worked example's patient, as the record was known at that moment."""
    found = example(model, name)
    as_of = parse_time(found.as_of)
    resources = [e["resource"] for e in json.loads(bytes(found.bundle))["entry"]]
    known = [r for r in resources if _begun(r) <= as_of]
    if change:
        change(known)
    patient = next(r for r in known if r["resourceType"] == "Patient")
    patient.pop("deceasedDateTime", None)
    templates = {key: q.template for key, q in served(model).manifest.prefetch.items()}
    return {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "fhirServer": "https://ehr.example/fhir",
        "context": {"userId": "Practitioner/demo", "patientId": patient["id"]},
        "extension": {"dk.varsel.as-of": to_iso(as_of + later_s)},
        "prefetch": answer_queries([{"resource": r} for r in known], templates, patient),
    }


def _begun(resource: Resource) -> float:
    """When a resource could have been in the record; what has no time was always there."""
    period = resource.get("period", {}) or resource.get("effectivePeriod", {})
    names = ("issued", "effectiveDateTime", "authoredOn", "authored", "recordedDate")
    said = [resource[name] for name in (*names, "performedDateTime") if name in resource]
    times = [parse_time(text) for text in (*said, *filter(None, [period.get("start")]))]
    return max(times, default=float("-inf"))


def ask(client: TestClient, model: str, body: Resource) -> list[Resource]:
    answer = client.post(f"/cds-services/{model}", json=body)
    assert answer.status_code == 200, answer.text
    cards: list[Resource] = answer.json()["cards"]
    return cards


# ---- three of each package, in both languages -------------------------------------------------

SYNTHETIC = {"da": "SYNTETISK MODEL", "en": "SYNTHETIC MODEL"}
NOT_COMPUTED = {"da": "er ikke beregnet", "en": "was not computed"}


def _with_too_little(model: str) -> Callable[[list[Resource]], None]:
    """A stay or an assessment without blood tests; of home measurements, the first set alone."""

    def change(resources: list[Resource]) -> None:
        tests = [r for r in resources if r["resourceType"] == "Observation"]
        newest = max(_begun(r) for r in tests)
        for test in tests:
            old = model in TELE and _begun(test) < newest - DAY_S / 2
            if old or "laboratory" in json.dumps(test.get("category", [])):
                resources.remove(test)

    return change


@pytest.mark.parametrize("language", ["da", "en"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_high_low_and_too_little_in_both_languages(
    everything: TestClient, rows: Rows, model: str, language: str
) -> None:
    """A card of the risk; no card, but a logged risk; a card of what is lacking, and no number."""
    headers = {"Accept-Language": language}

    def summaries(body: Resource) -> list[str]:
        answer = everything.post(f"/cds-services/{model}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return [card["summary"] + card["detail"] for card in answer.json()["cards"]]

    high = summaries(request(model, HIGH))
    low = summaries(request(model, LOW))
    too_little = summaries(request(model, HIGH, change=_with_too_little(model)))
    assert any(SYNTHETIC[language] in text or "### " in text for text in high)
    assert not any(SYNTHETIC[language] in text for text in low)
    (lacking,) = [text for text in too_little if NOT_COMPUTED[language] in text]
    assert "%" not in lacking
    assert [row["status"] for row in rows()] == ["scored", "scored", "insufficient-data"]


# ---- home monitoring ------------------------------------------------------------------------


@pytest.mark.parametrize("model", TELE)
def test_a_typical_high_and_a_typical_low(everything: TestClient, rows: Rows, model: str) -> None:
    """A warning from the model for the one; for the other a logged risk, and no card of it."""
    high = ask(everything, model, request(model, HIGH))
    assert any("SYNTETISK MODEL" in card["summary"] for card in high) or any(
        "### Modellen" in card["detail"] for card in high
    )
    assert all("ukendt her" in c["detail"] for c in high if "SYNTETISK MODEL" in c["summary"])
    low = ask(everything, model, request(model, LOW))
    assert not any("SYNTETISK MODEL" in card["summary"] for card in low)
    assert [row["status"] for row in rows()] == ["scored", "scored"]


@pytest.mark.parametrize("model", TELE)
def test_the_same_set_gets_the_same_answer_days_later(
    everything: TestClient, rows: Rows, model: str
) -> None:
    """It sees what was known when the set was complete; nine days later it asks for a new."""
    for days in (0.0, 3.0, 9.0):
        ask(everything, model, request(model, HIGH, later_s=days * DAY_S))
    at_once, later, too_late = rows()
    risks = [json.loads(row["document"])["heads"][0]["risk"] for row in (at_once, later)]
    assert risks[0] == risks[1]
    assert at_once["index_time"] == later["index_time"]
    assert (too_late["status"], too_late["reason"]) == ("not-eligible", "no-recent-set")


def _gasping(model: str) -> Callable[[list[Resource]], None]:
    """The newest measured saturation, or systolic pressure for heart failure, made dangerous."""

    def change(resources: list[Resource]) -> None:
        code, value = {"copd-deterioration": ("NPU03011", 79.0)}.get(model, ("DNK05472", 82.0))
        unit = "%" if model == "copd-deterioration" else "mm[Hg]"
        patient = next(r["id"] for r in resources if r["resourceType"] == "Patient")
        newest = max(_begun(r) for r in resources if r["resourceType"] == "Observation")
        resources.append(
            {
                "resourceType": "Observation",
                "id": "dangerous",
                "status": "final",
                "code": {"coding": [{"system": "urn:oid:1.2.208.176.2.1", "code": code}]},
                "subject": {"reference": f"Patient/{patient}"},
                "effectiveDateTime": to_iso(newest),
                "valueQuantity": {
                    "value": value,
                    "unit": unit,
                    "system": "http://unitsofmeasure.org",
                    "code": unit,
                },
            }
        )

    return change


@pytest.mark.parametrize("model", TELE)
@pytest.mark.parametrize("name", [LOW, HIGH])
def test_a_hard_rule_alarms_whatever_the_model_says(
    everything: TestClient, model: str, name: str
) -> None:
    """A saturation of 79, a systolic pressure of 82: a critical card, first."""
    first, *_ = ask(everything, model, request(model, name, change=_gasping(model)))
    assert first["indicator"] == "critical"
    assert "Fast sikkerhedsregel" in first["detail"]


def _measured_at(moment: float, resource: Resource) -> bool:
    return resource["resourceType"] == "Observation" and _begun(resource) == moment


@pytest.mark.parametrize("model", TELE)
def test_a_hard_rule_alarms_on_a_bound_too(everything: TestClient, rows: Rows, model: str) -> None:
    """A saturation of "< 79": no value for the model, and all the more an alarm."""
    alarm = _gasping(model)

    def below(resources: list[Resource]) -> None:
        alarm(resources)
        (dangerous,) = (r for r in resources if r["id"] == "dangerous")
        dangerous["valueQuantity"]["comparator"] = "<"
        moment = _begun(dangerous)
        resources[:] = [r for r in resources if r is dangerous or not _measured_at(moment, r)]

    first, *_ = ask(everything, model, request(model, HIGH, change=below))
    assert first["indicator"] == "critical"
    assert re.search(
        r"(Iltmætning < 79 %|blodtryk < 82 mmHg) er (på eller )?under", first["summary"]
    )
    features = {f["name"]: f for f in json.loads(rows()[0]["features"])}
    name = "spo2" if model == "copd-deterioration" else "systolic"
    assert features[name]["value"] is None
    assert features[name]["reason"].startswith("outside the measuring range: <")


@pytest.mark.parametrize("model", TELE)
@pytest.mark.parametrize("state", ["silent", "paused", "retired"])
def test_a_hard_rule_alarms_though_the_model_is_silent_or_stopped(
    settings: Settings, model: str, state: State
) -> None:
    """No risk is shown; a stopped model says so beside the alarm, never instead of it."""
    package = served(model)
    decided(settings, package, state)
    app = create_app(settings, Registry({model: package}, {}))
    with TestClient(app, raise_server_exceptions=False) as client:
        first, *others = ask(client, model, request(model, HIGH, change=_gasping(model)))
    assert first["indicator"] == "critical"
    assert "Fast sikkerhedsregel" in first["detail"]
    assert "### Modellen" not in first["detail"]
    assert not any("SYNTETISK MODEL" in card["summary"] for card in others)
    stopped = [card for card in others if "Prognosen er" in card["summary"]]
    assert len(stopped) == (0 if state == "silent" else 1)


@pytest.mark.parametrize("model", TELE)
def test_a_hard_rule_alarms_where_the_model_has_too_little_to_go_on(
    everything: TestClient, rows: Rows, model: str
) -> None:
    """The first set of all: no number, but the alarm."""
    alarm = _gasping(model)

    def only_this(resources: list[Resource]) -> None:
        alarm(resources)
        resources[:] = [
            r for r in resources if r["resourceType"] != "Observation" or r["id"] == "dangerous"
        ]

    first, *others = ask(everything, model, request(model, HIGH, change=only_this))
    assert first["indicator"] == "critical"
    assert any("ikke beregnet" in card["summary"] for card in others)
    assert rows()[0]["status"] == "insufficient-data"


@pytest.mark.parametrize("model", TELE)
def test_a_hard_rule_sees_what_came_after_the_set(everything: TestClient, model: str) -> None:
    """The form is often filled in after measuring; severe breathlessness there alarms all the same.

    The model's own answer to the set stays what it was.
    """

    def form_sent_later(resources: list[Resource]) -> None:
        patient = next(r["id"] for r in resources if r["resourceType"] == "Patient")
        newest = max(_begun(r) for r in resources if r["resourceType"] == "Observation")
        link = served(model).manifest.answers["symptom_dyspnoea"].link_ids[0]
        resources[:] = [r for r in resources if r["resourceType"] != "QuestionnaireResponse"]
        resources.append(
            {
                "resourceType": "QuestionnaireResponse",
                "id": "later",
                "status": "completed",
                "subject": {"reference": f"Patient/{patient}"},
                "authored": to_iso(newest + 1200.0),
                "item": [{"linkId": link, "answer": [{"valueInteger": 3}]}],
            }
        )

    cards = ask(everything, model, request(model, LOW, later_s=3600.0, change=form_sent_later))
    assert cards[0]["indicator"] == "critical"
    assert "Svær åndenød" in cards[0]["summary"]


# ---- surgery --------------------------------------------------------------------------------


def test_five_outcomes_stand_on_one_card(everything: TestClient, rows: Rows) -> None:
    (card,) = ask(everything, "crc-surgery", request("crc-surgery", HIGH))
    heads = json.loads(rows()[0]["document"])["heads"]
    assert {"mort90", "compl30", "reop30", "readm30"} <= {head["head"] for head in heads}
    assert all(f"{100 * head['risk']:.1f}".replace(".", ",") in card["detail"] for head in heads)
    assert card["detail"].count("til orientering") <= 1
    page = everything.get("/explanations/" + card["links"][0]["url"].rsplit("/", 1)[1]).text
    titles = {h.id: h.title.da for h in served("crc-surgery").manifest.heads}
    assert all(f"<h2>{titles[head['head']]}</h2>" in page for head in heads)


def test_a_card_is_shown_once_for_an_assessment(everything: TestClient, rows: Rows) -> None:
    """At the second opening of the chart nothing is new; the log says why no card left."""
    first = ask(everything, "crc-surgery", request("crc-surgery", HIGH))
    second = ask(everything, "crc-surgery", request("crc-surgery", HIGH, later_s=DAY_S))
    assert (len(first), second) == (1, [])
    assert [row["returned"] for row in rows()] == ["card", "shown-before"]


def test_the_same_call_on_later_data_is_not_held_back_by_its_first_answer(
    everything: TestClient, rows: Rows
) -> None:
    """The first answer may be the one that was lost; to another call it says nothing new."""
    first = request("crc-surgery", HIGH)
    later = request("crc-surgery", HIGH, later_s=3600.0)
    same_call = later | {"hookInstance": first["hookInstance"]}
    assert [len(ask(everything, "crc-surgery", body)) for body in (first, same_call)] == [1, 1]
    assert ask(everything, "crc-surgery", later) == []
    said = [(row["returned"], row["attempt"]) for row in rows()]
    assert said == [("card", 0), ("card", 1), ("shown-before", 0)]


def _far_from_usual(resources: list[Resource]) -> None:
    """The newest haemoglobin is 90 mmol/L, which cannot be; the risk stays in its bands."""
    found = [r for r in resources if "NPU02319" in json.dumps(r.get("code"))]
    max(found, key=_begun)["valueQuantity"]["value"] = 90


def test_an_alarm_in_silent_mode_is_no_risk_shown_before(
    settings: Settings, everything: TestClient, rows: Rows
) -> None:
    """Nobody saw the risk while the site was silent; in live mode it is shown, once."""
    registry = Registry({"crc-surgery": served("crc-surgery")}, {})
    with TestClient(create_app(settings.model_copy(update={"mode": "silent"}), registry)) as silent:
        body = request("crc-surgery", HIGH, change=_far_from_usual)
        (alarm,) = ask(silent, "crc-surgery", body)
    assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")
    (risk,) = ask(everything, "crc-surgery", request("crc-surgery", HIGH, later_s=3600.0))
    assert "Død inden 90 dage" in risk["summary"]
    assert ask(everything, "crc-surgery", request("crc-surgery", HIGH, later_s=7200.0)) == []
    said = [(row["mode"], row["returned"]) for row in rows()]
    assert said == [("silent", "card"), ("live", "card"), ("live", "shown-before")]


def test_an_alarm_between_does_not_bring_a_known_risk_again(
    everything: TestClient, rows: Rows
) -> None:
    """The alarm is shown alone; it takes nothing from what was shown before it."""
    assert len(ask(everything, "crc-surgery", request("crc-surgery", HIGH))) == 1
    body = request("crc-surgery", HIGH, later_s=3600.0, change=_far_from_usual)
    alarms = ask(everything, "crc-surgery", body)
    assert ["Kontrollér" in alarm["summary"] for alarm in alarms] == [True]
    assert ask(everything, "crc-surgery", request("crc-surgery", HIGH, later_s=7200.0)) == []
    assert [row["returned"] for row in rows()] == ["card", "card", "shown-before"]


def test_the_log_line_of_a_repeated_call_counts_what_was_sent(everything: TestClient) -> None:
    """Asked anew it would be known by now; the stored card left, and the line says so."""
    first = request("crc-surgery", HIGH)
    sent = ask(everything, "crc-surgery", first)
    ask(everything, "crc-surgery", request("crc-surgery", HIGH, change=_far_from_usual))
    with capture_logs() as lines:
        assert ask(everything, "crc-surgery", first) == sent
    (line,) = [line for line in lines if line["event"] == "answered"]
    said = {name: line[name] for name in ("status", "returned", "cards", "replayed")}
    assert said == {"status": "scored", "returned": "card", "cards": 1, "replayed": True}


def test_a_card_is_shown_again_where_a_band_has_changed(everything: TestClient, rows: Rows) -> None:
    """The record was corrected: a woman of forty, not a man of 97; the risk of a leak is usual."""

    def another(resources: list[Resource]) -> None:
        for resource in resources:
            if resource["resourceType"] == "Patient":
                resource |= {"birthDate": "1985-01-01", "gender": "female"}

    assert ask(everything, "crc-surgery", request("crc-surgery", HIGH))
    ask(everything, "crc-surgery", request("crc-surgery", HIGH, change=another))
    bands = [{h["head"]: h["band"] for h in json.loads(row["document"])["heads"]} for row in rows()]
    assert bands[0] != bands[1]
    assert [row["returned"] for row in rows()] == ["card", "card"]
