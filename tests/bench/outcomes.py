"""Real outcomes: public data sets as FHIR, a package trained on them, and how well it foretells.

    python -m tests.bench.outcomes to-fhir  DATASET CSV       FOLDER
    python -m tests.bench.outcomes train    DATASET FOLDER    PACKAGE
    python -m tests.bench.outcomes evaluate DATASET FOLDER    PACKAGE
    python -m tests.bench.outcomes bench                     (what `make bench-models` runs)

DATASET is diabetes130, support2 or hf299; FOLDER one of Bulk Data NDJSON; PACKAGE the package's
folder, or the folder it stands in under the data set's name. docs/real-outcomes.md says the rest.
Exit codes: 0 done, 1 a figure was missed (`bench`), 2 wrong usage or bad input.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

from cds_service.training.run import train_package
from fhir_adapters.errors import UnreadableInput
from models.errors import PackageRefused, TrainingRefused
from tests.bench import outcomes_diabetes130, outcomes_hf299, outcomes_support2
from tests.bench.outcomes_fhir import Record, write_bulk_data
from tests.bench.outcomes_measure import Part, measured, missed
from validation.errors import TooFewEvents

Row = Mapping[str, str]
MANIFESTS = Path(__file__).with_name("manifests")
WHERE = "OUTCOMES_DATA"
USUALLY = Path(__file__).parents[2].parent / "shared" / "data" / "outcomes"
"""Where the data sets lie unless `OUTCOMES_DATA` names another folder: beside the checkout."""
REFUSALS = (OSError, UnreadableInput, PackageRefused, TrainingRefused, TooFewEvents)
"""What is the input's fault: said, and answered with exit code 2."""
RENAMED = {"platelets": "platelet", "id": ""}
"""Columns of which two releases of a data set do not agree on the name."""


class Dataset(NamedTuple):
    """How one data set is read.

    `columns`: all that may be made into features; `outcome`: into outcomes; nothing else is
    handed on. `comparator`: what a published model said, of the column it stands in.
    """

    file: str
    columns: frozenset[str]
    outcome: frozenset[str]
    records: Callable[[Iterable[Row]], Iterator[Record]]
    comparator: Callable[[Iterable[Row]], dict[str, str]] | None = None
    comparator_column: str | None = None


DATASETS: Mapping[str, Dataset] = {
    "diabetes130": Dataset(
        "diabetes130/diabetic_data.train.csv.gz",
        outcomes_diabetes130.COLUMNS,
        outcomes_diabetes130.OUTCOME_COLUMNS,
        outcomes_diabetes130.records,
    ),
    "support2": Dataset(
        "support2/support2.train.csv.gz",
        outcomes_support2.COLUMNS,
        outcomes_support2.OUTCOME_COLUMNS,
        outcomes_support2.records,
        outcomes_support2.comparator,
        outcomes_support2.COMPARATOR_COLUMN,
    ),
    "hf299": Dataset(
        "hf299/heart_failure_clinical_records_dataset.csv",
        outcomes_hf299.COLUMNS,
        outcomes_hf299.OUTCOME_COLUMNS,
        outcomes_hf299.records,
    ),
}


# ---- the three commands ---------------------------------------------------------------------


def to_fhir(dataset: str, source: Path, out: Path) -> dict[str, int]:
    """Write a data set's file as a folder of Bulk Data; how many resources of each type.

    Raises UnreadableInput where the file lacks a column or holds a value nobody knows.
    """
    words = DATASETS[dataset]
    rows = read_rows(source, words.columns | words.outcome)
    try:
        return write_bulk_data(out, dataset, words.records(rows), _comparator(words, source))
    except (KeyError, ValueError) as problem:
        raise UnreadableInput(
            f"a value is not of {dataset}: {problem}", field=source.name
        ) from None


def _comparator(words: Dataset, source: Path) -> dict[str, str]:
    """What a published model said, where the data set and this file of it hold that."""
    if words.comparator is None or words.comparator_column not in _column_names(source):
        return {}
    return words.comparator(read_rows(source, frozenset({"", words.comparator_column})))


def _column_names(source: Path) -> dict[str, str]:
    """The columns of a CSV file by the names used here."""
    with _opened(source) as file:
        return {RENAMED.get(name, name): name for name in next(csv.reader(file), [])}


def _opened(source: Path) -> IO[str]:
    if source.suffix == ".gz":
        return gzip.open(source, "rt", encoding="utf-8", newline="")
    return source.open(encoding="utf-8", newline="")


