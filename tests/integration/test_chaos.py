"""Workers and their database are killed under load: the short form of `make chaos`."""

from __future__ import annotations

from tests.chaos.run import chaos, figures_of


def test_no_card_without_its_prediction_none_twice_none_half() -> None:
    """`kill -9` of a worker, of the database, of both, while clients ask and ask again."""
    figures = figures_of(chaos(3, 1, connections=4))
    assert figures["kills"] == {"worker": 1, "database": 1, "both": 1}
    assert figures["cards"] > 0
    assert figures["times_spooled"] > 0
    wrong = ("losses", "duplicates", "half_rows", "chain_faults")
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0), figures
