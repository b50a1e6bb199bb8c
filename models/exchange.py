"""Packages leave and come: what is exported, and the order in which an archive is let in.

A *package* is exported whole. A *specification* is exported without its numbers: no weights, no
background, no reference sample, no worked examples. It can be read and trained anew, never served;
the kind is part of what is signed. Import verifies the signature against trusted publishers before
anything is unpacked, unpacks beside the target what has the checksum it should have, tries its
boosters in a process of their own, admits it as the registry does, and moves it in as a whole:
<root>/<id>/<version>/. Until then the folder is as it was. A package takes the place of its own
specification. Archives are models/archive.py, signatures models/signature.py.

Called by `varsel models export` and `varsel models import`.
"""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec

from models.archive import (
    MAX_SIGNATURE_BYTES,
    MAX_SUMS_BYTES,
    SIGNATURE,
    SUFFIX,
    Archive,
    name_fault,
    open_archive,
    write_archive,
)
from models.boosters import try_booster
from models.errors import PackageRefused, SignatureRefused
from models.evaluation import (
    EVALUATION,
    SPECIFICATION,
    Evaluation,
    is_specification,
    read_evaluation,
)
from models.manifest import MAX_VERSION, Manifest
from models.package import (
    SUMS,
    listed_sums,
    naming,
    package_files,
    put_in_place,
    read_specification,
    require_layout,
    verify_checksums,
)
from models.registry import BUNDLED, admit, package_name
from models.signature import ArchiveKind, Publisher, Signature, Signer, sign, verify

MANIFEST, CARD = "manifest.toml", "MODEL_CARD.md"
NEEDED = (MANIFEST, EVALUATION, CARD)
"""What every archive holds, of either kind."""
OF_SPECIFICATION = frozenset({*NEEDED, "metrics.json", SPECIFICATION})
"""All that a specification may hold."""
ABANDONED_SECONDS = 3600
"""What an import unpacked so long before another began, it will not come back for."""

_ID = r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z"
_VERSION = r"\A(?!(?i:.*\.signature\.json)\Z)[0-9][0-9A-Za-z]*([.+-][0-9A-Za-z]+)*\Z"


_NO_NAMES = (
    UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError,
)  # fmt: skip
"""What a manifest raises that says no id and version."""


class _Named(msgspec.Struct):
    """What of a manifest becomes a path."""

    id: Annotated[str, msgspec.Meta(pattern=_ID, max_length=60)]
    version: Annotated[str, msgspec.Meta(pattern=_VERSION, max_length=MAX_VERSION)]


class MadeFrom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SPECIFICATION.json: the package a specification was made from, and what was left out.

    `package_checksum` is None where there were no checksums yet: a package nobody has trained.
    """

    id: str
    version: str
    package_checksum: str | None
    left_out: list[str]


# ---- out ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exported:
    """An archive, its file name, and what it holds."""

    name: str
    content: bytes
    manifest: Manifest
    kind: ArchiveKind
    checksum: str
    signature: Signature


def export_archive(
    folder: Path, signer: Signer, *, specification: bool, signed_at: str
) -> Exported:
    """A package folder as a signed archive; `specification` leaves its numbers out.

    `signed_at` is UTC, to the second. Raises PackageRefused where the package would not be
    admitted, has no complete evaluation list or no model card, or holds a file that cannot travel.
    """
    kind: ArchiveKind = "specification" if specification else "package"
    manifest, files = _specified(folder) if specification else _whole(folder)
    _named((folder / MANIFEST).read_bytes(), manifest.id)
    evaluation = read_evaluation(folder, manifest)
    if kind == "package" and not manifest.synthetic:
        _require_rows_answered_for(evaluation, manifest.id)
    for name in NEEDED:
        if name not in files:
            raise PackageRefused(manifest.id, f"{name} is missing")
    for name in files:
        fault = name_fault(name)
        if fault is not None:
            raise PackageRefused(manifest.id, f"{name}: {fault}")
    signature = sign(signer, kind, sums=files[SUMS], signed_at=signed_at)
    encoded = msgspec.json.format(msgspec.json.encode(signature), indent=1) + b"\n"
    marked = "" if kind == "package" else ".specification"
    return Exported(
        name=f"{manifest.id}-{manifest.version}{marked}{SUFFIX}",
        content=write_archive({**files, SIGNATURE: encoded}),
        manifest=manifest,
        kind=kind,
        checksum=hashlib.sha256(files[SUMS]).hexdigest(),
        signature=signature,
    )


def _require_rows_answered_for(evaluation: Evaluation, model_id: str) -> None:
    """Refuse rows of real patients to leave where nobody said by what right."""
    if evaluation.questions["training-data"].status == "not-answered":
        raise PackageRefused(
            model_id,
            f"{EVALUATION}: questions.training-data: a package holds rows of its patients, and "
            "nobody has answered for them; a specification holds none (--specification)",
        )


def _whole(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """A package that would be admitted, with all its files."""
    if is_specification(folder):
        raise PackageRefused(
            folder.name, f"{SPECIFICATION}: a specification, to be exported with --specification"
        )
    package = admit(folder, allow_synthetic=True)
    return package.manifest, _files(folder, [*package_files(folder), folder / SUMS])


def _specified(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """A package without its numbers, with checksums of what is left."""
    manifest = read_specification(folder).manifest
    require_layout(folder, manifest)
    checksum = verify_checksums(folder) if (folder / SUMS).exists() else None
    there = package_files(folder)
    kept = [p for p in there if p.relative_to(folder).as_posix() in OF_SPECIFICATION]
    files = _files(folder, kept)
    if SPECIFICATION not in files:
        left_out = sorted(p.relative_to(folder).as_posix() for p in set(there) - set(kept))
        made_from = MadeFrom(manifest.id, manifest.version, checksum, left_out)
        files[SPECIFICATION] = msgspec.json.format(msgspec.json.encode(made_from), indent=1) + b"\n"
    return manifest, {**files, SUMS: _sums(files)}


def _files(folder: Path, paths: list[Path]) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _sums(files: Mapping[str, bytes]) -> bytes:
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return "".join(lines).encode()


# ---- in -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in, from whom, and where it lies; `already_here`: with the same content."""

    id: str
    version: str
    kind: ArchiveKind
    publisher: str
    key_id: str
    signed_at: str
    checksum: str
    folder: Path
    already_here: bool


