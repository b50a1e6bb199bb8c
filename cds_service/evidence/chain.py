"""The chain that makes the log tamper-evident: commitments to rows, and links from one to the next.

One chain per organisation, day (UTC) and writing process. A commitment is a salted SHA-256 of all a
row said when it was written; a link is the SHA-256 of the link before it and the commitment. So a
row that was changed no longer meets its commitment, and one that was removed or put in breaks the
links; the last link of each chain goes into the day's signed manifest. Erasure takes salt and
content away and leaves commitment and link: the chain still holds, and says nothing any more.

Pure. Pseudonyms are left out of commitments, because a new key makes new ones; the vault's entries,
which are in them, say whom a row is about. docs/tamper-evidence.md says what this proves.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import msgspec

SALT_BYTES = 16
_FORMAT = b"\x01"
"""How commitments are made; another set of columns is another format."""
PREDICTION = (
    "prediction_id", "organisation", "unit", "caller", "service", "hook", "hook_instance",
    "content_digest", "context_digest", "attempt", "attempt_of", "model_id", "model_version",
    "package_checksum", "software_version", "mode", "arm", "language", "as_of", "index_time",
    "computed_at", "status", "reason", "returned", "state", "purpose", "legal_ground", "libraries",
    "digest_key", "features", "document", "response", "timings", "sealed",
)  # fmt: skip
"""What the commitment to a prediction is made of, in this order: the row, its payload, its entry in
the vault."""
AUDIT = ("id", "organisation", "at", "who", "role", "what", "subject", "why", "details")
"""The same of an audit entry."""


class Head(NamedTuple):
    """The end of a chain: how many links it has, and the last one."""

    length: int
    link: bytes


Chains = tuple[str, date]
"""Which of a writer's chains: organisation and day."""


def commitment(columns: tuple[str, ...], row: Mapping[str, Any], salt: bytes) -> bytes:
    """The commitment to a row; a column the row lacks counts as null."""
    plain = [_in_utc(v) if isinstance(v, datetime) else v for v in map(row.get, columns)]
    return _FORMAT + hashlib.sha256(_FORMAT + salt + msgspec.json.encode(plain)).digest()


def _in_utc(moment: datetime) -> str:
    """A moment as it is committed to, whichever way a database gives it back."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="microseconds")


def first_link(organisation: str, day: date, writer: str) -> bytes:
    """What the first link of a chain follows."""
    named = f"varsel chain\0{organisation}\0{day.isoformat()}\0{writer}"
    return hashlib.sha256(named.encode()).digest()


def next_link(before: bytes, committed: bytes) -> bytes:
    """The link to a commitment."""
    return hashlib.sha256(before + committed).digest()


class Writer:
    """The chains of one writing process, in memory; a process that starts again is a new writer."""

    def __init__(self) -> None:
        self.id = str(uuid.uuid4())
        self._heads: dict[Chains, Head] = {}
        self._day = date.min

    def heads(self) -> dict[Chains, Head]:
        """How far every chain has come; `return_to` takes it back where a commit failed."""
        return dict(self._heads)

    def return_to(self, heads: dict[Chains, Head]) -> None:
        """Take the chains back to where they were."""
        self._heads = heads

    def place(
        self, columns: tuple[str, ...], row: Mapping[str, Any], *, today: date
    ) -> dict[str, Any]:
        """The row's chain columns and its salt, as the next link of its organisation's chain.

        The chain moves on only with `take`: a row may turn out to stand in the log already.
        """
        organisation = row["organisation"]
        self._day = max(self._day, today)  # a clock set back does not reopen a day
        head = self._head(organisation, self._day)
        salt = secrets.token_bytes(SALT_BYTES)
        committed = commitment(columns, row, salt)
        return {
            "chain_day": self._day,
            "chain_writer": self.id,
            "chain_sequence": head.length,
            "commitment": committed,
            "link": next_link(head.link, committed),
            "salt": salt,
        }

    def take(self, organisation: str, placed: Mapping[str, Any]) -> None:
        """Move the chain on to a row that was written."""
        head = Head(placed["chain_sequence"] + 1, placed["link"])
        day = placed["chain_day"]
        if head.length == 1:  # a new day: yesterday's chains have ended
            self._heads = {key: kept for key, kept in self._heads.items() if key[1] == day}
        self._heads[organisation, day] = head

    def _head(self, organisation: str, day: date) -> Head:
        found = self._heads.get((organisation, day))
        return found or Head(0, first_link(organisation, day, self.id))
