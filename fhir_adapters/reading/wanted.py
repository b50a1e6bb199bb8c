"""What a package needs of a patient record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fhir_adapters.stays import StayRule


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """How one questionnaire answer becomes a number: link ids, and what each answer is worth."""

    concept: str
    link_ids: frozenset[str]
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The concepts, the rule that makes stays, and the questionnaire answers a package uses.

    A fact of the concept `medication` is made of every drug when `medication` is wanted, and one of
    `procedure` of every procedure likewise. `queries`: the resource type of each of its queries.
    """

    concepts: frozenset[str]
    stay_rule: StayRule = field(default_factory=StayRule)
    answers: tuple[AnswerRule, ...] = ()
    queries: Mapping[str, str] = field(default_factory=dict)
