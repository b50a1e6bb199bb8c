"""The sheet a site's Epic analyst types in: what a service needs of the record that calls it.

Epic does not read discovery; URL, trigger, prefetch queries and criteria are typed by hand into a
record of the kind LGL. The sheet is made from the package's manifest alone, so that it cannot say
something else than the service does. Pure; called by `varsel doctor lgl`, and docs/epic.md ends
with the sheets of the bundled packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cds_service.topics import topics_of
from fhir_adapters.codes import code_table
from fhir_adapters.features.language import Text
from models import manifest as words

NATIVE: Mapping[str, tuple[str, str]] = {
    "patient-view": ("patient-view", "60 open chart, or 5 general"),
    "encounter-start": ("patient-view", "26 IP admission"),
    "encounter-discharge": ("patient-view", "27 IP discharge"),
    "order-select": ("order-select", "18 enter order"),
    "order-sign": ("order-sign", "23 sign orders"),
}
"""How Epic says each hook: the hook it sends, and its trigger. It has nothing for appointments."""


class Query(NamedTuple):
    """A prefetch key with its query, in Epic's tokens (which are those of CDS Hooks)."""

    key: str
    query: str
    required: bool


class Reason(NamedTuple):
    """An override reason to be mapped at the site."""

    code: str
    system: str
    danish: str
    english: str


class Sheet(NamedTuple):
    """Everything about one service that is typed in at a site."""

    service: str
    title: str
    description: str
    url: str
    feedback_url: str
    triggers: list[str]
    prefetch: list[Query]
    criteria: list[str]
    not_for: list[str]
    needs: list[str]
    override_reasons: list[Reason]
    topics: dict[str, str]


def sheet_of(manifest: words.Manifest, base_url: str) -> Sheet:
    """The sheet of a package served at `base_url`."""
    url = f"{base_url}/cds-services/{manifest.id}"
    return Sheet(
        service=f"{manifest.id} {manifest.version}",
        title=_both(manifest.title),
        description=manifest.description.en,
        url=url,
        feedback_url=f"{url}/feedback",
        triggers=_triggers(manifest),
        prefetch=[Query(k, q.template, q.required) for k, q in manifest.prefetch.items()],
        criteria=[_asked_of(manifest)],
        not_for=[*dict.fromkeys(_both(rule.text) for rule in manifest.scope)],
        needs=[_both(part.text) for part in manifest.minimum],
        override_reasons=[
            Reason(r.code, manifest.override_system, r.display.da, r.display.en)
            for r in manifest.override_reasons
        ],
        topics=dict(topics_of(manifest)),
    )


def _both(text: Text) -> str:
    return f"{text.da} / {text.en}"


def _triggers(manifest: words.Manifest) -> list[str]:
    """What Epic can fire for the service; its own hook must be one the service answers."""
    native = [(hook, *NATIVE[hook]) for hook in manifest.hooks if hook in NATIVE]
    return [
        f"{trigger} (hook {sent}), for {hook}"
        for hook, sent, trigger in native
        if sent in manifest.hooks
    ]


def _asked_of(manifest: words.Manifest) -> str:
    """Of whom the question can be asked at all."""
    index = manifest.index
    if index.kind == "stay":
        return f"in hospital now, or discharged at most {_span(index.ended_within_hours)} ago"
    if index.kind == "finding":
        found = ", ".join(code_table().concept(name).label_en for name in index.of)
        return f"with one of these findings of the last {_span(index.within_hours)}: {found}"
    return "at any time"


def _span(hours: float) -> str:
    return f"{hours / 24:g} days" if hours > 24 and hours % 24 == 0 else f"{hours:g} hours"


def sheet_text(sheet: Sheet) -> str:
    """The sheet as Markdown, to be read or printed."""
    parts = [
        f"### {sheet.service}",
        f"{sheet.title}. {sheet.description}",
        _table(
            ("Field", "Type in"),
            [
                ("Endpoint URI", f"`{sheet.url}`"),
                ("Feedback URI", f"`{sheet.feedback_url}`"),
                ("Trigger", "; ".join(sheet.triggers) or "none: Epic has no hook for this service"),
                ("Fire for patients", "; ".join(sheet.criteria)),
            ],
        ),
        _table(
            ("Prefetch key", "Query", "Required"),
            [(f"`{q.key}`", f"`{q.query}`", "yes" if q.required else "no") for q in sheet.prefetch],
        ),
        _list(
            "Do not fire where (the model is not for them; safety alarms are shown all the same)",
            sheet.not_for,
        ),
        _list(
            "Without these there is a card that names what is missing, and no number", sheet.needs
        ),
        _table(
            ("Override reason", "Danish", "English"),
            [(f"`{r.code}`", r.danish, r.english) for r in sheet.override_reasons],
        ),
        _table(
            ("Card topic (`source.topic.code`)", "The card says"),
            [(f"`{code}`", meaning) for code, meaning in sheet.topics.items()],
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _list(heading: str, lines: list[str]) -> str:
    return "\n".join([f"{heading}:", "", *(f"- {line}" for line in lines)]) if lines else ""


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
