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
        *(_verdict(head, metrics["heads"][head.id]) for head in manifest.heads),
        manifest.description.en,
        _facts(manifest),
        "## Who it is not for",
        "\n".join(f"- {rule.text.en} (`{rule.reason}`)" for rule in manifest.scope),
        "## What must be known before a number is given",
        "\n".join(f"- {part.text.en}" for part in manifest.minimum),
        _cohort(metrics),
        _missing(manifest, metrics["missing"]),
        _rows_of_patients(manifest, metrics["examples"]),
        *(_head(head, metrics["heads"][head.id]) for head in manifest.heads),
        _EXPLANATION,
        _inputs(manifest),
        _repeat(metrics),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(manifest: Manifest) -> str:
    training = manifest.training
    depth = "" if training.search else f"depth {training.max_depth}, "
    said = {
        "trees": f"gradient-boosted trees (XGBoost), {depth}monotone constraints, Platt "
        f"calibration folded into the leaves; seed {training.seed}.",
        "logistic": "penalised logistic regression on standardised features, weights of the signs "
        "below, Platt calibration folded in; the missing count as the median.",
    }
    kinds = dict.fromkeys(head.kind for head in manifest.heads)
    return f"- **Hooks**: {', '.join(manifest.hooks)}.\n" + "\n".join(
        f"- **Model**: {said[kind]}" for kind in kinds
    )


_WARNING = (
    "> **Trained on SYNTHETIC data. Not for clinical use.** The figures below say how well the "
    "model recovers the rules of its own generator (docs/synthetic-cohorts.md). They say nothing "
    "about patients."
)


def _verdict(head: Head, metrics: dict[str, Any]) -> str:
    """What must be known of a head before its figures; empty where there is nothing."""
    said = []
    if metrics["status"] == "experimental":
        said.append(f"**Experimental**: {'; '.join(metrics['reasons'])}.")
    said += [f"**Warning**: {warning}." for warning in metrics["warnings"]]
    if "trees_minus_logistic" in metrics:
        said += [_trees_or_logistic(metrics["trees_minus_logistic"]), _preferred(head, metrics)]
    return "\n>\n".join(f"> {head.title.en}: {line}" for line in said if line)


def _trees_or_logistic(difference: dict[str, float | None]) -> str:
    low, high = difference["low"] or 0.0, difference["high"] or 0.0
    if low > 0.0:
        return ""
    if high < 0.0:
        return f"**The logistic model is better**: AUROC trees - logistic {_said(difference, 4)}."
    return (
        "**Trees not clearly better than the logistic model** (AUROC trees - logistic "
        f"{_said(difference, 4)}): the simpler model is as good as can be told, and preferable."
    )


def _preferred(head: Head, metrics: dict[str, Any]) -> str:
    if metrics["preferred"] == "trees":
        return ""
    return (
        f"**Preferred: the logistic model**, because {metrics['preferred_because']}. Served are "
        f'the trees; `kind = "logistic"` in the head `{head.id}` of the manifest, and training '
        "again, changes that."
    )


def _difference(difference: dict[str, float | None]) -> str:
    return f"AUROC trees - logistic, on the same drawn patients: {_said(difference, 4)}."


_EXPLANATION = (
    "## Explanation\n\nAdditive TreeSHAP, interventional, rescaled to probability "
    "(docs/explanation.md), against about a hundred rows of the training cohort a head."
)


def _cohort(metrics: dict[str, Any]) -> str:
    cohort = metrics["cohort"]
    excluded = "\n".join(f"| {reason} | {n} |" for reason, n in cohort["excluded"].items())
    return (
        f"## Training cohort\n\n{cohort['patients']} patients, {cohort['indexes']} indexes, "
        f"{cohort['rows']} rows.\n\n| Left out | n |\n|---|---|\n{excluded}\n\n"
        f"{metrics['rows_dated_again']} rows were computed again from the records: no feature "
        "rests on a finding from after its moment."
    )


def _missing(manifest: Manifest, missing: dict[str, dict[str, float]]) -> str:
    rows = "\n".join(
        f"| {f.label.en} | {100 * missing[f.name]['rows']:.1f} % "
        f"| {100 * missing[f.name]['newest']:.1f} % |"
        for f in manifest.inputs
        if missing[f.name]["rows"] > 0
    )
    never = sum(share["rows"] == 0 for share in missing.values())
    table = f"| Missing | All rows | Newest part |\n|---|---|---|\n{rows}\n\n" if rows else ""
    return f"## Missing values\n\n{table}{never} of {len(missing)} features are never missing."


