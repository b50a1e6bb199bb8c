"""Making a whole package of a manifest and a ready model: what the explanation compares with, what
values are usual, worked examples, checksums.

The rows come from whoever trained the model: columns by name, values in the units of the manifest,
an empty cell for a missing value. Nothing is measured: how good the model is, is not known from it.
Called by `varsel models seal`.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.decode import decode_bundle
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record, newest_time
from models.boosters import read_servable, try_booster
from models.engines import xgboost as xgb
from models.errors import PackageRefused
from models.examples import make_example
from models.logistic import read_logistic_of
from models.manifest import folder_id
from models.package import (
    Package,
    Specification,
    load_package,
    naming,
    put_in_place,
    read_specification,
    read_table,
    table_text,
    write_checksums,
)
from models.predict import index_row, verdict_on
from models.registry import admit
from models.training import REFERENCE_ROWS, choose_background

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Material:
    """What a ready model comes with: rows it knows, and patients to make worked examples of.

    `reference`: rows that say which values are usual; None: the rows of `background`.
    `card`: the text of `MODEL_CARD.md`, where the folder has none.
    """

    background: Path
    reference: Path | None
    bundles: list[Path]
    card: str


def seal(folder: Path, material: Material) -> Package:
    """The package a folder becomes, admitted. It is made beside the folder and takes its place by a
    move where it is whole; until then the folder is as it was.

    Raises PackageRefused naming the file and the field that is wrong.
    """
    folder = folder.resolve()
    with tempfile.TemporaryDirectory(prefix=".sealing-", dir=folder.parent) as room:
        made = Path(room) / folder.relative_to(folder.parents[1])
        shutil.copytree(folder, made)
        try:
            _write_numbers(made, material)
            _write_examples(made, material.bundles)
        except ValueError as error:
            raise PackageRefused(folder_id(folder), str(error)) from None
        package = admit(made, allow_synthetic=True)
        try:
            put_in_place(made, folder, Path(room) / "before")
        except OSError as error:
            raise PackageRefused(folder_id(folder), f"{folder}: {error.strerror}") from None
    return dataclasses.replace(package, folder=folder)


def _write_numbers(folder: Path, material: Material) -> None:
    spec = read_specification(folder)
    rows = rows_of(spec, material.background)
    reference = rows_of(spec, material.reference) if material.reference else rows
    for head_id, risks in _ranked_by(folder, spec, rows).items():
        text = table_text(spec.columns, choose_background(rows, risks))
        (folder / "heads" / head_id / "background.csv").write_text(text, encoding="utf-8")
    text = table_text(spec.columns, _sample(reference))
    (folder / "reference.csv").write_text(text, encoding="utf-8")
    if not (folder / "MODEL_CARD.md").exists():
        (folder / "MODEL_CARD.md").write_text(material.card, encoding="utf-8")


def rows_of(spec: Specification, path: Path) -> Floats:
    """The rows of a CSV file in the order of the model's columns, whatever order the file has.

    Raises ValueError naming the file and the column.
    """
    with naming(path.parent, path):
        names, rows = read_table(path)
        for name in spec.columns:
            if name not in names:
                raise ValueError(f"the feature {name!r} is no column of it")
        for name in names:
            if name not in spec.columns:
                raise ValueError(f"the column {name!r} is no feature of the model")
    return rows[:, [names.index(name) for name in spec.columns]]


def _ranked_by(folder: Path, spec: Specification, rows: Floats) -> dict[str, Floats]:
    """Per head the risk of every row, and per ranking the probability of its first class."""
    risks: dict[str, Floats] = {}
    for head in spec.manifest.heads:
        part = folder / "heads" / head.id
        if head.kind == "logistic":
            with naming(folder, part / "logistic.json") as path:
                risks[head.id] = read_logistic_of(path, spec.columns).risk(rows)
        else:
            with naming(folder, part / "booster.ubj") as path:
                try_booster(path)
                risks[head.id] = _predicted(read_servable(path, spec.columns), rows)
    for ranking in spec.manifest.rankings:
        with naming(folder, folder / "heads" / ranking.id / "booster.ubj") as path:
            try_booster(path)
            booster = read_servable(path, spec.columns, classes=len(ranking.classes))
            risks[ranking.id] = _predicted(booster, rows)[:, 0]
    return risks


def _predicted(booster: xgb.Booster, rows: Floats) -> Floats:
    return np.asarray(booster.inplace_predict(rows), dtype=np.float64)


def _sample(rows: Floats) -> Floats:
    """At most 2,000 rows, always the same ones of the same rows."""
    if len(rows) <= REFERENCE_ROWS:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), REFERENCE_ROWS, replace=False)
    return np.asarray(rows[np.sort(chosen)])


def _write_examples(folder: Path, bundles: list[Path]) -> None:
    """A worked example of each Bundle, asked at its newest resource."""
    examples = folder / "examples"
    shutil.rmtree(examples, ignore_errors=True)
    examples.mkdir()
    write_checksums(folder)
    package = load_package(folder)
    for place, path in enumerate(bundles, 1):
        with naming(path.parent, path):
            text = _example(package, path.read_bytes())
        (examples / f"{place:02}.json").write_bytes(text)
    write_checksums(folder)


def _example(package: Package, bundle: bytes) -> bytes:
    """The worked example of a Bundle; ValueError for one the model gives no number of."""
    try:
        gathered = decode_bundle(bundle)
        as_of = newest_time(gathered)
        record = build_record(gathered, package.wanted)
    except UnreadableInput as error:
        raise ValueError(str(error)) from None
    if as_of is None:
        raise ValueError("nothing in it carries a time")
    now = package.features.compute(record, as_of)
    verdict = verdict_on(package, record, index_row(package, record, now), now=now)
    if verdict.status != "scored":
        raise ValueError(f"the model gives no number of it: {verdict.status} ({verdict.reason})")
    return make_example(package, bundle, as_of)
