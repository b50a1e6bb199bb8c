"""One enrolled person's year as a hospital and a telemedicine platform would know it.

From a person's row of a block to contacts, courses of medicine, dated sets and agreed limits, in
UTC seconds. What is coded how is the affair of `lines`. Called by `cohort`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest
from math import isfinite
from typing import Final, NamedTuple

from models.synthetic.fhir_lines import DAY_S, HOUR_S, Choices, Contact
from models.synthetic.telemonitoring import codings
from models.synthetic.telemonitoring.anchors import Disease, numbers_of
from models.synthetic.telemonitoring.course import ADMISSION, COURSE, FIRST_DAY, LAST_DAY
from models.synthetic.telemonitoring.people import LOOP_DOSES_MG

APART_DAYS: Final = 3.0
"""Contacts for other reasons keep this distance to those for a deterioration."""
RENEWED_DAYS: Final = 90.0
COURSE_DOSE_MG: Final = 37.5
DOSE_RAISED: Final = 0.6
"""Share of contacts for heart failure that end in a higher dose of loop diuretic."""


class Deterioration(NamedTuple):
    """One true event: its moment, what it led to, and how many days before it it showed."""

    at: int
    kind: int
    prodrome_days: float


class HomeSet(NamedTuple):
    """What was sent on one morning; a part that is lacking is not in the mapping."""

    at: int
    values: Mapping[str, float]
    answers: Mapping[str, float]


class Supply(NamedTuple):
    """One prescription: ATC code, from when until when (None: goes on), mg a dose, as needed."""

    atc: str
    start: int
    end: int | None
    dose_mg: float | None
    over: bool


@dataclass(frozen=True, slots=True)
class Person:
    """One person's row of a block. Days count from enrolment, at `enrolled` (UTC seconds)."""

    patient_id: str
    disease: Disease
    enrolled: int
    true: Mapping[str, float]
    onset: Sequence[float]
    kind: Sequence[int]
    prodrome_days: Sequence[float]
    death: float
    rate: float
    day: Sequence[float]
    sent: Sequence[bool]
    values: Mapping[str, Sequence[float]]
    answers: Mapping[str, Sequence[float]]

    def moment(self, day: float) -> int:
        """The UTC second of a day of the person's course."""
        return self.enrolled + round(day * DAY_S)

    @property
    def died_at(self) -> int | None:
        """The second of death; None for the living."""
        return self.moment(self.death) if isfinite(self.death) else None


@dataclass(frozen=True, slots=True)
class Chart:
    """What is written about one person. `system`: the record system of hospital and platform."""

    person: Person
    system: int
    deteriorations: Sequence[Deterioration]
    contacts: Sequence[Contact]
    sets: Sequence[HomeSet]
    supplies: Sequence[Supply]
    limits: Mapping[str, Mapping[str, float]]
    choices: Choices
    numbers: Iterator[int] = field(default_factory=count)


def make_chart(person: Person, choices: Choices, *, system: int) -> Chart:
    """The chart of one person."""
    events = deteriorations(person)
    contacts = [*_event_contacts(person, events, choices)]
    contacts += _other_contacts(person, contacts, choices)
    return Chart(
        person=person,
        system=system,
        deteriorations=events,
        contacts=sorted(contacts, key=lambda c: c.start),
        sets=_home_sets(person, contacts, choices),
        supplies=[*_supplies(person, events, choices)],
        limits=own_limits(person.true) if person.true["own_limits"] > 0.5 else {},
        choices=choices,
    )


def deteriorations(person: Person) -> list[Deterioration]:
    """The person's true events until death, oldest first; death in one of them comes after it."""
    rows = zip(person.onset, person.kind, person.prodrome_days, strict=True)
    return [
        Deterioration(person.moment(onset), kind, length)
        for onset, kind, length in rows
        if onset < person.death and isfinite(onset)
    ]


# ---- contacts -----------------------------------------------------------------------------------


def _event_contacts(
    person: Person, events: Sequence[Deterioration], choices: Choices
) -> Iterator[Contact]:
    """A contact for every deterioration that is more than a course of medicine at home."""
    for event, following in zip_longest(events, events[1:]):
        if event.kind == COURSE:
            continue
        reason = choices.one_of(codings.REASONS[person.disease])
        if event.kind == ADMISSION:
            days = 0.8 + 8.0 * choices.chance() ** 2
            latest = following.at - DAY_S if following else None
            yield from _stay(person, event.at, days, reason=reason, acute=True, choices=choices,
                             latest=latest)  # fmt: skip
        else:
            yield _visit(event.at, reason, choices)


def _stay(
    person: Person,
    start: int,
    days: float,
    *,
    reason: str,
    acute: bool,
    choices: Choices,
    latest: int | None,
) -> Iterator[Contact]:
    """One admission, at times with an emergency contact first; death and the next event end it."""
    end = start + round(days * DAY_S)
    ends = [end, *(moment for moment in (latest, person.died_at) if moment is not None)]
    end = max(min(ends), start + 13 * HOUR_S)
    died = end == person.died_at
    if acute and choices.happens(0.5):
        until = start + round(choices.between(1.0, 4.0) * HOUR_S)
        yield Contact("EMER", start, until, True, reason)
        start = until
    yield Contact("IMP", start, end, acute, reason, died)


def _visit(start: int, reason: str, choices: Choices) -> Contact:
    end = start + round(choices.between(1.0, 6.0) * HOUR_S)
    return Contact("EMER", start, end, True, reason)


