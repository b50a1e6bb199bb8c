"""Cards as CDS Hooks 2.0.1 wants them, made from a prediction. Pure.

A card stands on its summary and source alone; the detail (GitHub-flavoured Markdown) adds up: the
comparison group's risk and the contributions give the risk. Every character comes from the package
and from numbers, none from the record. Null and empty members never leave here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cds_service.card_ids import card_id
from cds_service.findings import MOST_MISSING, Setting, Specs, said_facts, say_missing, specs_of
from cds_service.standing import said_hit_rate, said_standing, why_stopped
from cds_service.texts import TEXTS, Texts
from cds_service.topics import (
    INSUFFICIENT,
    TOPIC_SYSTEM,
    Said,
    check_said,
    risk_said,
    rule_said,
    topic_code,
)
from cds_service.wording import (
    capital,
    day_and_time,
    decimal,
    number,
    of_hundred,
    plain,
    rounded_to_sum,
    sentences,
    shown_unit,
    uncapital,
)
from models import manifest as words
from models.prediction import (
    Contribution,
    HeadPrediction,
    Prediction,
    ReferenceScore,
    RuleAlarm,
)

Card = dict[str, Any]
LONGEST_SUMMARY = 139  # CDS Hooks: fewer than 140 characters
MOST_RAISING, MOST_LOWERING = 3, 2
SEVERITY = ("info", "warning", "critical")


def make_cards(
    manifest: words.Manifest, prediction: Prediction, setting: Setting, *, alarms_only: bool = False
) -> list[Card]:
    """The cards a prediction shows, alarms first; none only where nothing is to be said.

    `alarms_only`: the rest was shown before and has not changed, or is not to be shown.
    """
    cards = [_alarm(manifest, alarm, setting) for alarm in prediction.rule_alarms]
    if prediction.mode == "live" and not alarms_only:
        _add_answer(cards, manifest, prediction, setting)
    for place, card in enumerate(cards):
        card["uuid"] = card_id(prediction.prediction_id, place)
    return cards


def _add_answer(
    cards: list[Card], manifest: words.Manifest, prediction: Prediction, setting: Setting
) -> None:
    """Add what the model says, or why it says nothing, to the alarms' cards."""
    if prediction.status == "insufficient-data":
        cards.append(_insufficient_card(manifest, prediction, setting))
    if prediction.status == "refused":
        cards.append(_stopped_card(manifest, prediction, setting))
    shown = heads_to_show(manifest, prediction)
    if not shown:
        return
    alarmed = _alarmed_elsewhere(prediction)
    if alarmed is None:
        cards.append(_risk_card(manifest, prediction, shown, setting))
        return
    detail = _risk_detail(manifest, prediction, shown, setting)
    cards[alarmed]["detail"] += f"\n\n{setting.texts.one_alarm}\n\n{detail}"
    # another topic than the alarm alone: who sets that aside has not set the risk aside
    said = rule_said(prediction.rule_alarms[alarmed].rule) + _said_of(shown)
    cards[alarmed]["source"]["topic"]["code"] = topic_code(manifest.id, said)


def _said_of(shown: Sequence[HeadPrediction]) -> Said:
    """What is said of the heads shown, for the topic."""
    return risk_said([(head.head, head.band) for head in shown])


def _alarmed_elsewhere(prediction: Prediction) -> int | None:
    """Which alarm the telemedicine platform raises too: one on a limit of the patient's own.

    The platform holds those limits and alarms on them itself. Then the model's answer stands on
    that alarm's card, so that one alarm is shown and not two.
    """
    alarms = enumerate(prediction.rule_alarms)
    return next((place for place, alarm in alarms if alarm.own_limit), None)


def heads_to_show(manifest: words.Manifest, prediction: Prediction) -> list[HeadPrediction]:
    """The heads whose risk brings a card; one for context never does."""
    roles = {head.id: head.role for head in manifest.heads}
    return [
        head
        for head in prediction.heads
        if roles[head.head] == "card" and head.risk >= head.threshold
    ]


