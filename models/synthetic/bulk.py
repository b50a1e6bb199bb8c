"""A synthetic cohort written as a folder of FHIR Bulk Data, labelled synthetic wherever one looks.

One NDJSON file per resource type, each sorted by patient, so that a reader can walk all files side
by side; `manifest.json` in the form of a Bulk Data export manifest; `truth.csv` with what no record
shows; `PROVENANCE.json` with seed and generator version. Called by `varsel cohort synth`.
"""

import csv
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from models.synthetic.charts import SyntheticPatient, Truth, draw_patients
from models.synthetic.fhir_lines import RESOURCE_TYPES
from models.synthetic.readmission import BLOCK_SIZE, GENERATOR_VERSION, STUDY_END, STUDY_START

NOTICE: Final = (
    "SYNTHETIC: invented patients, drawn from published marginals and odds ratios. "
    "Performance on them says nothing about patients."
)
TRUTH_FILE: Final = "truth.csv"
TIME_FIELDS: Final = ("index_start", "index_end", "readmitted_at", "died_at")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written: number of patients, and resources by type (only types that occurred)."""

    seed: int
    patients: int
    counts: dict[str, int]


def write_bulk_data(
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
    counts = dict.fromkeys(RESOURCE_TYPES, 0)
    with ExitStack() as stack:
        files = {
            kind: stack.enter_context((out_dir / f"{kind}.ndjson").open("wb"))
            for kind in RESOURCE_TYPES
        }
        truth_file = stack.enter_context((out_dir / TRUTH_FILE).open("w", newline=""))
        truth = csv.writer(truth_file, lineterminator="\n")
        truth.writerow(("patient_id", *Truth._fields))
        for written, patient in enumerate(draw_patients(seed, patients), start=1):
            _write(patient, files, counts)
            truth.writerow((patient.patient_id, *truth_cells(patient.truth)))
            if written % BLOCK_SIZE == 0 or written == patients:
                progress(written)
    manifest = Manifest(seed, patients, counts)
    _write_json(out_dir / "manifest.json", _export_manifest(manifest))
    _write_json(out_dir / "PROVENANCE.json", _provenance(manifest))
    return manifest


def _write(
    patient: SyntheticPatient, files: Mapping[str, IO[bytes]], counts: dict[str, int]
) -> None:
    for kind, line in patient.resources:
        files[kind].write(line + b"\n")
        counts[kind] += 1


def truth_cells(truth: Truth) -> list[str]:
    """The truth as text: times in UTC, risks and days in full, empty where there is none."""
    return [_cell(name, value) for name, value in truth._asdict().items()]


def _cell(name: str, value: str | float | None) -> str:
    if value is None or value != value:
        return ""
    if name in TIME_FIELDS:
        return datetime.fromtimestamp(int(value), UTC).isoformat()
    return str(int(value)) if isinstance(value, bool) else str(value)


def _export_manifest(manifest: Manifest) -> dict[str, object]:
    """The Bulk Data manifest; its time is the end of the data, so that a second run is the same."""
    return {
        "transactionTime": STUDY_END.isoformat(),
        "request": f"synthetic:readmission-30d?patients={manifest.patients}&seed={manifest.seed}",
        "requiresAccessToken": False,
        "output": [
            {"type": kind, "url": f"{kind}.ndjson", "count": number}
            for kind, number in manifest.counts.items()
        ],
        "error": [],
    }


def _provenance(manifest: Manifest) -> dict[str, object]:
    return {
        "synthetic": True,
        "notice": NOTICE,
        "generator": "models.synthetic.readmission",
        "generator_version": GENERATOR_VERSION,
        "seed": manifest.seed,
        "patients": manifest.patients,
        "index_discharges_from": STUDY_START.isoformat(),
        "index_discharges_before": STUDY_END.isoformat(),
        "truth": TRUTH_FILE,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
