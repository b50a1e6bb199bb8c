"""Booster files as they come, also from elsewhere: what they hold, and what cannot be served.

A booster is read only where its first byte can be that of JSON or UBJSON, so nothing that runs when
it is read (a pickle) reaches a reader. XGBoost's own reader may end the process on a cut or changed
file: whatever comes in is tried in a process of its own first (`try_booster`). Serving reads
without: it trusts the checksums of what was let in. Every refusal is a ValueError that begins with
the field at fault; who catches it puts the file before it. Called by `models/trees.py`,
`models/ranking.py`, `varsel models init`, `seal` and `import`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.engines import xgboost as xgb

BINARY, RANKED = "binary:logistic", "multi:softprob"
"""The objectives served: one outcome's probability, and the probabilities of several classes."""
_INSTEAD = {
    "multi:softmax": f"; it is the same model under {RANKED}: set that and save it again",
    "binary:logitraw": f"; it is the same model under {BINARY}: set that and save it again",
    "reg:logistic": f"; it is the same model under {BINARY}: set that and save it again",
}
TRY_SECONDS = 60
"""How long a booster is tried; the bundled ones take one second, nearly all of it imports."""
_TRY = "from models.boosters import answer_try; answer_try()"


@dataclass(frozen=True, slots=True)
class BoosterFacts:
    """What a booster says of itself.

    `names`: its columns, None where it has none. `classes`: 0 for one outcome. `best_round`: the
    round (from 0) early stopping chose, where it did.
    """

    kind: str
    objective: str
    classes: int
    columns: int
    names: list[str] | None
    categorical: list[str]
    rounds: int
    trees: int
    trees_per_round: int
    best_round: int | None


def read_booster(path: Path) -> xgb.Booster:
    """The booster in a UBJSON or JSON file; OSError or ValueError where there is none."""
    return _booster_of(path.read_bytes())


def _booster_of(raw: bytes) -> xgb.Booster:
    if raw[:1] != b"{":
        raise ValueError("neither UBJSON nor JSON; a pickle or an old binary file is never read")
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(raw))
    except (xgb.core.XGBoostError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"not a booster that can be read: {first}") from None
    return booster


def try_booster(path: Path) -> None:
    """Read a booster in a process of its own, which a damaged file may bring down.

    Raises OSError, or ValueError where it cannot be read, ended that process, or took too long.
    """
    raw = path.read_bytes()
    try:
        tried = subprocess.run(  # noqa: S603 - this interpreter, with a line that stands above
            [sys.executable, "-P", "-c", _TRY],
            input=raw,
            capture_output=True,
            timeout=TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"damaged: not read within {TRY_SECONDS} seconds") from None
    if tried.returncode:
        raise ValueError(
            f"damaged: reading it ended the process that tried it (exit {tried.returncode})"
        )
    if tried.stdout:
        raise ValueError(tried.stdout.decode())


def answer_try() -> None:
    """In that process: read what comes in, walk every tree, predict two rows; print a refusal."""
    try:
        booster = _booster_of(sys.stdin.buffer.read())
    except ValueError as error:
        sys.stdout.buffer.write(str(error).encode())
        return
    with suppress(xgb.core.XGBoostError):  # of a kind that is refused with a better reason
        booster.get_dump()
        rows = np.array([[np.nan], [0.0]]).repeat(booster.num_features(), axis=1)
        booster.inplace_predict(rows)


def facts_of(booster: xgb.Booster) -> BoosterFacts:
    """What a booster is and was trained for."""
    learner = json.loads(booster.save_config())["learner"]
    kind = learner["gradient_booster"]["name"]
    trees = learner["gradient_booster"].get("gbtree_model_param", {})
    classes = int(learner["learner_model_param"]["num_class"])
    parallel = int(trees.get("num_parallel_tree", 1))
    best = booster.attr("best_iteration")
    names, types = booster.feature_names, booster.feature_types or []
    places = [place for place, word in enumerate(types) if word == "c"]
    return BoosterFacts(
        kind=kind,
        objective=learner["objective"]["name"],
        classes=classes,
        columns=booster.num_features(),
        names=names,
        categorical=[names[place] if names else str(place) for place in places],
        rounds=booster.num_boosted_rounds(),
        trees=int(trees.get("num_trees", 0)),
        trees_per_round=max(1, classes) * parallel,
        best_round=None if best is None else int(best),
    )


def best_rounds_only(booster: xgb.Booster) -> xgb.Booster:
    """The booster up to the round early stopping chose; as it is where there was none.

    XGBoost's scikit-learn interface predicts so, its own interface with all rounds.
    """
    best = facts_of(booster).best_round
    return booster if best is None else booster[: best + 1]


def read_servable(path: Path, columns: list[str], *, classes: int = 0) -> xgb.Booster:
    """The booster in a file, of these columns and classes (0: one outcome).

    Raises OSError, or ValueError where it cannot be served or is of others.
    """
    booster = read_booster(path)
    facts = facts_of(booster)
    require_shape(facts, RANKED if classes else BINARY)
    _require_columns(facts, columns)
    if facts.classes != classes:
        raise ValueError(f"num_class: {facts.classes}, where the manifest names {classes} classes")
    return booster


def require_shape(facts: BoosterFacts, objective: str) -> None:
    """Raise ValueError where a booster is of a kind that cannot be served or explained exactly."""
    if facts.kind != "gbtree":
        raise ValueError(f"booster: {facts.kind}, where only gbtree can be explained exactly")
    if facts.objective != objective:
        instead = _INSTEAD.get(facts.objective, "")
        raise ValueError(f"objective: {facts.objective}, where it must be {objective}{instead}")
    if facts.categorical:
        raise ValueError(
            f"feature_types: {', '.join(facts.categorical)} has categorical splits; "
            "make one yes-or-no feature of each group"
        )
    if facts.trees != facts.rounds * facts.trees_per_round:
        raise ValueError("multi_strategy: multi_output_tree, where every tree must be of one class")
    if facts.best_round is not None and facts.best_round + 1 != facts.rounds:
        raise ValueError(
            f"best_iteration: early stopping chose {facts.best_round + 1} of {facts.rounds} "
            "rounds, and the file holds all; `varsel models init` cuts it"
        )


def _require_columns(facts: BoosterFacts, columns: list[str]) -> None:
    """Raise ValueError where a booster's columns are not those of the manifest, in that order."""
    if facts.columns != len(columns):
        raise ValueError(
            f"num_features: {facts.columns}, where the manifest has {len(columns)} features "
            "with a category"
        )
    for place, (name, column) in enumerate(zip(facts.names or columns, columns, strict=True), 1):
        if name != column:
            raise ValueError(
                f"feature_names: number {place} is {name!r}, where the manifest has {column!r}"
            )
