"""Boosters from elsewhere: what is read, and what is refused with the field and the reason."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from numpy.typing import NDArray

from models.boosters import (
    BINARY,
    best_rounds_only,
    facts_of,
    read_booster,
    read_servable,
    try_booster,
)
from models.trees import Trees

Floats = NDArray[np.float64]
COLUMNS = ["age", "pulse", "crp"]


def data(seed: int = 1) -> tuple[Floats, Floats]:
    """Rows with gaps, and one of three classes each."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(300, 3))
    classes = np.digitize(rows[:, 0] + draw.normal(size=300), [-0.5, 0.5])
    rows[draw.random(rows.shape) < 0.1] = np.nan
    return rows, classes.astype(np.float64)


def trained(names: list[str] | None = COLUMNS, **words: object) -> xgb.Booster:
    """A small booster of one outcome, or of classes where `num_class` is given."""
    rows, classes = data()
    outcome = classes if "num_class" in words else (classes > 1).astype(np.float64)
    parameters = {"objective": BINARY, "max_depth": 2, "nthread": 1, "verbosity": 0} | words
    return xgb.train(parameters, xgb.DMatrix(rows, outcome, feature_names=names), 5)


def categorical() -> xgb.Booster:
    """A booster that splits the third column by groups."""
    rows, classes = data()
    rows[:, 2] = np.random.default_rng(2).integers(0, 5, len(rows))
    matrix = xgb.DMatrix(
        rows, classes > 1, feature_names=COLUMNS, feature_types=["q", "q", "c"],
        enable_categorical=True,
    )  # fmt: skip
    return xgb.train({"objective": BINARY, "nthread": 1, "max_cat_to_onehot": 1}, matrix, 5)


def stopped_early() -> xgb.Booster:
    """A booster whose last rounds early stopping did not choose."""
    rows, classes = data()
    outside, other = data(2)
    return xgb.train(
        {"objective": BINARY, "nthread": 1, "eta": 0.8},
        xgb.DMatrix(rows, classes > 1, feature_names=COLUMNS),
        60,
        evals=[(xgb.DMatrix(outside, other > 1, feature_names=COLUMNS), "outside")],
        early_stopping_rounds=4,
        verbose_eval=False,
    )


def saved(folder: Path, booster: xgb.Booster) -> Path:
    """The booster's file."""
    path = folder / "booster.ubj"
    booster.save_model(path)
    return path


@pytest.mark.parametrize("ending", ["json", "ubj"])
@pytest.mark.parametrize("names", [COLUMNS, None], ids=["named", "unnamed"])
def test_a_booster_is_read_from_json_and_ubjson_alike(
    tmp_path: Path, ending: str, names: list[str] | None
) -> None:
    """With its column names where it has any; then they must be the manifest's, in its order."""
    booster, rows = trained(names), data()[0]
    path = tmp_path / f"booster.{ending}"
    booster.save_model(path)
    read = read_servable(path, COLUMNS)
    assert np.array_equal(read.inplace_predict(rows), booster.inplace_predict(rows))
    facts = facts_of(read)
    assert (facts.names, facts.columns, facts.rounds, facts.classes) == (names, 3, 5, 0)


