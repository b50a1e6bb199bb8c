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
from cds_service.training.card import model_card
from cds_service.training.examples import write_examples
from cds_service.training.figures import (
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
from fhir_adapters.bulk import index_bulk_data
from models.cohort import Cohort, build_cohort
from models.errors import TrainingRefused
from models.fitting import Floats, matrix_of, risks_of
from models.manifest import Head as Words
from models.package import (
    Head,
    Package,
    Specification,
    load_package,
    read_specification,
    require_layout,
    table_text,
    write_checksums,
)
from models.refits import STEPS, refit, shuffled_auroc
from models.training import (
    Trained,
    fits_of,
    known_outcomes,
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
    few_events_warnings,
    preferred_model,
    refuse_learned_chance,
    too_few_events,
)
from models.training_kept import TrainedHead, Work, versions, work_on
from models.tuning import with_training
from models.uncertainty import COLUMNS, METHOD, REFITS, uncertainty_table

Progress = Callable[[int, int], None]
MADE = ("heads", "examples")
"""The folders of a package that a run makes anew."""
SETTINGS = (
    "max_depth",
    "min_child_weight",
    "learning_rate",
    "reg_lambda",
    "subsample",
    "colsample_bytree",
)
"""What can be searched, by the name in `[training]`."""


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
    require_layout(folder, spec.manifest)
    _refuse_rankings(spec)
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
        metrics["examples"] = write_examples(package, index, next(iter(trained.values())).trained)
        _write_words(staged, spec, metrics)
        load_package(staged)
        _move_in(staged, folder)
    return {**metrics, "reused": kept.reused}


def _refuse_rankings(spec: Specification) -> None:
    """Raises TrainingRefused for a package that ranks classes: its booster is brought ready."""
    if spec.manifest.rankings:
        raise TrainingRefused(
            f"rankings.{spec.manifest.rankings[0].id}: a ranking is not trained here; bring its "
            "booster ready made (docs/packages.md)"
        )


def _cohort(spec: Specification, data: Path, kept: Work, *, progress: Progress) -> Cohort:
    """The cohort of Bulk Data, unless an earlier run kept it."""
    return kept.cohort(lambda: build_cohort(spec, data, progress=progress))


# ---- heads ----------------------------------------------------------------------------------


def _train_heads(
    spec: Specification, cohort: Cohort, kept: Work, progress: Progress
) -> dict[str, TrainedHead]:
    """Every head on its rows; `progress` is told the rounds of all fits of all heads as one."""
    words, heads = spec.manifest.training, spec.manifest.heads
    lengths = [(fits_of(words, head.kind) + STEPS) * words.rounds for head in heads]
    made: dict[str, TrainedHead] = {}
    for place, head in enumerate(heads):
        frame = cohort.of_head(head.id)
        require_judgeable(split_by_time(known_outcomes(frame), words).test)
        told = partial(_tell, progress, before=sum(lengths[:place]), total=sum(lengths))
        make = partial(_train_head, spec, head, frame, kept=kept, told=told)
        made[head.id] = kept.head(spec, head.id, frame=frame, make=make)
        told(lengths[place])
    return made


def _tell(progress: Progress, done: int, *, before: int, total: int) -> None:
    """Tell what is done of one head as part of all."""
    progress(before + done, total)


def _train_head(
    spec: Specification,
    head: Words,
    frame: pd.DataFrame,
    *,
    kept: Work,
    told: Callable[[int], None],
) -> TrainedHead:
    """One head with its refits, unless outcomes dealt at random can be learned in its cohort."""
    words = spec.manifest.training
    trained = train(
        spec,
        frame,
        lambda done, _: told(done),
        kind=head.kind,
        keep=partial(kept.candidate, head.id),
    )
    fit = trained.split.fit
    shuffled = shuffled_auroc(with_training(spec, trained.training), fit, head.kind)
    refuse_learned_chance(shuffled, rows=len(fit), events=int(fit["event"].sum()))
    before = fits_of(words, head.kind) * words.rounds
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
    return uncertainty_table(risks_of(made.trained.model, rows), np.array(made.refits.bootstrap).T)


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
    fit_risks = head.model.risk(matrix_of(package, trained.split.fit))
    events = int(trained.split.fit["event"].sum())
    different = distinct_events(trained.split.fit)
    reasons = too_few_events(different, len(package.columns))
    groups = subgroups(package, head, test)
    shares = category_shares(package, head.model, matrix_of(package, test))
    warnings = _warnings(package, shares, groups)
    if reasons:
        warnings += few_events_warnings(package, trained.training, trained.kind)
    return {
        "kind": trained.kind,
        "status": "experimental" if reasons else "adequate",
        "reasons": reasons,
        "warnings": warnings,
        "split": {
            "fit": len(trained.split.fit),
            "fit_events": events,
            "fit_distinct_events": different,
            "test": len(test),
        },
        "rounds": trained.rounds,
        "settings": settings(trained),
        "platt": {"slope": trained.platt[0], "intercept": trained.platt[1]},
        "background": {
            "rows": len(trained.background),
            "mean_risk": head.model.reference_risk,
            "comparable_patients": len(fit_risks),
            "comparable_mean_risk": float(fit_risks.mean()),
        },
        "risk_percentiles": {
            str(q): float(np.percentile(fit_risks, q)) for q in (10, 25, 50, 75, 80, 90, 95, 99)
        },
        "test": figures(package, head, test, {}),
        **_beside(package, head, test, few=bool(reasons)),
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
            "auroc": made.shuffled.auroc,
            "shuffles": made.shuffled.shuffles,
            "allowed": chance_limits(len(trained.split.fit), events, made.shuffled.shuffles),
        },
        "category_shares": shares,
    }


def settings(trained: Trained) -> dict[str, Any]:
    """The settings of the boosting that were used, and where they were searched, how every
    candidate did; empty for a logistic model."""
    if trained.kind == "logistic":
        return {}
    used = {name: getattr(trained.training, name) for name in SETTINGS}
    if not trained.candidates:
        return {"used": used}
    tried = [msgspec.to_builtins(candidate) for candidate in trained.candidates]
    return {"used": used, "candidates": tried, "seed": trained.training.seed}


def _beside(package: Package, head: Head, test: pd.DataFrame, *, few: bool) -> dict[str, Any]:
    """How trees stand to the logistic model beside them, and which of the two is preferred."""
    difference = auroc_difference(package, head, test)
    if difference is None:
        return {}
    preferred = preferred_model(difference, few=few)
    return {
        "trees_minus_logistic": difference,
        "preferred": preferred.kind,
        "preferred_because": preferred.reason,
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
