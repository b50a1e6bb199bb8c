"""What `manifest.toml` may say: the whole of a model package that is not numbers.

The structs are the schema: an unknown word or a wrong type is refused with its path. Features and
their windows are checked by the feature language when the package is compiled.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import msgspec

from fhir_adapters.features.language import FeatureSpec, Text
from fhir_adapters.outcomes import OutcomeRule
from fhir_adapters.prefetch import fault_of
from fhir_adapters.sets import SetRule
from fhir_adapters.stays import StayRule
from models.errors import PackageRefused, ServedOnly
from models.scores.about import ABOUT

SCHEMA_VERSION = 1
UNDECIDED = "DECIDE"
"""How a text begins that `varsel models init` leaves to a person; none may be left."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""What a head or ranking may be called: it names a folder."""
Indicator = Literal["info", "warning", "critical"]
Comparison = Literal["<", "<=", ">", ">=", "=="]
Hook = Literal[
    "appointment-book", "encounter-discharge", "encounter-start", "order-select", "order-sign",
    "patient-view",
]  # fmt: skip
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
    counts as the outcome in later data; a head without one can be served and nothing else. `kind`:
    boosted trees (`booster.ubj`) or a logistic model (`logistic.json`). `role`: a head for context
    stands on the card of another and neither brings one nor moves its indicator. `applies_if`:
    which patients it is for.
    """

    id: str
    outcome: str
    horizon_days: int
    title: Text
    says: Text
    threshold: float
    bands: list[Band]
    threshold_source: str
    outcome_rule: OutcomeRule | None = msgspec.field(name="rule", default=None)
    kind: Literal["trees", "logistic"] = "trees"
    role: Literal["card", "context"] = "card"
    applies_if: Condition | None = None

    @property
    def rule(self) -> OutcomeRule:
        """What counts as the outcome in later data; ServedOnly where nobody said."""
        if self.outcome_rule is None:
            raise ServedOnly(
                f"heads.{self.id}.rule is not there: what counts as the outcome is not said, so "
                "the head can be served, and neither trained nor validated"
            )
        return self.outcome_rule


class RankedClass(_Part, frozen=True):
    """One of the classes of a ranking, in the order of the booster's.

    `says`: the verb phrase of its sentence ("genindlægges inden for 30 dage"), where it has one.
    """

    id: str
    label: Text
    says: Text | None = None


class Ranking(_Part, frozen=True):
    """Several classes of which one will be true, ranked by probability (`multi:softprob`).

    `shown`: how many of the classes a card lists. `card_from`: the probability of the first from
    which a card is shown. A card of a ranking is for information only.
    """

    id: str
    outcome: str
    title: Text
    classes: list[RankedClass]
    shown: int
    card_from: float
    horizon_days: int | None = None


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


MOST_CANDIDATES = 24
"""Combinations a search may try: each costs as many fits as there are folds, and the more are tried
on the same folds, the more the best of them is best by luck (docs/training.md)."""


class Search(_Part, frozen=True):
    """Values to choose among within the part fitted on, every one with every other.

    What is not named here keeps its value in `[training]`.
    """

    max_depth: list[Annotated[int, msgspec.Meta(ge=1)]] = []
    min_child_weight: list[Annotated[float, msgspec.Meta(ge=0)]] = []
    learning_rate: list[Annotated[float, msgspec.Meta(gt=0, le=1)]] = []
    reg_lambda: list[Annotated[float, msgspec.Meta(ge=0)]] = []
    subsample: list[Annotated[float, msgspec.Meta(gt=0, le=1)]] = []
    colsample_bytree: list[Annotated[float, msgspec.Meta(gt=0, le=1)]] = []

    def __post_init__(self) -> None:
        lists = [values for values in self.values.values() if values]
        if not lists:
            raise ValueError("nothing to choose among")
        if any(len(set(values)) < len(values) for values in lists):
            raise ValueError("a value stands twice in a list")
        if math.prod(map(len, lists)) > MOST_CANDIDATES:
            raise ValueError(f"more than {MOST_CANDIDATES} combinations")

    @property
    def values(self) -> dict[str, list[float]]:
        """The lists by the name of their setting."""
        return {name: list(getattr(self, name)) for name in self.__struct_fields__}


class Training(_Part, frozen=True):
    """How the package was trained, so that anybody can train it again.

    `folds`: into how many parts patients are cut to choose the rounds and to calibrate, each part
    by the trees of all others.
    What is not said is for few events: shallow trees, slowly learned, strongly penalised.
    `search`: settings chosen among within the part fitted on (`models/tuning.py`).
    `mask_share`: the share of values hidden at random in the copy of the rows that is fitted beside
    them, of each feature alone and of each category together, so that a value nobody sent weighs
    as little as can be.
    """

    seed: int = 0
    rounds: int = 400
    learning_rate: float = 0.04
    max_depth: int = 2
    min_child_weight: float = 20.0
    subsample: float = 0.8
    colsample_bytree: float = 0.6
    reg_lambda: float = 10.0
    early_stopping_rounds: int = 40
    test_share: float = 0.25
    folds: int = 5
    mask_share: float = 0.0
    search: Search | None = None


MAX_VERSION = 32
"""Characters of a version: what the prediction log and the decisions on record keep of one."""


class Manifest(_Part, frozen=True):
    """A model package in words."""

    schema_version: int
    id: str
    version: Annotated[str, msgspec.Meta(max_length=MAX_VERSION)]
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
    override_reasons: list[OverrideReason]
    override_system: str
    heads: list[Head] = []
    rankings: list[Ranking] = []
    training: Training = Training()
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
        words = tomllib.loads(text)
        _require_decided(model_id, words)
        manifest = msgspec.convert(words, Manifest)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PackageRefused(model_id, f"manifest.toml is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise PackageRefused(model_id, f"manifest.toml: {error}") from None
    _check(manifest, model_id)
    return manifest


def folder_id(folder: Path) -> str:
    """The id a package's folder stands for: `ID`, or the `ID` of `ID/VERSION`.

    A version begins with a digit, an id does not.
    """
    return folder.parent.name if is_version(folder) else folder.name


def is_version(folder: Path) -> bool:
    """Whether a folder is one version's among others of its id."""
    return folder.name[:1].isdigit()


