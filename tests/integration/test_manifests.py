"""Days that are sealed, and what the log is held against them shows that it hides by itself.

By the real commands, as cron and an auditor type them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, update
from typer.testing import Result

from cds_service.db.log import open_engine
from cds_service.db.tables import audit_entries, prediction_payloads, predictions, vault_entries
from cds_service.db.transaction import Transaction
from cds_service.errors import BadRequest, NotDurable, OurFault, SetupError
from cds_service.evidence import chain
from cds_service.evidence.manifests import file_of
from cds_service.settings import Settings
from tests.decided import typed
from tests.logged import a_row, run_at, store_all

KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 32).decode()
TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=n) for n in (4, 3, 2)]
P = predictions.c
Change = Callable[[Connection], object]


@pytest.fixture
def site(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation whose log has three rows on each of three days, two days ago the last."""
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", KEY)
    monkeypatch.setenv("VARSEL_PSEUDONYM_KEY", base64.b64encode(b"p" * 32).decode())
    monkeypatch.setenv("VARSEL_SEAL_KEY", base64.b64encode(b"s" * 32).decode())
    engine = open_engine(database_url)
    for day in DAYS:
        with monkeypatch.context() as clock:
            clock.setattr(Transaction, "today", day)
            store_all(engine, [a_row() for _ in range(3)])
    engine.dispose()
    return Settings(profile="production", database_url=database_url, state_dir=tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where manifests go: a place of its own."""
    return tmp_path / "worm"


def sealed(site: Settings, folder: Path, *more: object) -> Result:
    """What `varsel log seal` did."""
    return typed(site, "log", "seal", "--out", folder, *more)


def verified(site: Settings, folder: Path | None, *more: object) -> dict[str, Any]:
    """What `varsel log verify --json` said; its exit code is that of what it says."""
    against = ("--manifests", folder) if folder else ()
    done = typed(site, "log", "verify", *against, *more, "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == (0 if told["is_as_written"] else 1)
    return told


def told(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Fault and words of everything that was found."""
    return [(one["fault"], one["says"]) for one in found["findings"]]


def change(site: Settings, *changes: Change) -> None:
    """Change the database, as its administrator may."""
    engine = open_engine(site.database)
    with engine.begin() as connection:
        for one in changes:
            one(connection)
    engine.dispose()


def trail(site: Settings) -> list[dict[str, Any]]:
    """The audit trail, oldest first, its details decoded."""
    engine = open_engine(site.database)
    with engine.connect() as connection:
        rows = connection.execute(select(audit_entries).order_by(audit_entries.c.at)).mappings()
        found = [{**row, "details": json.loads(row["details"])} for row in rows]
    engine.dispose()
    return found


# ---- sealing --------------------------------------------------------------------------------


def test_every_finished_day_is_sealed_and_today_is_not(site: Settings, folder: Path) -> None:
    """Days without a row too; asked again, nothing is written."""
    done = sealed(site, folder)
    assert done.exit_code == 0, done.output
    names = sorted(path.name for path in folder.iterdir())
    days = [DAYS[0] + timedelta(days=n) for n in range(4)]
    assert names == [f"varsel-log-{day}.json" for day in days]
    manifest = json.loads(file_of(folder, DAYS[1]).read_bytes())["manifest"]
    (one,) = manifest["chains"]
    assert (one["organisation"], one["links"], one["predictions"]) == ("o", 3, 3)
    assert manifest["previous"]["day"] == str(DAYS[0])
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = sealed(site, folder)
    assert "sealed before, and the same" in again.output
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_where_no_day_is_finished_it_says_so(
    postgresql_url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first night that says nothing would look like a job that does nothing."""
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", KEY)
    engine = open_engine(postgresql_url)
    store_all(engine, [a_row()])
    engine.dispose()
    new = Settings(profile="production", database_url=postgresql_url, state_dir=tmp_path)
    done = sealed(new, folder)
    assert done.exit_code == 0, done.output
    assert "nothing to seal" in done.output
    assert not list(folder.iterdir())


def test_who_sealed_which_days_is_on_record_on_todays_chain(site: Settings, folder: Path) -> None:
    """So it never changes a day that is sealed, and sealing again says the same of all of them."""
    sealed(site, folder, "--day", DAYS[0], "--who", "A. Berg", "--why", "first night")
    sealed(site, folder)
    first, second = trail(site)
    assert (first["who"], first["role"], first["what"]) == ("A. Berg", "operator", "log seal")
    assert (first["why"], first["organisation"]) == ("first night", site.organisation)
    said = first["details"]
    assert (said["from"], said["to"], said["new"]) == (str(DAYS[0]), str(DAYS[0]), 1)
    assert said["folder"] == str(folder)
    assert said["key_id"] == json.loads(file_of(folder, DAYS[0]).read_bytes())["key_id"]
    said = second["details"]
    assert (said["from"], said["to"]) == (str(DAYS[0]), str(TODAY - timedelta(days=1)))
    assert said["new"] == 3
    assert {one["chain_day"] for one in (first, second)} == {TODAY}
    assert sealed(site, folder).exit_code == 0
    assert verified(site, folder)["findings"] == []


def test_nothing_is_sealed_that_cannot_be_put_on_record(site: Settings, folder: Path) -> None:
    """The account may read and not write: no manifest, and it is said."""
    with entries_refused(site):
        assert isinstance(sealed(site, folder).exception, NotDurable)
    assert not list(folder.glob("*.json"))


def test_who_may_only_read_verifies_and_is_told_that_it_is_not_on_record(
    site: Settings, folder: Path
) -> None:
    """An auditor with a reading account sees whether the log was changed."""
    sealed(site, folder)
    assert verified(site, folder, "--day", DAYS[1], "--who", "A. Berg")["on_record"] is True
    last = trail(site)[-1]
    assert (last["who"], last["what"]) == ("A. Berg", "log verify")
    assert last["details"] == {
        "from": str(DAYS[1]), "to": str(DAYS[1]), "manifests": 4, "identities": False,
        "chains": 1, "findings": 0,
    }  # fmt: skip
    with entries_refused(site):
        found = verified(site, folder)
        assert (found["is_as_written"], found["on_record"]) == (True, False)
        assert "not on record" in typed(site, "log", "verify").stderr


@contextmanager
def entries_refused(site: Settings) -> Iterator[None]:
    """Have the database take no audit entries, as of an account that may not add any."""
    if site.database.startswith("sqlite"):
        says = "BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'no'); END"
    else:
        body = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
        run_at(site.database, f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger {body}")
        says = "BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION refuse()"
    run_at(site.database, f"CREATE TRIGGER refused {says}")
    try:
        yield
    finally:
        there = "" if site.database.startswith("sqlite") else " ON audit_entries"
        run_at(site.database, f"DROP TRIGGER refused{there}")


@pytest.mark.parametrize("day", [TODAY, TODAY + timedelta(days=1)], ids=["today", "tomorrow"])
def test_a_day_that_is_still_written_to_is_refused(site: Settings, folder: Path, day: date) -> None:
    error = sealed(site, folder, "--day", day).exception
    assert isinstance(error, BadRequest)
    assert error.field == "--day"


def test_no_day_is_left_out(site: Settings, folder: Path) -> None:
    """A manifest names the one before it, so there is none to put in between later."""
    sealed(site, folder, "--day", DAYS[0])
    error = sealed(site, folder, "--day", DAYS[2]).exception
    assert isinstance(error, BadRequest)
    assert f"comes {DAYS[1]}" in str(error)


def test_a_day_that_changed_since_it_was_sealed_is_never_sealed_anew(
    site: Settings, folder: Path
) -> None:
    """It fails loudly, and leaves the manifest as it is."""
    sealed(site, folder)
    before = file_of(folder, DAYS[2]).read_bytes()
    change(site, lambda c: c.execute(delete(predictions).where(P.chain_day == DAYS[2])))
    error = sealed(site, folder, "--day", DAYS[2]).exception
    assert isinstance(error, OurFault)
    assert "not as it was when that day was sealed" in str(error)
    assert file_of(folder, DAYS[2]).read_bytes() == before


def test_a_day_with_faults_is_sealed_as_such(site: Settings, folder: Path) -> None:
    """What was there is kept; the command fails, and verifying says which day it was."""
    change(site, lambda c: c.execute(update(predictions).values(status="refused")))
    done = sealed(site, folder, "--day", DAYS[0])
    assert isinstance(done.exception, OurFault)
    assert json.loads(file_of(folder, DAYS[0]).read_bytes())["manifest"]["faults"] == 3
    assert verified(site, folder)["days_sealed_with_faults"] == [str(DAYS[0])]


def test_without_a_key_nothing_is_sealed(
    site: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VARSEL_LOG_SIGNING_KEY")
    error = sealed(site, folder).exception
    assert isinstance(error, SetupError)
    assert "VARSEL_LOG_SIGNING_KEY" in str(error)


def test_with_the_old_key_beside_the_new_one_sealing_goes_on(
    site: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the old one signed is looked at again and believed; the new one signs."""
    sealed(site, folder, "--day", DAYS[0])
    old = typed(site, "log", "seal", "--public-key").stdout.strip()
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", f"2027:{OTHER_KEY} {KEY}")
    done = sealed(site, folder)
    assert done.exit_code == 0, done.output
    assert "sealed before, and the same" in done.output
    assert told(verified(site, folder)) == []
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", OTHER_KEY)
    new = typed(site, "log", "seal", "--public-key").stdout.strip()
    assert new != old
    assert told(verified(site, folder, "--public-key", old)) == []
    assert "which was not given" in told(verified(site, folder))[0][1]
    monkeypatch.delenv("VARSEL_LOG_SIGNING_KEY")
    assert told(verified(site, folder, "--public-key", old, "--public-key", new)) == []


def test_without_the_old_key_sealing_goes_on_and_says_what_it_did_not_look_at(
    site: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day that is not sealed is worse than one that is not looked at again."""
    sealed(site, folder, "--day", DAYS[0])
    before = file_of(folder, DAYS[0]).read_bytes()
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", OTHER_KEY)
    done = sealed(site, folder, "--json")
    assert done.exit_code == 0, done.output
    first, *others = json.loads(done.stdout)
    assert "which was not given" in first["unchecked"]
    assert [one["unchecked"] for one in others] == [None] * 3
    assert file_of(folder, DAYS[0]).read_bytes() == before
    again = sealed(site, folder, "--day", DAYS[0])
    assert "NOT LOOKED AT AGAIN: signed with key" in again.output


# ---- verifying against manifests ----------------------------------------------------------------


def test_an_auditor_needs_the_public_key_alone(
    site: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the signing key nor those of the log."""
    sealed(site, folder)
    public = typed(site, "log", "seal", "--public-key").stdout.strip()
    for name in ("LOG_SIGNING_KEY", "PSEUDONYM_KEY", "SEAL_KEY"):
        monkeypatch.delenv(f"VARSEL_{name}", raising=False)
    done = typed(site, "log", "verify", "--manifests", folder, "--public-key", public)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("the log is as it was written\n")
    missing = typed(site, "log", "verify", "--manifests", folder).exception
    assert isinstance(missing, BadRequest)
    assert missing.field == "--public-key"


def _last_of(connection: Connection, day: date) -> str:
    query = select(P.prediction_id).where(P.chain_day == day).order_by(P.chain_sequence.desc())
    return str(connection.execute(query).scalars().first())


def _cut(connection: Connection) -> None:
    """Take the last prediction of a day away, with all it left."""
    gone = _last_of(connection, DAYS[1])
    for table in (predictions, prediction_payloads, vault_entries):
        connection.execute(delete(table).where(table.c.prediction_id == gone))


def _take_a_day(connection: Connection) -> None:
    """Take a whole day away."""
    query = select(P.prediction_id).where(P.chain_day == DAYS[1])
    ids = connection.execute(query).scalars().all()
    for table in (prediction_payloads, vault_entries, predictions):
        connection.execute(delete(table).where(table.c.prediction_id.in_(ids)))


def _write_anew(connection: Connection) -> None:
    """Change what a day's predictions say, and make commitments and links to fit."""
    connection.execute(update(predictions).where(P.chain_day == DAYS[1]).values(returned="nothing"))
    query = (
        select(predictions, prediction_payloads, vault_entries.c.sealed)
        .join(prediction_payloads, P.prediction_id == prediction_payloads.c.prediction_id)
        .join(vault_entries, P.prediction_id == vault_entries.c.prediction_id)
        .where(P.chain_day == DAYS[1])
        .order_by(P.chain_sequence)
    )
    link = b""
    for row in connection.execute(query).mappings().all():
        before = link or chain.first_link(row["organisation"], DAYS[1], row["chain_writer"])
        committed = chain.commitment(chain.PREDICTION, {**row}, row["salt"])
        link = chain.next_link(before, committed)
        connection.execute(
            update(predictions)
            .where(P.prediction_id == row["prediction_id"])
            .values(commitment=committed, link=link)
        )


HIDDEN: dict[str, tuple[Change, str, str]] = {
    "the end of a chain": (_cut, "removed", "the last 1 of the chain are gone"),
    "a whole day": (_take_a_day, "removed", "the whole chain of 3 links is gone"),
    "a chain written anew": (_write_anew, "changed", "the chain was written anew"),
}


@pytest.mark.parametrize("what", sorted(HIDDEN))
def test_what_the_log_hides_by_itself_shows_against_its_manifest(
    site: Settings, folder: Path, what: str
) -> None:
    """The log alone looks whole, and says what it cannot show."""
    done, fault, says = HIDDEN[what]
    sealed(site, folder)
    change(site, done)
    alone = typed(site, "log", "verify")
    assert alone.exit_code == 0
    assert "no manifest covers" in alone.output
    assert "what was taken from the end of a chain" in alone.output
    ((found, said),) = told(verified(site, folder))
    assert found == fault
    assert says in said


def test_a_chain_that_was_not_there_when_its_day_was_sealed_is_found(
    site: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody runs the real writer with the clock set back."""
    sealed(site, folder)
    monkeypatch.setattr(Transaction, "today", DAYS[1])
    engine = open_engine(site.database)
    store_all(engine, [a_row()])
    engine.dispose()
    assert told(verified(site, None)) == []
    assert told(verified(site, folder)) == [
        ("inserted", "the chain was not there when its day was sealed")
    ]


def _forge(folder: Path) -> None:
    path = file_of(folder, DAYS[1])
    path.write_bytes(path.read_bytes().replace(b'"predictions":3', b'"predictions":2'))


def _cut_file(folder: Path) -> None:
    path = file_of(folder, DAYS[1])
    path.write_bytes(path.read_bytes()[:40])


def _rename(folder: Path) -> None:
    file_of(folder, DAYS[1]).write_bytes(file_of(folder, DAYS[0]).read_bytes())


TOUCHED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing in between": (lambda f: file_of(f, DAYS[1]).unlink(), "is missing"),
    "missing at the start": (lambda f: file_of(f, DAYS[0]).unlink(), "is missing; that of"),
    "changed": (_forge, "the signature is not of this content"),
    "cut": (_cut_file, "not a manifest"),
    "another day's": (_rename, f"it is of {DAYS[0]}"),
}


@pytest.mark.parametrize("what", sorted(TOUCHED))
def test_a_manifest_that_was_touched_is_named(site: Settings, folder: Path, what: str) -> None:
    sealed(site, folder)
    touch, says = TOUCHED[what]
    touch(folder)
    named = [said for fault, said in told(verified(site, folder)) if fault == "manifest"]
    day = DAYS[0] if what == "missing at the start" else DAYS[1]
    assert any(f"the manifest of {day}" in said and says in said for said in named)


def test_manifests_signed_with_another_key_are_not_believed(
    site: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the database and the folder, but not the key, cannot seal it anew."""
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", OTHER_KEY)
    sealed(site, folder)
    monkeypatch.setenv("VARSEL_LOG_SIGNING_KEY", KEY)
    said = [says for _, says in told(verified(site, folder))]
    assert len(said) == 4
    assert all("which was not given" in one for one in said)


# ---- identities -----------------------------------------------------------------------------


def test_opening_the_vault_is_on_record_before_it_is_opened(site: Settings) -> None:
    """These rows have no references worth the name: each is named, and so is who looked."""
    found = verified(site, None, "--identities", "--who", "A. Berg", "--why", "case 26/1")
    assert {one["fault"] for one in found["findings"]} == {"identity"}
    assert found["audit_entries"] == 1
    entries = trail(site)
    assert [(one["who"], one["why"]) for one in entries] == [("A. Berg", "case 26/1")] * 2
    assert [one["what"] for one in entries] == ["open vault", "log verify"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--day", "yesterday"), "--day"),
        (("--from", "2026-13-01"), "--from"),
        (("--day", "2026-11-01", "--to", "2026-11-02"), "--day"),
    ],
)
def test_what_is_typed_wrongly_is_refused_by_name(
    site: Settings, arguments: tuple[str, ...], field: str
) -> None:
    error = typed(site, "log", "verify", *arguments).exception
    assert isinstance(error, BadRequest)
    assert error.field == field
