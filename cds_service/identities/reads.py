"""Who read the predictions of one patient: also those who read many at once. Pure.

A read of one prediction names it. A list or an export is on record with what it asked for, when,
and between which rows a page lay; predictions are only ever added, so whether one of the patient's
was among them follows from that. Called by `varsel privacy access` and `reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from cds_service.db.restriction import RESTRICTED
from cds_service.db.search import COLUMN_OF, Place, utc
from cds_service.errors import LogUnavailable
from fhir_adapters.clock import parse_time

Row = Mapping[str, Any]
Test = Callable[[Row], bool]
"""Whether a prediction, by its row, was among what was read."""


class Read(NamedTuple):
    """One entry of the audit trail about reading, and which of the patient's predictions it covers.

    `left_out`: reading was restricted then, so that the list or export was made without these.
    """

    entry: Row
    predictions: list[str]
    left_out: bool = False


class _Details(msgspec.Struct):
    """What an entry about reading many says of what was read."""

    filters: dict[str, str | None] = {}
    rows: int | None = None
    between: tuple[Place, Place] | None = None
    command: str | None = None
    model: str | None = None
    version: str | None = None
    since: str | None = None


_DETAILS = msgspec.json.Decoder(_Details)


class Patient(NamedTuple):
    """What is known of a patient to tell which reads were of them: the rows of their predictions,
    by pseudonym the id of the key that made it, and what was decided about them, oldest first.
    """

    predictions: Sequence[Row]
    pseudonyms: Mapping[str, str]
    decisions: Sequence[Row]


def reads_of_one(entries: Iterable[Row]) -> Iterator[Read]:
    """The reads of single predictions, by the entries about these."""
    return (Read(one, [one["subject"]]) for one in entries)


def reads_of_many(entries: Iterable[Row], patient: Patient) -> Iterator[Read]:
    """The lists and exports that cover predictions of a patient, in the order of the entries.

    Raises LogUnavailable where an entry cannot be read.
    """
    for entry in entries:
        tests = _tests(entry, patient.pseudonyms)
        covered = [row for row in patient.predictions if all(test(row) for test in tests)]
        if covered:
            seen = [row for row in covered if not _is_left_out(row, entry, patient.decisions)]
            told = [str(row["prediction_id"]) for row in seen or covered]
            yield Read(entry, told, left_out=not seen)


def _is_left_out(row: Row, entry: Row, decisions: Sequence[Row]) -> bool:
    """Whether a read was made without a prediction, because the newest decision at that moment was
    that nobody may read it. What a withdrawn version has shown is listed all the same.
    """
    if _DETAILS.decode(entry["details"]).command == "models withdraw":
        return False
    moment, pseudonym = utc(entry["at"]), row["patient_pseudonym"]
    until = [
        one["decision"]
        for one in decisions
        if one["patient_pseudonym"] == pseudonym and utc(one["at"]) <= moment
    ]
    return until[-1:] == [RESTRICTED]


def in_words(read: Read) -> str:
    """One line: when, who, in which role, what, why, of how many predictions."""
    entry, n = read.entry, len(read.predictions)
    said = f"{entry['who']} ({entry['role']}), {entry['what']}: {entry['why']}"
    what = "left out, because reading was restricted" if read.left_out else f"{n} predictions"
    return f"{_when(entry)}: {said} [{what}]"


def as_json(read: Read) -> dict[str, Any]:
    """A read as JSON values, with what the entry says of it but `between`, a page's first and last
    row, which may be of other patients; the audit trail keeps it.
    """
    entry = read.entry
    details = msgspec.json.decode(entry["details"])
    told = {name: entry[name] for name in ("who", "role", "what", "why")}
    return {
        "at": _when(entry),
        **told,
        "details": {name: value for name, value in details.items() if name != "between"},
        "predictions": read.predictions,
        "left_out": read.left_out,
    }


def _when(entry: Row) -> str:
    return f"{utc(entry['at']).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


# ---- what was read --------------------------------------------------------------------------


def _tests(entry: Row, pseudonyms: Mapping[str, str]) -> list[Test]:
    """What a prediction had to be like to be among what was read."""
    try:
        details = _DETAILS.decode(entry["details"])
        asked = _ASKED[entry["what"], details.command](entry, details)
    except (msgspec.MsgspecError, ValueError, KeyError):
        fault = f"the audit entry {entry['id']} does not say what was read in a way known here"
        raise LogUnavailable(fault) from None
    subject = entry["subject"]
    about = [] if subject is None else [_asks_for(subject, pseudonyms)]
    return [_before(utc(entry["at"]), inclusive=True), *about, *asked]


def _asks_for(pseudonym: str, pseudonyms: Mapping[str, str]) -> Test:
    """Of this pseudonym; of an older key's, where the row has got another one since."""
    key = pseudonyms.get(pseudonym)

    def test(row: Row) -> bool:
        changed_since = key is not None and key != row["pseudonym_key"]
        return changed_since or bool(row["patient_pseudonym"] == pseudonym)

    return test


