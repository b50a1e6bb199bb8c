"""The report as one HTML page that opens offline.

Lives here: words, tables and layout. Does not live here: computing (`analysis`), hiding
(`disclosure`), drawing (`plots`), writing (`report`). Called by `validation.report`.

Styles and figures are inside the page, there is no script, and its own content security policy
forbids every request. Everything that comes from outside is escaped.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final, TypedDict

import pandas as pd

from validation import disclosure, plots
from validation.analysis import DEATH_AS_EVENT, Validation
from validation.cohort import FlowStep
from validation.comparison import Comparison
from validation.disclosure import HIDDEN_BASIS, Shown
from validation.statistics import MIN_PATIENTS, Statistic

SYNTHETIC_BANNER: Final = (
    "Synthetic: the model was trained on made-up patients. "
    "The figures say that the software works, not that the model does."
)
SYNTHETIC_DATA_BANNER: Final = (
    "Synthetic: the patients of these data are made up. The figures say nothing about patients."
)


class Label(TypedDict):
    """How a statistic is called in the page, what it should be, and how it is written."""

    text: str
    ideal: str
    percent: bool


LABELS: Final[Mapping[str, Label]] = {
    "event_rate": {"text": "Had the outcome", "ideal": "", "percent": True},
    "mean_risk": {"text": "Mean predicted risk", "ideal": "the share above", "percent": True},
    "auroc": {"text": "AUROC (discrimination)", "ideal": "1; 0.5 is chance", "percent": False},
    "observed_expected": {"text": "Observed / expected", "ideal": "1", "percent": False},
    "calibration_in_the_large": {
        "text": "Calibration in the large",
        "ideal": "0",
        "percent": False,
    },
    "calibration_slope": {
        "text": "Calibration slope",
        "ideal": "1; below: too extreme",
        "percent": False,
    },
    "brier": {"text": "Brier score", "ideal": "0", "percent": False},
    "brier_scaled": {"text": "Brier score, scaled", "ideal": "1; 0 is the mean", "percent": False},
    "flag_rate": {"text": "Flagged, of all", "ideal": "", "percent": True},
    "sensitivity": {
        "text": "Flagged, of those with the outcome (sensitivity)",
        "ideal": "",
        "percent": True,
    },
    "specificity": {
        "text": "Not flagged, of those without the outcome (specificity)",
        "ideal": "",
        "percent": True,
    },
    "ppv": {"text": "Had the outcome, of those flagged (PPV)", "ideal": "", "percent": True},
    "share_with": {"text": "Predictions with the whole score", "ideal": "", "percent": True},
    "auroc_of": {"text": "AUROC of the score", "ideal": "", "percent": False},
    "model_auroc_beside": {
        "text": "AUROC of the model, same predictions",
        "ideal": "",
        "percent": False,
    },
    "auroc_difference": {"text": "Model less score", "ideal": "", "percent": False},
    "observed_expected_of": {
        "text": "Observed / expected by the score",
        "ideal": "",
        "percent": False,
    },
    "calibration_slope_of": {
        "text": "Calibration slope of the score's risk",
        "ideal": "",
        "percent": False,
    },
}
"""In the order of the page."""

BESIDE_SCORES: Final = """
Each score is computed from the same record at the same moment as the model's risk, and only where
every input it needs is known. Score and model are compared on the predictions that have the whole
score, so the model's AUROC here may differ from the one above. The interval of the difference draws
patients and measures both in each draw; where it holds 0, the data do not tell which puts the
patients in the better order.

