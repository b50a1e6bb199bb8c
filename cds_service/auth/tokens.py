"""Checking one JWT of a caller: pure, the key and the time are given.

CDS Hooks 2.0.1 "Trusting CDS Clients" and RFC 8725. Cheap checks come first: a payload may refuse
itself before its signature is checked, but only the signature lets anybody in. The reason of a
refusal is for our own log. Called by `door`.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Collection, Iterable
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

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


class Claims(msgspec.Struct, frozen=True):
    """A JWT's payload, as far as it is read; times in seconds since 1970."""

    iss: str
    aud: str | list[str]
    exp: float
    iat: float
    jti: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    nbf: float | None = None
    sub: str | None = None
    tenant: str | None = None


class Unproven(NamedTuple):
    """A token taken apart, of which nothing is proven yet."""

    text: str
    header: Header
    claims: Claims


_HEADER = msgspec.json.Decoder(Header)
_CLAIMS = msgspec.json.Decoder(Claims)


def take_apart(token: str) -> Unproven:
    """Header and payload of a JWT; TokenRefused where it is none or is too long."""
    if len(token) > LARGEST_TOKEN_BYTES:
        raise TokenRefused("too long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise TokenRefused("not a JWT")
    try:
        header = _HEADER.decode(_decoded(parts.group(1)))
        claims = _CLAIMS.decode(_decoded(parts.group(2)))
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError):
        raise TokenRefused("not a JWT") from None
    return Unproven(token, header, claims)


def _decoded(segment: str) -> bytes:
    return b64decode(segment + "=" * (-len(segment) % 4), b"-_", validate=True)


def check_header(header: Header) -> None:
    """TokenRefused where a header brings its own key, or asks for what is not done here."""
    if header.typ.upper() != "JWT":
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


def check_agreed(header: Header, trust: JwtTrust) -> str:
    """The kind of key (`kty`) to look for; TokenRefused where algorithm or `jku` was not agreed."""
    if header.alg not in trust.algorithms:
        raise TokenRefused("algorithm")
    if header.jku is not None and header.jku != trust.jku:
        raise TokenRefused("jku")
    return KEY_TYPES[header.alg[:2]]


def check_signature(token: Unproven, key: PublicKey) -> None:
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


def check_claims(claims: Claims, *, audiences: Collection[str], now: float) -> None:
    """TokenRefused where a token is not of this time (a minute's leeway) or not for this URL."""
    if claims.exp <= now - LEEWAY_S:
        raise TokenRefused("expired")
    if max(claims.iat, claims.nbf or claims.iat) > now + LEEWAY_S:
        raise TokenRefused("not yet valid")
    if claims.exp - claims.iat > LONGEST_LIFE_S:
        raise TokenRefused("lifetime")
    meant = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if not any(audience in audiences for audience in meant):
        raise TokenRefused("audience")
