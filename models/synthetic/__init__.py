"""Synthetic cohorts: invented patients as FHIR R4 Bulk Data, for building and testing packages.

`anchors` holds the published numbers, `people` draws who they are, `contacts` lays out their
hospital contacts in time, `readmission` draws risks and outcomes in blocks, `charts` goes from a
block to one patient, `fhir_lines` (with `codings`) writes that patient as FHIR, `bulk` writes a
cohort to a folder. Nothing here reads FHIR, trains or scores. Called by the command line
(`varsel cohort synth`) and by the training gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from models.synthetic.bulk import Manifest, write_bulk_data


class Generator(Protocol):
    """Writes a cohort of one model's kind to a folder."""

    def __call__(
        self, out_dir: Path, *, patients: int, seed: int, progress: Callable[[int], None]
    ) -> Manifest: ...


GENERATORS: Mapping[str, Generator] = {"readmission-30d": write_bulk_data}
"""The generator of each model's cohort, by model id."""
