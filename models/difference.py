"""What two packages differ in: words, figures, files, and the risks they give the same patients.

Pure over two folders that hold together with their checksums. Manifests are compared with their
defaults filled in, so that a default written out is no difference; lists of named things by name.
Figures stand side by side, and nothing here says which is better: intervals of two cohorts cannot
be compared by eye. Risks are compared on the reference sample of the first package, each model
given the same numbers, also where a feature of the same name is computed otherwise.

Called by `varsel models diff`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import PackageRefused
from models.evaluation import EVALUATION, is_specification
from models.manifest import Manifest
from models.package import (
    SUMS,
    Head,
    Package,
    load_package,
    read_specification,
    read_table,
    verify_checksums,
)
from models.predict import band_of

METRICS = "metrics.json"
PARTS: tuple[Literal["test", "gate"], ...] = ("test", "gate")
FIGURES: tuple[tuple[str, str], ...] = (
    ("auroc", "AUROC"),
    ("calibration_slope", "slope"),
    ("observed_expected", "O/E"),
)
_NAMES = ("id", "name", "code", "reason", "feature")
"""What tells the entries of a list apart, the first that is there and unique in both lists."""


class Change(msgspec.Struct, frozen=True):
    """One difference: where, what kind, and both values; None where there is none."""

    path: str
    change: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


class Statistic(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval, as metrics.json has it."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Figure(msgspec.Struct, frozen=True):
    """One figure of one head on one part (the newest part, or the gate), of both packages."""

    head: str
    part: str
    name: str
    a: Statistic | None
    b: Statistic | None


class RiskDifference(msgspec.Struct, frozen=True):
    """How far the risks of one head are apart, 0 to 1, over `rows` patients."""

    head: str
    rows: int
    median: float
    largest: float
    band_changes: int


class Files(msgspec.Struct, frozen=True):
    """Files that only the second has, only the first has, and that differ."""

    added: list[str]
    removed: list[str]
    changed: list[str]


class Compared(msgspec.Struct, frozen=True):
    """Which package one side is."""

    id: str
    version: str
    checksum: str
    specification: bool


class Difference(msgspec.Struct, frozen=True):
    """Everything that differs from `a` to `b`. `no_risks`: why risks could not be compared."""

    a: Compared
    b: Compared
    manifest: list[Change]
    evaluation: list[Change]
    files: Files
    figures: list[Figure]
    risks: list[RiskDifference]
    no_risks: str | None


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two packages, read."""

    compared: Compared
    manifest: Manifest
    evaluation: dict[str, Any]
    metrics: Mapping[str, _HeadMetrics]
    files: Mapping[str, str]
    package: Package | None


class _Measured(msgspec.Struct):
    auroc: Statistic | None = None
    calibration_slope: Statistic | None = None
    observed_expected: Statistic | None = None


class _PartMetrics(msgspec.Struct):
    """What is served is measured as `trees`, or where the head has none, as `logistic`."""

    trees: _Measured | None = None
    logistic: _Measured | None = None


class _HeadMetrics(msgspec.Struct):
    test: _PartMetrics | None = None
    gate: _PartMetrics | None = None


class _Metrics(msgspec.Struct):
    heads: dict[str, _HeadMetrics] = {}


def difference(a: Path, b: Path) -> Difference:
    """What two package folders differ in; PackageRefused where one does not hold together."""
    first, second = _read(a), _read(b)
    risks, no_risks = _risks(first.package, second.package)
    return Difference(
        a=first.compared,
        b=second.compared,
        manifest=list(changes(_words(first.manifest), _words(second.manifest))),
        evaluation=list(changes(first.evaluation, second.evaluation)),
        files=_files(first.files, second.files),
        figures=list(_figures(first.metrics, second.metrics)),
        risks=risks,
        no_risks=no_risks,
    )


# ---- reading --------------------------------------------------------------------------------


def _read(folder: Path) -> _Side:
    specification = is_specification(folder)
    if specification:
        package, manifest = None, read_specification(folder).manifest
        checksum = verify_checksums(folder)
    else:
        package = load_package(folder)
        manifest, checksum = package.manifest, package.checksum
    return _Side(
        compared=Compared(manifest.id, manifest.version, checksum, specification),
        manifest=manifest,
        evaluation=_evaluation(folder, manifest.id),
        metrics=_metrics(folder, manifest.id),
        files=_checksums(folder),
        package=package,
    )


