"""The inputs of each score for one patient at one moment, from the features of `inputs.py`.

Unknown stays None all the way: a feature without a value, a grade that is not on its scale, a
diagnosis nobody was asked about. Called by `from_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from fhir_adapters.charlson import GROUPS
from fhir_adapters.clock import COPENHAGEN, DAY_S, to_datetime
from fhir_adapters.features.compute import FeatureRow
from fhir_adapters.features.language import parse_span
from fhir_adapters.features.record_at import RecordAt
from fhir_adapters.stays import StayRule
from models.scores.copd import Decaf, Emrcd, Pearl
from models.scores.heart_failure import Maggic
from models.scores.inputs import DIAGNOSES_BACK
from models.scores.news2 import VitalSigns
from models.scores.readmission import Hospital, Lace, SimplifiedHospital, lace_comorbidity
from models.scores.score import haemoglobin_g_dl
from models.scores.surgery import (
    CardiacFailure,
    CrPossum,
    PossumUrgency,
    Severity,
    Soiling,
    Sort,
    SortUrgency,
    Stage,
)

T = TypeVar("T")

HALF_YEAR_S = 183 * DAY_S
DIAGNOSES_BACK_S = parse_span(DIAGNOSES_BACK, "diagnoses")
EIGHTEEN_MONTHS_DAYS = 1.5 * 365.25

# What an answer's number stands for; a package maps the options of its form to these numbers.
EMRCD: Mapping[float, Emrcd] = {1: "1", 2: "2", 3: "3", 4: "4", 5: "5a", 6: "5b"}
MRC: Mapping[float, Emrcd] = {1: "1", 2: "2", 3: "3", 4: "4"}
"""Grades 1 to 4 are the same on both scales; MRC 5 does not say whether 5a or 5b."""
URGENCY: Mapping[float, SortUrgency] = {0: "elective", 1: "expedited", 2: "urgent", 3: "immediate"}
# NCEPOD's expedited is the "scheduled" of 2004, which CR-POSSUM counts as elective.
POSSUM_URGENCY: Mapping[float, PossumUrgency] = {
    0: "elective",
    1: "elective",
    2: "urgent",
    3: "emergency",
}
CARDIAC_FAILURE: Mapping[float, CardiacFailure] = {0: "none_mild", 1: "moderate", 2: "severe"}
SEVERITY: Mapping[float, Severity] = {1: "minor", 2: "intermediate", 3: "major", 4: "complex"}
SOILING: Mapping[float, Soiling] = {0: "none", 1: "local_pus", 2: "free"}
STAGE: Mapping[float, Stage] = {0: "none_AB", 1: "C", 2: "D"}
ASA: Mapping[float, int] = {grade: grade for grade in range(1, 6)}
NYHA: Mapping[float, int] = {grade: grade for grade in range(1, 5)}


@dataclass(frozen=True)
class Patient:
    """One patient at one moment: the record then, the features, and what follows from them.

    `vital_set`: the newest set of vital signs and when it was measured (`vital_signs.newest_set`).
    """

    at: RecordAt
    row: FeatureRow
    stay_rule: StayRule
    vital_set: tuple[VitalSigns, float | None]

    # ---- reading features -------------------------------------------------------------------

    def number(self, name: str) -> float | None:
        """A feature's value."""
        return self.row.values[name].value

    def count(self, name: str) -> int | None:
        """A feature's value as a whole number."""
        value = self.number(name)
        return None if value is None else int(value)

    def yes(self, name: str) -> bool | None:
        """A feature's value as yes or no."""
        value = self.number(name)
        return None if value is None else value > 0.0

    def no(self, name: str) -> bool | None:
        """The opposite of `yes`; unknown stays unknown."""
        value = self.yes(name)
        return None if value is None else not value

    def grade(self, name: str, scale: Mapping[float, T]) -> T | None:
        """What a feature's value stands for; None where it is not on the scale."""
        value = self.number(name)
        return None if value is None else scale.get(value)

    def haemoglobin(self, name: str) -> float | None:
        """Haemoglobin in g/dL."""
        value = self.number(name)
        return None if value is None else haemoglobin_g_dl(value)

    # ---- what is no feature -----------------------------------------------------------------

    @property
    def stay_days(self) -> float | None:
        """Nights of the index stay so far: Danish dates of discharge, or now, and admission."""
        stay = self.row.index
        if stay is None:
            return None
        end = to_datetime(min(stay.end, self.row.as_of), COPENHAGEN).date()
        return float((end - to_datetime(stay.start, COPENHAGEN).date()).days)

    @property
    def emergency_visits(self) -> int | None:
        """Visits to an emergency department in the six months before the index stay.

        A visit that led to an earlier admission is one too. None where contacts were not asked for
        that far back.
        """
        index = self.row.index
        if index is None or self.number("lace.visits_6m") is None:
            return None
        emergency = self.stay_rule.emergency_classes
        return sum(
            index.start - HALF_YEAR_S <= stay.start < index.start
            and any(contact.class_code in emergency for contact in stay.contacts)
            for stay in self.at.stays
        )

    @cached_property
    def charlson_groups(self) -> frozenset[str] | None:
        """The patient's Charlson groups; None where the diagnoses are not all known.

        Seventeen features cost more than all else of a score, so one says whether the groups are
        known (and counts them), and here they are told apart by the same window.
        """
        if self.number("charlson.groups") is None:
            return None
        as_of, since = self.row.as_of, self.row.as_of - DIAGNOSES_BACK_S
        return frozenset(
            group
            for group in GROUPS
            for fact in self.at.record.of(group)
            if fact.known <= as_of and fact.start <= as_of and fact.end >= since
        )

    @property
    def oncology(self) -> bool | None:
        """Discharge from an oncology service: as a form says, or no where there is no cancer."""
        said = self.yes("hospital.oncology")
        return False if said is None and self.yes("hospital.cancer") is False else said

    @property
    def emrcd(self) -> Emrcd | None:
        """eMRCD from a form, else from an MRC grade of 1 to 4 measured before the stay."""
        return self.grade("copd.emrcd", EMRCD) or self.grade("copd.mrc", MRC)

    @property
    def spo2_without_gas(self) -> float | None:
        """The saturation at admission where no blood gas and no oxygen is known to have been."""
        oxygen = (self.yes("decaf.on_oxygen"), self.yes("decaf.oxygen_flow"))
        on_air = True not in oxygen and False in oxygen
        return self.number("decaf.spo2") if on_air and self.count("decaf.gases") == 0 else None

    # ---- the scores' inputs -----------------------------------------------------------------

    @property
    def lace(self) -> Lace:
        """The inputs of LACE."""
        groups = self.charlson_groups
        return Lace(
            stay_days=self.stay_days,
            acute=self.yes("stay.acute"),
            comorbidity=None if groups is None else lace_comorbidity(groups),
            emergency_visits=self.emergency_visits,
        )

    @property
    def hospital(self) -> Hospital:
        """The inputs of the HOSPITAL score."""
        return Hospital(
            haemoglobin=self.haemoglobin("hospital.haemoglobin"),
            oncology=self.oncology,
            sodium=self.number("hospital.sodium"),
            procedure=self.yes("hospital.procedure"),
            acute=self.yes("stay.acute"),
            admissions_12m=self.count("stay.admissions_12m"),
            stay_days=self.stay_days,
        )

    @property
    def simplified_hospital(self) -> SimplifiedHospital:
        """The inputs of the simplified HOSPITAL score."""
        cancer = True if self.oncology else self.yes("hospital.cancer")
        return SimplifiedHospital(
            haemoglobin=self.haemoglobin("hospital.haemoglobin"),
            cancer=cancer,
            sodium=self.number("hospital.sodium"),
            acute=self.yes("stay.acute"),
            admissions_12m=self.count("stay.admissions_12m"),
            stay_days=self.stay_days,
        )

    @property
    def cr_possum(self) -> CrPossum:
        """The inputs of CR-POSSUM."""
        return CrPossum(
            age=self.number("patient.age"),
            cardiac_failure=self.grade("cr-possum.cardiac_failure", CARDIAC_FAILURE),
            sbp=self.number("cr-possum.sbp"),
            pulse=self.number("cr-possum.pulse"),
            haemoglobin=self.haemoglobin("cr-possum.haemoglobin"),
            urea=self.number("cr-possum.urea"),
            severity=self.grade("cr-possum.severity", SEVERITY),
            soiling=self.grade("cr-possum.soiling", SOILING),
            stage=self.grade("cr-possum.stage", STAGE),
            urgency=self.grade("surgery.urgency", POSSUM_URGENCY),
        )

    @property
    def sort(self) -> Sort:
        """The inputs of SORT; all surgery seen here is gastrointestinal."""
        return Sort(
            asa=self.grade("sort.asa", ASA),
            urgency=self.grade("surgery.urgency", URGENCY),
            gi_thoracic_vascular=True,
            xmajor_complex=self.yes("sort.xmajor_complex"),
            cancer=self.yes("sort.cancer"),
            age=self.number("patient.age"),
        )

    @property
    def maggic(self) -> Maggic:
        """The inputs of MAGGIC; BMI as measured, else from weight and height."""
        measured, days = self.number("maggic.measured_bmi"), self.number("maggic.days_known")
        return Maggic(
            lvef=self.number("maggic.lvef"),
            age=self.number("patient.age"),
            sbp=self.number("maggic.sbp"),
            bmi=self.number("maggic.made_bmi") if measured is None else measured,
            creatinine=self.number("maggic.creatinine"),
            nyha=self.grade("maggic.nyha", NYHA),
            male=self.yes("patient.male"),
            smoker=self.yes("maggic.smoker"),
            diabetes=self.yes("maggic.diabetes"),
            copd=self.yes("maggic.copd"),
            diagnosed_18_months=None if days is None else days >= EIGHTEEN_MONTHS_DAYS,
            no_beta_blocker=self.no("maggic.beta_blocker"),
            no_acei_arb=self.no("maggic.acei_arb"),
        )

    @property
    def decaf(self) -> Decaf:
        """The inputs of DECAF."""
        return Decaf(
            emrcd=self.emrcd,
            eosinophils=self.number("decaf.eosinophils"),
            consolidation=self.yes("decaf.consolidation"),
            ph=self.number("decaf.ph"),
            af=self.yes("decaf.af"),
            spo2_on_air=self.spo2_without_gas,
        )

    @property
    def pearl(self) -> Pearl:
        """The inputs of PEARL."""
        return Pearl(
            admissions_12m=self.count("stay.admissions_12m"),
            emrcd=self.emrcd,
            age=self.number("patient.age"),
            right_heart_failure=self.yes("pearl.right_heart_failure"),
            left_heart_failure=self.yes("pearl.left_heart_failure"),
        )
