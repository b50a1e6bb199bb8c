"""Findings in words: a feature's value as a phrase, and what is missing, by the name it goes by.

Lives here: the phrases of known values, the names of what nobody measured, and why; on card, page
and terminal alike. Which findings are shown, and around them what, is decided by who calls:
`cards.py`, `ranked_cards.py`, `terminal.py`, `routes/explanations.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from cds_service.texts import PAGE_TEXTS, TEXTS, Texts
from cds_service.wording import day, decimal, number, shown_unit, uncapital
from fhir_adapters.codes import code_table
from fhir_adapters.features.compute import OTHER_SOURCES
from fhir_adapters.features.language import FeatureSpec
from models import manifest as words
from models.prediction import Contribution, FeatureFinding, Missing, Prediction

Specs = Mapping[str, FeatureSpec]
MOST_FACTS, MOST_MISSING = 3, 6
SMALLEST_SHOWN = 0.05
"""Percentage points below which a contribution would be printed as 0,0."""
MANY_MISSING = 0.25
"""Share of the model's features from which a card says that the estimate is weaker for it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a card needs beside the prediction: language, zone, and the page it links to, if any."""

    language: str
    zone: tzinfo
    page_url: str | None

    @property
    def texts(self) -> Texts:
        """The fixed texts in the setting's language."""
        return TEXTS[self.language]


def specs_of(manifest: words.Manifest) -> dict[str, FeatureSpec]:
    """Every feature of a package by its name."""
    return {feature.name: feature for feature in manifest.features}


# ---- what is known --------------------------------------------------------------------------


def said_facts(contribution: Contribution, specs: Specs, setting: Setting) -> list[str]:
    """The facts that weigh most in a category, as phrases, in the direction of the category."""
    towards = [f for f in contribution.features if f.points * contribution.points > 0]
    visible = [f for f in towards if abs(f.points) >= SMALLEST_SHOWN] or towards
    return say_findings(visible, specs, setting)


def say_findings(findings: Sequence[FeatureFinding], specs: Specs, setting: Setting) -> list[str]:
    """Findings as at most MOST_FACTS phrases: what is known, then what is missing in one phrase."""
    known = [(f, f.value) for f in findings if f.value is not None][:MOST_FACTS]
    said = [say(f, value, specs, setting) for f, value in known]
    if len(said) == MOST_FACTS:
        return said
    absent = [_as_missing(f) for f in findings if f.value is None]
    names = missing_names(specs, absent, setting.language)[: MOST_FACTS - len(said)]
    return [*said, setting.texts.missing_facts.format(names=", ".join(names))] if names else said


def say(f: FeatureFinding, value: float, specs: Specs, setting: Setting) -> str:
    """One feature's known value as a phrase of the package."""
    spec = specs[f.name]
    never = spec.never is not None and value == spec.never and f.findings == 0
    phrase = spec.say
    if spec.say_none and (value == 0.0 or never):
        phrase = spec.say_none
    elif spec.say_one and value == 1.0:
        phrase = spec.say_one
    if phrase is None:
        return _plain_phrase(f, value, spec, setting)
    return phrase.in_language(setting.language).format(**_phrase_words(f, value, specs, setting))


def _phrase_words(
    f: FeatureFinding, value: float, specs: Specs, setting: Setting
) -> dict[str, str]:
    """What a phrase may ask for (`models.manifest.PHRASE_WORDS`), as printed.

    What was measured has the decimals of the feature a derived one is made from; of a deviation
    from the usual, which has none, as many as the number has.
    """
    spec, language = specs[f.name], setting.language
    raw = f.series[-1][1] if f.series else value
    if spec.from_:
        measured = number(raw, specs[spec.from_[0]].decimals, language)
    else:
        measured = decimal(round(raw, spec.decimals), language)
    usual = "" if f.baseline is None else decimal(round(f.baseline, spec.decimals), language)
    return {
        "n": str(round(value)),
        "value": number(value, spec.decimals, language),
        "raw": measured,
        "baseline": usual,
        "date": day(f.time, setting.zone, language) if f.time else setting.texts.no_date,
    }


def _plain_phrase(f: FeatureFinding, value: float, spec: FeatureSpec, setting: Setting) -> str:
    """A value where the package has no phrase for it: label, value, unit, and the day if known."""
    language = setting.language
    said = f"{f.label}{':' if spec.yes_no else ''} {amount(value, spec, language)}"
    return f"{said} ({day(f.time, setting.zone, language)})" if f.time else said


