"""Everything the log holds about one patient, for that patient (GDPR art. 15): data and text.

Pure. The data are the whole records as JSON values; the text is what of them a person reads: what
was predicted, when, on whose question, what was shown, who read it, in the words of the package
that predicted it, as long as it is here. Called by `varsel privacy access`, which opened the vault
and put that on record before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, NamedTuple

from cds_service.evidence.replay import whole_record
from cds_service.findings import amount, specs_of
from cds_service.identities.reads import Read, as_json
from cds_service.wording import day_and_time, number, printable
from fhir_adapters.clock import to_iso
from fhir_adapters.features.language import FeatureSpec
from models.manifest import Manifest

Language = Literal["da", "en"]
Json = dict[str, Any]


class Found(NamedTuple):
    """One prediction: its row of the log, what became of it, and its references, unsealed."""

    row: Mapping[str, Any]
    became: Mapping[str, list[Json]]
    references: Json


class _Words(NamedTuple):
    title: str
    intro: str
    identity: str
    prediction: str
    asked: str
    model: str
    purpose: str
    result: str
    outcome: str
    shown: str
    nothing_shown: str
    values: str
    missing: str
    feedback: str
    undelivered: str
    reads: str
    decisions: str
    searches: str
    lists: str
    left_out: str
    none: str


_WORDS: Mapping[Language, _Words] = {
    "da": _Words(
        title="Indsigt i oplysninger om dig (databeskyttelsesforordningens artikel 15)",
        intro="Varsel beregner risikoprognoser for sundhedspersonalet. Her står alt, hvad der er "
        "gemt om dig i organisationen {organisation}: {count} beregninger. Alle detaljer står i "
        "access.json. Det, der indgår i behandlingen, står også i din journal.",
        identity="Hvem oplysningerne handler om",
        prediction="Beregning {id}",
        asked="Bestilt: {when} af {user} i {unit} ({caller}, {hook})",
        model="Model: {model} version {version}",
        purpose="Formål: {purpose}. Retsgrundlag: {ground}",
        result="Resultat: {status}",
        outcome="{outcome} inden for {days} dage: {risk} %",
        shown="Vist: {summary}",
        nothing_shown="Der blev ikke vist noget ({returned})",
        values="Indgik i beregningen",
        missing="mangler",
        feedback="Tilbagemelding {when}: {outcome}",
        undelivered="Svaret nåede ikke frem ({how}) {when}",
        reads="Hvem har set eller behandlet beregningen",
        decisions="Afgørelser om sletning og begrænsning",
        searches="Hvem har søgt efter dig",
        lists="Hvem har læst lister og udtræk, hvor beregninger om dig var med (antal)",
        left_out="{n} lister og udtræk er lavet uden dine beregninger, mens læsning var begrænset",
        none="ingen",
    ),
    "en": _Words(
        title="Access to data about you (General Data Protection Regulation, article 15)",
        intro="Varsel computes risk predictions for health staff. This is everything that is kept "
        "about you in the organisation {organisation}: {count} predictions. All details stand in "
        "access.json. What is part of your treatment stands in your health record, too.",
        identity="Whom the data are about",
        prediction="Prediction {id}",
        asked="Asked for: {when} by {user} in {unit} ({caller}, {hook})",
        model="Model: {model} version {version}",
        purpose="Purpose: {purpose}. Legal ground: {ground}",
        result="Result: {status}",
        outcome="{outcome} within {days} days: {risk} %",
        shown="Shown: {summary}",
        nothing_shown="Nothing was shown ({returned})",
        values="What it rested on",
        missing="missing",
        feedback="Feedback {when}: {outcome}",
        undelivered="The answer did not arrive ({how}) {when}",
        reads="Who read or handled the prediction",
        decisions="Decisions about erasure and restriction",
        searches="Who looked for you",
        lists="Who read lists and exports that predictions about you were in (how many)",
        left_out="{n} lists and exports were made without yours, while reading was restricted",
        none="none",
    ),
}
_IDENTITY = ("fhir_base", "patient", "cpr")


def everything(
    organisation: str,
    found: Sequence[Found],
    *,
    decisions: Sequence[Json],
    searches: Sequence[Json],
    reads: Sequence[Read],
) -> Json:
    """All of it as JSON values: whom it is about, each prediction whole with its references, what
    was decided about the patient, who looked for them, and who read lists and exports that their
    predictions were in.
    """
    identities = [{name: one.references.get(name) for name in _IDENTITY} for one in found]
    return {
        "organisation": organisation,
        "identity": [one for n, one in enumerate(identities) if one not in identities[:n]],
        "predictions": [
            whole_record(one.row, one.became) | {"references": one.references} for one in found
        ],
        "decisions": [_plain(one) for one in decisions],
        "searches": [_plain(one) for one in searches],
        "lists_and_exports": [as_json(one) for one in reads],
    }


def _plain(row: Json) -> Json:
    """A row with its times as ISO instants; SQLite gives UTC without saying so."""
    return {
        name: to_iso((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }


def as_text(
    everything: Json, zone: tzinfo, language: Language, *, manifests: Mapping[str, Manifest]
) -> str:
    """What of it a person reads, with headings, in Danish or English.

    `manifests`: of the packages that predicted, by checksum. What a package that is gone, or
    refused today, called its outcomes and features is given by their names in the data.
    """
    words = _WORDS[language]
    saying = _Saying(words, language, zone, manifests)
    records = everything["predictions"]
    parts = [
        _headed(words.title, "="),
        [words.intro.format(organisation=everything["organisation"], count=len(records)), ""],
        _headed(words.identity),
        [", ".join(f"{k}: {v}" for k, v in one.items() if v) for one in everything["identity"]],
        *(_of_prediction(one, saying) for one in records),
        ["", *_headed(words.decisions)],
        [f"{d['at']}: {d['decision']}, {d['ground']}" for d in everything["decisions"]]
        or [words.none],
        ["", *_headed(words.searches)],
        [_entry(one) for one in everything["searches"]] or [words.none],
        ["", *_headed(words.lists)],
        _lists(everything["lists_and_exports"], words),
    ]
    return "".join(f"{printable(line)}\n" for part in parts for line in part)


def _lists(reads: Sequence[Json], words: _Words) -> list[str]:
    """Who read them among others; of those made while nobody might, how many."""
    seen = [one for one in reads if not one["left_out"]]
    lines = [f"{_entry(one)} ({len(one['predictions'])})" for one in seen]
    left_out = len(reads) - len(seen)
    return [*(lines or [words.none]), *([words.left_out.format(n=left_out)] if left_out else [])]


def _headed(title: str, line: str = "-") -> list[str]:
    return [title, line * len(title)]


class _Saying(NamedTuple):
    """In which words, language and zone a record is told."""

    words: _Words
    language: Language
    zone: tzinfo
    manifests: Mapping[str, Manifest]

    def when(self, moment: str) -> str:
        """Day and time of an ISO instant."""
        return day_and_time(moment, self.zone, self.language)


def _of_prediction(record: Json, saying: _Saying) -> Iterator[str]:
    words, when = saying.words, saying.when
    yield ""
    yield from _headed(words.prediction.format(id=record["prediction_id"]))
    yield words.asked.format(
        when=when(record["computed_at"]),
        user=record["references"].get("user") or words.none,
        unit=record["unit"] or words.none,
        caller=record["caller"],
        hook=record["hook"],
    )
    yield words.model.format(model=record["model_id"], version=record["model_version"])
    yield words.purpose.format(purpose=record["purpose"], ground=record["legal_ground"])
    yield words.result.format(status=record["status"])
    manifest = saying.manifests.get(record["package_checksum"])
    for head in (record["document"] or {}).get("heads", []):
        yield _outcome(head, manifest, saying)
    cards = (record["response"] or {}).get("cards", [])
    yield from (words.shown.format(summary=card["summary"]) for card in cards)
    if not cards:
        yield words.nothing_shown.format(returned=record["returned"])
    yield f"{words.values}:"
    specs = specs_of(manifest) if manifest else {}
    for one in record["features"] or []:
        yield f"  {_value(one, specs.get(one['name']), saying)}"
    for one in record["feedback"]:
        yield words.feedback.format(when=when(one["received_at"]), outcome=one["outcome"])
    for one in record["undelivered"]:
        yield words.undelivered.format(how=one["how"], when=when(one["at"]))
    yield f"{words.reads}:"
    yield from [f"  {_entry(one)}" for one in record["audit"]] or [f"  {words.none}"]


def _outcome(head: Json, manifest: Manifest | None, saying: _Saying) -> str:
    """A risk by the title the package gives it, which says within how long; else by what the data
    call it."""
    risk = number(100 * head["risk"], 1, saying.language)
    titles = {one.id: one.title for one in manifest.heads} if manifest else {}
    title = titles.get(head["head"])
    if title is not None:
        return f"{title.in_language(saying.language)}: {risk} %"
    return saying.words.outcome.format(
        outcome=head["outcome"], days=head["horizon_days"], risk=risk
    )


def _value(feature: Json, spec: FeatureSpec | None, saying: _Saying) -> str:
    """One value, or that it was missing, with its time where it has one."""
    label = spec.label.in_language(saying.language) if spec else feature["name"]
    value = feature.get("value")
    if value is None:
        status = feature["status"]
        return f"{label}: {saying.words.missing if status == 'missing' else status}"
    at = f" ({saying.when(to_iso(feature['time']))})" if feature.get("time") else ""
    if spec is None:
        return f"{label}: {value:g} {feature.get('unit') or ''}".rstrip() + at
    return f"{label}: {amount(value, spec, saying.language)}{at}"


def _entry(entry: Json) -> str:
    return f"{entry['at']}: {entry['who']} ({entry['role']}), {entry['what']}: {entry['why']}"
