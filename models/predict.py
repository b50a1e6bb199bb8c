"""From features to a prediction: eligibility, sufficiency, risk, contributions. Pure.

Called by the hook's path, by `varsel score`, by batch scoring and by the package check alike, so
that what is logged, shown and tested is one thing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhir_adapters.clock import to_iso
from fhir_adapters.codes import code_table
from fhir_adapters.features.compute import FeatureRow, FeatureValue
from fhir_adapters.features.language import USABLE, FeatureSpec
from fhir_adapters.features.record_at import RecordAt
from fhir_adapters.record import Fact, PatientRecord
from models import manifest as words
from models import prediction as shape
from models.package import Head, Package, RankingHead, Specification, compares
from models.ranking import NOTABLE
from models.scores.about import BANDS, INPUTS
from models.scores.score import ReferenceScore
from models.uncertainty import METHOD

UNKNOWN: Mapping[str, shape.HitRate] = {}
"""The hit rates of a version nobody validated here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a number may be given: the status, and for any other than `scored` the reason."""

    status: shape.Status
    reason: str | None = None


def index_row(spec: Specification, record: PatientRecord, now: FeatureRow) -> FeatureRow:
    """The features the model sees: those at the moment of the set the question is asked of.

    A model of sets learned from what was known when they were complete; days later the same set
    must give the same answer. Other models see what is known now.
    """
    if now.set_time is None or now.set_time == now.as_of:
        return now
    return spec.features.compute(record, now.set_time)


def verdict_on(
    spec: Specification, record: PatientRecord, row: FeatureRow, *, now: FeatureRow | None = None
) -> Verdict:
    """Whether the model applies to the patient at this moment, and enough is known.

    `row`: what the model sees; `now`: what is known when asked, which says who is in scope.
    """
    manifest, now = spec.manifest, now or row
    if record.deceased_at is not None and record.deceased_at <= now.as_of:
        return Verdict("not-eligible", "deceased")
    if manifest.index.kind == "stay":
        if row.index is None:
            return Verdict("not-eligible", "no-index-stay")
        if not spec.features.is_long_enough(row):
            return Verdict("not-eligible", "stay-too-short")
    if manifest.index.kind == "finding" and row.set_time is None:
        return Verdict("not-eligible", "no-recent-set")
    outside = spec.outside_scope({name: value.value for name, value in now.values.items()})
    if outside is not None:
        return Verdict("not-eligible", outside)
    return sufficiency(manifest, row)


def sufficiency(manifest: words.Manifest, row: FeatureRow) -> Verdict:
    """Whether enough is known of a patient the model applies to."""
    lacking = lacking_minimum(manifest, row)
    if lacking:
        return Verdict("insufficient-data", "; ".join(part.text.en for part in lacking))
    return Verdict("scored")


def lacking_minimum(manifest: words.Manifest, row: FeatureRow) -> list[words.Minimum]:
    """The parts of the minimum data that are not there."""
    return [part for part in manifest.minimum if not _is_there(part, row)]


def _is_there(part: words.Minimum, row: FeatureRow) -> bool:
    known = [row.values[name] for name in part.any_of if row.values[name].status in USABLE]
    if part.at_least is not None:
        known = [value for value in known if compares(value.value, ">=", part.at_least)]
    return len(known) >= part.count


def index_time(row: FeatureRow) -> float | None:
    """The moment asked about: the set; the discharge, or now while the patient is in."""
    if row.index is not None:
        return min(row.index.end, row.as_of)
    return row.set_time


def head_predictions(
    package: Package,
    row: FeatureRow,
    language: str,
    *,
    hit_rates: Mapping[str, shape.HitRate] = UNKNOWN,
) -> list[shape.HeadPrediction]:
    """The risk and contributions of every head that is for a patient the model applies to.

    `hit_rates`: how often a card of a head was followed by the outcome, where that is known here.
    """
    numbers = row.numbers(package.columns)
    matrix = np.array([numbers], dtype=np.float64)
    return [
        _head(package, head, spec, row, matrix, numbers, language, hit_rate=hit_rates.get(spec.id))
        for head, spec in zip(package.heads, package.manifest.heads, strict=True)
        if applies(spec, row)
    ]


def applies(head: words.Head, row: FeatureRow) -> bool:
    """Whether a head is for the patient."""
    condition = head.applies_if
    if condition is None:
        return True
    return compares(row.values[condition.feature].value, condition.op, condition.value)


def _head(
    package: Package,
    head: Head,
    spec: words.Head,
    row: FeatureRow,
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    numbers: Sequence[float],
    language: str,
    *,
    hit_rate: shape.HitRate | None,
) -> shape.HeadPrediction:
    risk = float(head.model.risk(matrix)[0])
    points = head.model.points(matrix)[0]
    return shape.HeadPrediction(
        head=spec.id,
        outcome=spec.outcome,
        horizon_days=spec.horizon_days,
        status="scored",
        risk=risk,
        reference_risk=head.model.reference_risk,
        threshold=spec.threshold,
        band=band_of(spec, risk).id,
        interval=head.uncertainty.interval_at(risk) if head.uncertainty else None,
        interval_method=METHOD if head.uncertainty else None,
        baseline_risk=head.simpler.risk_of(list(numbers)) if head.simpler else None,
        hit_rate=hit_rate,
        contributions=_contributions(package, row, points.tolist(), language),
    )


def band_of(head: words.Head, risk: float) -> words.Band:
    """The band of an unrounded risk."""
    return [band for band in head.bands if risk >= band.from_risk][-1]


def _contributions(
    package: Package, row: FeatureRow, points: list[float], language: str
) -> list[shape.Contribution]:
    by_category: dict[str, list[shape.FeatureContribution]] = {}
    for spec, share in zip(package.manifest.inputs, points, strict=True):
        value = row.values[spec.name]
        by_category.setdefault(spec.category or "", []).append(
            _feature(package, spec, value, share, language)
        )
    labels = {c.id: c.label.in_language(language) for c in package.manifest.categories}
    return [
        shape.Contribution(
            category=category,
            label=labels[category],
            points=math.fsum(f.points for f in features),
            positive=math.fsum(f.points for f in features if f.points > 0),
            negative=math.fsum(f.points for f in features if f.points < 0),
            features=sorted(features, key=lambda f: -abs(f.points)),
        )
        for category, features in by_category.items()
    ]


def ranking_predictions(
    package: Package, row: FeatureRow, language: str
) -> list[shape.RankingPrediction]:
    """The classes of every ranking by probability, and what speaks for and against the first."""
    matrix = np.array([row.numbers(package.columns)], dtype=np.float64)
    return [
        _ranking(package, ranking, spec, row, matrix, language)
        for ranking, spec in zip(package.rankings, package.manifest.rankings, strict=True)
    ]


def _ranking(
    package: Package,
    ranking: RankingHead,
    spec: words.Ranking,
    row: FeatureRow,
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    language: str,
) -> shape.RankingPrediction:
    probabilities = ranking.model.probabilities(matrix)[0].tolist()
    order = sorted(range(len(probabilities)), key=lambda place: -probabilities[place])
    weights = ranking.model.weights(matrix)[0, :, order[0]].tolist()
    by_weight = _arguments(package, row, weights, language)
    return shape.RankingPrediction(
        ranking=spec.id,
        outcome=spec.outcome,
        horizon_days=spec.horizon_days,
        status="scored",
        classes=[
            shape.ClassProbability(
                id=spec.classes[place].id,
                label=spec.classes[place].label.in_language(language),
                probability=probabilities[place],
            )
            for place in order
        ],
        speaks_for=[argument for weight, argument in by_weight if weight >= NOTABLE],
        speaks_against=[argument for weight, argument in by_weight if weight <= -NOTABLE],
    )


def _arguments(
    package: Package, row: FeatureRow, weights: list[float], language: str
) -> list[tuple[float, shape.Argument]]:
    """Every category with its summed weight (log-odds), the strongest first either way."""
    by_category: dict[str, list[tuple[float, FeatureSpec]]] = {}
    for spec, weight in zip(package.manifest.inputs, weights, strict=True):
        by_category.setdefault(spec.category or "", []).append((weight, spec))
    labels = {c.id: c.label.in_language(language) for c in package.manifest.categories}
    found = [
        (
            math.fsum(weight for weight, _ in features),
            shape.Argument(
                category=category,
                label=labels[category],
                features=[
                    shape.FeatureArgument(
                        speaks="for" if weight > 0 else "against" if weight < 0 else "neither",
                        **_finding(package, spec, row.values[spec.name], language),
                    )
                    for weight, spec in sorted(features, key=lambda pair: -abs(pair[0]))
                ],
            ),
        )
        for category, features in by_category.items()
    ]
    return sorted(found, key=lambda pair: -abs(pair[0]))


def _feature(
    package: Package, spec: FeatureSpec, value: FeatureValue, points: float, language: str
) -> shape.FeatureContribution:
    return shape.FeatureContribution(points=points, **_finding(package, spec, value, language))


def _finding(
    package: Package, spec: FeatureSpec, value: FeatureValue, language: str
) -> dict[str, Any]:
    """A feature's value with its provenance: the fields of a `FeatureFinding`."""
    low, high = package.usual.get(spec.name, (-math.inf, math.inf))
    return {
        "name": spec.name,
        "label": spec.label.in_language(language),
        "value": value.value,
        "unit": spec.unit,
        "status": value.status,
        "time": None if value.time is None else to_iso(value.time),
        "reason": value.reason,
        "source": list(value.sources),
        "code": value.code,
        "original": value.original,
        "original_unit": value.unit,
        "reference": spec.reference.in_language(language) if spec.reference else None,
        "baseline": value.baseline,
        "series": [(to_iso(time), number) for time, number in value.series],
        "findings": value.findings,
        "unusual": value.value is not None and not low <= value.value <= high,
    }


