"""What an administrator of the database can do to the log, and `varsel log verify` says of it.

Rows are stored by the real writer and changed by plain SQL, on both databases.
"""

from __future__ import annotations

import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import (
    Column,
    Connection,
    Date,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    Table,
    delete,
    insert,
    select,
    update,
)

from cds_service.cli.log import Against, Report, examine
from cds_service.db.audit import AuditEntry
from cds_service.db.chains import Span, snapshot
from cds_service.db.erasure import Decision, Erase
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.patients import Whom
from cds_service.db.tables import (
    audit_entries,
    erasures,
    prediction_payloads,
    predictions,
    vault_entries,
)
from cds_service.errors import LogUnavailable
from cds_service.evidence import chain
from cds_service.identities.erasure import Asking
from cds_service.identities.retention import take_what_is_due, what_is_due
from tests.logged import NOW, PRIVACY, a_row, store_all

BASE = "https://fhir.example/r4"
ALONE = Against()
WITH_THE_VAULT = Against(privacy=PRIVACY)
P, A, D, V = predictions.c, audit_entries.c, prediction_payloads.c, vault_entries.c
IN_THE_VAULT_ONLY = {"patient_pseudonym", "encounter_pseudonym", "pseudonym_key", "key_id"}
"""Columns a new key changes: they are not committed to, but must fit what the vault says."""


def row_of(patient: str, organisation: str = "o", **given: Any) -> dict[str, Any]:
    """A row about a patient, as a hook call stores it."""
    encounter = f"e-{patient}"
    references = {"fhir_base": BASE, "patient": patient, "encounter": encounter}
    return a_row(
        organisation=organisation,
        patient_pseudonym=PRIVACY.pseudonym(organisation, BASE, "Patient", patient),
        encounter_pseudonym=PRIVACY.pseudonym(organisation, BASE, "Encounter", encounter),
        references=msgspec.json.encode(references),
        document=f'{{"of": "{patient}"}}',
        **given,
    )


def entry_of(organisation: str = "o", **given: Any) -> AuditEntry:
    """An entry of the audit trail."""
    return AuditEntry(organisation, "A. Berg", "operator", "read", **given)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A log of two organisations: predictions of four patients, and reading between them."""
    made = open_engine(database_url)
    with PredictionLog(made, PRIVACY) as log:
        for patient in ("1", "2", "3", "4"):
            log.store(row_of(patient)).result(10)
            log.audit(entry_of(subject=patient)).result(10)
            log.store(row_of(patient, "p")).result(10)
        log.store(row_of("1")).result(10)
    yield made
    made.dispose()


@pytest.fixture
def log(engine: Engine) -> Iterator[Connection]:
    """A connection whose changes are taken back."""
    with engine.connect() as connection:
        yield connection
        connection.rollback()


def verified(log: Connection, against: Against = WITH_THE_VAULT) -> Report:
    """What verifying the whole log says."""
    return examine(log, Span(), against)


def faults(log: Connection, against: Against = ALONE) -> set[tuple[str, str | None, Any]]:
    """Fault, id of the row, and place of everything that is wrong."""
    report = verified(log, against)
    return {(one.fault, one.id, one.sequence) for one in report.findings}


def chained(log: Connection, organisation: str = "o") -> list[dict[str, Any]]:
    """An organisation's predictions and entries by their place in its longest chain."""
    found = [
        {**row, "table": table}
        for table in (predictions, audit_entries)
        for row in log.execute(select(table).where(table.c.organisation == organisation)).mappings()
    ]
    ((writer, _),) = Counter(row["chain_writer"] for row in found).most_common(1)
    own = (row for row in found if row["chain_writer"] == writer)
    return sorted(own, key=lambda row: row["chain_sequence"])


def the_prediction(log: Connection, place: int) -> str:
    """The id of the prediction at a place of organisation o."""
    return str(chained(log)[place]["prediction_id"])


# ---- untouched ------------------------------------------------------------------------------


def test_an_untouched_log_is_as_it_was_written(log: Connection) -> None:
    """Predictions and reading alike, of every organisation."""
    report = verified(log)
    assert report.findings == []
    assert (report.found.chains, report.found.predictions, report.found.audit_entries) == (2, 9, 4)


