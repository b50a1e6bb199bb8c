"""The topics of cards (`source.topic`): one code for each thing a card can say.

Epic ties overrides and lock-outs to `source.topic.code`: a card set aside stays away as long as
its code is the same. So a code never changes for what is said, two things never share one, and
an alarm that carries a risk has another than the alarm alone. Epic allows letters and digits, at
most 100. Pure; called by the cards and by the sheet of `varsel doctor lgl`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import product, zip_longest
from typing import NamedTuple

from fhir_adapters.codes import code_table
from models import manifest as words

TOPIC_SYSTEM = "https://varsel.dk/fhir/CodeSystem/topic"
LONGEST_CODE = 100
_DIGITS = 8

Said = tuple[str, ...]
"""What a card says, in ids of the package: its kind first."""

INSUFFICIENT: Said = ("insufficient",)
STOPPED = ("paused", "retired", "model-failed")
"""Why a model that may not or cannot answer says so; each is a topic of its own."""


def topic_code(model_id: str, said: Said) -> str:
    """The code of what a card of a model says: readable, and a digest so that no two are alike."""
    parts = (model_id, *said)
    readable = "".join(c for c in "".join(parts) if c.isascii() and c.isalnum())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return readable[: LONGEST_CODE - _DIGITS] + digest[:_DIGITS]


def rule_said(rule: str) -> Said:
    """A safety rule of the package is met."""
    return ("rule", rule)


def check_said(alarm: str) -> Said:
    """A measurement cannot be right, or means danger."""
    return ("check", alarm)


def risk_said(bands: Sequence[tuple[str, str]]) -> Said:
    """The risks of some heads, each as head and band."""
    return ("risk", *(part for pair in bands for part in pair))


def ranking_said(ranking: str, first: str) -> Said:
    """A ranking, by the class that came first."""
    return ("ranking", ranking, first)


# ---- all of them ----------------------------------------------------------------------------


class Topic(NamedTuple):
    """A code and what its card says, in English words."""

    code: str
    meaning: str


def topics_of(manifest: words.Manifest) -> list[Topic]:
    """Every topic a card of a package can have, alarms first."""
    return [Topic(topic_code(manifest.id, said), meaning) for said, meaning in _all(manifest)]


def _all(manifest: words.Manifest) -> Iterator[tuple[Said, str]]:
    risks = list(_risks(manifest))
    for rule in manifest.rules:
        alarm = f"Alarm {rule.id}: {rule.label.en}"
        yield rule_said(rule.id), alarm
        if rule.own_limit:
            for said, meaning in risks:
                yield rule_said(rule.id) + said, f"{alarm} (the patient's own limit). {meaning}"
    for concept in _measured(manifest):
        label = code_table().concept(concept).label_en
        yield check_said(f"implausible-{concept}"), f"Check measurement: {label}"
    yield from risks
    for ranking in manifest.rankings:
        for one in ranking.classes:
            yield (
                ranking_said(ranking.id, one.id),
                f"{ranking.title.en}: most likely {one.label.en}",
            )
    yield INSUFFICIENT, "Not computed: not enough data"
    for reason in STOPPED:
        yield (reason,), f"Not computed: {reason}"


def _risks(manifest: words.Manifest) -> Iterator[tuple[Said, str]]:
    """Every combination of heads that bring a card together, and of the bands they can be in."""
    heads = [head for head in manifest.heads if head.role == "card"]
    choices = [[None, *_bands_shown(head)] for head in heads]
    for chosen in product(*choices):
        shown = [(h, band) for h, band in zip(heads, chosen, strict=True) if band is not None]
        if shown:
            meaning = "; ".join(f"{head.title.en}: {band.label.en}" for head, band in shown)
            yield risk_said([(head.id, band.id) for head, band in shown]), meaning


def _bands_shown(head: words.Head) -> list[words.Band]:
    """The bands that reach the threshold."""
    limits = [band.from_risk for band in head.bands[1:]]
    return [
        band
        for band, end in zip_longest(head.bands, limits, fillvalue=1.0)
        if isinstance(band, words.Band) and isinstance(end, float) and end > head.threshold
    ]


def _measured(manifest: words.Manifest) -> list[str]:
    """The concepts of the package with a measuring range, whose values outside it are alarms."""
    named = sorted({concept for feature in manifest.features for concept in feature.of})
    known = code_table().names()
    return [
        name
        for name in named
        if name in known and code_table().concept(name).plausible_low is not None
    ]
