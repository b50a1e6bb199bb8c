"""The choice among settings of the boosting, within the part fitted on and nowhere else.

Lives here: the candidates a manifest's `[training.search]` names, each cross-fitted by patient on
the same folds, and which is chosen (the lowest log loss of patients not fitted on). The test part
is not an argument of anything here. Does not live here: the fits (`models/fitting.py`), keeping
them (`models/training_kept.py`). Called by training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import msgspec
import pandas as pd

from models.fitting import CrossFit, Kind, Told, cross_fit
from models.manifest import Training
from models.package import Specification

Fitting = Callable[[], CrossFit]


class Keep(Protocol):
    """Gives the cross-fit of a candidate by its number (from 0): one kept before, or a new one."""

    def __call__(self, number: int, fitting: Fitting, /) -> CrossFit: ...


def keep_nothing(number: int, fitting: Fitting, /) -> CrossFit:  # noqa: ARG001
    """A new fit, always."""
    return fitting()


class Candidate(msgspec.Struct, frozen=True):
    """One combination of the settings searched, and how well it did: the mean log loss of patients
    not fitted on, after the rounds that did best."""

    settings: dict[str, float]
    log_loss: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings chosen, their cross-fit, and all that were tried (none where none was named)."""

    training: Training
    best: CrossFit
    candidates: list[Candidate]


def candidates_of(words: Training, kind: Kind) -> list[Training]:
    """Every combination of what a search names, in the order it names them; the settings as they
    stand where there is no search. A logistic model has none of these settings."""
    if words.search is None or kind == "logistic":
        return [words]
    named = {name: values for name, values in words.search.values.items() if values}
    return [
        msgspec.structs.replace(words, **dict(zip(named, values, strict=True)))
        for values in product(*named.values())
    ]


def with_training(spec: Specification, training: Training) -> Specification:
    """The specification with other settings."""
    return Specification(msgspec.structs.replace(spec.manifest, training=training), spec.features)


def choose(
    spec: Specification,
    fit: pd.DataFrame,
    kind: Kind = "trees",
    *,
    told: Told | None = None,
    keep: Keep = keep_nothing,
) -> Choice:
    """The candidate with the lowest log loss; of equals the first named."""
    words = spec.manifest.training
    tried = candidates_of(words, kind)
    fits: list[CrossFit] = []
    for number, one in enumerate(tried):
        fits.append(keep(number, _Fitting(with_training(spec, one), fit, kind, told)))
        if told:
            told.reach(len(fits) * words.folds)
    best = min(range(len(tried)), key=lambda number: fits[number].log_loss)
    return Choice(
        training=tried[best],
        best=fits[best],
        candidates=[_candidate(words, *pair) for pair in zip(tried, fits, strict=True)]
        if len(tried) > 1
        else [],
    )


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One candidate's cross-fit, still to be made."""

    spec: Specification
    fit: pd.DataFrame
    kind: Kind
    told: Told | None

    def __call__(self) -> CrossFit:
        return cross_fit(self.spec, self.fit, self.kind, told=self.told)


def _candidate(words: Training, tried: Training, made: CrossFit) -> Candidate:
    named = [name for name, values in words.search.values.items() if values] if words.search else []
    settings = {name: float(getattr(tried, name)) for name in named}
    return Candidate(settings, made.log_loss, made.rounds)
