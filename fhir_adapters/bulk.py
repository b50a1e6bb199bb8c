"""Bulk Data NDJSON: one patient's resources at a time, whatever the order of the files.

A folder holds `*.ndjson` files as a Bulk Data export leaves them (`Patient.ndjson`,
`Observation.1.ndjson`, ...). One pass notes where each patient's lines stand; then each patient is
read alone, so that memory does not grow with the export.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fhir_adapters.clock import parse_time
from fhir_adapters.decode import Gathered, decode_lines, read
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.references import last_segments
from fhir_adapters.resources import Element, Reference

_FILE_SHIFT = 48


class _Owner(Element):
    resource_type: str | None = None
    id: str | None = None
    subject: Reference | None = None
    patient: Reference | None = None


_OWNER = msgspec.json.Decoder(_Owner)


class _Export(Element):
    transaction_time: str | None = None


@dataclass(frozen=True, slots=True)
class BulkIndex:
    """Where every patient's lines stand. `until` is the export's own time, where it says one."""

    files: tuple[Path, ...]
    lines: dict[str, array[int]]
    shared: tuple[bytes, ...]
    until: float | None
    unreadable: int

    def __len__(self) -> int:
        return len(self.lines)


def index_bulk_data(folder: Path, progress: Callable[[int], None] | None = None) -> BulkIndex:
    """Where every patient's lines stand in a folder of NDJSON.

    Lines that are not JSON, or belong to no patient, are counted, not read. Raises UnreadableInput
    where the folder holds no NDJSON or no Patient. `progress` is told the bytes done.
    """
    files = tuple(sorted(folder.glob("*.ndjson")))
    if not files:
        raise UnreadableInput("no *.ndjson files in the folder", field=folder.name)
    lines: dict[str, array[int]] = {}
    patients: set[str] = set()
    shared: list[bytes] = []
    unreadable = 0
    for number, path in enumerate(files):
        with path.open("rb") as file:
            offset = 0
            for line in file:
                owner = _owner_of(line)
                if owner is None:
                    unreadable += bool(line.strip())
                elif owner == "":
                    shared.append(line)
                else:
                    if owner.startswith("Patient/"):
                        patients.add(owner := owner[len("Patient/") :])
                    lines.setdefault(owner, array("Q")).append(number << _FILE_SHIFT | offset)
                offset += len(line)
        if progress:
            progress(path.stat().st_size)
    known = {patient: lines[patient] for patient in sorted(patients)}
    if not known:
        raise UnreadableInput("no Patient in the folder", field=folder.name)
    return BulkIndex(files, known, tuple(shared), _export_time(folder), unreadable)


def _owner_of(line: bytes) -> str | None:
    """`Patient/<id>` for a Patient, the patient's id for what is theirs, "" for a shared
    Medication, None for what is nobody's."""
    try:
        owner: _Owner = _OWNER.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    if owner.resource_type == "Patient" and owner.id:
        return f"Patient/{owner.id}"
    reference = (owner.subject or owner.patient or Reference()).reference
    if reference:
        return last_segments(reference, 1)
    return "" if owner.resource_type == "Medication" else None


def _export_time(folder: Path) -> float | None:
    path = folder / "manifest.json"
    if not path.exists():
        return None
    export: _Export = read(msgspec.json.Decoder(_Export), path.read_bytes(), path.name)
    return parse_time(export.transaction_time) if export.transaction_time else None


def read_patients(index: BulkIndex) -> Iterator[tuple[str, Gathered]]:
    """Every patient of an index with their resources, in the order of ids."""
    with _opened(index) as maps:
        for patient_id, places in index.lines.items():
            texts = [_line_at(maps, place) for place in places]
            yield patient_id, decode_lines([*texts, *index.shared])


def read_patient(index: BulkIndex, patient_id: str) -> list[bytes]:
    """The lines of one patient; KeyError where the index has none of that id."""
    with _opened(index) as maps:
        return [_line_at(maps, place) for place in index.lines[patient_id]]


@contextmanager
def _opened(index: BulkIndex) -> Iterator[list[mmap.mmap | None]]:
    opened = [path.open("rb") for path in index.files]
    try:
        yield [
            mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else None
            for f, path in zip(opened, index.files, strict=True)
        ]
    finally:
        for file in opened:
            file.close()


def _line_at(maps: list[mmap.mmap | None], place: int) -> bytes:
    mapped = maps[place >> _FILE_SHIFT]
    start = place & ((1 << _FILE_SHIFT) - 1)
    if mapped is None:
        return b""
    end = mapped.find(b"\n", start)
    return mapped[start : end if end >= 0 else len(mapped)]
