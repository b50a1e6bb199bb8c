"""Every error this room raises, as a tree. The edge gives each leaf its HTTP status.

    FhirError
    ├── UnreadableInput      the sender's: not JSON, not FHIR, too deep                    400
    │   ├── WrongFhirVersion the sender's: DSTU2 or STU3 where R4 is spoken                400
    │   └── TooManyResources the sender's: more than the site reads of one request         413
    ├── LanguageError        the package author's: a feature that cannot be meant so
    ├── FetchFailed          the FHIR server's: it did not give what was asked of it       412
    │   └── AddressRefused   the site's: its name leads to an address not registered       412
    └── OutboundRefused      ours: a resource made here is not FHIR                        500

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


class TooManyResources(UnreadableInput):
    """A request holds more resources than may be read of one."""


class LanguageError(FhirError):
    """A manifest asks for a feature in words the language does not have."""


class FetchFailed(FhirError):
    """A FHIR server could not be asked, or did not answer with FHIR; says why, without ids or URLs.

    Where the data were required, the edge answers 412; else the features say "not obtained".
    """


class AddressRefused(FetchFailed):
    """The name of a server leads to an address nobody registered."""


class OutboundRefused(FhirError):
    """A resource made here is not what FHIR says it must be; names the elements at fault."""
