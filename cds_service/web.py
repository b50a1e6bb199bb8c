"""What routes share: the service they run in, the language asked for, the Bundle of errors."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from cds_service.service import Service


def service_of(request: Request) -> Service:
    """The service of the application that answers the request."""
    return cast("Service", request.app.state.service)


def language_of(request: Request, default: str) -> str:
    """Danish or English: the first of the two in Accept-Language, by weight; else the default."""
    header = request.headers.get("accept-language")
    if not header:
        return default
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(header[:200].split(",")):
        tag, _, weight = part.strip().partition(";q=")
        ranked.append((-_weight(weight), place, tag.strip().lower()[:2]))
    spoken = [tag for q, _, tag in sorted(ranked) if tag in ("da", "en") and q < 0]
    return spoken[0] if spoken else default


def _weight(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0
