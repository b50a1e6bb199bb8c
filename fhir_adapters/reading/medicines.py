"""Medicines: requested, stated and given, whatever the drug is named by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.clock import OPEN, UNDATED
from fhir_adapters.codes import ATC
from fhir_adapters.reading.shared import Reading
from fhir_adapters.reading.versions import current
from fhir_adapters.record import Fact
from fhir_adapters.references import reference_key

GOES_ON = frozenset({"active", "on-hold", "intended"})
COUNTS = GOES_ON | {"completed", "stopped"}
COUNTS_ADMINISTRATION = frozenset({"completed", "in-progress"})
ORDERED = frozenset(
    {None, "order", "original-order", "instance-order", "filler-order", "reflex-order"}
)
_AS_NEEDED = frozenset({"as-needed"})
_UNTAGGED: frozenset[str] = frozenset()
_CONTAINED = msgspec.json.Decoder(r.Medication)


def read_medicines(reading: Reading) -> None:
    """Every drug the patient takes, took or was given, as facts.

    An active one lasts until its end or on; a stopped or completed one without an end counts for
    the day it began. What was proposed, planned or not to be given does not count.
    """
    drugs = {f"Medication/{m.id}": m for m in reading.gathered.of("Medication")}
    for request in current(reading.gathered, "MedicationRequest"):
        if request.intent in ORDERED and not request.do_not_perform and request.status in COUNTS:
            validity = request.dispense_request and request.dispense_request.validity_period
            until = validity.end if validity else None
            _add(reading, request, drugs, request.authored_on, until, request.dosage_instruction)
    for statement in current(reading.gathered, "MedicationStatement"):
        if statement.status in COUNTS:
            period = statement.effective_period
            start = statement.effective_date_time or (period and period.start)
            until = period.end if period else None
            begun = start or statement.date_asserted
            _add(reading, statement, drugs, begun, until, statement.dosage)
    for given in current(reading.gathered, "MedicationAdministration"):
        if given.status in COUNTS_ADMINISTRATION:
            period = given.effective_period
            at = given.effective_date_time or (period and period.start)
            _add(reading, given, drugs, at, at, None)


def _add(
    reading: Reading,
    use: Any,
    drugs: Mapping[str, r.Medication],
    start_text: str | None,
    end_text: str | None,
    dosages: list[r.Dosage] | None,
) -> None:
    kind = type(use).__name__
    code = use.medication_codeable_concept or _referred_drug(reading, use, drugs)
    found = reading.unmeasured(code)
    reference = use.medication_reference.reference if use.medication_reference else None
    if "medication" in reading.wanted.concepts and (code is not None or reference):
        found.append(
            ("medication", None, _drug_key(reading, code, reference or f"{kind}/{use.id}"))
        )
    if not found:
        return
    start = reading.time(start_text, kind)
    begun = UNDATED if start is None else start
    goes_on = use.status in GOES_ON and kind != "MedicationAdministration"
    end = reading.end(end_text, OPEN if goes_on else begun)
    as_needed = any(
        d.as_needed_boolean or d.as_needed_codeable_concept is not None for d in dosages or ()
    )
    for concept, _, drug in found:
        reading.add(
            Fact(
                concept,
                start=begun,
                end=max(begun, end),
                known=begun,
                value=_dose(dosages),
                source=f"{kind}/{use.id}",
                code=drug,
                tags=_AS_NEEDED if as_needed else _UNTAGGED,
            )
        )


def _referred_drug(
    reading: Reading, use: Any, drugs: Mapping[str, r.Medication]
) -> r.CodeableConcept | None:
    reference = use.medication_reference.reference if use.medication_reference else None
    key = reference_key(reference, reading.gathered.ids_by_full_url)
    if key is None:
        return None
    if key.startswith("#"):
        return _contained_drug(use, key[1:])
    drug = drugs.get(key)
    return drug.code if drug else None


def _contained_drug(use: Any, local_id: str) -> r.CodeableConcept | None:
    for raw in use.contained or ():
        try:
            medication = _CONTAINED.decode(raw)
        except msgspec.ValidationError:
            continue  # another contained resource, of a form this one does not need
        if medication.id == local_id:
            return medication.code
    return None


def _drug_key(reading: Reading, code: r.CodeableConcept | None, otherwise: str) -> str:
    """One name for one drug, so that the same drug on two prescriptions is counted once.

    Its ATC code, however written, else its first code; `otherwise` for a drug without a code.
    """
    coded = [pair for c in (code and code.coding) or () if (pair := reading.canonical(c))]
    atc = next((pair for pair in coded if pair[0] == ATC), None)
    chosen = atc or (coded[0] if coded else None)
    return "|".join(chosen) if chosen else otherwise


def _dose(dosages: list[r.Dosage] | None) -> float | None:
    """The dose, where the instruction names exactly one."""
    doses = [
        rate.dose_quantity.value
        for dosage in dosages or ()
        for rate in dosage.dose_and_rate or ()
        if rate.dose_quantity
    ]
    return doses[0] if len(doses) == 1 else None
