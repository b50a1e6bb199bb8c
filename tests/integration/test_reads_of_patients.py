"""Who read a patient's predictions, told from the audit trail: one by one, in lists, in exports.

By the real API and the real commands, on a database of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from typer.testing import CliRunner

from cds_service.app import create_app
from cds_service.cli import app
from cds_service.db.tables import prediction_payloads, predictions
from cds_service.settings import Settings
from models.registry import Registry
from tests.patients import OTHER, PATIENT, key

OLD, BOTH = key("p"), f"{key('q', '2027')} {key('p')}"
ASKED = ("--who", "D. P. Officer", "--why", "case 17")
LIST = "/api/v1/predictions"
CSV, PARQUET, NDJSON = "text/csv", "application/vnd.apache.parquet", "application/fhir+ndjson"
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(slots=True)
class Hospital:
    """A service that runs, with predictions of two patients by name: a1, b1, a2."""

    settings: Settings
    client: TestClient
    changed: Changed
    base: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def predicts(self, name: str) -> None:
        """Have a prediction made: of the one patient where the name begins with a."""
        request = self.changed({})
        whole = json.dumps(request)
        patient = PATIENT if name.startswith("a") else OTHER
        request = json.loads(whole.replace(request["context"]["patientId"], patient))
        self.base = request["fhirServer"].rstrip("/")
        answer = self.client.post("/cds-services/readmission-30d", json=request)
        assert answer.json()["cards"]
        made = predictions.c.hook_instance == request["hookInstance"]
        at = datetime.now(UTC) - timedelta(minutes=10 - len(self.ids))  # a minute between them
        log = self.client.app.state.service.log  # type: ignore[attr-defined]
        with log.engine.begin() as connection:
            row = connection.execute(select(predictions).where(made)).mappings().one()
            for table in (predictions, prediction_payloads):
                this = update(table).where(table.c.prediction_id == row["prediction_id"])
                connection.execute(this.values(computed_at=at))
        self.ids[name], self.rows[name] = row["prediction_id"], {**row, "computed_at": at}

    def reads(self, accept: str | None = None, **query: Any) -> dict[str, Any]:
        """Somebody reads a list; the answer, where it is a page."""
        headers = {"Accept": accept} if accept else {}
        asked = {name.rstrip("_"): value for name, value in query.items()}
        answer = self.client.get(LIST, params={"purpose": "HQUALIMP", **asked}, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()) if accept is None else {}

    def typed(self, *words: str, pseudonym: str = OLD) -> str:
        """What a command of `varsel` prints here."""
        environment = {
            "VARSEL_PROFILE": "demo",
            "VARSEL_STATE_DIR": str(self.settings.state_dir),
            "VARSEL_DATABASE_URL": self.settings.database,
            "VARSEL_ERASURES_FILE": str(self.settings.state_dir / "erasures.jsonl"),
            "VARSEL_PSEUDONYM_KEY": pseudonym,
            "VARSEL_SEAL_KEY": key("s"),
        }
        done = CliRunner().invoke(app, [*words, *ASKED], env=environment)
        assert done.exit_code == 0, (done.output, repr(done.exception))
        return done.stdout

    def about(self, patient: str = PATIENT) -> tuple[str, ...]:
        """How a patient of it is named."""
        whom = ("--patient", patient, "--fhir-base", self.base)
        return ("--organisation", self.settings.organisation, *whom)

    def told(self, patient: str = PATIENT, **asked: str) -> list[dict[str, Any]]:
        """Every read of the patient's predictions, oldest first; predictions by name."""
        printed = self.typed("privacy", "reads", *self.about(patient), "--json", **asked)
        names = {prediction_id: name for name, prediction_id in self.ids.items()}
        found: list[dict[str, Any]] = json.loads(printed)["reads"]
        return [one | {"predictions": [names[p] for p in one["predictions"]]} for one in found]

    def covered(self, patient: str = PATIENT, **asked: str) -> list[list[str]]:
        """Of each read, which predictions of the patient's."""
        return [one["predictions"] for one in self.told(patient, **asked)]


@pytest.fixture
def hospital(
    database_url: str, tmp_path: Path, registry: Registry, changed: Changed
) -> Iterator[Hospital]:
    """A demo: whoever asks reads in every role."""
    settings = Settings(
        profile="demo",
        state_dir=tmp_path,
        database_url=database_url,
        pseudonym_key=OLD,
        seal_key=key("s"),
    )
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as client:
        here = Hospital(settings, client, changed)
        for name in ("a1", "b1", "a2"):
            here.predicts(name)
        yield here


