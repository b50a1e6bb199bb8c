"""Admission: a package is served as it was made, or refused with the file and the fault named."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fhir_adapters.clock import parse_time
from models.errors import PackageRefused, UnknownModel
from models.package import (
    Package,
    load_package,
    read_specification,
    read_table,
    table_text,
    verify_checksums,
    write_checksums,
)
from models.registry import BUNDLED, admit, load_registry, package_folders, package_name

NAME = "readmission-30d"
HEAD = "heads/readmission"
ROOM = Path(__file__).parents[3] / "models"
Fault = Callable[[Path], object]
DEEP = b"x = " + b"[" * 20_000 + b"]" * 20_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled package, to break."""
    return Path(shutil.copytree(BUNDLED / NAME, tmp_path / NAME))


def in_text(name: str, old: str, new: str) -> Fault:
    """The first `old` in a file becomes `new`."""

    def fault(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return fault


def in_baseline(**fields: object) -> Fault:
    """Other fields in the baseline's JSON."""

    def fault(folder: Path) -> None:
        path = folder / HEAD / "baseline.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return fault


def the_baseline_columns_turned_round(folder: Path) -> None:
    path = folder / HEAD / "baseline.json"
    baseline = json.loads(path.read_text())
    path.write_text(json.dumps(baseline | {"columns": baseline["columns"][::-1]}))


def in_example(change: Callable[[dict[str, Any]], object]) -> Fault:
    """A change of the first worked example."""

    def fault(folder: Path) -> None:
        path = folder / "examples" / "01.json"
        example = json.loads(path.read_text(encoding="utf-8"))
        change(example)
        path.write_text(json.dumps(example), encoding="utf-8")

    return fault


def last_cell(name: str, cell: str) -> Fault:
    """Another number in the last cell of a CSV file."""

    def fault(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8").rstrip("\n")
        (folder / name).write_text(f"{text[: text.rindex(',')]},{cell}\n", encoding="utf-8")

    return fault


def swapped_columns(name: str) -> Fault:
    """The first two columns of a CSV file under each other's names."""

    def fault(folder: Path) -> None:
        head, _, rest = (folder / name).read_text(encoding="utf-8").partition("\n")
        first, second, *others = head.split(",")
        (folder / name).write_text(",".join([second, first, *others]) + "\n" + rest)

    return fault


def only_header(name: str) -> Fault:
    """A CSV file of column names alone."""

    def fault(folder: Path) -> None:
        head = (folder / name).read_text(encoding="utf-8").partition("\n")[0]
        (folder / name).write_text(head + "\n")

    return fault


def written(name: str, content: bytes) -> Fault:
    """A file of other bytes, or one more file."""
    return lambda folder: (folder / name).write_bytes(content)


def the_points(example: dict[str, Any]) -> dict[str, float]:
    points: dict[str, float] = example["expected"]["readmission"]["points"]
    return points


# ---- the bundled package --------------------------------------------------------------------


def test_the_bundled_package_is_admitted(package: Package) -> None:
    assert package.id == NAME
    assert re.fullmatch(r"[0-9a-f]{64}", package.checksum)
    assert package.columns == [feature.name for feature in package.manifest.inputs]


def test_the_checksum_is_the_same_wherever_the_package_lies(package: Package, folder: Path) -> None:
    assert verify_checksums(folder) == package.checksum


def test_a_synthetic_package_is_refused_where_synthetic_models_are_not_allowed(
    folder: Path,
) -> None:
    with pytest.raises(PackageRefused, match="trained on synthetic data"):
        admit(folder, allow_synthetic=False)


def test_a_package_can_be_read_for_training_before_it_has_numbers(folder: Path) -> None:
    shutil.rmtree(folder / "heads")
    (folder / "SHA256SUMS").unlink()
    assert read_specification(folder).columns == load_package(BUNDLED / NAME).columns


# ---- checksums ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (in_text("MODEL_CARD.md", "SYNTHETIC", "synthetic"), "MODEL_CARD.md is not what SHA256SUM"),
        (
            in_text("manifest.toml", "ld = 0.2", "ld = 0.3"),
            "manifest.toml is not what SHA256SUMS says",
        ),
        (last_cell(f"{HEAD}/background.csv", "0.5"), "background.csv is not what SHA256SUMS says"),
        (lambda f: (f / "examples/01.json").unlink(), "examples/01.json is missing"),
        (lambda f: (f / HEAD / "booster.ubj").unlink(), "booster.ubj is missing"),
        (written("examples/99.json", b"one more"), "examples/99.json is not in SHA256SUMS"),
        (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (written("SHA256SUMS", b""), "MODEL_CARD.md is not in SHA256SUMS"),
        (written("SHA256SUMS", b"\xff\xfe\n"), "SHA256SUMS is not one checksum and name on ever"),
        (in_text("SHA256SUMS", "\n", "\x0b"), "SHA256SUMS is not one checksum and name on every"),
    ],
)
def test_a_file_that_is_not_as_it_was_listed_is_named(
    folder: Path, fault: Fault, said: str
) -> None:
    fault(folder)
    with pytest.raises(PackageRefused, match=re.escape(said)):
        admit(folder, allow_synthetic=True)


@pytest.mark.parametrize(
    "name",
    [
        "all-our-patients.csv",
        "notes.md",
        "examples/patient.json",
        "examples/more/01.json",
        "heads/notes.json",
        "heads/another/booster.ubj",
        f"{HEAD}/patients.csv",
        "heads/SHA256SUMS",
    ],
)
def test_a_file_no_package_has_a_place_for_is_refused_by_name(folder: Path, name: str) -> None:
    """Also where it is in the list of checksums: what is sealed is what travels."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"1\n")
    write_checksums(folder)
    with pytest.raises(PackageRefused) as refused:
        verify_checksums(folder)
    assert refused.value.fault.startswith(f"{name} is ")


def test_a_checksum_list_has_line_feeds_alone(folder: Path) -> None:
    """Its checksum is that of its bytes, which is what was signed."""
    sums = folder / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(PackageRefused, match="SHA256SUMS is not one checksum and name on every"):
        verify_checksums(folder)


def test_a_checksum_list_can_name_no_file_outside_the_package(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../../outside\n")
    with pytest.raises(PackageRefused, match=re.escape("../../outside is missing")):
        verify_checksums(folder)


# ---- files that hold together with their checksums, and are wrong all the same --------------

FAULTS: list[tuple[str, Fault, str]] = [
    # manifest
    ("unknown word", in_text("manifest.toml", "max_depth", "max_dept"), "unknown field `max_dept`"),
    ("wrong type", in_text("manifest.toml", "rounds = 400", 'rounds = "many"'), "$.training.round"),
    ("not TOML", in_text("manifest.toml", "[index]", "[index"), "manifest.toml is not TOML"),
    ("not text", written("manifest.toml", b"\xff\xfe"), "manifest.toml is not UTF-8"),
    ("nested too deep", written("manifest.toml", DEEP), "manifest.toml is not TOML: maximum recur"),
    (
        "version too long",
        in_text("manifest.toml", '"1.0.0"', f'"1.0.0-{"a" * 27}"'),
        "of length <= 32 - at `$.version`",
    ),
    ("no manifest", lambda f: (f / "manifest.toml").unlink(), "manifest.toml: No such file"),
    ("unknown concept", in_text("manifest.toml", '["pulse"]', '["puls"]'), "called 'puls'"),
    (
        "unknown recipe",
        in_text("manifest.toml", '"count"', '"counted"'),
        "features.acute_admission",
    ),
    ("unknown unit of time", in_text("manifest.toml", "365 d", "365 moons"), "not a point in time"),
    ("unsupplied concept", in_text("manifest.toml", '"pulse", ', ""), "no prefetch key supplies"),
    (
        "a search that brings other resources",
        in_text("manifest.toml", "_sort=-date&_count=200", "_include=Encounter:subject"),
        "_include is no parameter",
    ),
    ("another type", in_text("manifest.toml", '"Condition?', '"Procedure?'), "asks for Procedure"),
    # trees
    ("booster is none", written(f"{HEAD}/booster.ubj", b"no booster"), "unreadable"),
    ("booster is empty", written(f"{HEAD}/booster.ubj", b""), "unreadable"),
    ("no booster", lambda f: (f / HEAD / "booster.ubj").unlink(), "unreadable"),
    # background and reference
    ("background columns", swapped_columns(f"{HEAD}/background.csv"), "columns are not the manif"),
    ("reference columns", swapped_columns("reference.csv"), "columns are not the manifest's"),
    ("background word", last_cell(f"{HEAD}/background.csv", "high"), "could not convert"),
    ("background inf", last_cell(f"{HEAD}/background.csv", "inf"), "infinite"),
    ("reference inf", last_cell("reference.csv", "-inf"), "infinite"),
    ("background short row", last_cell(f"{HEAD}/background.csv", "1\n2"), "unreadable"),
    ("no background rows", only_header(f"{HEAD}/background.csv"), "no rows"),
    ("empty background", written(f"{HEAD}/background.csv", b""), "background.csv: is empty"),
    ("empty reference", written("reference.csv", b""), "reference.csv: is empty"),
    # baseline
    ("baseline columns", the_baseline_columns_turned_round, "columns are not the manifest's"),
    ("baseline weights", in_baseline(weight=[0.1]), "one number for each column"),
    ("baseline NaN", in_baseline(intercept=math.nan), "unreadable"),
    ("baseline word", in_baseline(penalty=1.0), "unknown field `penalty`"),
    # worked examples
    ("no examples", lambda f: shutil.rmtree(f / "examples"), "no worked examples"),
    ("example is no JSON", written("examples/01.json", b"{"), "01.json"),
    ("example risk", in_example(lambda e: the_risk_moves(e, 2e-6)), "01.json: replays"),
    ("example points", in_example(lambda e: the_points(e).update(age=9.0)), "01.json: replays"),
    ("example column", in_example(lambda e: the_points(e).pop("age")), "01.json: its columns"),
    ("example one more", in_example(lambda e: the_points(e).update(luck=0.0)), "01.json: its colu"),
    ("example head", in_example(lambda e: e.update(expected={})), "01.json: nothing expected of"),
    ("example time", in_example(lambda e: e.update(as_of="yesterday")), "01.json: Invalid"),
    ("example bundle", in_example(lambda e: e.update(bundle={})), "01.json: expected a Bundle"),
    ("example patient", in_example(lambda e: e["bundle"].update(entry=[])), "expected one Patient"),
    # what runs code when read
    ("a pickle", written("model.pkl", b"\x80\x04K\x01."), "model.pkl is of a kind no package hold"),
]


def the_risk_moves(example: dict[str, Any], by: float) -> None:
    example["expected"]["readmission"]["risk"] += by


@pytest.mark.parametrize(("fault", "said"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_package_with_a_fault_is_refused_and_the_fault_named(
    folder: Path, fault: Fault, said: str
) -> None:
    """Also where somebody wrote the checksums anew."""
    fault(folder)
    write_checksums(folder)
    with pytest.raises(PackageRefused, match=re.escape(said)):
        admit(folder, allow_synthetic=True)


def test_an_example_that_replays_within_the_tolerance_passes(folder: Path) -> None:
    in_example(lambda e: the_risk_moves(e, 5e-7))(folder)
    write_checksums(folder)
    assert admit(folder, allow_synthetic=True).id == NAME


def test_a_refused_package_is_kept_with_its_fault_and_the_others_are_served(
    folder: Path, package: Package
) -> None:
    """One broken package neither stops the service nor is silently skipped."""
    (folder / "examples" / "01.json").unlink()
    registry = load_registry([folder], allow_synthetic=True)
    assert not registry.packages
    assert registry.refused == {NAME: "examples/01.json is missing"}
    with pytest.raises(UnknownModel):
        registry.find(NAME)
    assert load_registry([BUNDLED / NAME], allow_synthetic=True).find(NAME).id == package.id


def test_a_second_package_of_one_id_does_not_replace_the_first(folder: Path) -> None:
    registry = load_registry([BUNDLED / NAME, folder], allow_synthetic=True)
    assert registry.find(NAME).folder == BUNDLED / NAME
    assert registry.refused == {NAME: "another package of this id and version is here already"}


def test_versions_of_an_id_lie_beside_each_other(folder: Path) -> None:
    """`ID/VERSION`, the version being the manifest's; what is hidden is not looked at."""
    place = folder.parent / "site" / NAME / "1.0.0"
    shutil.copytree(folder, place)
    shutil.copytree(folder, folder.parent / "site" / ".unpacking" / "1.0.0")
    (found,) = package_folders(folder.parent / "site")
    assert found == place
    assert package_name(found) == f"{NAME}@1.0.0"
    assert list(load_registry([found], allow_synthetic=True).packages) == [f"{NAME}@1.0.0"]
    place.rename(place.with_name("1.0.1"))
    refused = load_registry([place.with_name("1.0.1")], allow_synthetic=True).refused
    assert refused == {f"{NAME}@1.0.1": "the folder is 1.0.1, the manifest says version 1.0.0"}


def test_only_folders_with_a_manifest_are_packages(folder: Path) -> None:
    (folder.parent / "notes").mkdir()
    assert package_folders(folder.parent) == [folder]
    assert NAME in [path.name for path in package_folders(BUNDLED)]
    assert "scores" not in [path.name for path in package_folders(BUNDLED)]


# ---- no pickle anywhere ---------------------------------------------------------------------


def test_nothing_in_the_models_room_pickles() -> None:
    """A pickle runs code when it is read; models are numbers and words."""
    files = [p for p in ROOM.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert files
    assert not [p for p in files if p.suffix in {".pkl", ".pickle", ".joblib", ".dill", ".npy"}]
    naming = re.compile(r"\b(pickle|cloudpickle|joblib|dill|marshal|shelve)\b")
    sources = [p for p in files if p.suffix == ".py"]
    imports = [
        line
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith(("import ", "from ")) and naming.search(line)
    ]
    assert not imports


# ---- tables and ranges ----------------------------------------------------------------------


def test_a_table_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """Numbers and gaps alike, also numbers that print badly."""
    draw = np.random.default_rng(3)
    rows = draw.normal(size=(30, 4)) * 10.0 ** draw.integers(-300, 300, (30, 4))
    rows[draw.random(rows.shape) < 0.3] = np.nan
    path = tmp_path / "table.csv"
    path.write_text(table_text(["a", "b", "c, d", "e"], rows), encoding="utf-8")
    names, read = read_table(path)
    assert names == ["a", "b", "c, d", "e"]
    assert np.array_equal(read, rows, equal_nan=True)


def test_a_value_is_usual_within_the_first_and_last_hundredth_of_training(
    package: Package,
) -> None:
    names, reference = read_table(package.folder / "reference.csv")
    pulse = reference[:, names.index("pulse")]
    low, high = package.usual["pulse"]
    assert np.nanmean(pulse < low) <= 0.01
    assert np.nanmean(pulse > high) <= 0.01
    assert low < np.nanmedian(pulse) < high


# ---- who the model is not for ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "reason"), [(17.99, "under-18"), (18.0, None), (71.0, None), (None, None)]
)
def test_scope_is_decided_by_the_value_and_the_unknown_excludes_nobody(
    package: Package, age: float | None, reason: str | None
) -> None:
    values: dict[str, float | None] = {rule.feature: 0.0 for rule in package.manifest.scope}
    assert package.outside_scope(values | {"age": age}) == reason


def test_every_scope_rule_and_minimum_has_a_feature_that_can_decide_it(package: Package) -> None:
    for rule in package.manifest.scope:
        assert rule.feature in package.features.specs
    for part in package.manifest.minimum:
        assert set(part.any_of) <= set(package.features.specs)


def test_the_examples_are_about_the_moment_they_say(package: Package) -> None:
    for path in sorted((package.folder / "examples").glob("*.json")):
        assert math.isfinite(parse_time(json.loads(path.read_text(encoding="utf-8"))["as_of"]))