def test_what_a_running_service_logged_is_as_it_was_written(
    client: TestClient, post: Callable[..., Any], changed: Callable[..., Any]
) -> None:
    """Attempts, refusals and readings among it, as the database gives every column back."""
    request = changed({})
    for body in (
        request,
        request,
        {**request, "prefetch": {**request["prefetch"], "vitals": None}},
    ):
        assert client.post("/cds-services/readmission-30d", json=body).status_code in (200, 412)
    post({"prefetch/laboratory": None})
    service = client.app.state.service  # type: ignore[attr-defined]
    with service.log.engine.connect() as connection:
        shown = connection.execute(select(P.prediction_id)).scalars().first()
    assert client.get(f"/explanations/{shown}").status_code == 200
    with snapshot(service.log.engine) as connection:
        report = examine(connection, Span(), Against(privacy=service.privacy))
    assert report.findings == []
    assert report.found.predictions >= 2
    assert report.found.audit_entries >= 2  # the settings at the start, and who read


def test_a_log_that_grows_meanwhile_is_seen_as_it_was(engine: Engine, database_url: str) -> None:
    """Rows that come while it is read are no gap and no insertion."""
    others = open_engine(database_url)
    with snapshot(engine) as connection:
        before = examine(connection, Span(), Against())
        store_all(others, [row_of("5"), row_of("6")])
        after = examine(connection, Span(), Against())
    assert before.findings == after.findings == []
    assert before.found.predictions == after.found.predictions


# ---- every column -----------------------------------------------------------------------------


def other(column: Column[Any], value: Any) -> Any:
    """Another value of the column's type."""
    if isinstance(column.type, DateTime):
        return (value or NOW) + timedelta(hours=1)
    if isinstance(column.type, Date):
        return value + timedelta(days=1)
    if isinstance(column.type, Integer):
        return value + 1000
    if isinstance(column.type, LargeBinary):
        return bytes(value[:-1]) + bytes([value[-1] ^ 1])
    return "tampered"


@pytest.mark.parametrize(
    ("table", "key"),
    [(audit_entries, A.id), (predictions, P.prediction_id), (prediction_payloads, D.prediction_id),
     (vault_entries, V.prediction_id)],
    ids=["audit_entries", "predictions", "prediction_payloads", "vault_entries"],
)  # fmt: skip
def test_a_change_to_any_column_is_found_and_named(
    engine: Engine, table: Table, key: Column[Any]
) -> None:
    """One value of one row: the report names that row, or the place where it should stand."""
    with engine.connect() as connection:
        row = next(r for r in chained(connection) if r["table"] is audit_entries)
        place = row["chain_sequence"] if table is audit_entries else 2
        row_id = row["id"] if table is audit_entries else the_prediction(connection, place)
        known = connection.execute(select(table).where(key == row_id)).mappings().one()
        connection.rollback()
    unseen = []
    for column in table.columns:
        values = [None] if column.name == "key_id" else [other(column, known[column.name])]
        values += [None] if column.nullable and known[column.name] is not None else []
        for value in values:
            against = WITH_THE_VAULT if column.name in IN_THE_VAULT_ONLY else Against()
            with engine.connect() as connection:
                connection.execute(update(table).where(key == row_id).values({column: value}))
                found = verified(connection, against).findings
                connection.rollback()
            named = {(one.id, one.sequence) for one in found}
            if not any(row_id == i or place == at for i, at in named):
                unseen.append((column.name, value, found))
    assert unseen == []


# ---- whole rows -----------------------------------------------------------------------------


def test_payloads_that_were_exchanged_are_found(log: Connection) -> None:
    """Each says what the other patient's said: both predictions are named."""
    one, two = the_prediction(log, 0), the_prediction(log, 2)
    for before, after in ((one, "between"), (two, one), ("between", two)):
        log.execute(
            update(prediction_payloads).where(D.prediction_id == before).values(prediction_id=after)
        )
    assert faults(log) == {("changed", one, 0), ("changed", two, 2)}


def test_a_row_that_was_taken_out_is_found_by_its_place(log: Connection) -> None:
    """And by what it left behind, if it was not taken out too."""
    gone = the_prediction(log, 4)
    log.execute(delete(predictions).where(P.prediction_id == gone))
    assert faults(log) == {("removed", None, 4), ("removed", gone, None)}
    for table in (prediction_payloads, vault_entries):
        log.execute(delete(table).where(table.c.prediction_id == gone))
    assert faults(log) == {("removed", None, 4)}


