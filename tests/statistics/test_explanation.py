"""The bundled package's explanations: sums, words, direction, gaps, stability, the background.

What the points are, and what they are not, is said in docs/explanation.md; that they are Shapley
values of the margin, rescaled, is shown by brute force in `test_trees`. The figures there come
from `test_how_far_the_points_are_from_shapley_values_of_the_probability` (marked slow, run with
`-s`) and from the figures the other tests print.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal
from importlib.resources import files

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cds_service.cards import shown_contributions
from cds_service.cli.scoring import score_one
from cds_service.findings import SMALLEST_SHOWN
from cds_service.server import DEMO_PATIENT
from cds_service.settings import Settings
from cds_service.texts import TEXTS
from cds_service.wording import number, rounded_to_sum
from fhir_adapters.decode import decode_lines
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow
from models.package import Package, read_table
from models.predict import head_predictions, verdict_on
from models.prediction import Contribution, HeadPrediction
from models.synthetic.charts import draw_patients
from models.trees import Trees

Floats = NDArray[np.float64]
PATIENTS, SEED = 420, 70_707
SWEPT, STEPS, TWINS = 200, 20, 12


# ---- real patients, through the real path ---------------------------------------------------


@pytest.fixture(scope="module")
def feature_rows(package: Package) -> list[FeatureRow]:
    """The features at discharge of fresh synthetic patients the model applies to."""
    found = []
    for patient in draw_patients(SEED, PATIENTS):
        record = build_record(decode_lines([line for _, line in patient.resources]), package.wanted)
        row = package.features.compute(record, float(patient.truth.index_end))
        if verdict_on(package, record, row).status == "scored":
            found.append(row)
    return found


@pytest.fixture(scope="module")
def rows(package: Package, feature_rows: list[FeatureRow]) -> Floats:
    """The same as the model sees them, `(patients, columns)`, NaN missing."""
    return np.array([row.numbers(package.columns) for row in feature_rows], dtype=np.float64)


@pytest.fixture(scope="module")
def heads(package: Package, feature_rows: list[FeatureRow]) -> list[HeadPrediction]:
    """What is logged and shown of each."""
    return [head for row in feature_rows for head in head_predictions(package, row, "da")]


@pytest.fixture(scope="module")
def reference(package: Package) -> Floats:
    """The package's sample of training features."""
    return read_table(package.folder / "reference.csv")[1]


@pytest.fixture(scope="module")
def background(package: Package) -> Floats:
    """The package's comparison group."""
    return read_table(package.folder / "heads" / "readmission" / "background.csv")[1]


def columns_of(package: Package, category: str) -> list[int]:
    """Where a category's features stand."""
    return [i for i, f in enumerate(package.manifest.inputs) if f.category == category]


def category_points(package: Package, points: Floats) -> Floats:
    """Points per category, `(patients, categories)`."""
    categories = [c.id for c in package.manifest.categories]
    sums = [points[:, columns_of(package, category)].sum(axis=1) for category in categories]
    return np.column_stack(sums)


def with_value(rows: Floats, column: int, value: float) -> Floats:
    """The patients with one feature set."""
    changed = rows.copy()
    changed[:, column] = value
    return changed


# ---- sums -----------------------------------------------------------------------------------


def test_a_feature_no_tree_uses_adds_nothing(rows: Floats) -> None:
    """The first column says nothing while training, so no tree asks for it, whatever it says."""
    some = rows[:200, :6].copy()
    some[:, 0] = 1.0
    events = some[:, 1] > np.nanmedian(some[:, 1])
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": 3}, xgb.DMatrix(some, events), 10
    )
    trees = Trees(booster, some[:50], [f"f{i}" for i in range(6)])
    some[:, 0] = np.linspace(-5.0, 5.0, len(some))
    assert not trees.points(some)[:, 0].any()
    assert trees.points(some)[:, 1].any()


def test_points_add_up_for_hundreds_of_patients(heads: list[HeadPrediction]) -> None:
    """Categories to 100 x (risk - reference), features to their category: within 1e-4 points."""
    assert len(heads) >= 300
    for head in heads:
        total = math.fsum(c.points for c in head.contributions)
        assert abs(total - 100 * (head.risk - head.reference_risk)) <= 1e-4
        for c in head.contributions:
            assert abs(math.fsum(f.points for f in c.features) - c.points) <= 1e-4
            assert abs(c.positive + c.negative - c.points) <= 1e-4


