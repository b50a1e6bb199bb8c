"""What two packages differ in: words by path, figures side by side, risks on the same rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.difference import Change, changes, difference, difference_text
from models.errors import PackageRefused
from models.evaluation import EVALUATION, SPECIFICATION
from models.package import load_package, read_table, table_text, write_checksums
from models.registry import BUNDLED

NAME = "readmission-30d"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the bundled package, to change."""
    return Path(shutil.copytree(BUNDLED / NAME, tmp_path / NAME))


def replace(folder: Path, name: str, *pairs: tuple[str, str]) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / name).write_text(text, encoding="utf-8")
    write_checksums(folder)


# ---- words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [Change("a", "changed", 1, 2)]),
        ({"a": {"b": 1}}, {"a": {}}, [Change("a.b", "removed", before=1)]),
        ({}, {"a": None}, [Change("a", "added", after=None)]),
        (
            {"heads": [{"id": "x", "threshold": 0.2}]},
            {"heads": [{"id": "y"}, {"id": "x", "threshold": 0.3}]},
            [
                Change("heads.x.threshold", "changed", 0.2, 0.3),
                Change("heads.y", "added", after={"id": "y"}),
            ],
        ),
        (
            {"f": [{"name": "p"}, {"name": "q"}]},
            {"f": [{"name": "q"}, {"name": "p"}]},
            [Change("f.order", "changed", ["p", "q"], ["q", "p"])],
        ),
        # without names of their own, or with one twice, a list is one value
        ({"of": ["a", "b"]}, {"of": ["b"]}, [Change("of", "changed", ["a", "b"], ["b"])]),
        (
            {"s": [{"reason": "w", "feature": "x"}, {"reason": "w", "feature": "y"}]},
            {"s": [{"reason": "w", "feature": "x"}]},
            [Change("s.y", "removed", before={"reason": "w", "feature": "y"})],
        ),
    ],
)
def test_changes_are_named_by_their_path(before: Any, after: Any, found: list[Change]) -> None:
    assert list(changes(before, after)) == found


TREES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: (
        st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"id": st.text("xyz", max_size=1)}), max_size=3)
    ),
    max_leaves=12,
)


@given(TREES, TREES)
def test_there_are_changes_exactly_where_two_trees_differ(before: Any, after: Any) -> None:
    """And the other way round they are as many."""
    found = list(changes(before, after))
    assert bool(found) == (before != after)
    assert len(found) == len(list(changes(after, before)))


# ---- packages -------------------------------------------------------------------------------


def test_a_package_differs_in_nothing_from_itself(copy: Path) -> None:
    found = difference(BUNDLED / NAME, copy)
    assert (found.manifest, found.evaluation) == ([], [])
    assert (found.files.added, found.files.removed, found.files.changed) == ([], [], [])
    assert [(r.median, r.largest, r.band_changes) for r in found.risks] == [(0.0, 0.0, 0)]
    assert "The same: every file is as in the other." in difference_text(found)


def test_changes_of_words_are_shown(copy: Path) -> None:
    """A threshold, a text, a rule of scope, a known limit; and which files."""
    replace(
        copy,
        "manifest.toml",
        ("threshold = 0.2", "threshold = 0.25"),
        ('da = "Akut genindlæggelse"', 'da = "Genindlæggelse"'),
        ("value = 18", "value = 16"),
    )
    limit = '[[known_limits]]\nda = "x"\nen = "y"\n\n'
    replace(copy, EVALUATION, ("[[known_limits]]", f"{limit}[[known_limits]]"))
    (copy / "examples" / "05.json").write_bytes((copy / "examples" / "01.json").read_bytes())
    write_checksums(copy)
    found = difference(BUNDLED / NAME, copy)
    assert [(c.path, c.before, c.after) for c in found.manifest] == [
        ("title.da", "Akut genindlæggelse", "Genindlæggelse"),
        ("scope.under-18.value", 18.0, 16.0),
        ("heads.readmission.threshold", 0.2, 0.25),
    ]
    assert [change.path for change in found.evaluation] == ["known_limits"]
    assert found.files.added == ["examples/05.json"]
    assert found.files.changed == [EVALUATION, "manifest.toml"]
    text = difference_text(found)
    assert "heads.readmission.threshold: 0.2 -> 0.25" in text
    assert "examples/05.json: added" in text


def test_features_that_came_and_went_are_named() -> None:
    """With their labels; risks cannot be compared then, and the reason stands in their place."""
    other = BUNDLED / "crc-surgery"
    found = difference(BUNDLED / NAME, other)
    paths = {(change.path, change.change) for change in found.manifest}
    assert ("features.crp_change", "removed") in paths
    assert ("features.asa", "added") in paths
    assert ("heads.mort90", "added") in paths
    text = difference_text(found)
    assert "features.asa: added: ASA class" in text
    assert "not compared: the models do not see the same columns" in text


def test_bands_that_moved_are_counted_on_the_reference_sample(copy: Path) -> None:
    """The trees are the same, so no risk moves; who changes band can be counted by hand."""
    replace(copy, "manifest.toml", ("from_risk = 0.2\n", "from_risk = 0.1\n"))
    found = difference(BUNDLED / NAME, copy)
    package = load_package(BUNDLED / NAME)
    _, rows = read_table(BUNDLED / NAME / "reference.csv")
    risks = package.heads[0].model.risk(rows)
    (compared,) = found.risks
    assert compared.largest == 0.0
    assert compared.rows == len(rows)
    assert compared.band_changes == int(np.sum((risks >= 0.1) & (risks < 0.2))) > 0


