"""`varsel models export`, `import`, `diff`, `keygen` and `evaluation`: packages that travel."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cds_service.cli.audited import put_on_record_if_logged, who_acts
from cds_service.cli.console import JSON_HELP, folder_to_write, print_json
from cds_service.db.audit import AuditEntry
from cds_service.errors import SetupError
from cds_service.service import find_folder
from cds_service.settings import Settings, read_settings
from cds_service.wording import printable
from models.archive import read_archive_file
from models.difference import difference, difference_text
from models.errors import SignatureRefused
from models.evaluation import evaluation_text, read_evaluation
from models.exchange import Imported, export_archive, import_archive
from models.package import read_specification
from models.signature import (
    Publisher,
    Signer,
    parse_private,
    parse_publishers,
    private_text,
    publisher_of,
    publisher_table,
)

LONGEST_SUBJECT = 64
NO_LOG = "varsel: there is no prediction log here, so this is on no record"
Who = Annotated[str | None, typer.Option(help="Who does it; else the account's name")]
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
Model = Annotated[str, typer.Argument(help="Model id, ID@VERSION, or a package's folder")]


def export(
    model: Model,
    key: Annotated[
        Path, typer.Option("--key", help="Private key to sign with; its public .toml beside it")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write to, or a file that ends in .zip")
    ] = Path(),
    specification: Annotated[
        bool, typer.Option("--specification", help="Without weights, samples and examples")
    ] = False,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Write a package as one signed archive, or only its specification."""
    exported = export_archive(
        find_folder(model),
        _signer(key),
        specification=specification,
        signed_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    path = out if out.suffix == ".zip" else folder_to_write(out) / exported.name
    signature = exported.signature
    is_on_record = _record(
        read_settings(),
        who,
        "model export",
        f"{exported.manifest.id}@{exported.manifest.version}",
        kind=exported.kind,
        checksum=exported.checksum,
        publisher=signature.publisher,
        key_id=signature.key_id,
    )
    _write(path, exported.content)
    _say_unless(is_on_record)
    if as_json:
        print_json(
            {
                "archive": str(path),
                "id": exported.manifest.id,
                "version": exported.manifest.version,
                "kind": exported.kind,
                "checksum": exported.checksum,
                "bytes": len(exported.content),
                "publisher": signature.publisher,
                "key_id": signature.key_id,
                "signed_at": signature.signed_at,
            }
        )
        return
    print(f"{exported.kind} {exported.manifest.id} {exported.manifest.version}: {path}")
    print(f"signed by {printable(signature.publisher)} with key {signature.key_id}")


def import_package(
    archive: Annotated[Path, typer.Argument(help="Archive made by `varsel models export`")],
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Verify an archive and let it into VARSEL_MODELS_DIR, as a candidate."""
    settings = read_settings()
    trusted = _trusted(settings)
    root = _models_dir(settings)
    content = read_archive_file(archive)
    digest = hashlib.sha256(content).hexdigest()
    _record(settings, who, "model import", digest, archive=archive.name, bytes=len(content))
    try:
        came = import_archive(
            content,
            archive.name,
            trusted=trusted,
            root=root,
            allow_synthetic=settings.allows_synthetic,
        )
    except OSError as error:
        raise SetupError(f"VARSEL_MODELS_DIR: {error.filename}: {error.strerror}") from None
    is_on_record = _record(
        settings,
        who,
        "model imported",
        f"{came.id}@{came.version}",
        kind=came.kind,
        checksum=came.checksum,
        publisher=came.publisher,
        key_id=came.key_id,
        was_here=came.already_here,
        archive_sha256=digest,
    )
    _say_unless(is_on_record)
    next_step = _next_step(came)
    if as_json:
        found = dataclasses.asdict(came) | {"folder": str(came.folder), "next": next_step}
        print_json(found)
        return
    print(f"{came.kind} {came.id} {came.version}, checksum {came.checksum}")
    print(f"signed by {printable(came.publisher)} with key {came.key_id} at {came.signed_at}")
    print(
        f"here already with the same content: {came.folder}" if came.already_here else came.folder
    )
    print(next_step)


def _record(
    settings: Settings, who: str | None, what: str, subject: str, **details: object
) -> bool:
    """Have it on record that a package travels; False where this installation has no log."""
    return put_on_record_if_logged(
        settings,
        AuditEntry(
            settings.organisation,
            who_acts(who),
            "operator",
            what,
            subject=subject[:LONGEST_SUBJECT],
            details=details,
        ),
    )


def _say_unless(is_on_record: bool) -> None:
    if not is_on_record:
        print(NO_LOG, file=sys.stderr)


def _next_step(came: Imported) -> str:
    """What stands open after an import."""
    if came.kind == "specification":
        return "specification: listed, never servable"
    if came.already_here:
        return f"nothing was changed; varsel models state {came.id}@{came.version} says its state"
    return (
        "start the processes again first; candidate: not in service until somebody decides: "
        f"varsel models state {came.id}@{came.version} silent --who WHO --why WHY"
    )


def diff(
    a: Annotated[str, typer.Argument(help="Model id, ID@VERSION, or a package's folder")],
    b: Annotated[str, typer.Argument(help="The other one")],
    as_json: Json = False,
) -> None:
    """Show what two packages differ in: words, figures, risks and files."""
    found = difference(find_folder(a), find_folder(b))
    if as_json:
        print_json(found)
    else:
        print("\n".join(printable(line) for line in difference_text(found).splitlines()))


def keygen(
    publisher: Annotated[str, typer.Option("--publisher", help="Who signs, as others shall read")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to")],
    as_json: Json = False,
) -> None:
    """Make a signing key: KEYID.pem to keep secret, KEYID.toml for those who shall trust it."""
    if not 1 <= len(publisher) <= 100 or printable(publisher) != publisher:
        raise SetupError("--publisher must be 1 to 100 printable characters")
    key = Ed25519PrivateKey.generate()
    public = publisher_of(key, publisher)
    folder = folder_to_write(out)
    private_file = folder / f"{public.key_id}.pem"
    public_file = private_file.with_suffix(".toml")
    _write_secret(private_file, private_text(key))
    _write(public_file, publisher_table(public).encode())
    if as_json:
        print_json(
            {"private": str(private_file), "public": str(public_file), "key_id": public.key_id}
        )
        return
    print(f"{private_file}: the private key; keep it secret, whoever has it signs as you")
    print(f"{public_file}: for those who trust you, to put into their VARSEL_PUBLISHERS_FILE")


def evaluation(
    model: Model,
    language: Annotated[Literal["da", "en"], typer.Option(help="Language")] = "da",
    as_json: Json = False,
) -> None:
    """Print the evaluation list of a package, complete, for those who decide on it."""
    folder = find_folder(model)
    manifest = read_specification(folder).manifest
    found = read_evaluation(folder, manifest)
    if as_json:
        print_json(found)
    else:
        for line in evaluation_text(found, manifest, language).splitlines():
            print(printable(line))


# ---- files ----------------------------------------------------------------------------------


def _signer(path: Path) -> Signer:
    """The private key of a file, with the publisher whose table lies beside it."""
    beside = path.with_suffix(".toml")
    try:
        key = parse_private(_read(path, "--key"))
        publishers = parse_publishers(_read(beside, "--key"))
    except SignatureRefused as refusal:
        raise SetupError(f"--key {path}: {refusal}") from None
    key_id = publisher_of(key, "").key_id
    if key_id not in publishers:
        raise SetupError(f"--key {beside}: holds no publisher with the key {key_id}")
    return Signer(key, publishers[key_id])


def _trusted(settings: Settings) -> dict[str, Publisher]:
    """The publishers this installation trusts; SetupError says how to name one."""
    if settings.publishers_file is None:
        raise SetupError(
            "VARSEL_PUBLISHERS_FILE is not set: nobody is trusted to send packages. Put the .toml "
            "that the publisher's `varsel models keygen` made into a file, and set it to that file"
        )
    content = _read(settings.publishers_file, "VARSEL_PUBLISHERS_FILE")
    try:
        return parse_publishers(content)
    except SignatureRefused as refusal:
        raise SetupError(f"VARSEL_PUBLISHERS_FILE: {refusal}") from None


def _models_dir(settings: Settings) -> Path:
    """The site's own folder of packages, made where only it is missing."""
    if settings.models_dir is None:
        raise SetupError("VARSEL_MODELS_DIR is not set: there is no folder to import into")
    try:
        settings.models_dir.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(f"VARSEL_MODELS_DIR {settings.models_dir}: {error.strerror}") from None
    return settings.models_dir


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{option} {path}: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise SetupError(f"--out {path}: {error.strerror}") from None


def _write_secret(path: Path, content: bytes) -> None:
    """Write a new file that nobody else can read, from its first byte on."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise SetupError(f"--out {path}: {error.strerror}") from None