def new_card(
    manifest: words.Manifest,
    setting: Setting,
    *,
    summary: str,
    detail: str,
    indicator: str,
    topic: Said,
) -> Card:
    """A card with what every card of a model has: source, topic, override reasons, the link."""
    card: Card = {
        "summary": summary[:LONGEST_SUMMARY],
        "detail": detail,
        "indicator": indicator,
        "source": {
            "label": f"Varsel · {manifest.id} {manifest.version}",
            "topic": {
                "system": TOPIC_SYSTEM,
                "code": topic_code(manifest.id, topic),
                "display": manifest.title.in_language(setting.language),
            },
        },
        "overrideReasons": [
            {
                "code": reason.code,
                "system": manifest.override_system,
                "display": reason.display.in_language(setting.language),
            }
            for reason in manifest.override_reasons
        ],
    }
    if setting.page_url:
        card["links"] = [
            {"label": setting.texts.explanation, "url": setting.page_url, "type": "absolute"}
        ]
    return card


# ---- risk -----------------------------------------------------------------------------------


def _risk_card(
    manifest: words.Manifest,
    prediction: Prediction,
    shown: list[HeadPrediction],
    setting: Setting,
) -> Card:
    """One card for all heads that bring one, as severe as the most severe of their bands."""
    bands = [band_of_head(manifest, head) for head in shown]
    worst = max(bands, key=lambda band: SEVERITY.index(band.indicator))
    return new_card(
        manifest,
        setting,
        summary=_risk_summary(manifest, shown, worst, setting),
        detail=_risk_detail(manifest, prediction, shown, setting),
        indicator=worst.indicator,
        topic=_said_of(shown),
    )


def head_words(manifest: words.Manifest, head: HeadPrediction) -> words.Head:
    """What the manifest says of a head."""
    return next(spec for spec in manifest.heads if spec.id == head.head)


def band_of_head(manifest: words.Manifest, head: HeadPrediction) -> words.Band:
    """The band a head's risk lies in."""
    return next(b for b in head_words(manifest, head).bands if b.id == head.band)


def _risk_summary(
    manifest: words.Manifest, shown: list[HeadPrediction], band: words.Band, setting: Setting
) -> str:
    """The risks in one line; where they are too many for it, how many more the detail has."""
    texts, language = setting.texts, setting.language
    several = len(manifest.heads) > 1
    title = f"{manifest.title.in_language(language)}. " if several else ""
    end = f". {band.label.in_language(language)}"
    if manifest.synthetic:
        end += f". {texts.synthetic_suffix}"
    said = [
        texts.risk_summary.format(
            title=head_words(manifest, head).title.in_language(language),
            risk=number(100 * head.risk, 1, language),
            reference=number(100 * head.reference_risk, 1, language),
        )
        for head in shown
    ]
    for kept in range(len(said), 0, -1):
        more = _other_outcomes(len(said) - kept, texts)
        for start in (title, ""):
            summary = f"{start}{'; '.join(said[:kept])}{more}{end}"
            if len(summary) <= LONGEST_SUMMARY:
                return summary
    return f"{said[0]}{end}"


def _other_outcomes(n: int, texts: Texts) -> str:
    """That so many outcomes more are in the detail; empty for none."""
    if n == 0:
        return ""
    return texts.one_outcome_more if n == 1 else texts.outcomes_more.format(n=n)


def _risk_detail(
    manifest: words.Manifest,
    prediction: Prediction,
    shown: list[HeadPrediction],
    setting: Setting,
) -> str:
    texts = setting.texts
    parts = [_heads_table(manifest, prediction, setting)] if len(manifest.heads) > 1 else []
    for head in shown:
        parts += _head_parts(manifest, head, setting, titled=len(manifest.heads) > 1)
    missing = say_missing(manifest, prediction, setting)
    if missing:
        parts.append(missing)
    if prediction.troubles:
        parts.append(texts.unread.format(n=len(prediction.troubles)))
    parts += [said_scores(prediction, setting)] if prediction.reference_scores else []
    parts.append(closing_line(manifest, prediction, setting, texts.not_causes))
    return "\n\n".join(parts)