def import_archive(
    content: bytes,
    label: str,
    *,
    trusted: dict[str, Publisher],
    root: Path,
    allow_synthetic: bool,
) -> Imported:
    """Let an archive into the folder of packages, or leave that as it was.

    `label` names the archive in refusals. Raises PackageRefused with the file and the reason. What
    came in is a candidate: whether it serves is decided elsewhere.
    """
    archive = open_archive(content, label)
    signature = _signature(archive)
    sums = archive.read(SUMS, MAX_SUMS_BYTES)
    try:
        publisher = verify(signature, sums, trusted)
    except SignatureRefused as refusal:
        raise archive.refused(SIGNATURE, str(refusal)) from None
    listed = _listed(archive, sums)
    _check_kind(archive, signature.kind)
    named = _named(_checked(archive, MANIFEST, listed), label)
    checksum = hashlib.sha256(sums).hexdigest()
    target = root / named.id / named.version
    with TemporaryDirectory(dir=root, prefix=".import-") as beside:
        _clear_abandoned(root, Path(beside))
        # two levels down, so that no reader of the packages takes what is not whole for one
        staged = Path(beside) / "unpacked" / named.id
        _unpack(archive, listed, staged)
        _admit(staged, signature.kind, allow_synthetic=allow_synthetic)
        here = _already_here(target, checksum, signature.kind)
        if here is None:
            evidence = archive.read(SIGNATURE, MAX_SIGNATURE_BYTES)
            _move_in(staged, target, evidence, aside=Path(beside) / "before")
    return Imported(
        id=named.id,
        version=named.version,
        kind=signature.kind,
        publisher=publisher.name,
        key_id=publisher.key_id,
        signed_at=signature.signed_at,
        checksum=checksum,
        folder=here or target,
        already_here=here is not None,
    )


def _clear_abandoned(root: Path, ours: Path) -> None:
    """Remove what interrupted imports left; not what another one is unpacking now."""
    began = ours.stat().st_mtime
    for other in root.glob(".import-*"):
        with suppress(FileNotFoundError):
            if began - other.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def _signature(archive: Archive) -> Signature:
    try:
        return msgspec.json.decode(archive.read(SIGNATURE, MAX_SIGNATURE_BYTES), type=Signature)
    except msgspec.DecodeError as error:
        raise archive.refused(SIGNATURE, str(error)) from None


def _listed(archive: Archive, sums: bytes) -> dict[str, str]:
    """The checksum of every file; refused where the list and the files are not the same."""
    try:
        listed = listed_sums(sums)
    except ValueError as error:
        raise archive.refused(SUMS, str(error)) from None
    for name in sorted(listed.keys() - set(archive.names)):
        raise archive.refused(name, "is missing")
    for name in sorted(set(archive.names) - listed.keys() - {SUMS, SIGNATURE}):
        raise archive.refused(name, f"is not in {SUMS}")
    for name in NEEDED:
        if name not in listed:
            raise archive.refused(name, "is missing")
    return listed


def _check_kind(archive: Archive, kind: ArchiveKind) -> None:
    """Refuse a package that says it is a specification, and the other way."""
    if kind == "package" and SPECIFICATION in archive.names:
        raise archive.refused(SPECIFICATION, f"{SIGNATURE} says kind package")
    if kind == "specification":
        if SPECIFICATION not in archive.names:
            raise archive.refused(SPECIFICATION, "is missing")
        for name in sorted(set(archive.names) - OF_SPECIFICATION - {SUMS, SIGNATURE}):
            raise archive.refused(name, "no specification holds that")


