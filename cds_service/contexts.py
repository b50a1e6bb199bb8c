"""The contexts of the hooks: which fields each must carry, and in which form.

After the hook definitions 1.0 of HL7/cds-hooks-library (seen 2026-11). What is not read (draft
orders, appointments) is checked to be there and to be what it is called, and no further, since
record systems send drafts that are no valid resources yet. Called by `protocol`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from cds_service.errors import BadRequest
from fhir_adapters.resources import Element

CLINICIANS = ("Practitioner", "PractitionerRole")
ANYBODY = (*CLINICIANS, "Patient", "RelatedPerson")

_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_USER = re.compile(r"([A-Za-z]{1,64})/[A-Za-z0-9\-.]{1,64}")
_SELECTION = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}")


class Rule(NamedTuple):
    """What a hook's context must hold beside patientId and userId: the kinds of its user, whether
    an encounter, which Bundle, and whether a choice among its entries."""

    users: tuple[str, ...]
    encounter: bool = False
    bundle: Literal["draftOrders", "appointments"] | None = None
    selections: bool = False


RULES: Mapping[str, Rule] = {
    "patient-view": Rule(ANYBODY),
    "encounter-start": Rule(CLINICIANS, encounter=True),
    "encounter-discharge": Rule(CLINICIANS, encounter=True),
    "order-select": Rule(CLINICIANS, bundle="draftOrders", selections=True),
    "order-sign": Rule(CLINICIANS, bundle="draftOrders"),
    "appointment-book": Rule(ANYBODY, bundle="appointments"),
}


class Drafts(Element):
    """A Bundle of what is about to be ordered or booked; its entries stay unread."""

    resource_type: str | None = None
    entry: list[msgspec.Raw] | None = None


class Context(Element):
    """The fields of a hook's context that are read or checked."""

    user_id: str | None = None
    patient_id: str | None = None
    encounter_id: str | None = None


class DraftContext(Context):
    """The context of a hook that comes with drafts."""

    draft_orders: Drafts | None = None
    appointments: Drafts | None = None
    selections: list[str] | None = None


_PLAIN = msgspec.json.Decoder(Context)
_WITH_DRAFTS = msgspec.json.Decoder(DraftContext)


def decoder_of(hook: str) -> msgspec.json.Decoder[Context] | msgspec.json.Decoder[DraftContext]:
    """What reads a hook's context: the fields its rule speaks of, and no others."""
    return _WITH_DRAFTS if RULES[hook].bundle else _PLAIN


def check_context(hook: str, context: Context) -> Context:
    """The context; BadRequest names the field that is missing or of the wrong form."""
    rule = RULES[hook]
    _check_user(context.user_id, rule.users)
    _check_id(context.patient_id, "patientId", needed=True)
    _check_id(context.encounter_id, "encounterId", needed=rule.encounter)
    if isinstance(context, DraftContext):
        _check_drafts(context, rule)
    return context


def _check_user(user: str | None, kinds: tuple[str, ...]) -> None:
    found = _USER.fullmatch(_there(user, "userId"))
    if not found or found.group(1) not in kinds:
        raise BadRequest(
            f"context.userId must be {', '.join(kinds)}, then / and an id", field="context.userId"
        )


def _check_id(value: str | None, name: str, *, needed: bool) -> None:
    if value is None and not needed:
        return
    if not _FHIR_ID.fullmatch(_there(value, name)):
        raise BadRequest(
            f"context.{name} must be a FHIR id, without a type in front", field=f"context.{name}"
        )


def _check_drafts(context: DraftContext, rule: Rule) -> None:
    drafts = context.appointments if rule.bundle == "appointments" else context.draft_orders
    if drafts is None:
        raise _lacks(str(rule.bundle))
    # the public sandbox of CDS Hooks sends its drafts without a type
    is_bundle = drafts.resource_type == "Bundle" or (
        drafts.resource_type is None and drafts.entry is not None
    )
    if not is_bundle:
        raise BadRequest(f"context.{rule.bundle} must be a Bundle", field=f"context.{rule.bundle}")
    if not rule.selections:
        return
    if not context.selections:
        raise _lacks("selections")
    for place, chosen in enumerate(context.selections):
        if not _SELECTION.fullmatch(chosen):
            raise BadRequest(
                "context.selections must hold Type/id each", field=f"context.selections[{place}]"
            )


def _there(value: str | None, name: str) -> str:
    if not value:
        raise _lacks(name)
    return value


def _lacks(name: str) -> BadRequest:
    return BadRequest(f"context.{name} is required", field=f"context.{name}")
