"""The one function that knows the order: gather, record, features, score, cards, log row. Pure.

Called by the hook route, by `varsel score` and by the replay tests. It stores nothing: the edge
commits the row it makes before it lets the cards out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, NamedTuple

import msgspec

from cds_service import __version__
from cds_service.errors import Erased, Failure, PreconditionFailed, failure_of
from cds_service.findings import Setting
from cds_service.governance import STOPPED
from cds_service.identities.ground import LEGAL_GROUND
from cds_service.identities.privacy import Privacy
from cds_service.ranked_cards import every_card
from cds_service.sources import with_sources
from fhir_adapters.clock import COPENHAGEN, OPEN, to_iso
from fhir_adapters.decode import ONE_PAGE, Gathered
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow, FeatureValue
from fhir_adapters.record import PatientRecord
from models.package import Package
from models.predict import (
    Verdict,
    head_predictions,
    index_row,
    index_time,
    missing_features,
    ranking_predictions,
    reference_scores,
    rule_alarms,
    verdict_on,
)
from models.prediction import (
    HeadPrediction,
    HitRate,
    ModelRef,
    Prediction,
    RankingPrediction,
    Standing,
)
from models.versions import libraries

MOST_TROUBLES = 20
NO_INDEX = frozenset({"no-index-stay", "stay-too-short", "no-recent-set"})
"""Reasons for which nobody is asked about; they bring no card."""
MODEL_FAILED = "model-failed"
"""Why a prediction was refused whose model failed while scoring."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question to one model: about whom, when, and how the answer is to look.

    `hit_rates`: by head, how often its cards were followed by the outcome, where that is known.
    `fhir_base`: the server whose patient it is. `insufficient`: whether too few data bring a card.
    """

    prediction_id: str
    patient_id: str | None
    as_of: float
    now: float
    language: str
    standing: Standing
    hit_rates: Mapping[str, HitRate]
    mode: str = "live"
    zone: tzinfo = COPENHAGEN
    page_url: str | None = None
    fhir_base: str = ""
    insufficient: Literal["card", "silent"] = "card"


@dataclass(slots=True)
class Assessment:
    """The answer with everything behind it, and how long each stage took (milliseconds).

    `failure`: where the model failed, for who asked to report; its alarms stand all the same.
    """

    prediction: Prediction
    record: PatientRecord
    row: FeatureRow
    timings: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None


def require_answers(package: Package, gathered: Gathered) -> None:
    """Raise PreconditionFailed naming the first required prefetch key without an answer."""
    for key, query in package.manifest.prefetch.items():
        if not query.required or gathered.whole_record:
            continue
        answer = gathered.answer(key)
        if answer.state in ("absent", "failed"):
            why = answer.reason or answer.state
            raise PreconditionFailed(
                f"prefetch key {key!r} is required: {why}", field=f"prefetch.{key}"
            )


def assess(package: Package, gathered: Gathered, question: Question) -> Assessment:
    """What the package says of the patient at the moment asked about.

    Raises UnreadableInput where the patient cannot be told from the input, PreconditionFailed where
    "no stay" or "no measurements" would rest on a required query that proves nothing.
    """
    clock = _Clock()
    record = build_record(
        gathered,
        package.wanted,
        patient_id=question.patient_id,
        zone=question.zone,
        base=question.fhir_base,
    )
    clock.lap("record")
    at = package.features.at(record, question.as_of)
    now = package.features.row(at)
    row = index_row(package, record, now)
    alarms = rule_alarms(package.manifest, row, now=now, language=question.language)
    clock.lap("features")
    verdict = _as_it_stands(verdict_on(package, record, row, now=now), question.standing)
    if verdict.reason in NO_INDEX and not alarms:
        _require_proof(package, record)
    scores = _scores(package, row, question) if verdict.status == "scored" else NOT_SCORED
    if scores.failure:
        verdict = Verdict("refused", MODEL_FAILED)
    clock.lap("score")
    eligible = verdict.status != "not-eligible"
    prediction = Prediction(
        prediction_id=question.prediction_id,
        service=package.id,
        model=ModelRef(package.id, package.manifest.version, package.checksum),
        standing=question.standing,
        synthetic=package.manifest.synthetic,
        mode=question.mode,
        returned="",
        as_of=to_iso(question.as_of),
        computed_at=to_iso(question.now),
        index_time=_iso(index_time(row)),
        status=verdict.status,
        reason=verdict.reason,
        language=question.language,
        timezone=str(question.zone),
        heads=scores.heads,
        rankings=scores.rankings,
        missing=missing_features(package, row, question.language) if eligible else [],
        reference_scores=reference_scores(package, at, language=question.language)
        if eligible
        else [],
        rule_alarms=alarms,
        troubles=_troubles(record),
    )
    setting = Setting(question.language, question.zone, question.page_url)
    lacking = prediction.status == "insufficient-data"
    kept_quiet = lacking and question.insufficient == "silent" and _was_all_had(package, record)
    cards = every_card(package.manifest, prediction, setting, alarms_only=kept_quiet)
    returned = "insufficient-silent" if kept_quiet and not cards else None
    prediction = msgspec.structs.replace(
        prediction, cards=cards, returned=returned or _returned(prediction, len(cards))
    )
    clock.lap("cards")
    return Assessment(prediction, record, row, clock.laps, scores.failure)


def _require_proof(package: Package, record: PatientRecord) -> None:
    """Raise PreconditionFailed where a required query was answered so that nothing follows from it.

    An answer with an error in it, with entries that could not be read, or of somebody else leaves
    nothing to ask about, which is not the same as that there is nothing; and no card would tell.
    """
    for key, query in package.manifest.prefetch.items():
        answer = record.answer(key)
        if query.required and answer.state == "partial" and answer.covers_from == OPEN:
            raise PreconditionFailed(
                f"prefetch key {key!r} is required: {answer.reason}", field=f"prefetch.{key}"
            )


def _was_all_had(package: Package, record: PatientRecord) -> bool:
    """Whether every query was answered, if only by one page: silence is for data that are not
    there, not for data that could not be had."""
    answers = (record.answer(key) for key in package.manifest.prefetch)
    return all(a.state == "complete" or a.reason == ONE_PAGE for a in answers)


class _Scores(NamedTuple):
    """What the model says of every head and ranking, or where it failed."""

    heads: list[HeadPrediction]
    rankings: list[RankingPrediction]
    failure: Failure | None = None


NOT_SCORED = _Scores([], [])


def _scores(package: Package, row: FeatureRow, question: Question) -> _Scores:
    """The risks and rankings of a patient the model applies to; nothing of them where it fails."""
    language = question.language
    try:
        return _Scores(
            head_predictions(package, row, language, hit_rates=question.hit_rates),
            ranking_predictions(package, row, language),
        )
    # Anything: what a site's booster makes xgboost, shap and numpy raise has no common type, and
    # whatever it is must not take the alarms with it, which need no model. Said, logged, reported.
    except Exception as error:  # noqa: BLE001 - as above
        return _Scores([], [], failure_of(error))


def _as_it_stands(verdict: Verdict, standing: Standing) -> Verdict:
    """The verdict; a model that is paused or retired may not answer whom it would be for."""
    if standing.state in STOPPED and verdict.status != "not-eligible":
        return Verdict("refused", standing.state)
    return verdict


def _iso(moment: float | None) -> str | None:
    return None if moment is None else to_iso(moment)


def _troubles(record: PatientRecord) -> list[str]:
    """What could not be read, each kind once, with how often."""
    counts: dict[str, int] = {}
    for trouble in record.troubles:
        text = trouble.text if trouble.code != "unreadable" else f"{trouble.where}: {trouble.text}"
        counts[text] = counts.get(text, 0) + 1
    said = [text if n == 1 else f"{text} ({n})" for text, n in counts.items()]
    return said[:MOST_TROUBLES]


def without_what_is_known(
    package: Package, assessment: Assessment, shown: str, question: Question
) -> Assessment:
    """The assessment, its risk card left out where a card shown before said the same bands.

    `shown`: the document of the prediction that card was of.
    """
    before = msgspec.json.decode(shown, type=Prediction)
    now = assessment.prediction
    if said_of(before) != said_of(now):
        return assessment
    setting = Setting(question.language, question.zone, question.page_url)
    cards = every_card(package.manifest, now, setting, alarms_only=True)
    prediction = msgspec.structs.replace(
        now, cards=cards, returned="card" if cards else "shown-before"
    )
    return replace(assessment, prediction=prediction)


def said_of(prediction: Prediction) -> dict[str, str | tuple[str, bool]]:
    """What a card said of every head and ranking: the band and whether it was high enough for a
    card, or the class that came first."""
    bands: dict[str, str | tuple[str, bool]] = {
        head.head: (head.band, head.risk >= head.threshold) for head in prediction.heads
    }
    return bands | {ranking.ranking: ranking.classes[0].id for ranking in prediction.rankings}


def _returned(prediction: Prediction, cards: int) -> str:
    """In one word what left: `card`, or why none did."""
    if cards:
        return "card"
    if prediction.status == "scored":
        return "below-threshold" if prediction.mode == "live" else "silent"
    return prediction.status


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(1000 * (now - self._last), 3)
        self._last = now


# ---- the row --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked, through which hook, about which resources; and digests of what they sent.

    `context_digest`: of the part that says what was asked about, of `content_digest`'s whole.
    `cpr`: the patient's CPR number, where it was sent; it is logged as a pseudonym, and sealed.
    """

    organisation: str
    caller: str
    hook: str
    hook_instance: str
    content_digest: str
    context_digest: str
    fhir_base: str
    patient_id: str
    encounter_id: str | None
    user_id: str | None
    unit: str | None = None
    cpr: str | None = None
    purpose: str = "treatment"
    legal_ground: str = LEGAL_GROUND


