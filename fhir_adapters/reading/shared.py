"""What the reading of every kind of resource shares: when it was, what it means, what to name.

Whose a resource is, was settled before it is read: `belonging.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo

from fhir_adapters import resources as r
from fhir_adapters.clock import end_of, parse_time
from fhir_adapters.codes import CodeTable, normalise_coding
from fhir_adapters.decode import Gathered, Trouble
from fhir_adapters.reading.wanted import Wanted
from fhir_adapters.record import Fact
from fhir_adapters.references import reference_key

WITHDRAWN = frozenset({"entered-in-error", "cancelled"})

Found = tuple[str, str | None, str]
"""A wanted concept, the unit its code implies, and the code."""

_NOTHING: tuple[Found, ...] = ()


def codings(concepts: Iterable[r.CodeableConcept | None] | None) -> Sequence[r.Coding]:
    """All codings of some CodeableConcepts."""
    lists = [one.coding for one in concepts or () if one is not None and one.coding]
    return lists[0] if len(lists) == 1 else [coding for some in lists for coding in some]


class Reading:
    """One record being read: the facts found so far, the troubles met, and two small memories
    (texts to times, codings to wanted concepts), because records repeat themselves."""

    def __init__(
        self,
        gathered: Gathered,
        wanted: Wanted,
        *,
        table: CodeTable,
        zone: tzinfo,
    ) -> None:
        self.gathered = gathered
        self.wanted = wanted
        self.table = table
        self.zone = zone
        self.facts: dict[str, list[Fact]] = {}
        self.troubles: list[Trouble] = []
        self._conditions: dict[str, r.CodeableConcept | None] | None = None
        self._times: dict[str, float] = {}
        self._canonical: dict[tuple[str | None, str], tuple[str, str]] = {}
        self._meanings: dict[tuple[str | None, str | None], tuple[Found, ...]] = {}

    def add(self, fact: Fact) -> None:
        """Keep a fact."""
        kept = self.facts.get(fact.concept)
        if kept is None:
            self.facts[fact.concept] = [fact]
        else:
            kept.append(fact)

    def no_time(self, kind: str, text: str) -> None:
        """Note a resource left out, or read without a time, because its time is missing."""
        self.troubles.append(Trouble(kind, "no-time", text))

    def time(self, text: str | None, kind: str) -> float | None:
        """The moment a text means; None where there is none, or none that can be read."""
        if not text:
            return None
        known = self._times.get(text)
        if known is not None:
            return known
        try:
            moment = parse_time(text, self.zone)
        except ValueError:
            self.no_time(kind, f"{kind}: a time could not be read")
            return None
        self._times[text] = moment
        return moment

    def end(self, text: str | None, otherwise: float) -> float:
        """The last moment a text means; `otherwise` where there is none that can be read."""
        if not text:
            return otherwise
        try:
            return end_of(text, self.zone)
        except ValueError:
            return otherwise

    def meanings(self, codeable: r.CodeableConcept | None) -> tuple[Found, ...] | list[Found]:
        """The wanted concepts among all codings, each once."""
        if codeable is None or not codeable.coding:
            return _NOTHING
        if len(codeable.coding) == 1:
            (coding,) = codeable.coding
            known = self._meanings.get((coding.system, coding.code))
            return self._meaning(coding) if known is None else known
        found: dict[str, Found] = {}
        for coding in codeable.coding:
            for one in self._meaning(coding):
                found.setdefault(one[0], one)
        return list(found.values())

    def unmeasured(self, codeable: r.CodeableConcept | None) -> list[Found]:
        """The wanted concepts but for what is measured: no number is read off a diagnosis, a
        procedure or a drug, whatever it is coded as."""
        kind_of = self.table.concept
        return [one for one in self.meanings(codeable) if kind_of(one[0]).kind != "observation"]

    def condition_code(self, reference: r.Reference | None) -> r.CodeableConcept | None:
        """What a reference to a Condition of the input means; None where it is not there."""
        if self._conditions is None:
            conditions = self.gathered.of("Condition")
            self._conditions = {f"Condition/{c.id}": c.code for c in conditions if c.id}
        text = reference.reference if reference else None
        key = reference_key(text, self.gathered.ids_by_full_url)
        return self._conditions.get(key) if key else None

    def canonical(self, coding: r.Coding) -> tuple[str, str] | None:
        """The coding's system and code in the table's own form; None where it has no code."""
        if not coding.code:
            return None
        key = (coding.system, coding.code)
        known = self._canonical.get(key)
        if known is None:
            known = self._canonical[key] = normalise_coding(coding.system, coding.code)
        return known

    def _meaning(self, coding: r.Coding) -> tuple[Found, ...]:
        key = (coding.system, coding.code)
        known = self._meanings.get(key)
        if known is None:
            coded = self.table.concepts_of(coding.system, coding.code)
            known = tuple(
                (c.concept, c.own_unit, coding.code or "")
                for c in coded
                if c.concept in self.wanted.concepts
            )
            self._meanings[key] = known
        return known
