"""How the log is connected to on PostgreSQL: hosts, driver, what gives up when, what is durable.

Used by `open_engine` alone. docs/database.md says what each of them is for. No connection is tried
before it is used (`pool_pre_ping`): that would cost every commit a round trip. One that was lost is
noticed when it is used, thrown away with all of its age, and the write is done again on a new one.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, make_url

STATEMENT_TIMEOUT_S = 30
_ARGUMENTS: dict[str, Any] = {
    "application_name": "varsel",
    "connect_timeout": 5,
    # a cut network is noticed within ten seconds, not after the quarter of an hour TCP takes
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SESSION = {
    # durable when it is on disk; with a configured standby, when that has it too
    "synchronous_commit": "on",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": "5min",
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
}
_STRONGER = ("remote_apply",)
"""What an administrator may have set for more durability than `on`; it is left."""
_SEVERAL_HOSTS = re.compile(
    r"(?P<scheme>postgres(?:ql)?(?:\+\w+)?://)(?P<user>[^@/?]*@)?(?P<hosts>[^@/?]*,[^@/?]*)"
    r"(?P<rest>(?:/[^@?]*)?(?:\?(?![^@=]*@).*)?)"
)
"""PostgreSQL's own way to name a server and its standbys, which SQLAlchemy does not read. Where an
`@` follows in what would be the rest, before the value of a first parameter, user and password
stand in front of it, and SQLAlchemy reads that: a password may hold a comma, `/` and `?`."""
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(?::(\d*))?")


def read_url(text: str) -> URL:
    """The URL of a database; several hosts may stand behind `host=` or, as PostgreSQL writes it,
    one after the other: `//user@db1:5432,db2:5432/varsel`.

    Raises ArgumentError or ValueError, whose text may hold a password, where it is none.
    """
    several = _SEVERAL_HOSTS.fullmatch(text)
    if several is None:
        return make_url(text)
    found = [_HOST.fullmatch(one) for one in several["hosts"].split(",")]
    hosts = [one[1].strip("[]") for one in found if one]
    if len(hosts) < len(found):
        raise ValueError("not a host and its port")
    ports = [one[2] or "" for one in found if one]
    named = make_url(f"{several['scheme']}{several['user'] or ''}{several['rest'] or '/'}")
    return named.update_query_dict({"host": ",".join(hosts), "port": ",".join(ports)})


def is_postgresql(url: URL) -> bool:
    """Whether a URL is of PostgreSQL, whatever its driver."""
    return url.get_backend_name() in ("postgresql", "postgres")


def with_driver(url: URL) -> URL:
    """The URL with psycopg 3, where it names no driver; other tools write `postgres://` too."""
    plain = url.drivername in ("postgresql", "postgres")
    return url.set(drivername="postgresql+psycopg") if plain else url


def arguments(url: URL) -> dict[str, Any]:
    """What the driver is told, but what the URL says itself."""
    return {name: value for name, value in _ARGUMENTS.items() if name not in url.query}


def settle_session(connection: Any, _: object) -> None:
    """Set on a new connection what the log relies on, whatever the server's defaults are."""
    wanted = dict(_SESSION)
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone()[0] in _STRONGER:
            del wanted["synchronous_commit"]
        settings = ", ".join("set_config(%s, %s, false)" for _ in wanted)
        cursor.execute(f"SELECT {settings}", [part for pair in wanted.items() for part in pair])
    connection.commit()
