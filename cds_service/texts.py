"""The fixed texts of cards, page and terminal, in Danish and English.

What belongs to one model stands in its manifest. The words follow docs/glossary.md; contributions
are never called causes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Texts:
    """One language's texts; names in braces are filled in where they are used."""

    risk_summary: str
    synthetic_suffix: str
    natural_frequency: str
    raised: str
    lowered: str
    points: str
    facts: str
    nothing_raises: str
    nothing_lowers: str
    sum_line: str
    uncertainty: str
    missing_line: str
    and_more: str
    one_outcome_more: str
    outcomes_more: str
    weak: str
    reasons: Mapping[str, str]
    missing_facts: str
    missing_value: str
    yes: str
    no: str
    no_date: str
    footer: str
    not_causes: str
    synthetic: str
    explanation: str
    insufficient_summary: str
    insufficient_summary_many: str
    insufficient_detail: str
    troubles: str
    unread: str
    alarm_summary: str
    alarm_what: str
    alarm_detail: str
    scores: str
    score_of: str
    score_lacks: str
    outcome: str
    risk: str
    group: str
    band: str
    context: str
    ppv_unknown: str
    ppv_known: str
    ppv_synthetic: str
    rule_limit: str
    rule_met: str
    compared: Mapping[str, str]
    own_limit: str
    usual_limit: str
    rule_detail: str
    one_alarm: str
    standing: str
    states: Mapping[str, str]
    since: str
    unapproved_live: str
    unapproved: str
    routes: Mapping[str, str]
    owner: str
    stopped_summary: Mapping[str, str]
    stopped_detail: Mapping[str, str]


DANISH = Texts(
    risk_summary="{title}: {risk} % (sammenligningsgruppe {reference} %)",
    synthetic_suffix="SYNTETISK MODEL",
    natural_frequency=(
        "**{risk} ud af 100** med samme oplysninger {says}; "
        "i sammenligningsgruppen er det {reference} ud af 100."
    ),
    raised="Bidrog opad",
    lowered="Bidrog nedad",
    points="%-point",
    facts="Oplysninger",
    nothing_raises="Intet bidrog nævneværdigt opad.",
    nothing_lowers="Intet bidrog nævneværdigt nedad.",
    sum_line=(
        "Øvrige: {other}. Sammenligningsgruppe {reference} % og bidrag {total} giver {risk} %."
    ),
    uncertainty=(
        "Modelusikkerhed: {range} % (så meget varierer tallet, når modellen trænes på andre data)"
    ),
    missing_line="**Mangler:** {names}.",
    and_more=" og {n} til",
    one_outcome_more=" og 1 andet udfald",
    outcomes_more=" og {n} andre udfald",
    weak="Så meget mangler, at prognosen er svagere end ellers.",
    reasons={
        "deceased": "dødsfald er registreret",
        "no-index-stay": "ingen indlæggelse nu eller afsluttet inden for det seneste døgn",
        "stay-too-short": "indlæggelsen har varet under 12 timer",
        "no-recent-set": "der er ingen nye målinger",
    },
    missing_facts="mangler: {names}",
    missing_value="mangler",
    yes="ja",
    no="nej",
    no_date="uden dato",
    footer="Beslutningsstøtte, ikke en beslutning. Beregnet {computed} på data til {as_of}.",
    not_causes="Bidrag viser, hvad der vejede i beregningen, ikke årsager.",
    synthetic="Trænet på SYNTETISKE data: ikke til klinisk brug.",
    explanation="Se forklaringen",
    insufficient_summary="{title} er ikke beregnet. Der mangler: {what}",
    insufficient_summary_many="{title} er ikke beregnet. Der mangler {n} slags oplysninger",
    insufficient_detail=(
        "For få oplysninger til en sikker beregning, derfor vises intet tal. "
        "Beregningen kræver også:"
    ),
    troubles="Kunne ikke læses: {what}.",
    unread="**Kunne ikke læses:** {n} slags oplysninger; se forklaringen.",
    alarm_summary="Kontrollér måling og tilstand nu: {what}",
    alarm_what="{label} {value} {unit} ({time})",
    alarm_detail=(
        "{what} ligger uden for det, der kan regnes med ({limit}), og indgår ikke i nogen "
        "beregning. Enten er målingen forkert, eller også er tilstanden farlig."
    ),
    scores="**Kendte scorer:** {what}.",
    score_of="{points} af {most}",
    score_lacks="{label} kan ikke beregnes (mangler: {what})",
    outcome="Udfald",
    risk="Risiko",
    group="Sammenligningsgruppe",
    band="Niveau",
    context="til orientering",
    ppv_unknown="Hvor ofte et sådant kort følges af hændelsen: ukendt her.",
    ppv_known="Hvor ofte et sådant kort blev fulgt af hændelsen her: {ppv} % ({low}–{high} %) "
    "af {n} kort, {first}–{last}{synthetic}.",
    ppv_synthetic=", på SYNTETISKE data",
    rule_limit="{label} {value} {unit} er {compared} {whose} {limit} {unit} ({time})",
    rule_met="{label} {time}",
    compared={
        "<": "under",
        "<=": "på eller under",
        ">": "over",
        ">=": "på eller over",
        "==": "lig med",
    },
    own_limit="den personlige grænse på",
    usual_limit="grænsen på",
    rule_detail="Fast sikkerhedsregel. Den gælder, uanset hvad modellen beregner.",
    one_alarm=(
        "### Modellen\n\nGrænsen er personlig, og telemedicinsystemet alarmerer selv på den. "
        "Derfor står modellens beregning her og ikke som endnu en alarm."
    ),
    standing="Status: {what}.",
    states={
        "candidate": "kandidat, ikke i drift",
        "silent": "tavs afprøvning",
        "live": "i drift",
        "paused": "på pause",
        "retired": "taget ud af brug",
    },
    since="{state} siden {day}",
    unapproved_live="demonstration, ikke godkendt til klinisk brug",
    unapproved="{state}, ikke godkendt til klinisk brug",
    routes={
        "ce-marked": "CE-mærket medicinsk udstyr.",
        "mdr-5-5": "Egenfremstillet medicinsk udstyr, MDR artikel 5, stk. 5.",
    },
    owner="Klinisk ansvarlig: {name}.",
    stopped_summary={
        "paused": "{title}: Prognosen er sat på pause siden {day}",
        "retired": "{title}: Prognosen er taget ud af brug siden {day}",
        "model-failed": "{title}: Prognosen kunne ikke beregnes: fejl i modellen",
    },
    stopped_detail={
        "paused": (
            "Der beregnes ingen risiko, mens prognosen er på pause. At der ikke står et tal, siger "
            "intet om risikoen. Alarmer for målinger vises fortsat."
        ),
        "retired": (
            "Der beregnes ikke længere nogen risiko. At der ikke står et tal, siger intet om "
            "risikoen. Alarmer for målinger vises fortsat."
        ),
        "model-failed": (
            "Der er ingen beregnet risiko at støtte sig til. At der ikke står et tal, siger intet "
            "om risikoen: den kan være høj. Fejlen er registreret. Alarmer for målinger vises "
            "fortsat."
        ),
    },
)

