"""A model package in memory: its manifest, its compiled features, its heads; and its admission.

    models/<model_id>/
      manifest.toml                what it is, in words
      heads/<head>/booster.ubj     the trees, calibration folded in; a ranking's of all its classes
      heads/<head>/logistic.json   in place of trees: the logistic model that is the head
      heads/<head>/background.csv  about 100 rows the explanation compares with
      heads/<head>/baseline.json   the penalised logistic model beside trees; may be absent
      heads/<head>/uncertainty.csv where refits put each risk; may be absent
      reference.csv                a sample of the training features, for drift and ranges
      examples/*.json              synthetic patients with the score and contributions they must get
      MODEL_CARD.md, metrics.json  what was achieved
      evaluation.toml              what it is for, for people: models/evaluation.py
      SPECIFICATION.json           of a specification alone: models/exchange.py
      SHA256SUMS                   of all of the above

A file anywhere else is refused by name: it would be sealed, and travel. `load_package` reads and
checks; nothing is served that does not pass.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.decode import ExpectedQuery
from fhir_adapters.errors import LanguageError
from fhir_adapters.facts import AnswerRule, Wanted
from fhir_adapters.features.compute import FeatureSet
from fhir_adapters.prefetch import expected_query
from models import manifest as words
from models.errors import PackageRefused, ServedOnly
from models.linear import Linear
from models.logistic import Logistic, read_logistic_of
from models.manifest import Comparison, Manifest, read_manifest
from models.ranking import Ranked
from models.risk_model import RiskModel
from models.scores.from_record import ReferenceScores
from models.trees import Trees
from models.uncertainty import Uncertainty, uncertainty_of

SUMS = "SHA256SUMS"
KINDS = frozenset({".toml", ".ubj", ".csv", ".json", ".md"})
"""The kinds of file a package holds: words and numbers, nothing that runs when it is read."""
OF_PACKAGE = frozenset(
    {
        "manifest.toml", "evaluation.toml", "MODEL_CARD.md", "metrics.json", "reference.csv",
        "SPECIFICATION.json",
    }
)  # fmt: skip
OF_HEAD = frozenset(
    {"booster.ubj", "logistic.json", "background.csv", "baseline.json", "uncertainty.csv"}
)
"""What lies in a package's folder, and in that of a head or ranking; besides, worked examples."""
_EXAMPLE = re.compile(r"examples/[0-9]{2,4}\.json")
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")
UNUSUAL_LOW, UNUSUAL_HIGH = 1.0, 99.0
"""Percentiles of the training sample outside which a value is called unusual."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Head:
    """One outcome's model; where known, the logistic model beside it, and how sure it is."""

    id: str
    model: RiskModel
    simpler: Logistic | None = None
    uncertainty: Uncertainty | None = None

    @property
    def trees(self) -> Trees:
        """The model, of a head of boosted trees; ServedOnly of any other."""
        if not isinstance(self.model, Trees):
            raise ServedOnly(f"heads.{self.id}.kind: it has no trees, only a logistic model")
        return self.model

    @property
    def baseline(self) -> Logistic:
        """The logistic model beside it; ServedOnly for a head that has none."""
        if self.simpler is None:
            raise ServedOnly(f"heads/{self.id}/baseline.json is not there")
        return self.simpler


@dataclass(frozen=True, slots=True)
class RankingHead:
    """One ranking's model."""

    id: str
    model: Ranked


@dataclass(frozen=True)
class Specification:
    """A package without its numbers: what its features are and what they need. Enough to train."""

    manifest: Manifest
    features: FeatureSet

    @cached_property
    def columns(self) -> list[str]:
        """The names of the model's columns, in order."""
        return [feature.name for feature in self.manifest.inputs]

    @cached_property
    def wanted(self) -> Wanted:
        """What the package needs of a patient record."""
        m = self.manifest
        return Wanted(
            concepts=self.features.concepts
            | (self.scores.concepts if self.scores else frozenset()),
            stay_rule=m.stay,
            answers=tuple(
                AnswerRule(concept, frozenset(a.link_ids), a.values)
                for concept, a in m.answers.items()
            ),
            queries={key: query.resource_type for key, query in self.expected.items()},
        )

    @cached_property
    def expected(self) -> Mapping[str, ExpectedQuery]:
        """The prefetch keys with what their templates ask."""
        return {
            key: expected_query(query.template) for key, query in self.manifest.prefetch.items()
        }

    @cached_property
    def scores(self) -> ReferenceScores | None:
        """The published scores shown beside the model; None where it names none."""
        if not self.manifest.reference_scores:
            return None
        return ReferenceScores(
            self.features.supplied_by,
            stay_rule=self.manifest.stay,
            index_within_hours=self.manifest.index.ended_within_hours,
            names=self.manifest.reference_scores,
        )

    @cached_property
    def wanted_later(self) -> Wanted:
        """What the package needs of a record to see its outcomes too: for cohorts, not serving."""
        outcomes = [head.rule.concepts for head in self.manifest.heads]
        concepts = self.wanted.concepts.union(*outcomes)
        return dataclasses.replace(self.wanted, concepts=concepts)

    def outside_scope(self, values: Mapping[str, float | None]) -> str | None:
        """The reason of the first scope rule that excludes the patient; None where none does."""
        for rule in self.manifest.scope:
            if compares(values[rule.feature], rule.op, rule.value):
                return rule.reason
        return None