def _checked(archive: Archive, name: str, listed: Mapping[str, str]) -> bytes:
    """The bytes of a file that has the checksum it should have."""
    content = archive.read(name)
    if hashlib.sha256(content).hexdigest() != listed[name]:
        raise archive.refused(name, f"is not what {SUMS} says")
    return content


def _named(manifest: bytes, label: str) -> _Named:
    """The id and version of a manifest, fit to be a path."""
    try:
        return msgspec.convert(tomllib.loads(manifest.decode("utf-8")), _Named)
    except _NO_NAMES as error:
        raise PackageRefused(label, f"{MANIFEST}: {error}") from None


def _unpack(archive: Archive, listed: Mapping[str, str], folder: Path) -> None:
    """Write every file that has the checksum it should have; the first that has not is refused."""
    folder.mkdir(parents=True)
    for name in listed:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_checked(archive, name, listed))
    (folder / SUMS).write_bytes(archive.read(SUMS, MAX_SUMS_BYTES))


def _admit(folder: Path, kind: ArchiveKind, *, allow_synthetic: bool) -> None:
    """Refuse what would not be admitted, or has no complete evaluation list."""
    if kind == "package":
        _try_boosters(folder)
        manifest = admit(folder, allow_synthetic=allow_synthetic).manifest
    else:
        manifest = _specification(folder)
    read_evaluation(folder, manifest)


def _try_boosters(folder: Path) -> None:
    try:
        for path in sorted(folder.glob("heads/*/booster.ubj")):
            with naming(folder, path):
                try_booster(path)
    except ValueError as error:
        raise PackageRefused(folder.name, str(error)) from None


def _specification(folder: Path) -> Manifest:
    """The manifest of a specification whose checksums hold."""
    verify_checksums(folder)
    return read_specification(folder).manifest


def _already_here(target: Path, checksum: str, kind: ArchiveKind) -> Path | None:
    """The folder that holds this very content; None where there is none, or the specification of
    this very package; PackageRefused where other content has its place.

    A package that comes with this software is here already too; a specification of it is another
    thing.
    """
    model_id, version = target.parent.name, target.name
    if (target.parent / MANIFEST).exists():
        raise PackageRefused(
            model_id,
            f"{target.parent} is a package itself: move it to a folder named by its version",
        )
    bundled = BUNDLED / model_id
    there = bundled if kind == "package" and _is_version_of(bundled, version) else target
    if not there.exists():
        return None
    if verify_checksums(there) == checksum:
        return there
    if kind == "package" and _made_from(there) == checksum:
        return None
    said = " is here with other content"
    if kind == "specification" and not is_specification(there):
        said = ": the package is here already"
    raise PackageRefused(model_id, f"version {version}{said}: {there}; nothing was changed")


def _made_from(folder: Path) -> str | None:
    """The checksum of the package a folder is a specification of, where it is one and says it."""
    if not is_specification(folder):
        return None
    try:
        made_from = msgspec.json.decode((folder / SPECIFICATION).read_bytes(), type=MadeFrom)
    except msgspec.DecodeError as error:
        raise PackageRefused(folder.name, f"{SPECIFICATION}: {error}") from None
    return made_from.package_checksum


def _is_version_of(folder: Path, version: str) -> bool:
    """Whether a folder holds a package of this version."""
    manifest = folder / MANIFEST
    return manifest.is_file() and _named(manifest.read_bytes(), folder.name).version == version


def _move_in(staged: Path, target: Path, signature: bytes, *, aside: Path) -> None:
    """Put a whole folder in its place, and before it the signature beside that, as evidence.

    The specification of the package that lies there goes to `aside`.
    """
    evidence = target.parent / f"{target.name}.{SIGNATURE}"
    before = evidence.read_bytes() if evidence.exists() else None
    target.parent.mkdir(exist_ok=True)
    try:
        evidence.write_bytes(signature)
        put_in_place(staged, target, aside)
    except OSError as error:
        with suppress(OSError):
            if before is None:
                evidence.unlink(missing_ok=True)
            else:
                evidence.write_bytes(before)
            target.parent.rmdir()  # only where it is empty
        raise PackageRefused(target.parent.name, f"{target}: {error.strerror}") from None


# ---- what is here ---------------------------------------------------------------------------


class Listed(msgspec.Struct, frozen=True):
    """A specification among the packages: something to read and to train, never to serve."""

    id: str
    version: str
    title: str
    checksum: str


def specifications_in(folders: Iterable[Path]) -> tuple[list[Listed], dict[str, str]]:
    """The specifications among some package folders; those that do not hold, with their fault."""
    listed: list[Listed] = []
    broken: dict[str, str] = {}
    for folder in filter(is_specification, folders):
        try:
            checksum, manifest = verify_checksums(folder), read_specification(folder).manifest
        except PackageRefused as refusal:
            broken[package_name(folder)] = refusal.fault
        else:
            listed.append(Listed(manifest.id, manifest.version, manifest.title.en, checksum))
    return listed, broken