def _heads_table(manifest: words.Manifest, prediction: Prediction, setting: Setting) -> str:
    """Every head's risk beside its comparison group's; those for context are marked so."""
    texts, language = setting.texts, setting.language
    lines = [
        f"| {texts.outcome} | {texts.risk} | {texts.group} | {texts.band} |",
        "|---|---|---|---|",
    ]
    for head in prediction.heads:
        spec, band = head_words(manifest, head), band_of_head(manifest, head)
        context = f" ({texts.context})" if spec.role == "context" else ""
        risk, reference = (number(100 * r, 1, language) for r in (head.risk, head.reference_risk))
        lines.append(
            f"| {spec.title.in_language(language)}{context} | {risk} % | {reference} % "
            f"| {band.label.in_language(language)} |"
        )
    return "\n".join(lines)


def _head_parts(
    manifest: words.Manifest, head: HeadPrediction, setting: Setting, *, titled: bool
) -> list[str]:
    texts, language = setting.texts, setting.language
    spec, shown = head_words(manifest, head), shown_contributions(head)
    parts = [f"### {spec.title.in_language(language)}"] if titled else []
    parts.append(
        texts.natural_frequency.format(
            risk=capital(of_hundred(head.risk, language)),
            reference=of_hundred(head.reference_risk, language),
            says=spec.says.in_language(language),
        )
    )
    specs = specs_of(manifest)
    raising = [(c, p) for c, p in shown.top if p > 0]
    lowering = [(c, p) for c, p in shown.top if p < 0]
    parts.append(_table(texts.raised, raising, specs, setting) or texts.nothing_raises)
    parts.append(_table(texts.lowered, lowering, specs, setting) or texts.nothing_lowers)
    parts.append(
        texts.sum_line.format(
            other=signed(shown.other, language),
            reference=number(100 * head.reference_risk, 1, language),
            total=signed(shown.total, language),
            risk=number(100 * head.risk, 1, language),
        )
    )
    if head.interval:
        parts.append(f"{say_uncertainty(head.interval, setting)}.")
    return [*parts, said_hit_rate(head.hit_rate, setting.zone, language)]


def shown_interval(interval: tuple[float, float]) -> str:
    """An interval of risks in whole per cent, rounded outwards, so that the risk stays within."""
    low, high = (round(100 * risk, 6) for risk in interval)
    return f"{math.floor(low)}–{math.ceil(high)}"


def say_uncertainty(interval: tuple[float, float], setting: Setting) -> str:
    """How sure the model is of a risk; not what may become of the patient."""
    return setting.texts.uncertainty.format(range=shown_interval(interval))


@dataclass(frozen=True, slots=True)
class Shown:
    """Contributions as printed, with one decimal from one rounding, on card and page alike.

    `top`: the categories a card names; `other`: the sum of the rest; `total`: printed risk less
    printed reference, which all categories add up to. `categories`: printed points by id.
    """

    top: list[tuple[Contribution, float]]
    other: float
    total: float
    categories: Mapping[str, float]


def shown_contributions(head: HeadPrediction) -> Shown:
    """At most three categories that raise and two that lower, rounded so that every sum holds."""
    total = round(round(100 * head.risk, 1) - round(100 * head.reference_risk, 1), 1)
    rounded = rounded_to_sum([c.points for c in head.contributions], total)
    categories = {c.category: r for c, r in zip(head.contributions, rounded, strict=True)}
    ranked = sorted(head.contributions, key=lambda c: -abs(c.points))
    named = [c for c in ranked if categories[c.category] > 0][:MOST_RAISING]
    named += [c for c in ranked if categories[c.category] < 0][:MOST_LOWERING]
    top = [(c, categories[c.category]) for c in named]
    other = round(total - sum(points for _, points in top), 1)
    return Shown(top, other, total, categories)


