"""A Bundle of which nothing is wrong, decoded in one go: the way nearly all of them are read.

One pass over the bytes makes typed resources of all entries, each by its `resourceType`. What that
cannot read (a broken field, a type R4 does not have, another release, an OperationOutcome among the
entries) is no error here: `decode.py` then reads entry by entry, tells what is wrong where, and
keeps the rest. Where both can read a Bundle, they read the same; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.releases import OLDER_FORMS

_SKIPPED_TYPES = (
    "AdverseEvent", "AllergyIntolerance", "Appointment", "AppointmentResponse", "AuditEvent",
    "Basic", "Binary", "BodyStructure", "CarePlan", "CareTeam", "ChargeItem", "Claim",
    "ClaimResponse", "ClinicalImpression", "Communication", "CommunicationRequest",
    "Composition", "Consent", "Contract", "Coverage", "CoverageEligibilityRequest",
    "CoverageEligibilityResponse", "DetectedIssue", "Device", "DeviceMetric", "DeviceRequest",
    "DeviceUseStatement", "DocumentManifest", "DocumentReference", "Endpoint",
    "ExplanationOfBenefit", "FamilyMemberHistory", "Flag", "Goal", "Group", "GuidanceResponse",
    "HealthcareService", "ImagingStudy", "Immunization", "ImmunizationEvaluation",
    "ImmunizationRecommendation", "InsurancePlan", "Invoice", "List", "Location", "Media",
    "MedicationDispense", "MedicationKnowledge", "MolecularSequence", "NutritionOrder",
    "Organization", "Person", "PlanDefinition", "Practitioner", "PractitionerRole",
    "Provenance", "Questionnaire", "RelatedPerson", "RequestGroup", "ResearchStudy",
    "ResearchSubject", "RiskAssessment", "Schedule", "ServiceRequest", "Slot", "Specimen",
    "Substance", "SupplyDelivery", "SupplyRequest", "Task", "VisionPrescription",
)  # fmt: skip
"""Types of FHIR R4 that come in a patient's record and hold nothing a feature is made of."""


def _tagged(name: str, base: type[r.Element]) -> type[msgspec.Struct]:
    """A struct that is read only where `resourceType` is the name."""
    return msgspec.defstruct(
        name, OLDER_FORMS.get(name, []), bases=(base,), tag_field="resourceType", tag=name
    )


_READ = {_tagged(name, kind): name for name, kind in r.READ.items()}
_SKIPPED = {_tagged(name, r.Element): name for name in _SKIPPED_TYPES}
KINDS: Mapping[type, str] = MappingProxyType({**_READ, **_SKIPPED, msgspec.UnsetType: ""})
"""The resource type of what an entry holds; "" for an entry without a resource."""
_SEARCH: Any = msgspec.defstruct(
    "Search", [("mode", Literal["match", "include"] | None, None)], bases=(r.Element,)
)
_ENTRY = msgspec.defstruct(
    "Entry",
    [
        ("full_url", str | None, None),
        ("resource", reduce(or_, KINDS), msgspec.UNSET),
        ("search", _SEARCH | None, None),
    ],
    bases=(r.Element,),
)
_ENTRIES: Any = list.__class_getitem__(_ENTRY)
_BUNDLE = msgspec.defstruct(
    "Bundle",
    [
        ("type", str | None, None),
        ("total", int | None, None),
        ("link", list[r.Link] | None, None),
        ("entry", _ENTRIES | None, None),
    ],
    bases=(r.Resource,),
    tag_field="resourceType",
    tag="Bundle",
)
_DECODER = msgspec.json.Decoder(_BUNDLE)


def read_at_once(raw: bytes | memoryview) -> Any:
    """The Bundle as `resources.Bundle`, but that each entry's `resource` is a typed resource.

    Of a type that is skipped it has no fields, whether or not it has an id. None where the Bundle
    must be read entry by entry.
    """
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
