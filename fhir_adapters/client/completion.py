"""Completing a prefetch: what it lacks is asked of the FHIR server, and only that.

A key is lacking where nothing stands under it, where the sender's own query failed, or where part
of an answer was sent. `null` and Epic's "no results" are answers. All keys are asked at once within
one deadline; pages are followed to their end, or the answer says that it is partial. What could not
be had becomes a `Fetched` with its reason, never an exception. Called by `cds_service/gather.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from fhir_adapters.client.fetch import Access, Allowance, FhirClient
from fhir_adapters.client.guard import Base, below
from fhir_adapters.client.searches import Page, filled, one_bundle, page_of
from fhir_adapters.decode import (
    NOT_ASKED_FOR,
    ONE_PAGE,
    ONE_RESOURCE,
    WITH_OUTCOME,
    Fetched,
    Gathered,
    QueryAnswer,
)
from fhir_adapters.errors import FetchFailed

_TO_COMPLETE = (ONE_PAGE, WITH_OUTCOME, NOT_ASKED_FOR, ONE_RESOURCE)
Get = Callable[[str], Awaitable[bytes]]
"""From a URL below the base to the body of the answer, within the limits of the call."""


class Limits(NamedTuple):
    """What one call may take from a FHIR server.

    `size`: bytes over all answers; `pages` and `entries` are of one query, `at_once` requests.
    """

    timeout_s: float
    size: int = 25_000_000
    pages: int = 20
    entries: int = 20_000
    at_once: int = 8


class Lacking(NamedTuple):
    """What is lacking under one key: its template, and the page of it that was sent, if one."""

    template: str
    sent: bytes | memoryview | None = None


def lacking(gathered: Gathered, keys: Iterable[str]) -> list[str]:
    """The keys whose queries the prefetch did not answer, or not to the end."""
    return [key for key in keys if _is_lacking(gathered.answer(key))]


def _is_lacking(answer: QueryAnswer) -> bool:
    if answer.state == "partial":
        return answer.reason in _TO_COMPLETE
    return answer.state != "complete"


async def fetch_lacking(
    wanted: Mapping[str, Lacking],
    tokens: Mapping[str, str],
    *,
    client: FhirClient,
    access: Access,
    limits: Limits,
) -> dict[str, Fetched]:
    """What the FHIR server answers to the queries that are lacking, by prefetch key.

    `tokens`: the values of the templates' tokens. A key that was sent in part and cannot be
    completed is left out, so that what was sent stands.
    """
    get = _limited(client, access, limits)
    async with asyncio.TaskGroup() as group:
        asked = {
            key: group.create_task(_fetch(get, one, tokens, base=access.base, limits=limits))
            for key, one in wanted.items()
        }
    found = {key: task.result() for key, task in asked.items()}
    return {key: answer for key, answer in found.items() if answer is not None}


def _limited(client: FhirClient, access: Access, limits: Limits) -> Get:
    """A `get` whose requests share one deadline, one allowance and a number of places."""
    allowance = Allowance(limits.size)
    places = asyncio.Semaphore(limits.at_once)
    deadline = asyncio.get_running_loop().time() + limits.timeout_s

    async def get(url: str) -> bytes:
        try:
            async with asyncio.timeout_at(deadline), places:
                return await client.get(url, access, allowance)
        except TimeoutError:
            raise FetchFailed("the FHIR server did not answer in time") from None

    return get


async def _fetch(
    get: Get, wanted: Lacking, tokens: Mapping[str, str], *, base: Base, limits: Limits
) -> Fetched | None:
    """One query's answer; None where it was sent in part and no more of it can be had."""
    sent = page_of(wanted.sent) if wanted.sent is not None else None
    try:
        if sent is not None and sent.next is not None:
            return await _to_the_end(get, [sent], base=base, limits=limits)
        raw = await get(filled(wanted.template, tokens, base))
    except FetchFailed as failure:
        return None if wanted.sent is not None else Fetched(None, reason=str(failure))
    first = page_of(raw)
    if first is None:
        return None if wanted.sent is not None else Fetched(raw)
    return await _to_the_end(get, [first], base=base, limits=limits)


async def _to_the_end(get: Get, pages: list[Page], *, base: Base, limits: Limits) -> Fetched:
    """All pages from the first on, as one Bundle; partial, with why, where the end is not reached.

    A last page is known for the last where the server counts its hits or has shown that it pages.
    """
    reason = None
    followed: set[str] = set()
    while pages[-1].has_next:
        try:
            url = _next_url(pages[-1].next, followed, pages, base=base, limits=limits)
            pages.append(_must_be_page(await get(url)))
        except FetchFailed as failure:
            reason = str(failure)
            break
        followed.add(url)
    to_the_end = reason is None and (len(pages) > 1 or pages[0].total is not None)
    return Fetched(one_bundle(pages, more=reason is not None), to_the_end, reason)


def _next_url(
    link: str | None, followed: set[str], pages: list[Page], *, base: Base, limits: Limits
) -> str:
    """Where the next page is. Raises FetchFailed where it may not, or need not, be asked for."""
    if link is None:
        raise FetchFailed("the link to the next page has no address")
    url = below(base, link)
    if url is None:
        raise FetchFailed("the link to the next page leads away from the FHIR server")
    if url in followed:
        raise FetchFailed("the pages go round in a circle")
    if len(pages) >= limits.pages:
        raise FetchFailed(f"there are more than {limits.pages} pages")
    if sum(len(page.entry or ()) for page in pages) >= limits.entries:
        raise FetchFailed(f"there are more than {limits.entries} entries")
    return url


def _must_be_page(raw: bytes) -> Page:
    page = page_of(raw)
    if page is None:
        raise FetchFailed("a page of the answer is not a Bundle")
    return page
