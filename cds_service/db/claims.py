"""Used tokens: their SQL. Each is good for one body, across processes and restarts.

A claim is written in the transaction of what it allows, or alone; whoever comes second with another
body is refused before anything of that call is kept. Called by the log's writer.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from cds_service.db.tables import token_claims
from cds_service.errors import NotAuthenticated

_INSERT: dict[str, Any] = {
    "sqlite": sqlite.insert(token_claims).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(token_claims).on_conflict_do_nothing(),
}
_SWEEPING = "00"
"""How the digests of those claims begin that sweep: one in 256."""


class Claim(NamedTuple):
    """A proven token, and the keyed digest of the body it came with.

    After `expires_at` (UTC) no such token is let in, and the claim may go.
    """

    issuer: str
    jti: str
    body_digest: str
    expires_at: datetime

    @property
    def digest(self) -> str:
        """What tells the token from all others, of all issuers; the jti itself is not kept."""
        return hashlib.sha256(f"{self.issuer}\0{self.jti}".encode()).hexdigest()


def refused_claim(connection: Connection, claim: Claim) -> NotAuthenticated | None:
    """None where the token is now, or was before, this body's; the refusal where it is another's.

    Now and then sweeps out what has expired, so that the table holds little more than an hour.
    """
    digest = claim.digest
    row = {"claim": digest, "body_digest": claim.body_digest, "expires_at": claim.expires_at}
    if connection.execute(_INSERT[connection.dialect.name], row).rowcount:
        if digest.startswith(_SWEEPING):
            now = datetime.now(UTC)
            connection.execute(delete(token_claims).where(token_claims.c.expires_at < now))
        return None
    held = connection.execute(
        select(token_claims.c.body_digest).where(token_claims.c.claim == digest)
    ).scalar_one()
    if hmac.compare_digest(held, claim.body_digest):
        return None
    return NotAuthenticated("used for another body", issuer=claim.issuer, jti=claim.jti)
