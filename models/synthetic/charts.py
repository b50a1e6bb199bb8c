"""From a block's arrays to one patient at a time: chart, truth and the written record.

The truth is what the generator knows and no record shows; it stands beside the record and never in
it. Called by `bulk`, the training gate and the tests.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import isfinite, nan
from typing import Any, Final, NamedTuple

import numpy as np

from models.synthetic import codings
from models.synthetic.anchors import load_anchors
from models.synthetic.bulk import Drawn, Generator, truth_row
from models.synthetic.fhir_lines import (
    HOUR_S,
    MOST_CHOICES,
    RESOURCE_TYPES,
    Chart,
    Choices,
    Contact,
    birth_date,
    patient_lines,
)
from models.synthetic.readmission import (
    BLOCK_SIZE,
    DAY_S,
    GENERATOR_VERSION,
    KINDS,
    STUDY_END,
    Block,
    generate_block,
)

EXCLUDED_REASONS: Final = {"obstetric": codings.DELIVERY, "psychiatric": codings.PSYCHOSIS}
"""The index diagnosis of stays that are left out for it."""


class Truth(NamedTuple):
    """What is known of one patient's index discharge and no record shows; times in UTC seconds.

    `true_risk` is the chance of an acute readmission observed within 30 days, death competing,
    given all true values and the unobserved part; NaN when the stay is not eligible.
    """

    index_start: int
    index_end: int
    exclusion: str
    true_risk: float
    readmitted: bool
    readmitted_at: int | None
    died_at: int | None
    age_years: float
    stay_days: float
    acute_admissions_365d: int
    ed_visits_180d: int
    days_since_discharge: float | None
    bed_days_365d: float


class SyntheticPatient(NamedTuple):
    """One patient's record as `(resource type, JSON line)` in a fixed order, and the truth."""

    patient_id: str
    resources: tuple[tuple[str, bytes], ...]
    truth: Truth


