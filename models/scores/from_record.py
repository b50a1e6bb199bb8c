"""Every reference score of a patient record at a moment, and to whom each applies.

A score that does not apply is left out; one that applies and lacks data says what it lacks, never
a part of a number. Called beside scoring, and by validation, which compares models with them. What
a record must hold is `ReferenceScores.concepts`, to be wanted together with the package's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fhir_adapters.charlson import Variant, charlson_index_of_groups
from fhir_adapters.features.compute import FeatureSet
from fhir_adapters.features.record_at import RecordAt
from fhir_adapters.record import PatientRecord
from fhir_adapters.stays import StayRule, is_admission
from models.scores.about import ABOUT
from models.scores.copd import decaf, pearl
from models.scores.heart_failure import maggic
from models.scores.inputs import FEATURES, NOT_SUPPLIED, sources
from models.scores.news2 import news2
from models.scores.patient import Patient
from models.scores.readmission import hospital, lace, simplified_hospital
from models.scores.score import ReferenceScore, ScoreResult
from models.scores.surgery import cr_possum, sort
from models.scores.vital_signs import NO_SET, newest_set

NEWS2_AGE = 16
ADULT = 18


class ReferenceScores:
    """Some or all reference scores, compiled once for what the queries of a package supply."""

    def __init__(
        self,
        supplied_by: Mapping[str, str],
        *,
        stay_rule: StayRule,
        index_within_hours: float,
        names: Sequence[str] = tuple(ABOUT),
    ) -> None:
        """Compile the inputs of the scores called `names` (keys of `about.ABOUT`).

        `supplied_by`: concept or source -> the prefetch key whose query supplies it; what no key
        supplies is known only from a whole record. `index_within_hours`: how long after its end a
        stay is still the one the scores are about.
        """
        needed = {feature for name in names for feature in _SCORES[name].inputs}
        specs = [f for f in FEATURES if f.name in needed or f.name.startswith("patient.")]
        self.names = tuple(names)
        self.features = FeatureSet(
            specs,
            {name: supplied_by.get(name, NOT_SUPPLIED) for name in sources()},
            stay_rule=stay_rule,
            index_within_hours=index_within_hours,
        )

    @property
    def concepts(self) -> frozenset[str]:
        """The concepts a record must be made of for the scores to be computed."""
        return self.features.concepts

    def every(self, record: PatientRecord, as_of: float) -> list[ReferenceScore]:
        """Every score, in the order of `names`; one that does not apply has no number."""
        return self.every_at(self.features.at(record, as_of))

    def every_at(self, at: RecordAt) -> list[ReferenceScore]:
        """`every` of a record at a moment that other features were computed at too.

        It must have been made with the same rule of stays; the index stay is found again where
        the other features are about another one.
        """
        if at.index_within_hours != self.features.index_within_hours:
            at = self.features.at(at.record, at.anchors.as_of)
        row = self.features.row(at)
        vital_set = newest_set(row) if "news2" in self.names else NO_SET
        patient = Patient(at, row, self.features.stay_rule, vital_set)
        return [_score(name, patient) for name in self.names]


def _score(name: str, patient: Patient) -> ReferenceScore:
    score = _SCORES[name]
    if not score.applies(patient):
        return _shown(name, ScoreResult(), None, applies=False)
    return _shown(name, score.result(patient), _newest(patient, score.inputs), applies=True)


def _shown(name: str, found: ScoreResult, time: float | None, *, applies: bool) -> ReferenceScore:
    about = ABOUT[name]
    return ReferenceScore(
        score=name,
        label=about.label,
        applies=applies,
        points=found.points,
        most=about.most,
        risk=found.risk,
        band=found.band,
        missing=list(found.missing),
        version=about.version,
        outcome=about.outcome,
        time=time,
    )


def _newest(patient: Patient, inputs: tuple[str, ...]) -> float | None:
    """When the newest dated input of a score held; of NEWS2, when its set was complete."""
    if inputs == _VITAL_SIGNS:
        return patient.vital_set[1]
    values = (patient.row.values[name] for name in inputs)
    times = (v.time for v in values if v.value is not None and v.time is not None)
    return max(times, default=None)


# ---- to whom a score applies ----------------------------------------------------------------


def _has_vital_signs(patient: Patient) -> bool:
    """Somebody measured vital signs within 24 hours; 16 years or over, and not pregnant."""
    age = patient.number("patient.age")
    too_young = age is not None and age < NEWS2_AGE
    measured = patient.vital_set[1] is not None
    return measured and not too_young and patient.yes("news2.pregnant") is not True


def _is_admitted_adult(patient: Patient) -> bool:
    """An adult's admission: a stay long enough to be one, going on or just ended."""
    stay, age = patient.row.index, patient.number("patient.age")
    if stay is None or (age is not None and age < ADULT):
        return False
    return is_admission(stay, patient.stay_rule, patient.row.as_of)


