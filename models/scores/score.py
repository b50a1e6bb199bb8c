"""What all reference scores share: a result, tables of points, and the shape shown beside a model.

A published table is data: rows of a lower limit and its points. No score is ever partial: where an
input is unknown there is no number, only the names of what is lacking. The tables themselves lie
in one module a family (`news2`, `readmission`, `surgery`, `heart_failure`, `copd`), the names and
texts in `about`. Called by those and by `from_record`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from fhir_adapters.features.language import Text

Steps = tuple[tuple[float, int], ...]
"""Rows of (lower limit, points), lowest first; a row holds up to the next one's lower limit."""

ANY = -math.inf
"""The lower limit of a table's first row."""

G_DL_PER_MMOL_L = 1.61145
"""Haemoglobin: the monomer Hb(Fe), 16114.5 g/mol, as Danish laboratories count (NPU02319)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """A score, or what it lacks.

    `points` is None for scores that are a risk only, `risk` (0 to 1) for those that publish none.
    `band` is a key of `about.BANDS`. `parts`: the points of each part, which sum to `points`.
    `missing`: names of the inputs that are unknown; then there is nothing else.
    """

    points: int | None = None
    risk: float | None = None
    band: str | None = None
    parts: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


class ReferenceScore(msgspec.Struct, frozen=True):
    """A published score of one patient at one moment, as shown beside a model's risk.

    `score` is a key of `about.ABOUT`, `most` the highest possible points, `risk` (0 to 1) the risk
    of `outcome`, `band` a key of `about.BANDS`, `missing` the inputs without which it cannot be
    computed (keys of `about.INPUTS`), `version` the publication, `time` when the newest of its
    dated inputs held (seconds since 1970).
    """

    score: str
    label: Text
    applies: bool
    points: int | None
    most: int | None
    risk: float | None
    band: str | None
    missing: list[str]
    version: str
    outcome: Text | None
    time: float | None


def points_at(steps: Steps, value: float) -> int:
    """The points of the row a value falls into; a row's lower limit belongs to it."""
    return steps[bisect_right(steps, value, key=lambda row: row[0]) - 1][1]


def nearest(value: float, decimals: int = 0) -> float:
    """A value in the steps a table is printed in, halves upwards.

    Printed rows such as 92 to 93 and 94 to 95 leave 93.5 open; measured values between two rows
    are rounded before they are looked up.
    """
    scale = 10.0**decimals
    return math.floor(value * scale + 0.5) / scale


def haemoglobin_g_dl(mmol_l: float) -> float:
    """Haemoglobin in g/dL from mmol/L, free of rounding noise, so that 12 g/dL stays 12."""
    return round(mmol_l * G_DL_PER_MMOL_L, 6)


def lacking(inputs: Mapping[str, object | None]) -> tuple[str, ...]:
    """The names of the unknown inputs."""
    return tuple(name for name, value in inputs.items() if value is None)


def known(value: T | None) -> T:
    """An input that was checked to be there (`lacking`); ValueError where it was not."""
    if value is None:
        raise ValueError("an unknown input was used")
    return value


def logistic(logit: float) -> float:
    """The probability of a log-odds."""
    return 1.0 / (1.0 + math.exp(-logit))
