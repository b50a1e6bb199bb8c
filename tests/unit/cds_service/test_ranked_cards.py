"""The card of a ranking: whatever the probabilities, it fits, adds up to 100, and is no advice."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_service.assess import said_of
from cds_service.cards import LONGEST_SUMMARY
from cds_service.findings import Setting, say_findings, specs_of
from cds_service.ranked_cards import Way, every_card, shown_classes
from cds_service.sources import with_sources
from fhir_adapters.clock import COPENHAGEN
from models.manifest import Manifest, RankedClass, parse_manifest
from models.prediction import (
    Argument,
    ClassProbability,
    FeatureArgument,
    ModelRef,
    Prediction,
    RankingPrediction,
)

DATA = Path(__file__).parents[2] / "data" / "fifth-package"
DANISH, ENGLISH = Setting("da", COPENHAGEN, None), Setting("en", COPENHAGEN, None)


@cache
def manifest() -> Manifest:
    """The manifest of the ranking in the test data."""
    text = (DATA / "fifth-ranking.toml").read_text(encoding="utf-8")
    return parse_manifest(text, "fifth-ranking")


def argument(category: str, *speaks: Way) -> Argument:
    """A category whose features speak so, strongest first; the second has no value."""
    names = [f for f in manifest().inputs if f.category == category]
    return Argument(
        category=category,
        label=next(c.label.da for c in manifest().categories if c.id == category),
        features=[
            FeatureArgument(
                name=spec.name, label=spec.label.da, value=None if place == 1 else 2.0, unit="",
                status="measured", speaks=way, time="2026-11-20T08:00:00Z",
                source=[f"Encounter/{place}"],
            )
            for place, (spec, way) in enumerate(zip(names, speaks, strict=False))
        ],
    )  # fmt: skip


def prediction(shares: list[float], **fields: Any) -> Prediction:
    """A prediction of the ranking, its classes in the order of the manifest before ranking."""
    ranked = sorted(zip(manifest().rankings[0].classes, shares, strict=True), key=lambda p: -p[1])
    ranking = RankingPrediction(
        ranking="ranking", outcome="what follows", horizon_days=None, status="scored",
        classes=[ClassProbability(one.id, one.label.da, share) for one, share in ranked],
        speaks_for=fields.pop("speaks_for", []), speaks_against=fields.pop("speaks_against", []),
    )  # fmt: skip
    return Prediction(
        prediction_id="6f1c0d4e-0000-4000-8000-000000000001", service="fifth-ranking",
        model=ModelRef("fifth-ranking", "1.0.0", "0" * 64), synthetic=False,
        mode=fields.pop("mode", "live"), returned="", as_of="2026-11-21T12:00:00Z",
        computed_at="2026-11-21T12:00:00Z", index_time=None, status="scored", reason=None,
        language="da", rankings=[ranking], **fields,
    )  # fmt: skip


def test_the_card_a_physician_reads() -> None:
    """The most likely first, what speaks for and against with dates, no points, no advice."""
    (card,) = every_card(
        manifest(),
        prediction(
            [0.46, 0.31, 0.23],
            speaks_for=[argument("prior-contacts", "against", "for", "for")],
            speaks_against=[argument("medicines", "against")],
        ),
        DANISH,
    )
    assert card["summary"] == (
        "Efter udskrivelsen. Mest sandsynligt: ingen genindlæggelse (46 %), "
        "derefter genindlæggelse efter 30 dage (31 %)"
    )
    assert card["indicator"] == "info"
    lines = card["detail"].splitlines()
    assert lines[0] == "**46 ud af 100** med samme oplysninger genindlægges ikke."
    assert "| 2 | genindlæggelse efter 30 dage | 31 % |" in lines
    assert "| | Øvrige | 23 % |" in lines
    assert "**Taler for »ingen genindlæggelse«**" in lines
    assert (
        "- Tidligere kontakter: 2 indlæggelser på 12 mdr., senest 20.11.2026; "
        "mangler: akutte besøg seneste 12 mdr."
    ) in lines
    assert "- Medicin: Lægemidler givet 2 (20.11.2026)" in lines
    assert "%-point" not in card["detail"]


def test_a_yes_or_no_without_a_phrase_of_its_own_is_said_as_such() -> None:
    """A manifest written by hand need hold no phrases."""
    person = argument("person", "for", "for")
    insulin = msgspec.structs.replace(argument("medicines", "for", "for").features[1], value=1.0)
    specs = specs_of(manifest())
    assert say_findings([insulin], specs, DANISH) == ["Insulin: ja (20.11.2026)"]
    male = msgspec.structs.replace(person.features[1], value=0.0, time=None)
    assert say_findings([male], specs, ENGLISH) == ["Mand: no"]


def test_where_nothing_speaks_either_way_the_card_says_so() -> None:
    (card,) = every_card(manifest(), prediction([0.5, 0.3, 0.2]), ENGLISH)
    assert "Nothing speaks notably for the most likely possibility." in card["detail"]
    assert "Nothing speaks notably against the most likely possibility." in card["detail"]


def test_below_its_limit_in_silence_or_where_it_was_shown_there_is_no_card() -> None:
    """`card_from` is 0.34 of the first class."""
    assert every_card(manifest(), prediction([0.335, 0.333, 0.332]), DANISH) == []
    assert every_card(manifest(), prediction([0.5, 0.3, 0.2], mode="silent"), DANISH) == []
    assert every_card(manifest(), prediction([0.5, 0.3, 0.2]), DANISH, alarms_only=True) == []


def test_another_first_class_is_something_new_to_say() -> None:
    """Shown once for a set, a ranking's card comes again where another class comes first."""
    before, same, other = (
        prediction(shares) for shares in ([0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0.3, 0.5, 0.2])
    )
    assert said_of(before) == said_of(same) != said_of(other)


