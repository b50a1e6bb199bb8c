"""Whose each resource is: what belongs to another patient is left out before anything is read.

A query that was answered with somebody else's resources was not answered: what is there of the
patient's own counts, what is missing may be missing because the wrong record was searched, so that
nothing is concluded from it ("no admissions" would be one such conclusion). A measurement of
somebody else in the patient's own record (a fetus's heart rate) is left out too, but shows no wrong
record. Called once a record, by `facts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.clock import OPEN
from fhir_adapters.decode import Gathered, QueryAnswer, Trouble
from fhir_adapters.references import last_segments, refers_to_patient

SUBJECTS: Mapping[str, Callable[[Any], r.Reference | None]] = {
    "Encounter": attrgetter("subject"),
    "Condition": attrgetter("subject"),
    "Observation": attrgetter("subject"),
    "Procedure": attrgetter("subject"),
    "MedicationRequest": attrgetter("subject"),
    "MedicationStatement": attrgetter("subject"),
    "MedicationAdministration": attrgetter("subject"),
    "QuestionnaireResponse": attrgetter("subject"),
    "DiagnosticReport": attrgetter("subject"),
    "EpisodeOfCare": attrgetter("patient"),
}
"""How each type names its patient. Patient and Medication are the types read that name none."""
PEOPLE = frozenset({"Patient", "RelatedPerson"})
NOT_THE_PATIENTS = "holds resources of another patient"
"""Why an answer proves nothing; a package's query then counts as answered in part."""
_ABOUT_ANOTHER = Trouble(
    "Observation", "wrong-patient", "Observation about another person was left out"
)
_IDENTIFIERS = msgspec.json.Decoder(list[r.Identifier])


def own_only(
    gathered: Gathered,
    patient: r.Patient,
    *,
    base: str,
    queries: Mapping[str, str],
) -> Gathered:
    """The input without what belongs to another patient; the very input where nothing does.

    Each resource left out is a `Trouble` of its type, without an id. `base`: the FHIR server of
    the input, "" where it is not known. `queries`: the resource type each query asks for.
    """
    whose = _Whose(patient, gathered.ids_by_full_url, base)
    foreign: dict[str, list[Any]] = {}
    for kind, resources in gathered.resources.items():
        others = whose.others_among(resources, kind)
        if others:
            foreign[kind] = others
    own = {k: _without(found, foreign.get(k)) for k, found in gathered.resources.items()}
    about_others = whose.about_others(own.get("Observation", []))
    if not (foreign or about_others):
        return gathered
    if about_others:
        own["Observation"] = _without(own["Observation"], about_others)
    return replace(
        gathered,
        resources=own,
        answers={
            key: _doubted(answer) if queries.get(key) in foreign else answer
            for key, answer in gathered.answers.items()
        },
        troubles=[*gathered.troubles, *_named(foreign), *[_ABOUT_ANOTHER] * len(about_others)],
    )


def _without(resources: list[Any], others: list[Any] | None) -> list[Any]:
    if others is None:
        return resources
    foreign = {id(one) for one in others}
    return [one for one in resources if id(one) not in foreign]


def _doubted(answer: QueryAnswer) -> QueryAnswer:
    """An answer that held somebody else's resources: what else is missing, nobody knows."""
    if answer.state not in ("complete", "partial"):
        return answer
    return QueryAnswer("partial", OPEN, answer.entries, NOT_THE_PATIENTS)


def _named(foreign: Mapping[str, list[Any]]) -> Iterator[Trouble]:
    for kind, others in foreign.items():
        for _ in others:
            yield Trouble(kind, "wrong-patient", f"{kind} of another patient was left out")


class _Whose:
    """Whether a resource is one patient's, with a small memory, because references repeat."""

    def __init__(self, patient: r.Patient, ids_by_full_url: Mapping[str, str], base: str) -> None:
        self._patient = patient
        self._ids_by_full_url = ids_by_full_url
        self._base = base
        self._own: set[str] = set()
        self._identifiers: frozenset[tuple[str, str]] | None = None

    def others_among(self, resources: list[Any], kind: str) -> list[Any]:
        """Those of one type that are not the patient's; what names nobody came under their name."""
        subject_of = SUBJECTS.get(kind)
        if subject_of is None:
            return []
        own = self._own
        return [
            one
            for one in resources
            if (subject := subject_of(one)) is not None
            and subject.reference not in own
            and not self._is_patient(subject)
        ]

    def about_others(self, own: list[r.Observation]) -> list[r.Observation]:
        """Those of the patient's own that were measured of somebody else."""
        return [one for one in own if one.focus and self._is_of_another(one)]

    def _is_patient(self, subject: r.Reference) -> bool:
        """Whether a subject is the patient; one named by identifier alone has one of theirs."""
        if subject.reference is None:
            said = _identifiers(b"[%b]" % bytes(subject.identifier))
            return not said or bool(said & self._own_identifiers())
        patient_id, urls = self._patient.id or "", self._ids_by_full_url
        if refers_to_patient(subject.reference, patient_id, urls, base=self._base):
            self._own.add(subject.reference)
            return True
        return False

    def _is_of_another(self, observation: r.Observation) -> bool:
        """Whether what it is about is another person: a fetus, a donor, a mother."""
        return any(
            last_segments(focus.reference or "", 2).partition("/")[0] in PEOPLE
            and not self._is_patient(focus)
            for focus in observation.focus or ()
        )

    def _own_identifiers(self) -> frozenset[tuple[str, str]]:
        if self._identifiers is None:
            self._identifiers = _identifiers(bytes(self._patient.identifier))
        return self._identifiers


def _identifiers(raw: bytes) -> frozenset[tuple[str, str]]:
    """The identifiers of a JSON list with system and value; those without, or of no such form,
    name nobody."""
    try:
        found: list[r.Identifier] = _IDENTIFIERS.decode(raw)
    except msgspec.MsgspecError:
        return frozenset()
    return frozenset((one.system, one.value) for one in found if one.system and one.value)
