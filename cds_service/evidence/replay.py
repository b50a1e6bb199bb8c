"""A logged prediction computed again from its log row and its package alone, and compared. Pure.

The functions are those that serve (`models/predict.py`, `cds_service/ranked_cards.py`); what they
get is what was logged, not the record, which is not kept. docs/replay.md says what equality means
and what is taken from the log as it stands. Called by `varsel replay`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cds_service import __version__
from cds_service.assess import read_pseudonymous, response_body
from cds_service.card_ids import id_beside
from cds_service.errors import LogUnavailable
from cds_service.evidence.compared import Difference, differences
from cds_service.findings import Setting
from cds_service.ranked_cards import every_card
from fhir_adapters.clock import parse_time, to_iso
from fhir_adapters.features.language import USABLE
from fhir_adapters.features.row import FeatureRow, FeatureValue
from models.package import Package
from models.predict import (
    Verdict,
    head_predictions,
    missing_features,
    ranking_predictions,
    safety_alarms,
    sufficiency,
)
from models.prediction import ModelRef, Prediction, RuleAlarm
from models.versions import libraries

Row = Mapping[str, Any]
Card = dict[str, Any]
PAYLOAD = ("features", "document", "response", "timings")
"""The columns of a payload, which hold JSON."""
_JSON = frozenset({*PAYLOAD, "reason", "accepted", "details"})
"""All columns that do, among those of what became of a prediction."""
_SECRET = frozenset({"sealed", "wrapped", "salt"})
"""What no reading of a record shows: who it is about, sealed or not, and what guards its chain."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of computing a prediction again.

    `taken`: fields of the log that cannot be computed from it and were taken as they stand.
    `zone`: the one the cards were made in now; `zone_logged`: whether the log says so, which older
    rows do not.
    """

    prediction_id: str
    model: ModelRef
    differences: list[Difference]
    taken: list[str]
    libraries_logged: str
    software_logged: str
    zone: str
    zone_logged: bool

    @property
    def equal(self) -> bool:
        """Whether everything computed is what was logged, to the last bit."""
        return not self.differences

    @property
    def largest(self) -> float | None:
        """How far apart the two most different numbers are; None where no number differs."""
        apart = [d.distance for d in self.differences if d.distance is not None]
        return max(apart, default=None)


def replay(row: Row, package: Package, zone: tzinfo) -> Replay:
    """A row of the log computed again with the package that made it, and compared field by field.

    `zone`: the installation's, for rows that do not say in which one their cards were made. Raises
    Erased where its payload was erased, LogUnavailable where that cannot be read.
    """
    try:
        logged = read_pseudonymous(row)
        values = _values(row)
    except msgspec.DecodeError:
        raise LogUnavailable("what was logged of this prediction cannot be read") from None
    zone = zone if logged.timezone is None else _zone(logged.timezone)
    bare = msgspec.structs.replace(logged, cards=[])
    again = _computed(bare, values, package)
    link = _link(logged.cards)
    made = _cards_again(logged, again.prediction, package, Setting(logged.language, zone, link))
    return Replay(
        prediction_id=row["prediction_id"],
        model=logged.model,
        differences=[
            *_of_columns(row, bare),
            *again.differences,
            *differences(msgspec.to_builtins(bare), msgspec.to_builtins(again.prediction)),
            *_of_cards(row["response"], logged.cards, made),
        ],
        taken=_taken(row, again, logged, link=link),
        libraries_logged=row["libraries"],
        software_logged=row["software_version"],
        zone=str(zone),
        zone_logged=logged.timezone is not None,
    )


def as_json(replay: Replay) -> dict[str, Any]:
    """What came of it as JSON values: the libraries and software then and now among them."""
    return {
        "prediction_id": replay.prediction_id,
        "model": replay.model,
        "equal": replay.equal,
        "differences": [difference._asdict() for difference in replay.differences],
        "largest_difference": replay.largest,
        "taken_from_log": replay.taken,
        "libraries": {"logged": replay.libraries_logged, "now": libraries()},
        "software": {"logged": replay.software_logged, "now": __version__},
        "zone": replay.zone,
        "zone_logged": replay.zone_logged,
    }


# ---- the prediction -------------------------------------------------------------------------


class _Again(NamedTuple):
    """The prediction computed again; alarms that could not be; features that do not fit."""

    prediction: Prediction
    kept_alarms: list[str]
    differences: list[Difference]


def _values(row: Row) -> dict[str, FeatureValue] | None:
    """The logged features by name; None where the model was not for the patient."""
    if row["features"] is None:
        return None
    values = msgspec.json.decode(row["features"], type=list[FeatureValue])
    return {value.name: value for value in values}


def _computed(
    logged: Prediction, values: Mapping[str, FeatureValue] | None, package: Package
) -> _Again:
    """The prediction as the package computes it from the logged features."""
    manifest = package.manifest
    prediction = msgspec.structs.replace(
        logged,
        service=package.id,
        model=ModelRef(package.id, manifest.version, package.checksum),
        synthetic=manifest.synthetic,
    )
    expected = [] if logged.status == "not-eligible" else sorted(f.name for f in manifest.features)
    found = sorted(values or ())
    if found != expected:
        return _Again(prediction, [], [Difference("features", found, expected)])
    if values is None:
        return _Again(prediction, [_place(alarm) for alarm in logged.rule_alarms], [])
    later = _was_asked_later(logged, package)
    row = FeatureRow(_moment_seen(logged, later=later), None, values, ())
    verdict = _verdict(logged, row, package, later=later)
    scored = verdict.status == "scored"
    rates = {head.head: head.hit_rate for head in logged.heads if head.hit_rate}
    alarms, kept = _alarms(logged, row, package, later=later)
    return _Again(
        msgspec.structs.replace(
            prediction,
            status=verdict.status,
            reason=verdict.reason,
            heads=head_predictions(package, row, logged.language, hit_rates=rates)
            if scored
            else [],
            rankings=ranking_predictions(package, row, logged.language) if scored else [],
            missing=missing_features(package, row, logged.language),
            rule_alarms=alarms,
        ),
        kept,
        [],
    )


def _was_asked_later(logged: Prediction, package: Package) -> bool:
    """Whether the model saw a set from before it was asked: then what was known when it was asked
    is not in the log, only what the model saw."""
    return package.manifest.index.kind == "finding" and logged.index_time != logged.as_of


def _moment_seen(logged: Prediction, *, later: bool) -> float:
    """The moment of the features the model saw, to the second."""
    return parse_time((logged.index_time if later else None) or logged.as_of)


def _verdict(logged: Prediction, row: FeatureRow, package: Package, *, later: bool) -> Verdict:
    """Whether a number may be given, as far as the features tell: that nobody is asked about, or a
    model was stopped or failed, is taken from the log."""
    if logged.status not in ("scored", "insufficient-data"):
        return Verdict(logged.status, logged.reason)
    outside = None
    if not later:  # who is in scope is decided by what was known when it was asked
        outside = package.outside_scope({name: v.value for name, v in row.values.items()})
    return Verdict("not-eligible", outside) if outside else sufficiency(package.manifest, row)


def _alarms(
    logged: Prediction, row: FeatureRow, package: Package, *, later: bool
) -> tuple[list[RuleAlarm], list[str]]:
    """The alarms that must stand by the features, and the places of those taken from the log.

    Taken are: a measurement that cannot be right, which is no feature; a rule that was met by what
    was known later than what the model saw, or by a bound ("< 88 %"), which is no value.
    """
    found = {alarm.rule: alarm for alarm in safety_alarms(package.manifest, row, logged.language)}
    of_rule = {rule.id: rule.feature for rule in package.manifest.rules}
    alarms: list[RuleAlarm] = []
    kept: list[str] = []
    for alarm in logged.rule_alarms:
        again = found.pop(alarm.rule, None) if alarm.kind == "safety" else None
        seen = row.values.get(of_rule.get(alarm.rule, ""))
        untold = alarm.kind == "implausible" or seen is None or seen.status not in USABLE
        if again == alarm:
            alarms.append(alarm)
        elif later or (untold and again is None):
            alarms.append(alarm)
            kept.append(_place(alarm))
        elif again is not None:
            alarms.append(again)
    return [*alarms, *found.values()], kept


def _place(alarm: RuleAlarm) -> str:
    return f"rule_alarms[{alarm.rule}]"


# ---- the cards ------------------------------------------------------------------------------


def _zone(name: str) -> tzinfo:
    """A logged time zone. Raises LogUnavailable where none of that name is known here."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # no name of a zone, or that of a folder
        raise LogUnavailable("the logged time zone is not known here") from None