ENGLISH = Texts(
    risk_summary="{title}: {risk} % (comparison group {reference} %)",
    synthetic_suffix="SYNTHETIC MODEL",
    natural_frequency=(
        "**{risk} of 100** people with the same findings {says}; "
        "in the comparison group it is {reference} of 100."
    ),
    raised="Raised it",
    lowered="Lowered it",
    points="points",
    facts="Findings",
    nothing_raises="Nothing raised it notably.",
    nothing_lowers="Nothing lowered it notably.",
    sum_line=(
        "Other: {other}. Comparison group {reference} % and contributions {total} give {risk} %."
    ),
    uncertainty=(
        "Model uncertainty: {range} % "
        "(how far the number moves when the model is trained on other data)"
    ),
    missing_line="**Missing:** {names}.",
    and_more=" and {n} more",
    one_outcome_more=" and 1 other outcome",
    outcomes_more=" and {n} other outcomes",
    weak="So much is missing that the estimate is weaker than it would be.",
    reasons={
        "deceased": "a death is recorded",
        "no-index-stay": "no stay now, and none that ended within the last day",
        "stay-too-short": "the stay has lasted less than 12 hours",
        "no-recent-set": "there are no recent measurements",
    },
    missing_facts="missing: {names}",
    missing_value="missing",
    yes="yes",
    no="no",
    no_date="undated",
    footer="Decision support, not a decision. Computed {computed} on data up to {as_of}.",
    not_causes="Contributions show what weighed in the estimate, not causes.",
    synthetic="Trained on SYNTHETIC data: not for clinical use.",
    explanation="See the explanation",
    insufficient_summary="{title} was not computed; missing: {what}",
    insufficient_summary_many="{title} was not computed; {n} kinds of data are missing",
    insufficient_detail=(
        "Not enough data for a sound estimate, so no number is shown. It also needs:"
    ),
    troubles="Could not be read: {what}.",
    unread="**Could not be read:** {n} kinds of data; see the explanation.",
    alarm_summary="Check measurement and condition now: {what}",
    alarm_what="{label} {value} {unit} ({time})",
    alarm_detail=(
        "{what} lies outside what can be relied on ({limit}) and enters no estimate. Either the "
        "measurement is wrong or the condition is dangerous."
    ),
    scores="**Published scores:** {what}.",
    score_of="{points} of {most}",
    score_lacks="{label} cannot be computed (missing: {what})",
    outcome="Outcome",
    risk="Risk",
    group="Comparison group",
    band="Level",
    context="for context",
    ppv_unknown="How often such a card is followed by the event: unknown here.",
    ppv_known="How often such a card was followed by the event here: {ppv} % ({low}–{high} %) "
    "of {n} cards, {first} to {last}{synthetic}.",
    ppv_synthetic=", on SYNTHETIC data",
    rule_limit="{label} {value} {unit} is {compared} {whose} {limit} {unit} ({time})",
    rule_met="{label} {time}",
    compared={
        "<": "below",
        "<=": "at or below",
        ">": "above",
        ">=": "at or above",
        "==": "equal to",
    },
    own_limit="the personal limit of",
    usual_limit="the limit of",
    rule_detail="A fixed safety rule. It stands whatever the model says.",
    one_alarm=(
        "### The model\n\nThe limit is a personal one, and the telemedicine system alarms on it "
        "itself. So the model's estimate stands here and not as one more alarm."
    ),
    standing="Status: {what}.",
    states={
        "candidate": "candidate, not in service",
        "silent": "silent trial",
        "live": "in service",
        "paused": "paused",
        "retired": "taken out of use",
    },
    since="{state} since {day}",
    unapproved_live="demonstration, not approved for clinical use",
    unapproved="{state}, not approved for clinical use",
    routes={
        "ce-marked": "CE-marked medical device.",
        "mdr-5-5": "In-house medical device, MDR Article 5(5).",
    },
    owner="Clinically responsible: {name}.",
    stopped_summary={
        "paused": "{title}: the prognosis has been paused since {day}",
        "retired": "{title}: the prognosis has been out of use since {day}",
        "model-failed": "{title}: the prognosis could not be computed: the model failed",
    },
    stopped_detail={
        "paused": (
            "No risk is computed while the prognosis is paused. That there is no number says "
            "nothing about the risk. Alarms for measurements are still shown."
        ),
        "retired": (
            "No risk is computed any more. That there is no number says nothing about the risk. "
            "Alarms for measurements are still shown."
        ),
        "model-failed": (
            "There is no computed risk to lean on. That there is no number says nothing about the "
            "risk: it may be high. The failure is recorded. Alarms for measurements are still "
            "shown."
        ),
    },
)

