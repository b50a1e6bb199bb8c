"""What every bundled package must hold, head by head, on its own sample of training features."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from cds_service.settings import Settings
from models.package import Head, Package, load_package, read_table
from models.registry import BUNDLED, package_folders

Floats = NDArray[np.float64]
FOLDERS = package_folders(BUNDLED)
ROWS = 200


@cache
def package_in(folder: Path) -> Package:
    return load_package(folder)


@cache
def sample(folder: Path) -> Floats:
    """Rows of the package's reference sample, spread over it."""
    _, rows = read_table(folder / "reference.csv")
    return rows[:: max(1, len(rows) // ROWS)][:ROWS]


def heads() -> list[tuple[Path, str]]:
    return [(f, path.name) for f in FOLDERS for path in sorted((f / "heads").iterdir())]


@pytest.fixture(params=heads(), ids=lambda p: f"{p[0].name}-{p[1]}")
def head_of(request: pytest.FixtureRequest) -> tuple[Package, Head, Floats]:
    """A package, one of its heads, and rows to ask it about."""
    folder, name = request.param
    package = package_in(folder)
    return package, next(h for h in package.heads if h.id == name), sample(folder)


Asked = tuple[Package, Head, Floats]


def test_every_model_the_product_names_is_here() -> None:
    """Service ids equal model ids: four packages with eight outcomes."""
    assert {folder.name for folder in FOLDERS} == {
        "copd-deterioration", "crc-surgery", "hf-deterioration", "readmission-30d",
    }  # fmt: skip
    assert len(heads()) == 8


def test_points_add_up_to_the_risk_less_the_reference(head_of: Asked) -> None:
    _, head, rows = head_of
    points, risk = head.trees.points(rows), head.trees.risk(rows)
    gap = points.sum(axis=1) - 100 * (risk - head.trees.reference_risk)
    assert np.abs(gap).max() <= 1e-4


def test_no_constrained_feature_ever_moves_the_risk_the_wrong_way(head_of: Asked) -> None:
    """Each one swept over twenty values of its own, for fifty patients: exact."""
    package, head, rows = head_of
    some = rows[::4]
    for column, feature in enumerate(package.manifest.inputs):
        known = rows[:, column][~np.isnan(rows[:, column])]
        if not feature.monotone or not known.size:
            continue
        swept = []
        for value in np.linspace(known.min(), known.max(), 20):
            there = some.copy()
            there[:, column] = value
            swept.append(head.trees.risk(there))
        steps = feature.monotone * np.diff(np.array(swept), axis=0)
        assert (steps >= 0).all(), feature.name


def test_the_comparison_group_has_the_mean_risk_of_those_fitted_on(head_of: Asked) -> None:
    """Within 0.1 point, of far more than a thousand patients."""
    package, head, _ = head_of
    metrics = msgspec.json.decode((package.folder / "metrics.json").read_bytes())
    said = metrics["heads"][head.id]["background"]
    assert said["comparable_patients"] >= 1_000
    assert abs(head.trees.reference_risk - said["comparable_mean_risk"]) <= 0.001


def test_no_category_carries_the_model_alone(head_of: Asked) -> None:
    """More than 60 per cent of the weight in one would be a leak, or another model."""
    package, head, rows = head_of
    weight = np.abs(head.trees.points(rows)).mean(axis=0)
    categories = np.array([feature.category for feature in package.manifest.inputs])
    shares = {str(c): float(weight[categories == c].sum() / weight.sum()) for c in set(categories)}
    assert max(shares.values()) < 0.6, shares


def test_a_missing_value_is_never_worth_much_more_than_the_best_one(head_of: Asked) -> None:
    """Else not measuring would pay: at most a point, or a quarter of the patient's own risk."""
    package, head, rows = head_of
    some = rows[::4]
    for column, feature in enumerate(package.manifest.inputs):
        known = rows[:, column][~np.isnan(rows[:, column])]
        if known.size < len(rows) / 20:
            continue
        best = np.min([head.trees.risk(_with(some, column, v)) for v in np.unique(known)[:40]], 0)
        hidden = head.trees.risk(_with(some, column, np.nan))
        assert ((best - hidden) <= np.maximum(0.01, 0.25 * best)).all(), feature.name


def _with(rows: Floats, column: int, value: float) -> Floats:
    there = rows.copy()
    there[:, column] = value
    return there


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_everything_a_card_can_say_fits_and_stands_in_both_languages(folder: Path) -> None:
    """Titles, labels and phrases: there, and not the same where the words differ."""
    manifest = package_in(folder).manifest
    texts = [manifest.title, manifest.description, *(c.label for c in manifest.categories)]
    texts += [text for h in manifest.heads for text in (h.title, h.says)]
    texts += [text for r in manifest.rules for text in (r.label, r.action)]
    texts += [f.label for f in manifest.features]
    assert all(text.da.strip() and text.en.strip() for text in texts)
    assert manifest.description.da != manifest.description.en
    assert all(len(h.title.da) <= 60 and len(h.title.en) <= 60 for h in manifest.heads)


def test_the_demo_serves_every_model() -> None:
    """All packages pass their checks where synthetic models are allowed."""
    from cds_service.service import open_registry

    registry = open_registry(Settings(profile="demo"))
    assert registry.refused == {}
    assert {package.id for package in registry.packages.values()} == {f.name for f in FOLDERS}
