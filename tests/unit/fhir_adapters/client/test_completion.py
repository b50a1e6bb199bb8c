"""Fetching what a prefetch lacks, from servers that behave and from servers that do not.

The servers are tiny ones on loopback; names are resolved by the test, so that they lead anywhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from fhir_adapters.client.completion import Lacking, Limits, fetch_lacking, lacking
from fhir_adapters.client.fetch import Access, FhirClient
from fhir_adapters.client.guard import LookUp, look_up, parse_base
from fhir_adapters.decode import ExpectedQuery, Fetched, decode_prefetch
from tests.servers.tiny import Answer, Asked, Tiny, bundle, response, serving

LOOPBACK = (ip_network("127.0.0.0/8"),)
TOKEN = "opaque-token-123"  # noqa: S105 - of these tests
PATIENT = "patient-4711"
SEARCH = "Condition?patient={{context.patientId}}&_count=2"
EXPECTED = {"conditions": ExpectedQuery("Condition", page_size=2, is_search=True)}
LIMITS = Limits(timeout_s=5)
UNREACHED = "the FHIR server could not be reached"


async def fetch(
    base: str,
    *,
    limits: Limits = LIMITS,
    sent: dict[str, Any] | None = None,
    networks: Any = LOOPBACK,
    resolver: LookUp = look_up,
    template: str = SEARCH,
    token: str | None = TOKEN,
) -> Fetched | None:
    """What one query gets from the server at a base."""
    parsed = parse_base(base)
    assert parsed is not None
    client = FhirClient(look_up=resolver)
    raw = None if sent is None else json.dumps(sent).encode()
    try:
        found = await fetch_lacking(
            {"conditions": Lacking(template, raw)},
            {"context.patientId": PATIENT},
            client=client,
            access=Access(parsed, networks, token),
            limits=limits,
        )
    finally:
        await client.aclose()
    return found.get("conditions")


def from_server(answer: Answer, **asked: Any) -> tuple[Fetched | None, Tiny]:
    """What one query gets from a server that answers so, and what the server was asked."""

    async def run() -> tuple[Fetched | None, Tiny]:
        async with serving(answer) as server:
            return await fetch(server.base, **asked), server

    return asyncio.run(run())


def says(raw: bytes) -> Answer:
    """A server that always answers the same."""

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return answer


def paging(*pages: Sequence[str], last_link: str | None = None) -> Answer:
    """A server with pages of these ids, linked by `page=`; `last_link` hangs on the last one."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        number = int(asked.target.rpartition("page=")[2]) if "page=" in asked.target else 0
        link = f"Condition?page={number + 1}" if number + 1 < len(pages) else last_link
        writer.write(response(bundle(*pages[number], next_url=link)))

    return answer


def ids(fetched: Fetched | None) -> list[str]:
    """The ids of the conditions fetched."""
    assert fetched is not None
    assert fetched.value is not None
    return [r.id for r in decode_prefetch({}, EXPECTED, {"conditions": fetched}).of("Condition")]


def state(fetched: Fetched | None) -> tuple[str, str | None]:
    """How the fetched answer counts, and why."""
    assert fetched is not None
    answer = decode_prefetch({}, EXPECTED, {"conditions": fetched}).answer("conditions")
    return answer.state, answer.reason


# ---- what is lacking ------------------------------------------------------------------------

OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "x"}]}
NO_RESULTS = {
    "resourceType": "Bundle",
    "total": 0,
    "entry": [
        {
            "resource": {
                "resourceType": "OperationOutcome",
                "issue": [{"details": {"coding": [{"code": "4101"}]}}],
            },
            "search": {"mode": "outcome"},
        }
    ],
}
SENT: Mapping[str, tuple[Any, bool]] = {
    "a failed query": (OUTCOME, True),
    "a full page": (bundle("a", "b"), True),
    "a page with a next link": (bundle("a", next_url="x"), True),
    "an entry of another type": (
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Group"}}]},
        True,
    ),
    "an entry with a status alone": (
        {"resourceType": "Bundle", "entry": [{"response": {"status": "403"}}]},
        True,
    ),
    "one resource": ({"resourceType": "Condition", "id": "a"}, True),
    "a total larger than the page": (bundle("a", total=2), True),
    "a whole answer": (bundle("a"), False),
    "an empty Bundle": (bundle(), False),
    "null": (None, False),
    "no results, in Epic's words": (NO_RESULTS, False),
}


@pytest.mark.parametrize("kind", sorted(SENT))
def test_r15_only_what_is_lacking_is_asked_for(kind: str) -> None:
    """`null` and Epic's 4101 are answers; failures and pages of more are not."""
    value, is_lacking = SENT[kind]
    prefetch = {"conditions": msgspec.Raw(json.dumps(value).encode())}
    assert lacking(decode_prefetch(prefetch, EXPECTED), EXPECTED) == ["conditions"] * is_lacking
    assert lacking(decode_prefetch({}, EXPECTED), EXPECTED) == ["conditions"]