TEXTS: Mapping[str, Texts] = {"da": DANISH, "en": ENGLISH}


@dataclass(frozen=True, slots=True)
class PageTexts:
    """What the explanation page says beyond the card's texts."""

    as_of: str
    computed: str
    not_computed: str
    insufficient: str
    not_eligible: str
    group: str
    risk: str
    baseline: str
    weighed: str
    caption: str
    finding: str
    value: str
    time: str
    reference: str
    source: str
    statuses: Mapping[str, str]
    reasons: Mapping[str, str]
    unusual: str
    recorded: str
    missing: str
    scores: str
    unread: str
    cards: str
    no_card: str
    withdrawn: str
    not_causes: str
    id: str


PAGE_TEXTS: Mapping[str, PageTexts] = {
    "da": PageTexts(
        as_of="Data til",
        computed="Beregnet",
        not_computed="Ikke beregnet",
        insufficient="For få oplysninger til en sikker beregning. Der mangler: {what}.",
        not_eligible="Modellen gælder ikke her: {what}.",
        group="Sammenligningsgruppe",
        risk="Beregnet risiko",
        baseline="Den enklere logistiske model beregner",
        weighed="Hvad der vejede i beregningen",
        caption="Bidrag i procentpoint. Sammenligningsgruppens risiko og alle bidrag giver den "
        "beregnede risiko.",
        finding="Oplysning",
        value="Værdi",
        time="Tidspunkt",
        reference="Reference",
        source="Kilde",
        statuses={
            "measured": "målt",
            "stale": "ældre",
            "missing": "mangler",
            "not-obtained": "ikke indhentet",
            "implausible": "usandsynlig",
            "refused-unit": "enhed afvist",
        },
        reasons={
            "no index stay": "ingen indlæggelse at regne ud fra",
            "cannot be computed": "kan ikke beregnes",
            "not obtained": "ikke indhentet",
            "not stated for": "ikke oplyst, antal",
            "outside the measuring range": "uden for måleområdet",
            "not asked": "ikke spurgt",
            "absent": "intet svar",
            "failed": "forespørgslen fejlede",
            "partial": "svaret er ufuldstændigt",
            "unreadable": "kunne ikke læses",
            "the sender's query failed": "afsenderens forespørgsel fejlede",
            "the answer carries an OperationOutcome": "svaret indeholder en fejlmeddelelse",
            "an entry could not be read": "en del af svaret kunne ikke læses",
            "one page of more": "kun den første side af flere",
            "a narrower search was answered": "svaret gælder en snævrere søgning",
            "holds resources of another patient": "svaret indeholder en anden patients data",
        },
        unusual="usædvanlig værdi",
        recorded="målt",
        missing="Mangler",
        scores="Kendte scorer",
        unread="Kunne ikke læses",
        cards="Kort, der blev vist",
        no_card="Intet kort blev vist",
        withdrawn="Denne version af modellen er taget ud af brug siden {day}. "
        "Brug ikke tallene herunder.",
        not_causes="Bidrag viser, hvad der vejede i beregningen, ikke årsager. "
        "Varsel støtter beslutningen og træffer den ikke.",
        id="Prognosens id",
    ),
    "en": PageTexts(
        as_of="Data up to",
        computed="Computed",
        not_computed="Not computed",
        insufficient="Not enough data for a sound estimate; missing: {what}.",
        not_eligible="The model does not apply here: {what}.",
        group="Comparison group",
        risk="Estimated risk",
        baseline="The simpler logistic model estimates",
        weighed="What weighed in the estimate",
        caption="Contributions in percentage points. The comparison group's risk and all "
        "contributions give the estimated risk.",
        finding="Finding",
        value="Value",
        time="Time",
        reference="Reference",
        source="Source",
        statuses={
            "measured": "measured",
            "stale": "older",
            "missing": "missing",
            "not-obtained": "not obtained",
            "implausible": "implausible",
            "refused-unit": "unit refused",
        },
        reasons={},
        unusual="unusual value",
        recorded="recorded",
        missing="Missing",
        scores="Published scores",
        unread="Could not be read",
        cards="Cards shown",
        no_card="No card was shown",
        withdrawn="This version of the model has been out of use since {day}. "
        "Do not use the numbers below.",
        not_causes="Contributions show what weighed in the estimate, not causes. "
        "Varsel supports the decision and does not make it.",
        id="Prediction id",
    ),
}


