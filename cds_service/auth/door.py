"""The door: who a request's Authorization header proves, and that its token is used once.

`admit` comes before a body is read and knows the headers only; `claim_of` binds the token to the
body. A claim rides in the commit of the prediction it allows (`PredictionLog.store`); what stores
no prediction claims alone. Whoever is not let in gets a bare 401; why stands in our log, with
issuer, tenant and jti at most, never the token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import NamedTuple

from starlette.requests import Request

from cds_service.auth.callers import Caller, Callers, JwtTrust
from cds_service.auth.keysets import KeysUnusable, PublicKey, RemoteKeys, fetch_keys
from cds_service.auth.tokens import (
    LEEWAY_S,
    Claims,
    TokenRefused,
    Unproven,
    check_agreed,
    check_claims,
    check_header,
    check_signature,
    take_apart,
    whose,
)
from cds_service.db.claims import Claim
from cds_service.db.log import PredictionLog
from cds_service.errors import NotAuthenticated, RequestRefused
from cds_service.identities.privacy import Privacy
from fhir_adapters.client.guard import Network

_LONGEST_SAID = 200
"""Characters of an unproven issuer, tenant or jti that our log repeats."""


class Admitted(NamedTuple):
    """A caller that was let in; `token` where a JWT proved it, else there is nothing to claim."""

    caller: Caller
    token: Claims | None = None


class Door:
    """Lets callers in. One per process; `url` is the service's own, without a trailing slash.

    `clock`: seconds since 1970.
    """

    def __init__(
        self,
        callers: Callers,
        *,
        url: str,
        log: PredictionLog,
        privacy: Privacy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.callers = callers
        self._url = url
        self._log = log
        self._privacy = privacy
        self._clock = clock
        self._remote: dict[tuple[str, ...], RemoteKeys] = {}

    async def admit(self, request: Request) -> Admitted:
        """The caller a request's headers prove. Raises NotAuthenticated."""
        if self.callers.open_to is not None:
            return Admitted(self.callers.open_to)
        try:
            token = bearer(request)
            caller = self.callers.with_token(token)
            if caller is not None:
                return Admitted(caller)
            return await self._admit_jwt(token, request.scope["path"])
        except TokenRefused as refused:
            raise NotAuthenticated(refused.reason) from None

    async def _admit_jwt(self, text: str, path: str) -> Admitted:
        """The caller a JWT proves, for a call of a path. Raises NotAuthenticated, TokenRefused."""
        token = take_apart(text)
        try:
            caller = await self._check(token, path)
        except TokenRefused as refused:
            raise NotAuthenticated(refused.reason, **_said(token.claims)) from None
        return Admitted(caller, token.claims)

    async def _check(self, token: Unproven[Claims], path: str) -> Caller:
        """The caller of a token; the signature last, because it and its key cost most."""
        check_header(token.header)
        caller, trust = whose(self.callers.listed, token.claims)
        kty = check_agreed(token.header, trust)
        audiences = (f"{self._url}{path}", *trust.audiences)
        check_claims(token.claims, audiences=audiences, now=self._clock())
        key = await self._key(caller, trust, token.header.kid, kty)
        if key is None:
            raise TokenRefused("key")
        check_signature(token, key)
        return caller

    async def _key(self, caller: Caller, trust: JwtTrust, kid: str, kty: str) -> PublicKey | None:
        pinned = self.callers.pinned.get(caller.name)
        if pinned is not None or trust.jku is None:
            return (pinned or {}).get((kid, kty))
        return await self._keys_at(trust.jku, trust).find(kid, kty)

    def _keys_at(self, url: str, trust: JwtTrust) -> RemoteKeys:
        kept = (trust.issuer, url, *trust.networks)
        if kept not in self._remote:
            self._remote[kept] = RemoteKeys(trust.issuer, url, networks=_networks(trust))
        return self._remote[kept]

    def claim_of(self, admitted: Admitted, body: bytes) -> Claim | None:
        """The claim of a token to a body; None for a caller that needs none."""
        token = admitted.token
        if token is None:
            return None
        ends = datetime.fromtimestamp(token.exp + LEEWAY_S, UTC)
        return Claim(token.iss, token.jti, self._privacy.digest(body), ends)

    async def claim(self, claim: Claim | None) -> None:
        """Claim a token for an answer that stores no prediction.

        Raises NotAuthenticated where it was used for another body, NotDurable.
        """
        if claim is not None:
            await asyncio.wrap_future(self._log.claim(claim))

    @asynccontextmanager
    async def claiming(self, claim: Claim | None) -> AsyncIterator[None]:
        """Claim a token also where what is done within is refused, and so is not stored."""
        try:
            yield
        except RequestRefused:
            await self.claim(claim)
            raise

    async def admit_to_read(self, request: Request) -> Caller:
        """The caller of a request without a body, its token claimed. Raises as `admit`, `claim`."""
        admitted = await self.admit(request)
        await self.claim(self.claim_of(admitted, b""))
        return admitted.caller

    async def close(self) -> None:
        """Stop fetching keys."""
        for keys in self._remote.values():
            await keys.close()


async def fetch_all_keys(callers: Callers) -> dict[str, str]:
    """By caller whose keys are fetched, what keeps them from being had; "" for nothing."""
    found = {}
    for caller in callers.listed:
        if caller.jwt is None or caller.jwt.jku is None or caller.name in callers.pinned:
            continue
        try:
            await fetch_keys(caller.jwt.jku, networks=_networks(caller.jwt))
            found[caller.name] = ""
        except KeysUnusable as fault:
            found[caller.name] = str(fault)
    return found


def _networks(trust: JwtTrust) -> list[Network]:
    return [ip_network(network) for network in trust.networks]


def bearer(request: Request) -> str:
    """The one token of the Authorization header. Raises TokenRefused."""
    given = request.headers.getlist("authorization")
    scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRefused("no bearer token")
    return token


def _said(claims: Claims) -> dict[str, str]:
    """Issuer, tenant and jti as a token says them, for our log."""
    said = {"issuer": claims.iss, "tenant": claims.tenant or "", "jti": claims.jti}
    return {name: text[:_LONGEST_SAID] for name, text in said.items()}