def printed(value: float, language: str = "en") -> Decimal:
    """A number as the card prints it, read back as a reader would."""
    return Decimal(number(value, 1, language).replace(",", ".").replace("−", "-"))


def check_the_sum_on_the_card(head: HeadPrediction) -> None:
    """Reference + named + other = risk, in the printed tenths; and no named sign is turned."""
    shown = shown_contributions(head)
    parts = [printed(points) for _, points in shown.top]
    risk, reference = printed(100 * head.risk), printed(100 * head.reference_risk)
    assert reference + sum(parts) + printed(shown.other) == risk
    assert reference + printed(shown.total) == risk
    for contribution, points in shown.top:
        assert points * contribution.points >= 0
        assert abs(points - contribution.points) < 0.2
    named = [c.points for c, _ in shown.top]
    assert len([p for p in named if p > 0]) <= 3
    assert len([p for p in named if p < 0]) <= 2


def test_what_is_printed_adds_up_to_the_tenth(heads: list[HeadPrediction]) -> None:
    for head in heads:
        check_the_sum_on_the_card(head)


def a_head(reference: float, points: Sequence[float]) -> HeadPrediction:
    """A prediction of one head whose categories contribute these points."""
    return HeadPrediction(
        head="h",
        outcome="o",
        horizon_days=30,
        status="scored",
        risk=reference + math.fsum(points) / 100,
        reference_risk=reference,
        threshold=0.1,
        band="low",
        contributions=[
            Contribution(
                category=str(i),
                label=str(i),
                points=p,
                positive=max(p, 0.0),
                negative=min(p, 0.0),
                features=[],
            )
            for i, p in enumerate(points)
        ],
    )


@settings(max_examples=200, deadline=None)
@given(
    reference=st.floats(0.01, 0.99),
    points=st.lists(
        st.one_of(st.floats(-30, 30), st.floats(-0.3, 0.3), st.sampled_from([0.0, 0.05, -0.05])),
        min_size=1,
        max_size=12,
    ),
)
def test_any_contributions_add_up_as_printed(reference: float, points: list[float]) -> None:
    head = a_head(reference, points)
    if 0 < head.risk < 1:
        check_the_sum_on_the_card(head)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.floats(-50, 50), min_size=1, max_size=15),
    off=st.floats(-0.1, 0.1),
    decimals=st.integers(0, 3),
)
def test_rounding_keeps_the_sum_and_moves_no_part_far(
    parts: list[float], off: float, decimals: int
) -> None:
    """Largest remainder: the parts add up to the rounded total, each within two last units."""
    unit = Decimal(1).scaleb(-decimals)
    total = math.fsum(parts) + off * float(unit) * 10
    rounded = rounded_to_sum(parts, total, decimals)
    exact = sum(Decimal(repr(r)) for r in rounded)
    assert exact == Decimal(round(total * 10**decimals)) * unit
    for before, after in zip(parts, rounded, strict=True):
        assert abs(after - before) < 2 * float(unit) + 1e-9


def test_rounding_of_a_total_that_agrees_moves_each_part_by_less_than_a_unit() -> None:
    assert rounded_to_sum([0.25, 0.25, 0.5], 1.0) == [0.3, 0.2, 0.5]
    assert rounded_to_sum([-0.04, -0.04, 0.08], 0.0) == [0.0, -0.1, 0.1]
    assert rounded_to_sum([], 0.0) == []


# ---- words ----------------------------------------------------------------------------------

CAUSAL = ("skyldes", "forårsag", "på grund af", "hvis du", "caused", "because", "due to", "if you")
"""Contributions weigh in a calculation. They cause nothing, and changing them promises nothing."""


@pytest.mark.parametrize("language", ["da", "en"])
def test_no_fixed_text_and_no_phrase_of_the_model_speaks_of_causes(
    package: Package, language: str
) -> None:
    texts = [str(getattr(TEXTS[language], f.name)) for f in fields(TEXTS[language])]
    texts += [c.label.in_language(language) for c in package.manifest.categories]
    for feature in package.manifest.features:
        said = (feature.label, feature.say, feature.say_none)
        texts += [text.in_language(language) for text in said if text is not None]
    assert len(texts) > 100
    assert not [text for text in texts if any(word in text.lower() for word in CAUSAL)]


