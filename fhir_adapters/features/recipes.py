"""The recipes: plain functions from the facts in a window to one number.

Each takes a `Selection` (usable facts oldest first, and whether "none" may be concluded) and the
feature's words, and gives a `Finding`, or None where there is nothing to say. What a missing
finding means (missing, not obtained, implausible) is decided in `compute.py`, for all alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping

import msgspec

from fhir_adapters.charlson import charlson_index_of_groups
from fhir_adapters.clock import DAY_S, to_datetime
from fhir_adapters.codes import ICD_10, SNOMED_CT, code_table
from fhir_adapters.features.language import FeatureSpec
from fhir_adapters.record import Fact

WEEK_S = 7 * DAY_S
MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation under normality, 1/Phi^-1(3/4)."""
MIDWINTER_DAY = 15
"""Day of the year at which `season` is 1: 15 January, an engineering choice of 2026-11-21."""
DAYS_A_YEAR = 365.25


class Selection(msgspec.Struct, frozen=True):
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


class Finding(msgspec.Struct, frozen=True):
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
    spread: 1.4826 times their median absolute deviation, at least `floor_sd`, in which
    Hurst 2010 puts 5/min for pulse and 1 % for saturation.
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


def episodes(s: Selection, spec: FeatureSpec) -> Finding | None:
    """How many episodes: what begins at most `gap_days` after the last ended belongs to it.

    What has no end counts as over when it began. 0 only where "none" may be concluded.
    """
    if s.uncertain or not s.none_is_none:
        return None
    begun: list[Fact] = []
    reach = -math.inf
    for fact in s.facts:
        if not begun or fact.start - reach > spec.gap_days * DAY_S:
            begun.append(fact)
        reach = max(reach, _ended(fact))
    return Finding(float(len(begun)), tuple(begun))


def any_of(s: Selection, _: FeatureSpec) -> Finding | None:
    """1 where there is one; 0 where the record says no, or "none" may be concluded.

    A finding of the value 0 (an answer "no") says that there is none.
    """
    said = [fact for fact in s.facts if fact.value != 0.0]
    if said:
        return Finding(1.0, (said[-1],))
    if s.facts and not s.uncertain:
        return Finding(0.0, (s.facts[-1],))
    return Finding(0.0) if s.none_is_none and not s.uncertain else None


def days_since(s: Selection, spec: FeatureSpec) -> Finding | None:
    """Days from the end of the newest to the end of the window; `never` where there was none."""
    if s.uncertain:
        return None
    if not s.facts:
        return Finding(spec.never) if s.none_is_none and spec.never is not None else None
    newest = max(s.facts, key=_ended)
    if not math.isfinite(_ended(newest)):
        return None
    return Finding(max(0.0, (s.end - _ended(newest)) / DAY_S), (newest,))


def days_since_first(s: Selection, spec: FeatureSpec) -> Finding | None:
    """Days from the start of the oldest to the end of the window; `never` where there was none.

    How long a disease has been known. Nothing where the oldest is undated, or where older ones
    may be lacking, because the answer does not cover the window.
    """
    if s.uncertain or not s.none_is_none:
        return None
    if not s.facts:
        return None if spec.never is None else Finding(spec.never)
    oldest = s.facts[0]
    if not math.isfinite(oldest.start):
        return None
    return Finding((s.end - oldest.start) / DAY_S, (oldest,))


def own_limit(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The newest of the patient's own alarm limits of a kind (`attribute`: `red-low` ...)."""
    for fact in reversed(s.facts):
        for name, value in fact.limits:
            if name == spec.attribute:
                return Finding(value, (fact,))
    return None


def _ended(fact: Fact) -> float:
    """When a finding ended; for one that has no end, or none known, when it began."""
    return fact.end if math.isfinite(fact.end) else fact.start


def days_total(s: Selection, _: FeatureSpec) -> Finding | None:
    """Days inside the window taken up by stays or periods; 0 only where that is known."""
    if s.uncertain or not s.none_is_none:
        return None
    spans = ((max(f.start, s.start), min(f.end, s.end)) for f in s.facts)
    days = sum(max(0.0, end - start) for start, end in spans) / DAY_S
    return Finding(days, tuple(s.facts))


def missed(s: Selection, _: FeatureSpec) -> Finding | None:
    """How many of the expected times brought nothing.

    The window is cut, from its end backwards, into spans of `expected_every`; spans without any
    finding are counted, what is left over at the start is not.
    """
    if not s.expected_every_s or not s.none_is_none:
        return None
    expected = math.floor((s.end - s.start) / s.expected_every_s)
    kept = {math.floor((s.end - fact.start) / s.expected_every_s) for fact in s.facts}
    return Finding(float(expected - len(kept & set(range(expected)))), tuple(s.facts))


def season(s: Selection, _: FeatureSpec) -> Finding | None:
    """How wintry the newest finding's day is: 1 in the middle of January, -1 of July."""
    if not s.facts or not math.isfinite(s.facts[-1].start):
        return None
    day = to_datetime(s.facts[-1].start).timetuple().tm_yday
    return Finding(math.cos(2 * math.pi * (day - MIDWINTER_DAY) / DAYS_A_YEAR), (s.facts[-1],))


def sum_scores(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The sum of the newest value of every concept; nothing where one of them is lacking."""
    newest = {fact.concept: fact for fact in s.facts if fact.value is not None}
    if any(concept not in newest for concept in spec.of):
        return None
    return Finding(math.fsum(f.value or 0.0 for f in newest.values()), tuple(newest.values()))


def charlson(s: Selection, spec: FeatureSpec) -> Finding | None:
    """The Charlson index of the diagnoses; 0 only where "none" may be concluded.

    `drop`: concepts whose diagnoses are left out, because they are the disease the prognosis is
    about (colorectal surgery: `colon_cancer`, `rectal_cancer`, `metastatic_cancer`), or groups.
    """
    if not s.none_is_none or spec.variant is None:
        return None
    dropped = frozenset(spec.drop)
    groups = {f.concept: f for f in s.facts if not (dropped and dropped & _meanings(f))}
    return Finding(float(charlson_index_of_groups(groups, spec.variant)), tuple(groups.values()))


def _meanings(fact: Fact) -> set[str]:
    """Its own concept and every other one its code stands for."""
    table = code_table()
    found = (c for system in (ICD_10, SNOMED_CT) for c in table.concepts_of(system, fact.code))
    return {fact.concept, *(coded.concept for coded in found)}


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
    "episodes": episodes,
    "any": any_of,
    "days_since": days_since,
    "days_since_first": days_since_first,
    "days_total": days_total,
    "missed": missed,
    "season": season,
    "sum_scores": sum_scores,
    "charlson": charlson,
    "limit": own_limit,
}
CONCLUDES_NONE = frozenset(
    {
        "count",
        "count_distinct",
        "count_concepts",
        "episodes",
        "any",
        "days_since",
        "days_since_first",
        "days_total",
        "missed",
        "charlson",
    }
)
"""Recipes for which an empty window is an answer, not a gap."""
