"""Rows of the log as they leave over the API: JSON, CSV, Parquet, FHIR. No SQL, no HTTP.

What streams is made of batches of rows, one piece of bytes at a time, so that its memory does not
grow with its length. CSV is for spreadsheets, which take some texts for formulas: those are
disarmed. Called by `cds_service/api/exports.py`; pyarrow and fhir.resources are imported by the
function that needs them, because the process that answers hooks must start without them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cds_service.assess import read_pseudonymous
from cds_service.db.search import Row
from cds_service.errors import NotAcceptable
from models.prediction import ClassProbability

if TYPE_CHECKING:
    import pyarrow as pa

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
FHIR_BUNDLE, FHIR_LINES = "application/fhir+json", "application/fhir+ndjson"
RESOURCES = (FHIR_BUNDLE, FHIR_LINES)
PAYLOAD_OF: dict[str, tuple[str, ...]] = {
    JSON: ("document", "response"),
    CSV: ("document",),
    PARQUET: ("document", "features"),
    FHIR_BUNDLE: ("document", "response"),
    FHIR_LINES: ("document", "response"),
}
"""The forms in which predictions leave, each with the columns of the payload it is made of."""
PIECE_BYTES = 64_000
# RFC 9110 12.5.1: a media range and its parameters
_RANGE = re.compile(r"\s*([\w.+*-]{1,64}/[\w.+*-]{1,64})\s*((?:;[^;]*)*)", re.ASCII)
_WEIGHT = re.compile(r";\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)
_LONGEST_ACCEPT = 500

Batches = Iterable[Sequence[Row]]


def chosen(accept: str | None, offered: Sequence[str]) -> str:
    """The media type to answer in, of those offered: by weight, then by the order of the offer.

    Raises NotAcceptable where none was asked for.
    """
    if not accept or not accept.strip():
        return offered[0]
    ranges = [_RANGE.fullmatch(part) for part in accept[:_LONGEST_ACCEPT].split(",")]
    weighed = {found.group(1).lower(): _weight(found.group(2)) for found in ranges if found}

    def weight(kind: str) -> float:
        family = f"{kind.split('/')[0]}/*"
        return next((weighed[r] for r in (kind, family, "*/*") if r in weighed), 0.0)

    best = max(offered, key=weight)
    if not weight(best):
        raise NotAcceptable(f"made here: {', '.join(offered)}", field="Accept")
    return best


def _weight(parameters: str) -> float:
    said = _WEIGHT.search(parameters)
    return float(said.group(1)) if said else 1.0


# ---- JSON -----------------------------------------------------------------------------------


def as_json(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """A row's columns as JSON shows them; the prediction is None where it was erased."""
    return {name: _json_value(row, name) for name in columns}


def _json_value(row: Row, name: str) -> Any:
    if name == "prediction":
        return None if row["document"] is None else read_pseudonymous(row)
    value = row[name]
    if name in ("features", "timings", "details"):
        return None if value is None else msgspec.Raw(value.encode())
    return value.hex() if isinstance(value, bytes) else value


# ---- CSV ------------------------------------------------------------------------------------

RISK_COLUMNS = (
    "head", "outcome", "horizon_days", "risk", "reference_risk", "threshold", "band",
)  # fmt: skip
"""What a line says of one head; of one class of a ranking, its probability is the risk."""
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""How a cell begins that a spreadsheet may take for a formula (OWASP, CSV Injection)."""


class _Head(msgspec.Struct):
    """What is read of a head for a table; what it rests on is passed over."""

    head: str
    outcome: str
    horizon_days: int
    risk: float
    reference_risk: float
    threshold: float
    band: str


class _Ranking(msgspec.Struct):
    """What is read of a ranking for a table."""

    ranking: str
    horizon_days: int | None
    classes: list[ClassProbability]


class _Said(msgspec.Struct):
    """What is read of a prediction for a table."""

    heads: list[_Head] = []
    rankings: list[_Ranking] = []


_SAID = msgspec.json.Decoder(_Said)


def csv_pieces(batches: Batches, columns: Sequence[str]) -> Iterator[bytes]:
    """The rows as CSV (RFC 4180, UTF-8) with a line of names.

    With the column `prediction` there is a line for each of its risks, one without where it has
    none, so that a number stands in a cell of its own.
    """
    plain = [name for name in columns if name != "prediction"]
    with_risks = len(plain) < len(columns)
    yield _lines([[*plain, *(RISK_COLUMNS if with_risks else ())]])
    for rows in batches:
        yield _lines(
            [*(_cell(row[name]) for name in plain), *risk]
            for row in rows
            for risk in (_risks(row) if with_risks else [()])
        )


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value as a cell holds it: numbers as they are, no text that is taken for a formula."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    return disarmed(value) if isinstance(value, str) else value


def disarmed(text: str) -> str:
    """A text that no spreadsheet takes for a formula: behind an apostrophe, where it might be."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _risks(row: Row) -> list[tuple[Any, ...]]:
    """One line's cells for each risk of a prediction; empty cells where it has none."""
    said = _SAID.decode(row["document"] or "{}")
    heads = [msgspec.structs.astuple(head) for head in said.heads]
    classes = [
        (r.ranking, c.id, r.horizon_days, c.probability, None, None, None)
        for r in said.rankings
        for c in r.classes
    ]
    lines = [tuple(_cell(value) for value in line) for line in heads + classes]
    return lines or [(None,) * len(RISK_COLUMNS)]


