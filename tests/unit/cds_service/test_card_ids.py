"""The ids of cards, and the way back from one to its prediction."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from cds_service.card_ids import card_id, ids_of_card
from cds_service.db.feedback import _ANSWERS
from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade


@given(st.uuids(), st.integers(0, 254))
def test_a_card_leads_back_to_its_prediction(prediction: uuid.UUID, place: int) -> None:
    """Its prediction's id lies between the two that are looked up, and is none of its own."""
    card = card_id(str(prediction), place)
    ids = ids_of_card(card.upper())
    assert ids is not None
    assert ids.card == card != str(prediction)
    assert ids.lowest <= str(prediction) <= ids.highest


@given(st.uuids())
def test_every_card_of_a_prediction_has_its_own_id(prediction: uuid.UUID) -> None:
    """255 of them, which no model comes near; of the same version as the prediction's."""
    cards = {card_id(str(prediction), place) for place in range(255)}
    assert len(cards) == 255
    assert {uuid.UUID(card).version for card in cards} == {prediction.version}


@pytest.mark.parametrize("text", ["", "123456", "x" * 64, "6f1d2b0a-3c44-8c8e-9a51-5a0f6a3f7d1"])
def test_what_is_no_uuid_is_no_card_of_ours(text: str) -> None:
    """Nothing is looked up for it."""
    assert ids_of_card(text) is None


def test_a_card_is_looked_up_by_the_key_alone(tmp_path: Path) -> None:
    """Beside a range of keys SQLite would rather go through all rows of an organisation."""
    engine = open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    upgrade(engine)
    query = _ANSWERS.params(lowest="a", highest="b").compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
    )
    with engine.connect() as connection:
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").fetchall()
    engine.dispose()
    assert "prediction_id>? AND prediction_id<?" in steps[0].detail
    assert [step.detail for step in steps if step.detail.startswith("SCAN")] == []
