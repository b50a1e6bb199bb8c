"""What routes share: the service they run in, and the language the caller asks for."""

from __future__ import annotations

import re
from typing import cast

from fastapi import Request

from cds_service.service import Service


def service_of(request: Request) -> Service:
    """The service of the application that answers the request.

    Called by the routes themselves: as a dependency it would cost a hook call 1 % of its time.
    """
    return cast("Service", request.app.state.service)


_LONGEST_HEADER = 200
# RFC 9110 12.5.4: a language range, and a weight from 0 to 1 with at most three decimals
_RANGE = re.compile(
    r"\s*([a-z]{1,8})(?:-[a-z0-9-]*)?\s*"
    r"(?:;\s*q=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?\s*",
    re.IGNORECASE,
)


def language_of(request: Request, default: str) -> str:
    """Danish or English: the first of the two in Accept-Language, by weight; else the default."""
    header = request.headers.get("accept-language")
    if not header:
        return default
    found = [_RANGE.fullmatch(part) for part in header[:_LONGEST_HEADER].split(",")]
    weighed = [(float(m.group(2) or 1), m.group(1).lower()) for m in found if m]
    spoken = [(weight, tag) for weight, tag in weighed if tag in ("da", "en") and weight > 0]
    return max(spoken, key=lambda pair: pair[0])[1] if spoken else default