RANKED: dict[str, Any] = {"objective": "multi:softprob", "num_class": 3}
REFUSED: dict[str, tuple[Callable[[], xgb.Booster], list[str], int, str]] = {
    "another name": (
        lambda: trained(["age", "pulse", "sodium"]),
        COLUMNS,
        0,
        "feature_names: number 3",
    ),
    "another order": (
        lambda: trained(["pulse", "age", "crp"]),
        COLUMNS,
        0,
        "feature_names: number 1",
    ),
    "one more": (lambda: trained(), [*COLUMNS, "weight"], 0, "num_features: 3"),
    "unnamed, one fewer": (lambda: trained(None), COLUMNS[:2], 0, "num_features: 3"),
    "a regression": (
        lambda: trained(objective="reg:squarederror"),
        COLUMNS,
        0,
        "objective: reg:squared",
    ),
    "margins": (
        lambda: trained(objective="binary:logitraw"),
        COLUMNS,
        0,
        "same model under binary:log",
    ),
    "classes for one outcome": (lambda: trained(**RANKED), COLUMNS, 0, "objective: multi:softprob"),
    "one outcome for classes": (lambda: trained(), COLUMNS, 3, "objective: binary:logistic"),
    "other classes": (lambda: trained(**RANKED), COLUMNS, 4, "num_class: 3"),
    "only the first class": (
        lambda: trained(objective="multi:softmax", num_class=3),
        COLUMNS,
        3,
        "under multi:softprob",
    ),
    "dart": (lambda: trained(booster="dart"), COLUMNS, 0, "booster: dart"),
    "linear": (lambda: trained(booster="gblinear"), COLUMNS, 0, "booster: gblinear"),
    "groups": (categorical, COLUMNS, 0, "feature_types: crp has categorical splits"),
    "trees of all classes": (
        lambda: trained(multi_strategy="multi_output_tree", **RANKED),
        COLUMNS,
        3,
        "multi_strategy",
    ),
    "early stopping": (stopped_early, COLUMNS, 0, "best_iteration: early stopping chose"),
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_cannot_be_served_is_refused_with_field_and_reason(tmp_path: Path, kind: str) -> None:
    booster, columns, classes, said = REFUSED[kind]
    with pytest.raises(ValueError, match=said):
        read_servable(saved(tmp_path, booster()), columns, classes=classes)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pickle.dumps({"a": "booster"}), id="a pickle"),
        pytest.param(b"binf\x00\x00\x00\x00", id="an old binary file"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"{nonsense", id="nonsense"),
        pytest.param(b'{"learner": 3}', id="another JSON"),
    ],
)
def test_what_is_no_booster_is_refused(tmp_path: Path, content: bytes) -> None:
    """A pickle by its first byte, before anything that might run it sees it."""
    path = tmp_path / "booster.ubj"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"neither UBJSON nor JSON|not a booster"):
        read_booster(path)


def test_a_booster_that_holds_is_tried_without_a_word(tmp_path: Path) -> None:
    """Also one of a kind that is refused later, with a better reason."""
    try_booster(saved(tmp_path, trained()))
    try_booster(saved(tmp_path, trained(booster="gblinear")))


def test_a_booster_that_ends_its_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way the process that tried it ended: by a signal, or not in time."""
    path = saved(tmp_path, trained())
    monkeypatch.setattr("models.boosters._TRY", "import os; os.abort()")
    with pytest.raises(ValueError, match=r"damaged: reading it ended the process that tried it"):
        try_booster(path)
    monkeypatch.setattr("models.boosters._TRY", "import time; time.sleep(60)")
    monkeypatch.setattr("models.boosters.TRY_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"damaged: not read within 0\.2 seconds"):
        try_booster(path)


def test_rounds_after_the_best_are_cut_as_the_scikit_learn_interface_does(tmp_path: Path) -> None:
    booster, rows = stopped_early(), data(3)[0]
    best = booster.best_iteration
    cut = best_rounds_only(booster)
    assert facts_of(cut).rounds == best + 1 < facts_of(booster).rounds
    wanted = booster.inplace_predict(rows, iteration_range=(0, best + 1))
    read = read_servable(saved(tmp_path, cut), COLUMNS)
    assert np.array_equal(read.inplace_predict(rows), wanted)


def test_trees_the_explainer_reads_otherwise_than_they_predict_are_refused() -> None:
    """Splits by groups whose types were stripped: the explanation would be of another model."""
    booster = categorical()
    booster.feature_types = None
    rows = data()[0]
    rows[:, 2] = np.random.default_rng(2).integers(0, 5, len(rows))
    with pytest.raises(ValueError, match=r"trees: explained .* away from what they predict"):
        Trees(booster, rows[:40], COLUMNS)
