"""Chapter 14: measurements that are bounds, "< 20 mg/L" and "> 8 %", outside what can be measured.

FHIR R4 calls Quantity.comparator a modifier: the actual value is less, or greater, than the number.
"""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.features.bounds import UNKNOWN, ends_of, ends_of_fact, tried
from fhir_adapters.features.language import FeatureSpec, Text
from fhir_adapters.features.recipes import RECIPES, Selection
from fhir_adapters.record import Fact
from tests.spec.drawn import it, row, value

CRP = """
    Observation | CRP | 2026-11-17 08:00 | 210 mg/L
    Observation | CRP | 2026-11-19 08:00 | 40 mg/L
    Observation | CRP | 2026-11-20 08:00 | <20 mg/L
"""
WEEK = 'of = ["crp"]\nwindow = ["as_of - 7 d", "as_of"]'


@pytest.mark.parametrize(
    ("recipe", "answer"),
    [
        ("last", "missing"),
        ("min", "missing"),
        ("mean", "missing"),
        ("change", "missing"),
        ("first", 210.0),
        ("max", 210.0),
        ("median", 40.0),
        ("count", 3.0),
        ("any", 1.0),
    ],
)
def test_a_bound_is_no_value_but_counts_where_it_cannot_change_the_answer(
    recipe: str, answer: float | str
) -> None:
    """The newest is below 20, nobody knows how far; the highest is 210 whatever it is."""
    assert it(CRP, f'recipe = "{recipe}"\n{WEEK}') == answer


def test_an_older_value_never_stands_for_a_newest_bound() -> None:
    """HbA1c was 50; now it is above what the method measures, and 50 would be untrue."""
    table = """
        Observation | NPU27300 | 2026-06-01 08:00 | 50 mmol/mol
        Observation | NPU27300 | 2026-11-20 08:00 | >130 mmol/mol
    """
    found = value(table, 'recipe = "last"\nof = ["hba1c"]')
    assert (found.value, found.status) == (None, "missing")
    assert found.reason == "outside the measuring range: > 130 mmol/mol"
    assert (found.original, found.unit) == (130.0, "mmol/mol")
    assert found.time is not None
    assert found.sources


@pytest.mark.parametrize("recipe", ["last", "min", "max", "mean", "median"])
def test_below_the_detection_limit_is_how_the_healthy_are_reported(recipe: str) -> None:
    """CRP "< 4" is a normal answer, read as 4; the table says up to where: 10."""
    table = "Observation | CRP | 2026-11-20 08:00 | <4 mg/L"
    found = value(table, f'recipe = "{recipe}"\n{WEEK}')
    assert (found.value, found.status) == (4.0, "measured")
    assert found.reason == "reported as < 4 mg/L"


def test_a_newer_value_answers_an_older_bound() -> None:
    table = """
        Observation | CRP | 2026-11-19 08:00 | <20 mg/L
        Observation | CRP | 2026-11-20 08:00 | 30 mg/L
    """
    assert it(table, f'recipe = "last"\n{WEEK}') == 30.0
    assert it(table, f'recipe = "max"\n{WEEK}') == 30.0
    assert it(table, f'recipe = "gain"\n{WEEK}') == "missing"


@pytest.mark.parametrize(
    ("stated", "reaches", "over"),
    [
        (">39 Cel", 1.0, "missing"),
        (">=38 Cel", 1.0, "missing"),
        ("<38 Cel", 0.0, 0.0),
        ("<=38 Cel", "missing", 0.0),
        ("<39 Cel", "missing", "missing"),
    ],
)
def test_what_only_asks_for_a_limit_is_answered_where_the_bound_decides_it(
    stated: str, reaches: float | str, over: float | str
) -> None:
    """Above 39 is at least 38, but how far above 38 nobody knows; below 38 is 0 above."""
    table = f"Observation | temperature | 2026-11-20 08:00 | {stated}"
    last = '[t]\nrecipe = "last"\nof = ["temperature"]\n'
    assert it(table, f'{last}[it]\nrecipe = "at_least"\nlimit = 38\nfrom = ["t"]') == reaches
    assert it(table, f'{last}[it]\nrecipe = "excess"\nlimit = 38\nfrom = ["t"]') == over


