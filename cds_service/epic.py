"""Epic's dialect of CDS Hooks, as far as it is read: the trigger, and a request that came stripped.

Epic sends every trigger as `patient-view` (order-select and order-sign apart) and says in a request
extension which it was. What else it puts into extensions is neither logged nor stored: one of them
names the user. Source: Epic's page on CDS Hooks, fhir.epic.com, docId cds-hooks (seen 2026-11).
docs/epic.md tells a site what to register. Called by the hook route and by `varsel doctor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cds_service.errors import PreconditionFailed
from cds_service.protocol import HookCall

PREFIX = "com.epic.cdshooks.request."
TRIGGER = f"{PREFIX}bpa-trigger-action"
TRIGGERS: Mapping[str, str] = {
    "5": "general",
    "6": "enter-problem",
    "7": "enter-diagnosis",
    "18": "enter-order",
    "23": "sign-orders",
    "26": "admission",
    "27": "discharge",
    "29": "transfer",
    "60": "open-chart",
}
"""Epic's numbers for what the user was doing."""
STRIPPED = (
    "The request came from Epic without prefetch and without fhirAuthorization. Epic leaves both "
    "out where the endpoint URI typed into the record of this service is not exactly the one "
    "registered for the client: compare the two character by character, also scheme, port and a "
    "trailing slash"
)


def trigger_of(extension: Mapping[str, Any]) -> str | None:
    """What the user was doing, in a word; None where it is not said, or by no number Epic lists.

    It moves no number: every prognosis is of the moment of the call. At `discharge` a stay that is
    still open ends then, for the features as for the reader; at `admission` it has just begun, and
    what a model knows of the stay is mostly not there yet.
    """
    said = extension.get(TRIGGER)
    number = str(said) if isinstance(said, int) and not isinstance(said, bool) else said
    return TRIGGERS.get(number) if isinstance(number, str) else None


def is_stripped(call: HookCall) -> bool:
    """Whether the request has what Epic always sends, and nothing of what it may leave out."""
    from_epic = any(key.startswith(PREFIX) for key in call.extension)
    return from_epic and not call.prefetch and call.authorization is None


def with_advice(refused: PreconditionFailed, call: HookCall) -> PreconditionFailed:
    """The refusal; of a stripped request it also says what to look at."""
    if not is_stripped(call):
        return refused
    return PreconditionFailed(f"{refused}. {STRIPPED}", field=refused.field)
