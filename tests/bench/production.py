"""A production installation for the bench: a caller with a bearer token, its model live.

And requests that production answers with a score: it allows no replay, so the bench's record is
moved in time until the patient is about to be discharged. Called by `peer_bench`, `soak` and
`log_durability`; its caller by `hook` too.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import func, select

from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.db.tables import predictions
from cds_service.settings import Settings
from tests.bench.records import PLACEHOLDER, Request, hook_request
from tests.decided import bring_live

_PATIENCE_MS = 60_000
"""The bench's deadline: what it measures is how much is answered, not how patient a caller is."""
_TIME = re.compile(rb"(?<=\")\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d([+-]\d\d:\d\d|Z))?(?=\")")


@dataclass(frozen=True, slots=True)
class Installation:
    """What a server process of it is started with, how a caller proves itself, and its log."""

    settings: dict[str, str]
    token: str
    database: str

    def statuses(self) -> dict[str, int]:
        """How many predictions of each status stand in the log."""
        engine = open_engine(self.database)
        counted = select(predictions.c.status, func.count()).group_by(predictions.c.status)
        with engine.connect() as connection:
            found: dict[str, int] = dict(connection.execute(counted).tuples().all())
        engine.dispose()
        return found


def patient_caller(folder: Path) -> tuple[Path, str]:
    """A callers file with one caller, who waits long, and that caller's token."""
    token = secrets.token_hex(32)
    callers = folder / "callers.toml"
    callers.write_text(
        '[[caller]]\nname = "bench"\norganisation = "1234567890123456"\n'
        f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        f"[caller.policy]\ndeadline_ms = {_PATIENCE_MS}\n",
        encoding="utf-8",
    )
    return callers, token


def install(folder: Path, database_url: str | None = None) -> Installation:
    """A migrated database, keys, one caller, and the readmission model brought live by commands.

    `database_url`: an empty database; None for a SQLite file in the folder.
    """
    callers, token = patient_caller(folder)
    settings = Settings(
        profile="production",
        database_url=database_url or f"sqlite:///{folder / 'varsel.db'}",
        state_dir=folder,
        callers_file=callers,
        allow_synthetic_models=True,
    )
    engine = open_engine(settings.database)
    upgrade(engine)
    engine.dispose()
    bring_live(settings)
    environment = {
        "VARSEL_PROFILE": "production",
        "VARSEL_DATABASE_URL": settings.database,
        "VARSEL_CALLERS_FILE": str(callers),
        "VARSEL_PSEUDONYM_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "VARSEL_SEAL_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "VARSEL_ALLOW_SYNTHETIC_MODELS": "true",
        "VARSEL_CALLS_PER_MINUTE": "1000000",
    }
    return Installation(environment, token, settings.database)


def request_now(resources: int, now: datetime) -> Request:
    """The bench's request with all its times moved, so that the discharge it is asked before is as
    near now as in the bench; without the replay extension, which the peer refuses too."""
    past = hook_request(resources)
    demo = msgspec.json.decode(past.body(PLACEHOLDER))
    asked_at = datetime.fromisoformat(demo.pop("extension")["dk.varsel.as-of"])
    later = now - asked_at
    moved = _TIME.sub(lambda found: _moved(found.group(), later), msgspec.json.encode(demo))
    head, tail = moved.split(str(PLACEHOLDER).encode())
    return Request(resources, head, tail, b"")


def _moved(text: bytes, later: timedelta) -> bytes:
    """A date or an instant so much later."""
    moment = datetime.fromisoformat(text.decode())
    if moment.tzinfo is None:
        return (moment + later).date().isoformat().encode()
    return (moment + later).isoformat(timespec="seconds").encode()
