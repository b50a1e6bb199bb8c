"""What users did with cards, as their systems report it: a batch decoded, and the rows kept of it.

CDS Hooks 2.0.1 "Feedback" and Epic's dialect of it: `overrideReasons` for `overrideReason`, and the
reason as an extension where it was picked from the site's own list. A batch is taken whole or not
at all; a refusal names the item and field. Free-text comments are not read. Pure. Called by
`routes/feedback.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from cds_service.auth.callers import Caller
from cds_service.errors import BadRequest, TooLarge
from cds_service.identities.privacy import Privacy, uuid_v8
from cds_service.protocol import decode_json
from cds_service.wording import printable
from fhir_adapters.resources import Element

MOST_ITEMS = 500
LARGEST_BODY = 1_000_000
MOST_SUGGESTIONS = 100
OUTCOMES = ("accepted", "overridden")
EPIC_REASON = "com.epic.cdshooks.feedback.overrideReason.reason"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+\Z")]
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Words = Annotated[str, msgspec.Meta(max_length=512)]
# RFC 3339, section 5.6
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class _Reason(Element):
    """An override reason of a card, or of the record's own."""

    code: Code | None = None
    system: Code | None = None
    display: Words | None = None


class _EpicReason(
    msgspec.Struct,
    rename={name: f"{EPIC_REASON}{name.capitalize()}" for name in ("category", "title", "display")},
):
    """A reason picked from a site's own list in Epic."""

    category: Code | int | None = None
    title: Words | None = None
    display: Words | None = None


class _Override(Element):
    """Why a card was set aside. `userComment` is not read."""

    reason: _Reason | None = None
    extension: _EpicReason | None = None


class _Suggestion(Element):
    id: Id | None = None


class _Item(Element):
    card: Id | None = None
    outcome: str | None = None
    outcome_timestamp: str | None = None
    accepted_suggestions: (
        Annotated[list[_Suggestion], msgspec.Meta(max_length=MOST_SUGGESTIONS)] | None
    ) = None
    override_reason: _Override | None = None
    override_reasons: _Override | None = None


class _Batch(Element):
    feedback: list[_Item] | None = None


_BATCH = msgspec.json.Decoder(_Batch)


class Reported(NamedTuple):
    """What became of one card. `reason` and `accepted` as JSON, None where there is none."""

    card: str
    outcome: str
    outcome_at: datetime
    reason: str | None
    accepted: str | None


def decode_feedback(body: bytes) -> list[Reported]:
    """What a batch reports. BadRequest names the item and field that is missing or wrong."""
    batch: _Batch = decode_json(_BATCH, body, "")
    if batch.feedback is None:
        raise BadRequest("feedback is required", field="feedback")
    if len(batch.feedback) > MOST_ITEMS:
        raise TooLarge(f"more than {MOST_ITEMS} items", field="feedback")
    return [_reported(item, f"feedback[{n}]") for n, item in enumerate(batch.feedback)]


def _reported(item: _Item, at: str) -> Reported:
    if item.card is None:
        raise BadRequest("card is required", field=f"{at}.card")
    if item.outcome not in OUTCOMES:
        raise BadRequest(f"must be {' or '.join(OUTCOMES)}", field=f"{at}.outcome")
    accepted = _accepted(item, at)
    if item.outcome == "accepted" and not accepted:
        raise BadRequest(
            "acceptedSuggestions is required of what was accepted",
            field=f"{at}.acceptedSuggestions",
        )
    return Reported(
        card=item.card,
        outcome=item.outcome,
        outcome_at=_moment(item.outcome_timestamp, f"{at}.outcomeTimestamp"),
        reason=_json(_why(item, at)),
        accepted=_json(accepted),
    )


def _accepted(item: _Item, at: str) -> list[str]:
    found = []
    for n, suggestion in enumerate(item.accepted_suggestions or []):
        if suggestion.id is None:
            raise BadRequest("id is required", field=f"{at}.acceptedSuggestions[{n}].id")
        found.append(suggestion.id)
    return found


def _why(item: _Item, at: str) -> dict[str, str]:
    """The reason's codes and their words; empty where none was picked."""
    if item.override_reason is not None:
        name, override = "overrideReason", item.override_reason
    elif item.override_reasons is not None:
        name, override = "overrideReasons", item.override_reasons
    else:
        return {}
    if override.reason is None:
        return _said(override.extension or _EpicReason(), ("category", "title", "display"))
    for part in ("code", "system"):
        if getattr(override.reason, part) is None:
            raise BadRequest(f"{part} is required", field=f"{at}.{name}.reason.{part}")
    return _said(override.reason, ("code", "system", "display"))


def _said(reason: _Reason | _EpicReason, names: Sequence[str]) -> dict[str, str]:
    values = {name: getattr(reason, name) for name in names}
    return {name: printable(str(value)) for name, value in values.items() if value is not None}


def _moment(text: str | None, field: str) -> datetime:
    if text is None:
        raise BadRequest("outcomeTimestamp is required", field=field)
    no_moment = BadRequest("must be a date and time with its zone (RFC 3339)", field=field)
    if not _INSTANT.fullmatch(text):
        raise no_moment
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise no_moment from None


def _json(value: Any) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


# ---- rows -----------------------------------------------------------------------------------


def feedback_rows(
    reported: Sequence[Reported],
    matched: Mapping[str, str],
    *,
    caller: Caller,
    service: str,
    privacy: Privacy,
    now: datetime,
) -> list[dict[str, Any]]:
    """The rows to keep of a batch; the same report has the same id, whenever it comes.

    `matched`: by card, the prediction it is of; a card without one is kept as unmatched.
    """
    return [
        {
            "id": _id_of(item, caller.organisation, service, privacy),
            "organisation": caller.organisation,
            "caller": caller.name,
            "service": service,
            "card": item.card,
            "prediction_id": matched.get(item.card),
            "outcome": item.outcome,
            "reason": item.reason,
            "accepted": item.accepted,
            "outcome_at": item.outcome_at,
            "received_at": now,
        }
        for item in reported
    ]


def _id_of(item: Reported, organisation: str, service: str, privacy: Privacy) -> str:
    parts = (
        "feedback", organisation, service, item.card, item.outcome, item.outcome_at.isoformat(),
        item.reason or "", item.accepted or "",
    )  # fmt: skip
    digest = privacy.digest(*(part.encode() for part in parts))
    return str(uuid_v8(bytes.fromhex(digest)))