def test_risks_are_compared_whatever_the_order_of_the_columns(copy: Path) -> None:
    """The same logistic weights under columns in another order give the same risks."""
    columns = load_package(BUNDLED / NAME).columns
    _as_logistic(BUNDLED / NAME, copy, columns)
    turned = Path(shutil.copytree(copy, copy.parent / "turned" / NAME))
    _as_logistic(BUNDLED / NAME, turned, columns[::-1])
    _features_turned_round(turned)
    found = difference(copy, turned)
    (compared,) = found.risks
    assert compared.largest == pytest.approx(0.0, abs=1e-12)
    assert "features.order" in [change.path for change in found.manifest]


def _as_logistic(source: Path, folder: Path, columns: list[str]) -> None:
    """Make the head of a folder the logistic model beside the bundled trees."""
    head = folder / "heads" / "readmission"
    model = json.loads((source / "heads" / "readmission" / "baseline.json").read_text())
    places = [model["columns"].index(column) for column in columns]
    ordered = {k: [v[i] for i in places] if isinstance(v, list) else v for k, v in model.items()}
    (head / "logistic.json").write_text(json.dumps(ordered))
    for name in ("booster.ubj", "baseline.json", "uncertainty.csv"):
        (head / name).unlink(missing_ok=True)
    for path, original in (
        (head / "background.csv", source / "heads" / "readmission" / "background.csv"),
        (folder / "reference.csv", source / "reference.csv"),
    ):
        _, rows = read_table(original)
        path.write_text(table_text(columns, rows[:, places]))
    if 'kind = "logistic"' not in (folder / "manifest.toml").read_text():
        replace(
            folder, "manifest.toml", ('id = "readmission"', 'id = "readmission"\nkind = "logistic"')
        )
    write_checksums(folder)


def _features_turned_round(folder: Path) -> None:
    """Write the features of a manifest in the opposite order."""
    text = (folder / "manifest.toml").read_text(encoding="utf-8")
    first, *parts = text.split("[[features]]\n")
    last, mark, rest = parts[-1].partition("\n[[")
    features = [*(part.rstrip("\n") for part in parts[:-1]), last.rstrip("\n")]
    turned = "".join(f"[[features]]\n{part}\n\n" for part in features[::-1])
    (folder / "manifest.toml").write_text(first + turned + mark + rest, encoding="utf-8")
    write_checksums(folder)


def test_figures_stand_side_by_side_with_their_intervals(copy: Path) -> None:
    """Of the newest part and of the gate, where either package states them."""
    metrics = json.loads((copy / "metrics.json").read_text())
    head = metrics["heads"]["readmission"]
    head["test"]["trees"]["auroc"] = {"value": 0.7, "low": 0.65, "high": 0.75}
    head["gate"] = {"n": 1, "events": 1, "trees": {"auroc": {"value": 0.6}}}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    write_checksums(copy)
    found = {(f.part, f.name): f for f in difference(BUNDLED / NAME, copy).figures}
    auroc = found["test", "auroc"]
    assert auroc.a is not None
    assert auroc.b is not None
    assert (auroc.b.value, auroc.b.low, auroc.b.high) == (0.7, 0.65, 0.75)
    text = difference_text(difference(BUNDLED / NAME, copy))
    assert "| 0.700 (0.650 to 0.750)" in text
    assert "readmission, gate, AUROC: " in text
    assert "| 0.600\n" in text


def test_of_a_logistic_head_its_own_figures_are_shown(copy: Path) -> None:
    """It has no trees; what is served stands beside what is served."""
    metrics = json.loads((copy / "metrics.json").read_text())
    test = metrics["heads"]["readmission"]["test"]
    del test["trees"]
    (copy / "metrics.json").write_text(json.dumps(metrics))
    write_checksums(copy)
    figures = {(f.part, f.name): f for f in difference(BUNDLED / NAME, copy).figures}
    shown = figures["test", "auroc"].b
    assert shown is not None
    assert shown.value == test["logistic"]["auroc"]["value"]


def test_a_specification_is_compared_in_words(copy: Path) -> None:
    shutil.rmtree(copy / "heads")
    (copy / SPECIFICATION).write_text("{}")
    write_checksums(copy)
    found = difference(BUNDLED / NAME, copy)
    assert (found.manifest, found.b.specification) == ([], True)
    assert found.no_risks == "a specification gives no risks"
    assert "heads/readmission/booster.ubj" in found.files.removed


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", '{"heads": 1}', "metrics.json: Expected `object`"),
        (EVALUATION, "=", "evaluation.toml: "),
        ("reference.csv", "", "reference.csv"),
    ],
)
def test_a_package_that_does_not_hold_is_named(
    copy: Path, name: str, content: str, said: str
) -> None:
    (copy / name).write_text(content)
    write_checksums(copy)
    with pytest.raises(PackageRefused) as refused:
        difference(BUNDLED / NAME, copy)
    assert said in refused.value.fault
