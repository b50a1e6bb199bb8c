"""How a version stands at the site, and how often its cards were right there. Pure.

As cards and pages say it, in Danish and English.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import tzinfo
from functools import lru_cache

from cds_service.texts import TEXTS
from cds_service.wording import day, day_in_words, number
from models.prediction import HitRate, Prediction, Standing

RARE = 0.1
"""Hit rates below this are printed with one decimal: of rare events whole per cent say little."""


def said_standing(
    standing: Standing | None,
    zone: tzinfo,
    *,
    language: str,
    escape: Callable[[str], str] = str,
) -> str:
    """State, regulatory route, and who answers for the model clinically, on one line.

    Empty for predictions from before that was recorded. `escape` makes the owner's name, which the
    site typed, harmless where it is shown.
    """
    if standing is None:
        return ""
    texts = TEXTS[language]
    state = texts.states[standing.state]
    if standing.since:
        day = day_in_words(standing.since, zone, language)
        state = texts.since.format(state=state, day=day)
    if standing.regulatory_route is None or standing.clinical_owner is None:
        unapproved = texts.unapproved_live if standing.state == "live" else texts.unapproved
        return texts.standing.format(what=unapproved.format(state=state))
    said = (
        texts.standing.format(what=state),
        texts.routes[standing.regulatory_route],
        texts.owner.format(name=escape(standing.clinical_owner).rstrip(".")),
    )
    return " ".join(said)


@lru_cache(maxsize=256)
def said_hit_rate(found: HitRate | None, zone: tzinfo, language: str) -> str:
    """How often a head's cards were followed by the outcome here, of how many, and when.

    The interval is rounded outwards. Where it was not measured here, that it is unknown. The words
    are remembered: they are the same on every card until the next validation.
    """
    texts = TEXTS[language]
    if found is None:
        return texts.ppv_unknown
    decimals = 1 if found.ppv < RARE else 0
    unit = 100 * 10**decimals
    low = math.floor(round(found.low * unit, 6)) / 10**decimals
    high = math.ceil(round(found.high * unit, 6)) / 10**decimals
    return texts.ppv_known.format(
        ppv=number(100 * found.ppv, decimals, language),
        low=number(low, decimals, language),
        high=number(high, decimals, language),
        n=found.flagged,
        first=day(found.from_, zone, language),
        last=day(found.to, zone, language),
        synthetic=texts.ppv_synthetic if found.synthetic else "",
    )


def why_stopped(prediction: Prediction, zone: tzinfo, title: str) -> str:
    """Since when a model that was asked is paused or retired, or that it failed."""
    since = prediction.standing.since if prediction.standing else None
    day = day_in_words(since or prediction.as_of, zone, prediction.language)
    stopped = TEXTS[prediction.language].stopped_summary[prediction.reason or ""]
    return stopped.format(title=title, day=day)