def _evaluation(folder: Path, model_id: str) -> dict[str, Any]:
    """The evaluation list as it is written, complete or not; empty where there is none."""
    path = folder / EVALUATION
    if not path.exists():
        return {}
    try:
        read: dict[str, Any] = msgspec.to_builtins(tomllib.loads(path.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackageRefused(model_id, f"{EVALUATION}: {error}") from None
    return read


def _metrics(folder: Path, model_id: str) -> Mapping[str, _HeadMetrics]:
    """The figures by head; none where the package states none."""
    path = folder / METRICS
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Metrics).heads
    except msgspec.DecodeError as error:
        raise PackageRefused(model_id, f"{METRICS}: {error}") from None


def _checksums(folder: Path) -> dict[str, str]:
    """The checksum of every file by name; the list itself was verified."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _words(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain words and numbers; id and version stand elsewhere."""
    words: dict[str, Any] = msgspec.to_builtins(manifest)
    return {name: value for name, value in words.items() if name not in ("id", "version")}


# ---- words ----------------------------------------------------------------------------------


def changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Every difference between two trees of plain values, with its path, deepest first named.

    Lists of tables are compared by the name of their entries where they have one, and then say
    where the order of those in both differs; other lists are one value.
    """
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _in_tables(before, after, path)
        return
    name = _name_of_entries(before, after)
    if name is None:
        yield Change(path, "changed", before, after)
        return
    first, second = ({entry[name]: entry for entry in side} for side in (before, after))
    yield from _in_tables(first, second, path)
    order = [key for key in first if key in second], [key for key in second if key in first]
    if order[0] != order[1]:
        yield Change(f"{path}.order", "changed", *order)


def _in_tables(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[Change]:
    for key in [*before, *(key for key in after if key not in before)]:
        here = f"{path}.{key}" if path else str(key)
        if key not in after:
            yield Change(here, "removed", before=before[key])
        elif key not in before:
            yield Change(here, "added", after=after[key])
        else:
            yield from changes(before[key], after[key], here)


def _name_of_entries(before: Any, after: Any) -> str | None:
    """The field that names the entries of two lists of tables; None where there is none."""
    if not (isinstance(before, list) and isinstance(after, list)):
        return None
    if not all(isinstance(entry, dict) for entry in (*before, *after)):
        return None
    return next((n for n in _NAMES if _is_unique(n, before) and _is_unique(n, after)), None)


def _is_unique(name: str, entries: list[dict[str, Any]]) -> bool:
    names = [entry.get(name) for entry in entries]
    return None not in names and len(set(names)) == len(names)


def _files(a: Mapping[str, str], b: Mapping[str, str]) -> Files:
    return Files(
        added=sorted(b.keys() - a.keys()),
        removed=sorted(a.keys() - b.keys()),
        changed=sorted(name for name in a.keys() & b.keys() if a[name] != b[name]),
    )


# ---- numbers --------------------------------------------------------------------------------


def _figures(a: Mapping[str, _HeadMetrics], b: Mapping[str, _HeadMetrics]) -> Iterator[Figure]:
    """Every figure that one of the packages states, side by side."""
    for head in [*a, *(head for head in b if head not in a)]:
        for part in PARTS:
            measured = _measured(a.get(head), part), _measured(b.get(head), part)
            for name, _ in FIGURES:
                pair = [getattr(side, name) if side else None for side in measured]
                if pair != [None, None]:
                    yield Figure(head, part, name, *pair)


def _measured(head: _HeadMetrics | None, part: Literal["test", "gate"]) -> _Measured | None:
    found: _PartMetrics | None = getattr(head, part) if head else None
    return (found.trees or found.logistic) if found else None


def _risks(a: Package | None, b: Package | None) -> tuple[list[RiskDifference], str | None]:
    """How far the risks of the heads in both are apart; or why they could not be compared."""
    if a is None or b is None:
        return [], "a specification gives no risks"
    if sorted(a.columns) != sorted(b.columns):
        return [], "the models do not see the same columns"
    _, rows = read_table(a.folder / "reference.csv")
    places = [a.columns.index(column) for column in b.columns]
    others = {head.id: head for head in b.heads}
    found = [
        _risk_difference(a, head, b, others[head.id], rows=rows, places=places)
        for head in a.heads
        if head.id in others
    ]
    return found, None if found else "they have no outcome in common"


def _risk_difference(
    a: Package,
    head: Head,
    b: Package,
    other: Head,
    *,
    rows: NDArray[np.float64],
    places: list[int],
) -> RiskDifference:
    before, after = head.model.risk(rows), other.model.risk(rows[:, places])
    apart = np.abs(after - before)
    bands = zip(_bands(a, head.id, before), _bands(b, head.id, after), strict=True)
    return RiskDifference(
        head=head.id,
        rows=len(rows),
        median=float(np.median(apart)),
        largest=float(apart.max()),
        band_changes=sum(x != y for x, y in bands),
    )


def _bands(package: Package, head_id: str, risks: NDArray[np.float64]) -> list[str]:
    spec = next(head for head in package.manifest.heads if head.id == head_id)
    return [band_of(spec, risk).id for risk in risks.tolist()]


# ---- on a terminal --------------------------------------------------------------------------


def difference_text(d: Difference) -> str:
    """The difference in words, from A to B."""
    lines = [f"{label}  {_title(side)}" for label, side in (("A", d.a), ("B", d.b))]
    if d.a.checksum == d.b.checksum:
        return "\n".join([*lines, "The same: every file is as in the other.", ""])
    lines += _chapter("Manifest", [_said(change) for change in d.manifest])
    lines += _chapter("Evaluation list", [_said(change) for change in d.evaluation])
    lines += _chapter("Figures (95 % interval), A and B", [_figure(f) for f in d.figures])
    lines += _chapter("Risks of A's reference sample, from A to B", _risk_lines(d))
    files = [(d.files.added, "added"), (d.files.removed, "removed"), (d.files.changed, "changed")]
    lines += _chapter("Files", [f"{name}: {what}" for names, what in files for name in names])
    return "\n".join([*lines, ""])


def _title(side: Compared) -> str:
    kind = ", a specification" if side.specification else ""
    return f"{side.id} {side.version}{kind}, checksum {side.checksum}"


def _chapter(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines or ["no difference"])]


def _said(change: Change) -> str:
    if change.change == "changed":
        plain = isinstance(change.before, list) and isinstance(change.after, list)
        if plain and not change.path.endswith(".order"):
            return f"{change.path}: {_list_change(change.before, change.after)}"
        return f"{change.path}: {_shown(change.before)} -> {_shown(change.after)}"
    value = change.after if change.change == "added" else change.before
    return f"{change.path}: {change.change}: {_shown(value)}"


def _list_change(before: list[Any], after: list[Any]) -> str:
    """What came into a list and what left it."""
    parts = [f"with {_shown(x)}" for x in after if x not in before]
    parts += [f"without {_shown(x)}" for x in before if x not in after]
    return ", ".join(parts) or "in another order"


def _shown(value: Any) -> str:
    """A value on one line; of a table its label or text, of a longer one its beginning."""
    if isinstance(value, dict):
        named = value.get("label") or value.get("title") or value.get("text") or value
        value = named.get("en", named) if isinstance(named, dict) else named
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:119]}…"


def _figure(figure: Figure) -> str:
    label = dict(FIGURES)[figure.name]
    return f"{figure.head}, {figure.part}, {label}: {_stated(figure.a)} | {_stated(figure.b)}"


def _stated(statistic: Statistic | None) -> str:
    if statistic is None or statistic.value is None:
        return "not stated"
    if statistic.low is None or statistic.high is None:
        return f"{statistic.value:.3f}"
    return f"{statistic.value:.3f} ({statistic.low:.3f} to {statistic.high:.3f})"


def _risk_lines(d: Difference) -> list[str]:
    if d.no_risks is not None:
        return [f"not compared: {d.no_risks}"]
    return [
        f"{r.head}: {r.rows} rows, median difference {100 * r.median:.2f} points, largest "
        f"{100 * r.largest:.2f} points, {r.band_changes} change band"
        for r in d.risks
    ]
