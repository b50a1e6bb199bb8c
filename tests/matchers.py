"""What every answer of the service must be, whoever asked: checked card by card.

Shared by the recorded requests, the second client and the fuzz; raises AssertionError with what is
wrong, since callers outside pytest use it too.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

from httpx2 import Response

INDICATORS = frozenset({"info", "warning", "critical"})
EXPECTED_REFUSALS = frozenset({400, 409, 412, 413, 415})
"""What a caller's own input may be answered; 401, 408, 429 and 503 are about something else."""


def check_response(answer: Response) -> list[dict[str, Any]]:
    """The cards of a 200; fails where it is none, or not valid by CDS Hooks 2.0.1."""
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text[:300]}"
    body = answer.json()
    assert set(body) == {"cards"}, sorted(body)
    assert list(empty_members(body)) == []
    cards: list[dict[str, Any]] = body["cards"]
    for card in cards:
        check_card(card)
    assert len({card["uuid"] for card in cards}) == len(cards)
    return cards


def check_card(card: dict[str, Any]) -> None:
    """Fails where a card is not valid by CDS Hooks 2.0.1, or not what Epic shows."""
    assert str(uuid.UUID(card["uuid"])) == card["uuid"]
    assert 0 < len(card["summary"]) < 140
    assert card["summary"].isprintable()
    assert card["indicator"] in INDICATORS
    assert card["source"]["label"]
    assert re.fullmatch(r"[A-Za-z0-9]{1,100}", card["source"]["topic"]["code"])
    assert all(c == "\n" or c.isprintable() for c in card["detail"])
    for reason in card.get("overrideReasons", ()):
        assert set(reason) == {"code", "system", "display"}
    for link in card.get("links", ()):
        assert {"label", "url", "type"} <= set(link)


def empty_members(value: Any, path: str = "$") -> Iterator[str]:
    """The paths of nulls and of empty strings, arrays and objects, `cards: []` apart."""
    if (value is None or value in ("", [], {})) and path != "$.cards":
        yield path
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from empty_members(part, f"{path}.{key}")
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from empty_members(part, f"{path}[{place}]")


def refused_field(answer: Response) -> str:
    """The field a refusal names; fails where it is not a 4xx of the caller's own making, with an
    OperationOutcome that names one."""
    assert answer.status_code in EXPECTED_REFUSALS, f"{answer.status_code}: {answer.text[:300]}"
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    (issue,) = outcome["issue"]
    assert issue["severity"] in {"error", "fatal"}
    assert issue["diagnostics"]
    (field,) = issue["expression"]
    assert isinstance(field, str)
    assert field
    return field
