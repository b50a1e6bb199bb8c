"""Features of measurements that are bounds: "> 8 %", "< 70 %", outside what the method can measure.

FHIR R4, Quantity.comparator, is a modifier: the actual value is less, or greater, than the number
(http://hl7.org/fhir/R4/valueset-quantity-comparator.html). So a bound is never used as the value,
but below a concept's detection limit, where it is how the method reports the healthy.
What a recipe makes of it is tried where its answer is lowest and where it is highest: where that is
the same (a count, the newest value with an older bound before it, "reaches 38" of "> 39") it is an
answer; where it is not, there is none, only its ends, by which a safety rule can still be met.

Called by `compute`, and only for features with a bound in their window or their baseline's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import product

import msgspec

from fhir_adapters.codes import code_table
from fhir_adapters.features.language import FeatureSpec
from fhir_adapters.features.recipes import (
    CONCLUDES_NONE,
    MAD_TO_SD,
    RECIPES,
    Finding,
    Selection,
)
from fhir_adapters.features.row import Ends
from fhir_adapters.reading.observations import BELOW, COMPARATORS
from fhir_adapters.record import Fact

UNKNOWN: Ends = (-math.inf, math.inf)
STRICT = frozenset({"<", ">"})
MOST_TRIED = 4
"""Up to so many parts of a derived feature all combinations of their ends are tried (16);
engineering choice, 2026-11-22."""
WITHOUT_VALUES = CONCLUDES_NONE | {"season", "limit"}
"""Recipes that ask what there is and when, not how much: a bound is as good as a value."""
ANYTHING = (Finding(-math.inf), Finding(math.inf))
NOT_ONE_WAY = frozenset({"outside"})
"""Recipes that neither only rise nor only fall with a value: the ends do not tell the middle."""


def nearest(value: float, comparator: str) -> float:
    """The allowed value next to the number of a bound: itself, or just beyond it."""
    if comparator not in STRICT:
        return value
    return math.nextafter(value, -math.inf if comparator in BELOW else math.inf)


def ends_of_fact(fact: Fact) -> Ends:
    """The nearest and farthest value a bound allows; the farthest is what can be at all."""
    if fact.value is None or fact.bound not in COMPARATORS:
        return UNKNOWN
    concept, value = code_table().concept(fact.concept), fact.value
    if fact.bound in BELOW:
        far = min(value, 0.0) if concept.plausible_low is None else concept.plausible_low
    else:
        far = math.inf if concept.plausible_high is None else concept.plausible_high
    return nearest(value, fact.bound), far


def with_bounds(selection: Selection, facts: Sequence[Fact], baseline: Sequence[Fact]) -> Selection:
    """The selection with the bounds of both windows in their places."""
    return msgspec.structs.replace(
        selection,
        facts=sorted([*selection.facts, *facts], key=lambda f: f.start),
        baseline=sorted([*selection.baseline, *baseline], key=lambda f: f.start),
    )


def tried(selection: Selection, spec: FeatureSpec) -> Sequence[Finding | None]:
    """What a recipe finds where the bounds make it lowest, and where they make it highest.

    `selection` has the bounds among its facts. All recipes of values but `delta_to_baseline` only
    rise or only fall with each single value, so no combination of values lies beyond these two.
    """
    if spec.recipe in WITHOUT_VALUES:
        return [RECIPES[spec.recipe](selection, spec)]
    if spec.recipe == "delta_to_baseline":
        return _distances(selection, spec)
    if not _each_one_way(selection.facts, spec.recipe):
        return ANYTHING
    falling = _falling(selection.facts, spec.recipe)
    return [RECIPES[spec.recipe](_at_end(selection, falling, top), spec) for top in (False, True)]


def tried_derived(
    values: Sequence[float | Ends],
    derive: Callable[[Sequence[float], FeatureSpec], float | None],
    spec: FeatureSpec,
) -> list[float | None]:
    """What a derived feature is, with the parts known by their ends at each combination of them."""
    parts = [v if isinstance(v, tuple) else (v, v) for v in values]
    through_zero = spec.recipe == "ratio" and parts[1][0] < 0.0 < parts[1][1]
    if UNKNOWN in parts or spec.recipe in NOT_ONE_WAY or through_zero:
        return [-math.inf, math.inf]
    return [derive(numbers, spec) for numbers in product(*parts)]


def ends_of(numbers: Sequence[float | None]) -> Ends:
    """The lowest and highest of what was tried; anything where some of it gave no number."""
    known = [n for n in numbers if n is not None and not math.isnan(n)]
    if not known or len(known) < len(numbers) or len(known) > 2**MOST_TRIED:
        return UNKNOWN
    return min(known), max(known)


def same(numbers: Sequence[float | None]) -> bool:
    """Whether all that was tried gave one answer; None, no answer, is one."""
    return all(number == numbers[0] for number in numbers)


def said(fact: Fact) -> str:
    """A bound in words: `outside the measuring range: > 8 %`."""
    return f"outside the measuring range: {_as_reported(fact)}"


def below_detection(fact: Fact) -> str:
    """A result read as the number it was said to be below: `reported as < 4 mg/L`."""
    return f"reported as {_as_reported(fact)}"


def _as_reported(fact: Fact) -> str:
    number = "" if fact.original is None else f"{fact.original:g}"
    return f"{fact.bound} {number} {fact.unit}".rstrip()


def _span(fact: Fact) -> Ends:
    """The lowest and highest a fact can be; a value is both."""
    if fact.status == "bound":
        near, far = ends_of_fact(fact)
        return min(near, far), max(near, far)
    value = math.nan if fact.value is None else fact.value
    return value, value


def _at_end(selection: Selection, falling: frozenset[int], top: bool) -> Selection:
    """The selection with each bound at its highest (`top`) or lowest; at `falling`, turned over."""

    def placed(facts: list[Fact], turned: frozenset[int]) -> list[Fact]:
        return [
            msgspec.structs.replace(fact, value=_span(fact)[top != (at in turned)], status="ok")
            if fact.status == "bound"
            else fact
            for at, fact in enumerate(facts)
        ]

    facts, baseline = placed(selection.facts, falling), placed(selection.baseline, frozenset())
    return msgspec.structs.replace(selection, facts=facts, baseline=baseline)


def _falling(facts: list[Fact], recipe: str) -> frozenset[int]:
    """The places of the facts with whose value the recipe falls; with all others it rises."""
    if recipe == "change":
        return frozenset({len(facts) - 2})
    if recipe in {"gain", "gain_percent"}:
        return frozenset({0})
    if recipe == "slope" and facts:
        counted = [f.start for f in facts if f.value is not None or f.status == "bound"]
        middle = statistics.fmean(counted or [0.0])
        return frozenset(at for at, fact in enumerate(facts) if fact.start < middle)
    return frozenset()


def _each_one_way(facts: list[Fact], recipe: str) -> bool:
    """Whether the recipe can be computed at the ends of these facts, and they are its own ends.

    A slope needs numbers. A per cent turns over where what it is a per cent of can be 0 or less.
    """
    if recipe == "slope":
        return all(math.isfinite(end) for f in facts if f.status == "bound" for end in _span(f))
    if recipe == "gain_percent":
        pair = [facts[0], facts[-1]] if facts else []
        bounded = any(fact.status == "bound" for fact in pair)
        return not (bounded and any(_span(fact)[0] <= 0.0 for fact in pair))
    return True


def _distances(selection: Selection, spec: FeatureSpec) -> Sequence[Finding | None]:
    """The ends of `delta_to_baseline`: of the newest, the usual and the spread, each by itself.

    The ends of a median are the medians of the ends. Where the usual is itself between ends, those
    of the distance may be wider than what can be, never narrower.
    """
    newest = selection.facts[-1] if selection.facts else None
    others = [_span(fact) for fact in selection.baseline if fact is not newest]
    spans = [span for span in others if not math.isnan(span[0])]
    if newest is None or math.isnan(_span(newest)[0]) or len(spans) < max(1, spec.min_count):
        return [None]
    usual = statistics.median(low for low, _ in spans), statistics.median(high for _, high in spans)
    if not all(map(math.isfinite, usual)):
        return ANYTHING
    spread = _spread(spans, usual, spec.floor_sd or 0.0)
    if spread[0] == 0.0:
        return [None] if spread[1] == 0.0 else ANYTHING
    low, high = _span(newest)
    apart = low - usual[1], high - usual[0]
    return [Finding(one / wide, (newest,), usual[0]) for one, wide in product(apart, spread)]


def _spread(spans: Sequence[Ends], usual: Ends, floor: float) -> Ends:
    """The ends of the spread about what is usual, as `delta_to_baseline` measures it."""
    nearest_off = (max(0.0, low - usual[1], usual[0] - high) for low, high in spans)
    farthest_off = (max(high - usual[0], usual[1] - low) for low, high in spans)
    return (
        max(MAD_TO_SD * statistics.median(nearest_off), floor),
        max(MAD_TO_SD * statistics.median(farthest_off), floor),
    )
