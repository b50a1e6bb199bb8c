"""A process's knowledge of which versions are in service, kept current while it serves.

A thread asks the database every second whether anything was decided, and reads it where something
was; the hot path only looks at memory. A process that has not been able to ask for longer than
VARSEL_STATES_SECONDS stops answering: it would not know that a model was withdrawn.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Self

import structlog
from sqlalchemy import Engine

from cds_service.db.governance import Marker, newest, read_history
from cds_service.errors import LogUnavailable, StatesUnknown
from cds_service.governance import History, Roster, roster_of
from models.registry import Registry

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.watch")
EVERY_S = 1.0
"""Seconds between two looks; a decision reaches every process within two."""
_ENDS_WITHIN_S = 5.0


class Watch:
    """The roster of one process. `start` before use, `stop` when done; usable as a context."""

    def __init__(
        self, engine: Engine, registry: Registry, *, demo: bool, stale_after_s: float = 300.0
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._demo = demo
        self._stale_after_s = stale_after_s
        self._roster = roster_of(registry, History(), demo=demo)
        self._marker: Marker | None = None
        self._looked_at = float("-inf")
        self._failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="states", daemon=True)

    def start(self) -> Self:
        """Look for the first time, then begin to watch. Raises LogUnavailable."""
        self._look()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_ENDS_WITHIN_S)  # a database that hangs keeps nobody from ending

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def roster(self) -> Roster:
        """Who answers now. Raises StatesUnknown where that was not seen for too long."""
        since = time.monotonic() - self._looked_at
        if since > self._stale_after_s:
            raise StatesUnknown(f"which models are in service was last seen {since:.0f} s ago")
        return self._roster

    def _keep_looking(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                self._look()
            except LogUnavailable as error:
                if not self._failing:
                    events.log(logging.ERROR, "states not read", message=str(error))
                self._failing = True
            else:
                self._failing = False

    def _look(self) -> None:
        began = time.monotonic()
        marker = newest(self._engine)
        if marker != self._marker:
            history = read_history(self._engine)
            self._roster = roster_of(self._registry, history, demo=self._demo)
            self._marker = marker
            states = {str(stand.version): stand.state for stand in self._roster.stands}
            events.log(logging.INFO, "states", states=states)
        self._looked_at = began
