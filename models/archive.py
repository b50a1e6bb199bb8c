"""The archive a package travels in: a zip with caps, read without trusting a word of it.

    <id>-<version>.varsel.zip
      the files of the package folder, with SHA256SUMS
      SIGNATURE.json                who signed SHA256SUMS, when, and of which kind the archive is

Written: sorted, with fixed times, deflated, so that the same files and signature give the same
bytes with the same zlib. Read: `open_archive` looks at the directory alone and refuses what is too
much, what would land outside the folder, and what a package does not hold; a file's bytes come from
`Archive.read`, never more of them than the directory promised. Nothing here writes to disk. Every
refusal is PackageRefused with the file in the archive and the reason.

Called by models/exchange.py, which knows the order: verify first, then unpack.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from models.errors import PackageRefused
from models.package import KINDS, SUMS

SIGNATURE = "SIGNATURE.json"
SUFFIX = ".varsel.zip"
MIB = 1024 * 1024
# The bundled packages: at most 25 files, 2 MiB, the largest file 0.5 MiB, packed up to 34 : 1.
MAX_ARCHIVE_BYTES = 64 * MIB
MAX_UNPACKED_BYTES = 256 * MIB
MAX_FILE_BYTES = 64 * MIB
MAX_FILES = 500
MAX_NAME = 160
MAX_RATIO = 100
SMALL_BYTES = 64 * 1024
"""A file no larger than this may be packed by any ratio: a short file of zeros harms nobody."""
MAX_SUMS_BYTES = MAX_FILES * (64 + 2 + MAX_NAME + 1)
MAX_SIGNATURE_BYTES = 4096

_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""File names that mean a device on Windows, with or without a suffix."""
_DIRECTORY_ENTRY = 46
_END = struct.Struct("<4s4H2LH")
_END_MARK, _ZIP64_MARK, _ZIP64_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flag bits of an encrypted file, of strong encryption, and of a masked header."""
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""What zipfile raises for bytes that are no sound zip; RuntimeError: NotImplementedError too."""


# ---- names ----------------------------------------------------------------------------------


def name_fault(name: str) -> str | None:
    """Why a file of this name may not be unpacked; None where it may.

    A name is segments of ASCII letters, digits, `_`, `-` and `.` with `/` between them, and ends
    in a suffix of a package's kinds. So it can lie nowhere but in the folder, on any system.
    """
    if len(name) > MAX_NAME:
        return f"its name is longer than {MAX_NAME} characters"
    if name.startswith("/"):
        return "its path is absolute"
    if "\\" in name:
        return "its path holds a backslash"
    if ":" in name:
        return "its path holds a colon, as a drive's does"
    segments = name.split("/")
    if ".." in segments:
        return "its path leads outside the folder (..)"
    if any(not _SEGMENT.fullmatch(s) or s.endswith(".") for s in segments):
        return "its path is not made of letters, digits, `_`, `-` and `.`"
    if any(_RESERVED.fullmatch(s) for s in segments):
        return "its name is reserved on some systems"
    if name != SUMS and PurePosixPath(name).suffix not in KINDS:
        return "it is of a kind no package holds"
    return None


def colliding(names: list[str]) -> str | None:
    """The first name that meets an earlier one, ignoring case, as a file or as its folder."""
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        path = PurePosixPath(name.lower())
        parents = {str(parent) for parent in path.parents} - {"."}
        if str(path) in files | folders or parents & files:
            return name
        files.add(str(path))
        folders |= parents
    return None


# ---- writing --------------------------------------------------------------------------------


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """The zip of some files by name: sorted, fixed times, deflated."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


# ---- reading --------------------------------------------------------------------------------


class Archive:
    """An archive whose directory passed every check; no file of it has been unpacked."""

    def __init__(self, label: str, zipped: zipfile.ZipFile) -> None:
        self.label = label
        self.names = [entry.filename for entry in zipped.infolist()]
        self._zipped = zipped

    def refused(self, name: str, reason: str) -> PackageRefused:
        """The refusal of this archive for one of its files."""
        return PackageRefused(self.label, f"{name}: {reason}")

    def read(self, name: str, at_most: int = MAX_FILE_BYTES) -> bytes:
        """The bytes of a file; PackageRefused where they are broken, absent or too many."""
        if name not in self.names:
            raise self.refused(name, "is missing")
        try:
            with self._zipped.open(name) as file:
                content = file.read(at_most + 1)
        except _UNREADABLE as error:
            raise self.refused(name, f"cannot be unpacked: {error}") from None
        if len(content) > at_most:
            raise self.refused(name, f"is larger than {at_most} bytes")
        return content


def read_archive_file(path: Path) -> bytes:
    """The bytes of an archive; PackageRefused where it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise PackageRefused(path.name, str(error.strerror)) from None
    if len(content) > MAX_ARCHIVE_BYTES:
        raise PackageRefused(path.name, f"is larger than {MAX_ARCHIVE_BYTES} bytes")
    return content


def open_archive(content: bytes, label: str) -> Archive:
    """An archive with its directory checked; `label` names it in refusals.

    Raises PackageRefused with the first file that may not be unpacked.
    """
    _check_end(content, label)
    try:
        zipped = zipfile.ZipFile(io.BytesIO(content))
    except _UNREADABLE as error:
        raise PackageRefused(label, f"is not a zip archive: {error}") from None
    entries = zipped.infolist()
    if not entries:
        raise PackageRefused(label, "holds no files")
    for entry in entries:
        fault = _entry_fault(entry)
        if fault is not None:
            raise PackageRefused(label, f"{entry.orig_filename[:MAX_NAME]}: {fault}")
    twice = colliding([entry.filename for entry in entries])
    if twice is not None:
        raise PackageRefused(label, f"{twice}: its name is there twice")
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise PackageRefused(label, f"holds more than {MAX_UNPACKED_BYTES} bytes unpacked")
    return Archive(label, zipped)


def _check_end(content: bytes, label: str) -> None:
    """Refuse too large a directory before anything reads it: each entry costs memory."""
    end = content[-_END.size :]
    if len(end) < _END.size or not end.startswith(_END_MARK):
        raise PackageRefused(label, "is not a zip archive: nothing else may follow its end")
    if content[-_END.size - _ZIP64_BYTES :].startswith(_ZIP64_MARK):
        raise PackageRefused(label, "is a zip64 archive, which no package needs")
    _, _, _, _, entries, directory_bytes, offset, comment = _END.unpack(end)
    if comment or offset + directory_bytes + _END.size != len(content):
        raise PackageRefused(label, "is not a zip archive: its end does not fit its size")
    if entries > MAX_FILES or directory_bytes > MAX_FILES * (_DIRECTORY_ENTRY + 2 * MAX_NAME):
        raise PackageRefused(label, f"holds more than {MAX_FILES} files")


def _entry_fault(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry of the directory may not be unpacked; None where it may."""
    if entry.orig_filename != entry.filename:
        return "its name is not one name"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is not a plain file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed otherwise than stored or deflated"
    if entry.file_size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES} bytes unpacked"
    if entry.file_size > max(SMALL_BYTES, MAX_RATIO * entry.compress_size):
        return f"is packed more than {MAX_RATIO} : 1"
    return name_fault(entry.orig_filename)
