"""The figures of the report as SVG text, drawn from the (masked) tables.

Lives here: drawing. Does not live here: any computing. Called by `validation.report`. The only
module that imports matplotlib; it draws on Figure objects and keeps no global state.

Colours are those of Okabe & Ito, which readers with colour blindness can tell apart; line style
and marker differ too, so that the figures survive a black-and-white printer.
"""

from io import StringIO
from typing import Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREY: Final = "#6b6b6b"
SIZE_INCHES: Final = (7.2, 4.6)
SVG_SETTINGS: Final = {"svg.hashsalt": "varsel", "svg.fonttype": "path", "font.size": 10}
"""A fixed salt gives the same file for the same figures; text as paths needs no font to read."""


def draw_calibration(groups: pd.DataFrame, curve: pd.DataFrame) -> str:
    """Observed against predicted risk: tenths with intervals, and the flexible curve with band."""
    figure, axes = _canvas("Predicted risk", "Observed share")
    top = _top(groups["mean_risk"], groups["high"], curve["risk"])
    axes.plot([0, top], [0, top], color=GREY, linestyle="--", linewidth=1, label="Ideal")
    if len(curve):
        axes.fill_between(curve["risk"], curve["low"], curve["high"], color=BLUE, alpha=0.18, lw=0)
        axes.plot(curve["risk"], curve["observed"], color=BLUE, label="Flexible curve, 95 % band")
    shown = groups.dropna(subset=["observed"])
    reach = [shown["observed"] - shown["low"], shown["high"] - shown["observed"]]
    axes.errorbar(
        shown["mean_risk"],
        shown["observed"],
        yerr=np.array(reach),
        fmt="o",
        color=ORANGE,
        markersize=4,
        linewidth=1,
        capsize=2,
        label="Tenths of the risk, 95 % interval",
    )
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    _in_percent(axes, both=True)
    axes.legend(frameon=False, loc="upper left")
    return _svg(figure)


def draw_decision_curve(curve: pd.DataFrame, thresholds: list[float]) -> str:
    """Net benefit by threshold: the model with its band, everyone and no one; cards as dotted."""
    figure, axes = _canvas("Threshold (risk at or above which one acts)", "Net benefit per 100")
    at, scale = curve["threshold"], 100
    axes.fill_between(at, curve["low"] * scale, curve["high"] * scale, color=BLUE, alpha=0.18, lw=0)
    axes.plot(at, curve["net_benefit"] * scale, color=BLUE, label="Act on the model, 95 % band")
    axes.plot(at, curve["treat_all"] * scale, color=ORANGE, linestyle="-.", label="Act on everyone")
    axes.axhline(0, color=GREY, linestyle="--", linewidth=1, label="Act on no one")
    for threshold in thresholds:
        axes.axvline(threshold, color=GREY, linestyle=":", linewidth=1)
    best = max(float(curve["high"].max()), float(curve["treat_all"].max())) * scale
    axes.set_ylim(-0.25 * best, 1.1 * best)
    axes.set_xlim(0, _last_useful(curve))
    _in_percent(axes)
    axes.legend(frameon=False, loc="upper right")
    return _svg(figure)


def draw_distribution(distribution: pd.DataFrame) -> str:
    """How the risks lie among those with (above) and without (below) the outcome, in per cent."""
    figure, axes = _canvas("Predicted risk", "Per cent of the group")
    width = distribution["high"] - distribution["low"]
    for column, sign, colour, label in (
        ("events", 1, ORANGE, "Outcome came"),
        ("others", -1, BLUE, "Outcome did not come"),
    ):
        share = distribution[column].fillna(0) / distribution[column].sum() * 100
        axes.bar(
            distribution["low"],
            share * sign,
            width=width,
            align="edge",
            color=colour,
            edgecolor="white",
            linewidth=0.4,
            label=label,
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlim(0, float(distribution["high"].max()))
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    _in_percent(axes)
    axes.legend(frameon=False, loc="upper right")
    return _svg(figure)


def _canvas(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _in_percent(axes: Axes, *, both: bool = False) -> None:
    for axis in (axes.xaxis, axes.yaxis) if both else (axes.xaxis,):
        axis.set_major_locator(MaxNLocator(nbins=8))
        axis.set_major_formatter(lambda share, _: f"{share * 100:g} %")


def _top(*columns: pd.Series) -> float:
    """The upper end of both axes: the highest shown value, rounded up to 5 percentage points."""
    highest = max(float(column.max()) for column in columns if column.notna().any())
    return min(1.0, float(np.ceil(highest * 20) / 20))


def _last_useful(curve: pd.DataFrame) -> float:
    """The threshold a little past the last that flags anyone."""
    flagged = curve.loc[curve["flagged"].fillna(0) > 0, "threshold"]
    return min(float(flagged.max()) + 0.05, float(curve["threshold"].max()))


def _svg(figure: Figure) -> str:
    text = StringIO()
    with mpl.rc_context(SVG_SETTINGS):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
