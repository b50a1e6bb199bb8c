"""What the writers of a surgical record share: the chart of one patient and FHIR's building blocks.

A `Chart` says what a hospital would know and when; the functions make single resources of it, in
the codes of the patient's record system. What is written, and when, is `before` and `after`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import msgspec

from models.synthetic import codings as shared
from models.synthetic.codings import coded
from models.synthetic.fhir_lines import Choices, Contact, day, stamp
from models.synthetic.surgery import codings
from models.synthetic.surgery.cohort import DAY_S, HOUR_S

Resource = dict[str, Any]
RESOURCE_TYPES: Final = (
    "Patient", "Encounter", "Condition", "Observation", "QuestionnaireResponse", "Procedure",
    "MedicationRequest",
)  # fmt: skip
MOST_CHOICES: Final = 600
"""More random choices than one patient's record can use."""
CATEGORY: Final = {
    name: msgspec.Raw(
        msgspec.json.encode([{"coding": [{"system": shared.OBSERVATION_CATEGORY, "code": name}]}])
    )
    for name in ("laboratory", "vital-signs", "survey", "social-history", "exam")
}
PRIORITY_ACUTE: Final = ("A", "A", "EM", "UR")
"""v3-ActPriority codes of an acute contact; dk-core uses A, other systems EM and UR."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What the record holds of one patient, before codes. Times in UTC seconds, None where never.

    `true` and `seen`: the patient's row of the block; `stays` and `visits`: days before
    `history_end`. `after`: what follows, in days after the operation or after discharge, infinite
    where never.
    """

    patient_id: str
    kind: str
    system: int
    true: Mapping[str, float]
    seen: Mapping[str, float]
    stays: Mapping[str, list[float]]
    visits: Mapping[str, Any]
    assessed_at: int
    operated_at: int | None
    discharged_at: int | None
    died_at: int | None
    after: Mapping[str, float]
    choices: Choices
    numbers: Iterator[int] = field(default_factory=count)

    def is_so(self, name: str) -> bool:
        """Whether a yes or no of the true values is a yes."""
        return self.true[name] > 0.5

    @property
    def history_end(self) -> int:
        """The day before the assessment, which earlier contacts count from."""
        return self.assessed_at - DAY_S

    @property
    def emergency(self) -> bool:
        """Whether the operation is one."""
        return self.is_so("emergency")


def new(chart: Chart, kind: str, **fields: object) -> Resource:
    """A resource of the patient with the next id."""
    letter = kind[0].lower()
    number = next(chart.numbers)
    return {"resourceType": kind, "id": f"{chart.patient_id}-{letter}{number}", **fields}


def subject(chart: Chart) -> dict[str, str]:
    """The reference to the patient."""
    return {"reference": f"Patient/{chart.patient_id}"}


def system_for(chart: Chart) -> int:
    """The record system of one measurement: mostly the patient's own, at times another."""
    if chart.choices.happens(1 / 7):
        return int(chart.choices.chance() * len(shared.SYSTEM_SHARES))
    return chart.system


def observation(
    chart: Chart, at: float, category: str, code: msgspec.Raw, **value: object
) -> Resource:
    """One finding at a moment."""
    return new(
        chart,
        "Observation",
        status="final",
        category=CATEGORY[category],
        code=code,
        subject=subject(chart),
        effectiveDateTime=stamp(at),
        **value,
    )


def measured(
    chart: Chart, name: str, value: float, *, at: float, category: str = "laboratory"
) -> Resource:
    """One measurement in the form of the record system, one in seven in another system's form."""
    form = codings.FORMS[name][system_for(chart)]
    code = coded(*form.codings)
    return observation(chart, at, category, code, valueQuantity=form.quantity(value))


def condition(
    chart: Chart,
    code: msgspec.Raw,
    *,
    recorded: float,
    onset: str | None = None,
    category: str = "encounter-diagnosis",
    verification: str = "confirmed",
) -> Resource:
    """One diagnosis; MedCom systems leave a confirmed one's two states out."""
    found = new(
        chart,
        "Condition",
        category=[coded((shared.CONDITION_CATEGORY, category))],
        code=code,
        subject=subject(chart),
        recordedDate=stamp(recorded),
    )
    if chart.system != shared.MEDCOM_SYSTEM or verification != "confirmed":
        found["verificationStatus"] = coded((shared.VERIFICATION, verification))
    if chart.system != shared.MEDCOM_SYSTEM and verification == "confirmed":
        found["clinicalStatus"] = coded((shared.CLINICAL, "active"))
    if onset is not None:
        found["onsetDateTime"] = onset
    return found


def begun(chart: Chart, icd: str, at: float) -> Resource:
    """A diagnosis that begins at a moment and is recorded some hours later."""
    recorded = at + chart.choices.between(1.0, 8.0) * HOUR_S
    code = shared.diagnosis(icd, chart.system)
    return condition(chart, code, recorded=recorded, onset=stamp(at))


def illness(chart: Chart, codes: Sequence[str]) -> Resource:
    """A chronic illness on the problem list; its onset is at times only a year or a month."""
    choices = chart.choices
    onset = chart.assessed_at - choices.between(0.2, 4.6) * 365.25 * DAY_S
    length = choices.one_of((4, 7, 10, 10))
    return condition(
        chart,
        shared.diagnosis(choices.one_of(codes), chart.system),
        recorded=onset + 30 * DAY_S,
        onset=day(onset)[:length],
        category="problem-list-item",
    )


def procedure(chart: Chart, code: msgspec.Raw, **when: object) -> Resource:
    """Something done, at a moment or over a period."""
    return new(chart, "Procedure", status="completed", code=code, subject=subject(chart), **when)


def medicine(chart: Chart, atc: str, *, at: float, status: str = "active") -> Resource:
    """One medicine ordered at a moment."""
    return new(
        chart,
        "MedicationRequest",
        status=status,
        intent="order",
        medicationCodeableConcept=shared.medicine(atc, chart.system),
        subject=subject(chart),
        authoredOn=stamp(at),
    )


def encounter(chart: Chart, contact: Contact) -> Resource:
    """One hospital contact."""
    resource = new(
        chart,
        "Encounter",
        status="finished",
        **{"class": {"system": shared.ACT_CODE, "code": contact.class_code}},
        subject=subject(chart),
        period={"start": stamp(contact.start), "end": stamp(contact.end)},
        reasonCode=[shared.diagnosis(contact.reason, chart.system)],
    )
    if contact.acute is not None:
        code = chart.choices.one_of(PRIORITY_ACUTE) if contact.acute else "EL"
        resource["priority"] = coded((shared.ACT_PRIORITY, code))
    if contact.died:
        resource["hospitalization"] = {"dischargeDisposition": coded((shared.DISPOSITION, "exp"))}
    return resource


def stay(
    chart: Chart, start: int, end: int, *, acute: bool, reason: str, died: bool = False
) -> Iterator[Resource]:
    """One stay as its contacts; a third of the acute begin with an emergency contact.

    The gap between the contacts stays under an hour, so that linking gives the one stay back.
    """
    choices = chart.choices
    if acute and choices.happens(1 / 3):
        until = start + round(choices.between(0.5, 1.5) * HOUR_S)
        yield encounter(chart, Contact("EMER", start, until, True, reason))
        start = until + round(choices.between(0.0, 0.5) * HOUR_S)
    yield encounter(chart, Contact("IMP", start, end, acute, reason, died))
