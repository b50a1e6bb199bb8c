"""Chapter 12: what the language refuses, and that its manual names every word."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from fhir_adapters.errors import LanguageError
from fhir_adapters.features.derived import DERIVED, FORMULAS
from fhir_adapters.features.language import FeatureSpec, FeatureStatus
from fhir_adapters.features.recipes import RECIPES
from tests.spec.drawn import feature_set

MANUAL = Path(__file__).parents[2] / "docs" / "feature-language.md"


@pytest.mark.parametrize(
    ("feature", "field", "said"),
    [
        ('recipe = "latest"\nof = ["crp"]', "features.it.recipe", "no recipe is called 'latest'"),
        ('recipe = "last"\nof = ["CRP"]', "features.it.of", "no concept is called 'CRP'"),
        ('recipe = "last"', "features.it.of", "made of"),
        (
            'recipe = "last"\nof = ["crp"]\nwindow = ["yesterday", "as_of"]',
            "features.it.window",
            "'yesterday'",
        ),
        (
            'recipe = "last"\nof = ["crp"]\nwindow = ["as_of - 7 m", "as_of"]',
            "features.it.window",
            "'as_of - 7 m'",
        ),
        ('recipe = "last"\nof = ["crp"]\nwindow = ["as_of"]', "features.it.window", "two points"),
        ('recipe = "last"\nof = ["crp"]\nstale_after = "soon"', "features.it", "'soon'"),
        ('recipe = "patient"\nattribute = "height"', "features.it", "height"),
        ('recipe = "index"\nattribute = "ward"', "features.it", "ward"),
        ('recipe = "formula"\nformula = "ckd_epi_2009"', "features.it.formula", "ckd_epi_2009"),
        ('[a]\nrecipe = "excess"\nlimit = 1\nfrom = ["b"]', "features.a.from", "called 'b'"),
        (
            '[a]\nrecipe = "excess"\nlimit = 1\nfrom = ["a"]',
            "features.a.from",
            "made from itself",
        ),
        (
            '[b]\nrecipe = "last"\nof = ["crp"]\n[a]\nrecipe = "difference"\nfrom = ["b"]',
            "features.a.from",
            "made from 2 features",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_path(feature: str, field: str, said: str) -> None:
    """When the manifest is read, not when a patient waits."""
    with pytest.raises(LanguageError) as refused:
        feature_set(feature)
    assert refused.value.field == field
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ('recipe = "excess"\nfrom = ["crp"]', "excess needs limit"),
        ('recipe = "outside"\nfrom = ["crp"]', "outside needs low"),
        ('recipe = "missed"\nof = ["crp"]', "missed needs expected_every"),
        ('recipe = "delta_to_baseline"\nof = ["crp"]', "delta_to_baseline needs baseline"),
        ('recipe = "charlson"\nof = ["charlson_mi"]', "charlson needs variant"),
        ('recipe = "charlson"\nof = ["charlson_mi"]\nvariant = "2022"', "'2022'"),
        ('recipe = "patient"', "patient needs attribute"),
        ('recipe = "last"\nof = ["crp"]\ncolour = "red"', "colour"),
        ('recipe = "last"\nof = ["crp"]\nmonotone = 2', "monotone"),
        ('recipe = "last"\nof = ["crp"]\nwhen = "later"', "when"),
    ],
)
def test_a_recipe_that_lacks_its_word_is_refused(feature: str, said: str) -> None:
    """A limit that is forgotten is not zero."""
    with pytest.raises(msgspec.ValidationError, match=said):
        feature_set(feature)


def test_a_concept_no_query_supplies_is_refused() -> None:
    """Without a query behind it, nobody could tell none from not asked."""
    with pytest.raises(LanguageError, match="no prefetch key supplies 'crp'"):
        feature_set('recipe = "last"\nof = ["crp"]', {"sodium": "labs"})


def test_two_features_of_one_name_are_refused() -> None:
    """The second would hide the first."""
    compiled = feature_set('recipe = "last"\nof = ["crp"]')
    twice = [*compiled.specs.values(), *compiled.specs.values()]
    with pytest.raises(LanguageError, match="two features of one name"):
        type(compiled)(twice, {"crp": "labs"}, stay_rule=compiled.stay_rule)


def test_the_manual_names_every_word() -> None:
    """Recipes, derived recipes, formulas, statuses, and the words of a feature."""
    fields = {field.encode_name for field in msgspec.structs.fields(FeatureSpec)}
    words = {*RECIPES, *DERIVED, *FORMULAS, *get_args(FeatureStatus), *fields}
    manual = MANUAL.read_text(encoding="utf-8")
    assert {w for w in words if f"`{w}`" not in manual and f"{w} = " not in manual} == set()
