"""The explanation of a prediction: a plain page and its data. Demo only until sessions exist.

The page shows what was logged, not a new computation. Every text is escaped by the template engine;
nothing is loaded from elsewhere.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cds_service import docs
from cds_service.assess import read_prediction
from cds_service.cards import (
    head_words,
    lacking_texts,
    said_alarm,
    said_rule,
    say_score,
    say_uncertainty,
    shown_contributions,
    shown_features,
    signed,
    why_not_eligible,
)
from cds_service.db.audit import AuditEntry
from cds_service.errors import NotAllowedHere, UnknownService
from cds_service.findings import Setting, specs_of, why_missing
from cds_service.governance import retired_since
from cds_service.ranked_cards import ShownClass, ranking_words, shown_classes
from cds_service.service import Service
from cds_service.standing import said_hit_rate, said_standing, why_stopped
from cds_service.texts import PAGE_TEXTS, RANKED_TEXTS, TEXTS
from cds_service.web import service_of
from cds_service.wording import capital, day_and_time, day_in_words, number, printable, shown_unit
from fhir_adapters.clock import to_iso
from models.package import Package
from models.prediction import (
    FeatureFinding,
    HeadPrediction,
    Prediction,
    RankingPrediction,
    RuleAlarm,
)

router = APIRouter(tags=["Explanations"])


def _shown(value: object) -> object:
    """A text without control characters.

    Markup stays as it is: only the templates' own macros make it, of texts that passed here.
    """
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value)
    return value


_PAGES = Environment(
    loader=PackageLoader("cds_service", "pages"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/explanations/{prediction_id}.json", **docs.PAGE_DATA)
async def explanation_data(request: Request, prediction_id: UUID) -> Response:
    """The prediction as logged, in the one shape of a prediction."""
    prediction = await _read(service_of(request), prediction_id)
    return Response(
        msgspec.json.encode(prediction),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


@router.get("/explanations/{prediction_id}", **docs.PAGE)
async def explanation_page(request: Request, prediction_id: UUID) -> Response:
    """The prediction as a page: risk, categories, every value with its date and source."""
    service = service_of(request)
    prediction = await _read(service, prediction_id)
    package = _package_of(prediction, service)
    html = render_page(prediction, package, service)
    return Response(html, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)


def _package_of(prediction: Prediction, service: Service) -> Package | None:
    """The package that made a prediction; None where other files have come in its place."""
    packages = service.registry.packages.values()
    return next((p for p in packages if p.checksum == prediction.model.checksum), None)


async def _read(service: Service, prediction_id: UUID) -> Prediction:
    if not service.settings.is_demo:
        raise NotAllowedHere("explanations are shown in a session only")
    row = await anyio.to_thread.run_sync(service.log.read, str(prediction_id))
    if row is None:
        raise UnknownService("no prediction of that id", field="prediction_id")
    await asyncio.wrap_future(service.log.audit(_read_in_demo(row["organisation"], prediction_id)))
    return read_prediction(row, service.privacy)


def _read_in_demo(organisation: str, prediction_id: UUID) -> AuditEntry:
    """What is on record before anybody of the demo sees a prediction."""
    subject, details = str(prediction_id), {"route": "/explanations"}
    return AuditEntry(organisation, "demo", "demo", "read prediction", subject, details=details)


def render_page(prediction: Prediction, package: Package | None, service: Service) -> str:
    """The page of a prediction, in the language it was made in."""
    language, zone = prediction.language, service.settings.zone
    specs = specs_of(package.manifest) if package else {}

    def value_text(feature: FeatureFinding) -> str:
        spec = specs.get(feature.name)
        if feature.value is None:
            return ""
        if spec is not None and spec.yes_no:
            return TEXTS[language].yes if feature.value else TEXTS[language].no
        text = number(feature.value, spec.decimals if spec else 1, language)
        return f"{text} {shown_unit(feature.unit, language)}".strip()

    def original_text(feature: FeatureFinding) -> str:
        """What the record said, where that is another number; of a season, it is no answer."""
        spec = specs.get(feature.name)
        same = (feature.original, feature.original_unit) == (feature.value, feature.unit)
        if feature.original is None or same or (spec is not None and spec.recipe == "season"):
            return ""
        text = f"{feature.original:g}".replace(".", "." if language == "en" else ",")
        said = f"{text} {shown_unit(feature.original_unit or '', language)}".strip()
        return "" if said == value_text(feature) else said

    words = PAGE_TEXTS[language]

    def outcome(head: HeadPrediction) -> str:
        """Which outcome a risk is of, where there are several."""
        if package is None:
            return head.outcome
        several = len(package.manifest.heads) > 1
        return head_words(package.manifest, head).title.in_language(language) if several else ""

    def hit_rate_text(head: HeadPrediction) -> str:
        """How often a card of such a risk was right here; empty for a risk that brings none."""
        if head.risk < head.threshold:
            return ""
        if package is not None and head_words(package.manifest, head).role == "context":
            return ""
        return said_hit_rate(head.hit_rate, zone, language)

    setting = Setting(language, zone, None)
    heads = [(head, shown_contributions(head)) for head in prediction.heads]
    return _PAGES.get_template("explanation.html").render(
        p=prediction,
        title=package.manifest.title.in_language(language) if package else prediction.service,
        texts=TEXTS[language],
        words=words,
        reason=_why_not_computed(prediction, package, setting),
        standing=said_standing(prediction.standing, zone, language=language),
        withdrawn=_withdrawn(prediction, service),
        heads=[(head, shown, shown_features(head, shown)) for head, shown in heads],
        rankings=_ranked(prediction, package, setting),
        ranked=RANKED_TEXTS[language],
        alarm_text=lambda alarm: _alarm_text(alarm, setting),
        missing_text=lambda missing: why_missing(missing, specs, language),
        outcome=outcome,
        score_text=lambda score: say_score(score, setting),
        uncertainty_text=lambda interval: say_uncertainty(interval, setting),
        hit_rate_text=hit_rate_text,
        percent=lambda risk: number(100 * risk, 1, language),
        points=lambda points: signed(points, language),
        when=lambda moment: day_and_time(moment, zone, language) if moment else "",
        value_text=value_text,
        original_text=original_text,
        cards=prediction.cards,
    )


def _ranked(
    prediction: Prediction, package: Package | None, setting: Setting
) -> list[tuple[RankingPrediction, str, list[ShownClass]]]:
    """Every ranking with its title and its classes as printed."""
    return [
        (
            ranking,
            ranking_words(package.manifest, ranking).title.in_language(setting.language)
            if package
            else ranking.outcome,
            shown_classes(ranking, setting),
        )
        for ranking in prediction.rankings
    ]


def _alarm_text(alarm: RuleAlarm, setting: Setting) -> str:
    if alarm.kind == "safety":
        return f"{said_rule(alarm, setting)}. {alarm.action}"
    return f"{capital(said_alarm(alarm, setting))}; {alarm.limit}"


def _withdrawn(prediction: Prediction, service: Service) -> str:
    """That the version was retired since, in words; empty where it was not."""
    at = retired_since(service.watch.roster().history, prediction.model)
    if at is None:
        return ""
    day = day_in_words(to_iso(at.timestamp()), service.settings.zone, prediction.language)
    return PAGE_TEXTS[prediction.language].withdrawn.format(day=day)


def _why_not_computed(prediction: Prediction, package: Package | None, setting: Setting) -> str:
    """Why there is no number, in words; the bare reason where the model is no longer here."""
    language, words = prediction.language, PAGE_TEXTS[prediction.language]
    if prediction.status == "refused":
        title = package.manifest.title.in_language(language) if package else prediction.service
        return why_stopped(prediction, setting.zone, title)
    if package is None:
        return f"{prediction.status}: {prediction.reason}"
    if prediction.status == "insufficient-data":
        lacking = lacking_texts(package.manifest, prediction, language)
        return words.insufficient.format(what=", ".join(lacking))
    return words.not_eligible.format(what=why_not_eligible(package.manifest, prediction, language))