@pytest.mark.parametrize(
    ("stated", "hardest_below", "hardest_above"),
    [
        ("<70 %", math.nextafter(70.0, 0.0), 50.0),
        ("<=70 %", 70.0, 50.0),
        (">95 %", 100.0, math.nextafter(95.0, 100.0)),
    ],
)
def test_a_rule_is_met_where_all_that_a_bound_allows_meets_it(
    stated: str, hardest_below: float, hardest_above: float
) -> None:
    """Below 70 is certainly at most 88; the ends reach no further than what can be at all."""
    table = f"Observation | saturation | 2026-11-20 08:00 | {stated}"
    found = row(table, '[spo2]\nrecipe = "last"\nof = ["spo2"]')
    assert found.numbers(["spo2"]) == pytest.approx([math.nan], nan_ok=True)
    assert found.at_worst("spo2", "<=") == hardest_below
    assert found.at_worst("spo2", ">") == hardest_above
    assert found.at_worst("spo2", "==") is None


def test_a_fall_from_the_usual_is_at_least_what_the_bound_says() -> None:
    """Usually 94, now below 70: a fall of more than 24."""
    table = """
        Observation | saturation | 2026-10-05 08:00 | 94 %
        Observation | saturation | 2026-10-12 08:00 | 94 %
        Observation | saturation | 2026-11-20 08:00 | <70 %
    """
    found = row(
        table,
        """
        [usual]
        recipe = "baseline_median"
        of = ["spo2"]
        baseline = ["as_of - 12 w", "as_of - 8 d"]
        [now]
        recipe = "last"
        of = ["spo2"]
        window = ["as_of - 8 d", "as_of"]
        [fall]
        recipe = "difference"
        from = ["usual", "now"]
        """,
    )
    assert found.values["fall"].value is None
    assert found.at_worst("fall", ">=") == pytest.approx(24.0)


def test_a_bound_that_allows_only_what_cannot_be_is_implausible() -> None:
    """A saturation below 45: the measurement or the patient is to be checked, now."""
    table = "Observation | saturation | 2026-11-20 08:00 | <45 %"
    found = row(table, '[spo2]\nrecipe = "last"\nof = ["spo2"]')
    assert found.values["spo2"].status == "implausible"
    assert [fact.value for fact in found.implausible] == [45.0]


@pytest.mark.parametrize("stated", ["<950 mg/L", "<20 mg/L"])
def test_a_bound_beyond_one_limit_still_allows_what_can_be(stated: str) -> None:
    """Below 950 may be anything; no alarm is raised for it."""
    found = row(
        f"Observation | CRP | 2026-11-20 08:00 | {stated}", f'[it]\nrecipe = "last"\n{WEEK}'
    )
    assert not found.implausible
    assert found.values["it"].status == "missing"


def test_a_comparator_that_fhir_does_not_have_leaves_the_number_without_meaning() -> None:
    found = row("Observation | CRP | 2026-11-20 08:00 | ~40 mg/L", f'[it]\nrecipe = "last"\n{WEEK}')
    assert found.values["it"].value is None
    assert found.bounds["it"] == UNKNOWN


def test_part_of_a_panel_can_be_a_bound() -> None:
    """A systolic pressure above 250 in a blood pressure panel."""
    table = "Observation | blood pressure | 2026-11-20 08:00 | | part 8480-6 >250 mm[Hg]"
    found = row(table, '[sbp]\nrecipe = "last"\nof = ["sbp"]')
    assert found.values["sbp"].value is None
    assert found.at_worst("sbp", ">") == math.nextafter(250.0, math.inf)