def missing_features(spec: Specification, row: FeatureRow, language: str) -> list[shape.Missing]:
    """The model's features without a usable value."""
    return [
        shape.Missing(f.name, f.label.in_language(language), _why_missing(row.values[f.name]))
        for f in spec.manifest.inputs
        if row.values[f.name].status not in USABLE
    ]


def _why_missing(value: FeatureValue) -> str:
    return f"{value.status} ({value.reason})" if value.reason else value.status


def reference_scores(
    spec: Specification, at: RecordAt, *, language: str
) -> list[shape.ReferenceScore]:
    """The published scores of the package that apply to the patient, or what they lack.

    `at`: the record at the moment, as the package's own features were computed of it.
    """
    found = spec.scores.every_at(at) if spec.scores else []
    return [_reference_score(score, language) for score in found if score.applies]


def _reference_score(score: ReferenceScore, language: str) -> shape.ReferenceScore:
    return shape.ReferenceScore(
        score=score.score,
        label=score.label.in_language(language),
        version=score.version,
        points=score.points,
        most=score.most,
        risk=score.risk,
        outcome=score.outcome.in_language(language) if score.outcome else None,
        band=BANDS[score.band].in_language(language) if score.band else None,
        time=None if score.time is None else to_iso(score.time),
        missing=[INPUTS[name].in_language(language) for name in score.missing],
    )


