"""What is said of a version's standing, in every state, with and without the site's record."""

from __future__ import annotations

from typing import get_args

import pytest

from cds_service.assess import MODEL_FAILED
from cds_service.standing import said_standing
from cds_service.texts import TEXTS
from cds_service.wording import plain
from fhir_adapters.clock import COPENHAGEN
from models.prediction import AiActRole, RegulatoryRoute, Standing, State

SINCE = "2026-12-03T09:00:00Z"
STATES = sorted(get_args(State))


def said(standing: Standing | None, language: str = "da") -> str:
    return said_standing(standing, COPENHAGEN, language=language, escape=plain)


def recorded(state: State, *, owner: str = "Overlæge A. Berg") -> Standing:
    return Standing(
        state=state,
        since=SINCE,
        regulatory_route="mdr-5-5",
        ai_act_role="provider",
        clinical_owner=owner,
    )


@pytest.mark.parametrize(
    ("standing", "danish", "english"),
    [
        (
            Standing(state="live"),
            "Status: demonstration, ikke godkendt til klinisk brug.",
            "Status: demonstration, not approved for clinical use.",
        ),
        (
            Standing(state="candidate"),
            "Status: kandidat, ikke i drift, ikke godkendt til klinisk brug.",
            "Status: candidate, not in service, not approved for clinical use.",
        ),
        (
            Standing(state="silent", since=SINCE),
            "Status: tavs afprøvning siden 3. december 2026, ikke godkendt til klinisk brug.",
            "Status: silent trial since 3 December 2026, not approved for clinical use.",
        ),
        (
            recorded("live"),
            (
                "Status: i drift siden 3. december 2026. Egenfremstillet medicinsk udstyr, "
                "MDR artikel 5, stk. 5. Klinisk ansvarlig: Overlæge A. Berg."
            ),
            (
                "Status: in service since 3 December 2026. In-house medical device, "
                "MDR Article 5(5). Clinically responsible: Overlæge A. Berg."
            ),
        ),
        (None, "", ""),
    ],
)
def test_the_standing_is_said_on_one_line(
    standing: Standing | None, danish: str, english: str
) -> None:
    """Predictions from before it was recorded say nothing."""
    assert said(standing) == danish
    assert said(standing, "en") == english


@pytest.mark.parametrize("language", ["da", "en"])
def test_every_state_and_route_has_words(language: str) -> None:
    texts = TEXTS[language]
    assert set(texts.states) == set(get_args(State))
    assert set(texts.routes) == set(get_args(RegulatoryRoute))
    stopped = {"paused", "retired", MODEL_FAILED}
    assert set(texts.stopped_summary) == set(texts.stopped_detail) == stopped
    assert get_args(AiActRole) == ("provider", "deployer")


@pytest.mark.parametrize("state", STATES)
def test_the_owner_s_name_is_no_markup(state: State) -> None:
    """The site typed it; it is shown as it stands."""
    line = said(recorded(state, owner="<img src=x> [A](http://x) *Berg*"))
    assert r"\<img src=x\> \[A\]\(http://x\) \*Berg\*." in line