@pytest.mark.parametrize(("language", "said"), [("da", "ikke årsager"), ("en", "not causes")])
def test_every_card_with_contributions_says_that_they_are_not_causes(
    package: Package, language: str, said: str
) -> None:
    demo = files("cds_service").joinpath(DEMO_PATIENT).read_bytes()
    settings = Settings(profile="demo")
    found = score_one(package, demo, as_of="latest", language=language, settings=settings)
    (card,) = found.prediction.cards
    assert said in card["detail"]


# ---- direction ------------------------------------------------------------------------------


def test_no_constrained_feature_ever_moves_the_risk_the_wrong_way(
    package: Package, rows: Floats, reference: Floats
) -> None:
    """Every one of them, 20 values from below to above what training saw, 200 patients: exactly."""
    trees, some = package.heads[0].trees, rows[:SWEPT]
    constrained = [(i, f) for i, f in enumerate(package.manifest.inputs) if f.monotone]
    assert len(constrained) > 20
    for column, feature in constrained:
        low, high = np.nanmin(reference[:, column]), np.nanmax(reference[:, column])
        pad = 0.1 * (high - low) + 1e-3
        values = np.linspace(low - pad, high + pad, STEPS)
        risks = np.array([trees.risk(with_value(some, column, v)) for v in values])
        assert (feature.monotone * np.diff(risks, axis=0) >= 0).all(), feature.name


def worst_and_best(package: Package, reference: Floats, column: int) -> tuple[float, float]:
    """The ends of what training saw of a constrained feature, the worse first."""
    ends = float(np.nanmin(reference[:, column])), float(np.nanmax(reference[:, column]))
    return ends[::-1] if package.manifest.inputs[column].monotone > 0 else ends


def test_a_twin_with_one_worse_value_gets_no_fewer_points_for_it(
    package: Package, rows: Floats, reference: Floats
) -> None:
    """Step by step from best to worst; the category follows but for what cannot be printed."""
    trees, some = package.heads[0].trees, rows[:TWINS]
    for column, feature in enumerate(package.manifest.inputs):
        if not feature.monotone:
            continue
        steps = np.nanpercentile(reference[:, column], [1, 50, 99])[:: feature.monotone]
        points = [trees.points(with_value(some, column, v)) for v in steps]
        members = columns_of(package, feature.category or "")
        own = np.array([p[:, column] for p in points])
        together = np.array([p[:, members].sum(axis=1) for p in points])
        assert np.diff(own, axis=0).min() >= -1e-4, feature.name
        assert np.diff(together, axis=0).min() > -SMALLEST_SHOWN, feature.name


def test_a_twin_who_is_worse_all_through_a_category_gets_more_points_for_it(
    package: Package, rows: Floats, reference: Floats
) -> None:
    trees, some = package.heads[0].trees, rows[: 4 * TWINS]
    for place, category in enumerate(package.manifest.categories):
        constrained = [
            i for i in columns_of(package, category.id) if package.manifest.inputs[i].monotone
        ]
        if not constrained:
            continue
        worse, better = some.copy(), some.copy()
        for column in constrained:
            worse[:, column], better[:, column] = worst_and_best(package, reference, column)
        points = [
            category_points(package, trees.points(twin))[:, place] for twin in (worse, better)
        ]
        assert (points[0] > points[1]).all(), category.id


def test_an_oxygen_saturation_of_84_is_never_protective(package: Package, rows: Floats) -> None:
    """Against the twin with 96: no fewer points for the vital signs; the value itself raises."""
    trees, column = package.heads[0].trees, package.columns.index("spo2")
    low, normal = (trees.points(with_value(rows[:100], column, v)) for v in (84.0, 96.0))
    vital = columns_of(package, "vital-signs")
    assert (low[:, column] >= 0).all()
    assert (low[:, column] >= normal[:, column]).all()
    assert (low[:, vital].sum(axis=1) >= normal[:, vital].sum(axis=1)).all()


# ---- not measured ---------------------------------------------------------------------------

HIDDEN_BELOW_BEST = 1.0
"""Points by which a value not measured may give a lower risk than the best it could have been."""
HIDDEN_BELOW_TYPICAL = 1.5
"""Points by which, on average, one not measured may give a lower risk than the usual value."""


def best_risk(package: Package, rows: Floats, column: int, values: Floats) -> Floats:
    """The lowest risk each patient could have by one feature, over values training saw."""
    trees = package.heads[0].trees
    return np.asarray(
        np.min([trees.risk(with_value(rows, column, float(v))) for v in values], axis=0)
    )


