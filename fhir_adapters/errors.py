"""Every error this room raises, as a tree. The edge gives each leaf its HTTP status.

    FhirError
    ├── UnreadableInput      the sender's: not JSON, not FHIR, too deep                    400
    │   └── WrongFhirVersion the sender's: DSTU2 or STU3 where R4 is spoken                400
    └── LanguageError        the package author's: a feature that cannot be meant so

Messages hold field names, resource types and counts, never patient data.
"""

from __future__ import annotations


class FhirError(Exception):
    """Anything this room refuses. `field` is the path of what was refused, where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnreadableInput(FhirError):
    """The bytes are not a FHIR resource that can be read."""


class WrongFhirVersion(UnreadableInput):
    """The resource has the shape of another FHIR release than R4."""


class LanguageError(FhirError):
    """A manifest asks for a feature in words the language does not have."""
