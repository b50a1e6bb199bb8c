"""The wire of CDS Hooks 2.0.1: requests decoded with typed structs, discovery, answers.

A request is checked field by field, and every refusal names its field. What each hook's context
must hold stands in `contexts.py`, what Epic adds in `epic.py`. Called by the hook route, by the
silent version beside it and by the command line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NewType

import msgspec

from cds_service.contexts import check_context, decoder_of
from cds_service.errors import BadRequest, PreconditionFailed, RequestRefused, TooLarge
from fhir_adapters.decode import NOTHING_FETCHED, Fetched, Gathered, decode_prefetch
from fhir_adapters.errors import TooManyResources, UnreadableInput
from fhir_adapters.resources import NOTHING, Element
from fhir_adapters.selflinks import under_our_keys
from models.package import Package

HookInstance = NewType("HookInstance", str)

EXTENSION_AS_OF = "dk.varsel.as-of"
LONGEST_URL = 2048
LONGEST_TOKEN = 16_384
EXTENSION_FHIR_VERSION = "com.epic.cdshooks.request.fhir-version"

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FHIR_SERVER = re.compile(r"https?://[!-~]+")
_TOKEN = re.compile(r"[!-~]+")
NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Authorization(msgspec.Struct, frozen=True):
    """`fhirAuthorization`: the caller's leave to read its FHIR server for this one call.

    The specification requires all but `patient`; a call is not refused for lack of what is not
    used (`expires_in`, `scope`, `subject`). The token is never printed, logged or stored.
    """

    access_token: str
    token_type: str
    expires_in: int | None = None
    scope: str | None = None
    subject: str | None = None
    patient: str | None = None

    def __repr__(self) -> str:
        """The scope alone: a token in a log is a token given away."""
        return f"Authorization(scope={self.scope!r})"


class HookRequest(Element):
    """A hook request as it came. `prefetch` values stay bytes until their turn."""

    hook: str | None = None
    hook_instance: str | None = None
    context: msgspec.Raw = NOTHING
    fhir_server: str | None = None
    fhir_authorization: Authorization | None = None
    prefetch: dict[str, msgspec.Raw] | None = None
    extension: dict[str, Any] | None = None


class HookCall(msgspec.Struct, frozen=True):
    """A hook request that is whole: what the rest of the service works on.

    `content`: everything that tells one call from another, `context_content` the part of it that
    says what was asked about; a call repeated under one hookInstance may bring other data, but may
    not ask about something else. A token is in neither.
    """

    hook: str
    hook_instance: HookInstance
    patient_id: str
    user_id: str
    encounter_id: str | None
    fhir_server: str
    authorization: Authorization | None
    prefetch: dict[str, msgspec.Raw]
    extension: dict[str, Any]
    content: tuple[bytes | memoryview, ...]
    context_content: tuple[bytes, ...]


_REQUEST = msgspec.json.Decoder(HookRequest)


def decode_call(
    body: bytes, hooks: Sequence[str], *, names: Mapping[str, str] = NO_NAMES
) -> HookCall:
    """The hook call a body holds. BadRequest names the field that is missing or wrong.

    `names`: the caller's own prefetch keys for those of the service.
    """
    request: HookRequest = decode_json(_REQUEST, body, "")
    hook = _required(request.hook, "hook")
    if hook not in hooks:
        raise BadRequest(f"this service answers {', '.join(hooks)}", field="hook")
    instance = _matching(
        _required(request.hook_instance, "hookInstance"), _UUID, "hookInstance", "a UUID"
    )
    raw_context = _required(bytes(request.context), "context")
    context = check_context(hook, decode_json(decoder_of(hook), raw_context, "context"))
    extension = request.extension or {}
    _check_fhir_version(extension)
    prefetch = request.prefetch or {}
    fhir_server = _check_fhir_server(request.fhir_server)
    authorization = request.fhir_authorization
    if authorization is not None:
        _check_authorization(authorization, fhir_server, context.patient_id or "")
    return HookCall(
        hook=hook,
        hook_instance=HookInstance(instance.lower()),
        patient_id=context.patient_id or "",
        user_id=context.user_id or "",
        encounter_id=context.encounter_id,
        fhir_server=fhir_server,
        authorization=authorization,
        prefetch=_by_our_keys(prefetch, names),
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
        context_content=(raw_context, fhir_server.encode()),
    )


def hook_of(body: bytes) -> str | None:
    """Which hook a request names; None where it names none. BadRequest where it is no request."""
    request: HookRequest = decode_json(_REQUEST, body, "")
    return request.hook


def decode_json(decoder: msgspec.json.Decoder[Any], raw: bytes, where: str) -> Any:
    """What a decoder reads of some bytes; BadRequest names the field at fault, under `where`."""
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


def _check_authorization(given: Authorization, fhir_server: str, patient_id: str) -> None:
    """Refuse what cannot be used, and leave to read somebody else's record."""
    where = "fhirAuthorization"
    if not fhir_server:
        raise BadRequest("fhirServer is required with fhirAuthorization", field="fhirServer")
    token = given.access_token
    if len(token) > LONGEST_TOKEN or not _TOKEN.fullmatch(token):
        raise BadRequest(
            f"access_token must be 1 to {LONGEST_TOKEN} printable characters without spaces",
            field=f"{where}.access_token",
        )
    if given.token_type.lower() != "bearer":
        raise BadRequest("token_type must be Bearer", field=f"{where}.token_type")
    if given.patient is not None and given.patient.removeprefix("Patient/") != patient_id:
        raise BadRequest(
            "the token is for another patient than context.patientId", field=f"{where}.patient"
        )


