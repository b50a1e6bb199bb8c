"""`varsel serve` with durability switched off: the yardstick of what durability costs.

The very same product, started as `python -m tests.bench.lax serve`; every connection it opens to
its database is made durable as always and then undone (`PRAGMA synchronous=OFF`,
`synchronous_commit=off`). The product itself has no such option. Started by `log_durability`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cds_service.cli import main
from cds_service.db import log

_OFF = {
    "sqlite": ("PRAGMA synchronous=OFF", "PRAGMA synchronous", 0),
    "postgresql": ("SET SESSION synchronous_commit = off", "SHOW synchronous_commit", "off"),
}
"""By database: what switches it off, what asks whether it is, and the answer then."""
_SETTLING = ("_make_sqlite_durable", "settle_session")
"""What `open_engine` settles a new connection with."""
Settle = Callable[[Any, object], None]


def make_lax(connection: Any, _: object) -> None:
    """Undo what makes a connection durable. Raises RuntimeError where it stays durable."""
    kind = "sqlite" if "sqlite" in type(connection).__module__ else "postgresql"
    switch, ask, answer = _OFF[kind]
    cursor = connection.cursor()
    cursor.execute(switch)
    connection.commit()
    if cursor.execute(ask).fetchone()[0] != answer:
        raise RuntimeError(f"durability is not switched off: {ask}")
    cursor.close()


def switch_off() -> None:
    """Have every engine that is opened from now on settle its connections, and undo it."""
    for name in _SETTLING:
        setattr(log, name, _and_undone(getattr(log, name)))


def _and_undone(settle: Settle) -> Settle:
    def settle_lax(connection: Any, record: object) -> None:
        settle(connection, record)
        make_lax(connection, record)

    return settle_lax


if __name__ == "__main__":
    switch_off()
    main()
