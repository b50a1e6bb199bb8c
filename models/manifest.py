"""What `manifest.toml` may say: the whole of a model package that is not numbers.

The structs are the schema: an unknown word or a wrong type is refused with its path. Features and
their windows are checked by the feature language when the package is compiled.
"""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import Literal

import msgspec

from fhir_adapters.features.language import FeatureSpec, Text
from fhir_adapters.outcomes import OutcomeRule
from fhir_adapters.sets import SetRule
from fhir_adapters.stays import StayRule
from models.errors import PackageRefused
from models.scores.about import ABOUT

SCHEMA_VERSION = 1
Indicator = Literal["info", "warning", "critical"]
Comparison = Literal["<", "<=", ">", ">=", "=="]
Hook = Literal["encounter-discharge", "patient-view"]
"""The hooks a package can ask for: those whose context the service checks."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of the manifest's tables: unknown words are refused."""


class Index(_Part, frozen=True):
    """What the question is about: the hospital stay at `as_of`, a set of findings, or the moment.

    A stay counts until `ended_within_hours` after its end. A set is made of findings of `of` at
    most `gap_hours` apart, and counts until `within_hours` after it. `once`: a card is shown once
    for a set, and again only where a band has changed.
    """

    kind: Literal["stay", "finding", "as-of"]
    ended_within_hours: float = 24.0
    of: list[str] = []
    gap_hours: float = 12.0
    within_hours: float = 24.0
    once: bool = False

    def __post_init__(self) -> None:
        if (self.kind == "finding") != bool(self.of):
            raise ValueError("`of` belongs to the kind finding, and to no other")

    @property
    def set_rule(self) -> SetRule | None:
        """Which findings make a set; None where the question is not asked of one."""
        return SetRule(tuple(self.of), self.gap_hours) if self.kind == "finding" else None


class Query(_Part, frozen=True):
    """One prefetch key: its template, and the concepts its answer supplies."""

    template: str
    resource: str
    supplies: list[str] = []
    required: bool = False


class Category(_Part, frozen=True):
    """A clinical category that contributions are summed over."""

    id: str
    label: Text


class ScopeRule(_Part, frozen=True):
    """Who the model is not for: patients whose feature compares so; unknown excludes nobody."""

    reason: str
    feature: str
    op: Comparison
    value: float
    text: Text


class Minimum(_Part, frozen=True):
    """What must be known before a number is given: at least `count` of `any_of`.

    `at_least`: of a feature that counts, the value it must have.
    """

    any_of: list[str]
    text: Text
    count: int = 1
    at_least: float | None = None


class Condition(_Part, frozen=True):
    """A feature compared with a value; unknown is not met."""

    feature: str
    op: Comparison
    value: float


class SafetyRule(_Part, frozen=True):
    """A hard rule that runs beside the model, whatever the model says or cannot say.

    It is met where `feature` compares so with `limit`, or with the patient's own limit, the value
    of the feature `own_limit`, where that is known. `label`: what is measured. `action`: what the
    site wants done.
    """

    id: str
    feature: str
    op: Comparison
    limit: float
    label: Text
    action: Text
    own_limit: str | None = None
    indicator: Literal["warning", "critical"] = "warning"


class Band(_Part, frozen=True):
    """A band of risk, from its lower limit on."""

    id: str
    from_risk: float
    label: Text
    indicator: Indicator = "info"


class Head(_Part, frozen=True):
    """One outcome the package predicts.

    `says`: the sentence's verb phrase ("genindlægges akut inden for 30 dage"). `threshold`: the
    risk from which a card is shown. `bands` by rising `from_risk`, the first from 0. `rule`: what
    counts as the outcome in later data. `role`: a head for context stands on the card of another
    and neither brings one nor moves its indicator. `applies_if`: which patients it is for.
    """

    id: str
    outcome: str
    horizon_days: int
    title: Text
    says: Text
    threshold: float
    bands: list[Band]
    threshold_source: str
    rule: OutcomeRule
    role: Literal["card", "context"] = "card"
    applies_if: Condition | None = None


class OverrideReason(_Part, frozen=True):
    """Why a clinician sets a card aside."""

    code: str
    display: Text


class AnswerSpec(_Part, frozen=True):
    """How questionnaire answers become numbers."""

    link_ids: list[str]
    values: dict[str, float] = {}


class CohortRule(_Part, frozen=True):
    """Which stays or sets a cohort takes: those with so many days of recorded contacts before them,
    and of these every one, or each patient's first (later ones depend on what the first led to)."""

    history_days: float = 0.0
    stays: Literal["every", "first"] = "every"


class Training(_Part, frozen=True):
    """How the package was trained, so that anybody can train it again.

    `folds`: into how many parts patients are cut to choose the rounds and to calibrate, each part
    by the trees of all others.
    `mask_share`: the share of values hidden at random in the copy of the rows that is fitted beside
    them, of each feature alone and of each category together, so that a value nobody sent weighs
    as little as can be.
    """

    seed: int
    rounds: int
    learning_rate: float
    max_depth: int
    min_child_weight: float
    subsample: float
    colsample_bytree: float
    reg_lambda: float
    early_stopping_rounds: int
    test_share: float = 0.25
    folds: int = 5
    mask_share: float = 0.0


