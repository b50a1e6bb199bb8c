"""The evaluation list: what a package is for and what is not known of it, for people to read.

    models/<model_id>/evaluation.toml

It says the intended purpose, the population, whom the model must not be used for, legal and
ethical questions with their answers, known limits, and who approved what and when, in Danish and
English. Nothing is calculated from it. A question nobody has answered says so, and a package nobody
has approved says that: silence is refused, an honest "no" is not.

Called by export and import, which refuse a package without a complete list, and by
`varsel models evaluation`, which prints it. How a folder shows that it is a specification stands
here too, so that whoever serves packages can ask without reading archives.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from fhir_adapters.features.language import Text
from models.errors import PackageRefused
from models.manifest import Manifest

EVALUATION = "evaluation.toml"
SPECIFICATION = "SPECIFICATION.json"
"""The file that makes a folder a specification: a package without weights, never servable."""
SCHEMA_VERSION = 1
Kind = Literal["legal", "ethical"]
Standing = Literal["answered", "not-answered", "not-applicable"]


def is_specification(folder: Path) -> bool:
    """Whether a package folder is a specification: listed, never served, whatever else it holds."""
    return (folder / SPECIFICATION).is_file()


class Question(NamedTuple):
    """A question every list must take a stand on."""

    kind: Kind
    text: Text


QUESTIONS: Mapping[str, Question] = {
    "medical-device": Question(
        "legal",
        Text(
            da="Er modellen medicinsk udstyr, og ad hvilken vej må den bruges (CE-mærkning eller "
            "egenudvikling efter MDR artikel 5, stk. 5)?",
            en="Is the model a medical device, and by which route may it be used (CE marking, or "
            "in-house under MDR article 5(5))?",
        ),
    ),
    "ai-act": Question(
        "legal",
        Text(
            da="Hvilken risikoklasse har den efter AI-forordningen (EU 2024/1689), og hvem er "
            "udbyder og idriftsætter?",
            en="Which risk class has it under the AI Act (EU 2024/1689), and who is provider and "
            "deployer?",
        ),
    ),
    "data-protection": Question(
        "legal",
        Text(
            da="Hvad er hjemlen til at behandle patienternes oplysninger, og er der lavet en "
            "konsekvensanalyse (GDPR artikel 6, 9 og 35)?",
            en="What is the legal basis for processing patients' data, and is there an impact "
            "assessment (GDPR articles 6, 9 and 35)?",
        ),
    ),
    "training-data": Question(
        "legal",
        Text(
            da="Med hvilken ret er træningsdata brugt, og kan enkelte patienter genkendes i "
            "modelpakken?",
            en="By what right were the training data used, and can single patients be recognised "
            "in the package?",
        ),
    ),
    "responsibility": Question(
        "legal",
        Text(
            da="Hvem har det kliniske ansvar, og hvem har driftsansvaret?",
            en="Who is clinically responsible, and who is responsible for operation?",
        ),
    ),
    "benefit": Question(
        "ethical",
        Text(
            da="Hvilken gavn for patienterne er påvist?",
            en="Which benefit for patients has been shown?",
        ),
    ),
    "harm": Question(
        "ethical",
        Text(
            da="Hvad kan gå galt, hvis svaret er forkert, og hvad er der gjort ved det?",
            en="What can go wrong where the answer is wrong, and what has been done about it?",
        ),
    ),
    "fairness": Question(
        "ethical",
        Text(
            da="Er det undersøgt, om modellen rammer dårligere for nogle grupper af patienter?",
            en="Has it been studied whether the model does worse for some groups of patients?",
        ),
    ),
    "oversight": Question(
        "ethical",
        Text(
            da="Hvordan kan klinikeren se, hvad svaret bygger på, og sætte det til side?",
            en="How can the clinician see what the answer rests on, and set it aside?",
        ),
    ),
    "patients": Question(
        "ethical",
        Text(
            da="Hvad får patienten at vide, og kan patienten sige nej?",
            en="What is the patient told, and can the patient say no?",
        ),
    ),
}
"""The questions, by id, in the order in which they are printed."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of the list's tables: unknown words are refused."""


class Exclusion(_Part, frozen=True):
    """Whom the model must not be used for.

    `reason`: the scope rule of the manifest that sees to it; without one, people must.
    """

    text: Text
    reason: str | None = None


class Answer(_Part, frozen=True):
    """What is answered to a question; where nothing is, `answer` says why not, or what is known."""

    status: Standing
    answer: Text


class Approval(_Part, frozen=True):
    """Who approved what, and when."""

    who: str
    role: str
    what: str
    on: datetime.date


class Evaluation(_Part, frozen=True):
    """The whole list. `version` is the package version it was written for.

    `not_approved` says why there is no approval, where there is none.
    """

    schema_version: int
    version: str
    intended_purpose: Text
    population: Text
    exclusions: list[Exclusion]
    questions: dict[str, Answer]
    known_limits: list[Text]
    approvals: list[Approval]
    not_approved: Text | None = None


def read_evaluation(folder: Path, manifest: Manifest) -> Evaluation:
    """The complete list of a package folder; PackageRefused names the field that is not there."""
    try:
        content = (folder / EVALUATION).read_bytes()
    except FileNotFoundError:
        raise PackageRefused(manifest.id, f"{EVALUATION} is missing") from None
    except OSError as error:
        raise PackageRefused(manifest.id, f"{EVALUATION}: {error.strerror}") from None
    return parse_evaluation(content, manifest)


