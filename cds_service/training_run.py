"""One training run, start to finish: cohort, checks, training, figures, examples, card, checksums.

Called by `varsel models train`. A package is made beside its folder and moved in when it is whole,
so that a run that is refused leaves what was there. With a work folder a run continues after what
an earlier one finished. docs/training.md is the manual. Needs the `study` extra.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from cds_service import __version__
from cds_service.model_card import model_card
from cds_service.training_figures import (
    CARD_SEED,
    auroc_difference,
    figures,
    groups_unknown,
    learning_curve,
    missing_shares,
    require_judgeable,
    subgroups,
    uncalibrated,
)
from fhir_adapters.bulk import BulkIndex, index_bulk_data, read_patient
from fhir_adapters.clock import parse_time
from models.cohort import Cohort, build_cohort
from models.examples import make_example
from models.package import (
    Head,
    Package,
    Specification,
    load_package,
    read_specification,
    table_text,
    write_checksums,
)
from models.refits import STEPS, refit, shuffled_auroc
from models.training import (
    Floats,
    Trained,
    known_outcomes,
    matrix_of,
    split_by_time,
    train,
    write_head,
    write_reference,
)
from models.training_checks import (
    category_shares,
    chance_limits,
    check_evidence,
    distinct_events,
    dominating,
    refuse_learned_chance,
    too_few_events,
)
from models.training_kept import TrainedHead, Work, versions, work_on
from models.uncertainty import COLUMNS, METHOD, REFITS, uncertainty_table

Progress = Callable[[int, int], None]
EXAMPLES = 4
MADE = ("heads", "examples")
"""The folders of a package that a run makes anew."""


def train_package(
    folder: Path,
    data: Path,
    *,
    gate_data: Path | None,
    cohort_progress: Progress,
    training_progress: Progress,
    work: Path | None = None,
) -> dict[str, Any]:
    """Train the package of a folder on Bulk Data and write all its files but the manifest.

    `work`: a folder to keep finished parts in, and to continue from. Returns what was achieved, as
    it stands in metrics.json, and as `reused` the parts an earlier run had finished. Raises
    TrainingRefused, and TooFewEvents where the newest part cannot be judged; the folder is then as
    it was.
    """
    spec = read_specification(folder)
    kept = work_on(work, folder, data, software=__version__)
    cohort = _cohort(spec, data, kept, progress=cohort_progress)
    index = index_bulk_data(data)
    dated = check_evidence(spec, index, cohort.frame)
    trained = _train_heads(spec, cohort, kept, training_progress)
    with TemporaryDirectory(prefix="varsel-training-") as beside:
        staged = Path(beside) / folder.name
        shutil.copytree(folder, staged, ignore=shutil.ignore_patterns(*MADE))
        package = _write_numbers(staged, spec, trained)
        metrics = _metrics(package, cohort, trained, dated=dated)
        if gate_data is not None:
            kept_gate = work_on(work, folder, gate_data, software=__version__)
            _add_gate(
                metrics, package, _cohort(spec, gate_data, kept_gate, progress=cohort_progress)
            )
            kept.reused.extend(f"gate {what}" for what in kept_gate.reused)
        _write_examples(package, index, next(iter(trained.values())).trained)
        _write_words(staged, spec, metrics)
        load_package(staged)
        _move_in(staged, folder)
    return {**metrics, "reused": kept.reused}


def _cohort(spec: Specification, data: Path, kept: Work, *, progress: Progress) -> Cohort:
    """The cohort of Bulk Data, unless an earlier run kept it."""
    return kept.cohort(lambda: build_cohort(spec, data, progress=progress))


# ---- heads ----------------------------------------------------------------------------------


def _train_heads(
    spec: Specification, cohort: Cohort, kept: Work, progress: Progress
) -> dict[str, TrainedHead]:
    """Every head on its rows; `progress` is told the rounds of all fits of all heads as one."""
    words, heads = spec.manifest.training, [head.id for head in spec.manifest.heads]
    each = (words.folds + 1 + STEPS) * words.rounds
    made: dict[str, TrainedHead] = {}
    for place, head in enumerate(heads):
        frame = cohort.of_head(head)
        require_judgeable(split_by_time(known_outcomes(frame), words).test)
        told = partial(_tell, progress, before=place * each, total=len(heads) * each)
        make = partial(_train_head, spec, frame, told)
        made[head] = kept.head(spec, head, frame=frame, make=make)
        told(each)
    return made


def _tell(progress: Progress, done: int, *, before: int, total: int) -> None:
    """Tell what is done of one head as part of all."""
    progress(before + done, total)


def _train_head(
    spec: Specification, frame: pd.DataFrame, told: Callable[[int], None]
) -> TrainedHead:
    """One head with its refits, unless outcomes dealt at random can be learned in its cohort."""
    words = spec.manifest.training
    trained = train(spec, frame, lambda done, _: told(done))
    fit = trained.split.fit
    shuffled = shuffled_auroc(spec, fit)
    refuse_learned_chance(shuffled, rows=len(fit), events=int(fit["event"].sum()))
    before = (words.folds + 1) * words.rounds
    refits = refit(spec, trained, lambda done, _: told(before + done * words.rounds))
    return TrainedHead(trained, refits, shuffled)


def _write_numbers(folder: Path, spec: Specification, trained: dict[str, TrainedHead]) -> Package:
    """Write what the heads are, with checksums, and read it back as a package."""
    for head, made in trained.items():
        write_head(folder, spec, head, made.trained)
        text = table_text(COLUMNS, _uncertainty(spec, made))
        (folder / "heads" / head / "uncertainty.csv").write_text(text, encoding="utf-8")
    write_reference(folder, spec, next(iter(trained.values())).trained)
    write_checksums(folder)
    return load_package(folder)


def _uncertainty(spec: Specification, made: TrainedHead) -> Floats:
    rows = matrix_of(spec, made.trained.split.test)
    risks = np.asarray(made.trained.booster.inplace_predict(rows), dtype=np.float64)
    return uncertainty_table(risks, np.array(made.refits.bootstrap).T)


# ---- metrics.json ---------------------------------------------------------------------------


def _metrics(
    package: Package, cohort: Cohort, trained: dict[str, TrainedHead], *, dated: int
) -> dict[str, Any]:
    words = package.manifest.training
    newest = split_by_time(cohort.frame, words).test
    return {
        "software": {"varsel": __version__, **versions()},
        "seeds": {"training": words.seed, "intervals": CARD_SEED},
        "cohort": {
            "patients": cohort.patients,
            "indexes": cohort.indexes,
            "excluded": cohort.excluded,
            "rows": len(cohort.frame),
        },
        "missing": missing_shares(package, cohort.frame, newest),
        "rows_dated_again": dated,
        "heads": {h.id: _head_metrics(package, h, trained[h.id]) for h in package.heads},
    }


def _head_metrics(package: Package, head: Head, made: TrainedHead) -> dict[str, Any]:
    trained, test = made.trained, made.trained.split.test
    fit_risks = head.trees.risk(matrix_of(package, trained.split.fit))
    events = int(trained.split.fit["event"].sum())
    different = distinct_events(trained.split.fit)
    reasons = too_few_events(different, len(package.columns))
    groups = subgroups(package, head, test)
    shares = category_shares(package, head.trees, matrix_of(package, test))
    return {
        "status": "experimental" if reasons else "adequate",
        "reasons": reasons,
        "warnings": _warnings(package, shares, groups),
        "split": {
            "fit": len(trained.split.fit),
            "fit_events": events,
            "fit_distinct_events": different,
            "test": len(test),
        },
        "rounds": trained.rounds,
        "platt": {"slope": trained.platt[0], "intercept": trained.platt[1]},
        "background": {
            "rows": len(trained.background),
            "mean_risk": head.trees.reference_risk,
            "comparable_patients": len(fit_risks),
            "comparable_mean_risk": float(fit_risks.mean()),
        },
        "risk_percentiles": {
            str(q): float(np.percentile(fit_risks, q)) for q in (10, 25, 50, 75, 80, 90, 95, 99)
        },
        "test": figures(package, head, test, {}),
        "trees_minus_logistic": auroc_difference(package, head, test),
        "subgroups": groups,
        "subgroups_unknown": groups_unknown(package.manifest),
        "learning_curve": learning_curve(package, head, trained.split, made.refits.learning),
        "uncertainty": {
            "method": METHOD,
            "refits": REFITS,
            "rows": [
                dict(zip(COLUMNS, row, strict=True)) for row in _uncertainty(package, made).tolist()
            ],
        },
        "shuffled_outcomes": {
            "auroc": made.shuffled,
            "allowed": chance_limits(len(trained.split.fit), events),
        },
        "category_shares": shares,
    }


def _warnings(
    package: Package, shares: dict[str, float], groups: list[dict[str, Any]]
) -> list[str]:
    """What a reader of the card must know before its figures."""
    labels = {c.id: c.label.en for c in package.manifest.categories}
    alone = dominating(shares)
    found = [f"O/E of the group {name} is more than 20 % off" for name in uncalibrated(groups)]
    if alone is not None:
        found.append(
            f"the category {labels[alone]} holds {100 * shares[alone]:.0f} % of all contributions: "
            "look for the outcome in it"
        )
    return found


def _add_gate(metrics: dict[str, Any], package: Package, gate: Cohort) -> None:
    """Add every head's figures on an independent cohort."""
    for head in package.heads:
        frame = known_outcomes(gate.of_head(head.id))
        metrics["heads"][head.id]["gate"] = figures(package, head, frame, gate.excluded)


