"""A prediction as a few lines of terminal text, with a small chart of the contributions."""

from __future__ import annotations

from cds_service.cards import (
    lacking_texts,
    said_alarm,
    said_rule,
    shown_contributions,
    shown_interval,
    signed,
    why_not_eligible,
)
from cds_service.findings import Setting, missing_names, said_facts, specs_of
from cds_service.ranked_cards import (
    Way,
    arguments_of,
    ranking_words,
    rankings_to_show,
    said_argument,
    say_ranking,
)
from cds_service.standing import why_stopped
from cds_service.wording import day_and_time, number
from models.manifest import Manifest
from models.prediction import HeadPrediction, Prediction, RankingPrediction, RuleAlarm

_WIDEST = 16
_WORDS = {
    "da": {
        "as of": "data til", "risk": "risiko", "group": "gruppe", "other": "øvrige",
        "missing": "mangler", "synthetic": "SYNTETISK MODEL", "no card": "intet kort",
        "insufficient-data": "ikke beregnet, for få oplysninger; der mangler",
        "not-eligible": "ikke beregnet, modellen gælder ikke her",
        "implausible": "KONTROLLÉR NU", "safety": "SIKKERHEDSREGEL",
        "unread": "kunne ikke læses", "below-threshold": "under kortgrænsen",
        "for": "taler for", "against": "taler imod",
    },
    "en": {
        "as of": "as of", "risk": "risk", "group": "group", "other": "other",
        "missing": "missing", "synthetic": "SYNTHETIC MODEL", "no card": "no card",
        "insufficient-data": "not computed, not enough data; missing",
        "not-eligible": "not computed, the model does not apply here",
        "implausible": "CHECK NOW", "safety": "SAFETY RULE",
        "unread": "could not be read", "below-threshold": "below the card threshold",
        "for": "speaks for", "against": "speaks against",
    },
}  # fmt: skip


def terminal_card(manifest: Manifest, p: Prediction, setting: Setting) -> str:
    """The lines to print for one prediction."""
    words, language = _WORDS[setting.language], setting.language
    head_line = f"{p.model.id} {p.model.version}   {words['as of']} "
    head_line += day_and_time(p.as_of, setting.zone, language)
    lines = [head_line]
    lines += [f"  {words[alarm.kind]}: {_alarm(alarm, setting)}" for alarm in p.rule_alarms]
    if p.status == "insufficient-data":
        lacking = "; ".join(lacking_texts(manifest, p, language))
        lines.append(f"  {words['insufficient-data']}: {lacking}")
    elif p.status == "refused":
        lines.append(f"  {why_stopped(p, setting.zone, manifest.title.in_language(language))}")
    elif p.status != "scored":
        lines.append(f"  {words['not-eligible']}: {why_not_eligible(manifest, p, language)}")
    for head in p.heads:
        lines += _head_lines(manifest, p, head, setting)
    for ranking in p.rankings:
        lines += _ranking_lines(manifest, p, ranking, setting)
    if p.missing and p.status == "scored":
        names = missing_names(specs_of(manifest), p.missing, language)
        lines.append(f"  {words['missing']}: {', '.join(names)}")
    if p.troubles:
        lines.append(f"  {words['unread']}: {'; '.join(_printable(t) for t in p.troubles)}")
    return "\n".join(lines)


def _alarm(alarm: RuleAlarm, setting: Setting) -> str:
    said = said_rule if alarm.kind == "safety" else said_alarm
    return said(alarm, setting)


def _head_lines(
    manifest: Manifest, p: Prediction, head: HeadPrediction, setting: Setting
) -> list[str]:
    words, language = _WORDS[setting.language], setting.language
    spec = next(h for h in manifest.heads if h.id == head.head)
    band = next(b for b in spec.bands if b.id == head.band).label.in_language(language).upper()
    title = f"  {spec.title.in_language(language)}:\n" if len(manifest.heads) > 1 else ""
    line = (
        f"{title}  {words['risk']} {number(100 * head.risk, 1, language)} %{_interval(head)}   "
        f"{words['group']} {number(100 * head.reference_risk, 1, language)} %   {band}"
    )
    if manifest.synthetic:
        line += f"   {words['synthetic']}"
    if p.returned == "below-threshold":
        line += f"   ({words['below-threshold']})"
    specs = specs_of(manifest)
    shown = shown_contributions(head)
    widest = max((abs(points) for _, points in shown.top), default=1.0) or 1.0
    name = max((len(c.label) for c, _ in shown.top), default=8) + 1
    lines = [line]
    for contribution, points in shown.top:
        bar = "█" * max(1, round(_WIDEST * abs(points) / widest))
        arrow = "▲" if points > 0 else "▼"
        facts = ", ".join(said_facts(contribution, specs, setting))
        lines.append(
            f"  {contribution.label:<{name}}{arrow} {bar:<{_WIDEST}} "
            f"{signed(points, language):>6}   {facts}"
        )
    other = signed(shown.other, language)
    lines.append(f"  {words['other']:<{name}}  {'':<{_WIDEST}} {other:>6}")
    return lines


def _ranking_lines(
    manifest: Manifest, p: Prediction, ranking: RankingPrediction, setting: Setting
) -> list[str]:
    words, spec = _WORDS[setting.language], ranking_words(manifest, ranking)
    line = f"  {say_ranking(ranking, spec, setting, most=spec.shown)}"
    if p.synthetic:
        line += f"   {words['synthetic']}"
    if ranking not in rankings_to_show(manifest, p):
        line += f"   ({words['below-threshold']})"
    specs = specs_of(manifest)
    ways: tuple[Way, ...] = ("for", "against")
    lines = [line]
    for way in ways:
        for argument in arguments_of(ranking, way):
            facts = ", ".join(said_argument(argument, way, specs, setting))
            lines.append(f"  {words[way]}: {argument.label}   {facts}")
    return lines


def _interval(head: HeadPrediction) -> str:
    """The model's uncertainty in brackets, where it is known."""
    return f" [{shown_interval(head.interval)}]" if head.interval else ""


def _printable(text: str) -> str:
    """The text without anything a terminal would obey."""
    return "".join(c for c in text if c.isprintable())