def implausible_alarms(row: FeatureRow, language: str) -> list[shape.RuleAlarm]:
    """An alarm for every newest measurement outside what can be: check it, or the patient, now.

    An SpO2 of 48 or a potassium of 9.2 may be true, so it leaves the model and is
    shown with its raw value.
    """
    return [_alarm(fact, language) for fact in row.implausible]


def rule_alarms(
    manifest: words.Manifest, row: FeatureRow, *, now: FeatureRow, language: str
) -> list[shape.RuleAlarm]:
    """Every alarm that stands, whatever the model says or cannot say: hard rules first.

    Both what is known `now` and what the model sees (`row`) can raise one: an answer sent after
    the measurements is as true as they are, and an alarm of the set stands as long as the set.
    """
    rows = (now,) if row is now else (now, row)
    found = [a for seen in rows for a in safety_alarms(manifest, seen, language)]
    found += [a for seen in rows for a in implausible_alarms(seen, language)]
    first: dict[tuple[str, str], shape.RuleAlarm] = {}
    for alarm in found:
        moment = "" if alarm.kind == "safety" else alarm.time
        first.setdefault((alarm.rule, moment), alarm)
    return list(first.values())


def safety_alarms(
    manifest: words.Manifest, row: FeatureRow, language: str
) -> list[shape.RuleAlarm]:
    """An alarm for every hard rule that is met."""
    found = (_safety_alarm(manifest, rule, row, language=language) for rule in manifest.rules)
    return [alarm for alarm in found if alarm is not None]


def _safety_alarm(
    manifest: words.Manifest, rule: words.SafetyRule, row: FeatureRow, *, language: str
) -> shape.RuleAlarm | None:
    spec = next(f for f in manifest.features if f.name == rule.feature)
    measured = row.values[rule.feature]
    own = row.values[rule.own_limit].value if rule.own_limit else None
    limit = rule.limit if own is None else own
    bound = row.at_worst(rule.feature, rule.op)
    value = measured.value if measured.status in USABLE else bound
    if not compares(value, rule.op, limit):
        return None
    label = rule.label.in_language(language)
    return shape.RuleAlarm(
        kind="safety",
        rule=rule.id,
        label=label if bound is None else f"{label} {rule.op[0]}",
        value=value,
        unit=spec.unit,
        time=to_iso(row.as_of if measured.time is None else measured.time),
        limit="" if spec.yes_no else f"{rule.op} {limit:g}",
        own_limit=own is not None,
        indicator=rule.indicator,
        action=rule.action.in_language(language),
    )


def _alarm(fact: Fact, language: str) -> shape.RuleAlarm:
    concept = code_table().concept(fact.concept)
    return shape.RuleAlarm(
        kind="implausible",
        rule=f"implausible-{fact.concept}",
        label=concept.label_en if language == "en" else concept.label_da,
        value=fact.value,
        unit=concept.unit or "",
        time=to_iso(fact.start),
        limit=f"{concept.plausible_low:g}-{concept.plausible_high:g}",
    )