def test_an_audit_entry_that_was_taken_out_is_found(log: Connection) -> None:
    """Who read cannot be made unread."""
    log.execute(delete(audit_entries).where(A.subject == "2"))
    assert faults(log) == {("removed", None, 3)}


def test_rows_taken_out_together_are_counted(log: Connection) -> None:
    log.execute(delete(audit_entries).where(A.subject.in_(("2", "3"))))
    log.execute(delete(predictions).where(P.prediction_id == the_prediction(log, 3)))
    (gap,) = [one for one in verified(log).findings if one.sequence is not None]
    assert (gap.fault, gap.sequence) == ("removed", 3)
    assert "3 rows, up to place 5" in gap.says


def forged(log: Connection, **given: Any) -> dict[str, Any]:
    """A row as an administrator writes it: a copy of another one, with an own commitment."""
    like = {k: v for k, v in chained(log)[0].items() if k != "table"}
    made = {**like, "prediction_id": str(uuid.uuid4()), "hook_instance": str(uuid.uuid4()), **given}
    payload = {**log.execute(select(prediction_payloads)).mappings().first()}  # type: ignore[dict-item]
    sealed = log.execute(select(V.sealed)).scalars().first()
    said = made | payload | {"prediction_id": made["prediction_id"], "sealed": sealed}
    made["commitment"] = chain.commitment(chain.PREDICTION, said, payload["salt"])
    log.execute(insert(predictions), made)
    log.execute(insert(prediction_payloads), payload | {"prediction_id": made["prediction_id"]})
    log.execute(insert(vault_entries), {"prediction_id": made["prediction_id"], "sealed": sealed})
    return made


def test_a_forged_row_at_the_end_does_not_follow(log: Connection) -> None:
    row = forged(log, chain_sequence=9, link=b"l" * 32)
    assert faults(log) == {("inserted", row["prediction_id"], 9)}


def test_a_forged_row_in_another_rows_place_is_found(log: Connection) -> None:
    """The place of a removed prediction, or of an audit entry, which has numbers in common."""
    gone = the_prediction(log, 4)
    for table in (predictions, prediction_payloads, vault_entries):
        log.execute(delete(table).where(table.c.prediction_id == gone))
    row = forged(log, chain_sequence=4, link=b"l" * 32)
    assert faults(log) == {("changed", row["prediction_id"], 4)}
    log.rollback()
    row = forged(log, chain_sequence=3, link=b"l" * 32)
    assert faults(log) == {("inserted", row["prediction_id"], 3)}


def test_a_row_without_a_place_is_found_unless_it_is_older_than_the_chains(log: Connection) -> None:
    """Rows from before the chains have none; one that came since must."""
    nowhere = {"chain_day": None, "chain_writer": None, "chain_sequence": None, "link": None}
    row = forged(log, **nowhere)
    assert faults(log) == {("inserted", row["prediction_id"], None)}
    log.rollback()
    forged(log, **nowhere, computed_at=NOW - timedelta(days=400))
    report = verified(log)
    assert report.older_than_chains == 1
    orphan_free = [one for one in report.findings if one.table != "prediction_payloads"]
    assert orphan_free == []


def test_a_row_moved_to_another_organisation_is_named_with_where_it_belongs(
    log: Connection,
) -> None:
    moved = the_prediction(log, 4)
    log.execute(update(predictions).where(P.prediction_id == moved).values(organisation="thief"))
    report = verified(log, Against())
    assert {(one.fault, one.id) for one in report.findings} == {
        ("changed", moved), ("moved", moved),
    }  # fmt: skip
    (told,) = (one for one in report.findings if one.fault == "moved")
    assert told.chain is not None
    assert told.chain.organisation == "thief"
    assert "it belongs to o " in told.says
    assert "place 4" in told.says


def test_a_row_moved_within_its_chain_is_named_with_where_it_belongs(log: Connection) -> None:
    """Its number set to another one."""
    moved = the_prediction(log, 4)
    log.execute(update(predictions).where(P.prediction_id == moved).values(chain_sequence=700))
    assert faults(log) == {("moved", moved, 700)}


