"""From typed FHIR resources to facts: which count, when they held, what they are worth.

Here stand the filters of status and verification, negation, the choice of time among FHIR's many,
the look-up of codes over all codings, and the fate of duplicates. Only concepts somebody wants are
made into facts. Resources that belong to another patient are left out and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.clock import COPENHAGEN, OPEN, UNDATED, end_of, parse_time
from fhir_adapters.codes import CodeTable, code_table
from fhir_adapters.decode import Gathered, Trouble
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.record import Contact, Fact, PatientRecord
from fhir_adapters.references import reference_key, refers_to_patient
from fhir_adapters.stays import StayRule
from fhir_adapters.units import to_concept_unit

UCUM = "http://unitsofmeasure.org"

# FHIR R4 value sets: what counts as having happened. Anything else, and no status, does not.
COUNTS_OBSERVATION = frozenset({"final", "amended", "corrected", "preliminary"})
COUNTS_CONTACT = frozenset({"finished", "in-progress", "onleave", "arrived", "triaged"})
COUNTS_PROCEDURE = frozenset({"completed", "in-progress"})
COUNTS_ANSWER = frozenset({"completed", "amended"})
COUNTS_ADMINISTRATION = frozenset({"completed", "in-progress"})
COUNTS_EPISODE = frozenset({"active", "onhold", "finished"})
GOES_ON_MEDICATION = frozenset({"active", "on-hold", "intended"})
COUNTS_MEDICATION = GOES_ON_MEDICATION | {"completed", "stopped"}
ORDERED = frozenset(
    {None, "order", "original-order", "instance-order", "filler-order", "reflex-order"}
)
DOUBTED = frozenset({"unconfirmed", "provisional", "differential", "refuted", "entered-in-error"})
OVER = frozenset({"inactive", "remission", "resolved", "723506003"})  # last: SNOMED, as MedCom
WITHDRAWN = frozenset({"entered-in-error", "cancelled"})

YES = frozenset({"373066001", "LA33-6", "Y", "true", "52101004"})  # SNOMED CT, LOINC, v2-0136
NO = frozenset({"373067005", "LA32-8", "N", "false", "2667000"})


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """How one questionnaire answer becomes a number: link ids, and what each answer is worth."""

    concept: str
    link_ids: frozenset[str]
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a package needs of a record.

    A fact of the concept `medication` is made of every drug when `medication` is wanted, and one of
    `procedure` of every procedure likewise.
    """

    concepts: frozenset[str]
    stay_rule: StayRule = field(default_factory=StayRule)
    answers: tuple[AnswerRule, ...] = ()


def build_record(
    gathered: Gathered,
    wanted: Wanted,
    *,
    patient_id: str | None = None,
    zone: tzinfo = COPENHAGEN,
) -> PatientRecord:
    """The record of one patient, of the concepts a package wants.

    `patient_id` is the patient the question is about; without it the input must hold exactly one
    Patient. Raises UnreadableInput where the patient is missing or cannot be told.
    """
    patient = _the_patient(gathered, patient_id)
    builder = _Builder(gathered, wanted, patient.id or "", code_table(), zone)
    record = PatientRecord(
        patient_id=patient.id or "",
        birth_date=patient.birth_date,
        gender=patient.gender,
        deceased_at=builder.deceased_at(patient),
        facts=builder.facts(),
        contacts=tuple(builder.contacts()),
        answers=gathered.answers,
        whole=gathered.whole_record,
    )
    record.troubles = [*gathered.troubles, *builder.troubles]
    return record


def _the_patient(gathered: Gathered, patient_id: str | None) -> r.Patient:
    patients: list[r.Patient] = gathered.of("Patient")
    if patient_id is not None:
        matching = [p for p in patients if p.id == patient_id]
        if not matching:
            raise UnreadableInput("the Patient in context is not in the input", field="Patient")
        return matching[0]
    if len(patients) != 1:
        raise UnreadableInput(f"expected one Patient, found {len(patients)}", field="Patient")
    return patients[0]


