"""The drift page: our alarms on top, Evidently's table of distributions below.

Lives here: everything that touches Evidently. Does not live here: the decision what is drift
(`comparison`), which Evidently is told to use, so that both parts of the page say the same.
Called by `monitoring.drift`, which imports this module only when a page is drawn: importing
Evidently takes seconds and some 250 MB.

Evidently is never given rows: the values of each column are put in an order of their own first,
so that nothing in the page can be put together to a patient. Its telemetry is switched off.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests.registry import (
    StatTest,
    register_stattest,
)
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

from monitoring.comparison import (
    ColumnComparison,
    Kind,
    Share,
    ks_distance,
    share_distance,
)

YES: Final = "yes"
NO: Final = "no"
SHUFFLE_SEED: Final = 20261121
POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)
"""Evidently's scripts and styles are inside the page; nothing is fetched, from anywhere."""

TESTS: Final[dict[Kind, StatTest]] = {
    "numeric": StatTest(
        "varsel_ks_distance", "Kolmogorov-Smirnov distance", [ColumnType.Numerical]
    ),
    "binary": StatTest("varsel_share_distance", "Cohen's h", [ColumnType.Categorical]),
}


def _score_numeric(
    reference: pd.Series,
    current: pd.Series,
    feature_type: ColumnType,  # noqa: ARG001 - Evidently's signature
    threshold: float,
) -> tuple[float, bool]:
    score = ks_distance(reference.to_numpy(dtype=np.float64), current.to_numpy(dtype=np.float64))
    return score, score >= threshold


def _score_binary(
    reference: pd.Series,
    current: pd.Series,
    feature_type: ColumnType,  # noqa: ARG001 - Evidently's signature
    threshold: float,
) -> tuple[float, bool]:
    before = Share(int((reference == YES).sum()), len(reference))
    score = share_distance(before, Share(int((current == YES).sum()), len(current)))
    return score, score >= threshold


register_stattest(TESTS["numeric"], _score_numeric)
register_stattest(TESTS["binary"], _score_binary)


class DrawnPage(NamedTuple):
    """The page as HTML, and the scores Evidently computed for it by column."""

    html: str
    scores: dict[str, float]


def draw_page(comparisons: Sequence[ColumnComparison], *, header: str) -> DrawnPage:
    """The page with `header` (HTML) on top, for columns that could all be compared (at least one).

    Evidently decides with our distances and our limits, so that it marks what we alarm on. Its
    "dataset drift" is set to mean that any column has drifted: by default it means half of them.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    limits = {one.column.name: one.distribution.limit for one in comparisons if one.distribution}
    preset = DataDriftPreset(
        columns=list(limits),
        per_column_method={one.column.name: TESTS[one.column.kind] for one in comparisons},
        per_column_threshold=limits,
        drift_share=1 / len(limits),
    )
    # Evidently divides by the number of values in a bin, which is 0 for a constant column
    with np.errstate(divide="ignore", invalid="ignore"):
        snapshot = Report([preset]).run(
            current_data=_dataset(comparisons, "current"),
            reference_data=_dataset(comparisons, "reference"),
        )
        html = snapshot.get_html_str(as_iframe=False)
    return DrawnPage(_framed(html, header), _scores(snapshot.dict()["metrics"]))


def _framed(html: str, header: str) -> str:
    """Evidently's page with our header on top and a policy that forbids every request."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return html.replace("<head>", f"<head>\n{policy}", 1).replace("<body>", f"<body>\n{header}", 1)


def _scores(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in metrics
        if "column" in metric["config"]
    }


def _dataset(
    comparisons: Sequence[ColumnComparison], side: Literal["reference", "current"]
) -> Dataset:
    random = np.random.default_rng(SHUFFLE_SEED)
    frame = pd.DataFrame(
        {one.column.name: _shuffled(one, side, random=random) for one in comparisons}
    )
    definition = DataDefinition(
        numerical_columns=[o.column.name for o in comparisons if o.column.kind == "numeric"],
        categorical_columns=[o.column.name for o in comparisons if o.column.kind == "binary"],
    )
    return Dataset.from_pandas(frame, data_definition=definition)


def _shuffled(
    one: ColumnComparison,
    side: Literal["reference", "current"],
    *,
    random: np.random.Generator,
) -> pd.Series:
    """The usable values of a column in an order of its own, with words for a binary one."""
    values = one.reference if side == "reference" else one.current
    numbers = random.permutation(values.numbers)
    if one.column.kind == "numeric":
        return pd.Series(numbers)
    return pd.Series(np.where(numbers == 1, YES, NO))