What this cannot say: whether patients fare better with either; how the two compare in patients
whose score lacks an input; how well a score does what it was made for, where that is another
outcome or another time. A score of whole points ties many patients, and ties count half.
"""
"""What the comparison can and cannot say."""


def build_page(validation: Validation, shown: Shown, about: Mapping[str, Any]) -> str:
    """The whole page; `about` is what `report.write_report` was told of model, data and plan."""
    style = _template("report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return Template(_template("report.html")).substitute(
        title=escape(about["title"]),
        style=style,
        style_hash=f"sha256-{digest}",
        summary=escape(_summary(validation)),
        banner=_banner(about),
        facts=_facts(validation, about),
        plan=_paragraphs(about["plan"]),
        flow=_flow_table(shown.flow),
        headline=_statistics_table(_primary(shown.statistics)),
        thresholds=_threshold_tables(shown.at_thresholds),
        calibration=_image(
            plots.draw_calibration(shown.calibration_groups, shown.calibration_curve)
        ),
        calibration_table=_groups_table(shown.calibration_groups),
        decision=_image(plots.draw_decision_curve(shown.decision_curve, list(shown.at_thresholds))),
        distribution=_image(plots.draw_distribution(shown.distribution)),
        sensitivity=_sensitivity(shown.statistics),
        comparisons=_comparisons(shown.comparisons),
        methods=_methods(validation, shown),
        footer=escape(f"Varsel {about['software_version']}, {about['made_at']}"),
    )


def _template(name: str) -> str:
    return (files("validation") / "templates" / name).read_text(encoding="utf-8")


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _summary(validation: Validation) -> str:
    return (
        f"{validation.n:,} predictions of {validation.patients:,} patients, made from "
        f"{validation.first:%Y-%m-%d} to {validation.last:%Y-%m-%d}; "
        f"{validation.events:,} were followed by the outcome."
    )


def _banner(about: Mapping[str, Any]) -> str:
    said = {
        SYNTHETIC_BANNER: about["model"]["synthetic"],
        SYNTHETIC_DATA_BANNER: about["synthetic_data"],
    }
    shown = (text for text, holds in said.items() if holds)
    return "".join(f'<p class="banner" role="note">{escape(text)}</p>' for text in shown)


def _facts(validation: Validation, about: Mapping[str, Any]) -> str:
    model = about["model"]
    rows = [
        ("Model", f"{model['id']} {model['version']}"),
        ("Checksum of the package", model["checksum"]),
        ("Outcome", f"{about['head']['id']}, a card from {about['head']['threshold'] * 100:g} %"),
        *((f"Data: {name}", f"SHA-256 {digest}") for name, digest in about["data"].items()),
        ("Card thresholds", ", ".join(f"{t * 100:g} %" for t in validation.at_thresholds)),
    ]
    cells = "".join(f"<tr><th scope=row>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return f'<table class="facts"><tbody>{cells}</tbody></table>'


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(one.strip())}</p>" for one in text.split("\n\n") if one.strip())


def _flow_table(flow: Sequence[FlowStep]) -> str:
    rows = [
        _row(
            [step.step.capitalize(), step.reason],
            [f"{step.n:,}"],
            style="total" if step.step in {"considered", "analysed"} else "",
        )
        for step in flow
    ]
    return _table(["Step", "Why"], ["Predictions"], rows)


def _primary(statistics: Sequence[Statistic]) -> list[Statistic]:
    return [one for one in statistics if not one.name.startswith(DEATH_AS_EVENT)]


def _statistics_table(statistics: Sequence[Statistic]) -> str:
    order = list(LABELS)
    rows = [
        _row([_label(one)["text"]], [*_figures(one)], after=[_label(one)["ideal"], _basis(one)])
        for one in sorted(statistics, key=lambda one: order.index(_base(one)))
    ]
    return _table(["Statistic"], ["Value", "95 % interval"], rows, after=["Ideal", "Basis"])


def _threshold_tables(at_thresholds: Mapping[float, Sequence[Statistic]]) -> str:
    return "".join(
        f"<h3>{threshold * 100:g} %</h3>"
        + _table(
            ["Statistic"],
            ["Value", "95 % interval"],
            [_row([_label(s)["text"]], [*_figures(s)], after=[_basis(s)]) for s in statistics],
            after=["Basis"],
        )
        for threshold, statistics in at_thresholds.items()
    )


def _groups_table(groups: pd.DataFrame) -> str:
    rows = [
        _row(
            [],
            [
                f"{int(group['n']):,}",
                _or_hidden(group["events"], "{:,.0f}"),
                _percent(group["mean_risk"]),
                _or_hidden(group["observed"] * 100, "{:.1f} %"),
                _span(group["low"], group["high"], percent=True),
            ],
        )
        for group in groups.to_dict("records")
    ]
    heads = ["Predictions", "Outcomes", "Mean risk", "Observed", "95 % interval"]
    return _table([], heads, rows)


def _sensitivity(statistics: Sequence[Statistic]) -> str:
    composite = [one for one in statistics if one.name.startswith(DEATH_AS_EVENT)]
    if not composite:
        return ""
    return (
        "<section><h2>Sensitivity analysis: death counted as an event</h2>"
        "<p>The model predicts the outcome itself; patients who died first count as without it "
        "above. Here they count as having had it.</p>"
        f"{_statistics_table(composite)}</section>"
    )


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""
    tables = "".join(_comparison(one) for one in comparisons)
    return (
        f"<section><h2>Beside published scores</h2>{_paragraphs(BESIDE_SCORES)}{tables}</section>"
    )


def _comparison(one: Comparison) -> str:
    score = one.comparator
    held = {
        "outcome": " Its risk is held against the outcome.",
        "outcome-or-death": " Its risk is held against the outcome or death, whichever came first.",
        None: " It gives no risk of this outcome; only the order is compared.",
    }[score.risk_of]
    made_for = f" Made for: {score.predicts}." if score.predicts else ""
    about = f"{score.version}.{made_for}{held}"
    rows = [
        _row([_label(s, score.id)["text"]], [*_figures(s, score.id)], after=[_basis(s)])
        for s in (one.share, *one.statistics)
    ]
    table = _table(["Statistic"], ["Value", "95 % interval"], rows, after=["Basis"])
    return f"<h3>{escape(score.label)}</h3><p>{escape(about)}</p>{table}"


def _methods(validation: Validation, shown: Shown) -> str:
    methods: dict[str, list[str]] = {}
    for one in _primary(shown.statistics):
        methods.setdefault(one.method, []).append(_label(one)["text"])
    items = [f"{', '.join(names)}: {method}." for method, names in methods.items()]
    items += [
        f"The bootstrap draws patients, each with all predictions, from seed {validation.seed}.",
        "The flexible curve is a logistic regression on a cubic spline of the predicted log-odds.",
        f"Nothing is computed under {MIN_PATIENTS} patients with the outcome, or without.",
    ]
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


# Cells


def _base(one: Statistic, score: str = "") -> str:
    """The name in `LABELS`, without prefix and threshold, and without the score it is of."""
    name = one.name.removesuffix(f"_{score}") if score else one.name.split("_at_")[0]
    return name.removeprefix(f"{DEATH_AS_EVENT}_")


def _label(one: Statistic, score: str = "") -> Label:
    return LABELS[_base(one, score)]


def _figures(one: Statistic, score: str = "") -> tuple[str, str]:
    """Value and interval as text; a dash where there is none."""
    if one.value is None or one.low is None or one.high is None:
        return "–", "–"
    percent = _label(one, score)["percent"]
    value = _percent(one.value) if percent else _decimal(one.value)
    return value, _span(one.low, one.high, percent=percent)


def _basis(one: Statistic) -> str:
    if one.value is None:
        return one.method
    if one.n is None:
        return HIDDEN_BASIS
    return f"{one.events:,} of {one.n:,}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _decimal(value: float) -> str:
    return f"{value:.3f}"


def _span(low: float, high: float, *, percent: bool) -> str:
    if math.isnan(low) or math.isnan(high):
        return disclosure.HIDDEN
    if percent:
        return f"{low * 100:.1f} to {high * 100:.1f} %"
    return f"{_decimal(low)} to {_decimal(high)}"


def _or_hidden(value: float, form: str) -> str:
    return disclosure.HIDDEN if math.isnan(value) else form.format(value)


def _row(
    words: Sequence[str], numbers: Sequence[str], *, after: Sequence[str] = (), style: str = ""
) -> str:
    cells = [f"<td>{escape(word)}</td>" for word in words]
    cells += [f'<td class="number">{escape(number)}</td>' for number in numbers]
    cells += [f'<td class="quiet">{escape(word)}</td>' for word in after]
    return f'<tr class="{style}">{"".join(cells)}</tr>'


def _table(
    words: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[str],
    *,
    after: Sequence[str] = (),
) -> str:
    heads = [f'<th scope="col">{escape(word)}</th>' for word in words]
    heads += [f'<th scope="col" class="number">{escape(number)}</th>' for number in numbers]
    heads += [f'<th scope="col">{escape(word)}</th>' for word in after]
    return f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