class Manifest(_Part, frozen=True):
    """A model package in words."""

    schema_version: int
    id: str
    version: str
    synthetic: bool
    title: Text
    description: Text
    hooks: list[Hook]
    index: Index
    prefetch: dict[str, Query]
    categories: list[Category]
    features: list[FeatureSpec]
    scope: list[ScopeRule]
    minimum: list[Minimum]
    heads: list[Head]
    override_reasons: list[OverrideReason]
    override_system: str
    training: Training
    rules: list[SafetyRule] = []
    reference_scores: list[str] = []
    cohort: CohortRule = CohortRule()
    stay: StayRule = StayRule()
    answers: dict[str, AnswerSpec] = {}

    @property
    def inputs(self) -> list[FeatureSpec]:
        """The features the model sees, in the order of its columns."""
        return [feature for feature in self.features if feature.category is not None]


def parse_manifest(text: str, model_id: str) -> Manifest:
    """The manifest a TOML text says; PackageRefused names the word that is wrong."""
    try:
        manifest = msgspec.convert(tomllib.loads(text), Manifest)
    except tomllib.TOMLDecodeError as error:
        raise PackageRefused(model_id, f"manifest.toml is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise PackageRefused(model_id, f"manifest.toml: {error}") from None
    _check(manifest, model_id)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package folder."""
    try:
        text = (folder / "manifest.toml").read_text(encoding="utf-8")
    except OSError as error:
        raise PackageRefused(folder.name, f"manifest.toml: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PackageRefused(folder.name, "manifest.toml is not UTF-8") from None
    return parse_manifest(text, folder.name)


def _check(m: Manifest, model_id: str) -> None:
    if m.schema_version != SCHEMA_VERSION:
        raise PackageRefused(model_id, f"schema_version {m.schema_version} is not spoken here")
    if m.id != model_id:
        raise PackageRefused(model_id, f"the folder is {model_id}, the manifest says {m.id}")
    categories = {category.id for category in m.categories}
    for feature in m.inputs:
        if feature.category not in categories:
            raise PackageRefused(model_id, f"features.{feature.name}.category is not listed")
    features = {feature.name for feature in m.features}
    for name in _named_features(m):
        if name not in features:
            raise PackageRefused(model_id, f"no feature is called {name!r}")
    for name in m.reference_scores:
        if name not in ABOUT:
            raise PackageRefused(model_id, f"reference_scores: no score is called {name!r}")
    _check_heads(model_id, m.heads)
    _check_unique(model_id, "reference_scores", m.reference_scores)
    _check_unique(model_id, "rules", [rule.id for rule in m.rules])
    _check_unique(model_id, "categories", [category.id for category in m.categories])
    _check_unique(model_id, "override_reasons", [reason.code for reason in m.override_reasons])
    for feature in m.features:
        for words in (feature.say, feature.say_one, feature.say_none):
            _check_phrase(model_id, feature.name, words)


def _named_features(m: Manifest) -> list[str]:
    """Every feature that scope, minimum, heads and rules speak of."""
    return [
        *(rule.feature for rule in m.scope),
        *(name for part in m.minimum for name in part.any_of),
        *(head.applies_if.feature for head in m.heads if head.applies_if),
        *(name for rule in m.rules for name in (rule.feature, rule.own_limit) if name),
    ]


def _check_heads(model_id: str, heads: list[Head]) -> None:
    if not heads:
        raise PackageRefused(model_id, "heads: there is none")
    if all(head.role == "context" for head in heads):
        raise PackageRefused(model_id, "heads: one must have the role card")
    _check_unique(model_id, "heads", [head.id for head in heads])
    for head in heads:
        _check_head(model_id, head)


def _check_unique(model_id: str, where: str, ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        raise PackageRefused(model_id, f"{where}: two of one id")


def _check_head(model_id: str, head: Head) -> None:
    where = f"heads.{head.id}"
    limits = [band.from_risk for band in head.bands]
    rising = all(lower < higher for lower, higher in pairwise(limits))
    if not limits or limits[0] != 0.0 or not rising or not limits[-1] < 1.0:
        raise PackageRefused(model_id, f"{where}.bands must rise from 0 and end below 1")
    if not 0.0 <= head.threshold < 1.0:
        raise PackageRefused(model_id, f"{where}.threshold must lie between 0 and 1")
    _check_unique(model_id, f"{where}.bands", [band.id for band in head.bands])


PHRASE_WORDS = frozenset({"n", "value", "raw", "date"})
"""What a feature's phrase may ask for: the count, the value, what was measured, and the day."""


def _check_phrase(model_id: str, name: str, phrase: Text | None) -> None:
    for text in (phrase.da, phrase.en) if phrase else ():
        try:
            asked = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
        except ValueError:
            asked = {text}
        if not asked <= PHRASE_WORDS:
            raise PackageRefused(
                model_id, f"features.{name}.say asks for {', '.join(sorted(asked - PHRASE_WORDS))}"
            )
