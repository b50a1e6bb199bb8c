"""What the OpenAPI document says of each route: schemas from the structs themselves, examples.

The hook routes read raw bytes, so their schemas are given here, made by msgspec from the structs
that do the work. `openapi/` holds the committed document; a test fails when it is stale. Of the
governance API: `docs_api.py`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import msgspec
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html

from cds_service import docs_api
from cds_service.contexts import RULES
from cds_service.docs_parts import content_of, refusals
from cds_service.feedback import EPIC_REASON, MOST_ITEMS, MOST_SUGGESTIONS, OUTCOMES
from cds_service.protocol import LONGEST_TOKEN, LONGEST_URL
from models.prediction import Prediction

_PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "example",
    "gender": "female",
    "birthDate": "1948-03-14",
}
HOOK_EXAMPLE: dict[str, Any] = {
    "hook": "encounter-discharge",
    "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
    "fhirServer": "https://ehr.example/fhir",
    "context": {
        "userId": "Practitioner/example",
        "patientId": "example",
        "encounterId": "stay",
    },
    "prefetch": {
        "patient": _PATIENT,
        "encounters": {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": 1,
            "entry": [
                {
                    "resource": {
                        "resourceType": "Encounter",
                        "id": "stay",
                        "status": "in-progress",
                        "class": {
                            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
                            "code": "IMP",
                        },
                        "priority": {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/v3-ActPriority",
                                    "code": "EM",
                                }
                            ]
                        },
                        "subject": {"reference": "Patient/example"},
                        "period": {"start": "2026-11-17T08:12:00+01:00"},
                    }
                }
            ],
        },
        "conditions": None,
    },
}
CARDS_EXAMPLE: dict[str, Any] = {
    "cards": [
        {
            "uuid": "b2a1f5a0-41f1-5c3c-9d65-0d6f3a1c6e2b",
            "summary": "Akut genindlæggelse er ikke beregnet. Der mangler: medicinliste",
            "indicator": "info",
            "detail": "For få oplysninger til en sikker beregning, derfor vises intet tal.",
            "source": {"label": "Varsel · readmission-30d 1.0.0"},
            "overrideReasons": [
                {
                    "code": "other",
                    "system": "https://varsel.dk/fhir/CodeSystem/override-reason",
                    "display": "Andet",
                }
            ],
        }
    ]
}

FEEDBACK_EXAMPLE: dict[str, Any] = {
    "feedback": [
        {
            "card": "b2a1f5a0-41f1-8c3c-9d65-0d6f3a1c6e2c",
            "outcome": "overridden",
            "overrideReason": {
                "reason": {
                    "code": "other",
                    "system": "https://varsel.dk/fhir/CodeSystem/override-reason",
                }
            },
            "outcomeTimestamp": "2026-11-21T12:03:27Z",
        },
        {
            "card": "b2a1f5a0-41f1-8c3c-9d65-0d6f3a1c6e2d",
            "outcome": "accepted",
            "acceptedSuggestions": [{"id": "e56e1945-20b3-4393-8503-a1a20fd73152"}],
            "outcomeTimestamp": "2026-11-21T12:04:02.5Z",
        },
    ]
}

_ID = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
_TEXT = {"type": "string", "minLength": 1}
_CODING = {
    "type": "object",
    "required": ["code", "system", "display"],
    "properties": {"code": _TEXT, "system": _TEXT, "display": _TEXT},
}
_CARD_ID = {"type": "string", "pattern": "^[!-~]{1,64}$"}
_OR_NULL = {"type": ["string", "null"], "maxLength": 512}


def _overridden(description: str) -> dict[str, Any]:
    """Why a card was set aside, under either of its two names."""
    return {
        "type": ["object", "null"],
        "description": description,
        "properties": {
            "reason": {
                "type": ["object", "null"],
                "required": ["code", "system"],
                "properties": {
                    "code": {"type": "string", "minLength": 1, "maxLength": 256},
                    "system": {"type": "string", "minLength": 1, "maxLength": 256},
                    "display": _OR_NULL,
                },
            },
            "extension": {
                "type": ["object", "null"],
                "description": "Epic: a reason picked from the site's own list",
                "properties": {
                    f"{EPIC_REASON}Category": {
                        "type": ["string", "integer", "null"],
                        "minLength": 1,
                        "maxLength": 256,
                    },
                    f"{EPIC_REASON}Title": _OR_NULL,
                    f"{EPIC_REASON}Display": _OR_NULL,
                },
            },
            "userComment": {"description": "Not read and not kept"},
        },
    }


COMPONENTS: dict[str, Any] = {
    "HookRequest": {
        "type": "object",
        "description": "A CDS Hooks 2.0.1 request. Unknown members are ignored.",
        "required": ["hook", "hookInstance", "context"],
        "properties": {
            "hook": {
                "type": "string",
                "enum": sorted(RULES),
                "description": "One of those the service is listed for in discovery",
            },
            "hookInstance": {"type": "string", "format": "uuid"},
            "fhirServer": {
                "type": ["string", "null"],
                "pattern": "^https?://[!-~]+$",
                "maxLength": LONGEST_URL,
            },
            "context": {
                "type": "object",
                "description": "The fields of the hook's definition: encounter-start and "
                "encounter-discharge require encounterId, order-sign and order-select draftOrders "
                "(a Bundle), order-select selections, appointment-book appointments (a Bundle). "
                "Patient and RelatedPerson are users of patient-view and appointment-book only.",
                "required": ["userId", "patientId"],
                "properties": {
                    "userId": {
                        "type": "string",
                        "pattern": "^(Practitioner|PractitionerRole|Patient|RelatedPerson)/"
                        r"[A-Za-z0-9\-.]{1,64}$",
                    },
                    "patientId": _ID,
                    "encounterId": {**_ID, "type": ["string", "null"]},
                },
            },
            "fhirAuthorization": {
                "type": ["object", "null"],
                "description": "Requires fhirServer; patient must be that of the context",
                "required": ["access_token", "token_type"],
                "properties": {
                    "access_token": {
                        "type": "string",
                        "pattern": "^[!-~]+$",
                        "maxLength": LONGEST_TOKEN,
                    },
                    "token_type": {"type": "string", "pattern": "^[Bb][Ee][Aa][Rr][Ee][Rr]$"},
                    "expires_in": {"type": ["integer", "null"]},
                    "scope": {"type": ["string", "null"]},
                    "subject": {"type": ["string", "null"]},
                    "patient": {"type": ["string", "null"]},
                },
            },
            "prefetch": {
                "type": ["object", "null"],
                "description": "Key to resource, Bundle, null (asked, none) or OperationOutcome. "
                "What is none of these is reported and costs nothing but itself, unless required.",
                "additionalProperties": True,
            },
            "extension": {"type": ["object", "null"]},
        },
        "example": HOOK_EXAMPLE,
    },
    "Card": {
        "type": "object",
        "required": ["uuid", "summary", "indicator", "source"],
        "properties": {
            "uuid": {"type": "string", "format": "uuid"},
            "summary": {"type": "string", "minLength": 1, "maxLength": 139},
            "detail": _TEXT,
            "indicator": {"type": "string", "enum": ["info", "warning", "critical"]},
            "source": {
                "type": "object",
                "required": ["label"],
                "properties": {"label": _TEXT, "topic": _CODING},
            },
            "overrideReasons": {"type": "array", "minItems": 1, "items": _CODING},
            "links": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["label", "url", "type"],
                    "properties": {
                        "label": _TEXT,
                        "url": {"type": "string", "format": "uri"},
                        "type": {"type": "string", "enum": ["absolute", "smart"]},
                    },
                },
            },
        },
    },
    "Cards": {
        "type": "object",
        "required": ["cards"],
        "properties": {"cards": {"type": "array", "items": {"$ref": "#/components/schemas/Card"}}},
        "example": CARDS_EXAMPLE,
    },
    "Feedback": {
        "type": "object",
        "description": "What users did with cards. Unknown members are ignored.",
        "required": ["feedback"],
        "properties": {
            "feedback": {
                "type": "array",
                "maxItems": MOST_ITEMS,
                "items": {
                    "type": "object",
                    "required": ["card", "outcome", "outcomeTimestamp"],
                    "properties": {
                        "card": {**_CARD_ID, "description": "The card's uuid"},
                        "outcome": {"type": "string", "enum": list(OUTCOMES)},
                        "outcomeTimestamp": {"type": "string", "format": "date-time"},
                        "acceptedSuggestions": {
                            "type": ["array", "null"],
                            "maxItems": MOST_SUGGESTIONS,
                            "description": "Required of what was accepted",
                            "items": {
                                "type": "object",
                                "required": ["id"],
                                "properties": {"id": _CARD_ID},
                            },
                        },
                        "overrideReason": _overridden("Why the card was set aside"),
                        "overrideReasons": _overridden("The same under Epic's name"),
                    },
                    "if": {
                        "required": ["outcome"],
                        "properties": {"outcome": {"const": "accepted"}},
                    },
                    "then": {
                        "required": ["acceptedSuggestions"],
                        "properties": {"acceptedSuggestions": {"type": "array", "minItems": 1}},
                    },
                },
            }
        },
        "example": FEEDBACK_EXAMPLE,
    },
    "Services": {
        "type": "object",
        "required": ["services"],
        "properties": {
            "services": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["hook", "id", "title", "description"],
                    "properties": {
                        "hook": _TEXT,
                        "id": _TEXT,
                        "title": _TEXT,
                        "description": _TEXT,
                        "version": _TEXT,
                        "prefetch": {"type": "object", "additionalProperties": _TEXT},
                    },
                },
            }
        },
        "example": {
            "services": [
                {
                    "hook": "encounter-discharge",
                    "id": "readmission-30d",
                    "title": "Acute readmission",
                    "description": "Estimates the risk of acute readmission within 30 days.",
                    "prefetch": {"patient": "Patient/{{context.patientId}}"},
                }
            ]
        },
    },
    "OperationOutcome": {
        "type": "object",
        "required": ["resourceType", "issue"],
        "properties": {
            "resourceType": {"const": "OperationOutcome"},
            "issue": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["severity", "code", "diagnostics"],
                    "properties": {
                        "severity": {"type": "string", "enum": ["fatal", "error"]},
                        "code": _TEXT,
                        "diagnostics": _TEXT,
                        "expression": {"type": "array", "items": _TEXT},
                    },
                },
            },
        },
        "example": {
            "resourceType": "OperationOutcome",
            "issue": [
                {
                    "severity": "error",
                    "code": "required",
                    "diagnostics": "prefetch key 'encounters' is required: not asked",
                    "expression": ["prefetch.encounters"],
                }
            ],
        },
    },
    "Readiness": {
        "type": "object",
        "required": ["status", "models", "states"],
        "properties": {
            "status": {"type": "string", "enum": ["ready", "degraded", "not-ready"]},
            "models": {
                "type": "object",
                "description": "The version that answers for each service offered",
                "additionalProperties": {"type": "string"},
            },
            "states": {
                "type": "object",
                "description": "The state of each version that is here, by ID@VERSION",
                "additionalProperties": {
                    "type": "string",
                    "enum": ["candidate", "silent", "live", "paused", "retired"],
                },
            },
            "reasons": {"type": "array", "items": _TEXT},
            "warnings": {"type": "array", "items": _TEXT},
        },
    },
}


_LANGUAGE = {
    "name": "Accept-Language",
    "in": "header",
    "description": "Danish or English, by weight; the site's language where neither is named",
    "schema": {"type": "string"},
    "example": "en, da;q=0.8",
}
_CALLER: list[dict[str, list[str]]] = [{"caller": []}]  # the demo profile asks for no token

DISCOVERY: dict[str, Any] = {
    "summary": "Discovery",
    "response_class": Response,
    "responses": {
        200: {"description": "The services offered", "content": content_of("Services")},
        **refusals(401, 503),
    },
    "openapi_extra": {"parameters": [_LANGUAGE], "security": _CALLER},
}
HOOK: dict[str, Any] = {
    "summary": "Call a service",
    "response_class": Response,
    "responses": {
        200: {
            "description": "Cards, none where nothing is to be said",
            "content": content_of("Cards"),
        },
        **refusals(400, 401, 404, 408, 409, 412, 413, 415, 429, 500, 503),
    },
    "openapi_extra": {
        "parameters": [_LANGUAGE],
        "requestBody": {"required": True, "content": content_of("HookRequest")},
        "security": _CALLER,
    },
}
FEEDBACK: dict[str, Any] = {
    "summary": "Report what became of cards",
    "response_class": Response,
    "responses": {
        200: {
            "description": "Kept, whether or not the cards are known here",
            "content": {"application/json": {"schema": {"type": "object", "maxProperties": 0}}},
        },
        **refusals(400, 401, 404, 408, 413, 415, 429, 500, 503),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": content_of("Feedback")},
        "security": _CALLER,
    },
}
PAGE: dict[str, Any] = {
    "summary": "Explanation page",
    "response_class": Response,
    "responses": {
        200: {"description": "The page", "content": {"text/html": {"schema": {"type": "string"}}}},
        **refusals(400, 403, 404, 500, 503),
    },
}
PAGE_DATA: dict[str, Any] = {
    "summary": "Explanation data",
    "response_class": Response,
    "responses": {
        200: {"description": "The prediction", "content": content_of("Prediction")},
        **refusals(400, 403, 404, 500, 503),
    },
}
READINESS: dict[str, Any] = {
    "summary": "Readiness",
    "response_class": Response,
    "responses": {
        200: {
            "description": "Ready; or degraded: cards are shown, predictions wait in the spool for "
            "the database",
            "content": content_of("Readiness"),
        },
        503: {"description": "Not ready, and why", "content": content_of("Readiness")},
    },
}


def json_response(content: Any, status: int = 200) -> Response:
    """A JSON answer, encoded by msgspec."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def documentation_page() -> Response:
    """The API documentation, from local files; its policy lets it load and send nothing else."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Varsel API",
        swagger_js_url="/static/swagger-ui-bundle.js",
        swagger_css_url="/static/swagger-ui.css",
        swagger_favicon_url="/static/favicon.svg",
        swagger_ui_parameters={"validatorUrl": None},
    )
    inline = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in inline]
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    return page


def prediction_schema() -> dict[str, Any]:
    """The JSON Schema of a prediction, self-contained (`openapi/prediction.schema.json`)."""
    schema = msgspec.json.schema(Prediction)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, with the schemas of the raw routes."""
    document: dict[str, Any] = FastAPI.openapi(app)
    (_,), structs = msgspec.json.schema_components(
        [Prediction], ref_template="#/components/schemas/{name}"
    )
    schemas = {**COMPONENTS, **docs_api.COMPONENTS, **structs}
    components = document.setdefault("components", {})
    components["schemas"] = dict(sorted(schemas.items()))
    components["securitySchemes"] = {
        "caller": {
            "type": "http",
            "scheme": "bearer",
            "description": "The token of a caller on the allow-list; none in the demo profile",
        },
        "reader": docs_api.SECURITY_SCHEME,
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    return document