def test_many_bounds_of_a_month_do_not_hide_the_newest_value() -> None:
    """Nine times below 20, then 12: the newest is 12, the median below 20."""
    days = [f"Observation | CRP | 2026-11-{d:02} 08:00 | <20 mg/L" for d in range(10, 19)]
    table = "\n".join([*days, "Observation | CRP | 2026-11-20 08:00 | 12 mg/L"])
    month = 'of = ["crp"]\nwindow = ["as_of - 30 d", "as_of"]'
    assert it(table, f'recipe = "last"\n{month}') == 12.0
    assert it(table, f'recipe = "median"\n{month}') == "missing"
    assert it(table, f'recipe = "count"\n{month}') == 10.0


# ---- a comparator without a meaning -------------------------------------------------------------

UNREADABLE = """
    Observation | weight | 2026-11-10 08:00 | 80 kg
    Observation | weight | 2026-11-12 08:00 | ~83 kg
    Observation | weight | 2026-11-14 08:00 | ~82 kg
    Observation | weight | 2026-11-16 08:00 | 81 kg
    Observation | weight | 2026-11-18 08:00 | 84 kg
"""


@pytest.mark.parametrize(
    ("recipe", "answer"),
    [
        ("slope", "missing"),
        ("mean", "missing"),
        ("median", "missing"),
        ("max", "missing"),
        ("change", 3.0),
        ("gain", 4.0),
        ("gain_percent", 5.0),
        ("last", 84.0),
        ("count", 5.0),
        ("any", 1.0),
        ("days_since", 3 + 4 / 24),
    ],
)
def test_a_number_without_meaning_leaves_what_rests_on_others(
    recipe: str, answer: float | str
) -> None:
    """A comparator FHIR R4 does not have: no feature fails, and only what it can change is gone."""
    month = 'of = ["weight"]\nwindow = ["as_of - 4 w", "as_of"]\nmin_count = 2'
    assert it(UNREADABLE, f'recipe = "{recipe}"\n{month}') == (
        answer if isinstance(answer, str) else pytest.approx(answer)
    )


# ---- bounds among what is usual -----------------------------------------------------------------

USUAL = """
    Observation | saturation | 2026-11-01 08:00 | 90 %
    Observation | saturation | 2026-11-02 08:00 | 91 %
    Observation | saturation | 2026-11-03 08:00 | 92 %
    Observation | saturation | 2026-11-20 08:00 | 90 %
"""
OWN = """
of = ["spo2"]
window = ["as_of - 8 d", "as_of"]
baseline = ["as_of - 12 w", "as_of - 8 d"]
min_count = 3
floor_sd = 1
"""


def test_what_is_usual_is_unknown_where_most_of_it_was_below_what_can_be_measured() -> None:
    """Six of nine below 70: usual is below 70, not 91, and 90 is far above it."""
    six = [
        f"Observation | saturation | 2026-11-0{day} 0{hour}:00 | <70 %"
        for day in (4, 5, 6)
        for hour in (7, 8)
    ]
    found = row(
        "\n".join([*USUAL.splitlines(), *six]),
        f'[usual]\nrecipe = "baseline_median"{OWN}[far]\nrecipe = "delta_to_baseline"{OWN}',
    )
    for name in ("usual", "far"):
        assert found.values[name].value is None
        assert found.values[name].reason == "outside the measuring range: < 70 %"
    assert found.bounds["usual"] == (50.0, math.nextafter(70.0, 0.0))
    assert (found.at_worst("far", ">") or 0.0) > 0.0


def test_one_bound_among_what_is_usual_changes_nothing_it_cannot_change() -> None:
    """90, 91, 92, 91 and below 70: the usual is 91 and its spread the floor, whatever it was."""
    table = f"""{USUAL}
    Observation | saturation | 2026-11-04 08:00 | 91 %
    Observation | saturation | 2026-11-05 08:00 | <70 %
    """
    assert it(table, f'recipe = "baseline_median"{OWN}') == 91.0
    assert it(table, f'recipe = "delta_to_baseline"{OWN}') == pytest.approx(-1 / 1.4826)


