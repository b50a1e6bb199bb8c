"""Features of measurements that are bounds: "> 8 %", "< 70 %", outside what the method can measure.

FHIR R4, Quantity.comparator, is a modifier: the actual value is less, or greater, than the number
(http://hl7.org/fhir/R4/valueset-quantity-comparator.html). So a bound is never used as the value,
but below a concept's detection limit, where it is how the method reports the healthy.
What a recipe makes of it is tried at both ends of what it allows: where the answer is the same (a
count, the newest value with an older bound before it, "reaches 38" of "> 39") it is an answer;
where it is not, there is none, only its ends, by which a safety rule can still be met.

Called by `compute`, and only for features with a bound in their window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import msgspec

from fhir_adapters.codes import code_table
from fhir_adapters.features.language import FeatureSpec
from fhir_adapters.features.recipes import RECIPES, Finding, Selection
from fhir_adapters.features.row import Ends
from fhir_adapters.reading.observations import BELOW, COMPARATORS
from fhir_adapters.record import Fact

UNKNOWN: Ends = (-math.inf, math.inf)
STRICT = frozenset({"<", ">"})
MOST_TRIED = 4
"""Up to so many bounds all their combinations are tried (16); engineering choice, 2026-11-22."""
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


def tried(selection: Selection, bounds: Sequence[Fact], spec: FeatureSpec) -> list[Finding | None]:
    """What a recipe finds with the bounds at each combination of their ends, nearest first.

    With more than `MOST_TRIED` bounds: all nearest, all farthest, and each alone at its farthest.
    """
    found = []
    for numbers in _combinations([ends_of_fact(fact) for fact in bounds]):
        held = [
            msgspec.structs.replace(fact, value=number, status="ok")
            for fact, number in zip(bounds, numbers, strict=True)
        ]
        facts = sorted([*selection.facts, *held], key=lambda f: f.start)
        found.append(RECIPES[spec.recipe](msgspec.structs.replace(selection, facts=facts), spec))
    return found


def tried_derived(
    values: Sequence[float | Ends],
    derive: Callable[[Sequence[float], FeatureSpec], float | None],
    spec: FeatureSpec,
) -> list[float | None]:
    """What a derived feature is, with the parts known by their ends at each combination of them."""
    parts = [v if isinstance(v, tuple) else (v, v) for v in values]
    if UNKNOWN in parts or spec.recipe in NOT_ONE_WAY:
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


def _combinations(ends: Sequence[Ends]) -> list[tuple[float, ...]]:
    if len(ends) <= MOST_TRIED:
        return list(product(*ends))
    nearest_all = tuple(near for near, _ in ends)
    alone = [
        (*nearest_all[:place], far, *nearest_all[place + 1 :])
        for place, (_, far) in enumerate(ends)
    ]
    return [nearest_all, tuple(far for _, far in ends), *alone]
