"""Whether the predictions of a patient may be read: the SQL of restrictions (GDPR art. 18).

The newest decision about a patient holds. Asked wherever predictions are handed out; subject access
and erasure go past it, because they serve the patient's own rights.
"""

from __future__ import annotations

from sqlalchemy import and_, exists, func, select

from cds_service.db.tables import erasures, predictions

RESTRICTED = "restricted"

_newest = (
    select(erasures.c.decision)
    .where(
        erasures.c.organisation == predictions.c.organisation,
        erasures.c.patient_pseudonym == predictions.c.patient_pseudonym,
    )
    .order_by(erasures.c.at.desc())
    .limit(1)
    .correlate(predictions)
    .scalar_subquery()
)
IS_RESTRICTED = func.coalesce(_newest, "") == RESTRICTED
"""Of a row of `predictions` in a query: whether nobody may read it now."""
_newer = erasures.alias()
STANDS = and_(
    erasures.c.decision == RESTRICTED,
    ~exists().where(
        _newer.c.organisation == erasures.c.organisation,
        _newer.c.patient_pseudonym == erasures.c.patient_pseudonym,
        _newer.c.at > erasures.c.at,
    ),
)
"""Of a row of `erasures` in a query: whether it is a restriction that no other decision ended."""