# ---- lists ----------------------------------------------------------------------------------


def test_every_form_of_a_list_counts_as_a_read_of_what_it_held(hospital: Hospital) -> None:
    """With who, in which role, and what for."""
    hospital.reads()
    for form in (CSV, PARQUET, NDJSON):
        hospital.reads(form)
    reads = hospital.told()
    assert [one["predictions"] for one in reads] == [["a1", "a2"]] * 4
    assert hospital.covered(OTHER) == [["b1"]] * 4
    whats = ["read predictions", *["export predictions"] * 3]
    assert [one["what"] for one in reads] == whats
    assert {(one["who"], one["role"], one["why"]) for one in reads} == {
        ("demo", "validator", "HQUALIMP")
    }


def test_what_was_predicted_after_a_read_was_not_read(hospital: Hospital) -> None:
    """A list holds what there was when it was made."""
    hospital.reads(CSV)
    hospital.predicts("a3")
    with hospital.client.app.state.service.log.engine.begin() as connection:  # type: ignore[attr-defined]
        later = update(predictions).where(predictions.c.prediction_id == hospital.ids["a3"])
        connection.execute(later.values(computed_at=datetime.now(UTC)))
    assert hospital.covered() == [["a1", "a2"]]
    hospital.reads(CSV)
    assert hospital.covered() == [["a1", "a2"], ["a1", "a2", "a3"]]


def test_a_page_is_a_read_of_its_own_rows_alone(hospital: Hospital) -> None:
    """One row each: the first is the one patient's, the second the other's; an empty one is
    nobody's."""
    page = hospital.reads(limit=1)
    while page["next"]:
        query = dict(part.split("=") for part in page["next"].split("?")[1].split("&"))
        page = hospital.reads(limit=1, cursor=query["cursor"])
    assert page["predictions"] == []
    assert hospital.covered() == [["a1"], ["a2"]]
    assert hospital.covered(OTHER) == [["b1"]]


def test_a_list_is_a_read_of_what_its_filters_let_through(hospital: Hospital) -> None:
    """Each filter by itself."""
    second = hospital.rows["a2"]["computed_at"]
    moment = f"{second:%Y-%m-%dT%H:%M:%S.%f}Z"
    own, other = (hospital.rows[name]["patient_pseudonym"] for name in ("a1", "b1"))
    asked: list[tuple[dict[str, str], list[str]]] = [
        ({"service": "readmission-30d"}, ["a1", "a2"]),
        ({"service": "another"}, []),
        ({"version": "0.0.0"}, []),
        ({"status": "scored"}, ["a1", "a2"]),
        ({"status": "refused"}, []),
        ({"returned": "card"}, ["a1", "a2"]),
        ({"mode": "silent"}, []),
        ({"unit": "ward 7"}, []),
        ({"to": moment}, ["a1"]),
        ({"from_": moment}, ["a2"]),
        ({"pseudonym": own}, ["a1", "a2"]),
        ({"pseudonym": other}, []),
    ]
    for filters, _ in asked:
        hospital.reads(CSV, **filters)
    assert hospital.covered() == [expected for _, expected in asked if expected]


def test_one_prediction_that_is_read_is_told_with_the_lists(hospital: Hospital) -> None:
    """By the API, and shown by either command; another patient's is not."""
    for name in ("a1", "b1"):
        path = f"{LIST}/{hospital.ids[name]}"
        assert hospital.client.get(path, params={"purpose": "PATRQT"}).status_code == 200
    hospital.typed("replay", hospital.ids["a2"], "--show")
    hospital.typed("privacy", "show", hospital.ids["a2"])
    hospital.reads()
    reads = hospital.told()
    assert [(one["what"], one["predictions"]) for one in reads] == [
        ("read prediction", ["a1"]),
        ("read", ["a2"]),
        ("read", ["a2"]),
        ("read predictions", ["a1", "a2"]),
    ]


# ---- exports --------------------------------------------------------------------------------


def test_an_export_by_command_is_a_read_of_what_it_was_made_of(
    hospital: Hospital, tmp_path: Path
) -> None:
    """Of a model and a time; one of another model is none of theirs."""
    moment = f"{hospital.rows['a2']['computed_at']:%Y-%m-%dT%H:%M:%S.%f}Z"
    ways = ("--pseudonyms", "token")
    hospital.typed("export", "--out", str(tmp_path / "1.csv"), *ways)
    hospital.typed("export", "--out", str(tmp_path / "2.csv"), *ways, "--to", moment)
    hospital.typed("export", "--out", str(tmp_path / "3.csv"), *ways, "--model", "readmission-30d")
    reads = hospital.told()
    assert [one["predictions"] for one in reads] == [["a1", "a2"], ["a1"], ["a1", "a2"]]
    assert {(one["who"], one["what"]) for one in reads} == {("D. P. Officer", "export")}


