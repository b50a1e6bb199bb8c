"""A synthetic cohort written as a folder of FHIR Bulk Data, labelled synthetic wherever one looks.

One NDJSON file per resource type, each sorted by patient, so that a reader can walk all files side
by side; `manifest.json` in the form of a Bulk Data export manifest; `truth.csv` with what no record
shows; `PROVENANCE.json` with seed and generator version. What is drawn is the generator's own
affair. Called by `varsel cohort synth`.
"""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

NOTICE: Final = (
    "SYNTHETIC: invented patients, drawn from published marginals and odds ratios. "
    "Performance on them says nothing about patients."
)
TRUTH_FILE: Final = "truth.csv"


class Drawn(NamedTuple):
    """One invented patient: the record as `(resource type, JSON line)`, and rows of the truth."""

    patient_id: str
    resources: Iterable[tuple[str, bytes]]
    truth: Iterable[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Generator:
    """How cohorts of one model's kind are drawn.

    `draw(seed, n)` gives the first n patients of the cohort with a seed, sorted by id: fewer
    patients are a prefix of more. `truth_fields` names the cells of a row of the truth, the
    patient's id left out. `data_end`: where every record ends. `block`: how often to tell progress.
    """

    model: str
    module: str
    version: str
    resource_types: tuple[str, ...]
    truth_fields: tuple[str, ...]
    data_end: datetime
    draw: Callable[[int, int], Iterator[Drawn]]
    block: int = 100


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written: number of patients, and resources by type (only types that occurred)."""

    seed: int
    patients: int
    counts: dict[str, int]


def write_bulk_data(
    generator: Generator,
    out_dir: Path,
    *,
    patients: int,
    seed: int,
    progress: Callable[[int], None],
) -> Manifest:
    """Writes the cohort to a folder, made if needed; files of the same names are replaced.

    `progress` is called with the number of patients written so far, once a block. The same number
    of patients and seed give the same bytes; fewer patients give a prefix of every file.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(generator.resource_types, 0)
    with ExitStack() as stack:
        files = {
            kind: stack.enter_context((out_dir / f"{kind}.ndjson").open("wb"))
            for kind in generator.resource_types
        }
        truth_file = stack.enter_context((out_dir / TRUTH_FILE).open("w", newline=""))
        truth = csv.writer(truth_file, lineterminator="\n")
        truth.writerow(("patient_id", *generator.truth_fields))
        for written, patient in enumerate(generator.draw(seed, patients), start=1):
            _write(patient, files, counts)
            truth.writerows((patient.patient_id, *row) for row in patient.truth)
            if written % generator.block == 0 or written == patients:
                progress(written)
    manifest = Manifest(seed, patients, counts)
    _write_json(out_dir / "manifest.json", _export_manifest(generator, manifest))
    _write_json(out_dir / "PROVENANCE.json", _provenance(generator, manifest))
    return manifest


def _write(patient: Drawn, files: Mapping[str, IO[bytes]], counts: dict[str, int]) -> None:
    for kind, line in patient.resources:
        files[kind].write(line + b"\n")
        counts[kind] += 1


def truth_row(truth: Mapping[str, str | float | None], times: Collection[str]) -> tuple[str, ...]:
    """One patient's truth as text: `times` in UTC, risks and days in full, empty for none."""
    return tuple(
        truth_time(value) if name in times and not isinstance(value, str) else truth_cell(value)
        for name, value in truth.items()
    )


def truth_cell(value: str | float | None) -> str:
    """A value as text for the truth: empty where there is none, yes and no as 1 and 0."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def truth_time(moment: float | None) -> str:
    """UTC seconds as an ISO instant; empty where there is none."""
    return "" if moment is None else datetime.fromtimestamp(int(moment), UTC).isoformat()


def _export_manifest(generator: Generator, manifest: Manifest) -> dict[str, object]:
    """The Bulk Data manifest; its time is the end of the data, so that a second run is the same."""
    return {
        "transactionTime": generator.data_end.isoformat(),
        "request": f"synthetic:{generator.model}?patients={manifest.patients}&seed={manifest.seed}",
        "requiresAccessToken": False,
        "output": [
            {"type": kind, "url": f"{kind}.ndjson", "count": number}
            for kind, number in manifest.counts.items()
        ],
        "error": [],
    }


def _provenance(generator: Generator, manifest: Manifest) -> dict[str, object]:
    return {
        "synthetic": True,
        "notice": NOTICE,
        "generator": generator.module,
        "generator_version": generator.version,
        "seed": manifest.seed,
        "patients": manifest.patients,
        "data_end": generator.data_end.isoformat(),
        "truth": TRUTH_FILE,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