def newest_time(gathered: Gathered, zone: tzinfo = COPENHAGEN) -> float | None:
    """The time of the newest clinical resource; None where none carries a time."""
    times = [t for kind in gathered.resources.values() for x in kind for t in _times_of(x, zone)]
    return max(times, default=None)


_TIME_FIELDS = (
    "effective_date_time",
    "effective_instant",
    "issued",
    "onset_date_time",
    "recorded_date",
    "performed_date_time",
    "authored_on",
    "authored",
    "date_asserted",
)
_PERIOD_FIELDS = ("effective_period", "period", "performed_period")


def _times_of(resource: Any, zone: tzinfo) -> Iterator[float]:
    for name in _TIME_FIELDS:
        text = getattr(resource, name, None)
        if text and (moment := _moment(text, zone)) is not None:
            yield moment
    for name in _PERIOD_FIELDS:
        period = getattr(resource, name, None)
        for text in (period.start, period.end) if period else ():
            if text and (moment := _moment(text, zone)) is not None:
                yield moment


def _moment(text: str | None, zone: tzinfo) -> float | None:
    try:
        return parse_time(text, zone) if text else None
    except ValueError:
        return None


def _codes(concepts: Iterable[r.CodeableConcept | None] | None) -> Iterator[r.Coding]:
    for concept in concepts or ():
        yield from (concept and concept.coding) or ()


_Found = tuple[str, str | None, str]
"""A wanted concept, the unit its code implies, and the code."""


