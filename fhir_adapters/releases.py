"""Where FHIR R4 and its elders differ, so that the release of what was sent shows.

Types that R4 does not have any more, and elements that had another form. `decode.py` refuses by
them, `at_once.py` leaves to it what has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_adapters import resources as r

OLDER_TYPES: Mapping[str, str] = {
    "MedicationOrder": "DSTU2",
    "DiagnosticOrder": "DSTU2",
    "ReferralRequest": "STU3",
}


class Shape(r.Element, rename={"class_": "class", "clinical_status": "clinicalStatus"}):
    """Where R4 and its elders differ in form, so that the release shows."""

    class_: Any = None
    patient: Any = None
    context: Any = None
    category: Any = None
    clinical_status: Any = None


OLDER_SHAPES: Mapping[str, tuple[tuple[str, type], ...]] = {
    "Encounter": (("class_", str), ("patient", dict)),
    "Condition": (("clinical_status", str), ("patient", dict)),
    "Observation": (("category", dict), ("context", dict)),
    "Procedure": (("context", dict),),
    "MedicationRequest": (("context", dict),),
}
"""By type the elements whose JSON has a kind that only an earlier release gives them."""
OLDER_FORMS: Mapping[str, list[tuple[str, Any, Any]]] = {
    "Encounter": [("patient", None, None)],
    "Condition": [("patient", None, None)],
    "Observation": [("category", list[r.Element] | None, None), ("context", None, None)],
    "Procedure": [("context", None, None)],
    "MedicationRequest": [("context", None, None)],
}
"""Elements that only an earlier release has, or has in this form, as fields that refuse it. Those
`resources.py` reads, such as Encounter.class, refuse it by their own type."""
