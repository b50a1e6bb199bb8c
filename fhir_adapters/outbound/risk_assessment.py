"""One prediction as a FHIR R4 RiskAssessment, checked against the R4B models of `fhir.resources`.

Lives here: which value stands in which element, and the code systems. docs/risk-assessment.md is
the mapping as a table. What is said in words (rationale, notes) is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from fhir_adapters.errors import OutboundRefused

Resource = dict[str, Any]
SYSTEM = "https://varsel.dk/fhir/"
MODEL_SYSTEM = f"{SYSTEM}CodeSystem/model"
OUTCOME_SYSTEM = f"{SYSTEM}CodeSystem/outcome"
BAND_SYSTEM = f"{SYSTEM}CodeSystem/band"
MODE_SYSTEM = f"{SYSTEM}CodeSystem/mode"
PSEUDONYM_SYSTEM = f"{SYSTEM}sid/pseudonym"
PACKAGE_SYSTEM = f"{SYSTEM}sid/package"
AI_ASSERTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
"""HL7's security label for what a machine asserted (AI Transparency on FHIR, seen 2026-11)."""
PERCENT_DECIMALS = 4
"""Decimals of a probability in per cent: a millionth of the probability. FHIR readers take every
decimal for meant."""


@dataclass(frozen=True, slots=True)
class Identified:
    """A patient or encounter: by our pseudonym, or by reference where the vault was opened."""

    kind: str
    pseudonym: str
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedOutcome:
    """One outcome with its probability (0 to 1).

    `code`: unique among all outcomes of all models; `band` likewise, None where the model has none.
    `horizon_days`: how long from the start of the period; None where the model does not say.
    """

    code: str
    text: str
    probability: float
    band: str | None = None
    band_text: str | None = None
    horizon_days: int | None = None
    rationale: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssessedRisk:
    """What one model predicted of one patient, as plain values.

    Times are ISO 8601 instants: `as_of` of the data, `starts` of the period predicted,
    `computed_at` of the computation. `withdrawn`: the prediction is taken back. `basis`:
    references, none where the vault stayed shut. `mode`: `live`, or `silent` where nothing of it
    was shown.
    """

    prediction_id: str
    withdrawn: bool
    language: str
    mode: str
    model_id: str
    model_version: str
    package_checksum: str
    software_version: str
    patient: Identified
    encounter: Identified | None
    as_of: str
    starts: str
    computed_at: str
    outcomes: Sequence[PredictedOutcome]
    basis: Sequence[str] = ()
    notes: Sequence[str] = ()


def risk_assessment(risk: AssessedRisk) -> Resource:
    """The RiskAssessment of what a model predicted, as JSON values.

    Raises OutboundRefused where the R4B models do not take it, which is a fault of ours.
    """
    resource = {
        "resourceType": "RiskAssessment",
        "id": risk.prediction_id,
        "meta": {
            "security": [AI_ASSERTED],
            "tag": [{"system": MODE_SYSTEM, "code": risk.mode}],
        },
        "language": risk.language,
        "contained": [_device(risk)],
        "status": "entered-in-error" if risk.withdrawn else "final",
        "method": _method(risk),
        "subject": _who(risk.patient),
        "encounter": _who(risk.encounter) if risk.encounter else None,
        "occurrenceDateTime": risk.as_of,
        "performer": {"reference": "#model"},
        "basis": [{"reference": reference} for reference in risk.basis],
        "prediction": [_prediction(outcome, risk.starts) for outcome in risk.outcomes],
        "note": [{"time": risk.computed_at, "text": text} for text in risk.notes],
    }
    return checked(_without_nothing(resource))


def checked(resource: Resource) -> Resource:
    """The resource as it is, where the R4B models take it; OutboundRefused where they do not.

    The error names the elements at fault and nothing they hold.
    """
    refused = _faults(resource)
    if refused:
        kind, fields = resource["resourceType"], ", ".join(refused)
        raise OutboundRefused(f"a {kind} we made is not FHIR R4 at: {fields}", field=refused[0])
    return resource


def _faults(resource: Resource) -> list[str]:
    from pydantic import ValidationError  # with the models below, at the first resource

    try:
        _model().model_validate(resource)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)
        return sorted({".".join(str(part) for part in one["loc"]) or "(whole)" for one in found})
    return []


@cache
def _model() -> Any:
    """The R4B model; imported at the first resource, for hooks are answered without it."""
    from fhir.resources.R4B.riskassessment import RiskAssessment

    return RiskAssessment


def _device(risk: AssessedRisk) -> Resource:
    """The model: its version, that of the software, and the checksum of its files."""
    return {
        "resourceType": "Device",
        "id": "model",
        "identifier": [{"system": PACKAGE_SYSTEM, "value": risk.package_checksum}],
        "deviceName": [{"name": risk.model_id, "type": "model-name"}],
        "version": [
            {"type": {"text": "model"}, "value": risk.model_version},
            {"type": {"text": "Varsel"}, "value": risk.software_version},
        ],
    }


def _method(risk: AssessedRisk) -> Resource:
    return {
        "coding": [
            {"system": MODEL_SYSTEM, "version": risk.model_version, "code": risk.model_id},
        ],
        "text": f"{risk.model_id} {risk.model_version}",
    }


def _who(one: Identified) -> Resource:
    """A reference, or the pseudonym under a system of ours, which leads nobody to the patient."""
    if one.reference is not None:
        return {"type": one.kind, "reference": one.reference}
    return {
        "type": one.kind,
        "identifier": {"system": PSEUDONYM_SYSTEM, "value": one.pseudonym},
    }


def _prediction(outcome: PredictedOutcome, starts: str) -> Resource:
    band = None
    if outcome.band is not None:
        band = {
            "coding": [{"system": BAND_SYSTEM, "code": outcome.band}],
            "text": outcome.band_text,
        }
    return {
        "outcome": {
            "coding": [{"system": OUTCOME_SYSTEM, "code": outcome.code}],
            "text": outcome.text,
        },
        "probabilityDecimal": round(100 * outcome.probability, PERCENT_DECIMALS),
        "qualitativeRisk": band,
        "whenPeriod": _period(starts, outcome.horizon_days),
        "rationale": outcome.rationale,
    }


def _period(starts: str, horizon_days: int | None) -> Resource | None:
    if horizon_days is None:
        return None
    ends = datetime.fromisoformat(starts) + timedelta(days=horizon_days)
    return {"start": starts, "end": f"{ends.isoformat()[:19]}Z"}


def _without_nothing(value: Any) -> Any:
    """The same without members that are None or empty, which FHIR does not have."""
    if isinstance(value, dict):
        kept = {name: _without_nothing(member) for name, member in value.items()}
        return {name: member for name, member in kept.items() if member not in (None, [], {}, "")}
    if isinstance(value, list):
        return [_without_nothing(member) for member in value]
    return value
