"""Pieces the OpenAPI document is put together of: references, contents, refusals."""

from __future__ import annotations

from typing import Any


def reference_to(name: str) -> dict[str, Any]:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def content_of(name: str) -> dict[str, Any]:
    """The content of a JSON answer of a schema."""
    return {"application/json": {"schema": reference_to(name)}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What each of these statuses means, with its OperationOutcome."""
    said = {
        400: "A field is missing or wrong; expression names it",
        401: "No caller or reader of ours",
        403: "Not offered by this installation, or none of the reader's roles may read it",
        404: "No such service or prediction, or the service is not in service here",
        406: "None of the media types asked for is made here",
        409: "The hookInstance came before with another context",
        412: "Required prefetch data are missing; expression names the key",
        408: "The body did not arrive in time, or too slowly",
        413: "The body is too large, or holds too many resources",
        415: "The body is not JSON",
        429: "More calls a minute than one caller may make",
        500: "Our fault; diagnostics holds the number it has in our log",
        503: "Not ready within the caller's deadline, or too many calls at once; or the prediction "
        "log does not answer, or which models are in service is not known. Retry-After says when "
        "to come again",
    }
    return {
        status: {"description": said[status], "content": content_of("OperationOutcome")}
        for status in statuses
    }