def _by_our_keys(
    prefetch: dict[str, msgspec.Raw], names: Mapping[str, str]
) -> dict[str, msgspec.Raw]:
    """The prefetch under the keys of the service; BadRequest where two become one."""
    if not names:
        return prefetch
    ours: dict[str, msgspec.Raw] = {}
    for key, value in prefetch.items():
        name = names.get(key, key)
        if name in ours:
            raise BadRequest(f"two keys stand for {name} here", field=f"prefetch.{key}")
        ours[name] = value
    return ours


def _check_fhir_version(extension: dict[str, Any]) -> None:
    """Refuse a caller that says it speaks another FHIR release (Epic's extension)."""
    said = extension.get(EXTENSION_FHIR_VERSION)
    if isinstance(said, str) and re.search(r"DSTU|STU|\b[1-3]\.\d|/[1-3]\.", said.upper()):
        raise BadRequest("this service speaks FHIR R4", field=f"extension.{EXTENSION_FHIR_VERSION}")


def our_prefetch(call: HookCall, package: Package) -> dict[str, msgspec.Raw]:
    """A call's prefetch under the keys of the package that it proves to answer."""
    templates = {key: query.template for key, query in package.manifest.prefetch.items()}
    return under_our_keys(
        call.prefetch, templates, patient_id=call.patient_id, base=call.fhir_server
    )


def read_prefetch(
    call: HookCall,
    package: Package,
    fetched: Mapping[str, Fetched] = NOTHING_FETCHED,
    *,
    most: float = math.inf,
) -> Gathered:
    """The resources of a call's prefetch, and how completely each of the package's queries was
    answered: under the key that asks it, or by a Bundle whose self link repeats it.

    `fetched`: by template, what the FHIR server itself answered; it goes before the prefetch.
    Raises UnreadableInput for another FHIR release, or more resources than `most`.
    """
    by_key = {
        key: fetched[query.template]
        for key, query in package.manifest.prefetch.items()
        if query.template in fetched
    }
    return decode_prefetch(
        our_prefetch(call, package),
        package.expected,
        by_key,
        most=most,
        patient_id=call.patient_id or None,
    )


def require_patient(package: Package, gathered: Gathered, patient_id: str) -> None:
    """Refuse data that do not hold the patient of the context, or that hold another beside them.

    PreconditionFailed where there is no Patient (a `null` says that there is none), BadRequest
    where there is another; both name the prefetch key.
    """
    asked = next(
        (k for k, q in package.expected.items() if q.resource_type == "Patient"), "patient"
    )
    field = f"prefetch.{asked}"
    patients = gathered.of("Patient")
    if not patients:
        raise PreconditionFailed("no Patient was sent", field=field)
    if any(patient.id != patient_id for patient in patients):
        raise BadRequest("the Patient is not that of context.patientId", field=field)


def refused_input(error: UnreadableInput) -> RequestRefused:
    """A refusal by the FHIR room, as the caller gets it."""
    if isinstance(error, TooManyResources):
        return TooLarge(str(error), field="prefetch")
    return BadRequest(str(error), field=error.field)


def discovery(packages: list[Package], language: str) -> dict[str, Any]:
    """The answer to GET /cds-services: one entry per service and hook, without empty members."""
    entries = (
        {
            "hook": hook,
            "id": package.id,
            "title": package.manifest.title.in_language(language),
            "description": package.manifest.description.in_language(language),
            "prefetch": {k: q.template for k, q in package.manifest.prefetch.items()},
            "version": package.manifest.version,
        }
        for package in packages
        for hook in dict.fromkeys(package.manifest.hooks)
    )
    return {"services": [{k: said for k, said in entry.items() if said} for entry in entries]}
