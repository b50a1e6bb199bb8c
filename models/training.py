"""Training a package from a cohort: split, one model a head, calibration, baseline, background.

Split by time and patient: the newest `test_share` of index stays is the test part, and a patient in
it is in no other. The rest is fitted; how many rounds, the settings where a search is asked for,
and Platt's two numbers, which are folded into the model, come from fitting it `folds` times without
one fold of patients each (ADR 0010). The same cohort and seed give the same scores. Of real
patients no row is handed on: background and reference sample are put together from many (ADR 0011).
How good it is, is `validation`'s to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from models.engines import xgboost as xgb
from models.errors import TrainingRefused
from models.fitting import (
    Floats,
    Kind,
    Told,
    boost,
    events_of,
    fit_logistic,
    fold_platt_logistic,
    matrix_of,
    platt,
    risks_of,
)
from models.logistic import Logistic
from models.manifest import Training
from models.mosaic import mosaic
from models.package import Specification, table_text
from models.trees import fold_platt
from models.tuning import (
    Candidate,
    Choice,
    Keep,
    candidates_of,
    choose,
    keep_nothing,
    with_training,
)

BACKGROUND_ROWS = 100
REFERENCE_ROWS = 2_000
BACKGROUND_WITHIN = 0.001
"""How far the background's mean risk may lie from the comparable patients': 0.1 point."""


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a cohort, as frames."""

    fit: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Trained:
    """What training made, and what it was made on.

    `model`: as served, calibrated. `baseline`: the logistic model beside trees; None for a head
    that is one. `training`: the settings used; `candidates`: all that were tried, where a search
    was asked for.
    """

    model: xgb.Booster | Logistic
    baseline: Logistic | None
    background: Floats
    reference: Floats
    split: Split
    rounds: int
    platt: tuple[float, float]
    training: Training
    candidates: list[Candidate]

    @property
    def kind(self) -> Kind:
        """What the head is."""
        return "logistic" if isinstance(self.model, Logistic) else "trees"


def known_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose outcome is known, with `event` (death first counts as no event)."""
    known = frame[frame["state"] != "censored"].copy()
    known["event"] = (known["state"] == "event").astype(int)
    return known


def split_by_time(frame: pd.DataFrame, words: Training) -> Split:
    """The parts of a cohort: newest stays for the test, and no patient on both sides."""
    ordered = frame.sort_values(["index_time", "patient"], kind="stable")
    cut = int(len(ordered) * (1 - words.test_share))
    earlier, test = ordered.iloc[:cut], ordered.iloc[cut:]
    return Split(earlier[~earlier["patient"].isin(set(test["patient"]))], test)


def fits_of(words: Training, kind: Kind) -> int:
    """How many fits `train` tells of."""
    return len(candidates_of(words, kind)) * words.folds + 1


def train(
    spec: Specification,
    frame: pd.DataFrame,
    progress: Callable[[int, int], None] | None = None,
    *,
    kind: Kind = "trees",
    keep: Keep = keep_nothing,
) -> Trained:
    """Train one head on its cohort frame (`Cohort.of_head`).

    `progress` is told rounds done and at most to do; `keep` keeps the candidates of a search.
    Raises TrainingRefused where a fold of patients, or what is left without it, has no event or
    nothing but events, and where the features do not predict the outcome at all.
    """
    words = spec.manifest.training
    split = split_by_time(known_outcomes(frame), words)
    told = Told(progress, rounds=words.rounds, fits=fits_of(words, kind)) if progress else None
    choice = choose(spec, split.fit, kind, told=told, keep=keep)
    calibration = platt(choice.best.margins, events_of(split.fit))
    model = _fit(spec, split.fit, choice, calibration, kind=kind, told=told)
    if told:
        told.reach(fits_of(words, kind))
    risks = risks_of(model, matrix_of(spec, split.fit))
    return Trained(
        model=model,
        baseline=fit_logistic(spec, split.fit) if kind == "trees" else None,
        background=background_sample(spec, split.fit, model, risks),
        reference=reference_sample(spec, split.fit, risks),
        split=split,
        rounds=choice.best.rounds,
        platt=calibration,
        training=choice.training,
        candidates=choice.candidates,
    )


def _fit(
    spec: Specification,
    fit: pd.DataFrame,
    choice: Choice,
    calibration: tuple[float, float],
    *,
    kind: Kind,
    told: Told | None,
) -> xgb.Booster | Logistic:
    """The model of the whole part, with the settings chosen and the calibration folded in."""
    try:
        if kind == "logistic":
            return fold_platt_logistic(fit_logistic(spec, fit, signed=True), *calibration)
        chosen = with_training(spec, choice.training)
        booster = boost(chosen, fit, rounds=choice.best.rounds, told=told).booster
        return fold_platt(booster, *calibration)
    except ValueError:
        raise TrainingRefused(
            "the features say nothing of the outcome in patients not fitted on "
            f"(calibration slope {calibration[0]:.2f})"
        ) from None


# ---- what stands for the patients -----------------------------------------------------------


def background_sample(
    spec: Specification, fit: pd.DataFrame, model: xgb.Booster | Logistic, risks: Floats
) -> Floats:
    """The background: about 100 rows of the fitted part, or put together from many of them where
    they are real patients', whose mean risk is that of all."""
    rows = matrix_of(spec, fit)
    if spec.manifest.synthetic:
        return choose_background(rows, risks)
    made = _mosaic(spec, fit, risks)
    return choose_background(made, risks_of(model, made), mean_risk=float(risks.mean()))


