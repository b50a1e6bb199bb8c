"""Issuers' keys: which of a set are taken, and how a set behind an address is kept.

A real server on loopback, and a clock that the tests move.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from cds_service.auth import keysets
from cds_service.auth.keysets import Fetched, KeysUnusable, RemoteKeys, fetch_keys, parse_keys
from tests.issuers import KeyServer, jwks, key_of, key_server

LOOPBACK = [ip_network("127.0.0.0/8")]
EC_1, RSA_1 = key_of("ec-1"), key_of("rsa-1")


def as_set(*entries: Any) -> bytes:
    """A JWKS of some entries."""
    return json.dumps({"keys": entries}).encode()


def public(key: RSAKey | ECKey, **changes: Any) -> dict[str, Any]:
    """A public key's entry, changed; `...` leaves a member out."""
    said = {**key.as_dict(private=False), **changes}
    return {name: value for name, value in said.items() if value is not ...}


# ---- reading a set --------------------------------------------------------------------------


def test_keys_are_known_by_kid_and_kind() -> None:
    """One kid may stand for a key of each kind, as while a site changes algorithm."""
    both = as_set(public(EC_1, kid="k"), public(RSA_1, kid="k"))
    assert set(parse_keys(both)) == {("k", "EC"), ("k", "RSA")}


@pytest.mark.parametrize(
    "entry",
    [
        public(EC_1, kid=...),
        public(EC_1, kid=""),
        public(EC_1, kid=5),
        public(EC_1, use="enc"),
        public(EC_1, key_ops=["encrypt"]),
        public(EC_1, crv="P-192"),
        public(EC_1, x="AA"),
        public(EC_1, x="§"),
        public(EC_1, y=...),
        public(RSA_1, n="AQAB"),
        public(RSA_1, n="_" * 2000),
        public(RSA_1, e="_" * 20),
        public(RSA_1, e=...),
        public(RSA_1, kty="OKP"),
        {"kid": "x"},
        {},
    ],
)
def test_a_key_that_cannot_check_signatures_is_left_out(entry: dict[str, Any]) -> None:
    """RFC 7517 5; alone in its set it makes the set unusable."""
    assert set(parse_keys(as_set(entry, public(EC_1)))) == {("ec-1", "EC")}
    with pytest.raises(KeysUnusable, match="no key with a kid"):
        parse_keys(as_set(entry))


@pytest.mark.parametrize("key", [EC_1, RSA_1, OctKey.generate_key(256, {"kid": "o"})])
def test_a_set_with_a_private_key_is_refused_whole(key: Any) -> None:
    """Whoever fetched it before us can sign as the issuer."""
    with pytest.raises(KeysUnusable, match="private key"):
        parse_keys(as_set(public(key_of("ec-2")), key.as_dict(private=True)))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b'{"keys": {}}', b'{"keys": [5]}', b"\xff", b"<html>", b'{"keys":' * 9999],
)
def test_what_is_no_jwks_is_refused(raw: bytes) -> None:
    """In words, not with an error of the parser."""
    with pytest.raises(KeysUnusable, match="not a JWKS"):
        parse_keys(raw)


def test_a_set_of_very_many_keys_is_refused() -> None:
    """Each costs time to read."""
    with pytest.raises(KeysUnusable, match="more than 100"):
        parse_keys(as_set(*[{"kid": "x"}] * 101))


# ---- fetching -------------------------------------------------------------------------------


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    """An issuer's server with one key."""
    with key_server(EC_1) as server:
        yield server


def fetched(url: str, networks: Any = LOOPBACK) -> Fetched:
    """The set behind an address."""
    return asyncio.run(fetch_keys(url, networks=networks))


@pytest.mark.parametrize(
    ("said", "fresh_s"),
    [
        ({}, 3600),
        ({"Cache-Control": "public, max-age=7200"}, 7200),
        ({"Cache-Control": "max-age=5"}, 300),
        ({"Cache-Control": "MAX-AGE=99999999"}, 86_400),
        ({"Cache-Control": "no-store"}, 3600),
        ({"Cache-Control": "s-max-age=9000"}, 3600),
    ],
)
def test_a_set_is_fresh_for_what_it_says_within_bounds(
    keys: KeyServer, said: dict[str, str], fresh_s: float
) -> None:
    """From five minutes to a day; an hour where it says nothing."""
    keys.headers = said
    assert fetched(keys.url).fresh_s == fresh_s


def test_the_host_keeps_its_name_though_the_address_is_pinned(keys: KeyServer) -> None:
    """A server of several names knows which one was meant."""
    fetched(keys.url.replace("127.0.0.1", "localhost") + "?appid=1")
    assert keys.hosts == [keys.url.split("/")[2].replace("127.0.0.1", "localhost")]


def test_an_address_in_no_network_of_the_callers_is_not_asked(keys: KeyServer) -> None:
    """Loopback and private addresses only where listed."""
    for networks in ([], [ip_network("10.0.0.0/8")]):
        with pytest.raises(KeysUnusable, match="in no network"):
            fetched(keys.url, networks)
    assert keys.asked == 0


