"""Who may read the governance API: the file of readers (VARSEL_READERS_FILE), issuer by issuer.

TOML, one table an OpenID Connect issuer and organisation: which tokens it makes, with which keys,
and what its roles are called here. docs/readers.md says what each field means. No secret stands in
it. Keys in files are read here, at the start; others are fetched by `keysets`. Read by
`cds_service/service.py`; the routes ask `reader_door`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from cds_service.auth.addresses import holds_loopback, key_address_fault, network_fault
from cds_service.auth.callers import Algorithm, Name, Text
from cds_service.auth.files import Listed
from cds_service.auth.keysets import Keys, KeysUnusable, parse_keys
from cds_service.auth.roles import ROLES, Role

_FILE = Listed("VARSEL_READERS_FILE", table="issuer", name="issuer")


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An issuer whose access tokens let people of one organisation read, and in which roles.

    Keys come from `jwks_file`, from `jku`, or, with `discovery`, from where the issuer's OpenID
    configuration says; `networks`: where those addresses must lie, public where there are none.
    `roles_claim`: the claim that lists roles, members of members parted by dots. `roles`: what the
    issuer calls a role, and which of ours that is.
    """

    issuer: Text
    organisation: Name
    audience: Text
    roles: Annotated[Mapping[str, Role], msgspec.Meta(min_length=1)]
    roles_claim: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "roles"
    discovery: bool = False
    jku: Text | None = None
    jwks_file: str | None = None
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = (
        "RS256", "PS256", "ES256", "ES384",
    )  # fmt: skip
    networks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.issuer} ({self.audience})"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    issuer: Annotated[list[Issuer], msgspec.Meta(min_length=1)]


class Reader(NamedTuple):
    """Somebody let in: of which organisation, by which name, said by whom, in which roles."""

    organisation: str
    subject: str
    issuer: str
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Readers:
    """The issuers believed; `open_to` is the reader everybody is where there is no file.

    `pinned`: the keys read from files, by the issuer's name.
    """

    issuers: tuple[Issuer, ...] = ()
    open_to: Reader | None = None
    pinned: Mapping[str, Keys] = field(default_factory=dict)


def demo_reader(organisation: str) -> Reader:
    """The reader everybody on the machine is in the demo profile: every role, one organisation."""
    return Reader(organisation, "demo", "", frozenset(ROLES))


def read_readers(path: Path) -> Readers:
    """The issuers a file lists; SetupError names the issuer and the field at fault."""
    issuers = tuple(_FILE.read(path, _File).issuer)
    for issuer in issuers:
        _check(issuer)
    twice = Counter((issuer.issuer, issuer.audience) for issuer in issuers)
    if max(twice.values()) > 1:
        raise _FILE.fault(
            "an issuer twice with one audience: its tokens would be of two organisations"
        )
    pinned = {i.name: _read_keys(i, path.parent) for i in issuers if i.jwks_file is not None}
    return Readers(issuers, pinned=pinned)


def check_readers_no_loopback(readers: Readers) -> None:
    """Raise SetupError where keys may be fetched from this machine itself, as for callers."""
    for issuer in readers.issuers:
        for network in issuer.networks:
            if holds_loopback(network):
                raise _FILE.fault(
                    f"{issuer.name}: networks: {network} holds loopback addresses "
                    "(for a trial on one machine: VARSEL_ALLOW_LOOPBACK=true)"
                )


def _check(issuer: Issuer) -> None:
    """Raise SetupError where keys come from nowhere, from two places, or from where none may."""
    sources = [issuer.discovery, issuer.jku is not None, issuer.jwks_file is not None]
    if sum(sources) != 1:
        raise _FILE.fault(f"{issuer.name}: discovery, jku or jwks_file: one of the three")
    for what, url in (("issuer", issuer.issuer if issuer.discovery else None), ("jku", issuer.jku)):
        if url is not None and (fault := key_address_fault(url)):
            raise _FILE.fault(f"{issuer.name}: {what}: {fault}")
    for network in issuer.networks:
        if fault := network_fault(network):
            raise _FILE.fault(f"{issuer.name}: networks: {fault}")


def _read_keys(issuer: Issuer, folder: Path) -> Keys:
    where = f"{issuer.name}: jwks_file"
    try:
        return parse_keys((folder / str(issuer.jwks_file)).read_bytes())
    except OSError as error:
        raise _FILE.fault(f"{where}: {error.strerror}") from None
    except KeysUnusable as error:
        raise _FILE.fault(f"{where}: {error}") from None
