"""`varsel privacy …`, as a data-protection officer types it, on a database of each kind."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert
from typer.testing import CliRunner, Result

from cds_service.cli import app
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.tables import feedback, prediction_payloads, undelivered
from cds_service.errors import AlreadyUsed, BadRequest, Erased, Restricted, SetupError
from cds_service.identities.register import read_register
from models.errors import PackageRefused
from models.manifest import read_manifest
from models.package import sums_checksum
from models.registry import BUNDLED
from tests.logged import NOW
from tests.patients import (
    BASE,
    CPR,
    HOLDER,
    OTHER,
    PATIENT,
    about,
    every_value,
    key,
    logged,
    privacy_with,
    table,
)

PRIVACY = privacy_with(key("p"), key("s"))
ASKED = ("--who", "D. P. Officer", "--why", "case 17")
BY_ID = ("--organisation", HOLDER, "--patient", PATIENT, "--fhir-base", BASE)
BY_CPR = ("--organisation", HOLDER, "--cpr", "-")
GRANTED = ("--decision", "granted", "--ground", "art. 17", "--who", "D. P. Officer")
Typed = Callable[..., Result]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what does not depend on the database."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The database."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def typed(database_url: str, tmp_path: Path) -> Typed:
    """Types a command of `varsel` in an installation on that database; settings are put beside."""

    def run(*words: str, typing: str = "", code: int = 0, **settings: str) -> Result:
        environment = {
            "VARSEL_PROFILE": "production",
            "VARSEL_DATABASE_URL": database_url,
            "VARSEL_ERASURES_FILE": str(tmp_path / "erasures.jsonl"),
            "VARSEL_PSEUDONYM_KEY": key("p"),
            "VARSEL_SEAL_KEY": key("s"),
            **{f"VARSEL_{name.upper()}": value for name, value in settings.items()},
        }
        done = CliRunner().invoke(app, list(words), env=environment, input=typing)
        raised = done.exception if not isinstance(done.exception, SystemExit) else None
        assert done.exit_code == code, (done.output, repr(raised))
        assert CPR not in done.output + str(raised)
        return done

    return run


def told(done: Result) -> Any:
    """The one JSON document a command printed."""
    return json.loads(done.stdout)


@pytest.fixture
def two(database_url: str) -> list[str]:
    """Two predictions of a patient with a CPR number, one of another patient."""
    rows = (about(PRIVACY, cpr=CPR), about(PRIVACY, cpr=CPR), about(PRIVACY, OTHER))
    return logged(database_url, PRIVACY, *rows)


def verified(typed: Typed) -> None:
    """`varsel log verify` finds nothing wrong, the vault opened too."""
    done = typed("log", "verify", "--identities", *ASKED, "--json")
    assert told(done)["findings"] == []


# ---- find -----------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [CPR, f"{CPR[:6]}-{CPR[6:]}\n"])
def test_a_patient_is_found_by_cpr_number_and_by_id(
    typed: Typed, two: list[str], engine: Engine, written: str
) -> None:
    """With the pseudonym under every active key; each search is on record, without the number."""
    assert two
    ring = f"{key('q', '2027')} {key('p')}"
    by_cpr = told(
        typed("privacy", "find", *BY_CPR, *ASKED, "--json", typing=written, pseudonym_key=ring)
    )
    by_id = told(typed("privacy", "find", *BY_ID, *ASKED, "--json", pseudonym_key=ring))
    assert by_cpr == by_id
    counts = {one["key"]: one["predictions"] for one in by_id["pseudonyms"]}
    assert (by_id["predictions"], counts) == (2, {"2027": 0, "0": 2})
    kinds = [(row["what"], row["who"], row["why"]) for row in table(engine, "audit_entries")]
    assert kinds == [("find", "D. P. Officer", "case 17")] * 3
    assert CPR.encode() not in every_value(engine)


@on_sqlite
def test_a_cpr_number_on_the_command_line_is_refused_unread(typed: Typed) -> None:
    """Every account on the machine could read it there; the refusal does not repeat it."""
    done = typed("privacy", "find", "--organisation", "o", "--cpr", CPR, *ASKED, code=1)
    assert isinstance(done.exception, BadRequest)
    assert "command line" in str(done.exception)


def test_nobody_is_found_in_another_organisation(typed: Typed, two: list[str]) -> None:
    """Two organisations have two pseudonyms of one patient."""
    assert two
    other = ("--organisation", "org-b", "--cpr", "-")
    found = told(typed("privacy", "find", *other, *ASKED, "--json", typing=CPR))
    assert found == {"predictions": 0, "restricted": False, "pseudonyms": []}
    pseudonyms = {PRIVACY.pseudonym(one, "CPR", CPR) for one in (HOLDER, "org-b")}
    assert len(pseudonyms) == 2


def test_a_number_that_was_sent_later_finds_the_patient_too(
    typed: Typed, database_url: str
) -> None:
    """A replacement number gives way to the number that came in its place."""
    for cpr in (None, "0101651XX1", CPR):
        logged(database_url, PRIVACY, about(PRIVACY, cpr=cpr))
    found = told(typed("privacy", "find", *BY_CPR, *ASKED, "--json", typing=CPR))
    assert found["predictions"] == 3


@on_sqlite
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--patient", "1", *ASKED), "--fhir-base"),
        (("--cpr", "-", "--patient", "1", *ASKED), "a patient is named by"),
        ((*BY_ID[2:], "--who", " ", "--why", "x"), "is empty"),
        ((*BY_ID[2:], "--who", "x" * 129, "--why", "x"), "longer than 128"),
    ],
)
def test_who_is_meant_and_who_asks_must_be_said(
    typed: Typed, words: tuple[str, ...], said: str
) -> None:
    """And one way of naming a patient, not two."""
    done = typed("privacy", "find", "--organisation", "o", *words, code=1, typing=CPR)
    assert isinstance(done.exception, BadRequest)
    assert said in str(done.exception)


# ---- access ---------------------------------------------------------------------------------


def test_a_patient_gets_everything_in_files_nobody_else_can_read(
    typed: Typed, two: list[str], engine: Engine, tmp_path: Path
) -> None:
    """Predictions with what was shown, who asked, feedback, reads; nothing on the terminal."""
    with engine.begin() as connection:
        given = {"prediction_id": two[0], "organisation": HOLDER, "caller": "c", "service": "s"}
        answered = {"id": "1", "card": "k", "outcome": "overridden", "received_at": NOW}
        connection.execute(insert(feedback), given | answered)
        late = {"id": "1", "prediction_id": two[1], "how": "late", "at": NOW}
        connection.execute(insert(undelivered), late)
    typed("privacy", "show", two[0], *ASKED)
    folder = tmp_path / "out"
    done = typed("privacy", "access", *BY_CPR, *ASKED, "--out", str(folder), typing=CPR)
    assert PATIENT not in done.output
    assert "27" not in done.stdout.replace(str(folder), "")
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    all_of_it = json.loads((folder / "access.json").read_text())
    assert all_of_it["identity"] == [{"fhir_base": BASE, "patient": PATIENT, "cpr": CPR}]
    first, second = all_of_it["predictions"]
    assert {first["prediction_id"], second["prediction_id"]} == set(two[:2])
    of = {one["prediction_id"]: one for one in (first, second)}
    assert of[two[0]]["feedback"][0]["outcome"] == "overridden"
    assert of[two[1]]["undelivered"][0]["how"] == "late"
    assert [entry["what"] for entry in of[two[0]]["audit"]] == ["read"]
    assert of[two[0]]["references"]["user"] == "Practitioner/secret-user-7"
    assert (first["purpose"], first["legal_ground"]) == ("treatment", "g")
    assert [entry["what"] for entry in all_of_it["searches"]] == ["access", "find"]
    text = (folder / "access.txt").read_text()
    for part in ("artikel 15", CPR, "27,1 %", "Vist: Risiko", "overridden", "case 17"):
        assert part in text, part
    entry = table(engine, "audit_entries")[-1]
    assert entry["what"] == "access"
    assert json.loads(entry["details"]) == {"predictions": 2, "vault": "opened"}
    again = typed("privacy", "access", *BY_ID, *ASKED, "--out", str(folder), code=1)
    assert "File exists" in str(again.exception)


@on_sqlite
def test_a_package_that_is_refused_today_does_not_stand_in_the_way_of_access(
    typed: Typed, database_url: str, tmp_path: Path
) -> None:
    """Its predictions are told by the data's own names; others in their package's words still."""
    served, kept = BUNDLED / "readmission-30d", tmp_path / "models" / "readmission-30d"
    kept.mkdir(parents=True)
    manifest = (served / "manifest.toml").read_text()
    strange = manifest.replace("&_sort=-date", "&_include=Encounter:location&_sort=-date")
    (kept / "manifest.toml").write_text(strange)
    (kept / "SHA256SUMS").write_text("of another time\n")
    with pytest.raises(PackageRefused, match=r"prefetch\.encounters\.template"):
        read_manifest(kept)
    head = {"head": "readmission", "outcome": "back", "horizon_days": 30, "risk": 0.271}
    document = json.dumps({"heads": [head]})
    sums = [sums_checksum(folder) for folder in (served, kept)]
    rows = [about(PRIVACY, package_checksum=one, document=document) for one in sums]
    logged(database_url, PRIVACY, *rows)
    folder = tmp_path / "out"
    told_to = ("--out", str(folder), "--language", "en")
    typed("privacy", "access", *BY_ID, *ASKED, *told_to, models_dir=str(kept.parent))
    text = (folder / "access.txt").read_text()
    assert "back within 30 days: 27.1 %" in text
    assert "Acute readmission within 30 days: 27.1 %" in text


# ---- erase ----------------------------------------------------------------------------------


def test_what_is_erased_is_gone_and_that_it_was_is_on_record(
    typed: Typed, two: list[str], engine: Engine
) -> None:
    """Payload, identity, data key and pseudonyms; another patient's stay; the chain holds."""
    before = {row["prediction_id"]: row for row in table(engine, "predictions")}
    pseudonym = before[two[0]]["patient_pseudonym"]
    done = typed("privacy", "erase", *BY_CPR, *GRANTED, typing=CPR)
    assert "2 predictions erased" in done.stdout
    assert "de-identified, not anonymous" in done.stdout
    rows = {row["prediction_id"]: row for row in table(engine, "predictions")}
    (decision,) = table(engine, "erasures")
    assert (decision["decision"], decision["predictions"]) == ("granted", 2)
    for one in two[:2]:
        row = rows[one]
        gone = row["patient_pseudonym"], row["encounter_pseudonym"], row["index_time"]
        assert gone == ("", None, None)
        assert row["erasure"] == decision["id"]
        assert row["commitment"] == before[one]["commitment"]
    assert rows[two[2]] == before[two[2]]
    for name in ("prediction_payloads", "vault_entries"):
        assert [row["prediction_id"] for row in table(engine, name)] == [two[2]]
    assert len(table(engine, "vault_keys")) == 1
    assert pseudonym not in {row["patient_pseudonym"] for row in rows.values()}
    again = told(typed("privacy", "erase", *BY_ID, *GRANTED, "--json"))
    assert again["predictions"] == 0
    verified(typed)