def _link(cards: list[Card]) -> str | None:
    """The page the logged cards lead to; an address of the installation, nothing computed."""
    return next((str(card["links"][0]["url"]) for card in cards if card.get("links")), None)


def _cards_again(
    logged: Prediction, again: Prediction, package: Package, setting: Setting
) -> list[list[Card]]:
    """What may have been returned: all cards, or the alarms alone, the first most likely.

    The log says why nothing was returned; where alarms were, it does not say whether the rest was
    left out as shown before. What ran beside another version returned nothing.
    """
    if logged.returned == "shadow":
        return [[]]
    every, alarms = (
        every_card(package.manifest, again, setting, alarms_only=alone) for alone in (False, True)
    )
    if logged.returned in ("shown-before", "insufficient-silent"):
        return [alarms]
    return [every, alarms] if logged.rule_alarms else [every]


def _of_cards(response: str, logged: list[Card], made: list[list[Card]]) -> list[Difference]:
    """How the response differs from the one that comes nearest; nothing where its text is one."""
    if any(response_body(cards) == response for cards in made):
        return []
    nearest = min((list(differences(logged, cards, "cards")) for cards in made), key=len)
    return nearest or [Difference("response", response, response_body(made[0]))]


# ---- what else the log holds ----------------------------------------------------------------