def test_not_measured_never_looks_better_than_the_best_value(
    package: Package, rows: Floats, reference: Floats
) -> None:
    """A gap may not pay: hiding a value is worth at most what the best value is worth."""
    trees, some = package.heads[0].trees, rows[:SWEPT]
    report = {}
    for column, name in enumerate(package.columns):
        known = reference[~np.isnan(reference[:, column]), column]
        values = np.unique(np.percentile(known, np.linspace(0, 100, 15)))
        hidden = trees.risk(with_value(some, column, math.nan))
        typical = trees.risk(with_value(some, column, float(np.median(known))))
        below_best = 100 * (best_risk(package, some, column, values) - hidden)
        report[name] = (float(below_best.max()), float(100 * (typical - hidden).mean()))
    print({k: tuple(round(v, 2) for v in r) for k, r in report.items() if max(r) > 0.2})
    assert max(best for best, _ in report.values()) <= HIDDEN_BELOW_BEST
    assert max(typical for _, typical in report.values()) <= HIDDEN_BELOW_TYPICAL


def test_a_prefetch_nobody_answered_moves_the_risk_little_on_average(
    package: Package, rows: Floats
) -> None:
    """A whole category unknown neither condemns nor clears: within two points on average."""
    trees, some = package.heads[0].trees, rows[:SWEPT]
    before = trees.risk(some)
    report = {}
    for category in package.manifest.categories:
        hidden = some.copy()
        hidden[:, columns_of(package, category.id)] = np.nan
        moved = 100 * (trees.risk(hidden) - before)
        report[category.id] = float(moved.mean())
    print({k: round(v, 2) for k, v in report.items()})
    assert max(abs(v) for v in report.values()) <= 2.0


# ---- stability ------------------------------------------------------------------------------


def jittered(package: Package, rows: Floats, seed: int) -> Floats:
    """The same patients measured again: pulse ±2, saturation ±1, tests within their noise.

    Noise of pulse and saturation: Hurst 2010; of blood tests: the generator's anchors.
    """
    draw, n = np.random.default_rng(seed), len(rows)
    again, at = rows.copy(), package.columns.index
    again[:, at("pulse")] += draw.integers(-2, 3, n)
    again[:, at("spo2")] = np.minimum(100, again[:, at("spo2")] + draw.integers(-1, 2, n))
    for name, sd in (
        ("haemoglobin", 0.02), ("creatinine", 0.04), ("albumin", 0.03), ("crp", 0.05),
        ("leukocytes", 0.05),
    ):  # fmt: skip
        again[:, at(name)] *= 1 + draw.normal(0, sd, n)
    return again


def top_three(points: Floats) -> list[set[int]]:
    """The three heaviest categories of each patient."""
    return [set(heaviest.tolist()) for heaviest in np.argsort(-np.abs(points), axis=1)[:, :3]]


def test_measuring_again_seldom_changes_the_three_heaviest_categories(
    package: Package, rows: Floats
) -> None:
    """Median overlap (Jaccard) of the top three at least 0.7."""
    trees = package.heads[0].trees
    some = rows[:SWEPT]
    first = top_three(category_points(package, trees.points(some)))
    again = top_three(category_points(package, trees.points(jittered(package, some, 1))))
    overlap = [len(a & b) / len(a | b) for a, b in zip(first, again, strict=True)]
    print({"median": float(np.median(overlap)), "mean": float(np.mean(overlap))})
    assert np.median(overlap) >= 0.7


def test_no_category_carries_the_model_alone(package: Package, rows: Floats) -> None:
    """More than 60 per cent of the weight in one place would be a leak until shown otherwise."""
    points = package.heads[0].trees.points(rows[:SWEPT])
    weight = np.abs(category_points(package, points)).mean(axis=0)
    share = dict(
        zip((c.id for c in package.manifest.categories), weight / weight.sum(), strict=True)
    )
    print({name: round(float(s), 3) for name, s in share.items()})
    assert max(share.values()) < 0.6
    assert min(share.values()) > 0


# ---- the comparison group -------------------------------------------------------------------


def test_the_reference_is_the_comparison_group_s_mean_risk(
    package: Package, background: Floats
) -> None:
    trees = package.heads[0].trees
    assert len(background) == 100
    assert trees.reference_risk == pytest.approx(float(trees.risk(background).mean()), abs=1e-6)


