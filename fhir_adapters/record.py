"""The patient record: what FHIR said, as plain dated facts, whatever it was coded in.

A `Fact` is one finding of one concept: a measurement, a diagnosis, an operation, a drug, a contact
or a stay. A `PatientRecord` holds all facts of one patient, sorted, and knows how completely each
query behind them was answered. It has no "now": every reader gives its own `as_of`.

Facts are made in `facts.py` and `stays.py`; features read them in `features/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from fhir_adapters.clock import OPEN, UNDATED
from fhir_adapters.decode import COMPLETE, NOT_ASKED, QueryAnswer, Trouble

FactStatus = Literal["ok", "implausible", "refused-unit", "bound"]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One finding about the patient.

    Times are seconds since 1970: `start` (-inf: undated), `end` (inf: still so) and `known`, the
    moment the record could have said it. `value` is in the concept's unit, None for findings that
    have no number and for numbers that may not be used (`status` says why, `original` and `unit`
    what stood there). `tags` are what `where` in a feature can ask for; a tag with `?` in front
    means that the record does not say. `limits`: the patient's own alarm limits stated with a
    measurement, by name (`red-low` ...), in the concept's unit. `bound`: the comparator of a number
    that is no value but a bound (status `bound`; `value` is the bound), or below the detection
    limit and read as the value (status `ok`): `<`, `<=`, `>=` or `>`.
    """

    concept: str
    start: float = UNDATED
    end: float = OPEN
    known: float = UNDATED
    value: float | None = None
    status: FactStatus = "ok"
    original: float | None = None
    unit: str = ""
    source: str = ""
    code: str = ""
    tags: frozenset[str] = frozenset()
    limits: tuple[tuple[str, float], ...] = ()
    bound: str = ""


class Contact(msgspec.Struct, frozen=True, gc=False):
    """One hospital contact (FHIR Encounter) that took place or is taking place.

    `acute` is None where the record does not say. `end` is inf while it lasts. `reasons`: the
    wanted concepts it was for, None where it states no reason. `reason_unread`: a reason is stated
    that cannot be read, so that what is not among `reasons` may still be one.
    """

    start: float
    end: float
    class_code: str
    acute: bool | None
    source: str
    reasons: frozenset[str] | None = None
    reason_unread: bool = False


@dataclass(frozen=True, slots=True)
class Stay:
    """Hospital contacts linked into one stay; `end` is inf while it lasts."""

    start: float
    end: float
    acute: bool | None
    contacts: tuple[Contact, ...]

    @property
    def source(self) -> str:
        """The reference of the first contact, which names the stay."""
        return self.contacts[0].source

    @property
    def reasons(self) -> frozenset[str]:
        """The wanted concepts some contact of the stay was for."""
        return frozenset().union(*(c.reasons for c in self.contacts if c.reasons))

    @property
    def reasons_are_all(self) -> bool:
        """Whether the stay says what it was for, and all it says could be read."""
        stated = any(c.reasons is not None for c in self.contacts)
        return stated and not any(c.reason_unread for c in self.contacts)

    def hours_by(self, moment: float) -> float:
        """How long the stay had lasted at a moment, in hours."""
        return (min(self.end, moment) - self.start) / 3600.0


@dataclass(slots=True)
class PatientRecord:
    """All facts of one patient.

    `facts` per concept, sorted by start and source; of a concept in `revised` one moment may have
    several, of which the last known by `as_of` counts. `deceased_at` is None for the living, -inf
    where the record says "deceased" without a date.
    """

    patient_id: str
    birth_date: str | None = None
    gender: str | None = None
    deceased_at: float | None = None
    facts: dict[str, list[Fact]] = field(default_factory=dict)
    revised: frozenset[str] = frozenset()
    contacts: tuple[Contact, ...] = ()
    answers: Mapping[str, QueryAnswer] = field(default_factory=dict)
    whole: bool = False
    troubles: list[Trouble] = field(default_factory=list)

    def of(self, concept: str) -> list[Fact]:
        """The facts of a concept, oldest first."""
        return self.facts.get(concept, [])

    def answer(self, query: str) -> QueryAnswer:
        """How completely a query was answered."""
        return self.answers.get(query, COMPLETE if self.whole else NOT_ASKED)
