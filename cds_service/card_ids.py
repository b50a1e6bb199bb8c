"""The ids of cards, made so that feedback leads from a card back to its prediction.

A card's id is its prediction's id with the last octet counted on; no table of cards is kept. Pure.
Two replicas may have answered one call in different words while the database was away: then their
cards are numbered alike, and the answer stored second has an id of its own. Called where cards are
made, where such an answer is stored or computed again, and where feedback is matched.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from uuid import UUID

from cds_service.identities.privacy import uuid_v8

_LAST_OCTET = 0xFF


class Ids(NamedTuple):
    """A card's id as it was given out, and the lowest and highest id its prediction may have."""

    card: str
    lowest: str
    highest: str


def card_id(prediction_id: str, place: int) -> str:
    """The id of the card at a place (from 0) in a prediction's response; never the prediction's.

    Each of up to 255 cards has its own, which no model comes near.
    """
    number = UUID(prediction_id).int
    last = (number + 1 + place) & _LAST_OCTET
    return str(UUID(int=number & ~_LAST_OCTET | last))


def ids_of_card(card: str) -> Ids | None:
    """The ids a card's prediction may have; None where the text is no UUID, so no card of ours."""
    try:
        made = UUID(card)
    except ValueError:
        return None
    lowest, highest = UUID(int=made.int & ~_LAST_OCTET), UUID(int=made.int | _LAST_OCTET)
    return Ids(str(made), str(lowest), str(highest))


def id_beside(shown_as: str, response: str) -> str:
    """The id an answer is stored under that was shown under an id another answer to the same call
    has in the log. The same answer, the same id."""
    return str(uuid_v8(hashlib.sha256(f"{shown_as}\0{response}".encode()).digest()))
