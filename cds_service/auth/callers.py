"""Who may call: the file of callers (VARSEL_CALLERS_FILE), each of one organisation.

TOML, one table a caller: who it is, how it proves that (the SHA-256 of a bearer token, or whose
JWTs with which keys), which FHIR servers may be asked on its behalf, and what holds for it alone.
docs/callers.md says what each field means. No secret stands in it: hashes, addresses and names of
files. Keys in files are read here, at the start; keys behind an address by `keysets`. Read by
`cds_service/service.py`; the routes ask `door`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cds_service.auth.addresses import (
    holds_loopback,
    is_loopback,
    key_address_fault,
    network_fault,
)
from cds_service.auth.files import Listed
from cds_service.auth.keysets import Keys, KeysUnusable, parse_keys
from cds_service.identities.ground import LEGAL_GROUND
from fhir_adapters.client.guard import parse_base, same_base

_FILE = Listed("VARSEL_CALLERS_FILE", table="caller", name="name")
SHORTEST_DEADLINE_MS, LONGEST_DEADLINE_MS = 100, 60_000

# as long as the columns of the log that hold them
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z", max_length=2048)]
"""What two systems compare letter by letter: printable ASCII without spaces."""
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"
]  # fmt: skip
"""Asymmetric signatures only: `none` and HS* cannot even be written into the file."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; a field it does not know is a fault."""


class JwtTrust(_Table, frozen=True):
    """Whose JWTs prove a caller: issuer, and subject and tenant where registered; with which keys.

    Keys come from `jwks_file` where it is given, and `jku` is then only what a token may say; else
    from `jku`, whose address is public or lies in `networks`. `audiences` are accepted beside the
    URL that is called.
    """

    issuer: Text
    subject: Text | None = None
    tenant: Text | None = None
    audiences: tuple[Text, ...] = ()
    jku: Text | None = None
    jwks_file: str | None = None
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = ("RS384", "ES384")
    networks: tuple[str, ...] = ()


class FhirBase(_Table, frozen=True):
    """A FHIR server that may be asked on a caller's behalf, and where its address may lie."""

    base: Text
    networks: tuple[str, ...] = ()


class Policy(_Table, frozen=True):
    """What holds for one caller: how long it waits, its language, silence on too few data, and for
    what purpose and on which legal ground its predictions are kept.
    """

    deadline_ms: Annotated[
        int, msgspec.Meta(ge=SHORTEST_DEADLINE_MS, le=LONGEST_DEADLINE_MS)
    ] = 2500  # fmt: skip
    language: Literal["da", "en"] | None = None
    insufficient: Literal["card", "silent"] = "card"
    purpose: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "treatment"
    legal_ground: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = LEGAL_GROUND


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A caller, the organisation whose silo it writes to, and what was agreed with it.

    `unit`: the unit it speaks for, if one. `prefetch_keys`: per service, the site's prefetch key
    and the package's key for the same query.
    """

    name: Name
    organisation: Name
    unit: Name | None = None
    token_sha256: Digest = ""
    jwt: JwtTrust | None = None
    fhir: tuple[FhirBase, ...] = ()
    policy: Policy = Policy()
    prefetch_keys: Mapping[str, Mapping[str, str]] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    caller: Annotated[list[Caller], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Callers:
    """The callers let in; `open_to` is the caller everybody is where there is no list.

    `pinned`: the keys read from files, by the caller's name.
    """

    listed: tuple[Caller, ...] = ()
    open_to: Caller | None = None
    pinned: Mapping[str, Keys] = field(default_factory=dict)

    def with_token(self, token: str) -> Caller | None:
        """The caller whose bearer token this is; None for nobody's."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        matching = [c for c in self.listed if hmac.compare_digest(c.token_sha256, digest)]
        return matching[0] if matching else None


def read_callers(path: Path) -> Callers:
    """The callers a file lists; SetupError names the caller and the field at fault."""
    listed = tuple(_FILE.read(path, _File).caller)
    for caller in listed:
        _check(caller)
    for what in ("name", "token_sha256"):
        seen = Counter(getattr(caller, what) for caller in listed)
        del seen[""]
        if seen and max(seen.values()) > 1:
            raise _FILE.fault(f"two callers of one {what}")
    for one, other in combinations(listed, 2):
        _check_told_apart(one, other)
    pinned = {
        c.name: _read_keys(c, path.parent) for c in listed if c.jwt and c.jwt.jwks_file is not None
    }
    return Callers(listed=listed, pinned=pinned)


