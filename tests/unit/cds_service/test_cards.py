"""Cards of packages with several outcomes and with safety rules, read as a clinician reads them."""

from __future__ import annotations

import msgspec
import pytest

from cds_service.assess import MODEL_FAILED
from cds_service.cards import Card, make_cards
from cds_service.findings import Setting
from fhir_adapters.clock import COPENHAGEN
from fhir_adapters.features.language import Text
from models.manifest import Manifest
from models.package import Package
from models.prediction import (
    Contribution,
    FeatureContribution,
    HeadPrediction,
    HitRate,
    ModelRef,
    Prediction,
    ReferenceScore,
)
from models.prediction import RuleAlarm as Alarm

SETTING = Setting("da", COPENHAGEN, None)
ENGLISH = Setting("en", COPENHAGEN, None)
LOW_SPO2 = Alarm(
    kind="safety",
    rule="spo2-low",
    label="Iltmætning",
    value=86.0,
    unit="%",
    time="2026-11-21T07:05:00Z",
    limit="<= 88",
    own_limit=True,
    indicator="critical",
    action="Kontakt borgeren nu",
)


@pytest.fixture
def manifest(package: Package) -> Manifest:
    """The bundled manifest with three heads: death, complications, and a leak for context."""
    (readmission,) = package.manifest.heads
    low, *_, high = readmission.bands
    heads = [
        msgspec.structs.replace(
            readmission,
            id=name,
            role=role,
            title=Text(da, da),
            bands=[low, msgspec.structs.replace(high, from_risk=0.1, indicator=indicator)],
        )
        for name, role, da, indicator in (
            ("death", "card", "Død inden 90 dage", "warning"),
            ("complication", "card", "Komplikation inden 30 dage", "info"),
            ("leak", "context", "Lækage inden 30 dage", "critical"),
        )
    ]
    return msgspec.structs.replace(package.manifest, heads=heads)


def head(name: str, risk: float) -> HeadPrediction:
    """A head of 4 % in the comparison group, all of the difference from one category."""
    points = 100 * (risk - 0.04)
    feature = FeatureContribution(
        name="age", label="Alder", value=81.0, unit="a", status="measured", points=points
    )
    return HeadPrediction(
        head=name,
        outcome="o",
        horizon_days=30,
        status="scored",
        risk=risk,
        reference_risk=0.04,
        threshold=0.2 if name == "leak" else 0.1,
        band="high" if risk >= 0.1 else "low",
        contributions=[
            Contribution(
                category="person",
                label="Alder og køn",
                points=points,
                positive=max(points, 0.0),
                negative=min(points, 0.0),
                features=[feature],
            )
        ],
    )


def prediction(*heads: HeadPrediction, alarms: tuple[Alarm, ...] = (), **said: str) -> Prediction:
    words = {"mode": "live", "status": "scored", **said}
    return msgspec.convert(
        {
            "prediction_id": "6f1d2b0a-3c44-8c8e-9a51-5a0f6a3f7d10",
            "service": "s",
            "model": ModelRef("s", "1.0.0", "0" * 64),
            "synthetic": True,
            "returned": "",
            "as_of": "2026-11-21T08:00:00Z",
            "computed_at": "2026-11-21T08:00:00Z",
            "index_time": None,
            "reason": None,
            "language": "da",
            "heads": list(heads),
            "rule_alarms": list(alarms),
            **words,
        },
        Prediction,
    )


def only(cards: list[Card]) -> Card:
    (card,) = cards
    return card


# ---- several outcomes -----------------------------------------------------------------------


def test_several_outcomes_stand_on_one_card_as_severe_as_the_worst(manifest: Manifest) -> None:
    """Death 12 % (warning) and complications 31 % (info): one card, a warning."""
    card = only(
        make_cards(manifest, prediction(head("death", 0.12), head("complication", 0.31)), SETTING)
    )
    assert card["indicator"] == "warning"
    assert "Død inden 90 dage: 12,0 %" in card["summary"]
    assert len(card["summary"]) < 140
    assert "| Død inden 90 dage | 12,0 % | 4,0 % | Høj risiko |" in card["detail"]
    assert "### Komplikation inden 30 dage" in card["detail"]
    assert "SYNTETISK" in card["summary"]


def test_an_outcome_for_context_brings_no_card_and_moves_no_indicator(manifest: Manifest) -> None:
    """A leak of 40 % is shown beside the death it comes with, and never alone."""
    leak = head("leak", 0.4)
    assert make_cards(manifest, prediction(head("death", 0.02), leak), SETTING) == []
    card = only(make_cards(manifest, prediction(head("death", 0.12), leak), SETTING))
    assert card["indicator"] == "warning"
    assert (
        "| Lækage inden 30 dage (til orientering) | 40,0 % | 4,0 % | Høj risiko |"
        in (card["detail"])
    )
    assert "### Lækage" not in card["detail"]