# ---- restrictions and keys ------------------------------------------------------------------


def test_lists_made_while_reading_was_restricted_are_told_apart(hospital: Hospital) -> None:
    """They were made without the patient's predictions; before and after, they were not."""
    hospital.reads()
    for decision in ("restricted", "refused"):
        whom = hospital.about()
        decided = ("--decision", decision, "--ground", "accuracy", "--who", "w")
        done = CliRunner().invoke(
            app,
            ["privacy", "erase", *whom, *decided],
            env={
                "VARSEL_PROFILE": "demo",
                "VARSEL_STATE_DIR": str(hospital.settings.state_dir),
                "VARSEL_DATABASE_URL": hospital.settings.database,
                "VARSEL_PSEUDONYM_KEY": OLD,
                "VARSEL_SEAL_KEY": key("s"),
            },
        )
        assert done.exit_code == 0, done.output
        hospital.reads(CSV)
    assert [one["left_out"] for one in hospital.told()] == [False, True, False]
    assert [one["left_out"] for one in hospital.told(OTHER)] == [False, False, False]
    said = hospital.typed("privacy", "reads", *hospital.about()).splitlines()
    assert [line.split("[")[-1] for line in said] == [
        "2 predictions]",
        "left out, because reading was restricted]",
        "2 predictions]",
        "3 reads of 2 predictions",
    ]


def test_what_was_asked_by_an_older_pseudonym_is_told_while_its_key_is_there(
    hospital: Hospital,
) -> None:
    """The trail keeps the pseudonym it was written with; the predictions have got a new one."""
    own, other = (hospital.rows[name]["patient_pseudonym"] for name in ("a1", "b1"))
    for pseudonym in (own, other):
        hospital.reads(CSV, pseudonym=pseudonym)
    hospital.typed("privacy", "rotate", "pseudonyms", pseudonym=BOTH)
    assert hospital.covered(pseudonym=BOTH) == [["a1", "a2"]]


# ---- subject access, and on record ----------------------------------------------------------


def test_a_patient_is_told_who_read_lists_that_they_were_in(
    hospital: Hospital, tmp_path: Path
) -> None:
    """In both files of subject access."""
    hospital.reads(service="readmission-30d")
    hospital.reads(CSV, status="refused")
    folder = tmp_path / "out"
    hospital.typed("privacy", "access", *hospital.about(), "--out", str(folder))
    (read,) = json.loads((folder / "access.json").read_text())["lists_and_exports"]
    assert read["predictions"] == [hospital.ids["a1"], hospital.ids["a2"]]
    assert read["details"]["filters"] == {"service": "readmission-30d"}
    text = (folder / "access.txt").read_text()
    assert "Hvem har læst lister og udtræk" in text
    assert "demo (validator), read predictions: HQUALIMP (2)" in text


def test_a_patient_is_not_told_of_other_patients_predictions_on_a_page(
    hospital: Hospital, tmp_path: Path
) -> None:
    """The audit trail keeps a page's first and last row; the patient was between the two."""
    hospital.reads()
    printed = hospital.typed("privacy", "reads", *hospital.about(OTHER), "--json")
    folder = tmp_path / "out"
    hospital.typed("privacy", "access", *hospital.about(OTHER), "--out", str(folder))
    for said in (printed, (folder / "access.json").read_text()):
        assert hospital.ids["b1"] in said
        assert not [name for name in ("a1", "a2") if hospital.ids[name] in said]
        assert "between" not in said
    asked = {"purpose": "HCOMPL", "what": "read predictions"}
    (entry,) = hospital.client.get("/api/v1/audit", params=asked).json()["audit"]
    ends = {prediction_id for _, prediction_id in entry["details"]["between"]}
    assert ends == {hospital.ids["a1"], hospital.ids["a2"]}


def test_that_somebody_asked_who_read_is_itself_on_record(hospital: Hospital) -> None:
    """Under the patient's pseudonym, and so among the searches for the patient."""
    assert hospital.told() == []
    asked = {"purpose": "HCOMPL", "what": "find reads"}
    (entry,) = hospital.client.get("/api/v1/audit", params=asked).json()["audit"]
    assert (entry["who"], entry["why"]) == ("D. P. Officer", "case 17")
    assert entry["subject"] == hospital.rows["a1"]["patient_pseudonym"]
