"""The wire of CDS Hooks 2.0.1: requests decoded with typed structs, discovery, answers.

A request is checked field by field, and every refusal names its field. What a hook carries beyond
what is read here (draft orders, appointments) is skipped. Epic's dialect comes with `EXTENSION_*`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NewType

import msgspec

from cds_service.errors import BadRequest, PreconditionFailed
from fhir_adapters.decode import Gathered
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.resources import NOTHING, Element
from models.package import Package

HookInstance = NewType("HookInstance", str)

EXTENSION_AS_OF = "dk.varsel.as-of"
LONGEST_URL = 2048
EXTENSION_FHIR_VERSION = "com.epic.cdshooks.request.fhir-version"

# HL7/cds-hooks-library, hook definitions 1.0: context fields a hook must carry
REQUIRED_CONTEXT: dict[str, tuple[str, ...]] = {
    "patient-view": ("userId", "patientId"),
    "encounter-discharge": ("userId", "patientId", "encounterId"),
}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_FHIR_SERVER = re.compile(r"https?://[!-~]+")
_USER = re.compile(r"(Practitioner|PractitionerRole|Patient|RelatedPerson)/[A-Za-z0-9\-.]{1,64}")


class Context(Element):
    """The hook context's fields that are read."""

    user_id: str | None = None
    patient_id: str | None = None
    encounter_id: str | None = None


class HookRequest(Element):
    """A hook request as it came. `prefetch` values stay bytes until their turn."""

    hook: str | None = None
    hook_instance: str | None = None
    context: msgspec.Raw = NOTHING
    fhir_server: str | None = None
    prefetch: dict[str, msgspec.Raw] | None = None
    extension: dict[str, Any] | None = None


class HookCall(msgspec.Struct, frozen=True):
    """A hook request that is whole: what the rest of the service works on."""

    hook: str
    hook_instance: HookInstance
    patient_id: str
    user_id: str
    encounter_id: str | None
    fhir_server: str
    prefetch: dict[str, msgspec.Raw]
    extension: dict[str, Any]
    content: tuple[bytes | memoryview, ...]


_REQUEST = msgspec.json.Decoder(HookRequest)
_CONTEXT = msgspec.json.Decoder(Context)


def decode_call(body: bytes, hooks: Sequence[str]) -> HookCall:
    """The hook call a body holds. BadRequest names the field that is missing or wrong."""
    request: HookRequest = _decode(_REQUEST, body, "")
    hook = _required(request.hook, "hook")
    if hook not in hooks:
        raise BadRequest(f"this service answers {', '.join(hooks)}", field="hook")
    instance = _matching(
        _required(request.hook_instance, "hookInstance"), _UUID, "hookInstance", "a UUID"
    )
    raw_context = _required(bytes(request.context), "context")
    context = _check_context(hook, _decode(_CONTEXT, raw_context, "context"))
    extension = request.extension or {}
    _check_fhir_version(extension)
    prefetch = request.prefetch or {}
    fhir_server = _check_fhir_server(request.fhir_server)
    return HookCall(
        hook=hook,
        hook_instance=HookInstance(instance.lower()),
        patient_id=context.patient_id or "",
        user_id=context.user_id or "",
        encounter_id=context.encounter_id,
        fhir_server=fhir_server,
        prefetch=prefetch,
        extension=extension,
        content=(
            raw_context,
            fhir_server.encode(),
            msgspec.json.encode(extension, order="sorted"),
            *(
                part
                for key in sorted(prefetch)
                for part in (key.encode(), memoryview(prefetch[key]))
            ),
        ),
    )


def hook_of(body: bytes) -> str | None:
    """Which hook a request names; None where it names none. BadRequest where it is no request."""
    request: HookRequest = _decode(_REQUEST, body, "")
    return request.hook


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes, where: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        found = re.search(r"`\$\.?(.*)`$", str(error))
        path = ".".join(part for part in (where, found.group(1) if found else "") if part)
        raise BadRequest(str(error).split(" - at ")[0], field=path or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"not valid JSON: {error}", field=where or "$") from None
    except RecursionError:
        raise BadRequest("nested too deeply", field=where or "$") from None


def _required(value: Any, field: str) -> Any:
    if value is None or value in ("", b"", b"null"):
        raise BadRequest(f"{field} is required", field=field)
    return value


def _matching(value: str, pattern: re.Pattern[str], field: str, form: str) -> str:
    if not pattern.fullmatch(value):
        raise BadRequest(f"{field} must be {form}", field=field)
    return value


def _check_fhir_server(url: str | None) -> str:
    """The FHIR base without a trailing slash, so that a base has one pseudonym; "" for none."""
    if url is None:
        return ""
    _matching(url[: LONGEST_URL + 1], _FHIR_SERVER, "fhirServer", "an http or https URL")
    if len(url) > LONGEST_URL:
        raise BadRequest(f"fhirServer is longer than {LONGEST_URL}", field="fhirServer")
    return url.rstrip("/")


def _check_context(hook: str, context: Context) -> Context:
    named = {
        "userId": (context.user_id, _USER, "Practitioner/<id> or another kind of user"),
        "patientId": (context.patient_id, _FHIR_ID, "a FHIR id, without a type in front"),
        "encounterId": (context.encounter_id, _FHIR_ID, "a FHIR id, without a type in front"),
    }
    for name, (value, pattern, form) in named.items():
        field = f"context.{name}"
        if name in REQUIRED_CONTEXT[hook]:
            _required(value, field)
        if value is not None:
            _matching(value, pattern, field, form)
    return context


def _check_fhir_version(extension: dict[str, Any]) -> None:
    """Refuse a caller that says it speaks another FHIR release (Epic's extension)."""
    said = extension.get(EXTENSION_FHIR_VERSION)
    if isinstance(said, str) and re.search(r"DSTU|STU|\b[1-3]\.\d|/[1-3]\.", said.upper()):
        raise BadRequest("this service speaks FHIR R4", field=f"extension.{EXTENSION_FHIR_VERSION}")


def require_patient(package: Package, gathered: Gathered, patient_id: str) -> None:
    """Refuse a prefetch that does not hold the patient of the context.

    PreconditionFailed where it holds no Patient (a `null` says that there is none), BadRequest
    where it holds another; both name the prefetch key.
    """
    asked = next(
        (k for k, q in package.expected.items() if q.resource_type == "Patient"), "patient"
    )
    field = f"prefetch.{asked}"
    patients = gathered.of("Patient")
    if not patients:
        raise PreconditionFailed("no Patient was sent", field=field)
    if all(patient.id != patient_id for patient in patients):
        raise BadRequest("the Patient is not that of context.patientId", field=field)


def refused_input(error: UnreadableInput) -> BadRequest:
    """A refusal by the FHIR room, as the caller gets it."""
    return BadRequest(str(error), field=error.field)


def discovery(packages: list[Package], language: str) -> dict[str, Any]:
    """The answer to GET /cds-services: one entry per service and hook."""
    return {
        "services": [
            {
                "hook": hook,
                "id": package.id,
                "title": package.manifest.title.in_language(language),
                "description": package.manifest.description.in_language(language),
                "prefetch": {k: q.template for k, q in package.manifest.prefetch.items()},
                "version": package.manifest.version,
            }
            for package in packages
            for hook in package.manifest.hooks
        ]
    }
