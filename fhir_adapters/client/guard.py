"""Where a request may go: the registered base exactly, and an address the caller's networks allow.

Pure checks of URLs and addresses, and `resolve`, the one look-up of names. Sending is `fetch`'s.
Called by `fetch`, `searches` and `completion`, and by the edge for the fetch of callers' keys.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from fhir_adapters.errors import AddressRefused, FetchFailed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to all its addresses, best first; OSError where there are none."""

LONGEST_URL = 8_000
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_PRINTABLE = re.compile(r"[!-~]+")
_NEVER: tuple[Network, ...] = (
    ip_network("0.0.0.0/8"),  # "this network", RFC 1122 3.2.1.3
    ip_network("64:ff9b::/96"),  # RFC 6052: an IPv4 address in disguise
    ip_network("64:ff9b:1::/48"),  # RFC 8215: the same
    ip_network("2001::/32"),  # RFC 4380: the same
    ip_network("2002::/16"),  # RFC 3056: the same
    ip_network("fec0::/10"),  # RFC 3879: site-local, given up
)


class Base(NamedTuple):
    """A FHIR base URL taken apart: lower-case origin with its port, path without its last slash."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The base as text, without a trailing slash, its default port left out."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"


def parse_base(url: str) -> Base | None:
    """The base a URL means; None where it is none, or is written to look like another.

    Userinfo, query, fragment, backslashes, percent signs, empty and dot segments are refused: of
    two ways to read a URL, nobody knows which one another program takes.
    """
    parts = _split(url)
    if parts is None or parts.query or parts.fragment or set(url) & set("?#%\\"):
        return None
    path = parts.path.removesuffix("/")
    if any(segment in ("", ".", "..") for segment in path.split("/")[1:]):
        return None
    return _base_of(parts, path)


def same_base(one: str, other: str) -> bool:
    """Whether two URLs are one FHIR base: same origin, same path, a trailing slash apart."""
    parsed = parse_base(one)
    return parsed is not None and parsed == parse_base(other)


def below(base: Base, link: str) -> str | None:
    """The absolute URL of a link, which may be relative to the base; None where it leads elsewhere.

    Elsewhere is another scheme, host or port, or a path that is not the base's or below it. The
    query may be anything: servers put what they like into their `next` links.
    """
    if len(link) > LONGEST_URL or not _PRINTABLE.fullmatch(link):
        return None
    try:
        url = urljoin(f"{base.url}/", link)
    except ValueError:
        return None
    parts = _split(url)
    if parts is None or parts.fragment or _is_tricky(parts.path):
        return None
    found = _base_of(parts, parts.path)
    if found is None or found[:3] != base[:3]:
        return None
    inside = found.path in (base.path, f"{base.path}/") or found.path.startswith(f"{base.path}/")
    return url if inside else None


def _split(url: str) -> SplitResult | None:
    if len(url) > LONGEST_URL or not _PRINTABLE.fullmatch(url):
        return None
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _base_of(parts: SplitResult, path: str) -> Base | None:
    scheme, netloc = parts.scheme.lower(), parts.netloc.lower()
    try:
        port = parts.port
    except ValueError:
        return None
    host = netloc.rpartition(":")[0] if re.search(r":\d*$", netloc) else netloc
    if scheme not in _PORTS or not _HOST.fullmatch(host):
        return None
    return Base(scheme, host, _PORTS[scheme] if port is None else port, path)


def _is_tricky(path: str) -> bool:
    """Whether a path has dot segments, or hides separators or dots behind percent signs."""
    hidden = re.search(r"%(2e|2f|5c|25|00)|\\|;", path, re.IGNORECASE)
    return bool(hidden) or any(segment in (".", "..") for segment in path.split("/"))


# ---- addresses ------------------------------------------------------------------------------


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Whether a request may go to an address.

    To one in a listed network, be it public or private; where none is listed, to any public one.
    To loopback only where a network that is itself loopback holds it. To link-local ones (with them
    the metadata service of clouds), multicast, unspecified and reserved ones never, nor to those
    that carry an IPv4 address inside.
    """
    address = _unwrapped(address)
    listed = [network for network in networks if address in network]
    if address.is_loopback:
        return any(network.is_loopback for network in listed)
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_reserved or any(address in network for network in _NEVER):
        return False
    return bool(listed) if networks else address.is_global


def _unwrapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


async def look_up(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, as the system's resolver orders them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def resolve(
    host: str, port: int, *, networks: Sequence[Network], look_up: LookUp = look_up
) -> str:
    """The address to connect to: looked up once, so that it cannot change after the check.

    Raises AddressRefused where one of the host's addresses is not allowed, be it the only one or
    not; FetchFailed where the host has none.
    """
    try:
        found = [ip_address(text) for text in await look_up(host.strip("[]"), port)]
    except (OSError, ValueError, UnicodeError):
        raise FetchFailed("the name of the FHIR server is not known") from None
    if not found:
        raise FetchFailed("the name of the FHIR server is not known")
    if not all(is_allowed(address, networks) for address in found):
        raise AddressRefused("the FHIR server's address is not in the caller's networks")
    return str(_unwrapped(found[0]))
