"""The spool: records made durable in local files while the database is away, and read back.

One folder a replica, on a volume that outlives it. A process writes a file of its own, locked while
it lives; a file nobody holds is taken over. A file is removed when all its records are stored.

    file    magic, id of the file (16 bytes), CRC-32
    record  length, sequence, id of the key, CRC-32; then nonce and AES-256-GCM, bound to the file,
            its sequence and its key

So a record cannot be read, changed, moved or taken out of the middle without that being found. What
a crash left half written at the end, of which no card was shown, is cut; a break anywhere else
raises. That whole records were taken off the end shows nowhere in the file. What the records say is
`db/spooled.py`'s matter; called by `db/backlog.py`.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import secrets
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cds_service.errors import SetupError
from cds_service.identities.keyring import KEY_BYTES, KeyRing

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.spool")
SUFFIX = ".spool"
_MAGIC = b"varsel spool\x01"
_NONCE_BYTES = 12
_RECORD = struct.Struct(">IQ16s")
_CRC = struct.Struct(">I")
HEADER_BYTES = len(_MAGIC) + 16 + _CRC.size
HEAD_BYTES = _RECORD.size + _CRC.size
_ZEROS = 64
"""Zero bytes at a file's end that no sealed record ends in: a crash left the rest unwritten."""
_ROOM = 1 << 16
"""Bytes that fit where the disk counts as not full."""


class SpoolBroken(Exception):
    """A record that was durable cannot be read; says which file and record."""


class Place(NamedTuple):
    """Where a record stands."""

    file: SpoolFile
    sequence: int
    offset: int
    length: int


class SpoolKeys:
    """The keys of spools, derived from those of the seals. Never printed."""

    def __init__(self, ring: KeyRing) -> None:
        self.current = ring.current
        self._ring = ring
        self._derived = lru_cache(maxsize=16)(self._derive)

    def find(self, key_id: str) -> AESGCM | None:
        """The key of an id; None where it is not here any more."""
        return None if self._ring.find(key_id) is None else self._derived(key_id)

    def _derive(self, key_id: str) -> AESGCM:
        key = self._ring.find(key_id)
        assert key is not None  # noqa: S101 - asked by `find`
        return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=b"varsel spool").derive(key))