def test_an_outcome_below_its_threshold_is_in_the_table_only(manifest: Manifest) -> None:
    card = only(
        make_cards(manifest, prediction(head("death", 0.12), head("complication", 0.05)), SETTING)
    )
    assert "| Komplikation inden 30 dage | 5,0 % | 4,0 % | Lav risiko |" in card["detail"]
    assert "### Komplikation" not in card["detail"]
    assert "5,0" not in card["summary"]


@pytest.mark.parametrize("setting", [SETTING, ENGLISH])
def test_a_card_says_that_its_hit_rate_is_unknown_here(
    manifest: Manifest, setting: Setting
) -> None:
    """How often such a card is right is known from local validation only."""
    card = only(make_cards(manifest, prediction(head("death", 0.12)), setting))
    assert ("ukendt her" in card["detail"]) or ("unknown here" in card["detail"])


def test_every_outcome_shown_states_its_own_hit_rate(manifest: Manifest) -> None:
    """Death was measured here, complications were not; a leak for context states none."""
    rate = HitRate(
        ppv=0.2293,
        low=0.1911,
        high=0.2724,
        flagged=410,
        from_="2026-01-01T08:00:00Z",
        to="2026-06-30T08:00:00Z",
        synthetic=False,
    )
    death = msgspec.structs.replace(head("death", 0.12), hit_rate=rate)
    made = prediction(death, head("complication", 0.31), head("leak", 0.4))
    card = only(make_cards(manifest, made, SETTING))
    of_death, of_complication = card["detail"].split("### ")[1:]
    assert "blev fulgt af hændelsen her: 23 % (19–28 %) af 410 kort" in of_death
    assert "ukendt her" not in of_death
    assert "følges af hændelsen: ukendt her." in of_complication
    assert card["detail"].count("Hvor ofte et sådant kort") == 2


def test_published_scores_stand_beside_the_model_or_say_what_they_lack(
    manifest: Manifest,
) -> None:
    """Never a part of a number."""
    scores = [
        ReferenceScore(
            score="lace", label="LACE-indeks", version="v", points=11, most=19, band="høj"
        ),
        ReferenceScore(score="news2", label="NEWS2", version="v", missing=["respirationsfrekvens"]),
    ]
    made = msgspec.structs.replace(prediction(head("death", 0.12)), reference_scores=scores)
    card = only(make_cards(manifest, made, SETTING))
    assert (
        "**Kendte scorer:** LACE-indeks 11 af 19, høj; "
        "NEWS2 kan ikke beregnes (mangler: respirationsfrekvens)."
    ) in card["detail"]


def test_a_published_risk_says_of_what_it_is(manifest: Manifest) -> None:
    """Death within a year is not the readmission it stands beside."""
    score = ReferenceScore(
        score="lace",
        label="LACE-indeks",
        version="v",
        points=16,
        most=19,
        risk=0.304,
        outcome="død inden for 30 dage",
        band="høj",
    )
    made = msgspec.structs.replace(prediction(head("death", 0.12)), reference_scores=[score])
    card = only(make_cards(manifest, made, SETTING))
    assert (
        "**Kendte scorer:** LACE-indeks 16 af 19, 30,4 % (død inden for 30 dage), høj."
        in card["detail"]
    )


@pytest.mark.parametrize(
    ("setting", "risk", "said"),
    [
        (
            SETTING,
            0.123,
            (
                "**12 ud af 100** med samme oplysninger genindlægges akut inden for 30 dage; "
                "i sammenligningsgruppen er det 4 ud af 100."
            ),
        ),
        (
            ENGLISH,
            0.997,
            (
                "**More than 99 of 100** people with the same findings are acutely readmitted "
                "within 30 days; in the comparison group it is 4 of 100."
            ),
        ),
    ],
)
def test_a_risk_is_said_as_so_many_people_of_a_hundred(
    manifest: Manifest, setting: Setting, risk: float, said: str
) -> None:
    """Beside the comparison group's, and in a word that fits the hospital and the home alike."""
    card = only(make_cards(manifest, prediction(head("death", risk)), setting))
    assert said in card["detail"]


@pytest.mark.parametrize(
    ("shown", "danish", "english"),
    [(2, " og 1 andet udfald.", " and 1 other outcome."),
     (3, " og 2 andre udfald.", " and 2 other outcomes.")],
)  # fmt: skip
def test_outcomes_the_summary_has_no_room_for_are_counted(
    manifest: Manifest, shown: int, danish: str, english: str
) -> None:
    """As outcomes: "and 2 more" could be anything."""
    death = manifest.heads[0]
    long = Text("Død inden for 90 dage efter operationen", "Death within 90 days of surgery")
    heads = [
        msgspec.structs.replace(death, id=name, title=long) for name in ("one", "two", "three")
    ]
    made = prediction(*(head(name, 0.3) for name in ("one", "two", "three")[:shown]))
    several = msgspec.structs.replace(manifest, heads=heads)
    for setting, said in ((SETTING, danish), (ENGLISH, english)):
        summary = only(make_cards(several, made, setting))["summary"]
        assert said in summary
        assert len(summary) < 140


