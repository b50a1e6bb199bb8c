"""Trained again with other seeds, a package tells the same story: its categories rank alike.

Seeds decide which rows, columns and hidden values each tree sees. Cohorts are drawn small, because
ten trainings of eight heads on the bundled packages' own cohorts take an hour. Run by
`make test-all`.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from fhir_adapters.decode import decode_lines
from models.cohort import Cohort, cohort_of
from models.fitting import boost, matrix_of
from models.package import Package, load_package, read_table
from models.registry import BUNDLED, package_folders
from models.synthetic import GENERATORS
from models.training import known_outcomes, split_by_time
from models.trees import Trees
from models.tuning import with_training

Floats = NDArray[np.float64]
PATIENTS = {
    "copd-deterioration": 500,
    "crc-surgery": 16_000,
    "hf-deterioration": 700,
    "readmission-30d": 8_000,
}
SEED = 20_261_123
SEEDS, ROWS = 10, 200
LEAST = 0.8
"""Rank correlation of the categories' weights between two seeds, in the mean over all pairs."""


def heads() -> list[tuple[Path, str]]:
    return [
        (f, path.name) for f in package_folders(BUNDLED) for path in sorted((f / "heads").iterdir())
    ]


@cache
def drawn(folder: Path) -> tuple[Package, Cohort]:
    """A package, and a cohort nobody trained on."""
    package, generator = load_package(folder), GENERATORS[folder.name]
    patients = PATIENTS[folder.name]
    stream = (
        (patient.patient_id, decode_lines([line for _, line in patient.resources]))
        for patient in generator.draw(SEED, patients)
    )
    return package, cohort_of(package, stream, generator.data_end.timestamp(), total=patients)


def weights(package: Package, head: str, frame: pd.DataFrame, seed: int) -> Floats:
    """The mean absolute points of each category, of trees grown with a seed, for the newest."""
    metrics = json.loads((package.folder / "metrics.json").read_text())
    words = package.manifest.training
    spec = with_training(package, msgspec.structs.replace(words, seed=seed))
    split = split_by_time(frame, words)
    booster = boost(spec, split.fit, rounds=metrics["heads"][head]["rounds"]).booster
    _, background = read_table(package.folder / "heads" / head / "background.csv")
    rows = matrix_of(spec, split.test)[:: max(1, len(split.test) // ROWS)][:ROWS]
    points = Trees(booster, background, package.columns).points(rows)
    members = [feature.category for feature in package.manifest.inputs]
    return np.array(
        [
            np.abs(points[:, [m == c.id for m in members]].sum(axis=1)).mean()
            for c in package.manifest.categories
        ]
    )


def agreement(package: Package, head: str, frame: pd.DataFrame) -> list[float]:
    """The rank correlations of the categories' weights between every two of ten seeds."""
    found = [weights(package, head, frame, seed) for seed in range(1, SEEDS + 1)]
    return [float(spearmanr(a, b).statistic) for a, b in combinations(found, 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "head"), heads(), ids=lambda p: getattr(p, "name", p))
def test_ten_seeds_rank_the_categories_alike(folder: Path, head: str) -> None:
    package, cohort = drawn(folder)
    found = agreement(package, head, known_outcomes(cohort.of_head(head)))
    print({"mean": float(np.mean(found)), "least": min(found)})
    assert np.mean(found) >= LEAST