# ---- the ends hold for all a feature can be -----------------------------------------------------


def test_the_ends_of_many_bounds_in_both_directions_hold() -> None:
    """CRP three times below 100, twice above 100; what can be is 0.3 to 600 mg/L."""
    table = "\n".join(
        f"Observation | CRP | 2026-11-{day} 08:00 | {stated} mg/L"
        for day, stated in zip(range(10, 15), ["<100"] * 3 + [">100"] * 2, strict=True)
    )
    month = 'of = ["crp"]\nwindow = ["as_of - 4 w", "as_of"]'
    found = row(table, f'[mean]\nrecipe = "mean"\n{month}\n[slope]\nrecipe = "slope"\n{month}')
    assert found.at_worst("mean", ">") == pytest.approx((3 * 0.3 + 2 * 100) / 5)
    assert found.at_worst("mean", "<") == pytest.approx((3 * 100 + 2 * 600) / 5)
    # Days -2 to 2, whose squares sum to 10: 0.3 on the first two, 600 on the last two; a week.
    assert found.at_worst("slope", "<") == pytest.approx(((2 * 600 + 600) - (2 + 1) * 0.3) / 10 * 7)


BY_VALUE = (
    "baseline_median",
    "change",
    "delta_to_baseline",
    "first",
    "gain",
    "gain_percent",
    "last",
    "max",
    "mean",
    "median",
    "min",
    "slope",
    "sum_scores",
)
NUMBERS = st.one_of(st.integers(1, 800), st.floats(1.0, 800.0))
DRAWN = st.lists(
    st.tuples(st.sampled_from(["", "<", "<=", ">", ">=", "~"]), NUMBERS, st.floats(0.0, 1.0)),
    max_size=9,
)


@pytest.mark.parametrize("recipe", BY_VALUE)
@settings(max_examples=60)
@given(current=DRAWN, usual=DRAWN)
def test_the_ends_hold_for_all_that_the_bounds_allow(
    recipe: str, current: list[tuple[str, float, float]], usual: list[tuple[str, float, float]]
) -> None:
    """Any number the bounds allow gives an answer between the ends, and the answer, where one."""
    spec = FeatureSpec(
        name="it",
        recipe=recipe,
        label=Text(da="x", en="x"),
        of=["crp"],
        baseline=["as_of - 12 w", "as_of - 8 d"],
        floor_sd=2.0,
    )
    stated = Selection(_stated(current), _stated(usual), True, 0, 0.0, 9e6, 9e6)
    within = msgspec.structs.replace(
        stated,
        facts=_anywhere(stated.facts, current),
        baseline=_anywhere(stated.baseline, usual),
    )
    actual = RECIPES[recipe](within, spec)
    found = [None if one is None else one.value for one in tried(stated, spec)]
    if actual is None:
        assert None in found or ends_of(found) == UNKNOWN
        return
    low, high = ends_of(found)
    room = 1e-9 * max(1.0, abs(actual.value))
    assert low - room <= actual.value <= high + room


def _stated(drawn: list[tuple[str, float, float]]) -> list[Fact]:
    return [
        Fact(
            "crp",
            start=day * 86400.0,
            value=None if comparator == "~" else float(number),
            bound=comparator,
            status="bound" if comparator else "ok",
        )
        for day, (comparator, number, _) in enumerate(drawn)
    ]


def _anywhere(facts: list[Fact], drawn: list[tuple[str, float, float]]) -> list[Fact]:
    """The facts with each bound at some number it allows; one without a meaning may be any."""
    found = []
    for fact, (_, number, share) in zip(facts, drawn, strict=True):
        low, high = sorted(ends_of_fact(fact))
        low, high = (low, high) if math.isfinite(low) else (-1000.0, 1000.0)
        if fact.status == "bound":
            number = min(high, max(low, low + share * (high - low)))
        found.append(msgspec.structs.replace(fact, value=float(number), status="ok"))
    return found
