"""A server that fails every call once, after its prediction was committed.

The product itself, but for the first commit of every hookInstance: the row is durable, and then
something nobody foresaw happens, so that the caller gets our 500. Started as
`python -m tests.clients.faulty` by the tests of clients that try again.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from cds_service import server
from cds_service.db.log import PredictionLog
from cds_service.db.store import Stored
from cds_service.settings import read_settings


class Unforeseen(Exception):
    """What nobody foresaw."""


def fail_once_a_call() -> None:
    """From now on the log's first commit of a hookInstance raises once it is durable."""
    store = PredictionLog.store
    seen: set[str] = set()

    def stored(log: PredictionLog, row: dict[str, Any], *rest: Any, **named: Any) -> Future[Stored]:
        future = store(log, row, *rest, **named)
        if row["hook_instance"] in seen:
            return future
        seen.add(row["hook_instance"])
        failing: Future[Stored] = Future()
        future.add_done_callback(lambda _: failing.set_exception(Unforeseen("after the commit")))
        return failing

    PredictionLog.store = stored  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    fail_once_a_call()
    server.run(read_settings(), demo=False)
