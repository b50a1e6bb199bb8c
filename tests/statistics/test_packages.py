"""What every bundled package must hold, head by head, on its own sample of training features."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cds_service.settings import Settings
from models.package import Head, Package, load_package, read_table
from models.registry import BUNDLED, package_folders
from models.trees import Trees

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


def category_points(package: Package, points: Floats) -> Floats:
    """Points by category, (n, categories), in the manifest's order of categories."""
    names = [feature.category for feature in package.manifest.inputs]
    members = [[n == c.id for n in names] for c in package.manifest.categories]
    return np.stack([points[:, np.array(one)].sum(axis=1) for one in members], axis=1)


@pytest.mark.slow
def test_a_twin_with_a_worse_value_gets_no_fewer_points_for_it(head_of: Asked) -> None:
    """Each constrained feature at its 1st, 50th and 99th percentile, for four patients."""
    package, head, rows = head_of
    some = rows[::50]
    for column, feature in enumerate(package.manifest.inputs):
        known = rows[:, column][~np.isnan(rows[:, column])]
        if not feature.monotone or not known.size:
            continue
        steps = np.percentile(known, [1, 50, 99])[:: feature.monotone]
        points = [head.model.points(_with(some, column, value))[:, column] for value in steps]
        assert np.diff(np.array(points), axis=0).min() >= -1e-4, feature.name


JITTER = {
    "pulse": 2.0, "pulse_delta": 0.4, "pulse_above_60": 2.0, "spo2": 1.0, "spo2_delta": 1.0,
    "weight_gain_week": 0.2, "weight_gain_30d": 0.2, "weight_above_dry": 0.2,
}  # fmt: skip
"""Measuring again, uniform to either side: pulse 2/min of an own spread of 5, saturation 1 % of an
own spread of 1 (Hurst 2010), weight 0.2 kg."""
NOISE = {
    "haemoglobin": 0.02, "creatinine": 0.04, "creatinine_now": 0.04, "albumin": 0.03, "crp": 0.05,
    "leukocytes": 0.05, "platelets": 0.05, "nt_probnp": 0.05, "egfr": 0.04,
}  # fmt: skip
"""Analytical noise of blood tests, as a share of the value: design choice of the generators."""


def _measured_again(package: Package, rows: Floats) -> Floats:
    draw, again = np.random.default_rng(1), rows.copy()
    for column, name in enumerate(package.columns):
        again[:, column] += JITTER.get(name, 0.0) * draw.uniform(-1, 1, len(rows))
        again[:, column] *= 1 + NOISE.get(name, 0.0) * draw.normal(0, 1, len(rows))
    return again


@pytest.mark.slow
def test_measuring_again_seldom_changes_the_three_heaviest_categories(head_of: Asked) -> None:
    package, head, rows = head_of
    assert set(package.columns) & (set(JITTER) | set(NOISE))
    tops = []
    for seen in (rows, _measured_again(package, rows)):
        weight = np.abs(category_points(package, head.model.points(seen)))
        tops.append([set(row) for row in np.argsort(-weight, axis=1)[:, :3].tolist()])
    overlap = [len(a & b) / len(a | b) for a, b in zip(*tops, strict=True)]
    print({"median": float(np.median(overlap)), "mean": float(np.mean(overlap))})
    assert np.median(overlap) >= 0.7


@pytest.mark.slow
def test_another_comparison_group_ranks_the_categories_alike(head_of: Asked) -> None:
    """A hundred other patients in the background: rank correlation of the weights at least 0.9."""
    package, head, rows = head_of
    _, reference = read_table(package.folder / "reference.csv")
    others = reference[np.random.default_rng(3).choice(len(reference), 100, replace=False)]
    weights = [
        np.abs(category_points(package, model.points(rows[::2]))).mean(axis=0)
        for model in (head.model, Trees(head.trees.booster, others, package.columns))
    ]
    assert spearmanr(*weights).statistic >= 0.9


@pytest.mark.slow
def test_what_weighs_most_moves_the_risk_most_when_it_is_taken_away(head_of: Asked) -> None:
    """The heaviest category's values exchanged for the comparison group's: the risk goes the way
    the points say, and further than for another category of the same patient."""
    package, head, rows = head_of
    _, background = read_table(package.folder / "heads" / head.id / "background.csv")
    draw, some = np.random.default_rng(2), rows[::2]
    points, risk = category_points(package, head.model.points(some)), head.model.risk(some)
    names = [feature.category for feature in package.manifest.inputs]
    moved = np.empty_like(points)
    for place, category in enumerate(package.manifest.categories):
        members = np.array([name == category.id for name in names])
        taken = []
        for other in background[draw.choice(len(background), 20, replace=False)]:
            there = some.copy()
            there[:, members] = other[members]
            taken.append(head.model.risk(there))
        moved[:, place] = 100 * (risk - np.mean(taken, axis=0))
    patients, heaviest = np.arange(len(some)), np.argmax(np.abs(points), axis=1)
    others = (heaviest + draw.integers(1, points.shape[1], len(some))) % points.shape[1]
    as_said = np.sign(moved[patients, heaviest]) == np.sign(points[patients, heaviest])
    further = np.abs(moved[patients, heaviest]).mean(), np.abs(moved[patients, others]).mean()
    print({"as said": float(as_said.mean()), "heaviest and another": further})
    assert as_said.mean() >= 0.95
    assert further[0] > 2 * further[1]


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