def _listed(_: Row, details: _Details) -> list[Test]:
    """A page, or a stream, of `/api/v1/predictions`."""
    if details.rows == 0:
        return [lambda row: False]  # noqa: ARG005 - a test of a row
    said = {name: value for name, value in details.filters.items() if value is not None}
    tests = [_is(column, said[name]) for name, column in COLUMN_OF.items() if name in said]
    if details.between is not None:
        tests.append(_lies(*details.between))
    return [*tests, *_in_time(said)]


def _exported(entry: Row, details: _Details) -> list[Test]:
    """What `varsel export` made a table of; anonymous and synthetic ones of scored rows alone."""
    said = {name: value for name, value in details.filters.items() if value is not None}
    model = [_is("model_id", said["model"])] if "model" in said else []
    scored = [] if entry["what"] == "export" else [_is("status", "scored")]
    return [*model, *scored, *_in_time(said)]


def _drifted(_: Row, details: _Details) -> list[Test]:
    """What `varsel drift --since` computed of; entries of earlier software name no version."""
    since = datetime.fromtimestamp(parse_time(str(details.since)), UTC)
    version = [_is("model_version", details.version)] if details.version else []
    scored = [_is("model_id", str(details.model)), _is("status", "scored")]
    return [*scored, *version, lambda row: utc(row["as_of"]) >= since]


def _withdrawn(_: Row, details: _Details) -> list[Test]:
    """What `varsel models withdraw` lists: the cards of a version that were shown."""
    model, version = str(details.model).rsplit("@", 1)
    which = [_is("model_id", model), _is("model_version", version), _is("returned", "card")]
    return [*which, lambda row: row["status"] != "refused"]


_ASKED: Mapping[tuple[str, str | None], Callable[[Row, _Details], list[Test]]] = {
    ("read predictions", None): _listed,
    ("export predictions", None): _listed,
    ("read predictions", "drift"): _drifted,
    ("read predictions", "models withdraw"): _withdrawn,
    ("export", None): _exported,
    ("export anonymised", None): _exported,
    ("export synthetic", None): _exported,
}
"""By what and the command among the details. Whatever comes to read many predictions stands here
too: an entry that is not known ends the question, because nobody is to be told too little."""
OF_MANY = frozenset(what for what, _ in _ASKED)
"""What the audit trail calls reads of many predictions at once."""


def _is(column: str, value: str) -> Test:
    return lambda row: bool(row[column] == value)


def _in_time(said: Mapping[str, str]) -> list[Test]:
    """Computed from a time on, and before another, as far as that was asked for."""
    tests: list[Test] = []
    if "from" in said:
        since = msgspec.convert(said["from"], datetime)
        tests.append(lambda row: utc(row["computed_at"]) >= since)
    if "to" in said:
        tests.append(_before(msgspec.convert(said["to"], datetime)))
    return tests


def _before(moment: datetime, *, inclusive: bool = False) -> Test:
    return lambda row: (
        utc(row["computed_at"]) < moment or (inclusive and utc(row["computed_at"]) == moment)
    )


def _lies(first: Place, last: Place) -> Test:
    """Within a page, by the places of its first and last row."""
    return lambda row: first <= Place(utc(row["computed_at"]), row["prediction_id"]) <= last