def _taken(row: Row, again: _Again, logged: Prediction, *, link: str | None) -> list[str]:
    """What cannot be computed from the log and was taken as it stands, where there is any."""
    not_computed = logged.status in ("not-eligible", "refused")
    rates = [f"heads[{head.head}].hit_rate" for head in logged.heads if head.hit_rate]
    shown_as = logged.prediction_id
    return [
        *([f"prediction_id: shown as {shown_as}"] if _stands_beside(row, shown_as) else []),
        *(["status"] if not_computed else []),
        *(["standing"] if logged.standing else []),
        *(["reference_scores"] if logged.reference_scores else []),
        *(["troubles"] if logged.troubles else []),
        *rates,
        *again.kept_alarms,
        *(["cards.links"] if link else []),
    ]


def _stands_beside(row: Row, shown_as: str) -> bool:
    """Whether the row is of an answer shown under the id of another one to the same call: its id
    follows from that and from its response."""
    return bool(row["prediction_id"] == id_beside(shown_as, row["response"]))


def _of_columns(row: Row, p: Prediction) -> list[Difference]:
    """Where the columns do not say what the document says they stand beside."""
    said = {
        "prediction_id": row["prediction_id"]
        if _stands_beside(row, p.prediction_id)
        else p.prediction_id,
        "service": p.service,
        "model_id": p.model.id,
        "model_version": p.model.version,
        "package_checksum": p.model.checksum,
        "mode": p.mode,
        "language": p.language,
        "as_of": p.as_of,
        "index_time": p.index_time,
        "computed_at": p.computed_at,
        "status": p.status,
        "reason": (p.reason or "")[:256] or None,
        "returned": p.returned,
    }
    return list(differences({name: _instant(row[name]) for name in said}, said, "columns"))


def _instant(value: Any) -> Any:
    """A time as an ISO instant (SQLite gives UTC without saying so); anything else as it is."""
    if not isinstance(value, datetime):
        return value
    return to_iso((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def whole_record(row: Row, became: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The whole of a row for who checks it, as JSON values: columns, and the payload decoded; and
    what became of it, as `what_became_of` gives it.

    Who it is about is not in it: of the vault's entry it says that there is one, and under which
    keys. Digests and links of the chain are hexadecimal. A payload that was erased is null.
    """
    record = {name: _readable(row[name]) for name in row if name not in {*_SECRET, *PAYLOAD}}
    payload = {name: _decoded(row[name]) for name in PAYLOAD}
    later = {table: [_entry(one) for one in rows] for table, rows in became.items()}
    return record | payload | {"identity_sealed": row["sealed"] is not None} | later


def _entry(row: Row) -> dict[str, Any]:
    return {n: _decoded(v) if n in _JSON else _readable(v) for n, v in row.items()}


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return _instant(value) if isinstance(value, datetime) else value


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