def test_a_call_that_was_erased_is_not_answered_again(typed: Typed, database_url: str) -> None:
    """The same call would bring back what was to be forgotten; a new one is answered."""
    row = about(PRIVACY)
    logged(database_url, PRIVACY, row)
    typed("privacy", "erase", *BY_ID, *GRANTED)
    with pytest.raises(AlreadyUsed, match="was erased"):
        logged(database_url, PRIVACY, row)
    logged(database_url, PRIVACY, about(PRIVACY))
    found = told(typed("privacy", "find", *BY_ID, *ASKED, "--json"))
    assert found["predictions"] == 1


def test_a_restriction_holds_until_another_decision(
    typed: Typed, two: list[str], database_url: str, tmp_path: Path
) -> None:
    """Nobody reads the patient's predictions, also new ones; the patient's own access is open."""
    ground = ("--ground", "accuracy is contested", "--who", "D. P. Officer")
    typed("privacy", "erase", *BY_ID, "--decision", "restricted", *ground)
    (new,) = logged(database_url, PRIVACY, about(PRIVACY))
    with PredictionLog(open_engine(database_url), PRIVACY) as log:
        for one in (two[0], new):
            with pytest.raises(Restricted):
                log.read(one)
        assert log.read(two[2]) is not None
        assert typed("privacy", "access", *BY_ID, *ASKED, "--out", str(tmp_path / "out"))
        assert "restricted" in typed("privacy", "find", *BY_ID, *ASKED).stdout
        typed("privacy", "erase", *BY_ID, "--decision", "refused", *ground)
        assert log.read(two[0]) is not None


