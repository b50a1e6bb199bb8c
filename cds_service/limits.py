"""How much a caller may send and ask at once, and how patiently it is listened to.

`read_body` reads a body within its limits of type, size, time and rate; `Turns` lets callers in at
their pace and as many at once as one process answers well. Each limit is a setting and each refusal
names the limit. How deep a body nests is bounded by the decoder itself (about 1,000 levels), and
how many resources it holds by `fhir_adapters/decode.py`, which counts them before reading them.
Called by the routes that read a body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request

from cds_service.errors import (
    BadRequest,
    TooBusy,
    TooLarge,
    TooManyCalls,
    TooSlow,
    WrongMediaType,
)
from cds_service.settings import Settings

JSON_TYPES = ("application/json", "application/fhir+json")
PATIENCE_S = 2.0
"""A body may begin as slowly as it likes for so long; then its rate counts."""


# ---- bodies ---------------------------------------------------------------------------------


async def read_body(
    request: Request, settings: Settings, *, most_bytes: int | None = None
) -> bytes:
    """The JSON body of a request, not yet decoded.

    `most_bytes`: where a route reads less than the site's limit. Raises WrongMediaType, TooLarge or
    TooSlow as soon as it is known to be one of these, BadRequest where it ends early or holds a
    longer text than is read.
    """
    most = min(most_bytes or settings.max_body_bytes, settings.max_body_bytes)
    _check_headers(request, most)
    body = await _arrived(request, settings, most)
    check_texts(body, settings.max_string_bytes)
    return body


def _check_headers(request: Request, most_bytes: int) -> None:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise WrongMediaType("the body must be application/json", field="Content-Type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongMediaType("the body must not be compressed", field="Content-Encoding")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most_bytes:
        raise _too_large(most_bytes)


async def _arrived(request: Request, settings: Settings, most_bytes: int) -> bytes:
    """All bytes of a body, within its time and at its rate."""
    clock = asyncio.get_running_loop().time
    began, size = clock(), 0
    last = began + settings.body_seconds
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout_at(min(last, began + PATIENCE_S)) as patience:
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                if chunk:  # the last one is empty
                    lasts = began + PATIENCE_S + size / settings.body_bytes_per_second
                    patience.reschedule(min(last, lasts))
    except ClientDisconnect:
        raise BadRequest("the body ended early", field="$") from None
    except TimeoutError:
        raise TooSlow(_too_slow(clock() >= last, settings), field="$") from None
    return b"".join(chunks)


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {most_bytes} bytes", field="$")


def _too_slow(out_of_time: bool, settings: Settings) -> str:
    if out_of_time:
        return f"the body did not arrive within {settings.body_seconds:g} s"
    return f"the body arrived slower than {settings.body_bytes_per_second} bytes a second"


def check_texts(body: bytes, longest: int) -> None:
    """Raise BadRequest where a text in a JSON body is longer than `longest` bytes.

    A longer text covers a whole half of that length, counted from the start of the body, without a
    quotation mark; so a few marks are looked for, not every text measured. Marks behind a backslash
    count as part of the text: one that ends in a backslash seems to end with the next one.
    """
    half = max(1, longest // 2)
    for start in range(0, len(body) - half + 1, half):
        if not _has_mark(body, start, start + half) and _is_longer(body, start, longest):
            said = f"a text, or a stretch without one, is longer than {longest} bytes"
            raise BadRequest(said, field="$")


def _is_longer(body: bytes, place: int, longest: int) -> bool:
    """Whether more bytes than that lie between the quotation marks around a place.

    Looks no further to either side than the answer needs.
    """
    before = _last_mark(body, max(0, place - longest - 2), place)
    ends_in_time = _has_mark(body, place, before + longest + 2)
    return not ends_in_time and len(body) - before - 1 > longest


def _has_mark(body: bytes, start: int, end: int) -> bool:
    """Whether a quotation mark that no backslash stands before lies in a part of a body.

    Mostly the first one is such a mark. Else they are counted: of all ways to pass over a million
    escaped ones it is the cheapest.
    """
    first = body.find(b'"', start, end)
    if first < 1 or body[first - 1] != ord("\\"):
        return first >= 0
    return body.count(b'"', first, end) > body.count(b'\\"', first - 1, end)


def _last_mark(body: bytes, start: int, end: int) -> int:
    """Where the last such mark of a part is; `start` - 1 where there is none. Found by halving."""
    if not _has_mark(body, start, end):
        return start - 1
    while end - start > 1:
        middle = (start + end) // 2
        if _has_mark(body, middle, end):
            start = middle
        else:
            end = middle
    return start


# ---- turns ----------------------------------------------------------------------------------


class Turn:
    """One call's turn. Given back at the end, or when the work it was handed to has ended."""

    def __init__(self) -> None:
        self.work: asyncio.Future[Any] | None = None

    def lasts_until(self, work: asyncio.Future[Any]) -> None:
        """Keep the turn until this work has ended, however the call itself ends."""
        self.work = work


class Turns:
    """Who may be answered now, in one process: so many calls at once, so many a minute of each."""

    def __init__(self, settings: Settings, *, at_once: int | None = None) -> None:
        """`at_once`: where it is not the site's limit."""
        self._at_once = min(at_once or settings.max_calls, settings.max_calls)
        self._free = asyncio.Semaphore(self._at_once)
        self._wait_s = settings.wait_seconds
        self._a_minute = settings.calls_per_minute
        self._left: dict[str, tuple[float, float]] = {}

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[Turn]:
        """A turn for a caller, awaited a little. Raises TooManyCalls, or TooBusy after the wait."""
        self._count(caller, time.monotonic())
        await self._wait()
        turn = Turn()
        try:
            yield turn
        finally:
            if turn.work is None:
                self._free.release()
            else:
                turn.work.add_done_callback(lambda _: self._free.release())

    def _count(self, caller: str, now: float) -> None:
        """Take one of the caller's calls of this minute; they come back evenly over a minute.

        `caller`: of the allow-list, so there are only so many of them.
        """
        left, then = self._left.get(caller, (float(self._a_minute), now))
        left = min(self._a_minute, left + (now - then) * self._a_minute / 60)
        if left < 1:
            raise TooManyCalls(f"more than {self._a_minute} calls a minute")
        self._left[caller] = (left - 1, now)

    async def _wait(self) -> None:
        if not self._free.locked():
            await self._free.acquire()  # does not wait
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            said = f"{self._at_once} calls are being answered, and none ended in {self._wait_s:g} s"
            raise TooBusy(said) from None
