"""The fields of FHIR R4 resources that Varsel reads, and nothing else.

Typed structs for msgspec: decoding skips every other field, so a resource that is wrong in a place
nobody reads is still read, and one that is wrong where it matters is refused with the field's path.
Names follow FHIR (camelCase on the wire). A missing field is None; no struct has a default that
could be taken for a value. Full validation of outbound resources is `fhir.resources`' work.
"""

from __future__ import annotations

import msgspec

NOTHING = msgspec.Raw(b"")
"""Raw JSON that was not there."""


class Element(msgspec.Struct, rename="camel", gc=False):
    """The base of all: camelCase on the wire, unknown fields skipped, never in a cycle."""


class Coding(Element):
    system: str | None = None
    code: str | None = None


class CodeableConcept(Element):
    coding: list[Coding] | None = None


class Identifier(Element):
    system: str | None = None
    value: str | None = None


class Reference(Element):
    """`identifier` stays bytes: it is read where a reference has nothing else, which is seldom."""

    reference: str | None = None
    identifier: msgspec.Raw = NOTHING


class Period(Element):
    start: str | None = None
    end: str | None = None


class Quantity(Element):
    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Resource(Element):
    """What every resource has. `id` may be absent in hand-made input."""

    id: str | None = None


class Patient(Resource):
    identifier: msgspec.Raw = NOTHING
    birth_date: str | None = None
    gender: str | None = None
    deceased_boolean: bool | None = None
    deceased_date_time: str | None = None


class EncounterDiagnosis(Element):
    condition: Reference | None = None
    use: CodeableConcept | None = None
    rank: int | None = None


class Encounter(
    Resource,
    rename={
        "class_": "class",
        "reason_code": "reasonCode",
        "reason_reference": "reasonReference",
    },
):
    status: str | None = None
    class_: Coding | None = None
    type: list[CodeableConcept] | None = None
    priority: CodeableConcept | None = None
    subject: Reference | None = None
    period: Period | None = None
    reason_code: list[CodeableConcept] | None = None
    reason_reference: list[Reference] | None = None
    diagnosis: list[EncounterDiagnosis] | None = None


class Condition(Resource):
    clinical_status: CodeableConcept | None = None
    verification_status: CodeableConcept | None = None
    category: list[CodeableConcept] | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    onset_date_time: str | None = None
    onset_period: Period | None = None
    abatement_date_time: str | None = None
    abatement_period: Period | None = None
    recorded_date: str | None = None


class ReferenceRange(Element):
    low: Quantity | None = None
    high: Quantity | None = None
    type: CodeableConcept | None = None


class ObservationComponent(Element):
    code: CodeableConcept | None = None
    value_quantity: Quantity | None = None
    value_codeable_concept: CodeableConcept | None = None
    value_integer: int | None = None
    value_boolean: bool | None = None
    data_absent_reason: CodeableConcept | None = None
    reference_range: list[ReferenceRange] | None = None


class Observation(Resource):
    status: str | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    focus: list[Reference] | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    effective_instant: str | None = None
    issued: str | None = None
    value_quantity: Quantity | None = None
    value_codeable_concept: CodeableConcept | None = None
    value_integer: int | None = None
    value_boolean: bool | None = None
    data_absent_reason: CodeableConcept | None = None
    reference_range: list[ReferenceRange] | None = None
    component: list[ObservationComponent] | None = None
    derived_from: list[Reference] | None = None


class Procedure(Resource):
    status: str | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    performed_date_time: str | None = None
    performed_period: Period | None = None


class DoseAndRate(Element):
    dose_quantity: Quantity | None = None


class Dosage(Element):
    as_needed_boolean: bool | None = None
    as_needed_codeable_concept: CodeableConcept | None = None
    dose_and_rate: list[DoseAndRate] | None = None


class DispenseRequest(Element):
    validity_period: Period | None = None


class Medication(Resource):
    code: CodeableConcept | None = None


class MedicationUse(Resource):
    """What the three ways of saying "takes this drug" have in common."""

    status: str | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    contained: list[msgspec.Raw] | None = None


class MedicationRequest(MedicationUse):
    intent: str | None = None
    do_not_perform: bool | None = None
    subject: Reference | None = None
    authored_on: str | None = None
    dosage_instruction: list[Dosage] | None = None
    dispense_request: DispenseRequest | None = None


class MedicationStatement(MedicationUse):
    subject: Reference | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    date_asserted: str | None = None
    dosage: list[Dosage] | None = None


class MedicationAdministration(MedicationUse):
    subject: Reference | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None


class Answer(Element):
    value_boolean: bool | None = None
    value_decimal: float | None = None
    value_integer: int | None = None
    value_string: str | None = None
    value_coding: Coding | None = None
    value_quantity: Quantity | None = None


class QuestionnaireItem(Element):
    link_id: str | None = None
    answer: list[Answer] | None = None
    item: list[QuestionnaireItem] | None = None


class QuestionnaireResponse(Resource):
    status: str | None = None
    subject: Reference | None = None
    authored: str | None = None
    item: list[QuestionnaireItem] | None = None


class DiagnosticReport(Resource):
    """Read only to void the results of a report that was withdrawn."""

    status: str | None = None
    subject: Reference | None = None
    result: list[Reference] | None = None


class EpisodeOfCare(Resource):
    status: str | None = None
    patient: Reference | None = None
    period: Period | None = None


class Issue(Element):
    severity: str | None = None
    code: str | None = None
    details: CodeableConcept | None = None


class OperationOutcome(Resource):
    issue: list[Issue] | None = None


class Link(Element):
    relation: str | None = None
    url: str | None = None


class Search(Element):
    mode: str | None = None


class Entry(Element):
    full_url: str | None = None
    resource: msgspec.Raw = NOTHING
    search: Search | None = None


class Bundle(Resource):
    type: str | None = None
    total: int | None = None
    link: list[Link] | None = None
    entry: list[Entry] | None = None


class Kind(Element):
    """Just enough of any JSON object to know what it is."""

    resource_type: str | None = None
    hook: str | None = None


READ: dict[str, type[Resource]] = {
    kind.__name__: kind
    for kind in (
        Patient,
        Encounter,
        Condition,
        Observation,
        Procedure,
        Medication,
        MedicationRequest,
        MedicationStatement,
        MedicationAdministration,
        QuestionnaireResponse,
        DiagnosticReport,
        EpisodeOfCare,
    )
}
"""The resource types that hold something a feature can be made of. All others are skipped."""
