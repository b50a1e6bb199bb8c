"""The model card: what a package is, is for and is not, with the figures of its training run."""

from __future__ import annotations

from typing import Any

from models.manifest import Head, Manifest

_ROWS = (
    ("auroc", "AUROC", 3),
    ("observed_expected", "Observed/expected", 3),
    ("calibration_slope", "Calibration slope", 3),
    ("calibration_in_the_large", "Calibration in the large", 3),
    ("brier", "Brier score", 4),
)


def model_card(manifest: Manifest, metrics: dict[str, Any]) -> str:
    """The card as Markdown."""
    parts = [
        f"# {manifest.id} {manifest.version}: {manifest.title.en} ({manifest.title.da})",
        _WARNING if manifest.synthetic else "",
        manifest.description.en,
        _facts(manifest),
        "## Who it is not for",
        "\n".join(f"- {rule.text.en} (`{rule.reason}`)" for rule in manifest.scope),
        "## What must be known before a number is given",
        "\n".join(f"- {part.text.en}" for part in manifest.minimum),
        _cohort(metrics),
        *(_head(head, metrics["heads"][head.id]) for head in manifest.heads),
        _EXPLANATION,
        _inputs(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(manifest: Manifest) -> str:
    training = manifest.training
    return (
        f"- **Hooks**: {', '.join(manifest.hooks)}.\n"
        "- **Model**: gradient-boosted trees (XGBoost), depth "
        f"{training.max_depth}, monotone constraints, Platt calibration folded into the leaves; "
        f"seed {training.seed}."
    )


_WARNING = (
    "> **Trained on SYNTHETIC data. Not for clinical use.** The figures below say how well the "
    "model recovers the rules of its own generator (docs/synthetic-cohorts.md). They say nothing "
    "about patients."
)


_EXPLANATION = (
    "## Explanation\n\nAdditive TreeSHAP, interventional, rescaled to probability "
    "(docs/explanation.md), against about a hundred rows of the training cohort a head."
)


def _cohort(metrics: dict[str, Any]) -> str:
    cohort = metrics["cohort"]
    excluded = "\n".join(f"| {reason} | {n} |" for reason, n in cohort["excluded"].items())
    return (
        f"## Training cohort\n\n{cohort['patients']} patients, {cohort['indexes']} indexes, "
        f"{cohort['rows']} rows.\n\n| Left out | n |\n|---|---|\n{excluded}"
    )


def _head(head: Head, metrics: dict[str, Any]) -> str:
    split = metrics["split"]
    parts = [
        f"## {head.title.en} (`{head.id}`)",
        f"- **Outcome**: {head.outcome} (within {head.horizon_days} days).\n"
        + _shown(head)
        + f"\n- **Trained on** {split['fit']} rows, {metrics['rounds']} rounds, calibration slope "
        f"folded in {metrics['platt']['slope']:.3f}; tested on the newest {split['test']}.\n"
        + _background(metrics["background"]),
        _figures("Newest part of the training cohort (no patient in common)", metrics["test"]),
        _figures("Independent cohort", metrics["gate"]) if "gate" in metrics else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _shown(head: Head) -> str:
    if head.role == "context":
        return (
            "- **Shown** for context only, on the card of another head; never moves its indicator."
        )
    return f"- **Card from**: risk {head.threshold:g} ({head.threshold_source})."


def _figures(what: str, part: dict[str, Any]) -> str:
    lines = [
        f"### {what}",
        f"n = {part['n']}, events = {part['events']}. 95 % intervals, clustered by patient.",
        "| | Trees | Penalised logistic |\n|---|---|---|\n"
        + "\n".join(
            f"| {label} | {_said(part['trees'].get(name), d)} "
            f"| {_said(part['logistic'].get(name), d)} |"
            for name, label, d in _ROWS
        ),
        "| Risk from | Flagged | PPV | Sensitivity |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {threshold} | {_said(_at(found, 'flag_rate'), 3)} | {_said(_at(found, 'ppv'), 3)} "
            f"| {_said(_at(found, 'sensitivity'), 3)} |"
            for threshold, found in part["at_thresholds"].items()
        ),
    ]
    return "\n\n".join(lines)


def _at(found: dict[str, Any], name: str) -> dict[str, float | None] | None:
    """The figure of a name among those of one threshold, whose names end in the threshold."""
    return next((figure for key, figure in found.items() if key.startswith(f"{name}_at_")), None)


def _said(figure: dict[str, float | None] | None, decimals: int) -> str:
    if figure is None or figure["value"] is None:
        return "not estimable"
    text = f"{figure['value']:.{decimals}f}"
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text} ({figure['low']:.{decimals}f} to {figure['high']:.{decimals}f})"


def _background(b: dict[str, Any]) -> str:
    return (
        f"- **Compared with** {b['rows']} rows of mean risk {100 * b['mean_risk']:.2f} %; all "
        f"{b['comparable_patients']} it was fitted on have {100 * b['comparable_mean_risk']:.2f} %."
    )


def _inputs(manifest: Manifest) -> str:
    labels = {category.id: category.label.en for category in manifest.categories}
    sign = {1: "rises", -1: "falls", 0: "free"}
    rows = "\n".join(
        f"| {labels[f.category or '']} | {f.label.en} | {f.unit or '–'} | {sign[f.monotone]} |"
        for f in manifest.inputs
    )
    return (
        "## What it looks at\n\nRisk as the value rises: rises, falls, or free.\n\n"
        f"| Category | Feature | Unit | Risk |\n|---|---|---|---|\n{rows}"
    )