class _Builder:
    """The facts of one patient's resources. Lives for one record."""

    def __init__(
        self, gathered: Gathered, wanted: Wanted, patient_id: str, table: CodeTable, zone: tzinfo
    ) -> None:
        self.gathered = gathered
        self.wanted = wanted
        self.patient_id = patient_id
        self.table = table
        self.zone = zone
        self.troubles: list[Trouble] = []
        self._times: dict[str, float] = {}
        self._own = (f"Patient/{patient_id}", f"urn:uuid:{patient_id}", None)
        self._voided = self._withdrawn_results()
        self._by_concept: dict[str, list[Fact]] = {}

    # ---- what every kind shares -------------------------------------------------------------

    def _is_own(self, kind: str, subject: r.Reference | None) -> bool:
        reference = subject.reference if subject else None
        if reference in self._own:
            return True
        if refers_to_patient(reference, self.patient_id, self.gathered.ids_by_full_url):
            return True
        self.troubles.append(
            Trouble(kind, "wrong-patient", f"{kind} of another patient was left out")
        )
        return False

    def _time(self, text: str | None, kind: str) -> float | None:
        if not text:
            return None
        known = self._times.get(text)
        if known is not None:
            return known
        try:
            moment = parse_time(text, self.zone)
        except ValueError:
            self.troubles.append(Trouble(kind, "no-time", f"{kind}: a time could not be read"))
            return None
        self._times[text] = moment
        return moment

    def _end(self, text: str | None, otherwise: float) -> float:
        if not text:
            return otherwise
        try:
            return end_of(text, self.zone)
        except ValueError:
            return otherwise

    def _concepts(self, codeable: r.CodeableConcept | None) -> list[_Found]:
        """Wanted concepts among all codings: (concept, the code's own unit, code), each once."""
        found: list[_Found] = []
        for coding in (codeable.coding if codeable else None) or ():
            for coded in self.table.concepts_of(coding.system, coding.code):
                if coded.concept in self.wanted.concepts and all(
                    coded.concept != seen[0] for seen in found
                ):
                    found.append((coded.concept, coded.own_unit, coding.code or ""))
        return found

    def _add(self, fact: Fact) -> None:
        self._by_concept.setdefault(fact.concept, []).append(fact)

    # ---- the record -------------------------------------------------------------------------

    def deceased_at(self, patient: r.Patient) -> float | None:
        """When the patient died; -inf for "deceased" without a date; None for the living."""
        if patient.deceased_date_time:
            moment = self._time(patient.deceased_date_time, "Patient")
            return UNDATED if moment is None else moment
        return UNDATED if patient.deceased_boolean else None

    def facts(self) -> dict[str, list[Fact]]:
        """All wanted facts, per concept, duplicates removed, oldest first."""
        self._observations()
        self._conditions()
        self._procedures()
        self._medications()
        self._questionnaires()
        self._episodes()
        return {concept: _without_duplicates(facts) for concept, facts in self._by_concept.items()}

    def contacts(self) -> Iterator[Contact]:
        """Hospital contacts that took place or are taking place."""
        for encounter in self.gathered.of("Encounter"):
            if encounter.status not in COUNTS_CONTACT:
                continue
            if not self._is_own("Encounter", encounter.subject):
                continue
            period = encounter.period
            start = self._time(period.start if period else None, "Encounter")
            if start is None or encounter.class_ is None:
                self.troubles.append(
                    Trouble("Encounter", "no-time", "Encounter without period.start or class")
                )
                continue
            going_on = encounter.status != "finished"
            yield Contact(
                start=start,
                end=max(start, self._end(period.end, OPEN if going_on else start)),
                class_code=encounter.class_.code or "",
                acute=self._acuteness(encounter),
                source=f"Encounter/{encounter.id}",
                reasons=self._reasons(encounter),
            )

    def _acuteness(self, encounter: r.Encounter) -> bool | None:
        rule = self.wanted.stay_rule
        said = {encounter.class_.code if encounter.class_ else None}
        said.update(c.code for c in _codes([encounter.priority, *(encounter.type or ())]))
        if said & rule.acute_codes:
            return True
        return False if said & rule.planned_codes else None

    def _reasons(self, encounter: r.Encounter) -> frozenset[str]:
        reasons = encounter.reason_code or ()
        return frozenset(found[0] for reason in reasons for found in self._concepts(reason))

    # ---- observations -----------------------------------------------------------------------

    def _withdrawn_results(self) -> frozenset[str]:
        reports: list[r.DiagnosticReport] = self.gathered.of("DiagnosticReport")
        urls = self.gathered.ids_by_full_url
        keys = (
            reference_key(result.reference, urls)
            for report in reports
            if report.status in WITHDRAWN
            for result in report.result or ()
        )
        return frozenset(key for key in keys if key)

    def _observations(self) -> None:
        for o in self.gathered.of("Observation"):
            concepts = self._concepts(o.code)
            if not concepts and not o.component:
                continue
            if o.status not in COUNTS_OBSERVATION or f"Observation/{o.id}" in self._voided:
                continue
            if not self._is_own("Observation", o.subject):
                continue
            self._one_observation(o, concepts)

    def _one_observation(self, o: r.Observation, concepts: list[_Found]) -> None:
        parts: list[tuple[_Found, r.Observation | r.ObservationComponent]]
        parts = [(found, o) for found in concepts]
        parts += [
            (found, part) for part in o.component or () for found in self._concepts(part.code)
        ]
        if not parts:
            return
        start = self._observed_at(o)
        if start is None:
            self.troubles.append(Trouble("Observation", "no-time", "Observation without a time"))
            return
        issued = self._time(o.issued, "Observation")
        known = start if issued is None else max(start, issued)
        tags = frozenset(("derived",)) if o.derived_from else frozenset()
        for (concept, own_unit, code), part in parts:
            fact = self._measured(part, concept, own_unit)
            if fact is not None:
                self._add(
                    msgspec.structs.replace(
                        fact,
                        start=start,
                        end=start,
                        known=known,
                        source=f"Observation/{o.id}",
                        code=code,
                        tags=tags,
                    )
                )

    def _observed_at(self, o: r.Observation) -> float | None:
        period = o.effective_period
        text = (
            o.effective_date_time
            or o.effective_instant
            or (period and (period.start or period.end))
            or o.issued
        )
        return self._time(text, "Observation")

    def _measured(
        self, part: r.Observation | r.ObservationComponent, concept: str, own_unit: str | None
    ) -> Fact | None:
        if part.value_quantity is not None:
            return self._quantity(part.value_quantity, concept, own_unit)
        if part.value_integer is not None:
            return self._number(float(part.value_integer), "", concept)
        if part.value_boolean is not None:
            return self._number(float(part.value_boolean), "", concept)
        if part.value_codeable_concept is not None:
            return self._coded(part.value_codeable_concept, concept)
        return None

    def _quantity(self, q: r.Quantity, concept: str, own_unit: str | None) -> Fact | None:
        if q.value is None:
            return None
        unit = q.code if q.code and q.system == UCUM else (q.unit or q.code)
        converted = to_concept_unit(q.value, unit, self.table.concept(concept), own_unit)
        if converted.value is None:
            return Fact(concept, status="refused-unit", original=q.value, unit=unit or "")
        fact = self._number(converted.value, unit or "", concept)
        return msgspec.structs.replace(fact, original=q.value)

    def _number(self, value: float, unit: str, concept: str) -> Fact:
        known = self.table.concept(concept)
        low, high = known.plausible_low, known.plausible_high
        if (low is not None and value < low) or (high is not None and value > high):
            return Fact(
                concept,
                value=value,
                status="implausible",
                original=value,
                unit=unit or known.unit or "",
            )
        return Fact(concept, value=value, original=value, unit=unit)

    def _coded(self, coded: r.CodeableConcept, concept: str) -> Fact | None:
        for coding in coded.coding or ():
            worth = self.table.answer_of(concept, coding.system, coding.code)
            if worth is not None:
                return self._number(worth, "", concept)
            if coding.code in YES:
                return Fact(concept, value=1.0)
            if coding.code in NO:
                return Fact(concept, value=0.0)
        return None

    # ---- conditions, procedures -------------------------------------------------------------

    def _conditions(self) -> None:
        for c in self.gathered.of("Condition"):
            concepts = self._concepts(c.code)
            if not concepts or not self._is_own("Condition", c.subject):
                continue
            if any(coding.code in DOUBTED for coding in _codes([c.verification_status])):
                continue
            start, known, end = self._condition_times(c)
            for concept, _, code in concepts:
                self._add(
                    Fact(
                        concept,
                        start=start,
                        end=end,
                        known=known,
                        value=1.0,
                        source=f"Condition/{c.id}",
                        code=code,
                    )
                )

    def _condition_times(self, c: r.Condition) -> tuple[float, float, float]:
        onset_text = c.onset_date_time or (c.onset_period.start if c.onset_period else None)
        onset = self._time(onset_text, "Condition")
        recorded = self._time(c.recorded_date, "Condition")
        start = next((t for t in (onset, recorded) if t is not None), UNDATED)
        known = start if recorded is None else recorded
        over = any(x.code in OVER for x in _codes([c.clinical_status, *(c.category or ())]))
        abated = c.abatement_date_time or (c.abatement_period.end if c.abatement_period else None)
        last_heard = max(start, known)
        end = self._end(abated, last_heard if over else OPEN)
        return start, known, max(start, end)

    def _procedures(self) -> None:
        for p in self.gathered.of("Procedure"):
            if p.status not in COUNTS_PROCEDURE:
                continue
            concepts = self._concepts(p.code)
            if "procedure" in self.wanted.concepts:
                code = next((c.code for c in _codes([p.code]) if c.code), "")
                concepts = [*concepts, ("procedure", None, code)]
            if not concepts or not self._is_own("Procedure", p.subject):
                continue
            period = p.performed_period
            start = self._time(
                p.performed_date_time or (period and (period.start or period.end)), "Procedure"
            )
            if start is None:
                self.troubles.append(Trouble("Procedure", "no-time", "Procedure without a time"))
                continue
            for concept, _, code in concepts:
                self._add(
                    Fact(
                        concept,
                        start=start,
                        end=start,
                        known=start,
                        value=1.0,
                        source=f"Procedure/{p.id}",
                        code=code,
                    )
                )

    # ---- medicines --------------------------------------------------------------------------

    def _medications(self) -> None:
        known = {f"Medication/{m.id}": m for m in self.gathered.of("Medication")}
        for request in self.gathered.of("MedicationRequest"):
            if request.intent not in ORDERED or request.do_not_perform:
                continue
            validity = request.dispense_request and request.dispense_request.validity_period
            until = validity.end if validity else None
            self._drug(
                "MedicationRequest",
                request,
                known,
                request.authored_on,
                until,
                request.dosage_instruction,
            )
        for statement in self.gathered.of("MedicationStatement"):
            period = statement.effective_period
            start = statement.effective_date_time or (period and period.start)
            self._drug(
                "MedicationStatement",
                statement,
                known,
                start or statement.date_asserted,
                period.end if period else None,
                statement.dosage,
            )
        for given in self.gathered.of("MedicationAdministration"):
            if given.status in COUNTS_ADMINISTRATION:
                period = given.effective_period
                at = given.effective_date_time or (period and period.start)
                self._drug("MedicationAdministration", given, known, at, at, None)

    def _drug(
        self,
        kind: str,
        use: Any,
        known_drugs: Mapping[str, r.Medication],
        start_text: str | None,
        end_text: str | None,
        dosages: list[r.Dosage] | None,
    ) -> None:
        if use.status not in COUNTS_MEDICATION | COUNTS_ADMINISTRATION:
            return
        code = use.medication_codeable_concept or self._referred_drug(use, known_drugs)
        concepts = self._concepts(code)
        if "medication" in self.wanted.concepts and code is not None:
            concepts = [*concepts, ("medication", None, _drug_key(code))]
        if not concepts or not self._is_own(kind, use.subject):
            return
        start = self._time(start_text, kind)
        begun = UNDATED if start is None else start
        goes_on = use.status in GOES_ON_MEDICATION and kind != "MedicationAdministration"
        end = self._end(end_text, OPEN if goes_on else begun)
        as_needed = any(
            d.as_needed_boolean or d.as_needed_codeable_concept is not None for d in dosages or ()
        )
        for concept, _, drug in concepts:
            self._add(
                Fact(
                    concept,
                    start=begun,
                    end=max(begun, end),
                    known=begun,
                    value=_dose(dosages),
                    source=f"{kind}/{use.id}",
                    code=drug,
                    tags=frozenset(("as-needed",)) if as_needed else frozenset(),
                )
            )

    def _referred_drug(
        self, use: Any, known: Mapping[str, r.Medication]
    ) -> r.CodeableConcept | None:
        reference = use.medication_reference.reference if use.medication_reference else None
        key = reference_key(reference, self.gathered.ids_by_full_url)
        if key is None:
            return None
        if key.startswith("#"):
            return _contained_drug(use, key[1:])
        drug = known.get(key)
        return drug.code if drug else None

    # ---- questionnaires, episodes -----------------------------------------------------------

    def _questionnaires(self) -> None:
        rules = {link: rule for rule in self.wanted.answers for link in rule.link_ids}
        if not rules:
            return
        for response in self.gathered.of("QuestionnaireResponse"):
            if response.status not in COUNTS_ANSWER:
                continue
            if not self._is_own("QuestionnaireResponse", response.subject):
                continue
            at = self._time(response.authored, "QuestionnaireResponse")
            if at is None:
                continue
            for item in _all_items(response):
                rule = rules.get(item.link_id or "")
                worth = _answer_worth(item, rule) if rule else None
                if rule and worth is not None:
                    self._add(
                        Fact(
                            rule.concept,
                            start=at,
                            end=at,
                            known=at,
                            value=worth,
                            source=f"QuestionnaireResponse/{response.id}",
                            code=item.link_id or "",
                        )
                    )

    def _episodes(self) -> None:
        if "episode_of_care" not in self.wanted.concepts:
            return
        for episode in self.gathered.of("EpisodeOfCare"):
            if episode.status not in COUNTS_EPISODE:
                continue
            if not self._is_own("EpisodeOfCare", episode.patient):
                continue
            period = episode.period
            start = self._time(period.start if period else None, "EpisodeOfCare")
            if start is None:
                continue
            going_on = episode.status != "finished"
            self._add(
                Fact(
                    "episode_of_care",
                    start=start,
                    end=self._end(period.end, OPEN if going_on else start),
                    known=start,
                    value=1.0,
                    source=f"EpisodeOfCare/{episode.id}",
                )
            )


