"""What is taken away from the log, and on whose decision: the SQL of erasures.

Each is one write of `PredictionLog.commit`, with its decision and its audit entry in the same
transaction. Of an erased prediction stays that it was made: row, commitment and link, without
payload, salt, entry in the vault, pseudonyms and index time. A data key goes with its last entry,
or with the restriction that was the last to need it. Called by the commands of `varsel privacy`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from cds_service.db.audit import AuditEntry, now_done
from cds_service.db.patients import Whom, count_restricted, of_patient
from cds_service.db.reader import unreadable
from cds_service.db.restriction import RESTRICTED
from cds_service.db.tables import (
    erasures,
    prediction_payloads,
    predictions,
    vault_entries,
    vault_keys,
)
from cds_service.db.transaction import Sealed, Transaction
from cds_service.errors import BadRequest
from cds_service.identities.vault import BEFORE_THE_VAULT

AT_A_TIME = 500
"""Rows in one statement; databases take so many values and no more."""
GRANTED, DESTROYED = "granted", "destroyed"
NOBODY = ""
"""The pseudonym of a patient whose identity was taken away, and of a decision about no one patient.
"""
_NO_ENTRIES = and_(
    ~exists().where(vault_entries.c.key_id == vault_keys.c.id),
    ~exists().where(erasures.c.key_id == vault_keys.c.id),
)
_IS_OLDER = exists().where(
    vault_entries.c.prediction_id == predictions.c.prediction_id,
    vault_entries.c.key_id.is_(None),
    func.substr(vault_entries.c.sealed, 1, 1) == BEFORE_THE_VAULT,
)
"""Of a row of `predictions` in a query: whether its entry is older than the vault."""


class Decision(NamedTuple):
    """What was decided, by whom, when and on which ground. `id` stands in the rows it took away."""

    id: str
    decision: str
    ground: str
    who: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Erase:
    """The write that takes away what was predicted of a patient until the decision.

    `ids`: predictions known to be the patient's, whenever they were made, beside those under a
    pseudonym: a backup may hold them under one that a change of keys has made unknown. Gives how
    many predictions it took.
    """

    decision: Decision
    whom: Whom
    ids: tuple[str, ...]
    audit: AuditEntry

    def __call__(self, tx: Transaction) -> int:
        """Take them away, and put decision and deed on record; the decision once."""
        theirs = _theirs(self.whom, self.ids, self.decision.at)
        keeps = _keeps_of(self.whom, theirs)
        restricted = _end_restrictions(tx.connection, keeps, self.decision.at)
        taken = sum(_take_all(tx.connection, which, self.decision) for which in theirs)
        _remove_unused_of(tx.connection, restricted)
        pseudonym, key_id = next(iter(self.whom.pseudonyms.items()))
        note_decision(
            tx, self.decision, self.whom.organisation, about=(pseudonym, key_id), taken=taken
        )
        # `varsel log verify` holds the rows that name the decision against this number
        now_done(replace(self.audit, details={**self.audit.details, "predictions": taken}))(tx)
        return taken


@dataclass(frozen=True, slots=True)
class Decide:
    """The write of a decision that takes nothing away, about every pseudonym of a patient.

    A restriction seals whom it is about; what one before it sealed goes with any decision.
    """

    decision: Decision
    whom: Whom
    audit: AuditEntry

    def __call__(self, tx: Transaction) -> None:
        """Put it on record, once. Raises SealBroken."""
        if _stands(tx.connection, self.decision.id):
            return  # done before, whole, in a commit that nobody heard of
        before = _end_restrictions(tx.connection, _keeps_of(self.whom), self.decision.at)
        ids = [self.decision.id, *(str(uuid.uuid4()) for _ in self.whom.pseudonyms)]
        for one, about in zip(ids, self.whom.pseudonyms.items(), strict=False):
            decision = self.decision._replace(id=one)
            kept = self._sealed(tx, one, about) if decision.decision == RESTRICTED else None
            note_decision(tx, decision, self.whom.organisation, about=about, taken=0, kept=kept)
        _remove_unused_of(tx.connection, before)
        now_done(self.audit)(tx)

    def _sealed(self, tx: Transaction, decision_id: str, about: tuple[str, str]) -> Sealed | None:
        """Whom a restriction is about, under their data key; None under an older pseudonym."""
        pseudonym, key_id = about
        named = self.whom.named.get(pseudonym)
        if named is None:
            return None
        row = {
            "prediction_id": decision_id,
            "organisation": self.whom.organisation,
            "patient_pseudonym": pseudonym,
            "pseudonym_key": key_id,
            "references": msgspec.json.encode(named._asdict()),
        }
        return tx.sealed(row)


@dataclass(frozen=True, slots=True)
class Destroy:
    """The write that destroys data keys, of a patient or (`whom` None) of an organisation.

    The entries stay, and nobody can open them any more; the predictions lose their pseudonyms, or
    who holds the pseudonym key could tell them all the same: also those made since the decision
    that were sealed under such a key. `ids` as of Erase. Gives how many keys it destroyed.
    """

    decision: Decision
    organisation: str
    whom: Whom | None
    ids: tuple[str, ...]
    audit: AuditEntry

    def __call__(self, tx: Transaction) -> int | BadRequest:
        """Destroy them; nothing, where an entry older than the vault would still open."""
        connection, c = tx.connection, predictions.c
        theirs = [and_(c.organisation == self.organisation, c.computed_at <= self.at)]
        if self.whom is not None:
            theirs = _theirs(self.whom, self.ids, self.at)
        older = select(c.prediction_id).where(_IS_OLDER).limit(1)
        if any(connection.execute(older.where(which)).first() for which in theirs):
            return BadRequest(_OLDER)
        keys = self._keys(connection, theirs)
        last = max([self.at, *(_destroy(connection, some) for some in _parts(keys))])
        for which in theirs:
            connection.execute(update(predictions).where(which).values(_NOBODYS))
        about = (NOBODY, "") if self.whom is None else next(iter(self.whom.pseudonyms.items()))
        done = self.decision._replace(at=last)
        note_decision(tx, done, self.organisation, about=about, taken=0)
        now_done(self.audit)(tx)
        return len(keys)

    def _keys(self, connection: Connection, theirs: Sequence[ColumnElement[bool]]) -> list[str]:
        """The keys, locked: what is written under them waits, and then finds them gone."""
        k = vault_keys.c
        query = select(k.id).where(k.organisation == self.organisation, k.created_at <= self.at)
        queries = [query]
        if self.whom is not None:
            restricted = select(erasures.c.key_id).where(_keeps_of(self.whom))
            queries = [query.where(k.id.in_(_keys_under(which))) for which in theirs]
            queries.append(query.where(k.id.in_(restricted)))
        found = [connection.execute(one.with_for_update()).scalars().all() for one in queries]
        return list(dict.fromkeys(key_id for some in found for key_id in some))

    @property
    def at(self) -> datetime:
        """When it was decided; keys made since then are not meant."""
        return self.decision.at


def _destroy(connection: Connection, keys: Sequence[str]) -> datetime:
    """Destroy data keys with the pseudonyms of all that was sealed under them; when the last of it
    was computed, but no later than now: until then, predictions have lost their key by decision.
    """
    c, of_key = predictions.c, vault_entries.c.key_id.in_(keys)
    which = c.prediction_id.in_(select(vault_entries.c.prediction_id).where(of_key))
    newest = select(func.max(c.computed_at)).where(which)
    last: datetime | None = connection.execute(newest).scalar()
    connection.execute(update(predictions).where(which).values(_NOBODYS))
    connection.execute(update(vault_entries).where(of_key).values(key_id=None))
    connection.execute(update(erasures).where(erasures.c.key_id.in_(keys)).values(_KEEPS_NOTHING))
    connection.execute(delete(vault_keys).where(vault_keys.c.id.in_(keys)))
    if last is None:
        return datetime.min.replace(tzinfo=UTC)
    # SQLite knows no zones
    return min(datetime.now(UTC), last if last.tzinfo else last.replace(tzinfo=UTC))


_OLDER = "entries older than the vault would still open: run `varsel privacy rotate seals` first"
_KEEPS_NOTHING = {"key_id": None, "sealed": None}
_NOBODYS = {"patient_pseudonym": NOBODY, "encounter_pseudonym": None}


def note_decision(
    tx: Transaction,
    decision: Decision,
    organisation: str,
    *,
    about: tuple[str, str],
    taken: int,
    kept: Sealed | None = None,
) -> None:
    """Put a decision on record, unless it stands there. `about`: pseudonym and its key's id;
    `kept`: whom a restriction is about.
    """
    if _stands(tx.connection, decision.id):
        return
    pseudonym, key_id = about
    row = decision._asdict() | {
        "organisation": organisation,
        "patient_pseudonym": pseudonym,
        "pseudonym_key": key_id,
        "predictions": taken,
        "key_id": kept and kept.key_id,
        "sealed": kept and kept.content,
    }
    tx.connection.execute(insert(erasures), row)


def _stands(connection: Connection, decision_id: str) -> bool:
    this = select(erasures.c.id).where(erasures.c.id == decision_id)
    return connection.execute(this).first() is not None


def _keys_under(which: ColumnElement[bool]) -> Select[Any]:
    """The data keys of some predictions."""
    of_entry = vault_entries.c.prediction_id == predictions.c.prediction_id
    return (
        select(vault_entries.c.key_id).join_from(vault_entries, predictions, of_entry).where(which)
    )


def _keeps_of(whom: Whom, theirs: Sequence[ColumnElement[bool]] = ()) -> ColumnElement[bool]:
    """Which decisions keep, sealed, that they are about a patient: by pseudonym, and by the data
    key of predictions known to be theirs."""
    c = erasures.c
    named = and_(c.organisation == whom.organisation, c.patient_pseudonym.in_(whom.pseudonyms))
    by_key = (c.key_id.in_(_keys_under(which)) for which in theirs)
    return and_(c.key_id.is_not(None), or_(named, *by_key))


def _end_restrictions(
    connection: Connection, which: ColumnElement[bool], until: datetime
) -> set[str]:
    """The data keys under which some decisions kept whom they are about, until now: another one,
    made at `until`, comes in their place. A later one stands: an erasure may be done again."""
    ended = and_(which, erasures.c.at <= until)
    keys = set(connection.execute(select(erasures.c.key_id).where(ended)).scalars())
    connection.execute(update(erasures).where(ended).values(_KEEPS_NOTHING))
    return keys


def _remove_unused_of(connection: Connection, keys: set[str]) -> None:
    """Remove those of some data keys under which nothing is sealed any more."""
    connection.execute(delete(vault_keys).where(vault_keys.c.id.in_(keys), _NO_ENTRIES))


def take_away(connection: Connection, ids: Sequence[str], decision_id: str) -> None:
    """Take predictions away, with every payload under their ids; at most AT_A_TIME of them."""
    said, entry = prediction_payloads.c, vault_entries.c
    keys = select(entry.key_id).where(entry.prediction_id.in_(ids), entry.key_id.is_not(None))
    used = set(connection.execute(keys).scalars())
    connection.execute(
        update(predictions)
        .where(predictions.c.prediction_id.in_(ids))
        .values(**_NOBODYS, index_time=None, erasure=decision_id)
    )
    # in whichever month's table: a payload under another time than its prediction's goes too
    connection.execute(delete(prediction_payloads).where(said.prediction_id.in_(ids)))
    connection.execute(delete(vault_entries).where(entry.prediction_id.in_(ids)))
    _remove_unused_of(connection, used)


def _take_all(connection: Connection, which: ColumnElement[bool], decision: Decision) -> int:
    """How many of these predictions were taken away; those that were before are not."""
    c = predictions.c
    query = select(c.prediction_id).where(which, c.erasure.is_(None))
    found = list(connection.execute(query.with_for_update()).scalars())
    for some in _parts(found):
        take_away(connection, some, decision.id)
    return len(found)


def remove_unused_keys(connection: Connection, *which: ColumnElement[bool]) -> int:
    """How many data keys were removed because nothing is sealed under them."""
    return connection.execute(delete(vault_keys).where(_NO_ENTRIES, *which)).rowcount


def stands_on_record(engine: Engine, decision_id: str) -> bool:
    """Whether a decision is in the database. Raises LogUnavailable."""
    return _any(engine, erasures.c.id == decision_id)


def is_left_to_erase(engine: Engine, whom: Whom, ids: Sequence[str], before: datetime) -> bool:
    """Whether the log holds anything of a patient that was erased. Raises LogUnavailable."""
    stands = predictions.c.erasure.is_(None)
    return any(_any(engine, which, stands) for which in _theirs(whom, ids, before))


def is_left_to_destroy(engine: Engine, whom: Whom, ids: Sequence[str], before: datetime) -> bool:
    """Whether the log holds a pseudonym of a patient whose keys were destroyed.

    Raises LogUnavailable.
    """
    is_named = predictions.c.patient_pseudonym != NOBODY
    return any(_any(engine, which, is_named) for which in _theirs(whom, ids, before))


def are_keys_left(engine: Engine, organisation: str, before: datetime) -> bool:
    """Whether the log holds a key of an organisation whose keys were destroyed.

    Raises LogUnavailable.
    """
    k = vault_keys.c
    return _any(engine, k.organisation == organisation, k.created_at <= before)


def why_not_destroy(engine: Engine, organisation: str, whom: Whom | None) -> str | None:
    """Why data keys cannot be destroyed now, before that is decided; None where they can.

    With an organisation's keys would go the pseudonyms by which restrictions hold.
    Raises LogUnavailable.
    """
    c = predictions.c
    if whom is None and (n := count_restricted(engine, organisation)):
        return (
            f"reading of {n} patients is restricted, and would not be any more: decide about them "
            "first (`varsel privacy erase`)"
        )
    which = c.organisation == organisation if whom is None else of_patient(whom)
    return _OLDER if _any(engine, which, _IS_OLDER) else None


def _theirs(whom: Whom, ids: Sequence[str], until: datetime) -> list[ColumnElement[bool]]:
    """Which predictions are a patient's: until a moment by pseudonym, and those known by id."""
    c = predictions.c
    return [
        and_(of_patient(whom), c.computed_at <= until),
        *(
            and_(c.organisation == whom.organisation, c.prediction_id.in_(some))
            for some in _parts(ids)
        ),
    ]


def _any(engine: Engine, *which: ColumnElement[bool]) -> bool:
    try:
        with engine.connect() as connection:
            return connection.execute(select(or_(False, exists().where(*which)))).scalar_one()
    except SQLAlchemyError as error:
        raise unreadable(error) from None


def _parts(whole: Sequence[Any]) -> list[list[Any]]:
    """A sequence in parts of at most AT_A_TIME."""
    rest = iter(whole)
    return list(iter(lambda: list(islice(rest, AT_A_TIME)), []))
