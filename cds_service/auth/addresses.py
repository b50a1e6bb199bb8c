"""Addresses as the files of callers and readers write them: which networks, which URLs of keys.

Pure; each function says in words what is wrong, "" for nothing, and the file's reader adds where it
stood. Used by `callers`, `readers` and `keysets`. What is done at the moment of a call, when names
become addresses, is `fhir_adapters/client/guard.py`.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128", "::ffff:127.0.0.0/104")))


def network_fault(network: str) -> str:
    """What keeps a text from being a network; "" for nothing."""
    try:
        ip_network(network)
    except ValueError as error:
        return str(error)
    return ""


def holds_loopback(network: str) -> bool:
    """Whether one of a network's addresses is this machine, IPv4 written as IPv6 among them."""
    found = ip_network(network)
    return any(found.version == own.version and found.overlaps(own) for own in _LOOPBACK)


def key_address_fault(url: str) -> str:
    """What keeps keys from being fetched from a URL: https it must be, or a loopback address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "not a URL"
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.fragment:
        return "not a plain https URL"
    if parts.scheme == "http" and not is_loopback(host):
        return "must be https"
    return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
