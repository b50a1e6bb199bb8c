"""Keys changed, lost and destroyed while the log holds patients, on a database of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cds_service.app import create_app
from cds_service.cli import app
from cds_service.cli.operate import examine
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.patients import warnings_of_restrictions
from cds_service.errors import Restricted, SealBroken
from cds_service.identities.erasure import Asking, decide, patient_of
from cds_service.settings import Settings
from models.registry import Registry
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

OLD, BOTH, NEW = key("p"), f"{key('q', '2027')} {key('p')}", key("q", "2027")
SEAL, BOTH_SEALS, NEW_SEAL = key("s"), f"{key('t', '2027')} {key('s')}", key("t", "2027")
BEFORE = privacy_with(OLD, SEAL)
DURING = privacy_with(BOTH, BOTH_SEALS)
AFTER = privacy_with(NEW, NEW_SEAL)
ASKED = ("--who", "I. Drift", "--why", "yearly change of keys", "--json")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The database."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def typed(database_url: str, tmp_path: Path) -> Callable[..., Any]:
    """Types a command of `varsel` under two rings of keys; gives the JSON it printed."""

    def run(
        *words: str,
        pseudonym: str = BOTH,
        seal: str = BOTH_SEALS,
        typing: str = "",
        asked: tuple[str, ...] = ASKED,
    ) -> Any:
        environment = {
            "VARSEL_PROFILE": "production",
            "VARSEL_DATABASE_URL": database_url,
            "VARSEL_ERASURES_FILE": str(tmp_path / "erasures.jsonl"),
            "VARSEL_PSEUDONYM_KEY": pseudonym,
            "VARSEL_SEAL_KEY": seal,
        }
        done = CliRunner().invoke(app, [*words, *asked], env=environment, input=typing)
        assert done.exit_code == 0, (done.output, repr(done.exception))
        return json.loads(done.stdout)

    return run


def opened(url: str, ids: list[str], privacy: Any = AFTER) -> list[Mapping[str, Any]]:
    """The references of predictions, unsealed under some keys."""
    with PredictionLog(open_engine(url), privacy) as log:
        rows = [log.read(one) for one in ids]
    return [privacy.unseal(row) for row in rows]


def test_after_both_rotations_the_old_keys_are_not_needed(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """Under the new keys alone every entry opens, the patient is found by number and id, a new call
    joins the old ones, and the chain holds. Each rotation is on record, and a second finds nothing.
    """
    ids = logged(database_url, BEFORE, about(BEFORE, cpr=CPR), about(BEFORE, OTHER))
    ids += logged(database_url, DURING, about(DURING, cpr=CPR))
    assert len(table(engine, "vault_keys")) == 3
    done = typed("privacy", "rotate", "pseudonyms")
    assert done == {"key": "2027", "patients": 2, "predictions": 2, "restrictions": 0}
    assert typed("privacy", "rotate", "seals") == {"key": "2027", "data_keys": 2, "entries": 0}
    for what in ("pseudonyms", "seals"):
        again = typed("privacy", "rotate", what, pseudonym=NEW, seal=NEW_SEAL)
        assert not any(again[name] for name in again if name != "key")
    ids += logged(database_url, AFTER, about(AFTER, cpr=CPR))
    patients = [references["patient"] for references in opened(database_url, ids)]
    assert patients == [PATIENT, OTHER, PATIENT, PATIENT]
    rows = {row["prediction_id"]: row for row in table(engine, "predictions")}
    assert {row["pseudonym_key"] for row in rows.values()} == {"2027"}
    of_patient = {rows[ids[n]]["patient_pseudonym"] for n in (0, 2, 3)}
    assert of_patient == {AFTER.pseudonym(HOLDER, BASE, "Patient", PATIENT)}
    assert len({rows[ids[n]]["encounter_pseudonym"] for n in (0, 2, 3)}) == 1
    alone = {"pseudonym": NEW, "seal": NEW_SEAL}
    by_id = ("--organisation", HOLDER, "--patient", PATIENT, "--fhir-base", BASE)
    by_cpr = ("--organisation", HOLDER, "--cpr", "-")
    for whom in (by_id, by_cpr):
        found = typed("privacy", "find", *whom, typing=CPR, **alone)
        assert found["predictions"] == 3
    assert typed("log", "verify", "--identities", **alone)["findings"] == []
    rotations = [row["what"] for row in table(engine, "audit_entries")][:2]
    assert rotations == ["rotate pseudonyms", "rotate seals"]


def test_a_patient_with_two_data_keys_loses_both(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """One from before the change of keys, one from after it; a second change keeps both."""
    logged(database_url, BEFORE, about(BEFORE, cpr=CPR))
    logged(database_url, DURING, about(DURING, cpr=CPR))
    typed("privacy", "rotate", "pseudonyms")
    third = f"{key('r', '2028')} {key('q', '2027')}"
    assert typed("privacy", "rotate", "pseudonyms", pseudonym=third)["predictions"] == 2
    last = {"pseudonym": key("r", "2028")}
    by_cpr = ("--organisation", HOLDER, "--cpr", "-")
    assert typed("log", "verify", "--identities", **last)["findings"] == []
    destroyed = typed("privacy", "destroy", *by_cpr, "--yes", typing=CPR, **last)
    assert destroyed["data_keys"] == 2
    assert table(engine, "vault_keys") == []


def test_a_restriction_outlives_a_change_of_keys(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """What was decided about a patient follows them to their new pseudonym."""
    logged(database_url, BEFORE, about(BEFORE))
    by_id = ("--organisation", HOLDER, "--patient", PATIENT, "--fhir-base", BASE)
    with engine.begin() as connection:
        pseudonym = BEFORE.pseudonym(HOLDER, BASE, "Patient", PATIENT)
        connection.execute(
            text(
                "INSERT INTO erasures VALUES ('d', :o, :p, '0', 'restricted', 'g', 'w', "
                "'2026-11-22 12:00:00', 0, NULL, NULL)"
            ),
            {"o": HOLDER, "p": pseudonym},
        )
    typed("privacy", "rotate", "pseudonyms")
    assert typed("privacy", "find", *by_id, pseudonym=NEW)["restricted"] is True


def test_entries_older_than_the_vault_come_under_patients_keys(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """They were sealed with the key of the seals itself, which then is not needed any more."""
    ids = logged(database_url, BEFORE, about(BEFORE, cpr=CPR), about(BEFORE))
    nonce = bytes(12)
    with engine.begin() as connection:
        for one in ids:
            content = json.dumps(
                {"fhir_base": BASE, "patient": PATIENT, "encounter": None, "user": None,
                 "sources": {}}
            ).encode()  # fmt: skip
            sealed = b"\x01" + nonce + AESGCM(b"s" * 32).encrypt(nonce, content, one.encode())
            update = "UPDATE vault_entries SET key_id = NULL, sealed = :s WHERE prediction_id = :i"
            connection.execute(text(update), {"s": sealed, "i": one})
        connection.execute(text("DELETE FROM vault_keys"))
    assert typed("privacy", "rotate", "seals") == {"key": "2027", "data_keys": 0, "entries": 2}
    assert typed("privacy", "rotate", "pseudonyms")["predictions"] == 2
    assert [one["patient"] for one in opened(database_url, ids)] == [PATIENT, PATIENT]
    assert len(table(engine, "vault_keys")) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_without_the_old_key_what_it_made_cannot_be_rotated(
    typed: Callable[..., Any], database_url: str
) -> None:
    """It is said, and nothing is lost: with the key back it goes on."""
    ids = logged(database_url, BEFORE, about(BEFORE))
    with pytest.raises(AssertionError, match="SealBroken"):
        typed("privacy", "rotate", "seals", seal=NEW_SEAL)
    with pytest.raises(SealBroken, match="no key called 0"):
        opened(database_url, ids)
    assert typed("privacy", "rotate", "seals")["data_keys"] == 1


# ---- a running writer -----------------------------------------------------------------------


def test_a_writer_that_remembers_a_destroyed_key_makes_a_new_one(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """The next prediction of that patient is stored at the first try, alone or among others."""
    by_id = ("--organisation", HOLDER, "--patient", PATIENT, "--fhir-base", BASE)
    with PredictionLog(open_engine(database_url), BEFORE) as running:
        assert running.store(about(BEFORE)).result(30)
        typed("privacy", "destroy", *by_id, "--yes", pseudonym=OLD, seal=SEAL)
        alone = running.store(about(BEFORE)).result(30)
        typed("privacy", "destroy", *by_id, "--yes", pseudonym=OLD, seal=SEAL)
        together = [running.store(about(BEFORE, one)) for one in (PATIENT, OTHER, PATIENT)]
        ids = [waiting.result(30).prediction_id for waiting in together]
    assert not alone.replayed
    assert [one["patient"] for one in opened(database_url, ids, BEFORE)] == [
        PATIENT, OTHER, PATIENT,
    ]  # fmt: skip
    assert len(table(engine, "predictions")) == 5
    assert typed("log", "verify", pseudonym=OLD, seal=SEAL)["findings"] == []


# ---- nothing in clear -----------------------------------------------------------------------


def test_a_calls_identities_are_nowhere_in_clear(
    database_url: str, engine: Engine, tmp_path: Path, registry: Registry, changed: Any
) -> None:
    """CPR number, patient, contact, user, names: in no value of any table, and in no byte of the
    file; the number's pseudonym stands with the patient's key."""
    settings = Settings(profile="demo", state_dir=tmp_path, database_url=database_url)
    request = changed({})
    old = request["context"]["patientId"]
    request = json.loads(json.dumps(request).replace(old, PATIENT))
    request["context"]["userId"] = "Practitioner/secret-user-7"
    request["prefetch"]["patient"] |= {
        "name": [{"text": "Ilse Hjort"}],
        "identifier": [{"system": "urn:oid:1.2.208.176.1.2", "value": f"{CPR[:6]}-{CPR[6:]}"}],
    }
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as client:
        answer = client.post("/cds-services/readmission-30d", json=request)
        assert answer.json()["cards"]
        privacy = client.app.state.service.privacy  # type: ignore[attr-defined]
    (held,) = table(engine, "vault_keys")
    assert held["cpr_pseudonym"] == privacy.pseudonym(settings.organisation, "CPR", CPR)
    (row,) = table(engine, "predictions")
    references = opened(database_url, [row["prediction_id"]], privacy)
    assert (references[0]["patient"], references[0]["cpr"]) == (PATIENT, CPR)
    kept = every_value(engine)
    if engine.dialect.name == "sqlite":
        kept += b"".join(path.read_bytes() for path in tmp_path.glob("varsel.db*"))
    contact = request["context"]["encounterId"]
    assert b"readmission-30d" in kept
    for secret in (CPR, PATIENT, "secret-user-7", "Hjort", contact, "Observation/"):
        assert secret.encode() not in kept, secret


# ---- decisions and a change of keys ---------------------------------------------------------


def test_destroyed_keys_are_destroyed_again_in_a_backup_older_than_a_change_of_keys(
    typed: Callable[..., Any], database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """The patient is known there under a pseudonym that the register does not name, by the old key;
    the ids of their predictions are in the register."""
    ids = logged(database_url, BEFORE, about(BEFORE, cpr=CPR), about(BEFORE, OTHER))
    line = {
        "id": "d-1", "what": "destroy", "organisation": HOLDER, "who": "w", "ground": "g",
        "at": datetime.now(UTC).isoformat(), "predictions": ids[:1],
        "pseudonyms": {AFTER.pseudonym(HOLDER, BASE, "Patient", PATIENT): "2027"},
    }  # fmt: skip
    (tmp_path / "erasures.jsonl").write_text(json.dumps(line) + "\n")
    assert typed("privacy", "replay-erasures") == {"replayed": {"d-1": 1}}
    rows = {row["prediction_id"]: row for row in table(engine, "predictions")}
    assert [rows[one]["patient_pseudonym"] == "" for one in ids] == [True, False]
    entries = {row["prediction_id"]: row["key_id"] for row in table(engine, "vault_entries")}
    assert [entries[one] is None for one in ids] == [True, False]
    assert typed("privacy", "replay-erasures") == {"replayed": {}}
    assert typed("log", "verify", "--identities")["findings"] == []


def test_what_cannot_be_opened_any_more_does_not_end_a_rotation(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """An entry whose key was destroyed keeps its pseudonym; the patient's others are done."""
    ids = logged(database_url, BEFORE, about(BEFORE), about(BEFORE), about(BEFORE, OTHER))
    with engine.begin() as connection:
        lost = "UPDATE vault_entries SET key_id = NULL WHERE prediction_id = :i"
        connection.execute(text(lost), {"i": ids[0]})
    done = typed("privacy", "rotate", "pseudonyms")
    assert (done["patients"], done["predictions"]) == (2, 2)


