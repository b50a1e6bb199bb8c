"""The one shape of a prediction: logged, on the card, on the page, in the API and on the terminal.

Its JSON Schema is committed as `openapi/prediction.schema.json`. Times are ISO 8601 in UTC, risks
are probabilities (0 to 1) unrounded, points are percentage points unrounded. Changing a field is a
change of `SCHEMA_VERSION` and of the contract.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA_VERSION = "1"
Status = Literal["scored", "insufficient-data", "not-eligible", "refused"]
State = Literal["candidate", "silent", "live", "paused", "retired"]
"""Where a version of a model stands at a site; docs/governance.md says what each means."""
RegulatoryRoute = Literal["ce-marked", "mdr-5-5"]
"""CE-marked as a medical device, or made in house: Regulation (EU) 2017/745 (MDR), article 5(5)."""
AiActRole = Literal["provider", "deployer"]
"""What the site is of the system by Regulation (EU) 2024/1689, article 3(3) and (4)."""


class ModelRef(msgspec.Struct, frozen=True):
    """Which model: id, version, and the checksum of the whole package."""

    id: str
    version: str
    checksum: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a version stood at the site when it answered, by the site's own record.

    `since`: when that was decided; None where nobody had to decide (a bundled package in the demo
    profile, a version nobody has taken up). `regulatory_route` to `clinical_owner` are None where
    nothing is recorded: then it is no model for clinical use.
    """

    state: State
    since: str | None = None
    regulatory_route: RegulatoryRoute | None = None
    ai_act_role: AiActRole | None = None
    clinical_owner: str | None = None


class FeatureFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One feature's value with its provenance.

    `value` is None where there is none (`status` and `reason` say why); a missing value can
    weigh too. `time` is when the newest finding held, `source` the resources it rests on.
    `unusual`: the value lies outside 1 to 99 per cent of the training sample.
    """

    name: str
    label: str
    value: float | None
    unit: str
    status: str
    time: str | None = None
    reason: str | None = None
    source: list[str] = []
    code: str | None = None
    original: float | None = None
    original_unit: str | None = None
    reference: str | None = None
    baseline: float | None = None
    series: list[tuple[str, float]] = []
    findings: int = 0
    unusual: bool = False


class FeatureContribution(FeatureFinding, frozen=True, kw_only=True):
    """One feature's value, and what it added to the risk (points)."""

    points: float


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """A clinical category: its points, the parts that raise and lower, and its features."""

    category: str
    label: str
    points: float
    positive: float
    negative: float
    features: list[FeatureContribution]


class HitRate(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """How often cards of a head were followed by the outcome, by a local validation.

    `ppv` (0 to 1, with its 95 % interval `low` to `high`) of the `flagged` predictions at or above
    the head's threshold, made from one time to the other. `synthetic`: of invented patients.
    """

    ppv: float
    low: float
    high: float
    flagged: int
    from_: str
    to: str
    synthetic: bool


class HeadPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome: its risk, the comparison group's, and why they differ.

    The categories' points sum to 100 x (risk - reference_risk). `baseline_risk` is the penalised
    logistic model's answer to the same features, beside the boosted trees'. `hit_rate` is None
    where it was not measured here for these very files.
    """

    head: str
    outcome: str
    horizon_days: int
    status: Status
    risk: float
    reference_risk: float
    threshold: float
    band: str
    interval: tuple[float, float] | None = None
    interval_method: str | None = None
    baseline_risk: float | None = None
    hit_rate: HitRate | None = None
    contributions: list[Contribution]


class FeatureArgument(FeatureFinding, frozen=True, kw_only=True):
    """One feature's value, and whether it speaks for or against the first class of a ranking."""

    speaks: Literal["for", "against", "neither"]


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """A clinical category that speaks for or against the first class; its features, strongest
    first. There are no points: several classes' probabilities do not share out so."""

    category: str
    label: str
    features: list[FeatureArgument]


class ClassProbability(msgspec.Struct, frozen=True):
    """One class of a ranking and its probability, 0 to 1."""

    id: str
    label: str
    probability: float


class RankingPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """Several classes of which one will be true, and what speaks for and against the first.

    `classes` by falling probability; together they are 1. `speaks_for` and `speaks_against`:
    categories, strongest first; one that hardly weighs is in neither.
    """

    ranking: str
    outcome: str
    horizon_days: int | None
    status: Status
    classes: list[ClassProbability]
    speaks_for: list[Argument]
    speaks_against: list[Argument]


class Missing(msgspec.Struct, frozen=True):
    """A feature without a usable value, and why."""

    feature: str
    label: str
    reason: str


class RuleAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """A hard rule that stands whatever the model says.

    `implausible`: a measurement that cannot be right, or means danger. `safety`: a rule of the
    model's package that is met; `own_limit`: by the patient's own limit. `limit` is empty for a
    rule that is met or not, without a number.
    """

    kind: Literal["implausible", "safety"] = "implausible"
    rule: str
    label: str
    value: float | None
    unit: str
    time: str
    limit: str
    own_limit: bool = False
    indicator: Literal["warning", "critical"] = "warning"
    action: str | None = None


class ReferenceScore(msgspec.Struct, frozen=True, kw_only=True):
    """A published score of the same record, beside the model's risk.

    `points` of at most `most`; `risk` (0 to 1) of `outcome`, where the publication gives one.
    Where it cannot be computed there is no number, and `missing` says what it lacks.
    """

    score: str
    label: str
    version: str
    points: int | None = None
    most: int | None = None
    risk: float | None = None
    outcome: str | None = None
    band: str | None = None
    time: str | None = None
    missing: list[str] = []


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What one model said of one patient at one moment, or why it said nothing.

    `timezone`: that of the times on its cards, by its name in the tz database; None in documents
    older than the field.
    """

    schema_version: str = SCHEMA_VERSION
    prediction_id: str
    service: str
    model: ModelRef
    standing: Standing | None = None
    synthetic: bool
    mode: str
    returned: str
    as_of: str
    computed_at: str
    index_time: str | None
    status: Status
    reason: str | None
    language: str
    timezone: str | None = None
    heads: list[HeadPrediction] = []
    rankings: list[RankingPrediction] = []
    missing: list[Missing] = []
    rule_alarms: list[RuleAlarm] = []
    reference_scores: list[ReferenceScore] = []
    troubles: list[str] = []
    cards: list[dict[str, Any]] = []
