"""`varsel models seal`: rows and patients that do not fit are refused, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.errors import PackageRefused
from models.package import load_package, read_table
from models.registry import BUNDLED
from models.sealing import Material, seal

NAME = "readmission-30d"
HEAD = Path("heads") / "readmission"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundled package with its trees and manifest alone, as a ready model comes."""
    made = tmp_path / "models" / NAME
    (made / HEAD).mkdir(parents=True)
    for name in ("manifest.toml", HEAD / "booster.ubj"):
        shutil.copy(BUNDLED / NAME / name, made / name)
    return made


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """The bundled package's own rows, and two of its synthetic patients as Bundles."""
    bundles = []
    for name in ("01.json", "02.json"):
        example = json.loads((BUNDLED / NAME / "examples" / name).read_text(encoding="utf-8"))
        path = tmp_path / f"patient-{name}"
        path.write_text(json.dumps(example["bundle"]), encoding="utf-8")
        bundles.append(path)
    return Material(BUNDLED / NAME / "reference.csv", None, bundles, "# Card\n")


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_ready_model_becomes_a_package(folder: Path, material: Material) -> None:
    """With a background of the rows' mean risk, no baseline, and examples that replay."""
    seal(folder, material)
    package = load_package(folder)
    rows = read_table(material.background)[1]
    head = package.heads[0]
    assert head.simpler is None
    assert abs(head.model.reference_risk - float(head.model.risk(rows).mean())) <= 0.001
    assert len(read_table(folder / HEAD / "background.csv")[1]) == 100
    assert (folder / "MODEL_CARD.md").read_text() == "# Card\n"
    assert {"examples/01.json", "examples/02.json", "SHA256SUMS"} <= files_of(folder)
    assert [p.name for p in folder.parent.iterdir()] == [NAME]


def test_a_card_that_somebody_wrote_is_kept(folder: Path, material: Material) -> None:
    (folder / "MODEL_CARD.md").write_text("# Ours\n")
    seal(folder, material)
    assert (folder / "MODEL_CARD.md").read_text() == "# Ours\n"


def test_columns_may_stand_in_any_order(folder: Path, material: Material, tmp_path: Path) -> None:
    """They are taken by name."""
    names, rows = read_table(material.background)
    turned = tmp_path / "turned.csv"
    lines = [",".join(names[::-1])]
    lines += [
        ",".join("" if np.isnan(v) else repr(float(v)) for v in row[::-1]) for row in rows[:300]
    ]
    turned.write_text("\n".join(lines))
    straight = tmp_path / "straight.csv"
    lines = [",".join(names)]
    lines += [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows[:300]]
    straight.write_text("\n".join(lines))
    found = []
    for path in (turned, straight):
        seal(folder, Material(path, None, material.bundles, ""))
        found.append((folder / HEAD / "background.csv").read_text())
    assert found[0] == found[1]


def test_a_file_no_package_has_a_place_for_is_not_sealed(folder: Path, material: Material) -> None:
    (folder / "all-our-patients.csv").write_text("name\n")
    before = files_of(folder)
    with pytest.raises(PackageRefused, match=r"all-our-patients\.csv is no file of a package"):
        seal(folder, material)
    assert files_of(folder) == before


def test_a_damaged_booster_is_refused_and_does_not_end_the_process(
    folder: Path, material: Material
) -> None:
    booster = folder / HEAD / "booster.ubj"
    booster.write_bytes(booster.read_bytes()[:3000])
    with pytest.raises(PackageRefused, match=r"heads/readmission/booster\.ubj: "):
        seal(folder, material)


def test_where_the_sealed_folder_cannot_be_moved_in_the_old_one_is_there(
    folder: Path, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = files_of(folder), Path.rename

    def fails(path: Path, target: Path) -> Path:
        if target == folder and ".sealing-" in str(path) and path.name == NAME:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(PackageRefused, match="No space left"):
        seal(folder, material)
    assert files_of(folder) == before


def header(change: Callable[[str], str]) -> Callable[[Path], bytes]:
    """The reference sample under another header."""

    def content(path: Path) -> bytes:
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
        return f"{change(first)}\n{rest}".encode()

    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header(lambda h: h.replace("age", "years", 1)), "rows.csv: the feature 'age' is no colum"),
        (lambda _: b"", "rows.csv: is empty"),
        (lambda _: b"age\nold\n", "rows.csv: could not convert"),
    ],
    ids=["another column", "empty", "words"],
)
def test_rows_of_other_columns_are_refused_by_file_and_name(
    folder: Path, material: Material, tmp_path: Path, *, content: Callable[[Path], bytes], said: str
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(content(material.background))
    before = files_of(folder)
    with pytest.raises(PackageRefused, match=said):
        seal(folder, Material(rows, None, material.bundles, ""))
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("bundle", "said"),
    [
        (b"{", "patient.json: "),
        (
            (
                b'{"resourceType": "Bundle", "type": "collection", "entry": [{"resource": '
                b'{"resourceType": "Patient", "id": "p", "birthDate": "1950-01-01"}}]}'
            ),
            "patient.json: nothing in it carries a time",
        ),
        (
            (
                b'{"resourceType": "Bundle", "type": "collection", "entry": [{"resource": '
                b'{"resourceType": "Patient", "id": "p", "birthDate": "1950-01-01"}}, {"resource": '
                b'{"resourceType": "Observation", "id": "o", "status": "final", "code": {"coding": '
                b'[{"system": "http://loinc.org", "code": "2951-2"}]}, "subject": {"reference": '
                b'"Patient/p"}, "effectiveDateTime": "2026-01-01T08:00:00Z", "valueQuantity": '
                b'{"value": 140, "code": "mmol/L", "system": "http://unitsofmeasure.org"}}}]}'
            ),
            r"patient.json: the model gives no number of it: not-eligible \(no-index-stay\)",
        ),
    ],
    ids=["no JSON", "no time", "not eligible"],
)
def test_a_patient_the_model_says_nothing_of_makes_no_example(
    folder: Path, material: Material, tmp_path: Path, bundle: bytes, said: str
) -> None:
    """An example of a refusal would replay whatever the model became."""
    patient = tmp_path / "patient.json"
    patient.write_bytes(bundle)
    before = files_of(folder)
    with pytest.raises(PackageRefused, match=said):
        seal(folder, Material(material.background, None, [patient], ""))
    assert files_of(folder) == before
