"""How well a package foretold real outcomes, beside the figures it is held against.

Discrimination, calibration and their intervals are `validation`'s, drawn by patient. Called by
`outcomes`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from models.cohort import build_cohort
from models.fitting import cross_fit
from models.package import Package, load_package
from models.training import known_outcomes, split_by_time
from tests.bench.outcomes_fhir import COMPARATOR
from validation.analysis import validate
from validation.errors import TooFewEvents

Part = Literal["all", "test", "out-of-fold"]
DRAWS = 500
SEED = 1
SHOWN = ("auroc", "calibration_slope", "observed_expected")
TOLERATED = 0.02
"""How far below its reference an AUROC may lie."""
CERTAIN = 1e-9
GROUPS = ("copd", "heart_failure")
"""Columns that pick a group of patients out, where a package has them."""


class Reference(NamedTuple):
    """A figure to be held against: an AUROC and whose it is."""

    auroc: float
    what: str


_GROUPED = "5-fold XGBoost grouped by patient, all columns"
REFERENCES: Mapping[str, Mapping[str, Reference]] = {
    "diabetes130": {
        "all": Reference(0.675, _GROUPED),
        "copd": Reference(0.638, _GROUPED),
        "heart_failure": Reference(0.611, _GROUPED),
    },
    "support2": {
        "all": Reference(0.79, "the published SUPPORT model (Knaus 1995), column surv6m"),
        "copd_or_heart_failure": Reference(0.704, "column surv6m among CHF and COPD"),
    },
    "hf299": {"all": Reference(0.77, "cross-validated, without the column time")},
}


def measured(
    dataset: str, data: Path, package_folder: Path, *, parts: Sequence[Part]
) -> dict[Part, dict[str, Any]]:
    """The figures of a package on parts of a folder of Bulk Data, by group of patients.

    `all` patients, for data the package never saw; `test`, the part its training left out, for data
    it was trained on; `out-of-fold`, every patient by trees fitted without the patient's fold, as
    the references were made (no calibration: those trees are not the package's own).
    """
    package = load_package(package_folder)
    cohort = build_cohort(package, data)
    (head,) = package.heads
    known = known_outcomes(cohort.of_head(head.id)).reset_index(drop=True)
    said = _comparator(data)
    about = {
        "dataset": dataset,
        "package": {"version": package.manifest.version, "checksum": package.checksum},
        "excluded": cohort.excluded,
    }
    found: dict[Part, dict[str, Any]] = {}
    for part in parts:
        groups = {
            name: _group(dataset, name, rows, part, said=said)
            for name, rows in _groups(_with_risk(package, known, part))
        }
        found[part] = {**about, "part": part, "groups": groups}
    return found


def _with_risk(package: Package, known: pd.DataFrame, part: Part) -> pd.DataFrame:
    if part == "out-of-fold":
        margins = cross_fit(package, known, package.manifest.heads[0].kind).margins
        return known.assign(risk=1 / (1 + np.exp(-margins)))
    rows = known if part == "all" else split_by_time(known, package.manifest.training).test
    matrix = rows[package.columns].to_numpy(dtype=np.float64)
    return rows.assign(risk=package.heads[0].model.risk(matrix))


def _groups(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All rows, those of each group, and of either."""
    yield "all", frame
    there = [name for name in GROUPS if name in frame.columns]
    for name in there:
        yield name, frame[frame[name] == 1]
    if len(there) > 1:
        yield "copd_or_heart_failure", frame[(frame[there] == 1).any(axis=1)]


def _group(
    dataset: str, name: str, rows: pd.DataFrame, part: Part, *, said: Mapping[str, float]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n": len(rows),
        "patients": int(rows["patient"].nunique()),
        "events": int(rows["event"].sum()),
        **_statistics(rows, SHOWN[:1] if part == "out-of-fold" else SHOWN),
    }
    reference = REFERENCES[dataset].get(name)
    if reference:
        found["reference"] = reference._asdict()
    if said:
        theirs = rows.assign(risk=rows["patient"].map(said)).dropna(subset=["risk"])
        found["comparator"] = {"n": len(theirs), **_statistics(theirs, SHOWN[:1])}
    return found


def _statistics(rows: pd.DataFrame, names: tuple[str, ...]) -> dict[str, Any]:
    """Statistics by name with their intervals; why there are none where events are too few."""
    frame = rows[["patient", "index_time", "risk", "state"]]
    try:
        made = validate(frame, thresholds=[], excluded={}, bootstrap=DRAWS, seed=SEED)
    except TooFewEvents as refusal:
        return {"why": str(refusal)}
    return {
        one.name: {"value": one.value, "low": one.low, "high": one.high}
        for one in made.statistics
        if one.name in names
    }


def _comparator(data: Path) -> dict[str, float]:
    """The published model's risks by patient, short of 0 and 1, which have no log-odds."""
    path = data / COMPARATOR
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        said = {row["patient"]: float(row["risk"]) for row in csv.DictReader(file)}
    return {patient: min(max(risk, CERTAIN), 1 - CERTAIN) for patient, risk in said.items()}


def missed(figures: Mapping[str, Any]) -> list[str]:
    """What lies further below its reference than tolerated, in words."""
    texts = []
    for name, group in figures["groups"].items():
        if "reference" not in group or "auroc" not in group:
            continue
        auroc, wanted = group["auroc"]["value"], group["reference"]["auroc"]
        if auroc < wanted - TOLERATED:
            texts.append(f"{figures['dataset']}, {name}: AUROC {auroc:.3f}, reference {wanted:g}")
    return texts
