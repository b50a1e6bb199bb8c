"""Where a request may go: the registered base exactly, and addresses of the caller's networks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.client.guard import LookUp, below, is_allowed, parse_base, resolve, same_base
from fhir_adapters.errors import AddressRefused, FetchFailed

REGISTERED = "https://ehr.example.dk/api/FHIR/R4"

SAME = [
    "HTTPS://EHR.example.dk/api/FHIR/R4",
    "https://ehr.example.dk/api/FHIR/R4/",
    "https://ehr.example.dk:443/api/FHIR/R4",
]
OTHER = [
    "http://ehr.example.dk/api/FHIR/R4",
    "http://ehr.example.dk:443/api/FHIR/R4",
    "https://ehr.example.dk.evil.example/api/FHIR/R4",
    "https://ehr.example.dk:8443/api/FHIR/R4",
    "https://ehr.example.dk/api/FHIR/R4/Patient",
    "https://ehr.example.dk/api/FHIR",
    "https://ehr.example.dk/api/fhir/r4",
    "https://ehr.example.dk/api/FHIR/R4//",
    "https://ehr.example.dk/api//FHIR/R4",
    "https://ehr.example.dk/api/FHIR/x/../R4",
    "https://ehr.example.dk/api/FHIR/./R4",
    "https://ehr.example.dk/api/FHIR/%52%34",
    "https://ehr.example.dk/api/FHIR%2fR4",
    "https://ehr.example.dk/api/FHIR/R4?",
    "https://ehr.example.dk/api/FHIR/R4?x=1",
    "https://ehr.example.dk/api/FHIR/R4#x",
    "https://user@ehr.example.dk/api/FHIR/R4",
    "https://ehr.example.dk@evil.example/api/FHIR/R4",
    "https://evil.example\\@ehr.example.dk/api/FHIR/R4",
    "https://ehr.example.dk\\api/FHIR/R4",
    "https://ehr.example.dk./api/FHIR/R4",
    "https://ehr.example.dk:x/api/FHIR/R4",
    "https://ehr.example.dk:99999/api/FHIR/R4",
    "https://\u0435hr.example.dk/api/FHIR/R4",
    "https://ehr.example.dk/api/FHIR/R4\n",
    "https://ehr.example.dk/api/FHIR/\tR4",
    "https://[::1/api",
    "//ehr.example.dk/api/FHIR/R4",
    "file:///api/FHIR/R4",
    "",
]


@pytest.mark.parametrize("url", SAME)
def test_a_base_is_recognised_in_its_harmless_spellings(url: str) -> None:
    """Case of scheme and host, a trailing slash and the default port do not matter."""
    assert same_base(url, REGISTERED)


@pytest.mark.parametrize("url", OTHER)
def test_anything_else_is_another_base(url: str) -> None:
    """Origin and path must be the registered ones exactly, without tricks of writing."""
    assert not same_base(url, REGISTERED)


BELOW = {
    "https://ehr.example.dk/api/FHIR/R4?_getpages=1": None,
    "https://ehr.example.dk:443/api/FHIR/R4/Observation?page=2": None,
    "https://ehr.example.dk/api/FHIR/R4/Observation?next=https://evil.example/%2e%2e": None,
    "Observation?page=2": "https://ehr.example.dk/api/FHIR/R4/Observation?page=2",
    "/api/FHIR/R4/Observation?page=2": "https://ehr.example.dk/api/FHIR/R4/Observation?page=2",
    "?page=2": "https://ehr.example.dk/api/FHIR/R4/?page=2",
}
ELSEWHERE = [
    "https://evil.example/api/FHIR/R4/Observation",
    "//evil.example/api/FHIR/R4/Observation",
    "http://ehr.example.dk/api/FHIR/R4/Observation",
    "https://ehr.example.dk:8443/api/FHIR/R4/Observation",
    "https://ehr.example.dk/api/FHIR/R4x/Observation",
    "https://ehr.example.dk/admin",
    "https://ehr.example.dk/api/FHIR/R4/../../admin",
    "https://ehr.example.dk/api/FHIR/R4/%2e%2e/%2E%2E/admin",
    "https://ehr.example.dk/api/FHIR/R4/..%2fadmin",
    "https://ehr.example.dk/api/FHIR/R4/..%5cadmin",
    "https://ehr.example.dk/api/FHIR/R4/%252e%252e/admin",
    "https://ehr.example.dk/api/FHIR/R4/..;/admin",
    "../../../admin",
    "/admin",
    "https://u:p@ehr.example.dk/api/FHIR/R4/Observation",
    "https://ehr.example.dk/api/FHIR/R4/Observation#x",
    "https://ehr.example.dk/api/FHIR/R4/Obs ervation",
    "javascript:alert(1)",
    "https://ehr.example.dk/api/FHIR/R4/" + "x" * 9000,
    "",
]


@pytest.mark.parametrize("link", sorted(BELOW))
def test_a_link_below_the_base_may_be_followed(link: str) -> None:
    """Absolute or relative; its query may be whatever the server likes."""
    base = parse_base(REGISTERED)
    assert base is not None
    assert below(base, link) == (BELOW[link] or link)


@pytest.mark.parametrize("link", ELSEWHERE)
def test_a_link_that_leads_elsewhere_may_not(link: str) -> None:
    """Another origin, or a path that leaves the base, however it is written."""
    base = parse_base(REGISTERED)
    assert base is not None
    assert below(base, link) is None


@given(st.text(max_size=60))
def test_whatever_follows_a_link_stays_on_the_server(text: str) -> None:
    """No text makes a link that leads off the registered origin and path."""
    base = parse_base(REGISTERED)
    assert base is not None
    for link in (text, f"https://ehr.example.dk{text}", f"{REGISTERED}/{text}"):
        found = below(base, link)
        assert found is None or found.lower().startswith(
            ("https://ehr.example.dk/api/fhir/r4", "https://ehr.example.dk:443/api/fhir/r4")
        )


# ---- addresses ------------------------------------------------------------------------------

PUBLIC = ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"]
PRIVATE = ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:10.1.2.3"]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
NEVER = [
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "0.1.2.3",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::ffff:169.254.169.254",
    "::10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
    "fec0::1",
]
EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
ALL_PRIVATE = tuple(
    ip_network(n)
    for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8")
)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    """TLS proves the rest."""
    assert is_allowed(ip_address(text), ())


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_address_is_allowed_where_its_network_is_listed(text: str) -> None:
    """A system on the hospital's own network, and no other one there."""
    assert is_allowed(ip_address(text), ALL_PRIVATE)
    assert not is_allowed(ip_address("9.9.9.9"), ALL_PRIVATE)  # listed: there, and nowhere else
    assert not is_allowed(ip_address(text), ())
    assert not is_allowed(ip_address(text), (ip_network("10.200.0.0/16"),))


