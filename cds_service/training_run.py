"""One training run, start to finish: cohort, training, figures, examples, model card, checksums.

Called by `varsel models train`. The figures come from `validation` on the newest part of the cohort
and, where given, on an independent cohort (the gate). Needs the `study` extra.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from cds_service import __version__
from cds_service.model_card import model_card
from fhir_adapters.bulk import index_bulk_data, read_patient
from fhir_adapters.clock import parse_time
from models.cohort import Cohort, build_cohort
from models.examples import make_example
from models.package import (
    Head,
    Package,
    Specification,
    load_package,
    read_specification,
    write_checksums,
)
from models.training import Trained, known_outcomes, train, write_head, write_reference
from validation.analysis import Validation, validate

Progress = Callable[[int, int], None]
EXAMPLES = 4
CARD_DRAWS = 500


def train_package(
    folder: Path,
    data: Path,
    *,
    gate_data: Path | None,
    cohort_progress: Progress,
    training_progress: Progress,
) -> dict[str, Any]:
    """Train the package of a folder on Bulk Data and write all its files but the manifest.

    Returns what was achieved, as it stands in metrics.json.
    """
    spec = read_specification(folder)
    cohort = build_cohort(spec, data, progress=cohort_progress)
    trained = _train_heads(spec, cohort, training_progress)
    for head_id, made in trained.items():
        write_head(folder, spec, head_id, made)
    first = next(iter(trained.values()))
    write_reference(folder, spec, first)
    _clear_examples(folder)
    write_checksums(folder)
    package = load_package(folder)
    metrics = _metrics(package, cohort, trained)
    if gate_data is not None:
        gate = build_cohort(spec, gate_data, progress=cohort_progress)
        for head in package.heads:
            frame = known_outcomes(gate.of_head(head.id))
            metrics["heads"][head.id]["gate"] = figures(package, head, frame, gate.excluded)
    _write_examples(package, data, first)
    (folder / "metrics.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n"
    )
    card = model_card(spec.manifest, metrics)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    write_checksums(folder)
    load_package(folder)
    return metrics


def _train_heads(spec: Specification, cohort: Cohort, progress: Progress) -> dict[str, Trained]:
    """Every head on its rows; `progress` is told the rounds of all heads as one count."""
    heads = [head.id for head in spec.manifest.heads]
    trained = {}
    for place, head in enumerate(heads):

        def told(done: int, total: int, place: int = place) -> None:
            progress(place * total + done, len(heads) * total)

        trained[head] = train(spec, cohort.of_head(head), told)
    return trained


def _metrics(package: Package, cohort: Cohort, trained: dict[str, Trained]) -> dict[str, Any]:
    return {
        "software_version": __version__,
        "cohort": {
            "patients": cohort.patients,
            "indexes": cohort.indexes,
            "excluded": cohort.excluded,
            "rows": len(cohort.frame),
        },
        "heads": {h.id: _head_metrics(package, h, trained[h.id]) for h in package.heads},
    }


def _head_metrics(package: Package, head: Head, trained: Trained) -> dict[str, Any]:
    fit_risks = head.trees.risk(_matrix(package, trained.split.fit))
    return {
        "split": {
            "fit": len(trained.split.fit),
            "test": len(trained.split.test),
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
        "test": figures(package, head, trained.split.test, {}),
    }


def _matrix(spec: Specification, frame: pd.DataFrame) -> Any:
    return frame[spec.columns].to_numpy(dtype=np.float64)


def figures(
    package: Package, head: Head, frame: pd.DataFrame, excluded: dict[str, int]
) -> dict[str, Any]:
    """AUROC, calibration and the rest with intervals, of a head's trees and of its baseline."""
    matrix = _matrix(package, frame)
    words = next(h for h in package.manifest.heads if h.id == head.id)
    bands = [band.from_risk for band in words.bands if band.from_risk > 0]
    results = {
        "trees": _validated(frame, head.trees.risk(matrix), bands, excluded),
        "logistic": _validated(frame, head.baseline.risk(matrix), bands, excluded),
    }
    named = {name: {s.name: _figure(s) for s in v.statistics} for name, v in results.items()}
    thresholds = results["trees"].at_thresholds
    flagged = {f"{t:g}": {s.name: _figure(s) for s in found} for t, found in thresholds.items()}
    events = int((frame["state"] == "event").sum())
    return {"n": len(frame), "events": events, **named, "at_thresholds": flagged}


def _validated(
    frame: pd.DataFrame, risks: Any, bands: list[float], excluded: dict[str, int]
) -> Validation:
    rows = frame[["patient", "index_time", "state"]].assign(risk=risks)
    return validate(rows, thresholds=bands, excluded=excluded, bootstrap=CARD_DRAWS, seed=1)


def _figure(statistic: Any) -> dict[str, float | None]:
    return {"value": statistic.value, "low": statistic.low, "high": statistic.high}


def _clear_examples(folder: Path) -> None:
    for path in (folder / "examples").glob("*.json"):
        path.unlink()


def _write_examples(package: Package, data: Path, trained: Trained) -> None:
    """Worked examples: test patients spread over the risks, as Bundles with what they must get."""
    folder = package.folder / "examples"
    folder.mkdir(exist_ok=True)
    test = trained.split.test
    order = np.argsort(package.heads[0].trees.risk(_matrix(package, test)), kind="stable")
    places = [int((i + 0.5) / EXAMPLES * len(order)) for i in range(EXAMPLES - 1)] + [-3]
    index = index_bulk_data(data)
    for number, place in enumerate(places, start=1):
        row = test.iloc[int(order[place])]
        lines = read_patient(index, str(row["patient"]))
        bundle = b'{"resourceType":"Bundle","type":"collection","entry":[%s]}' % b",".join(
            b'{"resource":%s}' % line.strip() for line in lines
        )
        as_of = parse_time(row["index_time"].isoformat())
        (folder / f"{number:02}.json").write_bytes(make_example(package, bundle, as_of))
