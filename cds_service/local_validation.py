"""What the report of a local validation says of a version's cards, and when it may be believed.

Lives here: reading `report.json` of `varsel validate`, and the reasons to refuse it. Does not live
here: making the report (`validation/`, whose libraries a serving installation need not have) and
storing what was found (`cds_service/db/governance.py`). Called by `varsel models validated`. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cds_service.errors import BadRequest
from cds_service.governance import Validated, Version
from models.manifest import Head

Share = Annotated[float, Meta(ge=0, le=1)]
Moment = Annotated[datetime, Meta(tz=True)]
SAME = 1e-9
"""How far a share may lie from its counts: both come from one division."""


class _Model(msgspec.Struct, frozen=True):
    id: str
    version: str
    checksum: str


class _Head(msgspec.Struct, frozen=True):
    id: str
    threshold: float


class _Report(msgspec.Struct, frozen=True):
    """What is read of a report; the rest of it is not needed here."""

    schema_version: Literal[1]
    model: _Model
    head: _Head
    synthetic_data: bool
    first_index_time: Moment
    last_index_time: Moment
    statistics: list[dict[str, Any]]


class _Ppv(msgspec.Struct, frozen=True):
    """The positive predictive value at a threshold; `n` predictions were at or above it."""

    value: Share
    low: Share
    high: Share
    n: Annotated[int, Meta(ge=1)]
    events: Annotated[int, Meta(ge=0)]


def found_by(
    report: bytes,
    version: Version,
    heads: Sequence[Head],
    *,
    takes_synthetic: bool,
    who: str,
    at: datetime,
) -> Validated:
    """What a report found of the cards of a version. `heads`: those of the version's manifest.

    Raises BadRequest, which names the field of the report, where it is damaged, of other files or
    another threshold, of invented patients where `takes_synthetic` is not set, or where its hit
    rate is hidden for small counts or cannot be estimated.
    """
    said = _read(report)
    _require_same(said, version, heads)
    if said.synthetic_data and not takes_synthetic:
        raise _refused("synthetic_data", "invented patients say nothing of the patients here")
    if said.first_index_time > said.last_index_time:
        raise _refused("last_index_time", "lies before first_index_time")
    ppv = _ppv_at(said.head.threshold, said.statistics)
    return Validated(
        *version[:3],
        head=said.head.id,
        threshold=said.head.threshold,
        ppv=ppv.value,
        low=ppv.low,
        high=ppv.high,
        flagged=ppv.n,
        events=ppv.events,
        first_index_time=said.first_index_time,
        last_index_time=said.last_index_time,
        synthetic=said.synthetic_data,
        report_digest=hashlib.sha256(report).hexdigest(),
        who=who,
        at=at,
    )


def _refused(field: str, why: str) -> BadRequest:
    return BadRequest(f"{field}: {why}", field="--report")


def _read(report: bytes) -> _Report:
    try:
        return msgspec.json.decode(report, type=_Report)
    except msgspec.DecodeError as error:
        raise BadRequest(f"not a whole report of varsel validate: {error}", "--report") from None


def _require_same(said: _Report, version: Version, heads: Sequence[Head]) -> None:
    """Raise BadRequest where a report is not of this version's files, or of no head of it."""
    model, thresholds = said.model, {head.id: head.threshold for head in heads}
    if (model.id, model.version) != version[:2]:
        raise _refused("model", f"it is of {model.id}@{model.version}, not of {version}")
    if model.checksum != version.checksum:
        raise _refused("model.checksum", f"it is of other files than {version} has here now")
    if said.head.id not in thresholds:
        raise _refused("head.id", f"{version} has {', '.join(thresholds)}")
    if said.head.threshold != thresholds[said.head.id]:
        now = thresholds[said.head.id]
        raise _refused("head.threshold", f"{said.head.threshold:g}; a card is shown from {now:g}")


def _ppv_at(threshold: float, statistics: Sequence[dict[str, Any]]) -> _Ppv:
    """The hit rate at a threshold. BadRequest where it is not there, hidden, or does not add up."""
    name = f"ppv_at_{threshold:g}"
    found = [one for one in statistics if one.get("name") == name]
    if len(found) != 1:
        raise _refused(f"statistics.{name}", f"is there {len(found)} times")
    if found[0].get("value") is None:
        raise _refused(f"statistics.{name}", str(found[0].get("method", "has no value")))
    try:
        ppv = msgspec.convert(found[0], _Ppv)
    except msgspec.ValidationError as error:
        raise _refused(f"statistics.{name}", str(error)) from None
    if not math.isclose(ppv.value * ppv.n, ppv.events, abs_tol=SAME * ppv.n):
        raise _refused(f"statistics.{name}.value", "is not events over n")
    if not ppv.low <= ppv.value <= ppv.high:
        raise _refused(f"statistics.{name}.value", "lies outside its interval")
    return ppv