def parse_evaluation(content: bytes, manifest: Manifest) -> Evaluation:
    """The complete list a file says of the package of a manifest.

    PackageRefused names the field that is missing, empty or does not fit the manifest.
    """
    try:
        found = msgspec.convert(tomllib.loads(content.decode("utf-8")), Evaluation)
    except UnicodeDecodeError:
        raise PackageRefused(manifest.id, f"{EVALUATION} is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PackageRefused(manifest.id, f"{EVALUATION} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise PackageRefused(manifest.id, f"{EVALUATION}: {error}") from None
    fault = next(_lacking(found, manifest), None)
    if fault is not None:
        raise PackageRefused(manifest.id, f"{EVALUATION}: {fault}")
    return found


def _lacking(e: Evaluation, manifest: Manifest) -> Iterator[str]:
    """What keeps a list from being complete, as `field: reason`, in the order of the file."""
    if e.schema_version != SCHEMA_VERSION:
        yield f"schema_version: {e.schema_version} is not spoken here"
    if e.version != manifest.version:
        yield f"version: written for {e.version}, the manifest says {manifest.version}"
    for path, text in _texts(e):
        if not (text.da.strip() and text.en.strip()):
            yield f"{path}: empty in Danish or English"
    yield from _lacking_exclusions(e, manifest)
    for question in [q for q in QUESTIONS if q not in e.questions]:
        yield f"questions.{question}: neither answered nor said to be unanswered"
    for question in [q for q in e.questions if q not in QUESTIONS]:
        yield f"questions.{question}: no question is called that"
    if not e.known_limits:
        yield "known_limits: none is named"
    yield from _lacking_approvals(e)


def _texts(e: Evaluation) -> Iterator[tuple[str, Text]]:
    """Every text of the list with its path."""
    yield "intended_purpose", e.intended_purpose
    yield "population", e.population
    for place, exclusion in enumerate(e.exclusions, start=1):
        yield f"exclusions.{place}.text", exclusion.text
    for question, answer in e.questions.items():
        yield f"questions.{question}.answer", answer.answer
    for place, limit in enumerate(e.known_limits, start=1):
        yield f"known_limits.{place}", limit
    if e.not_approved is not None:
        yield "not_approved", e.not_approved


def _lacking_exclusions(e: Evaluation, manifest: Manifest) -> Iterator[str]:
    rules = {rule.reason for rule in manifest.scope}
    named = {exclusion.reason for exclusion in e.exclusions if exclusion.reason is not None}
    if not e.exclusions:
        yield "exclusions: nobody is named"
    for reason in sorted(rules - named):
        yield f"exclusions: {reason}, which the manifest's scope leaves out, is not named"
    for reason in sorted(named - rules):
        yield f"exclusions: the manifest's scope knows no reason {reason}"


def _lacking_approvals(e: Evaluation) -> Iterator[str]:
    if not e.approvals and e.not_approved is None:
        yield "approvals: nobody approved it, and not_approved does not say so"
    if e.approvals and e.not_approved is not None:
        yield "not_approved: said although there are approvals"
    for place, approval in enumerate(e.approvals, start=1):
        for name in ("who", "role", "what"):
            if not getattr(approval, name).strip():
                yield f"approvals.{place}.{name}: empty"


# ---- in words -------------------------------------------------------------------------------

_WORDS: Mapping[str, Text] = {
    "title": Text(da="Vurdering", en="Evaluation"),
    "purpose": Text(da="Formål", en="Intended purpose"),
    "population": Text(da="Hvem den er til", en="Who it is for"),
    "exclusions": Text(da="Hvem den ikke må bruges til", en="Who it must not be used for"),
    "by-people": Text(
        da="modellen kan ikke selv se det", en="the model cannot see to this by itself"
    ),
    "legal": Text(da="Juridiske spørgsmål", en="Legal questions"),
    "ethical": Text(da="Etiske spørgsmål", en="Ethical questions"),
    "limits": Text(da="Kendte begrænsninger", en="Known limits"),
    "approvals": Text(da="Godkendelser", en="Approvals"),
    "none": Text(da="Ingen har godkendt den.", en="Nobody has approved it."),
    "not-answered": Text(da="Ikke besvaret.", en="Not answered."),
    "not-applicable": Text(da="Ikke relevant.", en="Not applicable."),
}


def evaluation_text(e: Evaluation, manifest: Manifest, language: str) -> str:
    """The list as Markdown in a language, for the people who decide whether to use the model."""

    def word(name: str) -> str:
        return _WORDS[name].in_language(language)

    def said(text: Text) -> str:
        return text.in_language(language)

    lines = [f"# {word('title')}: {said(manifest.title)} ({manifest.id} {e.version})", ""]
    lines += [f"## {word('purpose')}", said(e.intended_purpose), ""]
    lines += [f"## {word('population')}", said(e.population), ""]
    lines.append(f"## {word('exclusions')}")
    for exclusion in e.exclusions:
        by_people = "" if exclusion.reason else f" ({word('by-people')})"
        lines.append(f"- {said(exclusion.text)}{by_people}")
    for kind in ("legal", "ethical"):
        lines += ["", f"## {word(kind)}"]
        for name, question in QUESTIONS.items():
            if question.kind == kind:
                answer = e.questions[name]
                unanswered = "" if answer.status == "answered" else f"{word(answer.status)} "
                lines.append(f"- **{said(question.text)}**")
                lines.append(f"  {unanswered}{said(answer.answer)}")
    lines += ["", f"## {word('limits')}", *(f"- {said(limit)}" for limit in e.known_limits)]
    lines += ["", f"## {word('approvals')}"]
    lines += [f"- {a.on.isoformat()}: {a.who}, {a.role}: {a.what}" for a in e.approvals]
    if e.not_approved is not None:
        lines.append(f"{word('none')} {said(e.not_approved)}")
    return "\n".join(lines) + "\n"