@pytest.mark.parametrize(
    ("database_url", "cut"),
    [("sqlite", False), ("sqlite", True), ("postgresql", True)],
    indirect=["database_url"],
)
def test_a_restored_backup_forgets_again(
    typed: Typed, engine: Engine, two: list[str], database_url: str, tmp_path: Path, cut: bool
) -> None:
    """The register does again what the database does not know of, and nothing twice: also where
    the erasing command ended between register and database."""
    path = Path(str(engine.url.database))
    if not cut:
        engine.dispose()
        shutil.copy(path, tmp_path / "backup.db")
        typed("privacy", "erase", *BY_ID, *GRANTED)
        for name in ("", "-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        shutil.copy(tmp_path / "backup.db", path)
    else:
        line = {
            "id": "d-1", "what": "erase", "organisation": HOLDER, "who": "w", "ground": "g",
            "at": datetime.now(UTC).isoformat(), "predictions": two[:1],
            "pseudonyms": {PRIVACY.pseudonym(HOLDER, BASE, "Patient", PATIENT): "0"},
        }  # fmt: skip
        (tmp_path / "erasures.jsonl").write_text(json.dumps(line) + "\n")
    assert len(table(engine, "vault_entries")) == 3
    (later,) = logged(database_url, PRIVACY, about(PRIVACY, computed_at=datetime.now(UTC)))
    done = told(typed("privacy", "replay-erasures", *ASKED, "--json"))
    assert list(done["replayed"].values()) == [2]
    left = {row["prediction_id"] for row in table(engine, "vault_entries")}
    assert left == {two[2], later}
    (decision,) = table(engine, "erasures")
    assert decision["id"] in done["replayed"]
    assert told(typed("privacy", "replay-erasures", *ASKED, "--json")) == {"replayed": {}}
    verified(typed)


@on_sqlite
def test_without_a_register_nothing_is_erased(typed: Typed, two: list[str], engine: Engine) -> None:
    """What is erased must not come back with a backup."""
    nowhere = "/nowhere/erasures.jsonl"
    done = typed("privacy", "erase", *BY_ID, *GRANTED, code=1, erasures_file=nowhere)
    assert "VARSEL_ERASURES_FILE" in str(done.exception)
    assert len(table(engine, "vault_entries")) == len(two)


# ---- retention ------------------------------------------------------------------------------


def test_what_is_past_its_time_is_counted_then_taken_away(
    typed: Typed, database_url: str, engine: Engine
) -> None:
    """Per organisation, with feedback and data keys; the dry run takes nothing; the chain holds."""
    old = [datetime(2020, month, 1, tzinfo=UTC) for month in (1, 1, 2)]
    rows = [about(PRIVACY, computed_at=at) for at in old]
    new, others = about(PRIVACY, OTHER), about(PRIVACY, organisation="org-b", computed_at=old[0])
    ids = logged(database_url, PRIVACY, *rows, new, others)
    with engine.begin() as connection:
        given = {"id": "1", "prediction_id": ids[0], "organisation": HOLDER, "caller": "c"}
        answered = {"service": "s", "card": "k", "outcome": "accepted", "received_at": old[0]}
        connection.execute(insert(feedback), given | answered)
    command = ("privacy", "retention", *ASKED, "--json")
    counted = told(typed(*command, "--dry-run", retention=f"{HOLDER}=12"))
    due = {"months": {"2020-01": 2, "2020-02": 1}, "restricted": 0, "feedback": 1, "undelivered": 0}
    assert counted["organisations"][HOLDER]["due"] == due
    assert len(table(engine, "prediction_payloads")) == 5
    done = told(typed(*command, "--organisation", HOLDER, "--months", "12"))
    taken = done["organisations"][HOLDER]["taken"]
    assert taken["predictions"] == 3
    assert taken["beside"] == {
        "feedback": 1, "undelivered": 0, "vault_keys": 0, "token_claims": 0,
    }  # fmt: skip
    left = {row["prediction_id"] for row in table(engine, "prediction_payloads")}
    assert left == set(ids[3:])
    assert len(table(engine, "vault_keys")) == 2
    (decision,) = table(engine, "erasures")
    named = {row["erasure"] for row in table(engine, "predictions")}
    assert named == {None, decision["id"]}
    verified(typed)


@on_sqlite
def test_what_is_restricted_is_kept_past_its_time(
    typed: Typed, database_url: str, engine: Engine
) -> None:
    """The patient wants it kept; it is counted apart."""
    logged(database_url, PRIVACY, about(PRIVACY, computed_at=datetime(2020, 1, 1, tzinfo=UTC)))
    ground = ("--ground", "a claim", "--who", "D. P. Officer")
    typed("privacy", "erase", *BY_ID, "--decision", "restricted", *ground)
    months = ("--organisation", HOLDER, "--months", "12")
    printed = typed("privacy", "retention", *ASKED, *months).stdout
    assert "1 predictions stay" in printed
    assert len(table(engine, "vault_entries")) == 1


@on_sqlite
def test_nothing_is_taken_away_where_nobody_said_when(typed: Typed) -> None:
    """There is no period by default."""
    done = typed("privacy", "retention", *ASKED, code=1)
    assert "VARSEL_RETENTION" in str(done.exception)


# ---- destroy and show -----------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["patient", "organisation"])
def test_what_was_sealed_under_a_destroyed_key_is_never_opened_again(
    typed: Typed, two: list[str], engine: Engine, database_url: str, whose: str
) -> None:
    """The entries stay, nobody opens them, no pseudonym tells whose they were; typing the
    organisation confirms it."""
    command = ("privacy", "destroy", "--organisation", HOLDER, *ASKED, "--json")
    words = BY_ID[2:] if whose == "patient" else ()
    assert "not confirmed" in str(typed(*command, *words, typing="x\n", code=1).exception)
    assert len(table(engine, "vault_keys")) == 2
    done = typed(*command, *words, "--yes")
    destroyed = 1 if whose == "patient" else 2
    assert told(done)["data_keys"] == destroyed
    assert len(table(engine, "vault_keys")) == 2 - destroyed
    assert len(table(engine, "vault_entries")) == 3
    with PredictionLog(open_engine(database_url), PRIVACY) as log:
        row = log.read(two[0])
        assert row is not None
        assert row["patient_pseudonym"] == ""
        with pytest.raises(Erased, match="was destroyed"):
            PRIVACY.unseal(row)
    assert told(typed("privacy", "replay-erasures", *ASKED, "--json")) == {"replayed": {}}
    verified(typed)


@on_sqlite
def test_an_officer_sees_what_each_column_of_a_prediction_is(
    typed: Typed, two: list[str], engine: Engine
) -> None:
    """Which are personal, what is sealed, purpose and ground, who read it; the vault stays shut."""
    said = told(typed("privacy", "show", two[0], *ASKED, "--json"))
    columns: Mapping[str, Any] = {one["column"]: one for one in said["columns"]}
    assert columns["sealed"]["value"] == "sealed, not opened"
    assert columns["features"]["kind"] == "health"
    assert columns["patient_pseudonym"]["kind"] == "pseudonym"
    assert columns["purpose"]["value"] == "treatment"
    assert said["audit"][-1]["who"] == "D. P. Officer"
    printed = typed("privacy", "show", two[0], *ASKED).stdout
    assert "predictions.legal_ground" in printed
    assert "D. P. Officer" in printed
    assert PATIENT not in printed
    missing = typed("privacy", "show", "nobody", *ASKED, code=1)
    assert "no prediction of that id" in str(missing.exception)
    assert len(table(engine, "audit_entries")) == 2


# ---- what must not come back ----------------------------------------------------------------


@on_sqlite
def test_a_register_that_is_full_stays_as_it_was_and_nothing_is_erased(
    typed: Typed, two: list[str], engine: Engine, tmp_path: Path
) -> None:
    """A disk with room for a part of the line takes that part without a word."""
    register, most = tmp_path / "erasures.jsonl", 8_000_000
    register.write_bytes(b"\n" * (most - 100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        done = typed("privacy", "erase", *BY_ID, *GRANTED, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(done.exception, SetupError)
    assert "VARSEL_ERASURES_FILE" in str(done.exception)
    assert register.stat().st_size == most - 100
    assert len(table(engine, "vault_entries")) == len(two)
    typed("privacy", "erase", *BY_ID, *GRANTED)
    assert len(read_register(register)) == 1


def test_a_second_payload_under_another_time_is_erased_too(
    typed: Typed, database_url: str, engine: Engine
) -> None:
    """Every payload under the prediction's id goes, in whichever month it stands."""
    (one,) = logged(database_url, PRIVACY, about(PRIVACY))
    with engine.begin() as connection:
        second = {"prediction_id": one, "computed_at": datetime(2020, 1, 1, tzinfo=UTC)}
        connection.execute(
            insert(prediction_payloads), second | {"document": "d", "response": "r", "timings": "t"}
        )
    typed("privacy", "erase", *BY_ID, *GRANTED)
    assert table(engine, "prediction_payloads") == []


def test_feedback_and_notes_of_restricted_predictions_are_kept_past_their_time(
    typed: Typed, database_url: str, engine: Engine
) -> None:
    """They stand beside what stays; another patient's go."""
    old = datetime(2020, 1, 1, tzinfo=UTC)
    ids = logged(
        database_url,
        PRIVACY,
        about(PRIVACY, computed_at=old),
        about(PRIVACY, OTHER, computed_at=old),
    )
    with engine.begin() as connection:
        for n, one in enumerate([*ids, None]):
            given = {"id": str(n), "organisation": HOLDER, "caller": "c", "service": "s"}
            answered = {"card": "k", "outcome": "accepted", "received_at": old}
            connection.execute(insert(feedback), given | answered | {"prediction_id": one})
        for n, one in enumerate(ids):
            late = {"id": str(n), "prediction_id": one, "how": "late", "at": old}
            connection.execute(insert(undelivered), late)
    ground = ("--ground", "a claim", "--who", "D. P. Officer")
    typed("privacy", "erase", *BY_ID, "--decision", "restricted", *ground)
    done = told(
        typed("privacy", "retention", *ASKED, "--organisation", HOLDER, "--months", "12", "--json")
    )
    said = done["organisations"][HOLDER]
    assert (said["due"]["feedback"], said["due"]["undelivered"]) == (2, 1)
    assert (said["taken"]["beside"]["feedback"], said["taken"]["beside"]["undelivered"]) == (2, 1)
    for name in ("feedback", "undelivered"):
        assert [row["prediction_id"] for row in table(engine, name)] == ids[:1]


def test_keys_of_an_organisation_with_restricted_patients_are_not_destroyed(
    typed: Typed, two: list[str], engine: Engine, tmp_path: Path
) -> None:
    """Their pseudonyms are what the restriction holds by; once they are decided about, it goes on.
    What was refused is not in the register, so that no replay does it."""
    ground = ("--ground", "a claim", "--who", "D. P. Officer")
    typed("privacy", "erase", *BY_ID, "--decision", "restricted", *ground)
    command = ("privacy", "destroy", "--organisation", HOLDER, *ASKED, "--yes", "--json")
    refused = typed(*command, code=1)
    assert isinstance(refused.exception, BadRequest)
    assert "reading of 1 patients is restricted" in str(refused.exception)
    assert len(table(engine, "vault_keys")) == 2
    assert not (tmp_path / "erasures.jsonl").exists()
    typed("privacy", "erase", *BY_ID, "--decision", "refused", *ground)
    assert told(typed(*command))["data_keys"] == 2
    assert {row["patient_pseudonym"] for row in table(engine, "predictions")} == {""}
    assert len(two) == 3


@pytest.mark.parametrize("whose", ["patient", "organisation"])
def test_what_is_sealed_under_a_destroyed_key_after_the_decision_loses_its_pseudonym_too(
    typed: Typed, database_url: str, engine: Engine, tmp_path: Path, whose: str
) -> None:
    """A running service seals under the key until it is gone; no name is left beside it, and the
    log verifies."""
    logged(database_url, PRIVACY, about(PRIVACY))
    decided = datetime.now(UTC)
    logged(database_url, PRIVACY, about(PRIVACY, computed_at=decided + timedelta(milliseconds=1)))
    pseudonym = PRIVACY.pseudonym(HOLDER, BASE, "Patient", PATIENT)
    line = {
        "id": "d-1", "what": "destroy", "organisation": HOLDER, "who": "w", "ground": "g",
        "at": decided.isoformat(), "predictions": [],
        "pseudonyms": {pseudonym: "0"} if whose == "patient" else {},
    }  # fmt: skip
    (tmp_path / "erasures.jsonl").write_text(json.dumps(line) + "\n")
    done = typed("privacy", "replay-erasures", *ASKED, "--json")
    assert told(done) == {"replayed": {"d-1": 1}}
    assert {row["key_id"] for row in table(engine, "vault_entries")} == {None}
    rows = table(engine, "predictions")
    assert {(row["patient_pseudonym"], row["encounter_pseudonym"]) for row in rows} == {("", None)}
    ring = f"{key('q', '2027')} {key('p')}"
    typed("privacy", "rotate", "pseudonyms", *ASKED, pseudonym_key=ring)
    verified(typed)