@pytest.mark.parametrize(("one", "two"), [(0, 2), (2, 6), (2, 8), (6, 8)])
def test_rows_that_were_exchanged_in_their_chain_are_named(
    log: Connection, one: int, two: int
) -> None:
    first, second = the_prediction(log, one), the_prediction(log, two)
    for row, place in ((first, 900), (second, one), (first, two)):
        log.execute(update(predictions).where(P.prediction_id == row).values(chain_sequence=place))
    found = faults(log)
    assert {one for _, one, _ in found} == {first, second}
    assert "moved" in {fault for fault, _, _ in found}


def test_neighbours_that_were_exchanged_are_named(log: Connection) -> None:
    """A prediction, and the entry about its being read."""
    rows = chained(log)
    log.execute(
        update(predictions)
        .where(P.prediction_id == rows[2]["prediction_id"])
        .values(chain_sequence=3)
    )
    log.execute(update(audit_entries).where(A.id == rows[3]["id"]).values(chain_sequence=2))
    found = faults(log)
    assert ("moved", rows[3]["id"], 2) in found
    assert {one for _, one, _ in found} == {rows[3]["id"]}


# ---- erasure --------------------------------------------------------------------------------


def erase(engine: Engine, patient: str = "2") -> str:
    """Erase a patient as the command does; the id of the decision."""
    pseudonym = PRIVACY.pseudonym("o", BASE, "Patient", patient)
    decision = Decision(str(uuid.uuid4()), "granted", "GDPR 17", "A. Berg", datetime.now(UTC))
    entry = AuditEntry("o", "A. Berg", "operator", "erase", details={"decision": decision.id})
    with PredictionLog(engine, PRIVACY) as running:
        running.commit(Erase(decision, Whom("o", {pseudonym: "0"}), (), entry)).result(10)
    return decision.id


def test_what_was_erased_by_decision_is_lawful_and_counted(engine: Engine) -> None:
    """The chain still holds where there is nothing left to read."""
    erase(engine)
    with engine.connect() as connection:
        report = verified(connection)
    assert report.findings == []
    assert report.found.erased == 1


@pytest.mark.parametrize("table", [prediction_payloads, vault_entries], ids=str)
def test_content_that_is_gone_without_a_decision_is_found(log: Connection, table: Table) -> None:
    gone = the_prediction(log, 2)
    log.execute(delete(table).where(table.c.prediction_id == gone))
    assert faults(log) == {("removed", gone, 2)}


UNDONE = {
    "no such decision": delete(erasures),
    "it was refused": update(erasures).values(decision="refused"),
    "of another organisation": update(erasures).values(organisation="p"),
    "not in the audit trail": delete(audit_entries).where(A.what == "erase"),
}


@pytest.mark.parametrize("undone", sorted(UNDONE))
def test_a_decision_that_does_not_hold_makes_no_erasure_lawful(engine: Engine, undone: str) -> None:
    """It must be granted, of that organisation, and on record."""
    erase(engine)
    with engine.connect() as connection:
        connection.execute(UNDONE[undone])
        found = faults(connection)
        connection.rollback()
        assert ("removed", the_prediction(connection, 2), 2) in found


def hide(connection: Connection, prediction_id: str, decision_id: str) -> None:
    """Take a prediction's content away as if a decision had."""
    for table in (prediction_payloads, vault_entries):
        connection.execute(delete(table).where(table.c.prediction_id == prediction_id))
    of_it = P.prediction_id == prediction_id
    gone = {"erasure": decision_id, "patient_pseudonym": "", "index_time": None}
    connection.execute(update(predictions).where(of_it).values(gone))
    connection.execute(update(erasures).values(predictions=100))


def test_a_prediction_hidden_under_somebody_elses_erasure_is_found(engine: Engine) -> None:
    """The trail, which is chained, says how many the decision took; a second one is too many."""
    decision_id = erase(engine)
    with engine.connect() as connection:
        hide(connection, the_prediction(connection, 4), decision_id)
        (found,) = verified(connection).findings
        connection.rollback()
    assert (found.fault, found.table, found.id) == ("removed", "erasures", decision_id)
    assert "2 predictions are gone under it, the audit trail says it took 1" in found.says


