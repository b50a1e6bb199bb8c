"""A patient record at a moment: what all features computed there look at, found out once.

Facts known by then, stays, how far back queries were answered, and when windows begin and end.
Called by `compute`, for the features of a package and for whatever else is computed beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fhir_adapters.clock import UNDATED
from fhir_adapters.features.language import Anchors, Window
from fhir_adapters.record import Fact, PatientRecord, Stay


@dataclass(frozen=True, slots=True)
class RecordAt:
    """A patient record at a moment: what all features share there, and what one of them found.

    Made by `FeatureSet.at`. `stays`: the contacts linked, oldest first; `index`: the one the
    question is about, by how long after its end it still is one (`index_within_hours`).
    """

    record: PatientRecord
    anchors: Anchors
    stays: list[Stay]
    index: Stay | None
    index_within_hours: float | None
    from_stays: Mapping[str, list[Fact]]
    _known: dict[tuple[str, ...], list[Fact]] = field(default_factory=dict)
    _covered: dict[tuple[str, ...], float] = field(default_factory=dict)
    _windows: dict[Window | None, tuple[float, float] | None] = field(default_factory=dict)

    def facts(self, source: str) -> list[Fact]:
        """All facts of a source, stays and contacts included, oldest first."""
        return self.from_stays.get(source) or self.record.of(source)

    def known(self, sources: tuple[str, ...]) -> list[Fact]:
        """The facts of some sources that were known and had begun by `as_of`, oldest first."""
        found = self._known.get(sources)
        if found is None:
            found = self._known[sources] = self._look_up(sources)
        return found

    def window(self, points: Window | None) -> tuple[float, float] | None:
        """Where a window begins and ends; None where it hangs on a stay there is none of."""
        try:
            return self._windows[points]
        except KeyError:
            found = self._windows[points] = _window(points, self.anchors)
            return found

    def covers_from(self, queries: tuple[str, ...]) -> float:
        """How far back the least complete of some queries was answered."""
        found = self._covered.get(queries)
        if found is None:
            answers = (self.record.answer(query).covers_from for query in queries)
            found = self._covered[queries] = max(answers, default=UNDATED)
        return found

    def _look_up(self, sources: tuple[str, ...]) -> list[Fact]:
        as_of = self.anchors.as_of
        facts = self.facts(sources[0]) if len(sources) == 1 else self._merged(sources)
        known = [f for f in facts if f.known <= as_of and f.start <= as_of]
        return _last_known(known) if self.record.revised.intersection(sources) else known

    def _merged(self, sources: tuple[str, ...]) -> list[Fact]:
        facts = [fact for source in sources for fact in self.facts(source)]
        return sorted(facts, key=lambda fact: (fact.start, fact.concept, fact.source))


def anchors_of(index: Stay | None, as_of: float) -> Anchors:
    """The moments windows hang on at a moment."""
    if index is None:
        return Anchors(as_of)
    return Anchors(as_of, index.start, min(index.end, as_of))


def _window(points: Window | None, anchors: Anchors) -> tuple[float, float] | None:
    if points is None:
        return UNDATED, anchors.as_of
    start, end = points[0].at(anchors), points[1].at(anchors)
    if start is None or end is None:
        return None
    return start, min(end, anchors.as_of)


def _last_known(facts: list[Fact]) -> list[Fact]:
    """Of each concept at each moment, what was known of it last; the usable before the unusable."""
    chosen: dict[tuple[str, float], Fact] = {}
    for fact in facts:
        key = (fact.concept, fact.start)
        other = chosen.get(key)
        if other is None or _version(fact) > _version(other):
            chosen[key] = fact
    return list(chosen.values())


def _version(fact: Fact) -> tuple[bool, bool, float]:
    return fact.status == "ok", "derived" not in fact.tags, fact.known