# ---- servers that behave --------------------------------------------------------------------


def test_a_search_is_asked_as_the_template_says_with_the_token() -> None:
    """FHIR JSON, uncompressed, the token as bearer; no cookie, no body."""
    fetched, server = from_server(says(response(bundle("a"))))
    (asked,) = server.asked
    assert asked.target == f"/fhir/Condition?patient={PATIENT}&_count=2"
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["accept"] == "application/fhir+json"
    assert asked.headers["accept-encoding"] == "identity"
    assert ids(fetched) == ["a"]
    assert state(fetched) == ("complete", None)


def test_r14_pages_are_followed_to_their_end() -> None:
    """All pages count as one answer, complete however full the last one is."""
    fetched, server = from_server(paging(["a", "b"], ["c", "d"], ["e", "f"]))
    assert ids(fetched) == ["a", "b", "c", "d", "e", "f"]
    assert state(fetched) == ("complete", None)
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {TOKEN}"}


def test_r14_a_page_that_was_sent_is_continued_not_repeated() -> None:
    """Of a prefetch with a next link only the rest is asked for."""
    sent = bundle("a", "b", next_url="Condition?page=1")
    fetched, server = from_server(paging(["never"], ["c"]), sent=sent)
    assert ids(fetched) == ["a", "b", "c"]
    assert [asked.target for asked in server.asked] == ["/fhir/Condition?page=1"]


def test_a_full_page_without_a_next_link_may_be_cut_short() -> None:
    """A server that neither pages nor counts is not believed to have given everything."""
    full = bundle("a", "b")
    assert state(from_server(says(response(full)))[0]) == ("partial", "one page of more")
    assert state(from_server(says(response({**full, "total": 2})))[0]) == ("complete", None)
    assert state(from_server(says(response({**full, "total": 3})))[0])[0] == "partial"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_once_more(status: int) -> None:
    """After the time it asks for, if that is short; then it is believed."""
    tries: list[int] = []

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        tries.append(1)
        busy = response({}, status=status, more="Retry-After: 0\r\n")
        writer.write(busy if len(tries) < 2 else response(bundle("a")))

    assert ids(from_server(answer)[0]) == ["a"]
    always = says(response({}, status=status))
    fetched, server = from_server(always)
    assert state(fetched) == ("failed", f"the FHIR server answered {status}")
    assert len(server.asked) == 2
    patient = says(response({}, status=status, more="Retry-After: 60\r\n"))
    assert len(from_server(patient)[1].asked) == 1


def test_connections_are_kept_and_a_dead_one_is_replaced() -> None:
    """One connection for many requests; where the server closed it meanwhile, another."""
    writers: set[asyncio.StreamWriter] = set()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        if asked.target.endswith("page=2") and len(writers) == 1:
            writer.transport.abort()
        else:
            await paging(["a"], ["b"], ["c"])(asked, writer)

    assert ids(from_server(answer)[0]) == ["a", "b", "c"]
    assert len(writers) == 2


def test_queries_are_asked_at_once_but_not_all() -> None:
    """Eight requests of a call at a time, however many keys are lacking."""
    now, most = 0, 0

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        writer.write(response(bundle()))

    async def run() -> dict[str, Fetched]:
        async with serving(answer) as server:
            base, client = parse_base(server.base), FhirClient()
            assert base is not None
            wanted = {str(n): Lacking(f"Condition?n={n}") for n in range(20)}
            access = Access(base, LOOPBACK)
            found = await fetch_lacking(wanted, {}, client=client, access=access, limits=LIMITS)
            await client.aclose()
            return found

    assert len(asyncio.run(run())) == 20
    assert most == 8


# ---- servers that do not --------------------------------------------------------------------


def test_a_redirect_is_not_followed_and_the_token_stays() -> None:
    """Not to another host, and not to the same one either."""

    async def run() -> tuple[Fetched | None, Tiny]:
        async with serving(says(response(bundle("stolen")))) as thief:
            more = f"Location: {thief.base}/Condition\r\nSet-Cookie: a=b\r\n"
            async with serving(says(response({}, status=302, more=more))) as server:
                return await fetch(server.base), thief

    fetched, thief = asyncio.run(run())
    assert state(fetched) == ("failed", "the FHIR server redirected, which is not followed")
    assert thief.asked == []