def read_rows(source: Path, columns: frozenset[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, gzipped or not, with the named columns alone."""
    names = _column_names(source)
    lacking = sorted(columns - names.keys())
    if lacking:
        raise UnreadableInput(f"no column {lacking[0]!r}", field=source.name)
    with _opened(source) as file:
        return [{name: row[names[name]] for name in columns} for row in csv.DictReader(file)]


def train(dataset: str, data: Path, out: Path) -> dict[str, Any]:
    """Train the data set's package as `varsel models train` does; what was achieved."""
    folder = package_folder(dataset, out)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MANIFESTS / dataset / "manifest.toml", folder / "manifest.toml")
    return train_package(
        folder,
        data,
        gate_data=None,
        cohort_progress=_told("patients"),
        training_progress=_told("rounds"),
    )


def evaluate(
    dataset: str, data: Path, out: Path, *, parts: Sequence[Part] = ("all",)
) -> list[dict[str, Any]]:
    """The figures on parts of a folder of Bulk Data; also written beside the package's folder."""
    folder = package_folder(dataset, out)
    found = measured(dataset, data, folder, parts=parts)
    for part, figures in found.items():
        report = folder.with_name(f"{dataset}.{part}.json")
        report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return list(found.values())


def package_folder(dataset: str, out: Path) -> Path:
    """The folder of a data set's package, which is called by its name."""
    return out if out.resolve().name == dataset else out / dataset


def _told(what: str) -> Callable[[int, int], None]:
    """Progress on standard error, a line at most every ten seconds."""
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            print(f"{what}: {done} of {total}", file=sys.stderr)

    return told


# ---- all of it ------------------------------------------------------------------------------


def bench(source: Path, work: Path) -> tuple[dict[str, Any], list[str]]:
    """All data sets end to end: figures out of fold and on the part left out, and what missed."""
    figures: dict[str, Any] = {}
    texts: list[str] = []
    for name, words in DATASETS.items():
        data, packages = work / "fhir" / name, work / "packages"
        to_fhir(name, source / words.file, data)
        try:
            train(name, data, packages)
        except (TrainingRefused, TooFewEvents) as refusal:
            texts.append(f"{name}: {refusal}")
            continue
        out_of_fold, left_out = evaluate(name, data, packages, parts=("out-of-fold", "test"))
        figures[name] = {"out-of-fold": out_of_fold["groups"], "test": left_out["groups"]}
        texts += missed(out_of_fold)
        print(table(out_of_fold), table(left_out), sep="\n", flush=True)
    return figures, texts


def table(figures: Mapping[str, Any]) -> str:
    """Figures as text to read, a line a group."""
    lines = [f"{figures['dataset']}, {figures['part']}"]
    for name, group in figures["groups"].items():
        said = [f"{group['n']} rows, {group['events']} events"]
        said += [f"{what} {_interval(group[what])}" for what in group if _is_statistic(group[what])]
        if "reference" in group:
            said.append(f"reference {group['reference']['auroc']:g}")
        if "comparator" in group:
            said.append(f"comparator {_interval(group['comparator'].get('auroc'))}")
        lines.append(f"  {name}: " + ", ".join(said))
    return "\n".join(lines)


def _is_statistic(value: object) -> bool:
    return isinstance(value, dict) and "low" in value


def _interval(found: Mapping[str, float | None] | None) -> str:
    if not found or found["value"] is None:
        return "not estimable"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _bench(source: Path) -> int:
    absent = [words.file for words in DATASETS.values() if not (source / words.file).exists()]
    if absent:
        print(f"no real outcomes in {source}: {', '.join(absent)}; name a folder with {WHERE}",
              file=sys.stderr)  # fmt: skip
        return 2
    with TemporaryDirectory(prefix="varsel-outcomes-") as work:
        figures, texts = bench(source, Path(work))
    for text in texts:
        print(f"MISSED {text}")
    print(json.dumps({"target": "bench-models", "figures": figures, "missed": texts}))
    return 1 if texts else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="tests.bench.outcomes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("to-fhir", "train", "evaluate"):
        command = commands.add_parser(name)
        command.add_argument("dataset", choices=DATASETS)
        command.add_argument("source", type=Path, metavar="IN")
        command.add_argument("out", type=Path, metavar="OUT")
        if name == "evaluate":
            command.add_argument("--part", choices=("all", "test", "out-of-fold"), default="all")
    commands.add_parser("bench").add_argument(
        "source", type=Path, nargs="?", default=Path(os.environ.get(WHERE, USUALLY))
    )
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "bench":
            return _bench(asked.source)
        if asked.command == "to-fhir":
            done: Any = to_fhir(asked.dataset, asked.source, asked.out)
        elif asked.command == "train":
            done = train(asked.dataset, asked.source, asked.out)
        else:
            (done,) = evaluate(asked.dataset, asked.source, asked.out, parts=(asked.part,))
            print(table(done), file=sys.stderr)
    except REFUSALS as problem:
        print(f"outcomes: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(done, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
