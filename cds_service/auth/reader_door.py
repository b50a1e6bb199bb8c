"""The door of the governance API: whom a token proves, of which organisation, in which roles.

OpenID Connect bearer tokens (RFC 6750) as RFC 9068 profiles them; they may be used again while they
hold. Whoever is not let in gets the same bare 401 as everywhere; why stands in our log. Called by
the routes under `/api`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any

import msgspec
from starlette.requests import Request

from cds_service.auth.door import bearer
from cds_service.auth.keysets import (
    Fetch,
    Keys,
    KeysUnusable,
    PublicKey,
    RemoteKeys,
    discover_keys,
    fetch_keys,
)
from cds_service.auth.readers import Issuer, Reader, Readers
from cds_service.auth.roles import Role
from cds_service.auth.tokens import (
    AccessClaims,
    TokenRefused,
    Unproven,
    check_agreed,
    check_claims,
    check_header,
    check_signature,
    meant_for,
    take_access_apart,
)
from cds_service.errors import NotAuthenticated
from fhir_adapters.client.guard import Network

TYPES = ("JWT", "AT+JWT", "APPLICATION/AT+JWT")
"""What an access token calls itself (RFC 9068 2.1); older issuers say JWT."""
LONGEST_LIFE_S = 7200.0
"""Of an access token: a person who left must not read for a day."""
_LONGEST_SAID = 200


class ReaderDoor:
    """Lets readers in. One per process. `clock`: seconds since 1970."""

    def __init__(self, readers: Readers, *, clock: Callable[[], float] = time.time) -> None:
        self._readers = readers
        self._clock = clock
        self._remote: dict[tuple[str, ...], RemoteKeys] = {}

    async def admit(self, request: Request) -> Reader:
        """The reader a request's headers prove. Raises NotAuthenticated."""
        if self._readers.open_to is not None:
            return self._readers.open_to
        known: dict[str, str] = {}
        try:
            token = take_access_apart(bearer(request))
            known["issuer"] = token.claims.iss[:_LONGEST_SAID]
            return await self._check(token)
        except TokenRefused as refused:
            raise NotAuthenticated(refused.reason, **known) from None

    async def _check(self, token: Unproven[AccessClaims]) -> Reader:
        """The reader of a token; the signature last, because it and its key cost most."""
        check_header(token.header, TYPES)
        issuer = whose(self._readers.issuers, token.claims)
        kty = check_agreed(token.header, issuer)
        check_claims(
            token.claims,
            audiences=[issuer.audience],
            now=self._clock(),
            longest_life_s=LONGEST_LIFE_S,
        )
        key = await self._key(issuer, token.header.kid, kty)
        if key is None:
            raise TokenRefused("key")
        check_signature(token, key)
        roles = roles_in(msgspec.json.decode(token.payload), issuer)
        return Reader(issuer.organisation, token.claims.sub, issuer.issuer, roles)

    async def _key(self, issuer: Issuer, kid: str, kty: str) -> PublicKey | None:
        pinned: Keys | None = self._readers.pinned.get(issuer.name)
        if pinned is not None:
            return pinned.get((kid, kty))
        fetch, url = _source(issuer)
        kept = (issuer.issuer, url, *issuer.networks)
        if kept not in self._remote:
            networks = _networks(issuer)
            self._remote[kept] = RemoteKeys(issuer.issuer, url, networks=networks, fetch=fetch)
        return await self._remote[kept].find(kid, kty)

    async def close(self) -> None:
        """Stop fetching keys."""
        for keys in self._remote.values():
            await keys.close()


def whose(issuers: Iterable[Issuer], claims: AccessClaims) -> Issuer:
    """The one table a token's issuer and audience name; TokenRefused where there is none, or where
    it is meant for several and so would be of two organisations.
    """
    trusted = [issuer for issuer in issuers if issuer.issuer == claims.iss]
    if not trusted:
        raise TokenRefused("issuer")
    meant = [issuer for issuer in trusted if issuer.audience in meant_for(claims)]
    if len(meant) != 1:
        raise TokenRefused("audience")
    return meant[0]


def roles_in(payload: Any, issuer: Issuer) -> frozenset[Role]:
    """Our roles that a token's payload says, none where it says nothing we know.

    The claim is a list of names, or names parted by spaces; a claim whose own name has dots in it
    is found before the dots are taken to part members.
    """
    found = payload.get(issuer.roles_claim) if isinstance(payload, dict) else None
    if found is None:
        found = payload
        for member in issuer.roles_claim.split("."):
            found = found.get(member) if isinstance(found, dict) else None
    names = found.split() if isinstance(found, str) else found
    if not isinstance(names, list):
        return frozenset()
    return frozenset(issuer.roles[n] for n in names if isinstance(n, str) and n in issuer.roles)


async def fetch_reader_keys(readers: Readers) -> dict[str, str]:
    """By issuer whose keys are fetched, what keeps them from being had; "" for nothing."""
    said = {}
    for issuer in readers.issuers:
        if issuer.jwks_file is not None:
            continue
        fetch, url = _source(issuer)
        try:
            await fetch(url, networks=_networks(issuer))
            said[issuer.name] = ""
        except KeysUnusable as fault:
            said[issuer.name] = str(fault)
    return said


def _source(issuer: Issuer) -> tuple[Fetch, str]:
    """How an issuer's keys are fetched, and from which address."""
    if issuer.jku is not None:
        return fetch_keys, issuer.jku
    return discover_keys, issuer.issuer


def _networks(issuer: Issuer) -> list[Network]:
    return [ip_network(network) for network in issuer.networks]
