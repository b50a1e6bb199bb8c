"""What each reference score is called, how far it goes and what it is a score of; texts only.

Danish first, as on the cards. The tables of points lie in the module of each family. Called by
`inputs` and `from_record`, and by whoever shows a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fhir_adapters.charlson import GROUPS, Variant, charlson_index_of_groups
from fhir_adapters.features.language import Text


class About(NamedTuple):
    """Name, highest possible points (None: it has no points), publication, and outcome."""

    label: Text
    most: int | None
    version: str
    outcome: Text | None = None


def _charlson(label: Text, version: str, variant: Variant) -> About:
    return About(label, charlson_index_of_groups(GROUPS, variant), version)


_READMITTED = Text(
    da="død eller ikke-planlagt genindlæggelse inden for 30 dage",
    en="death or unplanned readmission within 30 days",
)
_AVOIDABLE = Text(
    da="potentielt undgåelig genindlæggelse inden for 30 dage",
    en="potentially avoidable readmission within 30 days",
)

ABOUT: Mapping[str, About] = {
    "news2": About(Text(da="NEWS2", en="NEWS2"), 20, "RCP 2017"),
    "lace": About(Text(da="LACE-indeks", en="LACE index"), 19, "van Walraven 2010", _READMITTED),
    "hospital-2016": About(
        Text(da="HOSPITAL-score (2016)", en="HOSPITAL score (2016)"), 13, "Donzé 2016", _AVOIDABLE
    ),
    "hospital-2013": About(
        Text(da="HOSPITAL-score (2013)", en="HOSPITAL score (2013)"), 13, "Donzé 2013", _AVOIDABLE
    ),
    "hospital-simplified-5d": About(
        Text(
            da="Forenklet HOSPITAL-score (liggetid mindst 5 dage)",
            en="Simplified HOSPITAL score (stay of at least 5 days)",
        ),
        12,
        "Aubert 2017",
        _AVOIDABLE,
    ),
    "hospital-simplified-8d": About(
        Text(
            da="Forenklet HOSPITAL-score (liggetid mindst 8 dage)",
            en="Simplified HOSPITAL score (stay of at least 8 days)",
        ),
        12,
        "Aubert 2017, limit of 8 days",
        _AVOIDABLE,
    ),
    "cr-possum": About(
        Text(da="CR-POSSUM", en="CR-POSSUM"),
        45,
        "Tekkis 2004",
        Text(
            da="død under indlæggelsen eller inden for 30 dage efter operationen",
            en="death in hospital or within 30 days of surgery",
        ),
    ),
    "sort": About(
        Text(da="SORT", en="SORT"),
        None,
        "Protopapa 2014",
        Text(
            da="død inden for 30 dage efter operationen",
            en="death within 30 days of surgery",
        ),
    ),
    "maggic-1y": About(
        Text(da="MAGGIC, 1 år", en="MAGGIC, 1 year"),
        57,
        "Pocock 2013",
        Text(da="død inden for 1 år", en="death within 1 year"),
    ),
    "maggic-3y": About(
        Text(da="MAGGIC, 3 år", en="MAGGIC, 3 years"),
        57,
        "Pocock 2013",
        Text(da="død inden for 3 år", en="death within 3 years"),
    ),
    "decaf": About(
        Text(da="DECAF", en="DECAF"),
        6,
        "Steer 2012",
        Text(da="død under indlæggelsen", en="death in hospital"),
    ),
    "pearl": About(
        Text(da="PEARL", en="PEARL"),
        9,
        "Echevarria 2017",
        Text(
            da="genindlæggelse eller død inden for 90 dage",
            en="readmission or death within 90 days",
        ),
    ),
    "charlson": _charlson(
        Text(da="Charlson-indeks (oprindelige vægte)", en="Charlson index (original weights)"),
        "Charlson 1987, Quan 2005",
        "original",
    ),
    "charlson-quan2011": _charlson(
        Text(da="Charlson-indeks (vægte fra 2011)", en="Charlson index (weights of 2011)"),
        "Quan 2011",
        "quan2011",
    ),
}
"""Every reference score by its id, in the order they are given in."""

BANDS: Mapping[str, Text] = {
    "low": Text(da="lav", en="low"),
    "low-medium": Text(da="lav til middel", en="low to medium"),
    "medium": Text(da="middel", en="medium"),
    "moderate": Text(da="middel", en="moderate"),
    "intermediate": Text(da="middel", en="intermediate"),
    "high": Text(da="høj", en="high"),
    "unlikely": Text(da="genindlæggelse usandsynlig", en="readmission unlikely"),
    "likely": Text(da="genindlæggelse sandsynlig", en="readmission likely"),
}
"""The bands as each publication names them."""

INPUTS: Mapping[str, Text] = {
    "acute": Text(da="om indlæggelsen er akut", en="whether the admission is acute"),
    "admissions_12m": Text(da="indlæggelser seneste år", en="admissions in the last year"),
    "af": Text(da="atrieflimren", en="atrial fibrillation"),
    "age": Text(da="alder", en="age"),
    "alert": Text(da="bevidsthedsniveau (ACVPU)", en="level of consciousness (ACVPU)"),
    "asa": Text(da="ASA-klasse", en="ASA class"),
    "bmi": Text(da="BMI", en="body mass index"),
    "cancer": Text(da="kræft", en="cancer"),
    "cardiac_failure": Text(da="grad af hjertesvigt", en="degree of cardiac failure"),
    "comorbidity": Text(da="følgesygdomme (diagnoser)", en="comorbidity (diagnoses)"),
    "consolidation": Text(
        da="konsolidering på røntgen af thorax", en="consolidation on the chest radiograph"
    ),
    "copd": Text(da="KOL", en="COPD"),
    "creatinine": Text(da="kreatinin", en="creatinine"),
    "diabetes": Text(da="diabetes", en="diabetes"),
    "diagnosed_18_months": Text(
        da="hvor længe hjertesvigt har været kendt", en="how long heart failure has been known"
    ),
    "emergency_visits": Text(
        da="akutbesøg seneste 6 måneder", en="emergency visits in the last 6 months"
    ),
    "emrcd": Text(
        da="åndenød i stabil fase (eMRCD 1-4, 5a, 5b)", en="dyspnoea when stable (eMRCD)"
    ),
    "eosinophils": Text(da="eosinofilocytter ved indlæggelsen", en="eosinophils at admission"),
    "gi_thoracic_vascular": Text(
        da="mave-tarm-, thorax- eller karkirurgi", en="GI, thoracic or vascular surgery"
    ),
    "haemoglobin": Text(da="hæmoglobin", en="haemoglobin"),
    "left_heart_failure": Text(da="venstresidigt hjertesvigt", en="left heart failure"),
    "lvef": Text(da="uddrivningsfraktion (LVEF)", en="left ventricular ejection fraction"),
    "male": Text(da="køn", en="sex"),
    "no_acei_arb": Text(
        da="ACE-hæmmer, ARB eller ARNI (medicin)", en="ACE inhibitor, ARB or ARNI (drugs)"
    ),
    "no_beta_blocker": Text(da="betablokker (medicin)", en="beta blocker (drugs)"),
    "nyha": Text(da="NYHA-klasse", en="NYHA class"),
    "on_oxygen": Text(da="ilttilskud eller atmosfærisk luft", en="oxygen or air"),
    "oncology": Text(
        da="om patienten udskrives fra onkologisk afdeling",
        en="whether discharged from an oncology service",
    ),
    "ph": Text(da="pH i arterieblod", en="pH of arterial blood"),
    "procedure": Text(da="procedurer under indlæggelsen", en="procedures in the stay"),
    "pulse": Text(da="puls", en="pulse"),
    "resp_rate": Text(da="respirationsfrekvens", en="respiratory rate"),
    "right_heart_failure": Text(da="cor pulmonale", en="cor pulmonale"),
    "sbp": Text(da="systolisk blodtryk", en="systolic blood pressure"),
    "severity": Text(da="operationens omfang", en="severity of the operation"),
    "smoker": Text(da="rygning", en="smoking"),
    "sodium": Text(da="natrium", en="sodium"),
    "soiling": Text(da="forurening af bughulen", en="peritoneal soiling"),
    "spo2": Text(da="iltmætning", en="oxygen saturation"),
    "stage": Text(da="kræftens stadium (Dukes)", en="cancer stage (Dukes)"),
    "stay_days": Text(da="liggetid", en="length of stay"),
    "temperature": Text(da="temperatur", en="temperature"),
    "urea": Text(da="karbamid", en="urea"),
    "urgency": Text(da="operationens hastegrad", en="urgency of the operation"),
    "xmajor_complex": Text(
        da="om operationen er ekstra stor eller kompleks",
        en="whether the operation is extra-major or complex",
    ),
}
"""Every input a score can lack, as a reader should see it."""