def check_no_loopback(callers: Callers) -> None:
    """Raise SetupError where a caller may have this machine itself asked, for data or for keys.

    What else runs here (a database, an administrator's port) trusts who comes from here.
    """
    for caller in callers.listed:
        listed = {
            "fhir.networks": [network for base in caller.fhir for network in base.networks],
            "jwt.networks": caller.jwt.networks if caller.jwt else (),
        }
        for name, networks in listed.items():
            for network in networks:
                if holds_loopback(network):
                    raise _FILE.fault(
                        f"{caller.name}: {name}: {network} holds loopback addresses "
                        "(for a trial on one machine: VARSEL_ALLOW_LOOPBACK=true)"
                    )


def _check(caller: Caller) -> None:
    """Raise SetupError where a caller proves itself by nothing or in two ways, or names a server
    that nothing may be sent to.
    """
    if not (caller.token_sha256 or caller.jwt):
        raise _FILE.fault(f"{caller.name}: token_sha256 is missing, or a jwt table")
    if caller.token_sha256 and caller.jwt:
        raise _FILE.fault(f"{caller.name}: token_sha256 and jwt: one of the two")
    if caller.jwt is not None:
        _check_trust(caller.name, caller.jwt)
    for base in caller.fhir:
        _check_base(base.base, f"{caller.name}: fhir.base")
        _check_networks(base.networks, f"{caller.name}: fhir.networks")
    if any(same_base(a.base, b.base) for a, b in combinations(caller.fhir, 2)):
        raise _FILE.fault(f"{caller.name}: fhir.base: the same twice")
    for service, keys in caller.prefetch_keys.items():
        if len(set(keys.values())) < len(keys):
            raise _FILE.fault(f"{caller.name}: prefetch_keys.{service}: two keys for one query")


def _check_trust(name: str, trust: JwtTrust) -> None:
    if trust.jku is None and trust.jwks_file is None:
        raise _FILE.fault(f"{name}: jwt: jku or jwks_file is missing")
    if trust.jku is not None:
        _check_jku(trust.jku, f"{name}: jwt.jku")
    _check_networks(trust.networks, f"{name}: jwt.networks")


def _check_networks(networks: tuple[str, ...], where: str) -> None:
    for network in networks:
        if fault := network_fault(network):
            raise _FILE.fault(f"{where}: {fault}")


def _check_base(url: str, where: str) -> None:
    """Raise SetupError unless a FHIR server's token may travel there."""
    base = parse_base(url)
    if base is None:
        raise _FILE.fault(f"{where}: not a plain https URL")
    if base.scheme == "http" and not is_loopback(base.host):
        raise _FILE.fault(f"{where}: must be https")


def _check_jku(url: str, where: str) -> None:
    """Raise SetupError unless keys may travel from there."""
    if fault := key_address_fault(url):
        raise _FILE.fault(f"{where}: {fault}")


def _check_told_apart(one: Caller, other: Caller) -> None:
    """Raise SetupError where a JWT could prove two callers."""
    if one.jwt is None or other.jwt is None or one.jwt.issuer != other.jwt.issuer:
        return
    told_apart = [
        (one.jwt.subject, other.jwt.subject),
        (one.jwt.tenant, other.jwt.tenant),
    ]
    if not any(a and b and a != b for a, b in told_apart):
        raise _FILE.fault(
            f"{one.name} and {other.name} share a jwt.issuer: jwt.subject or jwt.tenant must tell "
            "them apart"
        )


def _read_keys(caller: Caller, folder: Path) -> Keys:
    assert caller.jwt is not None  # noqa: S101 - who has no JWTs has no file of keys
    where = f"{caller.name}: jwt.jwks_file"
    try:
        return parse_keys((folder / str(caller.jwt.jwks_file)).read_bytes())
    except OSError as error:
        raise _FILE.fault(f"{where}: {error.strerror}") from None
    except KeysUnusable as error:
        raise _FILE.fault(f"{where}: {error}") from None
