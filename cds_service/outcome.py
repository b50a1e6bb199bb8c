"""OperationOutcome: how every refusal and every fault of ours is said."""

from __future__ import annotations

from typing import Any


def operation_outcome(
    code: str, diagnostics: str, field: str | None = None, severity: str = "error"
) -> dict[str, Any]:
    """An OperationOutcome with one issue; `field` becomes its expression."""
    issue: dict[str, Any] = {"severity": severity, "code": code, "diagnostics": diagnostics}
    if field:
        issue["expression"] = [field]
    return {"resourceType": "OperationOutcome", "issue": [issue]}
