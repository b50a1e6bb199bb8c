"""What training looks for before it believes a cohort, and before it lets a head pass as good.

Lives here: leakage (evidence from after the prediction, outcomes dealt at random still learned, one
category that explains everything), too few events, which model is preferred. Does not live here:
figures with intervals (`validation`). Called by a training run, which refuses, warns or marks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from fhir_adapters.bulk import BulkIndex, read_patient
from fhir_adapters.clock import parse_time, to_iso
from fhir_adapters.decode import decode_lines
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow
from models.errors import TrainingRefused
from models.fitting import Floats, Kind
from models.manifest import Training
from models.package import Specification
from models.refits import Shuffled
from models.risk_model import RiskModel

EVIDENCE_ROWS = 200
"""Rows of a cohort whose evidence is dated again, patient by patient."""
POINTS_ROWS = 500
"""Test rows whose contributions are summed by category."""
DOMINATES = 0.60
"""Share of all contributions above which one category is suspect: it may hold the outcome."""
CHANCE_WIDTH = 0.05
"""How far from 0.5 the AUROC of outcomes dealt at random may lie, in a large cohort."""
FEWEST_EVENTS = 500
FEWEST_EVENTS_PER_COLUMN = 10
"""Below either, free trees are a trial: about 500 events from simulations of local training; ten
per predictor from Peduzzi et al., J Clin Epidemiol 1996;49:1373-1379."""
MOST_COLUMNS_OF_FEW_EVENTS = 15
DEEPEST_OF_FEW_EVENTS = 3
"""Predictors, and depth of trees, that few events can bear: from the same simulations."""


# ---- evidence from after the prediction -----------------------------------------------------


def late_evidence(row: FeatureRow) -> list[str]:
    """The features of a row that rest on a finding from after its moment."""
    return [
        value.name
        for value in row.values.values()
        if any(t is not None and t > row.as_of for t in (value.time, *(t for t, _ in value.series)))
    ]


def check_evidence(spec: Specification, index: BulkIndex, frame: pd.DataFrame) -> int:
    """How many rows of a cohort were dated again, a sample of at most 200.

    Raises TrainingRefused naming the feature that rests on a finding from after its moment.
    """
    size = min(EVIDENCE_ROWS, len(frame))
    sample = frame.sample(size, random_state=spec.manifest.training.seed)
    for row in _rows_of(spec, index, sample):
        refuse_late_evidence(row)
    return size


def refuse_late_evidence(row: FeatureRow) -> None:
    """Raises TrainingRefused where a feature of the row rests on a finding from after it."""
    late = late_evidence(row)
    if late:
        raise TrainingRefused(
            f"features.{late[0]} rests on a finding from after {to_iso(row.as_of)}, the moment of "
            "prediction: it would know the outcome"
        )


def _rows_of(spec: Specification, index: BulkIndex, frame: pd.DataFrame) -> Iterator[FeatureRow]:
    for patient, moment in zip(frame["patient"], frame["index_time"], strict=True):
        gathered = decode_lines([*read_patient(index, str(patient)), *index.shared])
        record = build_record(gathered, spec.wanted_later, patient_id=str(patient))
        yield spec.features.compute(record, parse_time(moment.isoformat()))


# ---- outcomes dealt at random ---------------------------------------------------------------


def chance_limits(rows: int, events: int, shuffles: int = 1) -> tuple[float, float]:
    """Where the AUROC of a ranking that knows nothing lies, as the mean of some shuffles: 0.45 to
    0.55, two standard errors wider.

    The standard error is that of the Mann-Whitney statistic without a difference between groups
    (Hanley & McNeil, Radiology 1982;143:29-36), by the root of the shuffles. One shuffle alone
    spreads 1.3 times as far, because folds go together: what one teaches the others they teach it.
    """
    error = math.sqrt((rows + 1) / (12 * events * (rows - events)) / shuffles)
    width = CHANCE_WIDTH + 2 * error
    return max(0.0, 0.5 - width), min(1.0, 0.5 + width)


def refuse_learned_chance(found: Shuffled, *, rows: int, events: int) -> None:
    """Raises TrainingRefused where outcomes dealt at random were ranked better, or worse, than
    chance allows."""
    low, high = chance_limits(rows, events, found.shuffles)
    if not low <= found.auroc <= high:
        raise TrainingRefused(
            f"outcomes dealt at random are ranked with an AUROC of {found.auroc:.3f}, outside "
            f"{low:.3f} to {high:.3f}: patients fitted on and not fitted on are not apart"
        )


# ---- one category that explains everything --------------------------------------------------


def category_shares(spec: Specification, model: RiskModel, rows: Floats) -> dict[str, float]:
    """Each category's share of the mean |points| of some rows (at most 500 at random), largest
    first."""
    draw = np.random.default_rng(spec.manifest.training.seed)
    chosen = draw.permutation(len(rows))[:POINTS_ROWS]
    points = model.points(rows[chosen])
    columns: dict[str, list[int]] = {}
    for place, feature in enumerate(spec.manifest.inputs):
        columns.setdefault(feature.category or "", []).append(place)
    sizes = {name: float(np.abs(points[:, c].sum(axis=1)).mean()) for name, c in columns.items()}
    total = sum(sizes.values()) or 1.0
    return dict(sorted(((n, size / total) for n, size in sizes.items()), key=lambda one: -one[1]))


def dominating(shares: Mapping[str, float]) -> str | None:
    """The category that alone holds more than 60 % of the contributions; None where it is the only
    one, or none does."""
    if len(shares) < 2:
        return None
    return next((name for name, share in shares.items() if share > DOMINATES), None)


# ---- too few events -------------------------------------------------------------------------


def distinct_events(fit: pd.DataFrame) -> int:
    """How many different outcomes the rows are followed by: one event can follow many rows of its
    patient. Rows have `patient`, `index_time`, `days` to the event, and `event`."""
    followed = fit[fit["event"] == 1]
    moments = followed["index_time"] + pd.to_timedelta(followed["days"], unit="D")
    return len(set(zip(followed["patient"], moments.dt.round("s"), strict=True)))


def too_few_events(events: int, columns: int) -> list[str]:
    """Why a head fitted on so many different events is experimental; empty where it is not."""
    reasons = []
    if events < FEWEST_EVENTS:
        reasons.append(f"{events} events in the part fitted on, fewer than {FEWEST_EVENTS}")
    if events < FEWEST_EVENTS_PER_COLUMN * columns:
        reasons.append(
            f"{events / columns:.1f} events for each of {columns} features, fewer than "
            f"{FEWEST_EVENTS_PER_COLUMN}"
        )
    return reasons


def few_events_warnings(spec: Specification, training: Training, kind: Kind) -> list[str]:
    """What a head of too few events should have been trained with and was not."""
    found = []
    if len(spec.columns) > MOST_COLUMNS_OF_FEW_EVENTS:
        found.append(
            f"{len(spec.columns)} features are many for so few events: "
            f"at most {MOST_COLUMNS_OF_FEW_EVENTS} are advised"
        )
    if kind == "trees" and training.max_depth > DEEPEST_OF_FEW_EVENTS:
        found.append(
            f"trees of depth {training.max_depth} are deep for so few events: "
            f"at most {DEEPEST_OF_FEW_EVENTS} is advised"
        )
    return found


# ---- trees or logistic model ----------------------------------------------------------------


class Preferred(NamedTuple):
    """Which model should be served, and why where it is not the one that was trained."""

    kind: Kind
    reason: str


def preferred_model(difference: Mapping[str, float | None], *, few: bool) -> Preferred:
    """Trees, unless the logistic model beside them does better, or as well on few events.

    `difference`: AUROC of the trees less that of the logistic model, as `value`, `low` and `high`
    (95 %); None where it could not be estimated, which speaks for nothing.
    """
    low, high = difference["low"], difference["high"]
    if high is not None and high < 0.0:
        return Preferred("logistic", "its AUROC is higher than that of the trees")
    if few and (low is None or low <= 0.0):
        return Preferred("logistic", "on so few events the trees are not clearly better")
    return Preferred("trees", "")