# ---- Parquet --------------------------------------------------------------------------------


class _Feature(msgspec.Struct):
    """What is read of a feature for a table."""

    name: str
    value: float | None
    status: str
    unit: str | None = None
    time: float | None = None
    reason: str | None = None
    code: str | None = None


_FEATURES = msgspec.json.Decoder(list[_Feature])
_NUMBERS = ("attempt", "chain_sequence")


class _Nested(NamedTuple):
    """What a prediction says, as the nested columns of a table."""

    heads: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    features: list[dict[str, Any]]


def parquet_pieces(batches: Batches, columns: Sequence[str]) -> Iterator[bytes]:
    """The rows as Parquet, a row group a batch; of `prediction`, its risks and features nested."""
    import pyarrow as pa  # heavy; only exports need it
    import pyarrow.parquet as pq  # as above

    plain = [name for name in columns if name != "prediction"]
    nested = len(plain) < len(columns)
    schema = _schema(plain, nested=nested)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for rows in batches:
            table = [_record(row, plain, nested=nested) for row in rows]
            writer.write_table(pa.Table.from_pylist(table, schema=schema))
            yield _drained(sink)
    yield _drained(sink)


def _drained(sink: io.BytesIO) -> bytes:
    """What was written since the last time; the writer counts its place itself."""
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written


def _schema(plain: Sequence[str], *, nested: bool) -> pa.Schema:
    import pyarrow as pa  # as above

    moment, text, number = pa.timestamp("us", tz="UTC"), pa.string(), pa.float64()
    times = {"computed_at", "as_of", "index_time", "at"}
    kinds: dict[str, Any] = dict.fromkeys(times, moment) | {name: pa.int32() for name in _NUMBERS}
    fields = [pa.field(name, kinds.get(name, text)) for name in plain]
    if nested:
        risk = {"head": text, "outcome": text, "horizon_days": pa.int32(), "risk": number,
                "reference_risk": number, "threshold": number, "band": text}  # fmt: skip
        share = {"ranking": text, "class": text, "probability": number}
        value = {"name": text, "value": number, "unit": text, "status": text, "time": moment,
                 "reason": text, "code": text}  # fmt: skip
        for name, members in (("heads", risk), ("classes", share), ("features", value)):
            fields.append(pa.field(name, pa.list_(pa.struct(list(members.items())))))
    return pa.schema(fields)


def _record(row: Row, plain: Sequence[str], *, nested: bool) -> dict[str, Any]:
    record = {name: _plain_value(row[name]) for name in plain}
    return record | _nested(row)._asdict() if nested else record


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return (
        value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value
    )


def _nested(row: Row) -> _Nested:
    said = _SAID.decode(row["document"] or "{}")
    features = _FEATURES.decode(row["features"] or "[]")
    return _Nested(
        heads=[msgspec.structs.asdict(head) for head in said.heads],
        classes=[
            {"ranking": r.ranking, "class": c.id, "probability": c.probability}
            for r in said.rankings
            for c in r.classes
        ],
        features=[msgspec.structs.asdict(f) | {"time": _moment(f.time)} for f in features],
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# ---- FHIR -----------------------------------------------------------------------------------


def bundle_pieces(batches: Batches) -> Iterator[bytes]:
    """The predictions as a Bundle of RiskAssessments; those without a risk have none."""
    from fhir_adapters.outbound.bundle import collection  # imports fhir.resources

    return _in_pieces(collection(_resources(batches)))


def line_pieces(batches: Batches) -> Iterator[bytes]:
    """The predictions as RiskAssessments, one a line."""
    from fhir_adapters.outbound.bundle import ndjson_line  # as above

    return _in_pieces(ndjson_line(resource) for resource in _resources(batches))


def _resources(batches: Batches) -> Iterator[dict[str, Any]]:
    from cds_service.api.risk_assessments import risk_assessment  # as above

    for rows in batches:
        for row in rows:
            if row["document"] is not None:
                resource = risk_assessment(read_pseudonymous(row), row)
                if resource is not None:
                    yield resource


def _in_pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces worth sending."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


PIECES: dict[str, Callable[[Batches, Sequence[str]], Iterator[bytes]]] = {
    CSV: csv_pieces,
    PARQUET: parquet_pieces,
    FHIR_BUNDLE: lambda batches, _: bundle_pieces(batches),
    FHIR_LINES: lambda batches, _: line_pieces(batches),
}
"""How each media type that streams is made, of batches of rows and the columns that are shown."""
