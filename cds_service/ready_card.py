"""The model card of a model from elsewhere: what the manifest says, and all that is not known.

Nothing was measured here, so it holds no figure of how good the model is. Written by
`varsel models seal` where the folder has no card; the card of a trained package is another
(`cds_service/training/card.py`).
"""

from __future__ import annotations

from fhir_adapters.features.language import FeatureSpec
from models.manifest import Head, Manifest, Ranking


def ready_card(manifest: Manifest) -> str:
    """The card as Markdown."""
    parts = [
        f"# {manifest.id} {manifest.version}: {manifest.title.en} ({manifest.title.da})",
        _SYNTHETIC if manifest.synthetic else "",
        _UNKNOWN,
        manifest.description.en,
        *(_head(head) for head in manifest.heads),
        *(_ranking(ranking) for ranking in manifest.rankings),
        _listed("Who it is not for", [f"{r.text.en} (`{r.reason}`)" for r in manifest.scope]),
        _listed(
            "What must be known before a number is given", [m.text.en for m in manifest.minimum]
        ),
        _listed("What it looks at", [_input(feature) for feature in manifest.inputs]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_SYNTHETIC = "> **Trained on SYNTHETIC data. Not for clinical use.**"
_UNKNOWN = (
    "> **Made elsewhere; nothing about it was measured here.** Not known: which patients it was "
    "trained on and how they were chosen, how well it discriminates and is calibrated, in whom it "
    "fails, and how sure it is of a risk. Validate it on the site's own data before anybody relies "
    "on it."
)
"""Said of every such model, whatever its manifest claims."""


def _head(head: Head) -> str:
    kind = "a logistic model" if head.kind == "logistic" else "boosted trees (XGBoost)"
    judged = (
        "can be validated on later data"
        if head.outcome_rule
        else "cannot be validated until `rule` says what counts as the outcome"
    )
    return (
        f"## {head.title.en} (`{head.id}`)\n\n"
        f"- **Outcome**: {head.outcome} (within {head.horizon_days} days); {judged}.\n"
        f"- **Model**: {kind}.\n"
        f"- **Card from**: risk {head.threshold:g} ({head.threshold_source})."
    )


def _ranking(ranking: Ranking) -> str:
    within = f" (within {ranking.horizon_days} days)" if ranking.horizon_days else ""
    classes = ", ".join(one.label.en for one in ranking.classes)
    return (
        f"## {ranking.title.en} (`{ranking.id}`)\n\n"
        f"- **Outcome**: {ranking.outcome}{within}.\n"
        f"- **Model**: boosted trees (XGBoost) of {len(ranking.classes)} classes: {classes}.\n"
        f"- **Card from**: probability {ranking.card_from:g} of the most likely class; for "
        "information only."
    )


def _listed(heading: str, lines: list[str]) -> str:
    return f"## {heading}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _input(feature: FeatureSpec) -> str:
    unit = f", {feature.unit}" if feature.unit else ""
    return f"{feature.label.en} (`{feature.name}`{unit})"
