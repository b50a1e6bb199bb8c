"""The log's predictions as a flat table: features as columns, risks and bands, no outcome.

One row a prediction. Of whom it is says a code alone, made as each row is read: neither the log's
pseudonym nor what the vault holds stays in the table. Called by `varsel export`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pandas as pd
from sqlalchemy import RowMapping

from cds_service.errors import Erased
from cds_service.exporting.pseudonyms import Coder, Named
from cds_service.identities.privacy import Privacy
from models.prediction import ClassProbability

Row = Mapping[str, Any] | RowMapping
ABOUT = (
    "organisation", "unit", "model_id", "model_version", "mode", "state", "arm", "attempt", "as_of",
    "index_time", "status", "returned",
)  # fmt: skip
"""What each row says besides patient, features and risks. Ids of prediction, call and encounter do
not leave: with the log, or the record, they would undo the code."""
TIMES = ("as_of", "index_time")


class _Feature(msgspec.Struct):
    name: str
    value: float | None


class _Head(msgspec.Struct):
    head: str
    risk: float
    threshold: float
    band: str


class _Ranking(msgspec.Struct):
    ranking: str
    classes: list[ClassProbability]


class _Said(msgspec.Struct):
    heads: list[_Head] = []
    rankings: list[_Ranking] = []


_FEATURES = msgspec.json.Decoder(list[_Feature])
_SAID = msgspec.json.Decoder(_Said)


@dataclass(frozen=True, slots=True)
class Exported:
    """A table of predictions, the codes of its patients first.

    `features`: which columns are the model's. `uncoded`: rows without what the code was to be made
    of; their patient is empty. `keys`: how many of the log's keys the pseudonyms were made with:
    under two, one patient may stand with two codes.
    """

    table: pd.DataFrame
    features: tuple[str, ...]
    uncoded: int
    keys: int


def read_cohort(rows: Iterable[Row], coder: Coder, *, of: str, privacy: Privacy) -> Exported:
    """The table of the rows, patients coded; `of` says what codes are made of (`BASES`).

    Raises SealBroken where an entry of the vault does not open.
    """
    lines: list[dict[str, Any]] = []
    features: dict[str, None] = {}
    keys: set[str] = set()
    for row in rows:
        values = _values(row)
        features |= dict.fromkeys(values)
        keys.add(row["pseudonym_key"])
        lines.append(_line(row, _code(row, coder, of, privacy)) | values | _risks(row))
    return Exported(
        table=_table(lines, tuple(features)),
        features=tuple(features),
        uncoded=sum(line["patient"] is None for line in lines),
        keys=len(keys),
    )


def _code(row: Row, coder: Coder, of: str, privacy: Privacy) -> str | None:
    pseudonym = row["patient_pseudonym"]  # empty where the patient's keys were destroyed
    base = pseudonym if of == "pseudonym" else _from_the_vault(row, of, privacy)
    return coder(Named(base, pseudonym)) if base else None


def _from_the_vault(row: Row, of: str, privacy: Privacy) -> str | None:
    """The CPR number or the id on its server of a row's patient; None where the vault has none."""
    if row["sealed"] is None:
        return None
    try:
        sealed = privacy.unseal(row)
    except Erased:
        return None
    if of == "cpr":
        found: str | None = sealed.get("cpr")
        return found
    return f"{sealed['fhir_base']}/Patient/{sealed['patient']}"


def _line(row: Row, code: str | None) -> dict[str, Any]:
    told = {name: _in_utc(row[name]) if name in TIMES else row[name] for name in ABOUT}
    return {"patient": code} | told


def _in_utc(moment: datetime | None) -> datetime | None:
    """A time in UTC; SQLite keeps them so without saying it."""
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _values(row: Row) -> dict[str, float | None]:
    """The features by column; one called like a column of ours gets `feature:` before its name."""
    found = _FEATURES.decode(row["features"] or "[]")
    return {(f"feature:{f.name}" if f.name in ("patient", *ABOUT) else f.name): f.value
            for f in found}  # fmt: skip


def _risks(row: Row) -> dict[str, Any]:
    said = _SAID.decode(row["document"])
    risks: dict[str, Any] = {}
    for head in said.heads:
        risks[f"risk:{head.head}"] = head.risk
        risks[f"band:{head.head}"] = head.band
        risks[f"threshold:{head.head}"] = head.threshold
    for ranking in said.rankings:
        for one in ranking.classes:
            risks[f"probability:{ranking.ranking}:{one.id}"] = one.probability
    return risks


def _table(lines: list[dict[str, Any]], features: tuple[str, ...]) -> pd.DataFrame:
    said = list(dict.fromkeys(name for line in lines for name in line))
    risks = [name for name in said if name not in {"patient", *ABOUT, *features}]
    table = pd.DataFrame(lines, columns=["patient", *ABOUT, *features, *risks])
    numbers = [*features, *(name for name in risks if not name.startswith("band:"))]
    table[numbers] = table[numbers].astype("float64")
    for name in TIMES:
        table[name] = pd.to_datetime(table[name], utc=True)
    return table