def _head(head: Head, metrics: dict[str, Any]) -> str:
    split = metrics["split"]
    parts = [
        f"## {head.title.en} (`{head.id}`)",
        f"- **Outcome**: {head.outcome} (within {head.horizon_days} days).\n"
        + _shown(head)
        + f"\n- **Trained on** {split['fit']} rows, {split['fit_events']} followed by one of "
        f"{split['fit_distinct_events']} events, "
        f"{_rounds(metrics)}calibration slope folded in "
        f"{metrics['platt']['slope']:.3f}; tested on the newest {split['test']}.\n"
        + _background(metrics["background"])
        + "\n"
        + _leakage(metrics),
        _figures("Newest part of the training cohort (no patient in common)", metrics["test"]),
        _difference(metrics["trees_minus_logistic"]) if "trees_minus_logistic" in metrics else "",
        _search(metrics["settings"]),
        _subgroups(metrics["subgroups"], metrics["subgroups_unknown"]),
        _learning_curve(metrics["learning_curve"]),
        _uncertainty(metrics["uncertainty"]),
        _figures("Independent cohort", metrics["gate"]) if "gate" in metrics else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _shown(head: Head) -> str:
    if head.role == "context":
        return (
            "- **Shown** for context only, on the card of another head; never moves its indicator."
        )
    return f"- **Card from**: risk {head.threshold:g} ({head.threshold_source})."


def _rounds(metrics: dict[str, Any]) -> str:
    return f"{metrics['rounds']} rounds, " if metrics["kind"] == "trees" else ""


_KINDS = {"trees": "Trees", "logistic": "Penalised logistic"}


def _figures(what: str, part: dict[str, Any]) -> str:
    kinds = [kind for kind in _KINDS if kind in part]
    lines = [
        f"### {what}",
        f"n = {part['n']}, events = {part['events']}. 95 % intervals, clustered by patient.",
        f"| | {' | '.join(_KINDS[kind] for kind in kinds)} |\n|{'---|' * (len(kinds) + 1)}\n"
        + "\n".join(
            f"| {label} | {' | '.join(_said(part[kind].get(name), d) for kind in kinds)} |"
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


def _search(settings: dict[str, Any]) -> str:
    """All that was tried, the chosen first; empty where nothing was searched."""
    tried = sorted(settings.get("candidates", []), key=lambda one: one["log_loss"])
    if not tried:
        return ""
    names = list(tried[0]["settings"])
    rows = "\n".join(
        f"| {_numbers(one['settings'])} | {one['rounds']} | {one['log_loss']:.5f} |"
        for one in tried
    )
    return (
        f"### Settings tried\n\n{len(tried)} combinations, each cross-fitted by patient within "
        f"the part fitted on (seed {settings['seed']}); the first is used. The log loss of the "
        "first is a little too good, being the best of several.\n\n"
        f"| {' | '.join(names)} | rounds | Log loss |\n|{'---|' * (len(names) + 2)}\n{rows}"
    )


def _numbers(settings: dict[str, float]) -> str:
    return " | ".join(f"{value:g}" for value in settings.values())


def _rows_of_patients(manifest: Manifest, examples: str) -> str:
    """What of the data lies in a package trained on real patients; empty for synthetic data."""
    if manifest.synthetic:
        return ""
    return (
        "## What of the patients is in the package\n\nNo patient's record and no patient's row. "
        "Background and reference rows are put together from many patients of like risk: every "
        "value from another one, and none that fewer than five share. Worked examples are "
        f"{examples}. That makes them no proof of anonymity: trees and coefficients were fitted on "
        "patients as well (docs/privacy.md)."
    )


def _leakage(metrics: dict[str, Any]) -> str:
    shuffled, shares = metrics["shuffled_outcomes"], metrics["category_shares"]
    low, high = shuffled["allowed"]
    return (
        f"- **Leakage checks**: outcomes dealt at random ({_times(shuffled['shuffles'])}) are "
        f"ranked with AUROC {shuffled['auroc']:.3f} (allowed {low:.3f} to {high:.3f}); the "
        f"category that weighs most holds {100 * max(shares.values()):.0f} % of all contributions."
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times, the mean"


def _subgroups(groups: list[dict[str, Any]], unknown: list[str]) -> str:
    rows = "\n".join(
        f"| {group['group']} | {_count(group['n'])} | {_count(group['events'])} "
        f"| {_said(group['auroc'], 3)} | {_said(group['observed_expected'], 3)} |"
        for group in groups
    )
    table = f"| Group | n | Events | AUROC | Observed/expected |\n|---|---|---|---|---|\n{rows}"
    left_out = f"Not by {' or '.join(unknown)}: no feature of the model says it." if unknown else ""
    parts = ["### Subgroups of the newest part", table if groups else "", left_out]
    return "\n\n".join(part for part in parts if part)


def _count(count: int | None) -> str:
    return "not shown" if count is None else str(count)


def _learning_curve(points: list[dict[str, Any]]) -> str:
    rows = "\n".join(
        f"| {100 * point['share']:.0f} % | {point['patients']} | {point['events']} "
        f"| {_said(point['auroc'], 3)} | {_loss(point['log_loss'])} |"
        for point in points
    )
    return (
        "### Would more data help\n\nFitted on a share of the patients, with the same rounds and "
        "calibration; the newest part.\n\n"
        f"| Share | Patients | Events | AUROC | Log loss |\n|---|---|---|---|---|\n{rows}"
    )


def _loss(loss: float | None) -> str:
    return "not estimable" if loss is None else f"{loss:.4f}"


def _uncertainty(uncertainty: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {100 * row['risk']:.1f} % | {100 * row['low']:.1f} to {100 * row['high']:.1f} % |"
        for row in uncertainty["rows"]
    )
    return (
        "### Model uncertainty\n\nWhere the same training on other samples of the patients puts a "
        f"risk ({uncertainty['method']}). Not the range of a patient's outcome.\n\n"
        f"| Risk | Refits |\n|---|---|\n{rows}"
    )


def _repeat(metrics: dict[str, Any]) -> str:
    software = ", ".join(f"{name} {release}" for name, release in metrics["software"].items())
    seeds = ", ".join(f"{name} {seed}" for name, seed in metrics["seeds"].items())
    return f"## To train it again\n\nSeeds: {seeds}. Software: {software}."


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
