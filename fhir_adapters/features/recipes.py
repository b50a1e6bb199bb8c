"""The recipes: plain functions from the facts in a window to one number.

Each takes a `Selection` (usable facts oldest first, and whether "none" may be concluded) and the
feature's words, and gives a `Finding`, or None where there is nothing to say. What a missing
finding means (missing, not obtained, implausible) is decided in `compute.py`, for all alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fhir_adapters.charlson import Variant, charlson_index_of_groups
from fhir_adapters.clock import DAY_S
from fhir_adapters.features.language import FeatureSpec
from fhir_adapters.record import Fact

WEEK_S = 7 * DAY_S
MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation under normality, 1/Phi^-1(3/4)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The facts a recipe may use.

    `facts`: usable, inside the window, oldest first. `baseline`: the same for the baseline window.
    `none_is_none`: an empty selection means that there was nothing, because the query was made, was
    complete and covers the window. `uncertain`: facts that would have counted, had the record said
    enough of them. `start`, `end`: the window.
    """

    facts: list[Fact]
    baseline: list[Fact]
    none_is_none: bool
    uncertain: int
    start: float
    end: float
    as_of: float
    expected_every_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A recipe's number, the facts that carry it (newest last), and the baseline, if it has one."""

    value: float
    evidence: tuple[Fact, ...] = ()
    baseline: float | None = None


Recipe = Callable[[Selection, FeatureSpec], Finding | None]


def _values(facts: list[Fact]) -> list[float]:
    return [fact.value for fact in facts if fact.value is not None]


def last(s: Selection, _: FeatureSpec) -> Finding | None:
    """The newest value."""
    return _picked(s.facts[-1]) if s.facts else None


def first(s: Selection, _: FeatureSpec) -> Finding | None:
    """The oldest value."""
    return _picked(s.facts[0]) if s.facts else None


def lowest(s: Selection, _: FeatureSpec) -> Finding | None:
    """The lowest value; of equals, the newest."""
    chosen = min(reversed(s.facts), key=_number, default=None)
    return _picked(chosen) if chosen else None


def highest(s: Selection, _: FeatureSpec) -> Finding | None:
    """The highest value; of equals, the newest."""
    chosen = max(reversed(s.facts), key=_number, default=None)
    return _picked(chosen) if chosen else None


def _number(fact: Fact) -> float:
    return -math.inf if fact.value is None else fact.value


def _picked(fact: Fact) -> Finding | None:
    return None if fact.value is None else Finding(fact.value, (fact,))