def draw_patients(seed: int, n: int) -> Iterator[SyntheticPatient]:
    """The first n patients of the cohort with this seed, block by block."""
    for number in range(-(-n // BLOCK_SIZE)):
        drawn = block_patients(generate_block(seed, number))
        yield from islice(drawn, n - number * BLOCK_SIZE)


TIME_FIELDS: Final = ("index_start", "index_end", "readmitted_at", "died_at")


def _draw(seed: int, n: int) -> Iterator[Drawn]:
    for patient in draw_patients(seed, n):
        yield Drawn(
            patient.patient_id, patient.resources, [truth_row(patient.truth._asdict(), TIME_FIELDS)]
        )


READMISSION: Final = Generator(
    model="readmission-30d",
    module="models.synthetic.readmission",
    version=GENERATOR_VERSION,
    resource_types=RESOURCE_TYPES,
    truth_fields=Truth._fields,
    data_end=STUDY_END,
    draw=_draw,
    block=BLOCK_SIZE,
)
"""The generator of `varsel cohort synth readmission-30d`."""


def block_patients(block: Block) -> Iterator[SyntheticPatient]:
    """All patients of a block with their records; the block alone decides them."""
    key = np.random.SeedSequence([block.seed, block.number, len(block), 1])
    rng = np.random.Generator(np.random.PCG64(key))
    true, seen, after = rows(block.true), rows(block.seen), rows(block.outcomes._asdict())
    visits, stays = rows(block.visits), rows(block.stays._asdict())
    for i, kind in enumerate(block.kind.tolist()):
        timeline = Timeline(
            kind=KINDS[kind],
            start=int(block.index_start[i]),
            end=int(block.index_end[i]),
            true=true[i],
            after=after[i],
            stays=stays[i],
            visits=visits[i],
        )
        name = patient_id(block.seed, block.first_patient + i)
        choices = Choices(rng.random(MOST_CHOICES).tolist())
        lines = patient_lines(_chart(name, timeline, seen[i], choices=choices))
        yield SyntheticPatient(name, tuple(lines), truth_of(timeline))


def patient_id(seed: int, number: int) -> str:
    """The Patient.id of a synthetic patient: says that it is invented, sorts by number."""
    return f"syn-{seed:x}-{number:08d}"


def rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Arrays by name as one mapping of plain Python values per patient."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One patient's row of a block: what is true, what follows, where the contacts lie."""

    kind: str
    start: int
    end: int
    true: Mapping[str, float]
    after: Mapping[str, float]
    stays: Mapping[str, list[float]]
    visits: Mapping[str, Any]

    @property
    def eligible(self) -> bool:
        """Whether the index stay counts; only then does anything follow it."""
        return self.kind == "eligible"

    @property
    def died_at(self) -> int | None:
        """The second of death, in the index stay or after it."""
        if self.kind == "in-hospital-death":
            return self.end
        return self.moment_after("death_day")

    def moment_after(self, event: str) -> int | None:
        """The second of what follows the index discharge; None when it never comes."""
        days = self.after[event]
        return self.end + round(days * DAY_S) if self.eligible and isfinite(days) else None


def truth_of(timeline: Timeline) -> Truth:
    """The truth about one patient."""
    true, readmitted_at = timeline.true, timeline.moment_after("readmission_day")
    since = true["days_since_discharge"]
    return Truth(
        index_start=timeline.start,
        index_end=timeline.end,
        exclusion="" if timeline.eligible else timeline.kind,
        true_risk=timeline.after["true_risk"] if timeline.eligible else nan,
        readmitted=readmitted_at is not None,
        readmitted_at=readmitted_at,
        died_at=timeline.died_at,
        age_years=true["age"],
        stay_days=(timeline.end - timeline.start) / DAY_S,
        acute_admissions_365d=int(true["acute_admissions"]),
        ed_visits_180d=int(true["ed_visits"]),
        days_since_discharge=since if isfinite(since) else None,
        bed_days_365d=true["bed_days"],
    )


def _chart(name: str, timeline: Timeline, seen: Mapping[str, float], *, choices: Choices) -> Chart:
    true = timeline.true
    contacts, index = _contacts(timeline, choices)
    return Chart(
        patient_id=name,
        system=_record_system(choices),
        male=true["male"] > 0.5,
        birth_date=birth_date(timeline.end, true["age"]),
        deceased_at=timeline.died_at,
        contacts=contacts,
        index=index,
        index_start=timeline.start,
        index_end=timeline.end,
        illnesses=[illness for illness in codings.ILLNESS if true[illness] > 0.5],
        seen=seen,
        high_risk_drugs=[group for group in codings.HIGH_RISK_DRUGS if true[group] > 0.5],
        opioid_started_as_needed=true["opioid_started_as_needed"] > 0.5,
        other_drugs=int(true["filler_drugs"]),
        procedure=true["procedure"] > 0.5,
        icu=true["icu"] > 0.5,
        palliative=timeline.kind == "palliative",
        choices=choices,
    )


def _record_system(choices: Choices) -> int:
    left = choices.chance()
    for system, share in enumerate(codings.SYSTEM_SHARES):
        left -= share
        if left < 0:
            return system
    return len(codings.SYSTEM_SHARES) - 1


# ---- contacts -----------------------------------------------------------------------------------


def _contacts(timeline: Timeline, choices: Choices) -> tuple[list[Contact], int]:
    """All contacts, earlier ones first, and the position of the index stay's last contact."""
    before = [*_earlier_stays(timeline, choices), *_earlier_visits(timeline, choices)]
    index = _index_stay(timeline, choices)
    contacts = [*before, *index]
    return [*contacts, *_later(timeline, choices)], len(contacts) - 1


def _earlier_stays(timeline: Timeline, choices: Choices) -> Iterator[Contact]:
    share = load_anchors().marginal["transfer_prior"].value
    stays = zip(
        *(timeline.stays[name] for name in ("start_days", "end_days", "acute")), strict=True
    )
    for start, end, acute in stays:
        if isfinite(start):
            yield from _stay(
                timeline.start - round(start * DAY_S),
                timeline.start - round(end * DAY_S),
                acute=bool(acute),
                reason=_reason(timeline, choices, acute=bool(acute)),
                transfer=share,
                choices=choices,
            )


def _earlier_visits(timeline: Timeline, choices: Choices) -> Iterator[Contact]:
    """Emergency, outpatient and short inpatient contacts, and the contact that opens the record."""
    for name, days in timeline.visits.items():
        for start in days if isinstance(days, list) else [days]:
            if isfinite(start):
                yield _visit(name, timeline.start - round(start * DAY_S), timeline, choices)


def _visit(name: str, start: int, timeline: Timeline, choices: Choices) -> Contact:
    """A contact that is no admission; emergency visits last 1 to 5 hours, short stays 2 to 7."""
    if name == "emergency":
        end = start + round(choices.between(1.0, 5.0) * HOUR_S)
        return Contact("EMER", start, end, True, _reason(timeline, choices, acute=True))
    if name == "short":
        end = start + round(choices.between(2.0, 7.0) * HOUR_S)
        return Contact("IMP", start, end, True, _reason(timeline, choices, acute=True))
    end = start + round(choices.between(0.4, 1.0) * HOUR_S)
    return Contact("AMB", start, end, None, choices.one_of(codings.OUTPATIENT_REASONS))


def _index_stay(timeline: Timeline, choices: Choices) -> list[Contact]:
    acute = timeline.true["acute_index"] > 0.5
    reason = EXCLUDED_REASONS.get(timeline.kind) or _reason(timeline, choices, acute=acute)
    if timeline.kind == "short-contact":
        return [Contact("IMP", timeline.start, timeline.end, acute, reason)]
    share = load_anchors().marginal["transfer_index"].value
    contacts = list(
        _stay(
            timeline.start,
            timeline.end,
            acute=acute,
            reason=reason,
            transfer=share,
            choices=choices,
        )
    )
    if timeline.kind == "in-hospital-death":
        contacts[-1] = contacts[-1]._replace(died=True)
    return contacts


def _later(timeline: Timeline, choices: Choices) -> Iterator[Contact]:
    """What follows the index discharge: the outcome, and contacts that are none."""
    for event, acute in (("readmission_day", True), ("planned_day", False), ("late_day", True)):
        start = timeline.moment_after(event)
        if start is not None:
            yield from _later_stay(timeline, start, acute=acute, choices=choices)
    for event, name in (("short_day", "short"), ("ed_day", "emergency")):
        start = timeline.moment_after(event)
        if start is not None:
            yield _visit(name, start, timeline, choices)


def _later_stay(
    timeline: Timeline, start: int, *, acute: bool, choices: Choices
) -> Iterator[Contact]:
    """A stay after discharge; it ends early where the patient dies in it."""
    end = start + round(timeline.after["stay_days"] * DAY_S)
    died_at = timeline.died_at
    reason = _reason(timeline, choices, acute=acute)
    end = end if died_at is None else min(end, died_at)
    *first, final = _stay(start, end, acute=acute, reason=reason, transfer=0.0, choices=choices)
    yield from first
    yield final._replace(died=end == died_at)


def _stay(
    start: int, end: int, *, acute: bool, reason: str, transfer: float, choices: Choices
) -> Iterator[Contact]:
    """One stay as its contacts: at times an emergency contact first, at times two wards.

    Gaps between the contacts stay under four hours, so that linking gives the one stay back.
    """
    if acute and choices.happens(load_anchors().marginal["starts_in_emergency"].value):
        until = start + round(choices.between(1.0, 4.0) * HOUR_S)
        yield Contact("EMER", start, until, True, reason)
        start = until + round(choices.between(0.0, 1.0) * HOUR_S)
    if end - start > DAY_S and choices.happens(transfer):
        moved = start + round(choices.between(0.2, 0.8) * (end - start))
        yield Contact("IMP", start, moved, acute, reason)
        start = moved + round(choices.between(0.0, 3.5) * HOUR_S)
    yield Contact("IMP", start, end, acute, reason)


def _reason(timeline: Timeline, choices: Choices, *, acute: bool) -> str:
    """The diagnosis of a contact: often the patient's own illness, never one they do not have."""
    true = timeline.true
    own = choices.happens(0.35)
    if acute:
        for illness, code in (("heart_failure", "I509"), ("copd", "J449")):
            if own and true[illness] > 0.5:
                return code
        return choices.one_of(codings.ACUTE_REASONS)
    return "C187" if own and true["cancer"] > 0.5 else choices.one_of(codings.PLANNED_REASONS)