def reference_sample(spec: Specification, fit: pd.DataFrame, risks: Floats) -> Floats:
    """At most 2,000 rows that stand for what the package was trained on: rows of the fitted part,
    or, where they are real patients', put together from many of them."""
    if not spec.manifest.synthetic:
        return _mosaic(spec, fit, risks)
    size = min(REFERENCE_ROWS, len(fit))
    sample = fit[spec.columns].sample(size, random_state=spec.manifest.training.seed)
    return sample.to_numpy(dtype=np.float64)


def _mosaic(spec: Specification, fit: pd.DataFrame, risks: Floats) -> Floats:
    made = mosaic(
        matrix_of(spec, fit),
        fit["patient"].to_numpy(dtype=str),
        risks,
        size=REFERENCE_ROWS,
        seed=spec.manifest.training.seed,
    )
    if not len(made):
        raise TrainingRefused("no row can be put together that is not one to four patients' own")
    return made


def choose_background(rows: Floats, risks: Floats, *, mean_risk: float | None = None) -> Floats:
    """About 100 rows whose mean risk is that of all rows, or `mean_risk`, within 0.1 point.

    One row from the middle of each hundredth of the risks, so that the sample spans them; then,
    while the mean is off, the row that mends it most is exchanged for its neighbour in risk.
    (100 rows at random err by about a point: docs/explanation.md.)
    """
    order = np.argsort(risks, kind="stable")
    target = float(risks.mean()) if mean_risk is None else mean_risk
    size = min(BACKGROUND_ROWS, len(order))
    places = [int((i + 0.5) * len(order) / size) for i in range(size)]
    for step in range(10 * size):
        off = float(risks[order[places]].mean()) - target
        if abs(off) < BACKGROUND_WITHIN / 10:
            break
        which = size - 1 - step % size
        low = places[which - 1] + 1 if which else 0
        high = places[which + 1] if which + 1 < size else len(order)
        wanted = risks[order[places[which]]] - off * size
        nearest = np.argmin(np.abs(risks[order[low:high]] - wanted))
        places[which] = low + int(nearest)
    return rows[order[places]]


# ---- files ----------------------------------------------------------------------------------


def write_head(folder: Path, spec: Specification, head_id: str, trained: Trained) -> None:
    """Write the numbers of a head."""
    head = folder / "heads" / head_id
    head.mkdir(parents=True, exist_ok=True)
    if isinstance(trained.model, Logistic):
        _write_json(head / "logistic.json", trained.model)
    else:
        (head / "booster.ubj").write_bytes(bytes(trained.model.save_raw("ubj")))
    if trained.baseline is not None:
        _write_json(head / "baseline.json", trained.baseline)
    (head / "background.csv").write_text(
        table_text(spec.columns, trained.background), encoding="utf-8"
    )


def _write_json(path: Path, part: Logistic) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(part), indent=1))


def write_reference(folder: Path, spec: Specification, trained: Trained) -> None:
    """Write the package's reference sample, from what one of its heads was fitted on."""
    rounded = np.array(
        [[math.nan if math.isnan(v) else float(f"{v:.6g}") for v in r] for r in trained.reference]
    )
    (folder / "reference.csv").write_text(table_text(spec.columns, rounded), encoding="utf-8")
