"""Issuers' public keys: a JWKS read from bytes, and one kept fresh from its address.

A key without `kid`, of another kind or too short is left out, as RFC 7517 5 advises; a set that
holds a private key is refused whole, since whoever reads it can sign. Fetched over a pinned address
that the caller's networks allow, with limits on time and size, without redirects. Used by `callers`
(keys in files), `door` and `reader_door`; the only place outside `fhir_adapters` that fetches
anything.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx2
import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from cds_service.auth.addresses import key_address_fault
from fhir_adapters.client.guard import Network, resolve
from fhir_adapters.errors import AddressRefused, FetchFailed

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.auth")

LONGEST_FETCH_S = 3.0
LARGEST_SET_BYTES = 256_000
MOST_KEYS = 100
SMALLEST_RSA_BITS, LARGEST_RSA_BITS = 2048, 8192
"""NIST SP 800-131A rev. 2; above, a check costs milliseconds."""
SHORTEST_LIFE_S, USUAL_LIFE_S, LONGEST_LIFE_S = 300.0, 3600.0, 86_400.0
"""How long a fetched set is fresh: what its max-age says, within bounds; usual where it is silent.
"""
LONGEST_USE_S = 3 * 86_400.0
"""How long a set serves after its last fetch while its address fails: a weekend. Then its keys no
longer count, for one of them may have been withdrawn."""
BETWEEN_LOOKS_S = 60.0
"""Between two fetches made because a token named a key that is not in the set, and between two made
because the set is no longer fresh."""
BETWEEN_TRIES_S = 10.0
"""Between two fetches after one that failed, where there are no keys yet."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])", re.IGNORECASE)

PublicKey = RSAKey | ECKey
Keys = Mapping[tuple[str, str], PublicKey]
"""Public keys by `kid` and `kty`."""


class KeysUnusable(Exception):
    """A set that cannot be had or trusted; the message says why, without what it holds."""


class _Jwk(msgspec.Struct, frozen=True):
    """The members of a public key that are read (RFC 7517 4, RFC 7518 6)."""

    kty: str
    kid: str
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str | None = None
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