def test_a_next_link_to_another_origin_is_not_followed() -> None:
    """What came before it stands, as a part."""

    async def run() -> tuple[Fetched | None, Tiny]:
        async with serving(says(response(bundle("stolen")))) as thief:
            link = f"{thief.base}/Condition"
            async with serving(paging(["a"], last_link=link)) as server:
                return await fetch(server.base), thief

    fetched, thief = asyncio.run(run())
    assert ids(fetched) == ["a"]
    reason = "one page of more; the link to the next page leads away from the FHIR server"
    assert state(fetched) == ("partial", reason)
    assert thief.asked == []


@pytest.mark.parametrize("link", ["/admin", "../admin", "%2e%2e/admin", "//127.0.0.1/fhir/x"])
def test_a_next_link_out_of_the_base_is_not_followed(link: str) -> None:
    """The rest of the server is not FHIR's."""
    fetched, server = from_server(paging(["a"], last_link=link))
    assert state(fetched)[0] == "partial"
    assert len(server.asked) == 1


@pytest.mark.parametrize("more", [{}, {"url": None}, {"url": ""}])
def test_a_next_link_without_an_address_is_not_the_end(more: dict[str, Any]) -> None:
    """The server says that there is more, and not where."""
    page = {**bundle("a", total=1), "link": [{"relation": "next", **more}]}
    reason = "one page of more; the link to the next page has no address"
    assert state(from_server(says(response(page)))[0]) == ("partial", reason)


@pytest.mark.parametrize("body", [OUTCOME, None])
def test_one_resource_that_was_sent_stands_where_the_rest_fails(body: Any) -> None:
    """As a page does."""
    answer = says(response(OUTCOME, status=200 if body else 500))
    fetched, server = from_server(answer, sent={"resourceType": "Condition", "id": "a"})
    assert fetched is None
    assert server.asked


def test_endless_pages_end() -> None:
    """At the number of pages, of entries, or where the links go round in a circle."""

    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        number = len(asked.target)
        writer.write(response(bundle(f"c{number}", next_url=f"Condition?{'x' * number}")))

    fetched, server = from_server(endless, limits=LIMITS._replace(pages=4))
    assert (len(server.asked), len(ids(fetched))) == (4, 4)
    assert state(fetched) == ("partial", "one page of more; there are more than 4 pages")
    fetched, server = from_server(endless, limits=LIMITS._replace(entries=3))
    assert state(fetched) == ("partial", "one page of more; there are more than 3 entries")
    fetched, server = from_server(paging(["a"], ["b"], last_link="Condition?page=1"))
    assert state(fetched) == ("partial", "one page of more; the pages go round in a circle")
    assert len(server.asked) == 2