def amount(value: float, spec: FeatureSpec, language: str) -> str:
    """A value of a feature as people read it: yes or no, or a number with its unit."""
    if spec.yes_no:
        return TEXTS[language].yes if value else TEXTS[language].no
    return f"{number(value, spec.decimals, language)} {shown_unit(spec.unit, language)}".rstrip()


# ---- what is missing ------------------------------------------------------------------------


def say_missing(manifest: words.Manifest, prediction: Prediction, setting: Setting) -> str:
    """What is missing, and whether so much that the estimate is weaker; empty where nothing is."""
    names = missing_names(specs_of(manifest), prediction.missing, setting.language)
    if not names:
        return ""
    shown = names[:MOST_MISSING]
    named = ("; " if any("," in name for name in shown) else ", ").join(shown)
    more = len(names) - MOST_MISSING
    if more > 0:
        named += setting.texts.and_more.format(n=more)
    line = setting.texts.missing_line.format(names=named.removesuffix("."))
    weak = len(prediction.missing) >= MANY_MISSING * len(manifest.inputs)
    return f"{line} {setting.texts.weak}" if weak else line


def missing_names(specs: Specs, missing: Sequence[Missing], language: str) -> list[str]:
    """What missing features lack, each measurement once, under the plainest name it has.

    Where nobody measured the saturation, its trend and its lowest value need no mention.
    """
    if not missing:
        return []
    absent = {one.feature for one in missing}
    lacking = [_lacking(specs, one, absent) for one in missing]
    made_of = [frozenset(_measurements(specs, spec.name)) for spec in lacking]
    plainest = {
        measured: spec
        for spec, measured in reversed([*zip(lacking, made_of, strict=True)])
        if measured and spec.recipe == "last"
    }
    named: set[str] = set()
    names: list[str] = []
    for spec, measured in zip(lacking, made_of, strict=True):
        if not measured & named:
            shown = plainest.get(measured, spec)
            names.append(uncapital(shown.label.in_language(language)))
        named |= measured
    return names


def _lacking(specs: Specs, one: Missing, absent: set[str]) -> FeatureSpec:
    """The feature a missing one lacks: the part it is made from, where that is certain, or itself.

    A derived feature gives as its reason the name of the part it lacks, unless that has a reason of
    its own; then only parts that are not inputs, or missing themselves, can be the one.
    """
    _, why = _parted(one.reason)
    if why in specs:
        return specs[why]
    parts = set(_unknown_parts(specs, one.feature, absent))
    return specs[parts.pop() if len(parts) == 1 else one.feature]


def _unknown_parts(specs: Specs, name: str, absent: set[str]) -> list[str]:
    """What a feature is made from in the end, as far as it may be unknown."""
    made_from = specs[name].from_
    if not made_from:
        return [name]
    unsure = [part for part in made_from if specs[part].category is None or part in absent]
    return [leaf for part in unsure for leaf in _unknown_parts(specs, part, absent)]


def _measurements(specs: Specs, name: str) -> set[str]:
    """The measurements and answers a feature is made from, itself or through others.

    Stays, contacts and medicines are no measurements: a missing count of one goes by its own name.
    """
    spec = specs[name]
    concepts = [source for source in spec.of if source not in OTHER_SOURCES]
    kinds = {concept: code_table().concept(concept).kind for concept in concepts}
    own = {concept for concept, kind in kinds.items() if kind in ("observation", "answer")}
    return own.union(*(_measurements(specs, other) for other in spec.from_))


def _as_missing(f: FeatureFinding) -> Missing:
    return Missing(f.name, f.label, f"{f.status} ({f.reason})" if f.reason else f.status)


def _parted(reason: str) -> tuple[str, str]:
    """The status and the reason proper of `status (reason)`."""
    status, _, why = reason.partition(" ")
    return status, why.removeprefix("(").removesuffix(")")


def why_missing(one: Missing, specs: Specs, language: str) -> str:
    """Why a feature has no value, in words; a reason nobody translated as it is."""
    texts, (status, why) = PAGE_TEXTS[language], _parted(one.reason)
    said = texts.statuses[status]
    if why in specs:
        return f"{said}: {uncapital(specs[why].label.in_language(language))}"
    parts = [_reason(part, texts.reasons) for part in why.split(": ")] if why else []
    return ": ".join([said, *parts])


def _reason(part: str, known: Mapping[str, str]) -> str:
    """A part of a reason translated; a count at its end stays."""
    head, _, count = part.rpartition(" ")
    if count.isdecimal() and head in known:
        return f"{known[head]} {count}"
    return known.get(part, part)
