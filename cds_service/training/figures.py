"""The figures of a training run, by `validation`: how good, for whom, and would more data help.

Lives here: what metrics.json holds of a head and a frame. Does not live here: the statistics
(`validation`), the refits and checks (`models`), the order of a run (`training_run`). Needs the
`study` extra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fhir_adapters.features.language import FeatureSpec
from models.fitting import matrix_of
from models.manifest import Head as Words
from models.manifest import Manifest
from models.package import Head, Package, Specification
from models.refits import Learned
from models.training import Split
from validation import resampling
from validation.analysis import Validation, validate
from validation.cohort import Sample, sample_of, select_cohort
from validation.disclosure import is_small
from validation.errors import TooFewEvents
from validation.statistics import Statistic, require_events

CARD_DRAWS = 500
CARD_SEED = 1
"""Bootstrap draws of patients, and their seed, of every interval on the card."""
SUBGROUP_GAP = 0.20
"""How far observed over expected may lie from 1 in a subgroup before the card warns."""
AGES = (("under 65", 0.0, 65.0), ("65 to 79", 65.0, 80.0), ("80 and over", 80.0, math.inf))

Floats = NDArray[np.float64]
Figure = dict[str, float | None]


def require_judgeable(test: pd.DataFrame) -> None:
    """Raises TooFewEvents where fewer than ten patients of the test part had the outcome, or fewer
    than ten had it not: said before hours of fitting, not after."""
    require_events(_sample(test, np.full(len(test), 0.5)))


# ---- a head on a frame ----------------------------------------------------------------------


def figures(
    package: Package, head: Head, frame: pd.DataFrame, excluded: dict[str, int]
) -> dict[str, Any]:
    """AUROC, calibration and the rest with intervals, by the kind of model: of the head's own, and
    of the logistic model beside trees."""
    matrix = matrix_of(package, frame)
    words = _words(package, head)
    bands = [band.from_risk for band in words.bands if band.from_risk > 0]
    results: dict[str, Validation] = {
        words.kind: _validated(frame, head.model.risk(matrix), bands, excluded)
    }
    if head.simpler is not None:
        results["logistic"] = _validated(frame, head.simpler.risk(matrix), bands, excluded)
    named = {name: {s.name: _figure(s) for s in v.statistics} for name, v in results.items()}
    thresholds = results[words.kind].at_thresholds
    flagged = {f"{t:g}": {s.name: _figure(s) for s in found} for t, found in thresholds.items()}
    events = int((frame["state"] == "event").sum())
    return {"n": len(frame), "events": events, **named, "at_thresholds": flagged}


def _words(package: Package, head: Head) -> Words:
    return next(words for words in package.manifest.heads if words.id == head.id)


def _validated(
    frame: pd.DataFrame, risks: Floats, bands: list[float], excluded: dict[str, int]
) -> Validation:
    return validate(
        _with_risks(frame, risks),
        thresholds=bands,
        excluded=excluded,
        bootstrap=CARD_DRAWS,
        seed=CARD_SEED,
    )


def _with_risks(frame: pd.DataFrame, risks: Floats) -> pd.DataFrame:
    return frame[["patient", "index_time", "state"]].assign(risk=risks)


def _figure(statistic: Statistic) -> Figure:
    return {"value": statistic.value, "low": statistic.low, "high": statistic.high}


def _sample(frame: pd.DataFrame, risks: Floats) -> Sample:
    return sample_of(select_cohort(_with_risks(frame, risks), {}))


def _drawn(sample: Sample, measure: Callable[[resampling.Weighted], float]) -> Floats:
    """A measure in each bootstrap sample of patients; two calls draw the same patients."""
    found = resampling.replicates(
        resampling.rank(sample),
        lambda weighted: np.array([measure(weighted)]),
        draws=CARD_DRAWS,
        seed=CARD_SEED,
        progress=lambda *_: None,
    )
    return found[:, 0]


def _measured(sample: Sample, measure: Callable[[resampling.Weighted], float]) -> Figure:
    low, high = resampling.percentile_interval(_drawn(sample, measure))
    return {"value": measure(resampling.weigh_equally(sample)), "low": low, "high": high}


# ---- trees or logistic model ----------------------------------------------------------------


def auroc_difference(package: Package, head: Head, frame: pd.DataFrame) -> Figure | None:
    """AUROC of the trees less that of the logistic model beside them, both on the same drawn
    patients; None for a head with nothing beside it."""
    if head.simpler is None:
        return None
    matrix = matrix_of(package, frame)
    trees, logistic = (_sample(frame, model.risk(matrix)) for model in (head.model, head.simpler))
    differences = _drawn(trees, resampling.auroc) - _drawn(logistic, resampling.auroc)
    low, high = resampling.percentile_interval(differences)
    one, other = (resampling.auroc(resampling.weigh_equally(s)) for s in (trees, logistic))
    return {"value": one - other, "low": low, "high": high}


# ---- for whom -------------------------------------------------------------------------------


def subgroups(package: Package, head: Head, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Discrimination and calibration of men, women and three age groups, as far as the package
    knows them.

    Without figures for a group of fewer than ten patients with the outcome, or without it; and
    without counts where one of them is under five.
    """
    risks = head.model.risk(matrix_of(package, frame))
    return [
        {"group": name, **_of_group(frame[inside], risks[inside])}
        for name, inside in _groups(package.manifest, frame)
        if inside.any()
    ]