def shown_features(head: HeadPrediction, shown: Shown) -> dict[str, float]:
    """Every feature's printed points by name; those of a category add up to what it shows."""
    points: dict[str, float] = {}
    for c in head.contributions:
        parts = rounded_to_sum([f.points for f in c.features], shown.categories[c.category])
        points |= {f.name: part for f, part in zip(c.features, parts, strict=True)}
    return points


def signed(points: float, language: str) -> str:
    """Percentage points with one decimal and their sign."""
    text = number(points, 1, language)
    return text if text.startswith("−") else f"+{text}"


def _table(
    heading: str,
    rows: Sequence[tuple[Contribution, float]],
    specs: Specs,
    setting: Setting,
) -> str:
    if not rows:
        return ""
    lines = [f"| {heading} | {setting.texts.points} | {setting.texts.facts} |", "|---|---|---|"]
    for contribution, points in rows:
        facts = "; ".join(said_facts(contribution, specs, setting))
        lines.append(f"| {contribution.label} | {signed(points, setting.language)} | {facts} |")
    return "\n".join(lines)


def said_scores(prediction: Prediction, setting: Setting) -> str:
    """The published scores on one line; one that cannot be computed says so."""
    said = (say_score(score, setting) for score in prediction.reference_scores)
    return setting.texts.scores.format(what="; ".join(said))


def say_score(score: ReferenceScore, setting: Setting) -> str:
    """One score: points, risk with its outcome, and band, or what it lacks."""
    texts, language = setting.texts, setting.language
    if score.missing:
        return texts.score_lacks.format(label=score.label, what=", ".join(score.missing))
    parts = [] if score.points is None else [str(score.points)]
    if score.most is not None and parts:
        parts[0] = texts.score_of.format(points=score.points, most=score.most)
    if score.risk is not None:
        of = f" ({score.outcome})" if score.outcome else ""
        parts.append(f"{number(100 * score.risk, 1, language)} %{of}")
    if score.band:
        parts.append(score.band)
    return f"{score.label} {', '.join(parts)}"


def closing_line(
    manifest: words.Manifest, prediction: Prediction, setting: Setting, *said: str
) -> str:
    """The last line of a card: what it is, when it was computed, and on what the model learned."""
    footer = setting.texts.footer.format(
        computed=day_and_time(prediction.computed_at, setting.zone, setting.language),
        as_of=day_and_time(prediction.as_of, setting.zone, setting.language),
    )
    synthetic = [setting.texts.synthetic] if manifest.synthetic else []
    standing = said_standing(
        prediction.standing, setting.zone, language=setting.language, escape=plain
    )
    lines = [f"*{' '.join([*said, footer, *synthetic])}*"]
    return "\n\n".join([*([standing] if standing else []), *lines])


# ---- insufficient data, stopped models, alarms ----------------------------------------------


def _stopped_card(manifest: words.Manifest, prediction: Prediction, setting: Setting) -> Card:
    """What a model that is paused, retired or failed says instead of a number.

    A failure is a warning: nobody decided it, and who counts on a card may read its absence as low
    risk.
    """
    reason = prediction.reason or ""
    said = setting.texts.stopped_detail[reason]
    return new_card(
        manifest,
        setting,
        summary=why_stopped(prediction, setting.zone, manifest.title.in_language(setting.language)),
        detail=f"{said}\n\n{closing_line(manifest, prediction, setting)}",
        indicator="warning" if reason == "model-failed" else "info",
        topic=(reason,),
    )


