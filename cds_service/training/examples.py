"""The worked examples of a trained package, and what else of its data lies in it, in words.

Lives here: whose records become examples. Of synthetic data, patients of the test part. Of real
patients nobody's: patients of the model's generator where there is one, else values of the columns
put together from many patients (ADR 0011). Does not live here: the form of an example
(`models/examples.py`). Called by a training run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from fhir_adapters.bulk import BulkIndex, index_bulk_data, read_patient
from fhir_adapters.clock import parse_time
from fhir_adapters.references import last_segments
from models.cohort import build_cohort
from models.examples import make_example, make_feature_example
from models.fitting import Floats, matrix_of
from models.package import Package
from models.synthetic import GENERATORS
from models.synthetic.bulk import write_bulk_data
from models.training import Trained

EXAMPLES = 4
DRAWN = 60
"""Patients drawn from a generator to find four examples among."""
Source = Literal["patients of synthetic data", "patients of the generator", "invented values"]


def write_examples(package: Package, index: BulkIndex, trained: Trained) -> Source:
    """Write four examples spread over the risks of the first head; whose they are."""
    folder = package.folder / "examples"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if package.manifest.synthetic:
        _write_patients(package, index, trained.split.test)
        return "patients of synthetic data"
    if package.id in GENERATORS and _write_generated(package):
        return "patients of the generator"
    for number, place in enumerate(_places(package, trained.reference), start=1):
        made = make_feature_example(package, trained.reference[place])
        (folder / f"{number:02}.json").write_bytes(made)
    return "invented values"


def _places(package: Package, rows: Floats) -> list[int]:
    """Where the examples stand among some rows: spread over the risks, and one near the highest."""
    order = np.argsort(package.heads[0].model.risk(rows), kind="stable")
    spread = [int((i + 0.5) / EXAMPLES * len(order)) for i in range(EXAMPLES - 1)]
    return [int(order[place]) for place in (*spread, max(0, len(order) - 3))]


def _write_patients(package: Package, index: BulkIndex, frame: pd.DataFrame) -> None:
    """Patients of a cohort frame, as Bundles with what they must get."""
    for number, place in enumerate(_places(package, matrix_of(package, frame)), start=1):
        row = frame.iloc[place]
        bundle = bundle_of(index, str(row["patient"]))
        made = make_example(package, bundle, parse_time(row["index_time"].isoformat()))
        (package.folder / "examples" / f"{number:02}.json").write_bytes(made)


def _write_generated(package: Package) -> bool:
    """Patients of the model's own generator; False where the package takes too few of them."""
    with TemporaryDirectory(prefix="varsel-examples-") as place:
        write_bulk_data(
            GENERATORS[package.id],
            Path(place),
            patients=DRAWN,
            seed=package.manifest.training.seed,
            progress=lambda _: None,
        )
        frame = build_cohort(package, Path(place)).frame
        if len(frame) < EXAMPLES:
            return False
        _write_patients(package, index_bulk_data(Path(place)), frame)
    return True


# ---- one patient's Bundle -------------------------------------------------------------------


def bundle_of(index: BulkIndex, patient: str) -> bytes:
    """One patient's resources as a Bundle, with the shared Medications they refer to."""
    own = read_patient(index, patient)
    named = {name for line in own for name in _medications_named(line)}
    shared = [line for line in index.shared if msgspec.json.decode(line).get("id") in named]
    entries = b",".join(b'{"resource":%s}' % line.strip() for line in (*own, *shared))
    return b'{"resourceType":"Bundle","type":"collection","entry":[%s]}' % entries


def _medications_named(line: bytes) -> list[str]:
    """The id of the Medication a resource refers to, if it does."""
    resource: dict[str, Any] = msgspec.json.decode(line)
    reference = (resource.get("medicationReference") or {}).get("reference")
    return [last_segments(reference, 1)] if reference else []