@pytest.mark.parametrize("text", LOOPBACK)
def test_loopback_is_allowed_only_where_loopback_itself_is_listed(text: str) -> None:
    """A network that happens to hold it, such as everything, is not enough."""
    assert is_allowed(ip_address(text), (ip_network("127.0.0.0/8"), ip_network("::1/128")))
    assert not is_allowed(ip_address(text), EVERYTHING)
    assert not is_allowed(ip_address(text), ())


@pytest.mark.parametrize("text", NEVER)
def test_some_addresses_are_refused_whatever_is_listed(text: str) -> None:
    """Link-local with the clouds' metadata service, multicast, reserved, IPv4 in disguise."""
    assert not is_allowed(ip_address(text), EVERYTHING)


def answering(*addresses: str) -> LookUp:
    """A resolver that gives these addresses."""

    async def look_up(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return look_up


def test_a_name_is_resolved_to_the_first_of_its_addresses() -> None:
    """An IPv4 address inside IPv6 comes out plain."""
    found = resolve("ehr", 443, networks=(), look_up=answering("::ffff:93.184.216.34", "8.8.8.8"))
    assert asyncio.run(found) == "93.184.216.34"


@pytest.mark.parametrize(
    "addresses", [("10.0.0.1",), ("93.184.216.34", "10.0.0.1"), ("169.254.169.254",)]
)
def test_a_name_with_one_refused_address_is_refused(addresses: tuple[str, ...]) -> None:
    """A name that leads to a good and a bad address is a trap."""
    with pytest.raises(AddressRefused):
        asyncio.run(resolve("ehr", 443, networks=(), look_up=answering(*addresses)))


@pytest.mark.parametrize("addresses", [(), ("no address",)])
def test_a_name_without_addresses_is_unknown(addresses: tuple[str, ...]) -> None:
    """Said as such; nothing is connected to."""
    with pytest.raises(FetchFailed, match="not known"):
        asyncio.run(resolve("ehr", 443, networks=(), look_up=answering(*addresses)))