def _insufficient_card(manifest: words.Manifest, prediction: Prediction, setting: Setting) -> Card:
    texts, language = setting.texts, setting.language
    lacking = lacking_texts(manifest, prediction, language)
    detail = [texts.insufficient_detail, "\n".join(f"- {capital(text)}" for text in lacking)]
    troubles = [plain(trouble, longest=200) for trouble in prediction.troubles[:MOST_MISSING]]
    if troubles:
        detail.append(texts.troubles.format(what="; ".join(troubles)))
    detail.append(closing_line(manifest, prediction, setting))
    summary = texts.insufficient_summary.format(
        title=manifest.title.in_language(language), what=", ".join(lacking)
    )
    if len(summary) > LONGEST_SUMMARY:
        summary = texts.insufficient_summary_many.format(
            title=manifest.title.in_language(language), n=len(lacking)
        )
    return new_card(
        manifest,
        setting,
        summary=summary,
        detail="\n\n".join(detail),
        indicator="info",
        topic=INSUFFICIENT,
    )


def lacking_texts(manifest: words.Manifest, prediction: Prediction, language: str) -> list[str]:
    """The parts of the minimum data a prediction named as lacking, in words."""
    said = (prediction.reason or "").split("; ")
    return [part.text.in_language(language) for part in manifest.minimum if part.text.en in said]


def why_not_eligible(manifest: words.Manifest, prediction: Prediction, language: str) -> str:
    """Why the model is not for the patient, in words."""
    reason = prediction.reason or ""
    scope = {rule.reason: rule.text.in_language(language) for rule in manifest.scope}
    return scope.get(reason) or TEXTS[language].reasons.get(reason, reason)


def said_alarm(alarm: RuleAlarm, setting: Setting) -> str:
    """An alarm's measurement as a phrase: what, the raw value, when."""
    texts, language = setting.texts, setting.language
    value = number(alarm.value, 1, language) if alarm.value is not None else texts.missing_value
    return texts.alarm_what.format(
        label=uncapital(alarm.label),
        value=value,
        unit=shown_unit(alarm.unit, language),
        time=day_and_time(alarm.time, setting.zone, language),
    )


def _alarm(manifest: words.Manifest, alarm: RuleAlarm, setting: Setting) -> Card:
    if alarm.kind == "safety":
        return _safety_card(manifest, alarm, setting)
    return _implausible_card(manifest, alarm, setting)


def said_rule(alarm: RuleAlarm, setting: Setting) -> str:
    """What a safety rule met: the measurement, the limit and whose it is, and when."""
    texts, language = setting.texts, setting.language
    time = day_and_time(alarm.time, setting.zone, language)
    if not alarm.limit or alarm.value is None:
        return texts.rule_met.format(label=alarm.label, time=time)
    compared, limit = alarm.limit.split(" ")
    return texts.rule_limit.format(
        label=alarm.label,
        value=decimal(alarm.value, language),
        unit=shown_unit(alarm.unit, language),
        compared=texts.compared[compared],
        whose=texts.own_limit if alarm.own_limit else texts.usual_limit,
        limit=decimal(float(limit), language),
        time=time,
    ).replace("  ", " ")


def _safety_card(manifest: words.Manifest, alarm: RuleAlarm, setting: Setting) -> Card:
    texts, what = setting.texts, said_rule(alarm, setting)
    action = f"{(alarm.action or '').rstrip('.')}."
    return new_card(
        manifest,
        setting,
        summary=_as_far_as_fits([f"{what}.", *sentences(action)]),
        detail=f"{what}. **{action}**\n\n{texts.rule_detail}",
        indicator=alarm.indicator,
        topic=rule_said(alarm.rule),
    )


def _as_far_as_fits(said: Sequence[str]) -> str:
    """The first sentence, and of the others as many as a summary holds."""
    lines = (" ".join(said[:kept]) for kept in range(len(said), 0, -1))
    return next((line for line in lines if len(line) <= LONGEST_SUMMARY), said[0])


def _implausible_card(manifest: words.Manifest, alarm: RuleAlarm, setting: Setting) -> Card:
    texts, what = setting.texts, said_alarm(alarm, setting)
    return new_card(
        manifest,
        setting,
        summary=texts.alarm_summary.format(what=what),
        detail=texts.alarm_detail.format(what=capital(what), limit=alarm.limit.replace("-", "–")),
        indicator="warning",
        topic=check_said(alarm.rule),
    )
