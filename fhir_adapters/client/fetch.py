"""The one place FHIR requests are sent from: GET, to a registered base, at an address checked once.

No redirects, no cookies, no proxies from the environment, no compressed answers; JSON only, of
limited size. The name is looked up when a connection is opened, the answer checked, and the
connection made to that very address, while Host and TLS keep the name. `PinnedTransport` does that
and serves whoever else must fetch from a registered place. Called by `completion`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import NamedTuple

import httpcore2
import httpx2

from fhir_adapters.client.guard import Base, LookUp, Network, below, look_up, resolve
from fhir_adapters.errors import FetchFailed

MOST_CONNECTIONS = 64
"""Connections to one base at a time, over all calls."""
LONGEST_WAIT_S = 1.0
"""A server that asks for more time than this before a retry is not asked again."""
USUAL_WAIT_S = 0.05

_JSON = ("application/fhir+json", "application/json")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 2.1
_HEADERS = {"Accept": _JSON[0], "Accept-Encoding": "identity", "User-Agent": "Varsel"}
_BUSY = (429, 503)

# Both libraries write URLs and headers to these loggers: the patient's id and the token.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Access(NamedTuple):
    """Where a call may fetch: the base, the networks its address may lie in, and the token."""

    base: Base
    networks: tuple[Network, ...] = ()
    token: str | None = None


class Allowance:
    """How many bytes may still be read for one call. Shared by its requests."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> None:
        """Count bytes read. Raises FetchFailed where they are more than allowed."""
        self.left -= size
        if self.left < 0:
            raise FetchFailed("the FHIR server's answers are larger than allowed")


class FhirClient:
    """The FHIR client of a process: per base a pool of connections, kept open between calls."""

    def __init__(self, *, look_up: LookUp = look_up) -> None:
        self._look_up = look_up
        self._sessions: dict[tuple[Base, tuple[Network, ...]], httpx2.AsyncClient] = {}
        self._tls: ssl.SSLContext | None = None

    async def get(self, url: str, access: Access, allowance: Allowance) -> bytes:
        """The body of the answer to one GET, asked again once where the server was busy.

        Sets no time limit: the caller does. Raises FetchFailed with the reason in words, never
        with the URL; nothing is sent where the URL does not lie below the base.
        """
        if below(access.base, url) is None:
            raise FetchFailed("the URL leads away from the FHIR server")
        session = await self._session(access)
        try:
            return await _ask(session, url, access.token, allowance)
        except _Busy as busy:
            if busy.wait_s > LONGEST_WAIT_S:
                raise FetchFailed(str(busy)) from None
            await asyncio.sleep(busy.wait_s)
        try:
            return await _ask(session, url, access.token, allowance)
        except _Busy as busy:
            raise FetchFailed(str(busy)) from None

    async def aclose(self) -> None:
        """Close all connections."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.aclose()

    async def _session(self, access: Access) -> httpx2.AsyncClient:
        key = (access.base, access.networks)
        if access.base.scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(httpcore2.default_ssl_context)
        session = self._sessions.get(key)
        if session is None:
            transport = PinnedTransport(access.networks, tls=self._tls, look_up=self._look_up)
            session = self._sessions[key] = httpx2.AsyncClient(
                transport=transport,
                headers=_HEADERS,
                trust_env=False,
                follow_redirects=False,
                timeout=None,  # the deadline of the call holds for all of it
            )
        return session


class _Busy(Exception):
    """The request may be sent again after `wait_s` seconds."""

    def __init__(self, message: str, wait_s: float = USUAL_WAIT_S) -> None:
        super().__init__(message)
        self.wait_s = wait_s


async def _ask(
    session: httpx2.AsyncClient, url: str, token: str | None, allowance: Allowance
) -> bytes:
    headers = {}
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise FetchFailed("the access token has characters that no token has")
        headers["Authorization"] = f"Bearer {token}"
    request = session.build_request("GET", url, headers=headers)
    try:
        answer = await session.send(request, stream=True)
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        if isinstance(error.__context__, ssl.SSLError):
            raise FetchFailed("the FHIR server's certificate is not one trusted here") from None
        # nothing of an answer came: a refused connection, or a kept one the server had closed
        raise _Busy("the FHIR server could not be reached") from None
    try:
        _check_status(answer)
        _check_form(answer)
        return await _read(answer, allowance)
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        raise FetchFailed("the FHIR server's answer broke off") from None
    finally:
        await answer.aclose()


def _check_status(answer: httpx2.Response) -> None:
    status = answer.status_code
    if status in _BUSY:
        said = answer.headers.get("Retry-After", "")
        wait_s = float(said) if re.fullmatch(r"\d{1,6}", said) else USUAL_WAIT_S
        raise _Busy(f"the FHIR server answered {status}", wait_s)
    if answer.is_redirect:
        raise FetchFailed("the FHIR server redirected, which is not followed")
    if status != httpx2.codes.OK:
        raise FetchFailed(f"the FHIR server answered {status}")


def _check_form(answer: httpx2.Response) -> None:
    media_type = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if media_type not in _JSON:
        raise FetchFailed("the FHIR server did not answer with FHIR JSON")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed("the FHIR server compressed its answer, which was not asked for")


async def _read(answer: httpx2.Response, allowance: Allowance) -> bytes:
    length = answer.headers.get("Content-Length", "0")
    if length.isdecimal() and int(length) > allowance.left:
        allowance.take(int(length))
    chunks = []
    async for chunk in answer.aiter_raw():
        allowance.take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


# ---- the transport --------------------------------------------------------------------------


class PinnedTransport(httpx2.AsyncBaseTransport):
    """Connections of one set of networks, each made to the address that was checked.

    Cookies are dropped on arrival. Raises FetchFailed and httpcore2's own errors.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        tls: ssl.SSLContext | None = None,
        look_up: LookUp = look_up,
    ) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=MOST_CONNECTIONS,
            max_keepalive_connections=MOST_CONNECTIONS,
            keepalive_expiry=30,
            network_backend=_Pinned(networks, look_up),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read the head of its answer."""
        url = request.url
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        answer = await self._pool.handle_async_request(asked)
        return httpx2.Response(
            answer.status,
            headers=[(k, v) for k, v in answer.headers if k.lower() != b"set-cookie"],
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, in the form httpx2 wants it."""

    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._answer.stream
        assert isinstance(stream, AsyncIterable)  # noqa: S101 - of an asynchronous pool
        async for chunk in stream:
            yield chunk

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Opens connections to the address `resolve` allowed."""

    def __init__(self, networks: Sequence[Network], look_up: LookUp) -> None:
        self._networks = networks
        self._look_up = look_up
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of httpcore2
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the host, by its checked address."""
        address = await resolve(host, port, networks=self._networks, look_up=self._look_up)
        return await self._backend.connect_tcp(
            address,
            port,
            timeout=timeout,
            local_address=local_address,
            socket_options=socket_options,
        )
