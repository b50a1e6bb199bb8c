"""Tables and reports as files that only their owner can read, none written over another.

CSV is for spreadsheets, which take some texts for formulas: those are disarmed as the API disarms
them. Called by `varsel export`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from cds_service.api.formats import disarmed
from cds_service.errors import SetupError

Write = Callable[[pd.DataFrame], bytes]


def write_new(path: Path, content: bytes) -> None:
    """Write a file for its owner alone. Raises SetupError where there is one, or it cannot be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise SetupError(f"--out {path}: {error.strerror}") from None


def require_new(*paths: Path) -> None:
    """Raise SetupError where a file that is to be written is there already, or has no folder."""
    for path in paths:
        if path.exists():
            raise SetupError(f"--out {path}: is there already")
        if not path.parent.is_dir():
            raise SetupError(f"--out {path}: no such folder")


def as_csv(table: pd.DataFrame) -> bytes:
    """The table as CSV (RFC 4180, UTF-8) with a line of names; what is missing is empty."""
    return csv_lines([list(table.columns), *_rows(table)])


def csv_lines(lines: Iterable[Iterable[Any]]) -> bytes:
    """Lines of cells as CSV, no text of them a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    for line in lines:
        writer.writerow([disarmed(cell) if isinstance(cell, str) else cell for cell in line])
    return text.getvalue().encode()


def as_json(table: pd.DataFrame) -> bytes:
    """The table as a JSON array of objects; numbers keep every bit, what is missing is null."""
    names = [str(name) for name in table.columns]
    return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in _rows(table)])


def as_parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet."""
    import pyarrow as pa  # heavy; only exports need it
    import pyarrow.parquet as pq  # as above

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()


WRITERS: dict[str, Write] = {"csv": as_csv, "parquet": as_parquet, "json": as_json}


def _rows(table: pd.DataFrame) -> list[list[Any]]:
    return [[_plain(cell) for cell in row] for row in table.itertuples(index=False, name=None)]


def _plain(cell: Any) -> Any:
    if pd.isna(cell):
        return None
    return cell.isoformat().replace("+00:00", "Z") if isinstance(cell, pd.Timestamp) else cell


# ---- reports --------------------------------------------------------------------------------


def as_markdown(title: str, report: dict[str, Any]) -> bytes:
    """A report for people: its members one below the other, lists as tables."""
    parts = [f"# {title}", "", _verdict(report)]
    for name, value in report.items():
        if name not in ("passed", "refused"):
            parts += ["", f"## {name.replace('_', ' ').capitalize()}", "", _block(value)]
    return ("\n".join(parts) + "\n").encode()


def _verdict(report: dict[str, Any]) -> str:
    if report["passed"]:
        return "**Passed.** The data were written."
    reasons = "\n".join(f"- {reason}" for reason in report["refused"])
    return f"**Refused.** No data were written.\n\n{reasons}"


def _block(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(
            ["| | |", "|---|---|", *(f"| {k} | {_text(v)} |" for k, v in value.items())]
        )
    if isinstance(value, list) and value and isinstance(value[0], dict):
        names = list(value[0])
        head = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        return "\n".join([*head, *(f"| {' | '.join(_text(o[n]) for n in names)} |" for o in value)])
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "not shown"
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value) or "none"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("<", "&lt;")
