"""The one feature path: from a patient record and a moment to values with provenance.

Serving, training, validation and monitoring all call `FeatureSet.compute`; there is no second way
to a feature. A value is always accompanied by where it came from or why there is none, and a zero
is only given where the record was asked and could have said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fhir_adapters.clock import COPENHAGEN, DAY_S, HOUR_S, OPEN, UNDATED, age_in_years, to_datetime
from fhir_adapters.codes import code_table
from fhir_adapters.errors import LanguageError
from fhir_adapters.features.bounds import (
    below_detection,
    ends_of,
    said,
    same,
    tried,
    tried_derived,
    with_bounds,
)
from fhir_adapters.features.derived import DERIVED, FORMULAS
from fhir_adapters.features.language import (
    USABLE,
    FeatureSpec,
    Window,
    in_order,
    parse_span,
    parse_window,
)
from fhir_adapters.features.recipes import CONCLUDES_NONE, RECIPES, Finding, Selection
from fhir_adapters.features.record_at import RecordAt, anchors_of
from fhir_adapters.features.row import Ends, FeatureRow, FeatureValue
from fhir_adapters.record import Fact, PatientRecord, Stay
from fhir_adapters.sets import SetRule, set_times
from fhir_adapters.stays import (
    FOR,
    FOR_UNKNOWN,
    StayRule,
    index_stay,
    is_admission,
    link_stays,
    stay_facts,
)

FROM_STAYS = frozenset({"stay", "contact"})
OTHER_SOURCES = FROM_STAYS | {"medication", "procedure", "episode_of_care"}
PATIENT_ATTRIBUTES = frozenset({"age", "male"})
STAY_ATTRIBUTES = frozenset({"acute", "days", "weekday", "reason"})
LIMIT_ATTRIBUTES = frozenset({"red-low", "red-high", "yellow-low", "yellow-high"})
LONGEST_SERIES = 12
MOST_SOURCES = 12


@dataclass(frozen=True, slots=True)
class _Compiled:
    spec: FeatureSpec
    sources: tuple[str, ...]
    window: Window | None
    baseline: Window | None
    stale_after_s: float | None
    expected_every_s: float | None
    queries: tuple[str, ...]
    where: tuple[tuple[str, str], ...]
    by_overlap: bool
    by_end: bool


class FeatureSet:
    """The features of one package, compiled once, computed for any patient at any moment."""

    def __init__(
        self,
        specs: Iterable[FeatureSpec],
        supplied_by: Mapping[str, str],
        *,
        stay_rule: StayRule,
        index_within_hours: float | None = None,
        set_rule: SetRule | None = None,
        set_within_hours: float = 24.0,
    ) -> None:
        """Compile features.

        `supplied_by`: concept or source -> the prefetch key whose query supplies it.
        `index_within_hours`: how long after its end a stay is still the index; None: no index stay.
        `set_rule`: of which findings the question is asked, and `set_within_hours` for how long.
        Raises LanguageError for words the language does not have.
        """
        by_name: dict[str, FeatureSpec] = {}
        for spec in specs:
            if spec.name in by_name:
                raise LanguageError("two features of one name", field=f"features.{spec.name}")
            by_name[spec.name] = spec
        self.specs = by_name
        self.supplied_by = dict(supplied_by)
        self.stay_rule = stay_rule
        self.index_within_hours = index_within_hours
        self.set_rule = set_rule
        self.set_within_hours = set_within_hours
        for source in set_rule.of if set_rule else ():
            self._check_source(source, "index")
        self._compiled = [self._compile(spec) for spec in in_order(by_name)]

    @property
    def concepts(self) -> frozenset[str]:
        """Every concept and source some feature is made of, stays and contacts left out."""
        found = {name for spec in self.specs.values() for name in (*spec.of, *_reasons(spec))}
        found.update(
            name
            for spec in self.specs.values()
            for name in (spec.except_around.of if spec.except_around else ())
        )
        found.update(self.set_rule.of if self.set_rule else ())
        return frozenset(found - FROM_STAYS)

    # ---- compiling --------------------------------------------------------------------------

    def _compile(self, spec: FeatureSpec) -> _Compiled:
        field = f"features.{spec.name}"
        _check_recipe(spec, field)
        sources = [*spec.of, *(spec.except_around.of if spec.except_around else ())]
        for source in sources:
            self._check_source(source, field)
        for concept in _reasons(spec):
            _check_concept(concept, f"{field}.where")
        kinds = {code_table().concept(s).kind for s in sources if s not in OTHER_SOURCES}
        lasting = kinds & {"condition", "medication"} or set(spec.of) & {
            "medication",
            "episode_of_care",
        }
        return _Compiled(
            spec=spec,
            sources=tuple(spec.of),
            window=parse_window(spec.window, f"{field}.window"),
            baseline=parse_window(spec.baseline, f"{field}.baseline"),
            stale_after_s=parse_span(spec.stale_after, field) if spec.stale_after else None,
            expected_every_s=parse_span(spec.expected_every, field)
            if spec.expected_every
            else None,
            queries=tuple(dict.fromkeys(self.supplied_by[source] for source in sources)),
            where=tuple((tag, _unknown(tag)) for tag in spec.where),
            by_overlap=spec.when == "overlap" or (spec.when is None and bool(lasting)),
            by_end=spec.when == "end",
        )

    def _check_source(self, source: str, field: str) -> None:
        if source not in OTHER_SOURCES:
            _check_concept(source, f"{field}.of")
        if source not in self.supplied_by:
            raise LanguageError(f"no prefetch key supplies {source!r}", field=f"{field}.of")

    # ---- computing --------------------------------------------------------------------------

    def compute(self, record: PatientRecord, as_of: float) -> FeatureRow:
        """Every feature of the record at a moment; nothing known later than it is used."""
        return self.row(self.at(record, as_of))

    def at(self, record: PatientRecord, as_of: float) -> RecordAt:
        """The record at a moment, for every set of features with the same rule of stays."""
        stays = link_stays(record.contacts, self.stay_rule, as_of)
        index = self._index(stays, as_of)
        admissions, contacts = stay_facts(stays, index, self.stay_rule, as_of)
        return RecordAt(
            record=record,
            anchors=anchors_of(index, as_of),
            stays=stays,
            index=index,
            index_within_hours=self.index_within_hours,
            from_stays={"stay": admissions, "contact": contacts},
        )

    def row(self, at: RecordAt) -> FeatureRow:
        """Every feature of a record at a moment."""
        record, as_of = at.record, at.anchors.as_of
        values: dict[str, FeatureValue] = {}
        implausible: dict[tuple[str, float], Fact] = {}
        bounds: dict[str, Ends] = {}
        for compiled in self._compiled:
            values[compiled.spec.name] = self._value(compiled, at, values, implausible, bounds)
        set_time = self._set_time(record, as_of)
        return FeatureRow(as_of, at.index, values, tuple(implausible.values()), set_time, bounds)

    def _set_time(self, record: PatientRecord, as_of: float) -> float | None:
        times = set_times(record, self.set_rule, as_of) if self.set_rule else []
        recent = times and times[-1] >= as_of - self.set_within_hours * HOUR_S
        return times[-1] if recent else None

    def _index(self, stays: list[Stay], as_of: float) -> Stay | None:
        if self.index_within_hours is None:
            return None
        return index_stay(stays, as_of, self.index_within_hours)

    def is_long_enough(self, row: FeatureRow) -> bool:
        """Whether the index stay has lasted long enough to be an admission."""
        return row.index is not None and is_admission(row.index, self.stay_rule, row.as_of)

    def _value(
        self,
        compiled: _Compiled,
        at: RecordAt,
        values: Mapping[str, FeatureValue],
        implausible: dict[tuple[str, float], Fact],
        bounds: dict[str, Ends],
    ) -> FeatureValue:
        spec = compiled.spec
        if spec.recipe == "patient":
            return _of_patient(spec, at)
        if spec.recipe == "index":
            return _of_index(spec, at)
        if spec.from_:
            parts = [values[name] for name in spec.from_]
            if bounds and not bounds.keys().isdisjoint(spec.from_):
                return _derived_of_bounds(spec, parts, bounds)
            return _derived(spec, parts)
        window = at.window(compiled.window)
        if window is None:
            return FeatureValue(spec.name, None, "missing", reason="no index stay")
        selection, unusable, unusable_baseline = _select(compiled, at, window)
        newest_unusable = unusable[-1] if unusable else None
        if newest_unusable is not None and newest_unusable.status == "implausible":
            newest = selection.facts[-1].start if selection.facts else UNDATED
            if newest_unusable.start > newest:
                key = (newest_unusable.concept, newest_unusable.start)
                implausible[key] = newest_unusable
        only_unusable = newest_unusable is not None and not selection.facts
        if unusable or unusable_baseline:
            held, usual = _bounds(unusable), _bounds(unusable_baseline)
            if held or (usual and not only_unusable):
                full = with_bounds(selection, held, usual)
                return _of_bounds(compiled, at, selection, full, bounds)
        found = RECIPES[spec.recipe](selection, spec)
        if found is not None and not only_unusable:
            return _measured(compiled, selection, found)
        return _nothing(compiled, at, selection, newest_unusable)


def _check_recipe(spec: FeatureSpec, field: str) -> None:
    recipe = spec.recipe
    if recipe == "patient":
        if spec.attribute not in PATIENT_ATTRIBUTES:
            raise LanguageError(f"no such attribute of a patient: {spec.attribute}", field)
    elif recipe == "index":
        if spec.attribute not in STAY_ATTRIBUTES:
            raise LanguageError(f"no such attribute of a stay: {spec.attribute}", field)
    elif recipe in DERIVED:
        _check_derived(spec, field)
    elif recipe not in RECIPES:
        raise LanguageError(f"no recipe is called {recipe!r}", field=f"{field}.recipe")
    elif recipe == "limit" and spec.attribute not in LIMIT_ATTRIBUTES:
        raise LanguageError(f"no such limit: {spec.attribute}", field)
    elif not spec.of:
        raise LanguageError("a recipe needs something to be made of", field=f"{field}.of")


def _check_concept(name: str, field: str) -> None:
    try:
        code_table().concept(name)
    except KeyError:
        raise LanguageError(f"no concept is called {name!r}", field) from None


def _reasons(spec: FeatureSpec) -> list[str]:
    """The concepts a feature wants stays or contacts to be for."""
    return [tag.removeprefix(FOR) for tag in spec.where if tag.startswith(FOR)]


def _check_derived(spec: FeatureSpec, field: str) -> None:
    needed = DERIVED[spec.recipe][0]
    if spec.recipe == "formula":
        if spec.formula not in FORMULAS:
            raise LanguageError(f"no formula is called {spec.formula!r}", f"{field}.formula")
        needed = FORMULAS[spec.formula or ""][0]
    if spec.recipe == "product":
        needed = max(needed, len(spec.from_))
    if len(spec.from_) != needed:
        raise LanguageError(f"{spec.recipe} is made from {needed} features", f"{field}.from")


def _select(
    compiled: _Compiled, at: RecordAt, window: tuple[float, float]
) -> tuple[Selection, list[Fact], list[Fact]]:
    """What the recipe may use, and the facts it may not, oldest first: in window and baseline."""
    as_of = at.anchors.as_of
    usable, unusable = _parted(_in_window(compiled, at, window))
    chosen, uncertain = _chosen(compiled.where, usable) if compiled.where else (usable, 0)
    baseline_window = at.window(compiled.baseline) if compiled.baseline else None
    baseline, unusable_baseline = (
        _parted(_in_window(compiled, at, baseline_window)) if baseline_window else ([], [])
    )
    selection = Selection(
        facts=chosen,
        baseline=baseline,
        none_is_none=_covers(compiled, at, window[0]),
        uncertain=uncertain,
        start=window[0],
        end=window[1],
        as_of=as_of,
        expected_every_s=compiled.expected_every_s,
    )
    return selection, unusable, unusable_baseline


def _parted(facts: list[Fact]) -> tuple[list[Fact], list[Fact]]:
    """The usable facts and the others; most often there are no others."""
    unusable = [fact for fact in facts if fact.status != "ok"]
    return ([fact for fact in facts if fact.status == "ok"] if unusable else facts), unusable


def _bounds(unusable: list[Fact]) -> list[Fact]:
    return [fact for fact in unusable if fact.status == "bound"]


def _unknown(tag: str) -> str:
    """The tag of a fact that does not say whether it has this one."""
    return FOR_UNKNOWN if tag.startswith(FOR) else f"?{tag}"


def _chosen(where: tuple[tuple[str, str], ...], facts: list[Fact]) -> tuple[list[Fact], int]:
    """The facts that have every tag, and how many others might, for all the record says."""
    chosen = [f for f in facts if all(tag in f.tags for tag, _ in where)]
    possible = [f for f in facts if all(t in f.tags or u in f.tags for t, u in where)]
    return chosen, len(possible) - len(chosen)


def _in_window(compiled: _Compiled, at: RecordAt, window: tuple[float, float]) -> list[Fact]:
    start, end = window
    known = at.known(compiled.sources)
    if compiled.by_overlap:
        inside = [f for f in known if f.start <= end and f.end >= start]
    elif compiled.by_end:
        inside = [f for f in known if start <= f.end <= end]
    else:
        inside = [f for f in known if start <= f.start <= end]
    return _away_from_events(compiled, at, inside)


def _away_from_events(compiled: _Compiled, at: RecordAt, facts: list[Fact]) -> list[Fact]:
    around = compiled.spec.except_around
    if around is None:
        return facts
    as_of = at.anchors.as_of
    events = [e for source in around.of for e in at.facts(source) if e.known <= as_of]
    before, after = around.before_days * DAY_S, around.after_days * DAY_S
    return [
        fact
        for fact in facts
        if not any(event.start - before <= fact.start <= event.start + after for event in events)
    ]


def _covers(compiled: _Compiled, at: RecordAt, start: float) -> bool:
    """Whether every query behind the feature was answered back to the start of its window.

    What lasts (diagnoses, drugs) may have begun before the window, so only a whole answer will do.
    """
    return at.covers_from(compiled.queries) <= (UNDATED if compiled.by_overlap else start)


def _measured(compiled: _Compiled, selection: Selection, found: Finding) -> FeatureValue:
    spec = compiled.spec
    evidence = found.evidence
    newest = evidence[-1] if evidence else None
    single = newest if len(evidence) == 1 else None
    time = _shown_time(single) if single else max(map(_shown_time, evidence), default=None)
    stale = (
        compiled.stale_after_s is not None
        and time is not None
        and selection.as_of - time > compiled.stale_after_s
    )
    return FeatureValue(
        name=spec.name,
        value=found.value,
        status="stale" if stale else "measured",
        reason=below_detection(single) if single and single.bound else None,
        time=time if time is not None and math.isfinite(time) else None,
        sources=tuple(fact.source for fact in found.evidence[-MOST_SOURCES:]),
        code=newest.code or None if newest else None,
        original=single.original if single else None,
        unit=(single.unit or None) if single else None,
        baseline=found.baseline,
        series=_series(selection) if spec.recipe not in CONCLUDES_NONE else (),
        findings=len(found.evidence),
    )


def _of_bounds(
    compiled: _Compiled,
    at: RecordAt,
    selection: Selection,
    full: Selection,
    bounds: dict[str, Ends],
) -> FeatureValue:
    """A feature with bounds in a window: its answer where no bound can change it, else why none.

    `full` is the selection with its bounds. Where there is no answer, `bounds` gets the lowest and
    highest it can be.
    """
    spec = compiled.spec
    found = tried(full, spec)
    numbers = [None if one is None else one.value for one in found]
    if same(numbers):
        if found[0] is not None:
            return _measured(compiled, selection, found[0])
        return _nothing(compiled, at, selection, None)
    bounds[spec.name] = ends_of(numbers)
    newest = (_bounds(full.facts) or _bounds(full.baseline))[-1]
    return FeatureValue(
        name=spec.name,
        value=None,
        status="missing",
        reason=said(newest),
        time=newest.start,
        sources=(newest.source,),
        code=newest.code or None,
        original=newest.original,
        unit=newest.unit or None,
    )


def _shown_time(fact: Fact) -> float:
    """When a finding held, for showing: a stay by its end, all else by its start."""
    return fact.end if fact.concept == "stay" and fact.end < OPEN else fact.start


def _series(selection: Selection) -> tuple[tuple[float, float], ...]:
    newest = selection.facts[-LONGEST_SERIES:]
    dated = (fact for fact in newest if fact.start > UNDATED)
    return tuple((fact.start, fact.value) for fact in dated if fact.value is not None)


def _nothing(
    compiled: _Compiled, at: RecordAt, selection: Selection, unusable: Fact | None
) -> FeatureValue:
    name = compiled.spec.name
    if selection.uncertain and compiled.spec.recipe in CONCLUDES_NONE:
        reason = f"not stated for {selection.uncertain}"
        return FeatureValue(name, None, "not-obtained", reason=reason)
    if unusable is not None:
        return FeatureValue(
            name,
            None,
            "implausible" if unusable.status == "implausible" else "refused-unit",
            time=unusable.start,
            sources=(unusable.source,),
            code=unusable.code or None,
            original=unusable.original,
            unit=unusable.unit or None,
        )
    if not selection.none_is_none:
        return FeatureValue(name, None, "not-obtained", reason=_why(compiled, at))
    return FeatureValue(name, None, "missing")


def _why(compiled: _Compiled, at: RecordAt) -> str:
    """Which query was not answered far enough back, and why."""
    for query in compiled.queries:
        answer = at.record.answer(query)
        if answer.covers_from > UNDATED:
            return f"{query}: {answer.reason or answer.state}"
    return "not obtained"


def _of_patient(spec: FeatureSpec, at: RecordAt) -> FeatureValue:
    record = at.record
    source = (f"Patient/{record.patient_id}",)
    value: float | None
    if spec.attribute == "age":
        value = age_in_years(record.birth_date, at.anchors.as_of) if record.birth_date else None
    else:
        value = {"male": 1.0, "female": 0.0}.get(record.gender or "")
    if value is None:
        return FeatureValue(spec.name, None, "missing", sources=source)
    return FeatureValue(spec.name, value, "measured", sources=source)


def _of_index(spec: FeatureSpec, at: RecordAt) -> FeatureValue:
    stay = at.index
    if stay is None:
        return FeatureValue(spec.name, None, "missing", reason="no index stay")
    end = min(stay.end, at.anchors.as_of)
    value: float | None
    if spec.attribute == "acute":
        value = None if stay.acute is None else float(stay.acute)
    elif spec.attribute == "days":
        value = (end - stay.start) / DAY_S
    elif spec.attribute == "weekday":
        value = float(to_datetime(end, COPENHAGEN).weekday())
    else:
        meant = not stay.reasons.isdisjoint(spec.of)
        value = float(meant) if meant or stay.reasons_are_all else None
    if value is None:
        return FeatureValue(spec.name, None, "missing", sources=(stay.source,))
    return FeatureValue(spec.name, value, "measured", time=stay.start, sources=(stay.source,))


def _derived(spec: FeatureSpec, made_from: list[FeatureValue]) -> FeatureValue:
    lacking = next((v for v in made_from if v.status not in USABLE or v.value is None), None)
    if lacking is not None:
        return FeatureValue(
            spec.name,
            None,
            lacking.status,
            reason=lacking.reason or lacking.name,
            time=lacking.time,
            sources=lacking.sources,
            original=lacking.original,
            unit=lacking.unit,
        )
    value = DERIVED[spec.recipe][1]([v.value for v in made_from if v.value is not None], spec)
    if value is None:
        return FeatureValue(spec.name, None, "missing", reason="cannot be computed")
    head = made_from[0]
    stale = any(v.status == "stale" for v in made_from)
    return FeatureValue(
        name=spec.name,
        value=value,
        status="stale" if stale else "measured",
        time=head.time,
        sources=tuple(dict.fromkeys(s for v in made_from for s in v.sources))[:MOST_SOURCES],
        code=head.code,
        original=head.original,
        unit=head.unit,
        series=head.series,
        findings=head.findings,
    )


def _derived_of_bounds(
    spec: FeatureSpec, made_from: list[FeatureValue], bounds: dict[str, Ends]
) -> FeatureValue:
    """A derived feature some part of which is known by its ends only."""
    numbers = [bounds.get(v.name, v.value) for v in made_from]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return _derived(spec, made_from)
    found = tried_derived(known, DERIVED[spec.recipe][1], spec)
    if not same(found) or found[0] is None:
        bounds[spec.name] = ends_of(found)
        return _derived(spec, made_from)
    bounded = next(v for v in made_from if v.name in bounds)
    sources = tuple(dict.fromkeys(s for v in made_from for s in v.sources))[:MOST_SOURCES]
    return FeatureValue(spec.name, found[0], "measured", time=bounded.time, sources=sources)


__all__ = ["FeatureRow", "FeatureSet", "FeatureValue"]
