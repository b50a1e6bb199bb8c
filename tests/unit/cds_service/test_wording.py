"""Text from outside made harmless, and numbers that add up."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.wording import (
    day_in_words,
    number,
    of_hundred,
    plain,
    printable,
    rounded_to_sum,
    sentences,
    uncapital,
)
from fhir_adapters.clock import COPENHAGEN


@given(st.text())
def test_nothing_printable_obeys(text: str) -> None:
    """No control, format, surrogate, private or line-separating character is left."""
    kept = printable(text)
    assert {unicodedata.category(c)[0] for c in kept} <= {"L", "M", "N", "P", "S", "Z"}
    assert not {"\u2028", "\u2029", "\n", "\r"} & set(kept)
    assert printable(kept) == kept


def test_letters_of_all_languages_and_no_break_spaces_stay() -> None:
    """Danish, Greek, Arabic, symbols."""
    text = "Blåbærgrød 12\u00a0% Ω ملح 10⁹/L −1"
    assert printable(text) == text


@pytest.mark.parametrize("control", ["\x1b[31m", "\u202e", "\u2066", "\u061c", "\ufeff", "\x9b"])
def test_controls_of_terminals_and_of_direction_go(control: str) -> None:
    """ANSI escapes, overrides, isolates, marks."""
    assert control[0] not in printable(f"a{control}b")


@given(st.text(max_size=100))
def test_plain_text_is_no_markdown_and_no_html(text: str) -> None:
    """Every character that GFM could read as markup has a backslash before it."""
    escaped = plain(text)
    markup = set("\\`*_{}[]<>()#+!|~&")
    place = 0
    while place < len(escaped):
        assert escaped[place] == "\\" or escaped[place] not in markup
        place += 2 if escaped[place] == "\\" else 1


@given(st.lists(st.floats(-60, 60), min_size=1, max_size=6))
def test_rounded_parts_add_up_to_the_rounded_whole(parts: list[float]) -> None:
    """What a reader adds up is what the card says, and no part moves by a unit."""
    total = sum(parts)
    rounded = rounded_to_sum(parts, total)
    assert sum(round(10 * part) for part in rounded) == round(10 * total)
    for before, after in zip(parts, rounded, strict=True):
        assert abs(before - after) < 0.1 + 1e-9


@pytest.mark.parametrize(
    ("value", "danish", "english"),
    [(12.55, "12,6", "12.6"), (-1.2, "−1,2", "−1.2"), (-0.04, "0,0", "0.0"), (0, "0,0", "0.0")],
)
def test_numbers_are_written_as_people_write_them(value: float, danish: str, english: str) -> None:
    """Decimal comma in Danish; a true minus; never minus zero."""
    assert (number(value, 1, "da"), number(value, 1, "en")) == (danish, english)


@pytest.mark.parametrize(
    ("moment", "danish", "english"),
    [
        ("2026-11-22T08:00:00Z", "22. november 2026", "22 November 2026"),
        ("2026-12-31T23:30:00Z", "1. januar 2027", "1 January 2027"),
        ("2026-05-01T00:00:00Z", "1. maj 2026", "1 May 2026"),
    ],
)
def test_days_are_said_with_their_month_in_words(moment: str, danish: str, english: str) -> None:
    """In the site's zone: half past eleven in the evening, UTC, is the next day in Denmark."""
    assert day_in_words(moment, COPENHAGEN, "da") == danish
    assert day_in_words(moment, COPENHAGEN, "en") == english


@pytest.mark.parametrize(
    ("risk", "danish", "english"),
    [
        (0.0, "færre end 1", "fewer than 1"),
        (0.0049, "færre end 1", "fewer than 1"),
        (0.0051, "1", "1"),
        (0.735, "74", "74"),
        (0.994, "99", "99"),
        (0.996, "flere end 99", "more than 99"),
        (1.0, "flere end 99", "more than 99"),
    ],
)
def test_a_risk_is_so_many_of_a_hundred_and_never_none_or_all(
    risk: float, danish: str, english: str
) -> None:
    """Nobody is told that it cannot happen, or that it must."""
    assert of_hundred(risk, "da") == danish
    assert of_hundred(risk, "en") == english


@pytest.mark.parametrize(
    ("label", "inside"),
    [
        ("Iltmætning", "iltmætning"),
        ("Åndenød, ændring siden sidst", "åndenød, ændring siden sidst"),
        ("Skrøbelighed (CFS)", "skrøbelighed (CFS)"),
        ("Clinical Frailty Scale", "Clinical Frailty Scale"),
        ("Charlson-indeks (Quan 2011)", "Charlson-indeks (Quan 2011)"),
        ("NT-proBNP", "NT-proBNP"),
        ("HbA1c", "HbA1c"),
        ("eGFR", "eGFR"),
        ("CRP", "CRP"),
        ("", ""),
    ],
)
def test_a_label_inside_a_sentence_keeps_only_a_name_s_capital(label: str, inside: str) -> None:
    assert uncapital(label) == inside


def test_a_text_is_cut_between_sentences_only() -> None:
    """A stop before a small letter or a number ends none."""
    text = "Ring til borgeren nu. Ring 112 ved f.eks. åndenød kl. 8.30. Start planen."
    assert sentences(text) == [
        "Ring til borgeren nu.",
        "Ring 112 ved f.eks. åndenød kl. 8.30.",
        "Start planen.",
    ]
