"""OperationOutcome: how every refusal and every fault of ours is said."""

from __future__ import annotations

from typing import Any

from cds_service.wording import printable


def operation_outcome(
    code: str, diagnostics: str, field: str | None = None, severity: str = "error"
) -> dict[str, Any]:
    """An OperationOutcome with one issue; `field` becomes its expression.

    Neither holds a character that a terminal or a text field would obey.
    """
    issue: dict[str, Any] = {
        "severity": severity,
        "code": code,
        "diagnostics": printable(diagnostics),
    }
    if field:
        issue["expression"] = [printable(field)]
    return {"resourceType": "OperationOutcome", "issue": [issue]}