# ---- safety rules ---------------------------------------------------------------------------


def test_a_safety_rule_has_a_card_of_its_own_before_the_model_s(manifest: Manifest) -> None:
    """Told apart: the measurement, the limit, what to do; and then what the model says."""
    usual = msgspec.structs.replace(LOW_SPO2, own_limit=False)
    alarm, model = make_cards(manifest, prediction(head("death", 0.12), alarms=(usual,)), SETTING)
    assert alarm["summary"] == (
        "Iltmætning 86 % er på eller under grænsen på 88 % "
        "(21.11.2026 kl. 08.05). Kontakt borgeren nu."
    )
    assert alarm["indicator"] == "critical"
    assert "uanset hvad modellen beregner" in alarm["detail"]
    assert model["indicator"] == "warning"
    assert alarm["source"]["topic"]["code"] != model["source"]["topic"]["code"]


@pytest.mark.parametrize(
    ("status", "mode"),
    [
        ("scored", "live"),
        ("scored", "silent"),
        ("insufficient-data", "live"),
        ("not-eligible", "live"),
    ],
)
def test_a_safety_rule_stands_whatever_the_model_says(
    manifest: Manifest, status: str, mode: str
) -> None:
    """Too few data, out of scope, silent, or a low risk: the alarm is shown."""
    heads = [head("death", 0.02)] if status == "scored" else []
    cards = make_cards(
        manifest, prediction(*heads, alarms=(LOW_SPO2,), status=status, mode=mode), SETTING
    )
    assert cards[0]["summary"].startswith("Iltmætning 86 %")


def test_a_rule_that_is_met_or_not_is_said_without_a_number(manifest: Manifest) -> None:
    """Severe breathlessness is an answer, not a measurement."""
    alarm = msgspec.structs.replace(
        LOW_SPO2, label="Svær åndenød", value=1.0, limit="", own_limit=False
    )
    card = only(make_cards(manifest, prediction(alarms=(alarm,), status="not-eligible"), SETTING))
    assert card["summary"] == "Svær åndenød 21.11.2026 kl. 08.05. Kontakt borgeren nu."


def test_where_the_telemedicine_platform_alarms_itself_one_alarm_is_shown(
    manifest: Manifest,
) -> None:
    """The limit is the patient's own, which the platform knows: one card with both."""
    card = only(make_cards(manifest, prediction(head("death", 0.12), alarms=(LOW_SPO2,)), SETTING))
    assert card["indicator"] == "critical"
    assert "den personlige grænse på 88 %" in card["summary"]
    assert "### Modellen" in card["detail"]
    assert "| Død inden 90 dage | 12,0 % |" in card["detail"]


def test_the_summary_of_an_alarm_says_what_to_do_as_far_as_it_holds(manifest: Manifest) -> None:
    """Whole sentences of fewer than 140 characters; the detail has all of them."""
    action = (
        "Ring til borgeren nu. Ring 112 ved åndenød i hvile, der ikke lindres. "
        "Start den aftalte plan."
    )
    alarm = msgspec.structs.replace(
        LOW_SPO2, label="Svær åndenød, selvrapporteret", limit="", own_limit=False, action=action
    )
    card = only(make_cards(manifest, prediction(alarms=(alarm,), status="not-eligible"), SETTING))
    assert card["summary"] == (
        "Svær åndenød, selvrapporteret 21.11.2026 kl. 08.05. Ring til borgeren nu. "
        "Ring 112 ved åndenød i hvile, der ikke lindres."
    )
    assert f"**{action}**" in card["detail"]
    limit = msgspec.structs.replace(LOW_SPO2, own_limit=False, action=action)
    card = only(make_cards(manifest, prediction(alarms=(limit,), status="not-eligible"), SETTING))
    assert card["summary"].endswith("(21.11.2026 kl. 08.05). Ring til borgeren nu.")


# ---- a model that fails ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (SETTING, "Prognosen kunne ikke beregnes: fejl i modellen"),
        (ENGLISH, "the prognosis could not be computed: the model failed"),
    ],
)
def test_a_model_that_failed_says_so_and_never_reads_as_low_risk(
    manifest: Manifest, setting: Setting, said: str
) -> None:
    """A warning of its own kind, after the alarms; no number."""
    made = prediction(alarms=(LOW_SPO2,), status="refused", reason=MODEL_FAILED)
    made = msgspec.structs.replace(made, language=setting.language)
    alarm, card = make_cards(manifest, made, setting)
    assert alarm["indicator"] == "critical"
    assert card["indicator"] == "warning"
    assert said in card["summary"]
    assert "%" not in card["summary"] + card["detail"]
    assert ("kan være høj" in card["detail"]) or ("may be high" in card["detail"])
    topics = {
        only(make_cards(manifest, prediction(status="refused", reason=reason), SETTING))["source"][
            "topic"
        ]["code"]
        for reason in ("paused", "retired", MODEL_FAILED)
    }
    assert len(topics) == 3