def response_body(cards: Sequence[dict[str, Any]]) -> str:
    """The body of the answer to a hook."""
    return msgspec.json.encode({"cards": list(cards)}).decode()


def log_row(assessment: Assessment, asked: Asked, privacy: Privacy) -> dict[str, Any]:
    """What the prediction log stores: identities as pseudonyms, and `references`, which are sealed
    when it is stored.
    """
    p = assessment.prediction
    assert p.standing is not None  # noqa: S101 - `assess` sets it; only old documents lack it
    eligible = p.status != "not-eligible"
    values = list(assessment.row.values.values())
    references = {
        "fhir_base": asked.fhir_base,
        "patient": asked.patient_id,
        "cpr": asked.cpr,
        "encounter": asked.encounter_id,
        "user": asked.user_id,
        "sources": {v.name: list(v.sources) for v in values if v.sources} if eligible else {},
    }
    return {
        "prediction_id": p.prediction_id,
        "organisation": asked.organisation,
        "unit": asked.unit,
        "caller": asked.caller,
        "service": p.service,
        "hook": asked.hook,
        "hook_instance": asked.hook_instance,
        "content_digest": asked.content_digest,
        "context_digest": asked.context_digest,
        "model_id": p.model.id,
        "model_version": p.model.version,
        "package_checksum": p.model.checksum,
        "software_version": __version__,
        "mode": p.mode,
        "arm": None,
        "language": p.language,
        "patient_pseudonym": privacy.pseudonym(
            asked.organisation, asked.fhir_base, "Patient", asked.patient_id
        ),
        "encounter_pseudonym": privacy.pseudonym(
            asked.organisation, asked.fhir_base, "Encounter", asked.encounter_id
        )
        if asked.encounter_id
        else None,
        "as_of": _moment(p.as_of),
        "index_time": _moment(p.index_time) if p.index_time else None,
        "computed_at": _moment(p.computed_at),
        "status": p.status,
        "reason": (p.reason or "")[:256] or None,
        "returned": p.returned,
        "features": msgspec.json.encode([_unsourced(v) for v in values]).decode()
        if eligible
        else None,
        "document": msgspec.json.encode(_without_identities(p)).decode(),
        "response": response_body(p.cards),
        "timings": msgspec.json.encode(assessment.timings).decode(),
        "references": msgspec.json.encode(references),
        "state": p.standing.state,
        "purpose": asked.purpose,
        "legal_ground": asked.legal_ground,
        "pseudonym_key": privacy.pseudonym_key,
        "digest_key": privacy.pseudonym_key,
        "cpr_pseudonym": privacy.pseudonym(asked.organisation, "CPR", asked.cpr)
        if asked.cpr
        else None,
        "libraries": libraries(),
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _unsourced(value: FeatureValue) -> FeatureValue:
    return msgspec.structs.replace(value, sources=())


def _without_identities(p: Prediction) -> Prediction:
    """The prediction without source references (sealed apart) and cards (kept as the response)."""
    return msgspec.structs.replace(with_sources(p, {}), cards=[])


def read_prediction(row: Any, privacy: Privacy) -> Prediction:
    """The prediction a log row holds, its sources unsealed.

    Raises Erased, and SealBroken where the sources cannot be unsealed.
    """
    prediction = read_pseudonymous(row)
    return with_sources(prediction, privacy.unseal(row)["sources"])


def read_pseudonymous(row: Any) -> Prediction:
    """The prediction a log row holds, its sources left in the vault. Raises Erased."""
    if row["document"] is None:
        raise Erased("what this prediction said was erased")
    prediction = msgspec.json.decode(row["document"], type=Prediction)
    cards = msgspec.json.decode(row["response"])["cards"]
    return msgspec.structs.replace(prediction, cards=cards)
