"""What the OpenAPI document says of the governance API: parameters, forms, schemas.

As `docs.py` does for the other routes; what each role reads is `auth/roles.py`.
"""

from __future__ import annotations

from typing import Any

from fastapi import Response

from cds_service.api.formats import CSV, FHIR_BUNDLE, FHIR_LINES, PARQUET
from cds_service.api.paging import FILTERS, LONGEST_FILTER, MOST_ROWS, PURPOSES, USUAL_ROWS
from cds_service.auth.roles import (
    AUDIT_ROUTE,
    MAY_READ,
    MODELS_ROUTE,
    PREDICTION_ROUTE,
    PREDICTIONS_ROUTE,
)
from cds_service.docs_parts import content_of, reference_to, refusals

_READER: list[dict[str, list[str]]] = [{"reader": []}]
SECURITY_SCHEME: dict[str, Any] = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "An access token of an issuer of the readers file; none in the demo profile",
}
_TEXT: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST_FILTER,
    "pattern": r"^[^\x00-\x1f\x7f]+$",
}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}


def _asked(name: str, description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _filter(name: str, description: str) -> dict[str, Any]:
    return _asked(name, description, {"type": "string", "pattern": FILTERS[name].pattern})


_PURPOSE = {
    **_asked(
        "purpose",
        "What the data are read for (HL7 PurposeOfUse); it stands in the audit trail: "
        + "; ".join(f"{code} {meaning}" for code, meaning in PURPOSES.items()),
        {"type": "string", "enum": list(PURPOSES)},
    ),
    "required": True,
}
_PAGE = [
    _asked("from", "At or after this time", _MOMENT),
    _asked("to", "Before this time", _MOMENT),
    _PURPOSE,
    _asked(
        "limit",
        f"Rows of a page of JSON; {USUAL_ROWS} where nothing is said",
        {"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
    ),
    _asked("cursor", "Where a page of JSON begins, as `next` of the page before says it"),
]


def _columns(route: str, name: str) -> dict[str, Any]:
    """The schema of a route's rows: every column any role sees; which ones depends on the role."""
    kinds: dict[str, Any] = {
        "prediction": {"anyOf": [reference_to("Prediction"), {"type": "null"}]},
        "features": {"type": ["array", "null"], "items": {"type": "object"}},
        "timings": {"type": ["object", "null"]},
        "details": {"type": "object"},
        "attempt": {"type": "integer"},
        "chain_sequence": {"type": ["integer", "null"]},
        "bundled": {"type": "boolean"},
    }
    columns = dict.fromkeys(c for shown in MAY_READ[route].values() for c in shown)
    return {
        "type": "object",
        "description": f"{name}; the reader's role says which members there are",
        "properties": {c: kinds.get(c, {"type": ["string", "null"]}) for c in columns},
        "additionalProperties": False,
    }


def _list(name: str, row: str, *further: str) -> dict[str, Any]:
    rows = {name: {"type": "array", "items": reference_to(row)}}
    texts = {other: {"type": "array", "items": {"type": "string"}} for other in further}
    following = {} if further else {"next": {"type": ["string", "null"], "format": "uri"}}
    properties = {**rows, **texts, **following}
    return {"type": "object", "required": list(properties), "properties": properties}


COMPONENTS: dict[str, Any] = {
    "LoggedPrediction": _columns(PREDICTIONS_ROUTE, "A prediction of the log"),
    "PredictionRecord": _columns(PREDICTION_ROUTE, "All that is on record of a prediction"),
    "AuditEntry": _columns(AUDIT_ROUTE, "Something somebody did"),
    "ModelStand": _columns(MODELS_ROUTE, "Where a version of a model stands"),
    "LoggedPredictions": _list("predictions", "LoggedPrediction"),
    "AuditEntries": _list("audit", "AuditEntry"),
    "ModelStands": _list("models", "ModelStand", "faults", "warnings"),
}


def _binary(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "description": description}}


def _route(summary: str, answer: dict[str, Any], parameters: list[Any], *more: int) -> Any:
    return {
        "summary": summary,
        "response_class": Response,
        "responses": {
            200: {"description": "What matches", "content": answer},
            **refusals(400, 401, 406, 429, 500, 503, *more),
        },
        "openapi_extra": {"parameters": parameters, "security": _READER},
    }


PREDICTIONS: dict[str, Any] = _route(
    "Read predictions",
    {
        **content_of("LoggedPredictions"),
        CSV: _binary("All that matches, a line for each risk"),
        PARQUET: _binary("All that matches, risks and features nested"),
        FHIR_BUNDLE: {"schema": {"type": "object", "description": "A Bundle of RiskAssessments"}},
        FHIR_LINES: _binary("RiskAssessments, one a line"),
    },
    [
        _filter("service", "Of this service"),
        _filter("version", "By this version of its model"),
        _filter("status", "With this status"),
        _filter("returned", "Of which this was returned"),
        _filter("mode", "Made in this mode"),
        _filter("unit", "Asked for by this unit"),
        _filter("pseudonym", "Of the patient of this pseudonym, for roles that see pseudonyms"),
        *_PAGE,
    ],
    403,
)
PREDICTION: dict[str, Any] = _route(
    "Read one prediction", content_of("PredictionRecord"), [_PURPOSE], 404
)
AUDIT: dict[str, Any] = _route(
    "Read the audit trail",
    {**content_of("AuditEntries"), CSV: _binary("All that matches")},
    [
        _filter("who", "Done by them"),
        _filter("what", "Of this kind"),
        _filter(
            "subject",
            "Done to this prediction, pseudonym, version, or digest of settings or an archive",
        ),
        *_PAGE,
    ],
    403,
)
MODELS: dict[str, Any] = _route("Where models stand", content_of("ModelStands"), [], 403)
