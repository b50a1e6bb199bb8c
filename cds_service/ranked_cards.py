"""The card of a ranking: which of several classes is most likely, and what speaks for and against.

In words, since the probabilities of several classes do not share out in points that add up. Lives
here: that card, and `every_card`, all cards of a prediction in the order they are shown. The cards
of risks and alarms live in `cds_service/cards.py`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cds_service.card_ids import card_id
from cds_service.cards import (
    LONGEST_SUMMARY,
    MOST_LOWERING,
    MOST_RAISING,
    Card,
    closing_line,
    make_cards,
    new_card,
    said_scores,
)
from cds_service.findings import Setting, Specs, say_findings, say_missing, specs_of
from cds_service.texts import RANKED_TEXTS
from cds_service.topics import ranking_said
from cds_service.wording import rounded_to_sum
from models import manifest as words
from models.prediction import Argument, Prediction, RankingPrediction

Way = Literal["for", "against"]


def every_card(
    manifest: words.Manifest, prediction: Prediction, setting: Setting, *, alarms_only: bool = False
) -> list[Card]:
    """The cards a prediction shows: alarms, risks, then rankings.

    `alarms_only`: what else it says was shown before, or is not to be shown; alarms always are.
    """
    cards = make_cards(manifest, prediction, setting, alarms_only=alarms_only)
    shown = rankings_to_show(manifest, prediction) if prediction.mode == "live" else []
    for ranking in [] if alarms_only else shown:
        card = _ranked_card(manifest, prediction, ranking, setting)
        card["uuid"] = card_id(prediction.prediction_id, len(cards))
        cards.append(card)
    return cards


def rankings_to_show(manifest: words.Manifest, prediction: Prediction) -> list[RankingPrediction]:
    """The rankings whose first class is probable enough for a card."""
    limits = {ranking.id: ranking.card_from for ranking in manifest.rankings}
    return [r for r in prediction.rankings if r.classes[0].probability >= limits[r.ranking]]


def ranking_words(manifest: words.Manifest, ranking: RankingPrediction) -> words.Ranking:
    """What the manifest says of a ranking."""
    return next(spec for spec in manifest.rankings if spec.id == ranking.ranking)


@dataclass(frozen=True, slots=True)
class ShownClass:
    """A class as printed, on card, page and terminal alike: `share` in whole per cent."""

    label: str
    share: int
    percent: str


def shown_classes(ranking: RankingPrediction, setting: Setting) -> list[ShownClass]:
    """Every class by falling probability, in whole per cent that together are 100."""
    exact = [100 * one.probability for one in ranking.classes]
    shares = [round(share) for share in rounded_to_sum(exact, 100, 0)]
    return [
        ShownClass(one.label, share, _percent(share, setting))
        for one, share in zip(ranking.classes, shares, strict=True)
    ]


def _percent(share: int, setting: Setting) -> str:
    return f"{share} %" if share >= 1 else RANKED_TEXTS[setting.language].under_one


def say_ranking(
    ranking: RankingPrediction, spec: words.Ranking, setting: Setting, *, most: int
) -> str:
    """The ranking in one line: the first class, and at most so many in all."""
    texts = RANKED_TEXTS[setting.language]
    first, *others = shown_classes(ranking, setting)[: min(most, spec.shown)]
    said = texts.summary.format(
        title=spec.title.in_language(setting.language), first=first.label, percent=first.percent
    )
    rest = ", ".join(f"{one.label} ({one.percent})" for one in others)
    return f"{said}{texts.then.format(rest=rest)}" if rest else said


def _ranked_card(
    manifest: words.Manifest,
    prediction: Prediction,
    ranking: RankingPrediction,
    setting: Setting,
) -> Card:
    return new_card(
        manifest,
        setting,
        summary=_summary(manifest, ranking, setting),
        detail=_detail(manifest, prediction, ranking, setting),
        indicator="info",
        topic=ranking_said(ranking.ranking, ranking.classes[0].id),
    )


def _summary(manifest: words.Manifest, ranking: RankingPrediction, setting: Setting) -> str:
    """The first classes that fit in one line; the mark of a synthetic model always does."""
    spec = ranking_words(manifest, ranking)
    end = f". {setting.texts.synthetic_suffix}" if manifest.synthetic else ""
    said = [say_ranking(ranking, spec, setting, most=most) for most in range(spec.shown, 0, -1)]
    fitting = [line for line in said if len(line) + len(end) <= LONGEST_SUMMARY]
    return f"{fitting[0] if fitting else said[-1][: LONGEST_SUMMARY - len(end)]}{end}"


def _detail(
    manifest: words.Manifest,
    prediction: Prediction,
    ranking: RankingPrediction,
    setting: Setting,
) -> str:
    texts, missing = RANKED_TEXTS[setting.language], say_missing(manifest, prediction, setting)
    parts = [
        *_frequency(manifest, ranking, setting),
        _table(manifest, ranking, setting),
        _arguments(manifest, ranking, "for", setting),
        _arguments(manifest, ranking, "against", setting),
        *([missing] if missing else []),
        *([setting.texts.unread.format(n=len(prediction.troubles))] if prediction.troubles else []),
        *([said_scores(prediction, setting)] if prediction.reference_scores else []),
        texts.not_advice,
        closing_line(manifest, prediction, setting, texts.not_causes),
    ]
    return "\n\n".join(parts)


def _frequency(manifest: words.Manifest, ranking: RankingPrediction, setting: Setting) -> list[str]:
    """What the first class means for a hundred such patients, where the package has the words."""
    classes = ranking_words(manifest, ranking).classes
    says = next(one.says for one in classes if one.id == ranking.classes[0].id)
    if says is None:
        return []
    said = RANKED_TEXTS[setting.language].frequency
    share = shown_classes(ranking, setting)[0].share
    return [said.format(share=share, says=says.in_language(setting.language))]


def _table(manifest: words.Manifest, ranking: RankingPrediction, setting: Setting) -> str:
    texts, spec = RANKED_TEXTS[setting.language], ranking_words(manifest, ranking)
    shown = shown_classes(ranking, setting)
    lines = [f"| | {texts.possibility} | {texts.probability} |", "|---|---|---|"]
    for place, one in enumerate(shown[: spec.shown], 1):
        lines.append(f"| {place} | {one.label} | {one.percent} |")
    rest = shown[spec.shown :]
    if rest:
        share = sum(one.share for one in rest)
        lines.append(f"| | {texts.others} | {_percent(share, setting)} |")
    return "\n".join(lines)


def _arguments(
    manifest: words.Manifest, ranking: RankingPrediction, way: Way, setting: Setting
) -> str:
    """At most so many categories as a risk card names, or that nothing speaks that way."""
    texts, first = RANKED_TEXTS[setting.language], ranking.classes[0].label
    found = arguments_of(ranking, way)[: MOST_RAISING if way == "for" else MOST_LOWERING]
    if not found:
        return texts.nothing_for if way == "for" else texts.nothing_against
    heading = texts.speaks_for if way == "for" else texts.speaks_against
    specs = specs_of(manifest)
    lines = [f"- {a.label}: {'; '.join(said_argument(a, way, specs, setting))}" for a in found]
    return "\n".join([f"**{heading.format(first=first)}**", "", *lines])


def arguments_of(ranking: RankingPrediction, way: Way) -> list[Argument]:
    """The categories that speak one way, strongest first."""
    return ranking.speaks_for if way == "for" else ranking.speaks_against


def said_argument(argument: Argument, way: Way, specs: Specs, setting: Setting) -> list[str]:
    """The findings that weigh most in a category and speak its way; what is known first."""
    return say_findings([f for f in argument.features if f.speaks == way], specs, setting)
