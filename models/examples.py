"""Worked examples: synthetic patients a package must score exactly as when it was made.

An example is a JSON file `{"as_of", "bundle", "expected": {head: {"risk", "points"}}}`, with
`"rankings": {ranking: {class: {"probability", "weights"}}}` where the package ranks classes.
A package trained on real patients has no patient to show: its examples hold `"features"`, values
of the columns put together from many patients, in place of `as_of` and `bundle`. Replaying it on
another machine, with another release of a library, shows at admission whether the package still
says the same: risk, points, probabilities and weights within 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fhir_adapters.clock import parse_time, to_iso
from fhir_adapters.decode import decode_bundle
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow
from models.errors import PackageRefused
from models.package import Head, Package, RankingHead, Specification

TOLERANCE = 1e-6
Matrix = NDArray[np.float64]


class Expected(msgspec.Struct, frozen=True):
    """What one head must say: the risk, and the points of every column."""

    risk: float
    points: dict[str, float]


class ExpectedClass(msgspec.Struct, frozen=True):
    """What a ranking must say of one class: its probability, and the log-odds of every column."""

    probability: float
    weights: dict[str, float]


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """A patient and a moment, or the values of the columns, and what every head and ranking must
    say."""

    as_of: str = ""
    bundle: msgspec.Raw = msgspec.Raw()
    expected: dict[str, Expected] = {}
    rankings: dict[str, dict[str, ExpectedClass]] = {}
    features: dict[str, float | None] | None = None

    def __post_init__(self) -> None:
        if (self.features is None) != bool(self.as_of and bytes(self.bundle)):
            raise ValueError("it needs as_of and bundle, or features")


def read_example(path: Path) -> Example:
    """The example in a file; msgspec.DecodeError where it is none."""
    return msgspec.json.decode(path.read_bytes(), type=Example)


def row_of_bundle(spec: Specification, bundle: bytes, as_of: float) -> FeatureRow:
    """The features of the one patient of a Bundle at a moment."""
    record = build_record(decode_bundle(bundle), spec.wanted)
    return spec.features.compute(record, as_of)


def make_example(package: Package, bundle: bytes, as_of: float) -> bytes:
    """The file of an example: what the package says of the patient now."""
    row = row_of_bundle(package, bundle, as_of)
    matrix = np.array([row.numbers(package.columns)], dtype=np.float64)
    example: Any = Example(to_iso(as_of), msgspec.Raw(bundle), *_said(package, matrix))
    return msgspec.json.format(msgspec.json.encode(example), indent=1)


def make_feature_example(package: Package, row: Matrix) -> bytes:
    """The file of an example that is nobody's record: what the package says of the values of its
    columns, (columns,), NaN missing. Replayed at the model's entrance, past the feature path."""
    values = (None if np.isnan(value) else float(value) for value in row)
    features = dict(zip(package.columns, values, strict=True))
    expected, rankings = _said(package, row[None, :])
    example: Any = Example(expected=expected, rankings=rankings, features=features)
    return msgspec.json.format(msgspec.json.encode(example), indent=1)


def _said(
    package: Package, matrix: Matrix
) -> tuple[dict[str, Expected], dict[str, dict[str, ExpectedClass]]]:
    """What every head and every ranking says of one row."""
    return (
        {head.id: _said_of(package, head, matrix) for head in package.heads},
        {ranking.id: _ranked(package, ranking, matrix) for ranking in package.rankings},
    )


def _entrance(package: Package, example: Example) -> Matrix:
    """The row the models see, (1, columns); ValueError for values of other columns."""
    if example.features is None:
        row = row_of_bundle(package, bytes(example.bundle), parse_time(example.as_of))
        return np.array([row.numbers(package.columns)], dtype=np.float64)
    if set(example.features) != set(package.columns):
        raise ValueError("its features are not the manifest's columns")
    values = (example.features[column] for column in package.columns)
    return np.array([[np.nan if v is None else v for v in values]], dtype=np.float64)


def _said_of(package: Package, head: Head, matrix: Matrix) -> Expected:
    points = head.model.points(matrix)[0].tolist()
    return Expected(
        risk=float(head.model.risk(matrix)[0]),
        points=dict(zip(package.columns, points, strict=True)),
    )


def _ranked(package: Package, ranking: RankingHead, matrix: Matrix) -> dict[str, ExpectedClass]:
    words = next(words for words in package.manifest.rankings if words.id == ranking.id)
    probabilities = ranking.model.probabilities(matrix)[0]
    weights = ranking.model.weights(matrix)[0]
    return {
        one.id: ExpectedClass(
            probability=float(probabilities[place]),
            weights=dict(zip(package.columns, weights[:, place].tolist(), strict=True)),
        )
        for place, one in enumerate(words.classes)
    }


def replay_examples(package: Package) -> int:
    """How many examples replayed to the same answer.

    Raises PackageRefused where there are none, or one replays to another answer.
    """
    paths = sorted((package.folder / "examples").glob("*.json"))
    if not paths:
        raise PackageRefused(package.id, "no worked examples")
    for path in paths:
        try:
            example = read_example(path)
        except msgspec.DecodeError as error:
            raise PackageRefused(package.id, f"{path.name}: {error}") from None
        try:
            _replay(package, path.name, example)
        except (UnreadableInput, ValueError) as error:
            raise PackageRefused(package.id, f"{path.name}: {error}") from None
    return len(paths)


def _replay(package: Package, name: str, example: Example) -> None:
    matrix = _entrance(package, example)
    for head in package.heads:
        expected = example.expected.get(head.id)
        if expected is None:
            raise PackageRefused(package.id, f"{name}: nothing expected of head {head.id}")
        found = _said_of(package, head, matrix)
        apart = [found.risk - expected.risk, *_apart(found.points, expected.points, scale=100.0)]
        _require_same(package, name, apart)
    for ranking in package.rankings:
        classes = example.rankings.get(ranking.id)
        ranked = _ranked(package, ranking, matrix)
        if classes is None or set(classes) != set(ranked):
            raise PackageRefused(package.id, f"{name}: not every class of {ranking.id} is expected")
        for one, wanted in classes.items():
            found_class = ranked[one]
            apart = _apart(found_class.weights, wanted.weights)
            _require_same(package, name, [found_class.probability - wanted.probability, *apart])


def _apart(found: dict[str, float], wanted: dict[str, float], *, scale: float = 1.0) -> list[float]:
    """The distance of every column, in units of `scale`; ValueError for other columns."""
    if set(found) != set(wanted):
        raise ValueError("its columns are not the manifest's")
    return [(found[column] - wanted[column]) / scale for column in found]


def _require_same(package: Package, name: str, apart: list[float]) -> None:
    off = float(np.abs(apart).max())  # NaN where anything is NaN, which is within no tolerance
    if not off <= TOLERANCE:
        raise PackageRefused(package.id, f"{name}: replays {off:.1e} away from what it says")