# ---- files ----------------------------------------------------------------------------------


def _write_words(folder: Path, spec: Specification, metrics: dict[str, Any]) -> None:
    """Write metrics and model card, and the checksums of all files."""
    (folder / "metrics.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n"
    )
    card = model_card(spec.manifest, metrics)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    write_checksums(folder)


def _move_in(staged: Path, folder: Path) -> None:
    """Put a whole package in the place of what was there."""
    for name in MADE:
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(staged, folder, dirs_exist_ok=True)


def _write_examples(package: Package, index: BulkIndex, trained: Trained) -> None:
    """Worked examples: test patients spread over the risks, as Bundles with what they must get."""
    folder = package.folder / "examples"
    folder.mkdir(exist_ok=True)
    test = trained.split.test
    order = np.argsort(package.heads[0].trees.risk(matrix_of(package, test)), kind="stable")
    places = [int((i + 0.5) / EXAMPLES * len(order)) for i in range(EXAMPLES - 1)] + [-3]
    for number, place in enumerate(places, start=1):
        row = test.iloc[int(order[place])]
        lines = read_patient(index, str(row["patient"]))
        bundle = b'{"resourceType":"Bundle","type":"collection","entry":[%s]}' % b",".join(
            b'{"resource":%s}' % line.strip() for line in lines
        )
        as_of = parse_time(row["index_time"].isoformat())
        (folder / f"{number:02}.json").write_bytes(make_example(package, bundle, as_of))
