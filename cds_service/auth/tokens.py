"""Checking one JWT of a caller or a reader: pure, the key and the time are given.

CDS Hooks 2.0.1 "Trusting CDS Clients", RFC 8725 and, of readers' access tokens, RFC 9068. Cheap
checks come first: a payload may refuse itself before its signature is checked, but only the
signature lets anybody in. The reason of a refusal is for our own log. Called by `door` and
`reader_door`.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Collection, Iterable
from functools import cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from cds_service.auth.callers import Caller, JwtTrust
from cds_service.auth.keysets import PublicKey

LARGEST_TOKEN_BYTES = 16_384
LEEWAY_S = 60.0
LONGEST_LIFE_S = 3600.0
KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC"}
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")

Reason = Literal[
    "no bearer token", "too long", "not a JWT", "typ", "embedded key",
    "critical header", "issuer", "subject or tenant", "algorithm", "jku", "key", "signature",
    "expired", "not yet valid", "lifetime", "audience",
]  # fmt: skip
"""Why somebody was not let in: a word of our log, never of an answer. A token used for another body
is refused by `cds_service/db/claims.py`."""


class TokenRefused(Exception):
    """A token that proves nothing; `reason` for our log."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Header(msgspec.Struct, frozen=True):
    """A JWT's header. Parameters that carry or fetch a key are known only to be refused."""

    alg: str
    kid: str
    typ: str = "JWT"
    jku: str | None = None
    jwk: Any = msgspec.UNSET
    x5c: Any = msgspec.UNSET
    x5u: Any = msgspec.UNSET
    crit: Any = msgspec.UNSET


class _Timed(msgspec.Struct, frozen=True, kw_only=True):
    """What every payload says: who made it, for whom, and when it holds (seconds since 1970)."""

    iss: str
    aud: str | list[str]
    exp: float
    iat: float
    nbf: float | None = None


class Claims(_Timed, frozen=True, kw_only=True):
    """The payload of a caller's JWT, as far as it is read."""

    jti: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    sub: str | None = None
    tenant: str | None = None


class AccessClaims(_Timed, frozen=True, kw_only=True):
    """The payload of a reader's access token, but for the roles; `sub` as the audit trail keeps it.

    It may be used again while it holds.
    """

    sub: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]


class Trust(Protocol):
    """What was agreed of an issuer's signatures."""

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Which of them count."""

    @property
    def jku(self) -> str | None:
        """What a header may name as the place of its key, if anything."""


C = TypeVar("C", bound=_Timed)


class Unproven(NamedTuple, Generic[C]):
    """A token taken apart, of which nothing is proven yet. `payload`: its bytes."""

    text: str
    header: Header
    claims: C
    payload: bytes


_HEADER = msgspec.json.Decoder(Header)
_CLAIMS = msgspec.json.Decoder(Claims)
_ACCESS_CLAIMS = msgspec.json.Decoder(AccessClaims)


def take_apart(token: str) -> Unproven[Claims]:
    """Header and payload of a caller's JWT; TokenRefused where it is none or is too long."""
    return _take_apart(token, _CLAIMS)


def take_access_apart(token: str) -> Unproven[AccessClaims]:
    """Header and payload of a reader's token; TokenRefused where it is none or is too long."""
    return _take_apart(token, _ACCESS_CLAIMS)


def _take_apart(token: str, decoder: msgspec.json.Decoder[C]) -> Unproven[C]:
    if len(token) > LARGEST_TOKEN_BYTES:
        raise TokenRefused("too long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise TokenRefused("not a JWT")
    try:
        header = _HEADER.decode(_decoded(parts.group(1)))
        payload = _decoded(parts.group(2))
        claims = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError):
        raise TokenRefused("not a JWT") from None
    return Unproven(token, header, claims, payload)


def _decoded(segment: str) -> bytes:
    return b64decode(segment + "=" * (-len(segment) % 4), b"-_", validate=True)


def check_header(header: Header, types: Collection[str] = ("JWT",)) -> None:
    """TokenRefused where a header brings its own key, or asks for what is not done here.

    `types`: what it may call itself, in capitals.
    """
    if header.typ.upper() not in types:
        raise TokenRefused("typ")
    if any(part is not msgspec.UNSET for part in (header.jwk, header.x5c, header.x5u)):
        raise TokenRefused("embedded key")
    if header.crit is not msgspec.UNSET:
        raise TokenRefused("critical header")


def whose(callers: Iterable[Caller], claims: Claims) -> tuple[Caller, JwtTrust]:
    """The caller a payload names, by issuer, and by subject and tenant where registered.

    TokenRefused where there is none. Only that caller's keys may prove it.
    """
    trusting = [(c, c.jwt) for c in callers if c.jwt is not None and c.jwt.issuer == claims.iss]
    if not trusting:
        raise TokenRefused("issuer")
    for caller, trust in trusting:
        same_subject = trust.subject in (None, claims.sub)
        if same_subject and trust.tenant in (None, claims.tenant):
            return caller, trust
    raise TokenRefused("subject or tenant")


def check_agreed(header: Header, trust: Trust) -> str:
    """The kind of key (`kty`) to look for; TokenRefused where algorithm or `jku` was not agreed."""
    if header.alg not in trust.algorithms:
        raise TokenRefused("algorithm")
    if header.jku is not None and header.jku != trust.jku:
        raise TokenRefused("jku")
    return KEY_TYPES[header.alg[:2]]


def check_signature(token: Unproven[C], key: PublicKey) -> None:
    """TokenRefused where the key did not sign the token, or is meant for another algorithm."""
    try:
        key.check_alg(token.header.alg)
        jws.deserialize_compact(token.text, key, registry=_registry(token.header.alg))
    except (JoseError, ValueError):
        raise TokenRefused("signature") from None


@cache
def _registry(algorithm: str) -> jws.JWSRegistry:
    """Of one algorithm, which the caller's table named: none but those can be written there."""
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = LARGEST_TOKEN_BYTES
    registry.max_signature_length = LARGEST_TOKEN_BYTES
    return registry


def check_claims(
    claims: _Timed,
    *,
    audiences: Collection[str],
    now: float,
    longest_life_s: float = LONGEST_LIFE_S,
) -> None:
    """TokenRefused where a token is not of this time (a minute's leeway) or not for this URL."""
    if claims.exp <= now - LEEWAY_S:
        raise TokenRefused("expired")
    if max(claims.iat, claims.nbf or claims.iat) > now + LEEWAY_S:
        raise TokenRefused("not yet valid")
    if claims.exp - claims.iat > longest_life_s:
        raise TokenRefused("lifetime")
    if not any(audience in audiences for audience in meant_for(claims)):
        raise TokenRefused("audience")


def meant_for(claims: _Timed) -> list[str]:
    """The audiences a token names."""
    return [claims.aud] if isinstance(claims.aud, str) else claims.aud
