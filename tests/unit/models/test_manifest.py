"""What a manifest may say: every wrong word is refused with the place it stands in."""

from __future__ import annotations

import re

import pytest

from models.errors import PackageRefused
from models.manifest import Manifest, parse_manifest
from models.package import compile_features
from models.registry import BUNDLED

NAME = "readmission-30d"
TEXT = (BUNDLED / NAME / "manifest.toml").read_text(encoding="utf-8")


def with_change(old: str, new: str) -> str:
    """The bundled manifest with its first `old` made `new`."""
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def with_more(text: str) -> str:
    """The bundled manifest and something after it."""
    return f"{TEXT}\n{text}\n"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The bundled manifest."""
    return parse_manifest(TEXT, NAME)


def test_the_bundled_manifest_is_valid_and_says_everything_in_both_languages(
    manifest: Manifest,
) -> None:
    texts = [manifest.title, manifest.description]
    texts += [c.label for c in manifest.categories] + [f.label for f in manifest.features]
    texts += [r.text for r in manifest.scope] + [m.text for m in manifest.minimum]
    texts += [r.display for r in manifest.override_reasons]
    for head in manifest.heads:
        texts += [head.title, head.says, *(band.label for band in head.bands)]
    assert all(text.da.strip() and text.en.strip() for text in texts)


@pytest.mark.parametrize("model", ["copd-deterioration", "hf-deterioration"])
def test_a_safety_rule_tells_to_act_as_soon_as_its_indicator_says(model: str) -> None:
    """Critical: now. Warning: today. A card that says both would be read as the milder."""
    text = (BUNDLED / model / "manifest.toml").read_text(encoding="utf-8")
    for rule in parse_manifest(text, model).rules:
        when = {"critical": (" nu.", " now."), "warning": (" i dag", " today")}[rule.indicator]
        assert when[0] in rule.action.da, rule.id
        assert when[1] in rule.action.en, rule.id


def test_the_inputs_are_the_features_with_a_category_in_their_order(manifest: Manifest) -> None:
    assert [f.name for f in manifest.inputs] == [
        f.name for f in manifest.features if f.category is not None
    ]
    assert len(manifest.inputs) < len(manifest.features), "some features serve others only"


def test_the_bands_begin_at_the_card_threshold(manifest: Manifest) -> None:
    """Below the threshold no card is shown, so that no band above the lowest may begin there."""
    for head in manifest.heads:
        assert head.threshold in [band.from_risk for band in head.bands[1:]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_change("schema_version = 1", "schema_version = 2"), "schema_version 2 is not spoken"),
        (with_change('"patient-view"]', '"patient-veiw"]'), "$.hooks[1]"),
        (with_change(f'id = "{NAME}"', 'id = "other"'), "the manifest says other"),
        (with_change('version = "1', 'verson = "1'), "verson"),
        (with_change("[training]", "[training"), "manifest.toml is not TOML"),
        (with_change("synthetic = true", 'synthetic = "yes"'), "$.synthetic"),
        (with_change("synthetic = true\n", ""), "missing required field `synthetic`"),
        (with_change("monotone = 1", "monotone = 2"), "$.features[0].monotone"),
        (with_change('op = "<"', 'op = "=<"'), "$.scope[0].op"),
        (with_change('kind = "stay"', 'kind = "stays"'), "$.index.kind"),
        (with_change('indicator = "warning"', 'indicator = "red"'), "indicator"),
        (
            with_change('category = "this-stay"', 'category = "stay"'),
            "features.acute.category is not listed",
        ),
        (with_change('any_of = ["drugs"]', 'any_of = ["pills"]'), "no feature is called 'pills'"),
        (with_change('feature = "age"', 'feature = "agee"'), "no feature is called 'agee'"),
        (with_change("from_risk = 0.265", "from_risk = 0.05"), "heads.readmission.bands must rise"),
        (with_change("from_risk = 0.265", "from_risk = 0.2"), "heads.readmission.bands must rise"),
        (with_change("from_risk = 0.265", "from_risk = 25"), "heads.readmission.bands must rise"),
        (with_change("from_risk = 0.265", "from_risk = nan"), "heads.readmission.bands must rise"),
        (with_change("from_risk = 0.0", "from_risk = 0.1"), "heads.readmission.bands must rise"),
        (with_change("threshold = 0.2", "threshold = 19"), "heads.readmission.threshold"),
        (with_change("threshold = 0.2", "threshold = nan"), "heads.readmission.threshold"),
        (with_change('id = "high"', 'id = "low"'), "heads.readmission.bands: two of one id"),
        (with_change('code = "other"', 'code = "data-wrong"'), "override_reasons: two of one id"),
        (
            with_more('[[categories]]\nid = "person"\nlabel = { da = "P", en = "P" }'),
            "categories: two of one id",
        ),
        (with_change("{n} akutte", "{antal} akutte"), "features.acute_admissions_12m.say asks for"),
        (
            with_change("{n} akutte", "{baseline} akutte"),
            "features.acute_admissions_12m.say asks for baseline",
        ),
        (with_change("{n} akutte", "{0} akutte"), "features.acute_admissions_12m.say asks for"),
        (with_change("{n} akutte", "{n akutte"), "features.acute_admissions_12m.say asks for"),
    ],
)
def test_a_wrong_manifest_is_refused_where_it_is_wrong(text: str, said: str) -> None:
    with pytest.raises(PackageRefused, match=re.escape(said)):
        parse_manifest(text, NAME)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_change('of = ["spo2"]', 'of = ["spo3"]'), "features.spo2.of: no concept is called"),
        (
            with_change('"spo2", "pulse"', '"pulse"'),
            "features.spo2.of: no prefetch key supplies 'spo2'",
        ),
        (with_change('recipe = "days_total"', 'recipe = "days_sum"'), "features.bed_days_12m"),
        (with_change('from = ["sodium"]', 'from = ["salt"]'), "salt"),
        (with_change('stale_after = "48 h"', 'stale_after = "soon"'), "features.spo2"),
        (with_change("stay.start - 365 d", "start - 365 d"), "not a point in time"),
        (with_change('attribute = "days"', 'attribute = "nights"'), "nights"),
        (
            with_change('name = "bed_days_12m"', 'name = "acute_admissions_12m"'),
            "features.acute_admissions_12m: two features of one name",
        ),
    ],
)
def test_a_feature_in_words_the_language_lacks_is_refused(text: str, said: str) -> None:
    with pytest.raises(PackageRefused, match=re.escape(said)):
        compile_features(parse_manifest(text, NAME))