def test_what_is_erased_again_after_a_restore_is_lawful(engine: Engine) -> None:
    """Both deeds name the decision; together they took as many as are gone."""
    with engine.connect() as connection:
        again = chained(connection)[4]["patient_pseudonym"]
    decision_id = erase(engine)
    decision = Decision(decision_id, "granted", "GDPR 17", "A. Berg", datetime.now(UTC))
    entry = AuditEntry("o", "B", "operator", "replay erase", details={"decision": decision_id})
    with PredictionLog(engine, PRIVACY) as running:
        running.commit(Erase(decision, Whom("o", {again: "0"}), (), entry)).result(10)
    with engine.connect() as connection:
        report = verified(connection)
    assert (report.findings, report.found.erased) == ([], 2)


def test_retention_makes_nothing_lawful_that_was_newer(engine: Engine) -> None:
    """It names the moment before which it took; what was computed later is found by its id."""
    old = datetime.now(UTC) - timedelta(days=400)
    before = datetime.now(UTC) - timedelta(days=300)
    asking = Asking("o", "A. Berg", "VARSEL_RETENTION")
    with PredictionLog(engine, PRIVACY) as running:
        for patient in ("7", "8"):
            running.store(row_of(patient, computed_at=old)).result(10)
        planned = what_is_due(running, "o", before)
        taken = take_what_is_due(running, asking, before, planned=planned)
    assert taken.decision is not None
    with engine.connect() as connection:
        report = verified(connection)
        assert (report.findings, report.found.erased) == ([], 2)
        hidden = the_prediction(connection, 4)
        hide(connection, hidden, taken.decision)
        assert faults(connection) == {("removed", hidden, 4)}
        connection.rollback()


def test_a_second_payload_under_another_time_is_found(log: Connection) -> None:
    """It would stay where an erasure takes the payload away by its time."""
    twice = the_prediction(log, 2)
    payload = log.execute(select(prediction_payloads).where(D.prediction_id == twice)).mappings()
    second = {**payload.one(), "computed_at": NOW - timedelta(days=300)}
    log.execute(insert(prediction_payloads), second)
    (found,) = verified(log).findings
    assert (found.fault, found.table, found.id) == ("removed", "prediction_payloads", twice)
    assert "has another id or time" in found.says


def test_a_prediction_that_says_it_was_erased_and_was_not_is_found(log: Connection) -> None:
    named = the_prediction(log, 2)
    log.execute(update(predictions).where(P.prediction_id == named).values(erasure="x"))
    assert faults(log) == {("changed", named, 2)}


# ---- much of it -----------------------------------------------------------------------------


def test_a_long_log_is_verified_in_constant_memory(sqlite_url: str) -> None:
    """Sixteen megabytes of payloads, of which a few hundred rows are in memory at a time."""
    engine = open_engine(sqlite_url)
    store_all(engine, (a_row(document=f'{{"text": "{"x" * 8000}"}}') for _ in range(2000)))
    tracemalloc.start()
    try:
        with snapshot(engine) as connection:
            report = examine(connection, Span(), Against())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        engine.dispose()
    assert (report.findings, report.found.predictions) == ([], 2000)
    assert peak < 8_000_000


def test_when_everything_was_changed_the_report_stays_short(log: Connection) -> None:
    """What is told is bounded, what is counted is not."""
    log.execute(update(prediction_payloads).values(response="{}x"))
    found: Sequence[Any] = verified(log).findings
    assert len(found) == 9
    assert {one.fault for one in found} == {"changed"}


def test_days_and_organisations_can_be_asked_for_alone(log: Connection) -> None:
    """Then rows outside chains are not looked for, and the report says so."""
    today = chained(log)[0]["chain_day"]
    assert isinstance(today, date)
    report = examine(log, Span(today, today, "p"), Against())
    assert (report.found.chains, report.found.predictions) == (1, 4)
    assert report.older_than_chains is None
    assert examine(log, Span(last=today - timedelta(days=1)), Against()).found.chains == 0


def test_a_value_that_is_none_of_its_column_is_said_not_skipped(sqlite_url: str) -> None:
    """SQLite takes any text for a time; the chain it stands in is named."""
    engine = open_engine(sqlite_url)
    store_all(engine, [a_row()])
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE predictions SET as_of = 'never'")
    said = pytest.raises(LogUnavailable, match=r"chain o .* holds what its columns cannot")
    with said, snapshot(engine) as connection:
        examine(connection, Span(), Against())
    engine.dispose()
