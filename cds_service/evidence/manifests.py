"""The signed manifest of a day of the log: what every chain came to, and the manifest before it.

A manifest lies where the database's administrator cannot write; so even one who writes the whole
database anew, links and all, does not get it past who holds it against the manifests. What is in
one, how it is signed, and whether manifests follow one another: pure, but for the files at the end.
Made by `varsel log seal`, read by `varsel log verify`; docs/tamper-evidence.md is the manual.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cds_service.errors import SetupError
from cds_service.evidence.verification import ChainName, Finding, Walked
from models.signature import KEY_BYTES, KeyId, key_id_of

DOMAIN = b"dk.varsel.log-manifest.v1"
_NAME = re.compile(r"varsel-log-(\d{4}-\d\d-\d\d)\.json")
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class SealedChain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a chain came to: its links, the last of them, and its rows of each kind."""

    organisation: str
    writer: str
    links: int
    last_link: str
    predictions: int
    audit_entries: int


class Previous(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest before: of which day, and the SHA-256 of its file."""

    day: date
    sha256: Digest


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed of a day (UTC).

    `older_than_chains`: predictions from before the chains, in the whole log. `faults`: how much
    was wrong with the day when it was sealed.
    """

    format: Literal[1]
    day: date
    chains: list[SealedChain]
    older_than_chains: int
    faults: int
    previous: Previous | None
    software: str
    sealed_at: str


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file: the manifest byte for byte, by which key, and the signature."""

    manifest: msgspec.Raw
    key_id: KeyId
    signature: str


class Sealed(NamedTuple):
    """A manifest as it was read, and the SHA-256 of its file."""

    manifest: Manifest
    sha256: str


class NotSealed(Exception):
    """Why a file is no manifest that a trusted key signed."""


class KeyNotGiven(NotSealed):
    """It names a key that was not given, so nothing can be said of its signature."""


# ---- signing --------------------------------------------------------------------------------


def sealed_chain(name: ChainName, walked: Walked) -> SealedChain:
    """A chain as a manifest holds it."""
    return SealedChain(
        name.organisation,
        name.writer,
        walked.links,
        walked.last_link.hex(),
        walked.predictions,
        walked.audit_entries,
    )


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key as it is told to who verifies: 32 bytes in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def signed(manifest: Manifest, key: Ed25519PrivateKey) -> bytes:
    """The content of a manifest's file. Signed are the domain, a line break, and the manifest."""
    content = msgspec.json.encode(manifest)
    signature = base64.b64encode(key.sign(_message(content))).decode()
    key_id = key_id_of(key.public_key().public_bytes_raw())
    return msgspec.json.encode(_Signed(msgspec.Raw(content), key_id, signature)) + b"\n"


def parse(content: bytes, trusted: Mapping[str, Ed25519PublicKey]) -> Manifest:
    """The manifest in a file, signed with one of the trusted keys. Raises NotSealed."""
    try:
        file = msgspec.json.decode(content, type=_Signed)
        key = trusted.get(file.key_id)
        if key is None:
            raise KeyNotGiven(f"signed with key {file.key_id}, which was not given")
        key.verify(base64.b64decode(file.signature, validate=True), _message(bytes(file.manifest)))
        return msgspec.json.decode(file.manifest, type=Manifest)
    except msgspec.DecodeError as error:
        raise NotSealed(f"not a manifest: {error}") from None
    except (InvalidSignature, binascii.Error):
        raise NotSealed("the signature is not of this content") from None


def trusted_keys(texts: Sequence[str]) -> dict[str, Ed25519PublicKey]:
    """Public keys by their id. Raises SetupError where a text is none."""
    found = {}
    for text in texts:
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise SetupError("--public-key: not base64") from None
        if len(raw) != KEY_BYTES:
            raise SetupError(f"--public-key: must be {KEY_BYTES} bytes, it is {len(raw)}")
        found[key_id_of(raw)] = Ed25519PublicKey.from_public_bytes(raw)
    return found


def _message(content: bytes) -> bytes:
    return DOMAIN + b"\n" + content


# ---- manifests against each other and against the log -------------------------------------------


def says_the_same(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests of a day say the same of the log; when they were sealed aside."""
    unsaid = {"sealed_at": "", "software": "", "previous": None}
    return msgspec.structs.replace(one, **unsaid) == msgspec.structs.replace(other, **unsaid)


def faults_of_order(found: Sequence[Sealed]) -> Iterator[Finding]:
    """What is wrong with the order of manifests, given by their day: one missing, or exchanged."""
    before: Sealed | None = None
    for one in found:
        manifest = one.manifest
        if before is not None:
            yield from (_manifest(day, "is missing") for day in _between(before, manifest))
            expected = Previous(before.manifest.day, before.sha256)
            if manifest.previous != expected:
                named = manifest.previous.day if manifest.previous else "none"
                says = f"does not follow that of {expected.day} as it is now; it names {named}"
                yield _manifest(manifest.day, says)
        elif manifest.previous is not None:
            yield _manifest(manifest.previous.day, f"is missing; that of {manifest.day} follows it")
        before = one


def _between(before: Sealed, after: Manifest) -> Iterator[date]:
    day = before.manifest.day + timedelta(days=1)
    while day < after.day:
        yield day
        day += timedelta(days=1)


def faults_of_day(
    manifest: Manifest, chains: Mapping[ChainName, Walked], organisation: str | None
) -> Iterator[Finding]:
    """Where a day's chains are not as they were sealed; `organisation`: of this one alone."""
    sealed_chains = {
        ChainName(one.organisation, manifest.day, one.writer): one
        for one in manifest.chains
        if organisation in (None, one.organisation)
    }
    for name, expected in sealed_chains.items():
        walked = chains.get(name)
        if walked is None:
            yield Finding("removed", f"the whole chain of {expected.links} links is gone", name)
        else:
            yield from _faults_of_chain(name, expected, walked)
    for name in chains:
        if name not in sealed_chains:
            yield Finding("inserted", "the chain was not there when its day was sealed", name)


def _faults_of_chain(name: ChainName, expected: SealedChain, walked: Walked) -> Iterator[Finding]:
    if walked.links < expected.links:
        lost = expected.links - walked.links
        yield Finding("removed", f"the last {lost} of the chain are gone", name, walked.links)
    elif walked.links > expected.links:
        more = walked.links - expected.links
        yield Finding("inserted", f"{more} came after the day was sealed", name, expected.links)
    elif walked.last_link.hex() != expected.last_link:
        says = "the last link is not the one that was sealed: the chain was written anew"
        yield Finding("changed", says, name, expected.links - 1)
    counted = (walked.predictions, walked.audit_entries)
    were = (expected.predictions, expected.audit_entries)
    if counted != were and walked.links == expected.links:
        says = (
            f"{counted[0]} predictions and {counted[1]} audit entries, sealed were {were[0]} and "
            f"{were[1]}"
        )
        yield Finding("manifest", says, name)


def _manifest(day: date, says: str) -> Finding:
    return Finding("manifest", f"the manifest of {day} {says}")


# ---- files ----------------------------------------------------------------------------------


def file_of(folder: Path, day: date) -> Path:
    """The file of a day's manifest."""
    return folder / f"varsel-log-{day}.json"


def sealed_days(folder: Path) -> list[date]:
    """The days a folder has files of, in their order."""
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    try:
        return sorted(date.fromisoformat(found.group(1)) for found in names if found)
    except ValueError as error:
        raise SetupError(f"{folder}: a manifest's name holds no day: {error}") from None


def read_manifest_file(folder: Path, day: date, trusted: Mapping[str, Ed25519PublicKey]) -> Sealed:
    """The manifest of a day. Raises NotSealed."""
    content = _read(file_of(folder, day))
    manifest = parse(content, trusted)
    if manifest.day != day:
        raise NotSealed(f"it is of {manifest.day}")
    return Sealed(manifest, hashlib.sha256(content).hexdigest())


def previous_in(folder: Path, day: date) -> Previous | None:
    """The newest manifest of a day before, as the next one names it; None where there is none."""
    earlier = [one for one in sealed_days(folder) if one < day]
    if not earlier:
        return None
    content = _read(file_of(folder, earlier[-1]))
    return Previous(earlier[-1], hashlib.sha256(content).hexdigest())


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, durably. Raises SetupError, also where it is there."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SetupError(f"--out {path}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from None
