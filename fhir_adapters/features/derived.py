"""Features made from other features: limits, differences, ratios, and named clinical formulas.

Each is a plain function of the numbers it is made from; one missing number makes the result
missing. Which words a recipe needs is checked when the manifest is read (`language.NEEDS`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from fhir_adapters.features.language import FeatureSpec

Derived = Callable[[Sequence[float], FeatureSpec], float | None]


def excess(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """How far above `limit`; 0 at or below it."""
    return max(0.0, x[0] - (spec.limit or 0.0))


def shortfall(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """How far below `limit`; 0 at or above it."""
    return max(0.0, (spec.limit or 0.0) - x[0])


def outside(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """How far outside `low` to `high`; 0 inside."""
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    return max(0.0, low - x[0], x[0] - high)


def at_least(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """1 where the value reaches `limit`, else 0."""
    return float(x[0] >= (spec.limit or 0.0))


def below(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """1 where the value is below `limit`, else 0."""
    return float(x[0] < (spec.limit or 0.0))


def difference(x: Sequence[float], _: FeatureSpec) -> float | None:
    """The first less the second."""
    return x[0] - x[1]


def scaled(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """The value times `factor` plus `offset`: into the unit a model was trained in elsewhere."""
    return x[0] * (spec.factor or 0.0) + spec.offset


def ratio(x: Sequence[float], _: FeatureSpec) -> float | None:
    """The first over the second; missing where the second is 0."""
    return x[0] / x[1] if x[1] else None


def product(x: Sequence[float], _: FeatureSpec) -> float | None:
    """All multiplied: of yes/no features, "all of them"."""
    return math.prod(x)


def ckd_epi_2021(x: Sequence[float], _: FeatureSpec) -> float | None:
    """Estimated GFR in mL/min/1.73 m2 from creatinine (umol/L), age (years) and sex (1 male).

    CKD-EPI 2021 without race: Inker et al., N Engl J Med 2021;385:1737-49, table 2. Creatinine in
    mg/dL is umol/L over 88.42.
    """
    creatinine, age, male = x[0] / 88.42, x[1], x[2]
    kappa, alpha = (0.9, -0.302) if male else (0.7, -0.241)
    scaled = creatinine / kappa
    gfr: float = 142.0 * min(scaled, 1.0) ** alpha * max(scaled, 1.0) ** -1.200 * 0.9938**age
    return gfr if male else gfr * 1.012


def body_mass_index(x: Sequence[float], _: FeatureSpec) -> float | None:
    """kg/m2 from weight (kg) and height (cm)."""
    return x[0] / (x[1] / 100.0) ** 2 if x[1] else None


FORMULAS: Mapping[str, tuple[int, Derived]] = {
    "ckd_epi_2021": (3, ckd_epi_2021),
    "body_mass_index": (2, body_mass_index),
}
"""Named clinical formulas, each with how many features it is made from."""


def formula(x: Sequence[float], spec: FeatureSpec) -> float | None:
    """A named clinical formula of the features in `from`."""
    return FORMULAS[spec.formula or ""][1](x, spec)


DERIVED: Mapping[str, tuple[int, Derived]] = {
    "excess": (1, excess),
    "shortfall": (1, shortfall),
    "outside": (1, outside),
    "at_least": (1, at_least),
    "below": (1, below),
    "scaled": (1, scaled),
    "difference": (2, difference),
    "ratio": (2, ratio),
    "product": (2, product),
    "formula": (0, formula),
}
"""Each derived recipe with how many features it is made from (0: the formula says)."""