def test_a_redirect_is_not_followed(keys: KeyServer) -> None:
    """It could lead where nobody looked."""
    with key_server(EC_1) as elsewhere:
        keys.status, keys.headers = 302, {"Location": elsewhere.url}
        with pytest.raises(KeysUnusable, match="answered 302"):
            fetched(keys.url)
        assert elsewhere.asked == 0


def test_a_set_without_end_is_not_read_to_its_end(keys: KeyServer) -> None:
    """256 kB hold more keys than any issuer has."""
    keys.body = b" " * 3_000_000
    with pytest.raises(KeysUnusable, match="larger than 256000"):
        fetched(keys.url)


def test_a_slow_server_is_not_waited_for(keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds in all, here a tenth."""
    monkeypatch.setattr(keysets, "LONGEST_FETCH_S", 0.1)
    keys.delay_s = 1.0
    with pytest.raises(KeysUnusable, match="no answer within"):
        fetched(keys.url)


def test_compressed_keys_and_nobody_there_are_refused(keys: KeyServer) -> None:
    """A small body may be a large one; a closed port is said in words."""
    keys.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(KeysUnusable, match="compressed"):
        fetched(keys.url)
    with pytest.raises(KeysUnusable, match="not reached"):
        fetched("http://127.0.0.1:9/keys")


# ---- keeping --------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Story = Callable[[RemoteKeys, Clock], Awaitable[None]]


def told(keys: KeyServer, story: Story) -> None:
    """Run a story of one issuer's keys."""

    async def run() -> None:
        clock = Clock()
        remote = RemoteKeys("https://i.example", keys.url, networks=LOOPBACK, clock=clock)
        await story(remote, clock)
        await remote.close()

    asyncio.run(run())


async def settle(keys: KeyServer, asked: int) -> None:
    """Wait until the server was asked so often and its answer taken."""
    for _ in range(200):
        await asyncio.sleep(0.01)
        if keys.asked >= asked:
            await asyncio.sleep(0.05)
            return
    raise AssertionError(f"asked {keys.asked} times, not {asked}")


def test_a_set_is_fetched_once_while_it_is_fresh(keys: KeyServer) -> None:
    """Also when many ask at the same moment."""

    async def story(remote: RemoteKeys, clock: Clock) -> None:
        found = await asyncio.gather(*(remote.find("ec-1", "EC") for _ in range(20)))
        assert None not in found
        clock.now += 3000
        assert await remote.find("ec-1", "EC") is not None

    told(keys, story)
    assert keys.asked == 1


def test_a_stale_set_is_fetched_anew_beside_the_call(keys: KeyServer) -> None:
    """The call does not wait; a key that was withdrawn is gone after it."""

    async def story(remote: RemoteKeys, clock: Clock) -> None:
        assert await remote.find("ec-1", "EC") is not None
        clock.now += 3601
        keys.keys = jwks(key_of("ec-2"))
        assert await remote.find("ec-1", "EC") is not None
        await settle(keys, 2)
        assert await remote.find("ec-2", "EC") is not None
        assert await remote.find("ec-1", "EC") is None

    told(keys, story)


def test_known_keys_serve_for_three_days_without_their_server(keys: KeyServer) -> None:
    """It is asked once a minute meanwhile; then the keys no longer count."""

    async def story(remote: RemoteKeys, clock: Clock) -> None:
        assert await remote.find("ec-1", "EC") is not None
        keys.status = 500
        clock.now += 86_400
        for _ in range(5):
            assert await remote.find("ec-1", "EC") is not None
        await settle(keys, 2)
        assert keys.asked == 2
        clock.now += 61
        assert await remote.find("ec-1", "EC") is not None
        await settle(keys, 3)
        clock.now += 2 * 86_400
        assert await remote.find("ec-1", "EC") is None

    told(keys, story)


def test_an_unknown_key_is_sought_once_a_minute(keys: KeyServer) -> None:
    """However many are made up."""

    async def story(remote: RemoteKeys, clock: Clock) -> None:
        assert await remote.find("ec-1", "EC") is not None
        for kid in ("a", "b", "c"):
            assert await remote.find(kid, "EC") is None
        assert keys.asked == 2
        clock.now += 61
        assert await remote.find("d", "EC") is None
        assert keys.asked == 3

    told(keys, story)


def test_a_first_fetch_that_failed_is_tried_again_after_ten_seconds(keys: KeyServer) -> None:
    """An issuer that starts after us is found soon, and not flooded."""

    async def story(remote: RemoteKeys, clock: Clock) -> None:
        keys.status = 503
        assert await remote.find("ec-1", "EC") is None
        assert await remote.find("ec-1", "EC") is None
        assert keys.asked == 1
        keys.status = 200
        clock.now += 11
        assert await remote.find("ec-1", "EC") is not None

    told(keys, story)


def test_a_fetch_under_way_is_stopped_at_the_end(keys: KeyServer) -> None:
    """The process does not wait for an issuer to shut down."""

    async def story(remote: RemoteKeys, _: Clock) -> None:
        keys.delay_s = 1.0
        asking = asyncio.create_task(remote.find("ec-1", "EC"))
        await asyncio.sleep(0.05)
        await remote.close()
        with pytest.raises(asyncio.CancelledError):
            await asking

    told(keys, story)