def groups_unknown(manifest: Manifest) -> list[str]:
    """The kinds of group the package has no feature for."""
    return [
        kind
        for kind, attribute in (("sex", "male"), ("age", "age"))
        if _attribute(manifest, attribute) is None
    ]


def uncalibrated(groups: list[dict[str, Any]]) -> list[str]:
    """The groups whose observed over expected lies clearly more than 20 % from 1."""
    return [
        group["group"]
        for group in groups
        if (found := group["observed_expected"]) is not None
        and (found["low"] > 1 + SUBGROUP_GAP or found["high"] < 1 - SUBGROUP_GAP)
    ]


def _attribute(manifest: Manifest, attribute: str) -> FeatureSpec | None:
    return next(
        (f for f in manifest.inputs if f.recipe == "patient" and f.attribute == attribute), None
    )


def _groups(manifest: Manifest, frame: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    male, age = _attribute(manifest, "male"), _attribute(manifest, "age")
    if male:
        sex = frame[male.name].to_numpy(dtype=np.float64)
        yield "women", sex == 0.0
        yield "men", sex == 1.0
        yield "sex unknown", np.isnan(sex)
    if age:
        years = frame[age.name].to_numpy(dtype=np.float64)
        for name, start, end in AGES:
            yield name, (years >= start) & (years < end)
        yield "age unknown", np.isnan(years)


def _of_group(frame: pd.DataFrame, risks: Floats) -> dict[str, Any]:
    sample = _sample(frame, risks)
    n, events = sample.n, sample.events
    few = is_small(events) or is_small(n - events)
    counts = {"n": None if few else n, "events": None if few else events}
    try:
        require_events(sample)
    except TooFewEvents:
        return {**counts, "auroc": None, "observed_expected": None}
    return {
        **counts,
        "auroc": _measured(sample, resampling.auroc),
        "observed_expected": _measured(sample, resampling.observed_expected),
    }


# ---- would more data help -------------------------------------------------------------------


def learning_curve(
    package: Package, head: Head, split: Split, learned: list[Learned]
) -> list[dict[str, Any]]:
    """AUROC and log loss of the test part after fitting on shares of the patients, all last."""
    fit, risks = split.fit, head.model.risk(matrix_of(package, split.test))
    whole = Learned(
        share=1.0,
        patients=int(fit["patient"].nunique()),
        rows=len(fit),
        events=int(fit["event"].sum()),
        risks=risks.tolist(),
    )
    return [_point(one, split.test) for one in (*learned, whole)]


def _point(learned: Learned, test: pd.DataFrame) -> dict[str, Any]:
    size = {
        "share": learned.share,
        "patients": learned.patients,
        "rows": learned.rows,
        "events": learned.events,
    }
    if not learned.risks:
        return {**size, "auroc": None, "log_loss": None}
    sample = _sample(test, np.array(learned.risks))
    return {**size, "auroc": _measured(sample, resampling.auroc), "log_loss": log_loss(sample)}


def log_loss(sample: Sample) -> float:
    """The mean of -log of the risk given to what came; 0 is perfect (Good, J R Stat Soc B
    1952;14:107-114)."""
    return float(-np.log(np.where(sample.event, sample.risk, 1.0 - sample.risk)).mean())


# ---- what is missing ------------------------------------------------------------------------


def missing_shares(
    spec: Specification, frame: pd.DataFrame, newest: pd.DataFrame
) -> Mapping[str, dict[str, float]]:
    """Each column's share of rows without a value: of all rows, and of the newest part."""
    return {
        name: {
            "rows": float(frame[name].isna().mean()),
            "newest": float(newest[name].isna().mean()),
        }
        for name in spec.columns
    }
