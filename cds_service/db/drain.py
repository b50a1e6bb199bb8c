"""The spool into the database: batch by batch, in order, each once, when the database is back.

A batch that hangs is cut, and tried again; after a failure one record goes alone first, so that one
the database minds holds only itself. A record whose patient's data key does not open waits like
one the database does not take: another process may have wrapped the key with one this process will
have when it is started again. Called by the log's keeper, in its thread.
"""

from __future__ import annotations

import logging
import threading
import time

import structlog
from sqlalchemy import Engine

from cds_service.db.backlog import Backlog
from cds_service.db.commits import Committer
from cds_service.db.spooled import Drain
from cds_service.identities.vault import Vault

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.spool")
_LARGEST_BATCH = 256
_BATCH_S = 10.0
"""Seconds after which a batch is given up."""


class Drainer:
    """Stores what waits in a backlog."""

    def __init__(self, engine: Engine, vault: Vault, backlog: Backlog) -> None:
        self._engine = engine
        self._vault = vault
        self._backlog = backlog
        self._committer = self._new_committer()
        self._most = _LARGEST_BATCH
        self._began = 0.0
        self._count = 0

    def step(self) -> bool:
        """Store the next batch; whether the database took any of it."""
        batch = [Drain(spooled) for spooled in self._backlog.next(self._most)]
        if not batch:
            return False
        self._began = self._began or time.monotonic()
        watch = threading.Timer(_BATCH_S, self._committer.give_up)
        watch.start()
        outcomes = self._committer.commit(batch)
        watch.cancel()
        if len(outcomes) < len(batch):
            self._report_waiting()
            self._committer = self._new_committer()
        fine = next((n for n, one in enumerate(outcomes) if one is not None), len(outcomes))
        emptied = self._backlog.stored(fine)
        self._count += fine
        if fine < len(outcomes):
            self._backlog.refuse(str(outcomes[fine]))
        elif emptied:
            self._report_emptied()
        self._most = min(_LARGEST_BATCH, 4 * self._most) if fine == len(batch) else 1
        return fine > 0

    def _new_committer(self) -> Committer:
        return Committer(self._engine, self._vault, waits_for_keys=True)

    def give_up(self) -> None:
        """End a batch that hangs; called by another thread."""
        self._committer.give_up()

    def _report_waiting(self) -> None:
        state = self._backlog.state()
        events.log(
            logging.WARNING, "spool waits", kind=self._committer.failed_with,
            waiting=state.waiting, age_s=round(state.age_s),
        )  # fmt: skip

    def _report_emptied(self) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        events.log(logging.WARNING, "spool stored", records=self._count, seconds=seconds)
        self._began, self._count = 0.0, 0
