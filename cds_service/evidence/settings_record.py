"""The settings as the audit trail has them: which changed since the service last started.

Of secrets stand the ids of keys, of addresses neither user nor password, of files a digest of their
content. Written by a process when it starts to serve, before it answers anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr

from cds_service.account import account
from cds_service.db.audit import AuditEntry, newest_entry
from cds_service.db.log import PredictionLog
from cds_service.db.postgresql import read_url
from cds_service.errors import SetupError
from cds_service.identities.keyring import UNNAMED
from cds_service.settings import Settings

WHAT = "settings"
_FIRST = "the first start that is on record"


def note_settings(log: PredictionLog, settings: Settings, callers: list[str]) -> None:
    """Put on record which settings changed since the last start; nothing where none did.

    Processes that start together may each find the change, and put it on record twice. `callers`:
    the names of those let in. Raises LogUnavailable, NotDurable, SetupError.
    """
    said = said_settings(settings, callers)
    before = newest_entry(log.engine, settings.organisation, WHAT)
    digest = hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
    if before is not None and before["subject"] == digest:
        return
    known = msgspec.json.decode(before["details"])["settings"] if before is not None else None
    entry = AuditEntry(
        settings.organisation,
        account(),
        "operator",
        WHAT,
        subject=digest,
        why="" if before is not None else _FIRST,
        details={"changed": {} if known is None else changes(known, said), "settings": said},
    )
    log.audit(entry).result()


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, what a setting was and is, of those that changed; null where there was none."""
    return {
        name: {"from": before.get(name), "to": now.get(name)}
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def said_settings(settings: Settings, callers: list[str]) -> dict[str, Any]:
    """By name, what may be told of every setting, and the callers let in.

    Raises SetupError where a file that is named cannot be read.
    """
    said: dict[str, Any] = {"callers": sorted(callers)}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            said[name] = [_key_id(one) for one in value.get_secret_value().split()]
        elif name == "database_url" and value is not None:
            said[name] = _address(value)
        elif isinstance(value, Path):
            said[name] = str(value)
            if name.endswith("_file") and value.is_file():
                said[f"{name}_sha256"] = _digest_of(value, name)
        else:
            said[name] = value
    return said


def _key_id(key: str) -> str:
    """The id of a key in a ring; what stands before the colon, never what stands behind it."""
    return key.rpartition(":")[0] or UNNAMED


def _address(url: str) -> str:
    """Where a database is: neither who opens it nor how."""
    parts = read_url(url)
    several = parts.normalized_query
    hosts = parts.host or ",".join(several.get("host", ()))
    ports = str(parts.port or ",".join(several.get("port", ())))
    pairs = zip_longest(hosts.split(","), ports.split(","), fillvalue="")
    where = ",".join(f"{host}:{port}" if port else host for host, port in pairs)
    return f"{parts.get_backend_name()}://{where}/{parts.database or ''}"


def _digest_of(path: Path, name: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SetupError(f"VARSEL_{name.upper()}: {error.strerror}") from None