def test_references_are_taken_out_and_put_back() -> None:
    """The log keeps them sealed; what is read again is what was answered."""
    answered = prediction(
        [0.5, 0.3, 0.2],
        speaks_for=[argument("prior-contacts", "for", "for", "for")],
        speaks_against=[argument("medicines", "against")],
    )
    kept = with_sources(answered, {})
    assert b"Encounter/" not in msgspec.json.encode(kept)
    sources = {
        f.name: f.source
        for ranking in answered.rankings
        for a in (*ranking.speaks_for, *ranking.speaks_against)
        for f in a.features
    }
    assert with_sources(kept, sources) == answered


SHARES = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda s: sum(s) > 0.01)


@settings(max_examples=150, deadline=None)
@given(shares=SHARES)
def test_any_probabilities_are_printed_in_whole_per_cent_that_are_100_together(
    shares: list[float],
) -> None:
    """And by falling order."""
    ranking = prediction([share / sum(shares) for share in shares]).rankings[0]
    printed = [one.share for one in shown_classes(ranking, DANISH)]
    assert sum(printed) == 100
    assert all(share >= 0 for share in printed)


@pytest.mark.parametrize("setting", [DANISH, ENGLISH], ids=["da", "en"])
@settings(max_examples=60, deadline=None)
@given(
    label=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200), synthetic=st.booleans()
)
def test_any_labels_fit_into_a_summary_and_the_synthetic_mark_stays(
    setting: Setting, label: str, synthetic: bool
) -> None:
    """A summary is under 140 characters (CDS Hooks 2.0.1); what is cut is never the mark."""
    long = [RankedClass(c.id, type(c.label)(label, label)) for c in manifest().rankings[0].classes]
    ranking = msgspec.structs.replace(manifest().rankings[0], classes=long)
    words = msgspec.structs.replace(manifest(), rankings=[ranking], synthetic=synthetic)
    made = prediction([0.5, 0.3, 0.2])
    classes = [ClassProbability(c.id, label, c.probability) for c in made.rankings[0].classes]
    made = msgspec.structs.replace(
        made, rankings=[msgspec.structs.replace(made.rankings[0], classes=classes)]
    )
    (card,) = every_card(words, made, setting)
    assert len(card["summary"]) <= LONGEST_SUMMARY
    assert card["summary"].endswith(setting.texts.synthetic_suffix) or not synthetic
