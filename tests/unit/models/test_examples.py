"""Worked examples: what a package says today of the patients it was sent out with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fhir_adapters.clock import parse_time
from models.errors import PackageRefused
from models.examples import make_example, read_example, replay_examples, row_of_bundle
from models.package import Package, load_package, write_checksums
from models.registry import BUNDLED

NAME = "readmission-30d"


@pytest.fixture(scope="module")
def paths(package: Package) -> list[Path]:
    """The files of the bundled examples."""
    return sorted((package.folder / "examples").glob("*.json"))


def test_all_bundled_examples_replay(package: Package, paths: list[Path]) -> None:
    assert replay_examples(package) == len(paths) >= 3


def test_an_example_made_again_is_the_same_file(package: Package, paths: list[Path]) -> None:
    """Risk and points to the last digit, so that a new version shows in a diff what it changed."""
    for path in paths:
        example = read_example(path)
        made = make_example(package, bytes(example.bundle), parse_time(example.as_of))
        assert json.loads(made) == json.loads(path.read_bytes())


def test_the_examples_span_low_and_high_risks_and_add_up(
    package: Package, paths: list[Path]
) -> None:
    risks = []
    for path in paths:
        expected = read_example(path).expected["readmission"]
        reference = package.heads[0].trees.reference_risk
        assert sum(expected.points.values()) == pytest.approx(
            100 * (expected.risk - reference), abs=1e-4
        )
        risks.append(expected.risk)
    threshold = package.manifest.heads[0].threshold
    assert min(risks) < threshold < max(risks)


def test_the_examples_are_invented_and_eligible(package: Package, paths: list[Path]) -> None:
    for path in paths:
        example = read_example(path)
        row = row_of_bundle(package, bytes(example.bundle), parse_time(example.as_of))
        assert row.index is not None
        resources = [e["resource"] for e in json.loads(bytes(example.bundle))["entry"]]
        (patient,) = [r for r in resources if r["resourceType"] == "Patient"]
        assert patient["id"].startswith("syn-")


def test_the_order_of_resources_in_an_example_is_irrelevant(
    package: Package, paths: list[Path]
) -> None:
    example = read_example(paths[0])
    bundle = json.loads(bytes(example.bundle))
    as_of = parse_time(example.as_of)
    there = row_of_bundle(package, bytes(example.bundle), as_of)
    bundle["entry"].reverse()
    back = row_of_bundle(package, json.dumps(bundle).encode(), as_of)
    assert np.array_equal(
        there.numbers(package.columns), back.numbers(package.columns), equal_nan=True
    )


def test_another_booster_under_the_same_examples_is_found_out(tmp_path: Path) -> None:
    """What a wrong library release would do: every file in place, other answers."""
    folder = Path(shutil.copytree(BUNDLED / NAME, tmp_path / NAME))
    package = load_package(folder)
    booster = package.heads[0].trees.booster
    path = folder / "heads" / "readmission" / "booster.ubj"
    path.write_bytes(bytes(booster[: booster.num_boosted_rounds() // 2].save_raw("ubj")))
    write_checksums(folder)
    with pytest.raises(PackageRefused, match=r"01\.json: replays"):
        replay_examples(load_package(folder))


def test_what_is_not_an_example_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"as_of": "2025-01-01"}')
    with pytest.raises(msgspec.ValidationError, match="bundle"):
        read_example(path)
