"""`varsel models init`: what a booster says is written down, the rest is left to decide."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boosters import BINARY, RANKED, BoosterFacts
from models.errors import PackageRefused
from models.manifest import UNDECIDED, parse_manifest, read_manifest
from models.skeleton import HEAD, RANKING, skeleton, write_skeleton


def facts(names: list[str] | None, *, columns: int = 2, classes: int = 0) -> BoosterFacts:
    """What a booster of some columns says of itself."""
    return BoosterFacts(
        kind="gbtree", objective=RANKED if classes else BINARY, classes=classes, columns=columns,
        names=names, categorical=[], rounds=3, trees=3, trees_per_round=1, best_round=None,
    )  # fmt: skip


def booster(names: list[str] | None = None, classes: int = 0) -> xgb.Booster:
    """A booster of two columns."""
    draw = np.random.default_rng(1)
    words: dict[str, object] = {"objective": RANKED, "num_class": classes} if classes else {}
    outcome = draw.integers(0, classes or 2, 60)
    matrix = xgb.DMatrix(draw.normal(size=(60, 2)), outcome, feature_names=names)
    return xgb.train({"objective": BINARY, "nthread": 1} | words, matrix, 3)


# Names XGBoost itself would take: it refuses brackets and "<".
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="[]<"), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True), classes=st.integers(0, 5))
def test_the_skeleton_holds_the_booster_s_names_in_its_order(
    names: list[str], classes: int
) -> None:
    """Whatever they are called; with one head, or a ranking of the booster's classes."""
    words = tomllib.loads(skeleton("any", facts(names, columns=len(names), classes=classes)))
    assert [feature["name"] for feature in words["features"]] == names
    assert [len(r["classes"]) for r in words.get("rankings", [])] == ([classes] if classes else [])
    assert len(words.get("heads", [])) == (0 if classes else 1)


@pytest.mark.parametrize("classes", [0, 3])
def test_as_long_as_one_decision_is_left_the_manifest_is_refused_by_its_name(classes: int) -> None:
    """Each on its own, the others decided: none passes unseen."""
    lines = skeleton("any", facts(["a", "b"], classes=classes)).splitlines()
    left = [place for place, line in enumerate(lines) if f'"{UNDECIDED}' in line]
    assert len(left) > 20
    for place in left:
        text = "\n".join(
            line if other == place else line.replace(UNDECIDED, "decided")
            for other, line in enumerate(lines)
        )
        with pytest.raises(PackageRefused, match="is not decided yet"):
            parse_manifest(text, "any")


def test_columns_without_names_are_left_to_decide() -> None:
    text = skeleton("any", facts(None))
    assert 'name = "DECIDE: column 1 of the booster"' in text
    assert 'name = "DECIDE: column 2 of the booster"' in text


@pytest.mark.parametrize(("classes", "head"), [(0, HEAD), (3, RANKING)])
def test_the_booster_is_copied_beside_the_manifest(tmp_path: Path, classes: int, head: str) -> None:
    made = booster(["a", "b"], classes)
    made.save_model(tmp_path / "any.json")
    folder = tmp_path / "any"
    write_skeleton(tmp_path / "any.json", folder)
    rows = np.random.default_rng(2).normal(size=(20, 2))
    copy = xgb.Booster(model_file=folder / "heads" / head / "booster.ubj")
    assert np.array_equal(copy.inplace_predict(rows), made.inplace_predict(rows))
    with pytest.raises(PackageRefused, match="version is not decided yet"):
        read_manifest(folder)


def test_a_folder_with_a_manifest_is_left_as_it_is(tmp_path: Path) -> None:
    booster().save_model(tmp_path / "any.ubj")
    (tmp_path / "any").mkdir()
    (tmp_path / "any" / "manifest.toml").write_text("mine")
    with pytest.raises(PackageRefused, match="not overwritten"):
        write_skeleton(tmp_path / "any.ubj", tmp_path / "any")
    assert (tmp_path / "any" / "manifest.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x80\x04pickle", "model.ubj: neither UBJSON nor JSON"), (None, "model.ubj: No such file")],
)
def test_what_is_no_booster_is_refused_and_nothing_written(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "model.ubj").write_bytes(content)
    with pytest.raises(PackageRefused, match=said):
        write_skeleton(tmp_path / "model.ubj", tmp_path / "any")
    assert not (tmp_path / "any").exists()


def test_a_damaged_booster_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    """Wherever it was cut: XGBoost's reader may bring down the process that reads it."""
    booster(["a", "b"]).save_model(tmp_path / "model.ubj")
    whole = (tmp_path / "model.ubj").read_bytes()
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "model.ubj").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(PackageRefused, match=r"model\.ubj: "):
            write_skeleton(tmp_path / "model.ubj", tmp_path / "any")
    assert not (tmp_path / "any").exists()