class SpoolFile:
    """One file, locked by this process."""

    def __init__(self, path: Path, descriptor: int, file_id: bytes, keys: SpoolKeys) -> None:
        self.path = path
        self._fd = descriptor
        self._id = file_id
        self._keys = keys
        self._next = 0
        self._end = HEADER_BYTES

    @classmethod
    def make(cls, folder: Path, keys: SpoolKeys) -> SpoolFile:
        """A new file, empty and durable. Its name tells when it was begun. Raises OSError."""
        file_id = uuid.uuid4()
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = folder / f"{begun}-{file_id}{SUFFIX}"
        unready = path.with_suffix(".new")
        descriptor = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(descriptor, _header(file_id.bytes), 0)
            os.fsync(descriptor)
            unready.rename(path)
            _sync_folder(folder)
        except OSError:
            os.close(descriptor)
            unready.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        return cls(path, descriptor, file_id.bytes, keys)

    @classmethod
    def take_over(cls, path: Path, keys: SpoolKeys) -> SpoolFile | None:
        """A file nobody holds; None where somebody does, or it is gone. Raises SpoolBroken."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:  # removed by whoever held it before
            os.close(descriptor)
            return None
        header = os.pread(descriptor, HEADER_BYTES, 0)
        file_id = header[len(_MAGIC) :][:16]
        if len(header) < HEADER_BYTES:  # it is whole before it has its name: nothing was in it
            path.unlink()
            os.close(descriptor)
            return None
        if header != _header(file_id):
            os.close(descriptor)
            raise SpoolBroken(f"{path.name}: the beginning is broken")
        return cls(path, descriptor, file_id, keys)

    def places(self) -> Iterator[Place]:
        """Where its records stand, in order, each of them opened; what a crash left is cut off.

        Raises SpoolBroken.
        """
        with mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ) as whole:
            size = len(whole)
            while self._end < size:
                found = self._record_at(whole)
                if found is None:
                    break
                yield found
        if self._end < size:
            self._cut(size)

    def _record_at(self, whole: mmap.mmap) -> Place | None:
        """The record that begins where the last one ended; None where a crash left a piece."""
        begins, rest = self._end, len(whole) - self._end
        head = whole[begins : begins + HEAD_BYTES]
        if rest < HEAD_BYTES:
            return None
        if head != _head(*_RECORD.unpack_from(head)):
            if _is_torn(whole, begins, HEAD_BYTES):
                return None
            raise self._broken(self._next)
        length, sequence, _ = _RECORD.unpack_from(head)
        if sequence != self._next:
            raise self._broken(self._next)
        if rest < HEAD_BYTES + length:
            return None
        place = Place(self, sequence, begins, length)
        try:
            self._opened(place, whole[begins : begins + HEAD_BYTES + length])
        except SpoolBroken:
            if _is_torn(whole, begins, HEAD_BYTES + length):
                return None
            raise
        self._next, self._end = sequence + 1, begins + HEAD_BYTES + length
        return place

    def append(self, contents: Sequence[bytes]) -> list[Place]:
        """Make records durable, all or none, with one flush. Raises OSError."""
        places, pieces, end = [], [], self._end
        for number, content in enumerate(contents, start=self._next):
            piece = self._sealed(number, content)
            places.append(Place(self, number, end, len(piece) - HEAD_BYTES))
            pieces.append(piece)
            end += len(piece)
        try:
            _write_all(self._fd, b"".join(pieces), self._end)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._next, self._end = self._next + len(pieces), end
        return places

    def read(self, place: Place) -> bytes:
        """What a record holds. Raises SpoolBroken."""
        return self._opened(place, os.pread(self._fd, HEAD_BYTES + place.length, place.offset))

    def has_room(self) -> bool:
        """Whether the disk takes more."""
        try:
            _write_all(self._fd, bytes(_ROOM), self._end)
            os.fsync(self._fd)
        except OSError:
            return False
        finally:
            os.ftruncate(self._fd, self._end)
        return True

    def remove(self) -> None:
        """Remove it: all it held is stored."""
        self.path.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        self.close()

    def close(self) -> None:
        """Let go of it; whoever comes next takes it over."""
        os.close(self._fd)

    def _cut(self, size: int) -> None:
        events.log(
            logging.WARNING, "spool cut", file=self.path.name, record=self._next,
            bytes=size - self._end,
        )  # fmt: skip
        os.ftruncate(self._fd, self._end)
        os.fsync(self._fd)

    def _sealed(self, sequence: int, content: bytes) -> bytes:
        key_id = self._keys.current.encode().ljust(16, b"\0")
        key = self._keys.find(self._keys.current)
        assert key is not None  # noqa: S101 - the ring's own
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + key.encrypt(nonce, content, self._bound_to(sequence, key_id))
        return _head(len(sealed), sequence, key_id) + sealed

    def _opened(self, place: Place, record: bytes) -> bytes:
        _, sequence, key_id = _RECORD.unpack_from(record)
        key = self._keys.find(key_id.rstrip(b"\0").decode("ascii", "replace"))
        if key is None:
            raise SpoolBroken(
                f"{self.path.name}: record {place.sequence} needs a key that VARSEL_SEAL_KEY lacks"
            )
        nonce, sealed = record[HEAD_BYTES:][:_NONCE_BYTES], record[HEAD_BYTES + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, sealed, self._bound_to(sequence, key_id))
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise self._broken(place.sequence) from None

    def _bound_to(self, sequence: int, key_id: bytes) -> bytes:
        return self._id + sequence.to_bytes(8, "big") + key_id

    def _broken(self, sequence: int) -> SpoolBroken:
        return SpoolBroken(f"{self.path.name}: record {sequence} is broken")


class Spool:
    """The spool of one process: the files it took over, oldest first, and its own."""

    def __init__(self, folder: Path, ring: KeyRing) -> None:
        self._folder = folder
        self._keys = SpoolKeys(ring)
        self._files: list[SpoolFile] = []

    def check(self) -> None:
        """Raise SetupError where the folder cannot be written to."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            SpoolFile.make(self._folder, self._keys).remove()
        except OSError as error:
            fault = f"{self._folder} cannot be written to ({error.strerror})"
            raise SetupError(f"VARSEL_SPOOL_DIR: {fault}") from None

    def adopt(self) -> Iterator[Place]:
        """Take over what nobody holds: its records, in order. Raises SpoolBroken."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if any(held.path == path for held in self._files):
                continue
            taken = SpoolFile.take_over(path, self._keys)
            if taken is not None:
                events.log(logging.WARNING, "spool taken over", file=path.name)
                self._files.append(taken)
                yield from taken.places()

    def append(self, contents: Sequence[bytes]) -> list[Place]:
        """Make records durable, all or none. Raises OSError."""
        if not self._files:
            self._files.append(SpoolFile.make(self._folder, self._keys))
        return self._files[-1].append(contents)

    def read(self, place: Place) -> bytes:
        """What a record holds. Raises SpoolBroken."""
        return place.file.read(place)

    def has_room(self) -> bool:
        """Whether the disk takes more."""
        try:
            if not self._files:
                self._files.append(SpoolFile.make(self._folder, self._keys))
            return self._files[-1].has_room()
        except OSError:
            return False

    def clear(self) -> None:
        """Remove every file: all they held is stored."""
        while self._files:
            self._files[0].remove()
            del self._files[0]

    def close(self) -> None:
        """Let go of every file."""
        while self._files:
            self._files.pop().close()


def _is_torn(whole: mmap.mmap, begins: int, within: int) -> bool:
    """Whether what begins there was left half written: nothing but zeros from within it on."""
    rest = len(whole) - begins
    written = len(whole[begins:].rstrip(b"\0"))
    return written == 0 or (written < within and rest - written >= _ZEROS)


def _header(file_id: bytes) -> bytes:
    named = _MAGIC + file_id
    return named + _CRC.pack(zlib.crc32(named))


def _head(length: int, sequence: int, key_id: bytes) -> bytes:
    said = _RECORD.pack(length, sequence, key_id)
    return said + _CRC.pack(zlib.crc32(said))


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