def _other_contacts(
    person: Person, taken: Sequence[Contact], choices: Choices
) -> Iterator[Contact]:
    """Contacts that have nothing to do with the disease, kept apart from all others."""
    numbers = numbers_of(person.disease)
    taken = list(taken)
    for name in ("other_acute", "other_planned", "other_visit"):
        for _ in range(_how_many(numbers[name] * 2.0, choices)):
            start = person.moment(choices.between(FIRST_DAY, LAST_DAY - 12.0))
            days = choices.between(0.6, 6.0)
            reasons = codings.PLANNED_REASONS if name == "other_planned" else codings.OTHER_REASONS
            reason = choices.one_of(reasons)
            if not _is_free(person, start, start + round(days * DAY_S), taken):
                continue
            if name == "other_visit":
                contacts = [_visit(start, reason, choices)]
            else:
                acute = name == "other_acute"
                contacts = [*_stay(person, start, days, reason=reason, acute=acute,
                                   choices=choices, latest=None)]  # fmt: skip
            taken += contacts
            yield from contacts


def _how_many(mean: float, choices: Choices) -> int:
    """A small Poisson number, by the inverse of its distribution."""
    left, share, number = choices.chance(), 2.718281828459045**-mean, 0
    while left >= share and number < 6:
        left -= share
        number += 1
        share *= mean / number
    return number


def _is_free(person: Person, start: int, end: int, taken: Sequence[Contact]) -> bool:
    """Whether nothing else happens near a span, and the person lives through it."""
    pad = round(APART_DAYS * DAY_S)
    if person.died_at is not None and end + pad > person.died_at:
        return False
    return all(c.end + pad < start or end + pad < c.start for c in taken)


# ---- sets and limits ----------------------------------------------------------------------------


def _home_sets(person: Person, contacts: Sequence[Contact], choices: Choices) -> list[HomeSet]:
    """The sets sent, oldest first; most of those that fall into an admission never are."""
    share = numbers_of(person.disease)["while_admitted"]
    stays = [(c.start, c.end) for c in contacts if c.class_code == "IMP"]
    order = sorted(range(len(person.day)), key=person.day.__getitem__)
    sets = []
    for i in order:
        at = person.moment(person.day[i])
        if not person.sent[i]:
            continue
        if any(start <= at <= end for start, end in stays) and not choices.happens(share):
            continue
        values, answers = _row(person.values, i), _row(person.answers, i)
        if values:
            sets.append(HomeSet(at, values, answers))
    return sets


def _row(columns: Mapping[str, Sequence[float]], i: int) -> dict[str, float]:
    """What is there in row i; NaN, the only number unequal to itself, is not."""
    return {name: column[i] for name, column in columns.items() if column[i] == column[i]}


def own_limits(true: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Alarm limits agreed with one person, around what is usual for them: red and yellow."""
    spo2, pulse, sbp = (round(true[f"{name}_usual"]) for name in ("spo2", "pulse", "sbp"))
    return {
        "spo2": {"red-low": spo2 - 6.0, "yellow-low": spo2 - 4.0},
        "pulse": {
            "red-low": 40.0,
            "yellow-low": 45.0,
            "red-high": max(pulse + 35.0, 110.0),
            "yellow-high": max(pulse + 22.0, 100.0),
        },
        "sbp": {
            "red-low": min(sbp - 35.0, 95.0),
            "yellow-low": min(sbp - 28.0, 102.0),
            "red-high": max(sbp + 45.0, 180.0),
            "yellow-high": max(sbp + 32.0, 165.0),
        },
    }


# ---- medicine -----------------------------------------------------------------------------------


def _supplies(
    person: Person, events: Sequence[Deterioration], choices: Choices
) -> Iterator[Supply]:
    """Maintenance drugs, which go on, and what deteriorations added."""
    begun = person.moment(FIRST_DAY) - round(choices.between(30.0, 900.0) * DAY_S)
    for name, options in codings.MAINTENANCE.items():
        if person.true.get(name, 0.0) > 0.5:
            yield Supply(choices.one_of(options), begun, None, None, False)
    for atc in codings.ALWAYS[person.disease]:
        if choices.happens(0.6):
            yield Supply(atc, begun, None, None, False)
    if person.disease == "copd":
        yield from _courses(person, events, choices)
    elif person.true["loop_diuretic"] > 0.5:
        yield from _loop_diuretic(person, events, choices)


def _courses(person: Person, events: Sequence[Deterioration], choices: Choices) -> Iterator[Supply]:
    """Prednisolone for every deterioration, on its day, with or without an antibiotic."""
    share = numbers_of(person.disease)["antibiotic"]
    for event in events:
        at = event.at + (round(choices.between(0.2, 1.5) * HOUR_S) if event.kind != COURSE else 0)
        yield Supply(choices.one_of(codings.PREDNISOLONE), at, None, COURSE_DOSE_MG, True)
        if choices.happens(share):
            yield Supply(choices.one_of(codings.ANTIBIOTICS), at, None, None, True)


def _loop_diuretic(
    person: Person, events: Sequence[Deterioration], choices: Choices
) -> Iterator[Supply]:
    """Prescriptions one after another, renewed in time; the dose rises after some events.

    Each ends when the next begins, so that at every moment one, with its dose, goes on.
    """
    step = int(person.true["loop_step"])
    last = person.died_at or person.moment(LAST_DAY)
    start, end = person.moment(FIRST_DAY - 60.0), 0
    raised = [e.at + DAY_S for e in events if choices.happens(DOSE_RAISED)]
    while start < last:
        rise = next((moment for moment in raised if moment > start), None)
        end = start + round(RENEWED_DAYS * DAY_S)
        up = rise is not None and rise <= end
        end = rise if rise is not None and up else end
        yield Supply(codings.LOOP_DIURETIC, start, end, LOOP_DOSES_MG[step], end < last)
        step = min(step + up, len(LOOP_DOSES_MG) - 1)
        start = end