@pytest.mark.parametrize("says_length", [True, False])
def test_an_answer_of_a_gigabyte_is_given_up_at_the_limit(*, says_length: bool) -> None:
    """Announced or not, no more than allowed is read."""
    written: list[int] = []

    async def flood(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        length = f"Content-Length: {10**9}" if says_length else "Connection: close"
        writer.write(
            f"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode()
        )
        for _ in range(1000):
            writer.write(b" " * 1_000_000)
            written.append(1)
            await writer.drain()

    fetched, _ = from_server(flood, limits=LIMITS._replace(size=3_000_000))
    assert state(fetched) == ("failed", "the FHIR server's answers are larger than allowed")
    assert len(written) < 50


def test_a_slow_drip_is_given_up_at_the_deadline() -> None:
    """Time is counted for all of a call, however often a byte comes."""

    async def drip(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(response(bundle("a"))[:100])
        for _ in range(200):
            await asyncio.sleep(0.02)
            writer.write(b" ")
            await writer.drain()

    async def timed() -> tuple[Fetched | None, float]:
        async with serving(drip) as server:
            began = asyncio.get_running_loop().time()
            fetched = await fetch(server.base, limits=LIMITS._replace(timeout_s=0.3))
            return fetched, asyncio.get_running_loop().time() - began

    fetched, took_s = asyncio.run(timed())
    assert state(fetched) == ("failed", "the FHIR server did not answer in time")
    assert took_s < 1


HALF_AN_ANSWER = (
    b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"no chunk\r\n"
)
HTML = b"<html>please log in</html>"
WRONG: Mapping[str, tuple[bytes, str]] = {
    "a login page": (
        response(HTML, kind="text/html"),
        "the FHIR server did not answer with FHIR JSON",
    ),
    "XML": (
        response(b"<Bundle/>", kind="application/fhir+xml"),
        "the FHIR server did not answer with FHIR JSON",
    ),
    "compressed": (
        response(b"\x1f\x8b", more="Content-Encoding: gzip\r\n"),
        "the FHIR server compressed its answer, which was not asked for",
    ),
    "not found": (response(OUTCOME, status=404), "the FHIR server answered 404"),
    "forbidden": (response(OUTCOME, status=403), "the FHIR server answered 403"),
    "its fault": (response(HTML, status=500), "the FHIR server answered 500"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", UNREACHED),
    "half an answer": (
        HALF_AN_ANSWER,
        "the FHIR server's answer broke off",
    ),
}


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_any_other_answer_is_a_failure_that_says_which(kind: str) -> None:
    """In plain words, without what the server wrote."""
    raw, reason = WRONG[kind]
    assert state(from_server(says(raw))[0]) == ("failed", reason)


@pytest.mark.parametrize("body", [OUTCOME, b"no JSON", b"[1]", b'{"resourceType": "Group"}'])
def test_a_200_that_holds_no_answer_is_not_taken_for_one(body: Any) -> None:
    """Read as a prefetch of the same content would be: failed."""
    assert state(from_server(says(response(body)))[0])[0] == "failed"


def test_a_server_that_is_not_there_is_a_failure() -> None:
    """Asked once more, because a connection may be refused for a moment."""
    assert state(asyncio.run(fetch("http://127.0.0.1:9"))) == ("failed", UNREACHED)


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "127.0.0.1", "::1"])
def test_a_name_that_leads_to_a_refused_address_is_not_connected_to(address: str) -> None:
    """The registered name is right, but where it leads is not registered: nothing is sent."""

    async def rebound(_host: str, _port: int) -> Sequence[str]:
        return [address]

    async def run() -> tuple[Fetched | None, Tiny]:
        async with serving(says(response(bundle("secret")))) as server:
            base = f"http://ehr.example:{server.port}/fhir"
            networks = (ip_network("192.168.0.0/16"),)
            return await fetch(base, networks=networks, resolver=rebound), server

    fetched, server = asyncio.run(run())
    reason = "the FHIR server's address is not in the caller's networks"
    assert state(fetched) == ("failed", reason)
    assert server.asked == []


def test_the_name_is_resolved_once_and_the_connection_goes_there() -> None:
    """What it leads to later does not matter; Host stays the registered name."""
    looked: list[str] = []

    async def turncoat(host: str, _port: int) -> Sequence[str]:
        looked.append(host)
        return ["127.0.0.1"] if len(looked) == 1 else ["169.254.169.254"]

    async def run() -> tuple[Fetched | None, Tiny]:
        async with serving(paging(["a"], ["b"])) as server:
            base = f"http://ehr.example:{server.port}/fhir"
            return await fetch(base, resolver=turncoat), server

    fetched, server = asyncio.run(run())
    assert ids(fetched) == ["a", "b"]
    assert looked == ["ehr.example"]
    assert {asked.headers["host"] for asked in server.asked} == {f"ehr.example:{server.port}"}


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token goes to the registered server, not to whom a variable names."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ids(from_server(says(response(bundle("a"))))[0]) == ["a"]


def test_a_cookie_is_not_kept() -> None:
    """No server recognises one call by another."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        link = None if "page" in asked.target else "Condition?page=1"
        page = bundle("a", next_url=link)
        writer.write(response(page, more="Set-Cookie: session=1; Path=/\r\n"))

    _, server = from_server(answer)
    assert len(server.asked) == 2
    assert not any("cookie" in asked.headers for asked in server.asked)


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "æ", ""])
def test_a_token_that_is_none_is_not_sent(token: str) -> None:
    """It could carry a header of its own."""
    fetched, server = from_server(says(response(bundle())), token=token)
    assert state(fetched) == ("failed", "the access token has characters that no token has")
    assert server.asked == []


def test_what_was_sent_in_part_stands_where_the_rest_fails() -> None:
    """A page is worth more than no answer."""
    fetched, _ = from_server(says(response({}, status=500)), sent=bundle("a", "b"))
    assert fetched is None
    sent = bundle("a", "b", next_url="Condition?page=1")
    fetched, _ = from_server(says(response({}, status=500)), sent=sent)
    assert state(fetched) == ("partial", "one page of more; the FHIR server answered 500")
    assert ids(fetched) == ["a", "b"]


def test_no_log_holds_the_token_or_the_patient(caplog: pytest.LogCaptureFixture) -> None:
    """The HTTP libraries would write URLs and headers; they are kept from it."""
    with caplog.at_level(logging.DEBUG):
        from_server(paging(["a"], ["b"]))
    assert TOKEN not in caplog.text
    assert PATIENT not in caplog.text


# ---- templates ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("Encounter/{{context.encounterId}}", "context.encounterId is not in the request"),
        ("Observation?date=ge{{today()}}", "today() is not in the request"),
    ],
)
def test_a_template_that_cannot_be_filled_is_not_asked(template: str, reason: str) -> None:
    """The request does not hold what the query is about."""
    fetched, server = from_server(says(response(bundle())), template=template)
    assert state(fetched) == ("failed", reason)
    assert server.asked == []
