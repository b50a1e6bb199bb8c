"""The CPR number a patient's record carries: read to be made a pseudonym of, and for nothing else.

No feature is made of it, and it is not part of a patient record. Called by the edge, which seals it
and gives it to nobody, and where one is typed to find a patient.
"""

from __future__ import annotations

import re

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.decode import Gathered

SYSTEMS = frozenset({"urn:oid:1.2.208.176.1.2", "http://www.cpr.dk/cpr-systemet"})
"""Identifier systems of CPR numbers: dk-core's, and the other one of its NamingSystem (2026-11)."""
_NUMBER = re.compile(r"([0-9]{6})-?([0-9A-Z]{4})")
"""Also a replacement number (eCPR), which has letters; no check digit, by the CPR office's word."""
_IDENTIFIERS = msgspec.json.Decoder(list[r.Identifier])


def cpr_number(text: str) -> str | None:
    """A CPR number as it is compared: ten characters without hyphen, letters large; None where the
    text is none."""
    found = _NUMBER.fullmatch(text.strip().upper())
    return "".join(found.groups()) if found else None


def cpr_of(gathered: Gathered, patient_id: str) -> str | None:
    """The CPR number of the patient of an id, without hyphen; None where none was sent."""
    for patient in gathered.of("Patient"):
        if patient.id == patient_id and patient.identifier:
            return _number_among(bytes(patient.identifier))
    return None


def _number_among(raw: bytes) -> str | None:
    try:
        identifiers: list[r.Identifier] = _IDENTIFIERS.decode(raw)
    except msgspec.MsgspecError:
        return None
    for one in identifiers:
        found = cpr_number(one.value or "") if one.system in SYSTEMS else None
        if found:
            return found
    return None
