"""A token is used once, whichever process it is shown to, and also after a restart."""

from __future__ import annotations

import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from cds_service.db.claims import Claim
from cds_service.db.log import PredictionLog
from cds_service.db.tables import token_claims
from cds_service.errors import NotAuthenticated
from cds_service.service import open_database
from cds_service.settings import Settings
from tests.bench.servers import PRODUCT, Server, running
from tests.issuers import HOOK_PATH, SERVICE_URL, caller_table, claims, jwks, key_of, signed
from tests.logged import PRIVACY

Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
TOKENS = 6


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """Settings of an installation with one issuer, whose keys lie in a file."""
    (tmp_path / "keys.json").write_text(json.dumps(jwks(key_of("ec-1"))), encoding="utf-8")
    file = tmp_path / "callers.toml"
    file.write_text(caller_table(jwks_file="keys.json"), encoding="utf-8")
    return {"VARSEL_CALLERS_FILE": str(file), "VARSEL_BASE_URL": SERVICE_URL}


def post(server: Server, request: dict[str, Any], headers: Mapping[str, str]) -> int:
    """The status of an answer to a hook."""
    call = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{HOOK_PATH}",
        data=json.dumps(request).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(call, timeout=30) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def logged(folder: Path) -> int:
    """How many predictions stand in the log."""
    with closing(sqlite3.connect(folder / "varsel.db")) as connection:
        (found,) = connection.execute("SELECT count(*) FROM predictions").fetchone()
        return int(found)


def test_r36_two_processes_let_one_token_in_with_one_body(
    tmp_path: Path, site: dict[str, str], changed: Changed
) -> None:
    """Shown to both at the same moment with two bodies, one gets its card and the other a 401, and
    has left no row; after a restart the winner may still retry, and nobody else."""
    bodies = [(changed({}), changed({})) for _ in range(TOKENS)]
    tokens = [signed(key_of("ec-1"), claims()) for _ in range(TOKENS)]
    with ExitStack() as stack, ThreadPoolExecutor(2 * TOKENS) as pool:
        first = stack.enter_context(running(PRODUCT, tmp_path, site))
        second = stack.enter_context(running(PRODUCT, tmp_path, site))
        answers = [
            [pool.submit(post, first, one, token), pool.submit(post, second, other, token)]
            for (one, other), token in zip(bodies, tokens, strict=True)
        ]
        statuses = [[answer.result() for answer in pair] for pair in answers]
    assert [sorted(pair) for pair in statuses] == [[200, 401]] * TOKENS
    assert logged(tmp_path) == TOKENS
    with running(PRODUCT, tmp_path, site) as restarted:
        for two, token, before in zip(bodies, tokens, statuses, strict=True):
            assert [post(restarted, body, token) for body in two] == before
    assert logged(tmp_path) == TOKENS


# ---- the table ------------------------------------------------------------------------------


def a_claim(
    jti: str, *, body: str = "a" * 64, issuer: str = "https://i", ends_s: int = 900
) -> Claim:
    """A claim that ends in some seconds."""
    return Claim(issuer, jti, body, datetime.now(UTC) + timedelta(seconds=ends_s))


@pytest.fixture
def log(settings: Settings) -> PredictionLog:
    """A log that is not started."""
    return PredictionLog(open_database(settings), PRIVACY)


def test_a_claim_is_one_bodys(log: PredictionLog) -> None:
    """Within one commit and over several; of another issuer it is another token."""
    with log:
        waiting = [log.claim(a_claim("t")), log.claim(a_claim("t", body="b" * 64))]
        assert waiting[0].result() is None
        for late in (waiting[1], log.claim(a_claim("t", body="c" * 64))):
            with pytest.raises(NotAuthenticated):
                late.result()
        assert log.claim(a_claim("t")).result() is None
        assert log.claim(a_claim("t", body="b" * 64, issuer="https://j")).result() is None


def test_expired_claims_are_swept_out(log: PredictionLog) -> None:
    """In passing, by one claim in 256; those still good stay."""
    with log:
        for n in range(20):
            log.claim(a_claim(f"old-{n}", ends_s=-1)).result()
        for n in range(2000):
            made = log.claim(a_claim(f"new-{n}"))
        made.result()
    with log.engine.connect() as connection:
        held = connection.execute(select(func.count()).select_from(token_claims)).scalar_one()
    assert held == 2000


def test_the_table_holds_neither_token_nor_jti(log: PredictionLog, settings: Settings) -> None:
    """Digests only: who reads the database can use and find nothing."""
    with log:
        log.claim(a_claim("a-telling-jti")).result()
    content = b"".join(path.read_bytes() for path in settings.state_dir.glob("varsel.db*"))
    assert b"a-telling-jti" not in content
    assert b"https://i" not in content
