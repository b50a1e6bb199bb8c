"""Logged predictions as FHIR RiskAssessments: which of what we log is said, and in which words.

Called by the export of predictions and by write-back. Which element holds what is decided in
`fhir_adapters/outbound/risk_assessment.py`; docs/risk-assessment.md is the table. Pure: whether the
vault is opened is decided, and put on record, by who calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cds_service.cards import Shown, shown_contributions, signed
from cds_service.ranked_cards import Way, arguments_of
from cds_service.texts import RANKED_TEXTS, TEXTS
from cds_service.wording import number
from fhir_adapters.outbound.risk_assessment import AssessedRisk, Identified, PredictedOutcome
from fhir_adapters.outbound.risk_assessment import risk_assessment as resource_of
from models.prediction import HeadPrediction, Prediction, RankingPrediction

References = Mapping[str, Any]
"""What the vault holds of a prediction: `fhir_base`, `patient`, `encounter`, `user`, `sources`."""
_LITERAL = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}")
"""A reference to a resource that has an id of its own (FHIR R4, 2.3.0.1)."""
_SILENT = {
    "da": "Modellen kørte tavst: prognosen blev ikke vist.",
    "en": "The model ran silently: the prediction was not shown.",
}


def risk_assessment(
    prediction: Prediction,
    row: Mapping[str, Any],
    *,
    references: References | None = None,
    withdrawn: bool = False,
) -> dict[str, Any] | None:
    """The RiskAssessment of a prediction and its row in the log; None where no risk was computed.

    `references`: what the vault holds of it, where it was opened; without, patient and encounter
    stand by pseudonym, and no source is named. `withdrawn`: the prediction is taken back, and
    marked as entered in error.
    """
    if prediction.status != "scored":
        return None
    return resource_of(
        AssessedRisk(
            prediction_id=prediction.prediction_id,
            withdrawn=withdrawn,
            language=prediction.language,
            mode=prediction.mode,
            model_id=prediction.model.id,
            model_version=prediction.model.version,
            package_checksum=prediction.model.checksum,
            software_version=row["software_version"],
            patient=_identified("Patient", row["patient_pseudonym"], references),
            encounter=_identified("Encounter", row["encounter_pseudonym"], references)
            if row["encounter_pseudonym"]
            else None,
            as_of=prediction.as_of,
            starts=prediction.index_time or prediction.as_of,
            computed_at=prediction.computed_at,
            outcomes=[
                *(_of_head(prediction, head) for head in prediction.heads),
                *(one for ranking in prediction.rankings for one in _ranked(prediction, ranking)),
            ],
            basis=_basis(references) if references else (),
            notes=_notes(prediction),
        )
    )


def _identified(kind: str, pseudonym: str, references: References | None) -> Identified:
    known = references.get(kind.lower()) if references else None
    reference = _absolute(f"{kind}/{known}", references) if references and known else None
    return Identified(kind, pseudonym, reference)


def _absolute(reference: str, references: References) -> str:
    """The reference with the address of the server it is from, where that is known."""
    base = str(references.get("fhir_base") or "").rstrip("/")
    return f"{base}/{reference}" if base else reference


def _basis(references: References) -> list[str]:
    """Every resource some feature rests on, once; what has no id of its own is left out."""
    named = {one for sources in references["sources"].values() for one in sources}
    return [_absolute(one, references) for one in sorted(named) if _LITERAL.fullmatch(one)]


def _of_head(prediction: Prediction, head: HeadPrediction) -> PredictedOutcome:
    code = f"{prediction.model.id}.{head.head}"
    return PredictedOutcome(
        code=code,
        text=head.outcome,
        probability=head.risk,
        band=f"{code}.{head.band}",
        band_text=head.band,
        horizon_days=head.horizon_days,
        rationale=_why(head, prediction.language),
    )


def _why(head: HeadPrediction, language: str) -> str:
    """The categories that weigh most, as a card names them, and that they are no causes."""
    texts, shown = TEXTS[language], shown_contributions(head)
    said = texts.sum_line.format(
        other=signed(shown.other, language),
        reference=number(100 * head.reference_risk, 1, language),
        total=signed(shown.total, language),
        risk=number(100 * head.risk, 1, language),
    )
    raised = _weights(texts.raised, shown, language, sign=1)
    lowered = _weights(texts.lowered, shown, language, sign=-1)
    return " ".join(part for part in (raised, lowered, said, texts.not_causes) if part)


def _weights(heading: str, shown: Shown, language: str, *, sign: int) -> str:
    """The categories of a sign with their percentage points; empty where there is none."""
    named = [f"{c.label} {signed(p, language)}" for c, p in shown.top if p * sign > 0]
    return f"{heading} ({TEXTS[language].points}): {', '.join(named)}." if named else ""


def _ranked(prediction: Prediction, ranking: RankingPrediction) -> list[PredictedOutcome]:
    """Every class of a ranking as an outcome; why, with the first."""
    first = ranking.classes[0]
    return [
        PredictedOutcome(
            code=f"{prediction.model.id}.{ranking.ranking}.{one.id}",
            text=one.label,
            probability=one.probability,
            horizon_days=ranking.horizon_days,
            rationale=_arguments(ranking, prediction.language) if one is first else None,
        )
        for one in ranking.classes
    ]


def _arguments(ranking: RankingPrediction, language: str) -> str:
    texts, first = RANKED_TEXTS[language], ranking.classes[0].label
    ways: tuple[tuple[str, Way], ...] = (
        (texts.speaks_for, "for"),
        (texts.speaks_against, "against"),
    )
    said = [
        f"{heading.format(first=first)}: {', '.join(a.label for a in arguments_of(ranking, way))}."
        for heading, way in ways
        if arguments_of(ranking, way)
    ]
    return " ".join([*said, texts.not_causes])


def _notes(prediction: Prediction) -> list[str]:
    """What nobody may overlook: that the model learned of invented patients, or was not shown."""
    language = prediction.language
    synthetic = [TEXTS[language].synthetic] if prediction.synthetic else []
    return synthetic + ([_SILENT[language]] if prediction.mode != "live" else [])