def _drug_key(code: r.CodeableConcept) -> str:
    """One name for one drug, so that the same drug on two prescriptions is counted once."""
    codings = [c for c in code.coding or () if c.code]
    atc = next((c for c in codings if (c.system or "").rstrip("/").endswith("whocc.no/atc")), None)
    chosen = atc or (codings[0] if codings else None)
    return f"{chosen.system}|{chosen.code}" if chosen else ""


def _dose(dosages: list[r.Dosage] | None) -> float | None:
    doses = [
        rate.dose_quantity.value
        for dosage in dosages or ()
        for rate in dosage.dose_and_rate or ()
        if rate.dose_quantity
    ]
    return doses[0] if len(doses) == 1 else None


_CONTAINED = msgspec.json.Decoder(r.Medication)


def _contained_drug(use: Any, local_id: str) -> r.CodeableConcept | None:
    for raw in use.contained or ():
        try:
            medication = _CONTAINED.decode(raw)
        except msgspec.ValidationError:
            continue  # another contained resource, of a form this one does not need
        if medication.id == local_id:
            return medication.code
    return None


def _all_items(response: r.QuestionnaireResponse) -> Iterator[r.QuestionnaireItem]:
    waiting = list(response.item or ())
    while waiting:
        item = waiting.pop()
        yield item
        waiting.extend(item.item or ())


