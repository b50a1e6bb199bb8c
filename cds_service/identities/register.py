"""The register of erasures (VARSEL_ERASURES_FILE): what must not come back with a backup.

One JSON line for each decision that took something away, durable before it is done, in a file that
is kept apart from the database and its backups. `varsel privacy replay-erasures` does again what a
restored database does not know of. It holds pseudonyms and ids, nobody's name but that of who
decided.
"""

from __future__ import annotations

import fcntl
import os
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec

from cds_service.errors import SetupError


class Erasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One decision that took something away.

    `pseudonyms`: by pseudonym, the id of its key; empty for a whole organisation. `predictions`:
    the ids there were, because pseudonyms change with their key.
    """

    id: str
    what: Literal["erase", "destroy"]
    organisation: str
    at: datetime
    who: str
    ground: str
    pseudonyms: dict[str, str]
    predictions: list[str]


_LINE = msgspec.json.Decoder(Erasure)


def append_erasure(path: Path, erasure: Erasure) -> None:
    """Write a decision down; it is on disk when this returns.

    Raises SetupError where it could not be written whole; the register is then as it was.
    """
    try:
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # what is taken back is nobody else's line
            line = msgspec.json.encode(erasure) + b"\n"
            # a line that a crash cut off does not spoil this one
            _write_whole(file, line if _ends_a_line(path) else b"\n" + line)
        if new:
            _make_durable(path.parent)
    except OSError as error:
        raise SetupError(f"VARSEL_ERASURES_FILE: {error.strerror}") from None


def read_register(path: Path) -> list[Erasure]:
    """Every decision, oldest first. SetupError where a line cannot be read, naming it."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise SetupError(f"VARSEL_ERASURES_FILE: {path} is not there") from None
    except OSError as error:
        raise SetupError(f"VARSEL_ERASURES_FILE: {error.strerror}") from None
    return [_decoded(line, n) for n, line in enumerate(lines, 1) if line]


def _decoded(line: bytes, number: int) -> Erasure:
    try:
        return _LINE.decode(line)
    except msgspec.MsgspecError:
        raise SetupError(
            f"VARSEL_ERASURES_FILE: line {number} cannot be read; where the command that wrote it "
            "did not end, remove it and run that command again"
        ) from None


def _write_whole(file: FileIO, content: bytes) -> None:
    """Append all of it, on disk when this returns, or nothing. Raises OSError."""
    before = file.seek(0, os.SEEK_END)
    try:
        written = 0
        while written < len(content):  # a disk that is nearly full takes a part, and says so later
            written += file.write(content[written:])
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        os.fsync(file.fileno())
        raise


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _make_durable(folder: Path) -> None:
    """Put the entry of a new file in its folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
