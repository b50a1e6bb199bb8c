"""What a training run keeps in its work folder, so that the next one continues after it.

Lives here: the digest that says whether kept work is of the same data, specification and software;
the cohort frame (Parquet) and each trained head with its refits, written and read back. A finished
part is the one whose JSON file stands there: it is written last, in one move. Called by a training
run. The folder holds patient data, in a folder per digest that only its owner can read.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pandas as pd

from models.cohort import Cohort
from models.engines import xgboost as xgb
from models.fitting import CrossFit, matrix_of, risks_of
from models.logistic import Logistic, read_logistic
from models.manifest import Training
from models.package import Specification, read_table
from models.refits import Refits, Shuffled
from models.training import (
    Trained,
    known_outcomes,
    reference_sample,
    split_by_time,
    write_head,
)
from models.tuning import Candidate, Fitting

DIGITS = 16
_CHUNK = 1 << 20
_Part = TypeVar("_Part", bound=msgspec.Struct)


class _Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    patients: int
    indexes: int
    excluded: dict[str, int]


class _Numbers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rounds: int
    platt: tuple[float, float]
    training: Training
    candidates: list[Candidate]
    shuffled: Shuffled
    refits: Refits


class _Tried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rounds: int
    margins: list[float]
    log_loss: float


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head, what its refits gave, and how outcomes dealt at random were ranked."""

    trained: Trained
    refits: Refits
    shuffled: Shuffled


def versions() -> dict[str, str]:
    """The releases of what computes, by name: other ones may give other numbers."""
    return {
        "python": platform.python_version(),
        "xgboost": xgb.__version__,
        "shap": version("shap"),
        "numpy": np.__version__,
    }


@dataclass(frozen=True, slots=True)
class Work:
    """Where a run keeps what it has done, if anywhere, and the names of what it found done."""

    folder: Path | None
    reused: list[str]

    def cohort(self, build: Callable[[], Cohort]) -> Cohort:
        """The cohort kept here, or a new one, which is kept."""
        if self.folder is None:
            return build()
        counts = _finished(self.folder / "cohort.json", _Counts)
        if counts is None:
            cohort = build()
            _keep_cohort(self.folder, cohort)
            return cohort
        self.reused.append("cohort")
        frame = pd.read_parquet(self.folder / "cohort.parquet")
        return Cohort(frame, counts.patients, counts.indexes, counts.excluded)

    def head(
        self,
        spec: Specification,
        head_id: str,
        *,
        frame: pd.DataFrame,
        make: Callable[[], TrainedHead],
    ) -> TrainedHead:
        """The head kept here, trained on the same frame (`Cohort.of_head`), or a new one."""
        if self.folder is None:
            return make()
        numbers = _finished(self.folder / "heads" / head_id / "numbers.json", _Numbers)
        if numbers is None:
            made = make()
            _keep_head(self.folder, spec, head_id, made=made)
            return made
        self.reused.append(f"head {head_id}")
        return _kept_head(self.folder / "heads" / head_id, spec, frame, numbers=numbers)

    def candidate(self, head_id: str, number: int, fitting: Fitting) -> CrossFit:
        """A candidate of a head's search kept here, by its number, or a new one."""
        if self.folder is None:
            return fitting()
        path = self.folder / "heads" / head_id / "candidates" / f"{number:02}.json"
        kept = _finished(path, _Tried)
        if kept is not None:
            self.reused.append(f"head {head_id} candidate {number + 1}")
            return CrossFit(kept.rounds, np.array(kept.margins), kept.log_loss)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = fitting()
        _finish(path, _Tried(made.rounds, made.margins.tolist(), made.log_loss))
        return made


def work_on(work: Path | None, specification: Path, data: Path, *, software: str) -> Work:
    """The work on Bulk Data by a specification and a release of ours, in a folder of its own.

    Another manifest, another byte of the data or another release has another folder. Without
    `work` nothing is kept.
    """
    if work is None:
        return Work(None, [])
    digest = hashlib.sha256(msgspec.json.encode([software, versions()], order="sorted"))
    export = data / "manifest.json"
    read = [*sorted(data.glob("*.ndjson")), *([export] if export.exists() else [])]
    for path in (specification / "manifest.toml", *read):
        digest.update(f"\n{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    folder = work / f"{specification.name}-{digest.hexdigest()[:DIGITS]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Work(folder, [])


def _keep_cohort(folder: Path, cohort: Cohort) -> None:
    cohort.frame.to_parquet(folder / "cohort.parquet", index=False)
    counts = _Counts(cohort.patients, cohort.indexes, cohort.excluded)
    _finish(folder / "cohort.json", counts)


def _keep_head(folder: Path, spec: Specification, head_id: str, *, made: TrainedHead) -> None:
    write_head(folder, spec, head_id, made.trained)
    trained = made.trained
    numbers = _Numbers(
        rounds=trained.rounds,
        platt=trained.platt,
        training=trained.training,
        candidates=trained.candidates,
        shuffled=made.shuffled,
        refits=made.refits,
    )
    _finish(folder / "heads" / head_id / "numbers.json", numbers)


def _kept_head(
    folder: Path, spec: Specification, frame: pd.DataFrame, *, numbers: _Numbers
) -> TrainedHead:
    split = split_by_time(known_outcomes(frame), spec.manifest.training)
    model = _kept_model(folder)
    risks = risks_of(model, matrix_of(spec, split.fit))
    trees = not isinstance(model, Logistic)
    trained = Trained(
        model=model,
        baseline=read_logistic(folder / "baseline.json") if trees else None,
        background=read_table(folder / "background.csv")[1],
        reference=reference_sample(spec, split.fit, risks),
        split=split,
        rounds=numbers.rounds,
        platt=numbers.platt,
        training=numbers.training,
        candidates=numbers.candidates,
    )
    return TrainedHead(trained, numbers.refits, numbers.shuffled)


def _kept_model(folder: Path) -> xgb.Booster | Logistic:
    coefficients = folder / "logistic.json"
    if coefficients.exists():
        return read_logistic(coefficients)
    return xgb.Booster(model_file=folder / "booster.ubj")


def _finish(path: Path, part: msgspec.Struct) -> None:
    """Say that a part is done: the file appears whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_bytes(msgspec.json.encode(part))
    beside.replace(path)


def _finished(path: Path, kind: type[_Part]) -> _Part | None:
    """The part of a file; None where it is not there, or was kept by a release that kept other
    things: such a part is made anew."""
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.ValidationError:
        return None