def _answer_worth(item: r.QuestionnaireItem, rule: AnswerRule) -> float | None:
    for answer in item.answer or ():
        coded = answer.value_coding.code if answer.value_coding else None
        said = answer.value_string or coded
        if said is not None:
            return rule.values.get(said)
        if answer.value_boolean is not None:
            return float(answer.value_boolean)
        quantity = answer.value_quantity.value if answer.value_quantity else None
        numbers = (answer.value_decimal, answer.value_integer, quantity)
        number = next((n for n in numbers if n is not None), None)
        if number is not None:
            return float(number)
    return None


def _rank(fact: Fact) -> tuple[float, float, bool, bool, float, str]:
    return (
        fact.start,
        fact.end,
        fact.status != "ok",
        "derived" in fact.tags,
        -fact.known,
        fact.source,
    )


def _without_duplicates(facts: list[Fact]) -> list[Fact]:
    """Facts oldest first; of one concept measured at one moment, one.

    The same measurement often comes twice: under two codes, alone and in a panel, or derived from
    another. The usable one wins over the unusable, the original over the derived, the latest
    issued over the earlier, and then the order of ids, so that order of arrival never matters.
    Drugs, diagnoses and operations with different codes are different facts.
    """
    facts.sort(key=_rank)
    kept: list[Fact] = []
    seen: set[tuple[float, str]] = set()
    for fact in facts:
        measured = fact.source.startswith("Observation/")
        key = (fact.start, "" if measured else fact.code + fact.source)
        if key not in seen:
            seen.add(key)
            kept.append(fact)
    return kept