RESTRICTED = ("--decision", "restricted", "--ground", "g", "--who", "w", "--json")
WHOM = {
    one: ("--organisation", HOLDER, "--patient", one, "--fhir-base", BASE)
    for one in (PATIENT, OTHER)
}


def is_hidden(log: PredictionLog, prediction_id: str) -> bool:
    """Whether nobody may read a prediction."""
    try:
        return log.read(prediction_id) is None
    except Restricted:
        return True


def test_a_restriction_holds_again_once_the_pseudonyms_have_followed_the_key(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """Until then it is said that new predictions can be read; whether the patient had predictions
    when it was decided or not, rotation makes it hold, also for the key after the next."""
    logged(database_url, BEFORE, about(BEFORE))
    for one in (PATIENT, OTHER):
        typed("privacy", "erase", *WHOM[one], *RESTRICTED, pseudonym=OLD, asked=())
    assert warnings_of_restrictions(engine, "0") == []
    (said,) = warnings_of_restrictions(engine, "2027")
    assert said.startswith("2 restrictions stand under another pseudonym key")
    ids = logged(database_url, DURING, about(DURING), about(DURING, OTHER))
    with PredictionLog(open_engine(database_url), DURING) as log:
        assert [is_hidden(log, one) for one in ids] == [False, False]
        done = typed("privacy", "rotate", "pseudonyms")
        assert (done["patients"], done["restrictions"]) == (1, 1)
        assert [is_hidden(log, one) for one in ids] == [True, True]
    assert warnings_of_restrictions(engine, "2027") == []
    third = f"{key('r', '2028')} {key('q', '2027')}"
    typed("privacy", "rotate", "pseudonyms", pseudonym=third)
    last = privacy_with(key("r", "2028"), BOTH_SEALS)
    ids = logged(database_url, last, about(last), about(last, OTHER))
    with PredictionLog(open_engine(database_url), last) as log:
        assert [is_hidden(log, one) for one in ids] == [True, True]
    assert typed("log", "verify", "--identities", pseudonym=third)["findings"] == []


def test_a_restriction_of_a_patient_without_predictions_follows_alone(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """Twice, the seal's key exchanged too; it names nobody in clear, and a second run finds
    nothing."""
    typed("privacy", "erase", *WHOM[OTHER], *RESTRICTED, pseudonym=OLD, seal=SEAL, asked=())
    assert OTHER.encode() not in every_value(engine)
    typed("privacy", "rotate", "seals")
    for ring, name in ((BOTH, "2027"), (f"{key('r', '2028')} {key('q', '2027')}", "2028")):
        asked = {"pseudonym": ring, "seal": NEW_SEAL}
        assert warnings_of_restrictions(engine, name) != []
        assert typed("privacy", "rotate", "pseudonyms", **asked)["restrictions"] == 1
        assert typed("privacy", "rotate", "pseudonyms", **asked)["restrictions"] == 0
        assert warnings_of_restrictions(engine, name) == []
    (held,) = table(engine, "vault_keys")
    (decided,) = table(engine, "erasures")
    assert held["patient_pseudonym"] == decided["patient_pseudonym"]
    alone = {"pseudonym": key("r", "2028"), "seal": NEW_SEAL}
    last = privacy_with(*alone.values())
    (prediction,) = logged(database_url, last, about(last, OTHER))
    with PredictionLog(open_engine(database_url), last) as log:
        assert is_hidden(log, prediction)
    assert len(table(engine, "vault_keys")) == 1


def test_a_decision_made_while_two_keys_are_there_is_carried_with_the_rest(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """The patient's predictions stand under the old key, the restriction under both."""
    logged(database_url, BEFORE, about(BEFORE, cpr=CPR))
    by_cpr = ("--organisation", HOLDER, "--cpr", "-")
    typed("privacy", "erase", *by_cpr, *RESTRICTED, typing=CPR, asked=())
    assert warnings_of_restrictions(engine, "2027") == []
    typed("privacy", "rotate", "pseudonyms")
    third = f"{key('r', '2028')} {key('q', '2027')}"
    typed("privacy", "rotate", "pseudonyms", pseudonym=third)
    last = privacy_with(key("r", "2028"), BOTH_SEALS)
    ids = logged(database_url, last, about(last))
    with PredictionLog(open_engine(database_url), last) as log:
        assert is_hidden(log, ids[0])
    found = typed("privacy", "find", *WHOM[PATIENT], pseudonym=key("r", "2028"))
    assert (found["predictions"], found["restricted"]) == (2, True)


@pytest.mark.parametrize("answer", ["refused", "granted", "restricted", "destroy"])
@pytest.mark.parametrize("predicted", [False, True])
def test_what_a_restriction_keeps_goes_with_the_next_decision(
    typed: Callable[..., Any], database_url: str, engine: Engine, *, answer: str, predicted: bool
) -> None:
    """With the data key, where nothing else is sealed under it; a new restriction keeps its own."""
    if predicted:
        logged(database_url, BEFORE, about(BEFORE, OTHER))
    old = {"pseudonym": OLD, "seal": SEAL}
    typed("privacy", "erase", *WHOM[OTHER], *RESTRICTED, asked=(), **old)
    assert [one["sealed"] is not None for one in table(engine, "erasures")] == [True]
    assert len(table(engine, "vault_keys")) == 1
    if answer == "destroy":
        typed("privacy", "destroy", *WHOM[OTHER], "--yes", **old)
    else:
        decided = ("--decision", answer, "--ground", "g", "--who", "w", "--json")
        typed("privacy", "erase", *WHOM[OTHER], *decided, asked=(), **old)
    rows = sorted(table(engine, "erasures"), key=lambda row: row["at"])
    kept = [row["sealed"] is not None for row in rows]
    assert kept == [False, answer == "restricted"]
    stays = answer == "restricted" or (answer == "refused" and predicted)
    assert len(table(engine, "vault_keys")) == stays
    assert typed("log", "verify", "--identities", **old)["findings"] == []


def test_a_restored_backup_forgets_a_restricted_patient_too(
    typed: Callable[..., Any], database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """It is older than a change of keys: the register names a pseudonym it does not have, and the
    ids of the patient's predictions."""
    ids = logged(database_url, BEFORE, about(BEFORE))
    typed("privacy", "erase", *WHOM[PATIENT], *RESTRICTED, asked=(), pseudonym=OLD)
    line = {
        "id": "d-1", "what": "erase", "organisation": HOLDER, "who": "w", "ground": "g",
        "at": datetime.now(UTC).isoformat(), "predictions": ids,
        "pseudonyms": {AFTER.pseudonym(HOLDER, BASE, "Patient", PATIENT): "2027"},
    }  # fmt: skip
    (tmp_path / "erasures.jsonl").write_text(json.dumps(line) + "\n")
    assert typed("privacy", "replay-erasures") == {"replayed": {"d-1": 1}}
    assert table(engine, "vault_keys") == []
    assert {row["sealed"] for row in table(engine, "erasures")} == {None}


def test_a_restored_backup_keeps_whom_a_later_restriction_is_about(
    typed: Callable[..., Any], database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """The patient was erased, came again and was restricted: doing the erasure again takes the
    predictions only, and the restriction can follow the patient to a new key."""
    ids = logged(database_url, BEFORE, about(BEFORE))
    line = {
        "id": "d-1", "what": "erase", "organisation": HOLDER, "who": "w", "ground": "g",
        "at": datetime.now(UTC).isoformat(), "predictions": ids,
        "pseudonyms": {BEFORE.pseudonym(HOLDER, BASE, "Patient", PATIENT): "0"},
    }  # fmt: skip
    (tmp_path / "erasures.jsonl").write_text(json.dumps(line) + "\n")
    typed("privacy", "erase", *WHOM[PATIENT], *RESTRICTED, asked=(), pseudonym=OLD)
    assert typed("privacy", "replay-erasures", pseudonym=OLD) == {"replayed": {"d-1": 1}}
    kept = {row["decision"]: row["sealed"] is not None for row in table(engine, "erasures")}
    assert kept == {"granted": False, "restricted": True}
    assert typed("privacy", "rotate", "pseudonyms")["restrictions"] == 1
    assert warnings_of_restrictions(engine, "2027") == []


def test_a_restriction_whose_commit_was_not_acknowledged_is_on_record_once(
    database_url: str, engine: Engine
) -> None:
    """The connection breaks after the commit and the write is done again: it finds itself done, so
    that whom it is about stays sealed, under each pseudonym once."""
    log_engine = open_engine(database_url)
    asking = Asking(HOLDER, "w", "g")
    whom = patient_of(DURING, HOLDER, fhir_base=BASE, patient=OTHER)
    with PredictionLog(log_engine, DURING) as log, breaks_after_commit(log_engine) as broken:
        decide(log, asking, whom, "restricted")
    assert len(broken) == 1
    decided = {row["pseudonym_key"]: row["sealed"] for row in table(engine, "erasures")}
    assert len(table(engine, "erasures")) == len(decided) == 2
    assert decided["2027"] is not None
    assert len(table(engine, "vault_keys")) == 1
    assert [row["what"] for row in table(engine, "audit_entries")] == ["restricted"]


@contextmanager
def breaks_after_commit(engine: Engine) -> Iterator[list[object]]:
    """The next commit is done, and its connection broken before that is said; gives which were."""
    dialect, broken = engine.dialect, list[object]()
    commit = dialect.do_commit

    def lose(connection: Any) -> None:
        commit(connection)
        if not broken:
            broken.append(connection)
            connection.driver_connection.close()
            commit(connection)  # raises what the driver does of a connection that is gone

    with patch.object(dialect, "do_commit", lose):
        yield broken


def test_an_older_restriction_of_a_patient_without_predictions_is_left_and_said(
    typed: Callable[..., Any], database_url: str, engine: Engine
) -> None:
    """It does not say whom it is about: the same decision again makes it hold, from then on."""
    typed("privacy", "erase", *WHOM[OTHER], *RESTRICTED, asked=(), pseudonym=OLD)
    with engine.begin() as connection:
        connection.execute(text("UPDATE erasures SET key_id = NULL, sealed = NULL"))
    typed("privacy", "rotate", "pseudonyms")
    (said,) = warnings_of_restrictions(engine, "2027")
    assert said.startswith("1 restrictions")
    typed("privacy", "erase", *WHOM[OTHER], *RESTRICTED, asked=())
    (prediction,) = logged(database_url, DURING, about(DURING, OTHER))
    with PredictionLog(open_engine(database_url), DURING) as log:
        assert is_hidden(log, prediction)
    assert warnings_of_restrictions(engine, "2027") == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_doctor_and_the_service_say_which_restrictions_do_not_hold(
    database_url: str, engine: Engine, tmp_path: Path, registry: Registry
) -> None:
    """At start and at `/readyz`; hooks are answered all the same."""
    settings = Settings(profile="demo", state_dir=tmp_path, database_url=database_url)
    create = (
        "INSERT INTO erasures VALUES ('d', :o, 'p', 'old', 'restricted', 'g', 'w', :at, 0, NULL, "
        "NULL)"
    )
    with engine.begin() as connection:
        connection.execute(text(create), {"o": HOLDER, "at": "2026-11-22 12:00:00.000000"})
    (database,) = [one for one in examine(settings) if one["check"] == "database"]
    assert not database["ok"]
    assert "varsel privacy rotate pseudonyms" in database["says"]
    with TestClient(create_app(settings, registry)) as client:
        ready = client.get("/readyz")
    assert ready.status_code == 200
    assert database["says"] in ready.json()["warnings"]
