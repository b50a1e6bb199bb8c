"""`make bench-tokens`: what checking a caller's JWT costs, with its key at hand.

The door as the routes ask it, from the Authorization header to the caller; and beside it the bare
signature in the cryptographic library, which is the part nobody can leave out. Rounds take turns,
and the fastest counts: what disturbs a machine only makes it slower. Ends with one line of JSON and
exits 1 where a target is missed. Figures of a day: docs/callers.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

from joserfc.jwk import ECKey, RSAKey
from starlette.requests import Request

from cds_service.auth.callers import read_callers
from cds_service.auth.door import Door
from cds_service.auth.tokens import check_signature, take_apart
from cds_service.db.log import PredictionLog, open_engine
from tests.issuers import HOOK_PATH, SERVICE_URL, caller_table, claims, jwks, key_of, signed
from tests.logged import PRIVACY

LONGEST_MS = 0.5
ROUNDS, CALLS = 40, 25
KEYS = {"rs384": "rsa-1", "es384": "ec-1"}


def opened_door(folder: Path) -> Door:
    """A door for one issuer, whose keys lie in a file."""
    keys = jwks(*(key_of(kid) for kid in KEYS.values()))
    (folder / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    file = folder / "callers.toml"
    file.write_text(caller_table(jwks_file="keys.json"), encoding="utf-8")
    log = PredictionLog(open_engine("sqlite://"), PRIVACY)
    return Door(read_callers(file), url=SERVICE_URL, log=log, privacy=PRIVACY)


def request_with(authorization: str) -> Request:
    """A hook call as the routes see it."""
    headers = [(b"authorization", authorization.encode())]
    return Request({"type": "http", "method": "POST", "path": HOOK_PATH, "headers": headers})


def admitting(door: Door, authorization: str) -> Callable[[], None]:
    """Lets one caller in, many times over."""

    async def calls() -> None:
        for _ in range(CALLS):
            await door.admit(request_with(authorization))

    return lambda: asyncio.run(calls())


def verifying(authorization: str, kid: str) -> Callable[[], None]:
    """Checks the signature alone, many times over."""
    token = take_apart(authorization.removeprefix("Bearer "))
    kind = type(key_of(kid))
    public: RSAKey | ECKey = kind.import_key(key_of(kid).as_dict(private=False))

    def calls() -> None:
        for _ in range(CALLS):
            check_signature(token, public)

    return calls


def fastest(works: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of CPU of one call of each, in its fastest round."""
    seen: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = process_time()
            work()
            seen[name].append(1000 * (process_time() - started) / CALLS)
    return {name: round(min(times), 3) for name, times in seen.items()}


def main() -> int:
    """Measure and say; 1 where a target is missed."""
    with tempfile.TemporaryDirectory() as folder:
        door = opened_door(Path(folder))
        works: dict[str, Callable[[], None]] = {}
        for name, kid in KEYS.items():
            authorization = signed(key_of(kid), claims())["Authorization"]
            works[f"{name}_ms"] = admitting(door, authorization)
            works[f"{name}_signature_ms"] = verifying(authorization, kid)
        figures = fastest(works)
    missed = [
        f"{name} {figures[name]} is above {LONGEST_MS}"
        for name in (f"{algorithm}_ms" for algorithm in KEYS)
        if figures[name] > LONGEST_MS
    ]
    print(json.dumps({"target": "bench-tokens", "figures": figures, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