def _require_decided(model_id: str, words: dict[str, Any]) -> None:
    """Raise PackageRefused naming the first field that was left to a person and is not decided."""
    undecided = list(_undecided("", words))
    if undecided:
        more = f", and {len(undecided) - 1} more" if len(undecided) > 1 else ""
        raise PackageRefused(
            model_id, f"manifest.toml: {undecided[0]} is not decided yet ({UNDECIDED} …){more}"
        )


def _undecided(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith(UNDECIDED):
        yield path
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield from _undecided(f"{path}.{key}".lstrip("."), inside)
    elif isinstance(value, list):
        for place, inside in enumerate(value):
            named = inside.get("name") or inside.get("id") if isinstance(inside, dict) else None
            yield from _undecided(f"{path}.{place if named is None else named}", inside)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package folder, which is named by its id, or `ID/VERSION`."""
    model_id = folder_id(folder)
    try:
        text = (folder / "manifest.toml").read_text(encoding="utf-8")
    except OSError as error:
        raise PackageRefused(model_id, f"manifest.toml: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PackageRefused(model_id, "manifest.toml is not UTF-8") from None
    manifest = parse_manifest(text, model_id)
    if is_version(folder) and folder.name != manifest.version:
        raise PackageRefused(
            model_id, f"the folder is {folder.name}, the manifest says version {manifest.version}"
        )
    return manifest


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
    _check_heads(model_id, m)
    _check_prefetch(model_id, m)
    _check_unique(model_id, "hooks", [*m.hooks])
    _check_unique(model_id, "reference_scores", m.reference_scores)
    _check_unique(model_id, "rules", [rule.id for rule in m.rules])
    _check_unique(model_id, "categories", [category.id for category in m.categories])
    _check_unique(model_id, "override_reasons", [reason.code for reason in m.override_reasons])
    for feature in m.features:
        for words in (feature.say, feature.say_one, feature.say_none):
            _check_phrase(model_id, feature, words)


def _named_features(m: Manifest) -> list[str]:
    """Every feature that scope, minimum, heads and rules speak of."""
    return [
        *(rule.feature for rule in m.scope),
        *(name for part in m.minimum for name in part.any_of),
        *(head.applies_if.feature for head in m.heads if head.applies_if),
        *(name for rule in m.rules for name in (rule.feature, rule.own_limit) if name),
    ]


def _check_prefetch(model_id: str, m: Manifest) -> None:
    for key, query in m.prefetch.items():
        fault = fault_of(query.template, query.resource)
        if fault:
            raise PackageRefused(model_id, f"prefetch.{key}.template: {fault}")


def _check_heads(model_id: str, m: Manifest) -> None:
    if not m.heads and not m.rankings:
        raise PackageRefused(model_id, "heads: there is none, and no ranking")
    if m.heads and all(head.role == "context" for head in m.heads):
        raise PackageRefused(model_id, "heads: one must have the role card")
    ids = [*(head.id for head in m.heads), *(ranking.id for ranking in m.rankings)]
    _check_unique(model_id, "heads and rankings", ids)
    for name in ids:
        if not _ID.fullmatch(name):
            raise PackageRefused(model_id, f"heads: {name!r} cannot name a folder")
    for head in m.heads:
        _check_head(model_id, head)
    for ranking in m.rankings:
        _check_ranking(model_id, ranking)


def _check_ranking(model_id: str, ranking: Ranking) -> None:
    where = f"rankings.{ranking.id}"
    if len(ranking.classes) < 2:
        raise PackageRefused(model_id, f"{where}.classes: there must be two or more")
    if not 1 <= ranking.shown <= len(ranking.classes):
        raise PackageRefused(model_id, f"{where}.shown must be 1 to {len(ranking.classes)}")
    if not 0.0 <= ranking.card_from < 1.0:
        raise PackageRefused(model_id, f"{where}.card_from must lie between 0 and 1")
    _check_unique(model_id, f"{where}.classes", [one.id for one in ranking.classes])


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
BASED = "delta_to_baseline"
"""The recipe whose phrase may also ask for `{baseline}`: the patient's own usual value."""


def _check_phrase(model_id: str, feature: FeatureSpec, phrase: Text | None) -> None:
    known = PHRASE_WORDS | ({"baseline"} if feature.recipe == BASED else set())
    for text in (phrase.da, phrase.en) if phrase else ():
        try:
            asked = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
        except ValueError:
            asked = {text}
        if not asked <= known:
            raise PackageRefused(
                model_id, f"features.{feature.name}.say asks for {', '.join(sorted(asked - known))}"
            )