class _Set(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class _Configuration(msgspec.Struct, frozen=True):
    """What is read of an OpenID issuer's configuration."""

    issuer: str
    jwks_uri: str


def parse_keys(raw: bytes) -> Keys:
    """The keys of a JWKS that can check signatures, by `kid` and `kty`.

    Raises KeysUnusable where it is no JWKS, holds a private key, or holds none that can be used.
    """
    try:
        entries = msgspec.json.decode(raw, type=_Set).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeysUnusable("not a JWKS") from None
    if any(_PRIVATE & entry.keys() for entry in entries):
        raise KeysUnusable("holds a private key")
    if len(entries) > MOST_KEYS:
        raise KeysUnusable(f"more than {MOST_KEYS} keys")
    keys = dict(_public_keys(entries))
    if not keys:
        raise KeysUnusable("no key with a kid that can check signatures")
    return keys


def _public_keys(entries: Iterable[dict[str, Any]]) -> Iterable[tuple[tuple[str, str], PublicKey]]:
    for entry in entries:
        try:
            jwk = msgspec.convert(entry, _Jwk)
            key = _public_key(jwk)
        except (msgspec.ValidationError, JoseError, ValueError, binascii.Error):
            continue
        if key is not None:
            yield (jwk.kid, jwk.kty), key


def _public_key(jwk: _Jwk) -> PublicKey | None:
    """The key; None for one of another kind, use or strength."""
    if jwk.use != "sig" or "verify" not in jwk.key_ops or not jwk.kid:
        return None
    said = {"kid": jwk.kid, **({"alg": jwk.alg} if jwk.alg else {})}
    if jwk.kty == "RSA" and SMALLEST_RSA_BITS <= _bits(jwk.n) <= LARGEST_RSA_BITS:
        if _bits(jwk.e) > 64:  # OpenSSL refuses such at every use
            return None
        return RSAKey.import_key({"kty": "RSA", "n": jwk.n, "e": jwk.e, **said})
    if jwk.kty == "EC" and jwk.crv in ("P-256", "P-384", "P-521"):
        return ECKey.import_key({"kty": "EC", "crv": jwk.crv, "x": jwk.x, "y": jwk.y, **said})
    return None


def _bits(text: str) -> int:
    padded = text.encode() + b"=" * (-len(text) % 4)
    return int.from_bytes(base64.b64decode(padded, b"-_", validate=True), "big").bit_length()


# ---- fetching -------------------------------------------------------------------------------


class Fetched(NamedTuple):
    """A fetched set, and for how many seconds it is fresh."""

    keys: Keys
    fresh_s: float


async def fetch_keys(url: str, *, networks: Sequence[Network]) -> Fetched:
    """The JWKS behind an address that is public or lies in one of `networks`.

    Raises KeysUnusable: nobody there, too slow, too large, a redirect, not a JWKS.
    """
    return await _in_time(_fetch_set(url, networks))


async def discover_keys(issuer: str, *, networks: Sequence[Network]) -> Fetched:
    """The JWKS an OpenID issuer names in its configuration (OpenID Connect Discovery 1.0, 4).

    Both addresses are guarded alike. Raises KeysUnusable as `fetch_keys`, and where the
    configuration is of another issuer.
    """
    return await _in_time(_discover(issuer, networks))


async def _discover(issuer: str, networks: Sequence[Network]) -> Fetched:
    where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    raw, _ = await _fetch(where, networks)
    try:
        found = msgspec.json.decode(raw, type=_Configuration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeysUnusable("not an OpenID configuration") from None
    if found.issuer != issuer:
        raise KeysUnusable("the configuration is of another issuer")
    fault = key_address_fault(found.jwks_uri)
    if fault:
        raise KeysUnusable(f"jwks_uri: {fault}")
    return await _fetch_set(found.jwks_uri, networks)


async def _fetch_set(url: str, networks: Sequence[Network]) -> Fetched:
    raw, headers = await _fetch(url, networks)
    return Fetched(parse_keys(raw), _fresh_s(headers))


async def _in_time(fetched: Awaitable[Fetched]) -> Fetched:
    try:
        async with asyncio.timeout(LONGEST_FETCH_S):
            return await fetched
    except TimeoutError:
        raise KeysUnusable(f"no answer within {LONGEST_FETCH_S:g} s") from None
    except AddressRefused:
        raise KeysUnusable("its address lies in no network of the caller's") from None
    except (FetchFailed, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise KeysUnusable(f"not reached ({type(error).__name__})") from None


async def _fetch(url: str, networks: Sequence[Network]) -> tuple[bytes, Mapping[str, str]]:
    """Connects to the address that was checked; host name and certificate stay those of the URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = await resolve(host, port, networks=networks)
    pinned = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    async with (
        httpx2.AsyncClient(trust_env=False, follow_redirects=False) as client,
        client.stream(
            "GET",
            urlunsplit((parts.scheme, pinned, parts.path, parts.query, "")),
            headers={
                "Host": parts.netloc,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            extensions={"sni_hostname": host},
        ) as answer,
    ):
        if answer.status_code != 200:
            raise KeysUnusable(f"answered {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise KeysUnusable("compressed")
        return await _body(answer), answer.headers


async def _body(answer: httpx2.Response) -> bytes:
    read = bytearray()
    async for chunk in answer.aiter_raw():
        read += chunk
        if len(read) > LARGEST_SET_BYTES:
            raise KeysUnusable(f"larger than {LARGEST_SET_BYTES} bytes")
    return bytes(read)


def _fresh_s(headers: Mapping[str, str]) -> float:
    said = _MAX_AGE.search(headers.get("cache-control", ""))
    seconds = float(said.group(1)) if said else USUAL_LIFE_S
    return min(max(seconds, SHORTEST_LIFE_S), LONGEST_LIFE_S)


# ---- keeping --------------------------------------------------------------------------------


class Fetch(Protocol):
    """A way to fetch a set: from its own address, or found through its issuer's."""

    def __call__(self, url: str, /, *, networks: Sequence[Network]) -> Awaitable[Fetched]:
        """The set. Raises KeysUnusable."""


class RemoteKeys:
    """The keys of one issuer, kept from its address; one of them per issuer, address and networks.

    A key that is known answers at once, also while its set is fetched anew; only an unknown one
    waits. All who wait share one fetch. `clock`: monotonic seconds.
    """

    def __init__(
        self,
        issuer: str,
        url: str,
        *,
        networks: Sequence[Network],
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._how = fetch or fetch_keys
        self._issuer = issuer
        self._url = url
        self._networks = networks
        self._clock = clock
        self._keys: Keys = {}
        self._fetched_at = self._tried_at = self._sought_at = float("-inf")
        self._fresh_s = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def find(self, kid: str, kty: str) -> PublicKey | None:
        """The issuer's key of that `kid` and `kty`; None where it has none, or none can be had."""
        key = self._held().get((kid, kty))
        if key is not None:
            if self._clock() - self._fetched_at > self._fresh_s:
                self._renew()
            return key
        if self._looking is None and not self._may_seek():
            return None
        await asyncio.shield(self._look())
        return self._held().get((kid, kty))

    async def close(self) -> None:
        """Stop a fetch under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _held(self) -> Keys:
        return self._keys if self._clock() - self._fetched_at <= LONGEST_USE_S else {}

    def _renew(self) -> None:
        """Fetch the set anew beside the calls, not more often than once a minute."""
        if self._clock() - self._tried_at > BETWEEN_LOOKS_S:
            self._look()

    def _may_seek(self) -> bool:
        """Whether an unknown key may cause a fetch now; if so, it did."""
        if not self._held():
            return self._clock() - self._tried_at > BETWEEN_TRIES_S
        allowed = self._clock() - self._sought_at > BETWEEN_LOOKS_S
        if allowed:
            self._sought_at = self._clock()
        return allowed

    def _look(self) -> asyncio.Task[None]:
        if self._looking is None:
            self._tried_at = self._clock()
            self._looking = asyncio.get_running_loop().create_task(self._fetch())
        return self._looking

    async def _fetch(self) -> None:
        try:
            self._keys, self._fresh_s = await self._how(self._url, networks=self._networks)
            self._fetched_at = self._clock()
        except KeysUnusable as error:
            events.log(logging.ERROR, "keys not had", issuer=self._issuer, why=str(error))
        finally:
            self._looking = None
