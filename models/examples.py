"""Worked examples: synthetic patients a package must score exactly as when it was made.

An example is a JSON file `{"as_of", "bundle", "expected": {head: {"risk", "points"}}}`. Replaying
it on another machine, with another release of a library, shows at admission whether the package
still says the same: risk and points per feature within 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fhir_adapters.clock import parse_time, to_iso
from fhir_adapters.decode import decode_bundle
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow
from models.errors import PackageRefused
from models.package import Package, Specification

TOLERANCE = 1e-6


class Expected(msgspec.Struct, frozen=True):
    """What one head must say: the risk, and the points of every column."""

    risk: float
    points: dict[str, float]


class Example(msgspec.Struct, frozen=True):
    """A patient, a moment, and what every head must say."""

    as_of: str
    bundle: msgspec.Raw
    expected: dict[str, Expected]


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
    expected = {
        head.id: Expected(
            risk=float(head.trees.risk(matrix)[0]),
            points=dict(zip(package.columns, head.trees.points(matrix)[0].tolist(), strict=True)),
        )
        for head in package.heads
    }
    example: Any = Example(to_iso(as_of), msgspec.Raw(bundle), expected)
    return msgspec.json.format(msgspec.json.encode(example), indent=1)


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
    row = row_of_bundle(package, bytes(example.bundle), parse_time(example.as_of))
    matrix = np.array([row.numbers(package.columns)], dtype=np.float64)
    for head in package.heads:
        expected = example.expected.get(head.id)
        if expected is None:
            raise PackageRefused(package.id, f"{name}: nothing expected of head {head.id}")
        risk = float(head.trees.risk(matrix)[0])
        points = head.trees.points(matrix)[0]
        if set(expected.points) != set(package.columns):
            raise PackageRefused(package.id, f"{name}: its columns are not the manifest's")
        wanted = np.array([expected.points[column] for column in package.columns])
        apart = np.abs([risk - expected.risk, *((points - wanted) / 100.0)])
        off = float(apart.max())  # NaN where anything is NaN, which is not within any tolerance
        if not off <= TOLERANCE:
            raise PackageRefused(package.id, f"{name}: replays {off:.1e} away from what it says")