@dataclass(frozen=True, slots=True)
class RankedTexts:
    """What a card says of several classes of which one will be true."""

    summary: str
    then: str
    under_one: str
    frequency: str
    possibility: str
    probability: str
    others: str
    speaks_for: str
    speaks_against: str
    nothing_for: str
    nothing_against: str
    not_advice: str
    not_causes: str
    way: str
    ways: Mapping[str, str]


RANKED_TEXTS: Mapping[str, RankedTexts] = {
    "da": RankedTexts(
        summary="{title}. Mest sandsynligt: {first} ({percent})",
        then=", derefter {rest}",
        under_one="under 1 %",
        frequency="**{share} ud af 100** med samme oplysninger {says}.",
        possibility="Mulighed",
        probability="Sandsynlighed",
        others="Øvrige",
        speaks_for="Taler for »{first}«",
        speaks_against="Taler imod »{first}«",
        nothing_for="Intet taler nævneværdigt for den mest sandsynlige mulighed.",
        nothing_against="Intet taler nævneværdigt imod den mest sandsynlige mulighed.",
        not_advice="Procenterne er modellens sandsynligheder og ikke et råd. Hvor ofte den første "
        "mulighed viser sig at passe: ukendt her.",
        not_causes="For og imod viser, hvad der vejede i beregningen, ikke årsager.",
        way="Taler",
        ways={"for": "for", "against": "imod", "neither": "hverken for eller imod"},
    ),
    "en": RankedTexts(
        summary="{title}. Most likely: {first} ({percent})",
        then=", then {rest}",
        under_one="below 1 %",
        frequency="**{share} of 100** people with the same findings {says}.",
        possibility="Possibility",
        probability="Probability",
        others="The rest",
        speaks_for="Speaks for “{first}”",
        speaks_against="Speaks against “{first}”",
        nothing_for="Nothing speaks notably for the most likely possibility.",
        nothing_against="Nothing speaks notably against the most likely possibility.",
        not_advice="The percentages are the model's probabilities and no advice. How often the "
        "first possibility turns out true: unknown here.",
        not_causes="For and against show what weighed in the estimate, not causes.",
        way="Speaks",
        ways={"for": "for", "against": "against", "neither": "neither way"},
    ),
}
