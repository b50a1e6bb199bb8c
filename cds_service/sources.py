"""The references to a patient's resources in a prediction, taken out of it and put back.

They name resources, so the log keeps them sealed beside the prediction; everything else of it is
kept in clear. Called by `cds_service/assess.py` when a row is written and when one is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from models.prediction import Argument, Contribution, FeatureFinding, Prediction

Sources = Mapping[str, list[str]]
_Finding = TypeVar("_Finding", bound=FeatureFinding)
_Category = TypeVar("_Category", Contribution, Argument)


def with_sources(prediction: Prediction, sources: Sources) -> Prediction:
    """The prediction, every feature with the references of its name, or none where it has none."""
    heads = [
        msgspec.structs.replace(head, contributions=_each(head.contributions, sources))
        for head in prediction.heads
    ]
    rankings = [
        msgspec.structs.replace(
            ranking,
            speaks_for=_each(ranking.speaks_for, sources),
            speaks_against=_each(ranking.speaks_against, sources),
        )
        for ranking in prediction.rankings
    ]
    return msgspec.structs.replace(prediction, heads=heads, rankings=rankings)


def _each(categories: list[_Category], sources: Sources) -> list[_Category]:
    return [
        msgspec.structs.replace(
            category, features=[_sourced(feature, sources) for feature in category.features]
        )
        for category in categories
    ]


def _sourced(feature: _Finding, sources: Sources) -> _Finding:
    return msgspec.structs.replace(feature, source=sources.get(feature.name, []))