def test_the_comparison_group_has_the_mean_risk_of_all_comparable_patients(
    package: Package,
) -> None:
    """Within 0.1 point of the mean over everybody the model was fitted on, far over 1,000."""
    said = json.loads((package.folder / "metrics.json").read_bytes())["heads"]["readmission"][
        "background"
    ]
    assert said["comparable_patients"] >= 1_000
    assert abs(said["mean_risk"] - said["comparable_mean_risk"]) <= 0.001
    assert package.heads[0].trees.reference_risk == pytest.approx(said["mean_risk"], abs=1e-9)


def test_a_hundred_rows_at_random_would_err_by_more(package: Package, reference: Floats) -> None:
    """Why the background is chosen: random hundreds err by about half a point, one in twenty by
    more than one; the choice errs by less than a tenth."""
    risks = package.heads[0].trees.risk(reference)
    draw = np.random.default_rng(8)
    means = [float(risks[draw.choice(len(risks), 100, replace=False)].mean()) for _ in range(400)]
    errors = 100 * np.abs(np.array(means) - risks.mean())
    print({"median": float(np.median(errors)), "95 %": float(np.percentile(errors, 95))})
    assert float(np.median(errors)) > 0.3
    assert float(np.percentile(errors, 95)) > 1.0


def test_fresh_patients_have_about_the_reference_risk(package: Package, rows: Floats) -> None:
    """As near as so few can tell: within three standard errors."""
    risks = package.heads[0].trees.risk(rows)
    error = float(risks.std(ddof=1)) / math.sqrt(len(risks))
    assert abs(float(risks.mean()) - package.heads[0].trees.reference_risk) <= 3 * error


# ---- the distance from Shapley values of the probability ------------------------------------


def shapley_of_the_probability(
    trees: Trees, row: Floats, background: Floats, *, pairs: int, seed: int
) -> tuple[Floats, Floats]:
    """Shapley values of the risk in points, and their standard errors, `(columns,)` each.

    By permutations (Castro 2009) in pairs, each with its reverse: features are switched one by one
    from the background's values to the patient's, and each is credited with the mean change.
    """
    draw, n = np.random.default_rng(seed), len(row)
    drawn = np.empty((pairs, n))
    for k in range(pairs):
        order = draw.permutation(n)
        credit = np.zeros(n)
        for way in (order, order[::-1]):
            steps = np.repeat(background[None, :, :], n + 1, axis=0)
            for step, column in enumerate(way, start=1):
                steps[step:, :, column] = row[column]
            risks = trees.risk(steps.reshape(-1, n)).reshape(n + 1, -1).mean(axis=1)
            credit[way] += np.diff(risks) / 2
        drawn[k] = 100 * credit
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / math.sqrt(pairs)


@pytest.mark.slow
def test_how_far_the_points_are_from_shapley_values_of_the_probability(
    package: Package, rows: Floats, background: Floats
) -> None:
    """Measured and printed for docs/explanation.md; asserted is only that both have one total."""
    trees, some = package.heads[0].trees, rows[:50]
    points = trees.points(some)
    found = [
        shapley_of_the_probability(trees, row, background, pairs=60, seed=i)
        for i, row in enumerate(some)
    ]
    exact, error = np.array([f[0] for f in found]), np.array([f[1] for f in found])
    off = np.abs(points - exact)
    together = category_points(package, points - exact)
    worst = np.unravel_index(int(off.argmax()), off.shape)
    signs = (points * exact < 0) & (np.minimum(np.abs(points), np.abs(exact)) >= SMALLEST_SHOWN)
    report = {
        "patients": len(some),
        "standard_error_median": float(np.median(error[error > 0])),
        "standard_error_max": float(error.max()),
        "feature_median": float(np.median(off[np.abs(points) >= SMALLEST_SHOWN])),
        "feature_p95": float(np.percentile(off[np.abs(points) >= SMALLEST_SHOWN], 95)),
        "feature_max": float(off.max()),
        "feature_max_of": package.columns[int(worst[1])],
        "feature_max_points": [float(points[worst]), float(exact[worst])],
        "category_median": float(np.median(np.abs(together))),
        "category_p95": float(np.percentile(np.abs(together), 95)),
        "category_max": float(np.abs(together).max()),
        "opposite_signs": int(signs.sum()),
        "same_top_three": float(
            np.mean(
                [
                    a == b
                    for a, b in zip(
                        top_three(category_points(package, points)),
                        top_three(category_points(package, exact)),
                        strict=True,
                    )
                ]
            )
        ),
    }
    print(json.dumps(report, indent=1))
    assert np.abs(points.sum(axis=1) - exact.sum(axis=1)).max() <= 1e-3
