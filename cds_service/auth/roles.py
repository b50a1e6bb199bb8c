"""Which role may read what of the governance API: one table, and the rule that reads it.

Everything that is not in the table is denied. A reader with several roles reads in one of them, the
first of `ROLES` that may have the route; the roles are listed so that it shows at least what the
later ones do. Used by the routes under `/api`; docs/api.md is this table for readers (a test keeps
the two equal).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, get_args

from cds_service.errors import NotPermitted, UnknownService

Role = Literal["validator", "data-protection-officer", "operator", "administrator", "clinician"]
ROLES: tuple[Role, ...] = get_args(Role)
"""`clinician` reads nothing here: the own patient's explanation is opened from the record."""

METADATA = (
    "prediction_id", "computed_at", "as_of", "organisation", "unit", "caller", "service", "hook",
    "model_id", "model_version", "package_checksum", "software_version", "libraries", "mode",
    "arm", "state", "language", "status", "reason", "returned", "attempt", "attempt_of",
    "purpose", "legal_ground", "erasure",
)  # fmt: skip
"""Who asked, which model, when, and what came of it: nothing that tells patients apart."""
PSEUDONYMOUS = ("patient_pseudonym", "encounter_pseudonym", "pseudonym_key", "index_time")
"""What joins rows of one patient, and the time of a discharge, which may single one out."""
PAYLOAD = ("prediction",)
"""The prediction itself with its risks, values and cards: health data under pseudonym."""
RECORD = (
    "hook_instance", "content_digest", "context_digest", "digest_key", "chain_day", "chain_writer",
    "chain_sequence", "commitment", "link",
)  # fmt: skip
"""What proves one row: the call it answers, and its place in the chain."""
AUDIT = (
    "id", "at", "organisation", "who", "role", "what", "subject", "why", "details", "chain_day",
    "chain_writer", "chain_sequence", "commitment", "link",
)  # fmt: skip
MODELS = ("model_id", "version", "package_checksum", "bundled", "state", "since", "fault")

PREDICTIONS_ROUTE = "/api/v1/predictions"
PREDICTION_ROUTE = "/api/v1/predictions/{prediction_id}"
AUDIT_ROUTE = "/api/v1/audit"
MODELS_ROUTE = "/api/v1/models"

MAY_READ: Mapping[str, Mapping[Role, tuple[str, ...]]] = {
    PREDICTIONS_ROUTE: {
        "validator": METADATA + PSEUDONYMOUS + PAYLOAD,
        "data-protection-officer": METADATA + PSEUDONYMOUS,
        "operator": METADATA,
    },
    PREDICTION_ROUTE: {
        "validator": METADATA + PSEUDONYMOUS + PAYLOAD + ("features", "timings") + RECORD,
        "data-protection-officer": METADATA + PSEUDONYMOUS + RECORD,
        "operator": METADATA,
    },
    AUDIT_ROUTE: {"data-protection-officer": AUDIT},
    MODELS_ROUTE: {"validator": MODELS, "operator": MODELS, "administrator": MODELS},
}
"""By route and role, the columns that are shown."""


class Grant(NamedTuple):
    """In which role a route is read, and which columns that shows."""

    role: Role
    columns: tuple[str, ...]


def grant(roles: Collection[Role], route: str) -> Grant:
    """What somebody with some roles reads of a route.

    Raises NotPermitted for a list; UnknownService for one item, as if it were not there, because
    another answer would tell that it is.
    """
    allowed = MAY_READ.get(route, {})
    for role in ROLES:
        if role in roles and role in allowed:
            return Grant(role, allowed[role])
    if route.endswith("}"):
        raise not_there()
    raise NotPermitted("none of the reader's roles may read this")


def not_there() -> UnknownService:
    """What is said of an item that is unknown, of another organisation, or forbidden: the same."""
    return UnknownService("no prediction of that id", field="prediction_id")