def _has_colorectal_surgery(patient: Patient) -> bool:
    """A colorectal operation is being planned, or was done within 30 days."""
    return bool(patient.yes("surgery.planned") or patient.yes("surgery.done"))


def _has_heart_failure(patient: Patient) -> bool:
    return bool(patient.yes("maggic.heart_failure"))


def _is_in_with_exacerbation(patient: Patient) -> bool:
    """In hospital for an exacerbation of COPD, or found to have one."""
    if patient.row.index is None:
        return False
    return bool(patient.yes("copd.reason") or patient.yes("copd.diagnosis"))


def _everybody(_: Patient) -> bool:
    return True


# ---- the scores -----------------------------------------------------------------------------


def _charlson(patient: Patient, variant: Variant) -> ScoreResult:
    groups = patient.charlson_groups
    if groups is None:
        return ScoreResult(missing=("comorbidity",))
    return ScoreResult(points=charlson_index_of_groups(groups, variant))


class _Score(NamedTuple):
    """Whether a score applies, its result, and the features it is made of."""

    applies: Callable[[Patient], bool]
    result: Callable[[Patient], ScoreResult]
    inputs: tuple[str, ...]


def _features(*prefixes: str) -> tuple[str, ...]:
    return tuple(spec.name for spec in FEATURES if spec.name.startswith(prefixes))


_VITAL_SIGNS = _features("news2.")
_STAY = _features("hospital.", "stay.")
_LACE = _features("lace.", "stay.", "charlson.")
_SURGERY = _features("cr-possum.", "surgery.")
_SORT = _features("sort.", "surgery.")
_MAGGIC = _features("maggic.")
_DECAF = _features("decaf.", "copd.")
_PEARL = _features("pearl.", "copd.", "stay.")
_CHARLSON = _features("charlson.")

_SCORES: Mapping[str, _Score] = {
    "news2": _Score(_has_vital_signs, lambda p: news2(p.vital_set[0]), _VITAL_SIGNS),
    "lace": _Score(_is_admitted_adult, lambda p: lace(p.lace), _LACE),
    "hospital-2016": _Score(_is_admitted_adult, lambda p: hospital(p.hospital, "2016"), _STAY),
    "hospital-2013": _Score(_is_admitted_adult, lambda p: hospital(p.hospital, "2013"), _STAY),
    "hospital-simplified-5d": _Score(
        _is_admitted_adult,
        lambda p: simplified_hospital(p.simplified_hospital, "5-days"),
        _STAY,
    ),
    "hospital-simplified-8d": _Score(
        _is_admitted_adult,
        lambda p: simplified_hospital(p.simplified_hospital, "8-days"),
        _STAY,
    ),
    "cr-possum": _Score(_has_colorectal_surgery, lambda p: cr_possum(p.cr_possum), _SURGERY),
    "sort": _Score(_has_colorectal_surgery, lambda p: sort(p.sort), _SORT),
    "maggic-1y": _Score(_has_heart_failure, lambda p: maggic(p.maggic, 1), _MAGGIC),
    "maggic-3y": _Score(_has_heart_failure, lambda p: maggic(p.maggic, 3), _MAGGIC),
    "decaf": _Score(_is_in_with_exacerbation, lambda p: decaf(p.decaf), _DECAF),
    "pearl": _Score(_is_in_with_exacerbation, lambda p: pearl(p.pearl), _PEARL),
    "charlson": _Score(_everybody, lambda p: _charlson(p, "original"), _CHARLSON),
    "charlson-quan2011": _Score(_everybody, lambda p: _charlson(p, "quan2011"), _CHARLSON),
}
