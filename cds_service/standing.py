"""How a version stands at the site, as cards and pages say it in Danish and English. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo

from cds_service.texts import TEXTS
from cds_service.wording import day_in_words
from models.prediction import Prediction, Standing


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


def why_stopped(prediction: Prediction, zone: tzinfo, title: str) -> str:
    """Since when a model that was asked is paused or retired."""
    since = prediction.standing.since if prediction.standing else None
    day = day_in_words(since or prediction.as_of, zone, prediction.language)
    stopped = TEXTS[prediction.language].stopped_summary[prediction.reason or ""]
    return stopped.format(title=title, day=day)