def mean(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The mean of at least `min_count` values."""
    values = _values(s.facts)
    if len(values) < max(1, spec.min_count):
        return None
    return Finding(statistics.fmean(values), tuple(s.facts))


def median(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The median of at least `min_count` values."""
    values = _values(s.facts)
    if len(values) < max(1, spec.min_count):
        return None
    return Finding(statistics.median(values), tuple(s.facts))


def change(s: Selection, _: FeatureSpec) -> Finding | None:
    """The newest value less the one before it."""
    values = _values(s.facts[-2:])
    return Finding(values[1] - values[0], tuple(s.facts[-2:])) if len(values) == 2 else None


def gain(s: Selection, _: FeatureSpec) -> Finding | None:
    """The newest value less the oldest in the window."""
    values = _values(s.facts)
    if len(values) < 2:
        return None
    return Finding(values[-1] - values[0], (s.facts[0], s.facts[-1]))


def gain_percent(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The gain in per cent of the oldest value in the window."""
    found = gain(s, spec)
    if found is None or not s.facts[0].value:
        return None
    return Finding(100.0 * found.value / s.facts[0].value, found.evidence)


def slope(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The least-squares slope per week over at least `min_count` (at least 2) values."""
    facts = [fact for fact in s.facts if fact.value is not None]
    if len(facts) < max(2, spec.min_count):
        return None
    weeks = [(fact.start - facts[0].start) / WEEK_S for fact in facts]
    values = _values(facts)
    if max(weeks) == 0.0:
        return None
    return Finding(statistics.linear_regression(weeks, values).slope, tuple(facts))


def delta_to_baseline(s: Selection, spec: FeatureSpec) -> Finding | None:
    """How far the newest value lies from the patient's own baseline, in own standard deviations.

    Baseline: median of at least `min_count` values in the baseline window, the newest left out;
    spread: 1.4826 times their median absolute deviation, at least `floor_sd`. (CLINICAL notes 2.1;
    floors for pulse and saturation: Hurst 2010.)
    """
    if not s.facts or s.facts[-1].value is None:
        return None
    newest = s.facts[-1]
    values = [f.value for f in s.baseline if f.value is not None and f is not newest]
    if len(values) < max(1, spec.min_count):
        return None
    usual = statistics.median(values)
    spread = MAD_TO_SD * statistics.median(abs(value - usual) for value in values)
    spread = max(spread, spec.floor_sd or 0.0)
    if spread == 0.0 or newest.value is None:
        return None
    return Finding((newest.value - usual) / spread, (newest,), usual)


def baseline_median(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The patient's own usual value: the median of the baseline window."""
    values = _values(s.baseline)
    if len(values) < max(1, spec.min_count):
        return None
    return Finding(statistics.median(values), tuple(s.baseline))


def count(s: Selection, _: FeatureSpec) -> Finding | None:
    """How many; 0 only where "none" may be concluded and nothing is uncertain."""
    if s.uncertain or not s.none_is_none:
        return None
    return Finding(float(len(s.facts)), tuple(s.facts))


def count_distinct(s: Selection, _: FeatureSpec) -> Finding | None:
    """How many different codes; 0 only where "none" may be concluded."""
    if s.uncertain or not s.none_is_none:
        return None
    newest = {fact.code: fact for fact in s.facts}
    return Finding(float(len(newest)), tuple(newest.values()))


def count_concepts(s: Selection, _: FeatureSpec) -> Finding | None:
    """How many of the feature's concepts are there at all."""
    if s.uncertain or not s.none_is_none:
        return None
    newest = {fact.concept: fact for fact in s.facts}
    return Finding(float(len(newest)), tuple(newest.values()))


def any_of(s: Selection, _: FeatureSpec) -> Finding | None:
    """1 where there is one; 0 only where "none" may be concluded."""
    if s.facts:
        return Finding(1.0, (s.facts[-1],))
    return Finding(0.0) if s.none_is_none and not s.uncertain else None


def days_since(s: Selection, spec: FeatureSpec) -> Finding | None:
    """Days from the end of the newest to the end of the window; `never` where there was none."""
    if s.uncertain:
        return None
    if not s.facts:
        return Finding(spec.never) if s.none_is_none and spec.never is not None else None
    newest = max(s.facts, key=lambda fact: fact.end if math.isfinite(fact.end) else fact.start)
    at = newest.end if math.isfinite(newest.end) else newest.start
    return Finding(max(0.0, (s.end - at) / DAY_S), (newest,))


def days_total(s: Selection, _: FeatureSpec) -> Finding | None:
    """Days inside the window taken up by stays or periods; 0 only where that is known."""
    if s.uncertain or not s.none_is_none:
        return None
    spans = ((max(f.start, s.start), min(f.end, s.end)) for f in s.facts)
    days = sum(max(0.0, end - start) for start, end in spans) / DAY_S
    return Finding(days, tuple(s.facts))


def missed(s: Selection, _: FeatureSpec) -> Finding | None:
    """Expected less received in the window, at least 0; needs `expected_every`."""
    if s.expected_every_s is None or not s.none_is_none:
        return None
    expected = math.floor((s.end - s.start) / s.expected_every_s)
    days = {math.floor(fact.start / DAY_S) for fact in s.facts}
    return Finding(float(max(0, expected - len(days))), tuple(s.facts))


def sum_scores(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The sum of the newest value of every concept; nothing where one of them is lacking."""
    newest = {fact.concept: fact for fact in s.facts if fact.value is not None}
    if any(concept not in newest for concept in spec.of):
        return None
    return Finding(math.fsum(f.value or 0.0 for f in newest.values()), tuple(newest.values()))


def charlson(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The Charlson index of the diagnoses (`variant`: original, quan2011; groups in `drop` left
    out); 0 only where "none" may be concluded."""
    if not s.none_is_none:
        return None
    groups = {fact.concept: fact for fact in s.facts if fact.concept not in spec.drop}
    variant: Variant = "original" if spec.variant == "original" else "quan2011"
    return Finding(float(charlson_index_of_groups(groups, variant)), tuple(groups.values()))


RECIPES: Mapping[str, Recipe] = {
    "last": last,
    "first": first,
    "min": lowest,
    "max": highest,
    "mean": mean,
    "median": median,
    "change": change,
    "gain": gain,
    "gain_percent": gain_percent,
    "slope": slope,
    "delta_to_baseline": delta_to_baseline,
    "baseline_median": baseline_median,
    "count": count,
    "count_distinct": count_distinct,
    "count_concepts": count_concepts,
    "any": any_of,
    "days_since": days_since,
    "days_total": days_total,
    "missed": missed,
    "sum_scores": sum_scores,
    "charlson": charlson,
}
CONCLUDES_NONE = frozenset(
    {
        "count",
        "count_distinct",
        "count_concepts",
        "any",
        "days_since",
        "days_total",
        "missed",
        "charlson",
    }
)
"""Recipes for which an empty window is an answer, not a gap."""