_COMPARISONS: Mapping[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def compares(value: float | None, op: Comparison, limit: float) -> bool:
    """Whether a value stands so to a limit; an unknown one never does."""
    return value is not None and _COMPARISONS[op](value, limit)


@dataclass(frozen=True)
class Package(Specification):
    """A package that may be served. `checksum` is that of its list of checksums."""

    checksum: str
    heads: tuple[Head, ...]
    usual: Mapping[str, tuple[float, float]]
    folder: Path
    rankings: tuple[RankingHead, ...] = ()

    @property
    def id(self) -> str:
        """The model's id, which is the service's."""
        return self.manifest.id


def read_specification(folder: Path) -> Specification:
    """The specification of a package folder; PackageRefused names what is wrong in the manifest."""
    manifest = read_manifest(folder)
    return Specification(manifest, compile_features(manifest))


def compile_features(manifest: Manifest) -> FeatureSet:
    """The features a manifest says, compiled; PackageRefused names the field that is wrong."""
    supplied_by = {
        concept: key for key, query in manifest.prefetch.items() for concept in query.supplies
    }
    within = manifest.index.ended_within_hours if manifest.index.kind == "stay" else None
    try:
        return FeatureSet(
            manifest.features,
            supplied_by,
            stay_rule=manifest.stay,
            index_within_hours=within,
            set_rule=manifest.index.set_rule,
            set_within_hours=manifest.index.within_hours,
        )
    except LanguageError as error:
        raise PackageRefused(manifest.id, f"{error.field}: {error}") from None


def load_package(folder: Path) -> Package:
    """A package ready to serve. Raises PackageRefused where a checksum or a file does not hold."""
    specification = read_specification(folder)
    manifest = specification.manifest
    checksum = _verified(folder, manifest)
    columns = specification.columns
    try:
        heads = tuple(_load_head(folder, head, columns) for head in manifest.heads)
        rankings = tuple(_load_ranking(folder, ranking, columns) for ranking in manifest.rankings)
        reference = _table_of(folder, folder / "reference.csv", columns)
    except ValueError as error:
        raise PackageRefused(manifest.id, f"unreadable: {error}") from None
    return Package(
        manifest=manifest,
        features=specification.features,
        checksum=checksum,
        heads=heads,
        usual=_usual_ranges(columns, reference),
        folder=folder,
        rankings=rankings,
    )


def _load_head(package: Path, head: words.Head, columns: list[str]) -> Head:
    folder = package / "heads" / head.id
    return Head(
        head.id,
        _load_model(package, head, columns),
        _beside(package, folder / "baseline.json", lambda path: read_logistic_of(path, columns)),
        _beside(package, folder / "uncertainty.csv", _uncertainty),
    )


def _load_model(package: Path, head: words.Head, columns: list[str]) -> RiskModel:
    folder = package / "heads" / head.id
    background = _table_of(package, folder / "background.csv", columns)
    if head.kind == "logistic":
        with naming(package, folder / "logistic.json") as path:
            return Linear.load(path, background, columns)
    with naming(package, folder / "booster.ubj") as path:
        return Trees.load(path, background, columns)


def _load_ranking(package: Path, ranking: words.Ranking, columns: list[str]) -> RankingHead:
    folder = package / "heads" / ranking.id
    background = _table_of(package, folder / "background.csv", columns)
    with naming(package, folder / "booster.ubj") as path:
        model = Ranked.load(path, background, columns, classes=len(ranking.classes))
    return RankingHead(ranking.id, model)


def _table_of(package: Path, path: Path, columns: list[str]) -> NDArray[np.float64]:
    """The rows of a table of the model's columns."""
    with naming(package, path):
        names, rows = read_table(path)
        if names != columns:
            raise ValueError(f"its columns are not the manifest's: {_difference(names, columns)}")
    return rows


def _uncertainty(path: Path) -> Uncertainty:
    return uncertainty_of(*read_table(path))


def _beside(package: Path, path: Path, read: Callable[[Path], _Part]) -> _Part | None:
    """What a file of a head holds; None where the head does without."""
    if not path.exists():
        return None
    with naming(package, path):
        return read(path)


def _difference(names: list[str], columns: list[str]) -> str:
    """The first place in which two lists of columns differ, in words."""
    if len(names) != len(columns):
        return f"{len(names)}, where the manifest has {len(columns)}"
    both = enumerate(zip(names, columns, strict=True), 1)
    place, (name, column) = next((n, pair) for n, pair in both if pair[0] != pair[1])
    return f"number {place} is {name!r}, where the manifest has {column!r}"


@contextmanager
def naming(package: Path, path: Path) -> Iterator[Path]:
    """The path; what is raised meanwhile because of what it holds, or lacks, names it."""
    try:
        yield path
    except OSError as error:
        raise ValueError(f"{path.relative_to(package).as_posix()}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path.relative_to(package).as_posix()}: {error}") from None


def _usual_ranges(names: list[str], rows: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for column, name in enumerate(names):
        known = rows[:, column][~np.isnan(rows[:, column])]
        if known.size:
            low, high = np.percentile(known, [UNUSUAL_LOW, UNUSUAL_HIGH])
            ranges[name] = (float(low), float(high))
    return ranges


def read_table(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Column names and numbers of a CSV file; an empty cell is a missing value (NaN).

    Raises ValueError for a file without rows, with uneven rows, or with what is no finite number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines:
        raise ValueError("is empty")
    if len(lines) == 1:
        raise ValueError("has no rows")
    rows = [[float(cell) if cell else np.nan for cell in line] for line in lines[1:]]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(lines[0]))
    if np.isinf(table).any():
        raise ValueError("holds an infinite number")
    return lines[0], table


def table_text(names: list[str], rows: NDArray[np.float64]) -> str:
    """The CSV text `read_table` reads back to the same numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if np.isnan(value) else repr(float(value)) for value in row])
    return out.getvalue()


# ---- checksums ------------------------------------------------------------------------------


def package_files(folder: Path) -> list[Path]:
    """All files of a package but the list of checksums, by path."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / SUMS)


def require_layout(folder: Path, manifest: Manifest) -> None:
    """Raise PackageRefused naming the first file that no package has a place for.

    The heads and rankings are those of the manifest.
    """
    heads = {head.id for head in manifest.heads} | {r.id for r in manifest.rankings}
    allowed = OF_PACKAGE | {f"heads/{head}/{name}" for head in heads for name in OF_HEAD}
    for path in package_files(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in KINDS:
            raise PackageRefused(folder.name, f"{name} is of a kind no package holds")
        if name not in allowed and not _EXAMPLE.fullmatch(name):
            raise PackageRefused(folder.name, f"{name} is no file of a package: take it out")


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every other file of the package."""
    lines = [f"{_sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in package_files(folder)]
    (folder / SUMS).write_bytes("".join(lines).encode())


def listed_sums(sums: bytes) -> dict[str, str]:
    """The checksum of every file of a list; ValueError where it is not one a line, ended by LF."""
    *lines, rest = sums.decode("ascii", errors="replace").split("\n")
    found = [_SUM.fullmatch(line) for line in lines]
    listed = {line[2]: line[1] for line in found if line is not None}
    if rest or len(listed) != len(lines):
        raise ValueError("is not one checksum and name on every line, ended by a line feed")
    return listed


def verify_checksums(folder: Path) -> str:
    """The checksum of the package; PackageRefused names the file that is other than listed, or
    that no package of this manifest has a place for.
    """
    return _verified(folder, read_manifest(folder))


def sums_checksum(folder: Path) -> str | None:
    """The checksum of a folder's list of checksums, by which the log knows a package; whether its
    files are those listed is not looked at. None where there is no list.
    """
    try:
        return _sha256(folder / SUMS)
    except OSError:
        return None


def _verified(folder: Path, manifest: Manifest) -> str:
    require_layout(folder, manifest)
    try:
        sums = (folder / SUMS).read_bytes()
        listed = listed_sums(sums)
    except FileNotFoundError:
        raise PackageRefused(folder.name, f"{SUMS} is missing") from None
    except OSError:
        raise PackageRefused(folder.name, f"{SUMS} cannot be read") from None
    except ValueError as error:
        raise PackageRefused(folder.name, f"{SUMS} {error}") from None
    present = {p.relative_to(folder).as_posix(): p for p in package_files(folder)}
    for name in sorted(set(listed) | set(present)):
        if name not in present:
            raise PackageRefused(folder.name, f"{name} is missing")
        if name not in listed:
            raise PackageRefused(folder.name, f"{name} is not in {SUMS}")
        if _sha256(present[name]) != listed[name]:
            raise PackageRefused(folder.name, f"{name} is not what {SUMS} says")
    return hashlib.sha256(sums).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- its place ------------------------------------------------------------------------------


def put_in_place(made: Path, folder: Path, aside: Path) -> None:
    """Move a whole folder to its place. What was there goes to `aside`, and back where that fails.

    Two moves on one file system: whoever is killed between them finds both folders beside the
    place. Raises OSError.
    """
    if folder.exists():
        folder.rename(aside)
    try:
        made.rename(folder)
    finally:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
