"""What feature computation gives: values with their provenance, and all of one patient's together.

How they are computed stands in `compute`. Called by it, and by whoever reads features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from fhir_adapters.features.language import FeatureStatus
from fhir_adapters.record import Fact, Stay

Ends = tuple[float, float]
"""The lowest and highest a feature can be."""


class FeatureValue(msgspec.Struct, frozen=True, gc=False):
    """One feature of one patient at one moment.

    `value` is in the feature's unit; None where there is none, and then `status` and `reason` say
    why. `time` is when the newest finding behind it held (seconds), `sources` the resources it
    rests on, `original` and `unit` what stood there before conversion, `series` the last values
    with their times, oldest first.
    """

    name: str
    value: float | None
    status: FeatureStatus
    reason: str | None = None
    time: float | None = None
    sources: tuple[str, ...] = ()
    code: str | None = None
    original: float | None = None
    unit: str | None = None
    baseline: float | None = None
    series: tuple[tuple[float, float], ...] = ()
    findings: int = 0


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """All features of one patient at one moment, and the stay or set the question is about.

    `set_time`: when the newest set of findings was complete, where the question is asked of one and
    it is new enough. `implausible`: newest measurements of their kind that cannot be right, or that
    mean danger. `bounds`: the lowest and highest of features without a value whose measurement is
    a bound ("> 8 %"); `numbers` never uses them.
    """

    as_of: float
    index: Stay | None
    values: Mapping[str, FeatureValue]
    implausible: tuple[Fact, ...]
    set_time: float | None = None
    bounds: Mapping[str, Ends] = field(default_factory=dict)

    def at_worst(self, name: str, op: str) -> float | None:
        """The end of a feature known by its ends only at which a comparison is hardest to meet.

        What holds there holds for all it can be. None for other features, and for `==`.
        """
        ends = self.bounds.get(name)
        if ends is None or op == "==":
            return None
        low, high = ends
        return high if op.startswith("<") else low

    def numbers(self, names: Sequence[str]) -> list[float]:
        """The values in an order, NaN for those that may not be used."""
        found = (self.values[name] for name in names)
        return [math.nan if v.value is None else v.value for v in found]
