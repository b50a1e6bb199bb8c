"""Numbers, dates and escapes as people read them, in Danish and English.

Decimal comma and space before the per cent sign in Danish (12,5 %), dates 21.11.2026, 24-hour
clock. Everything that could hold a character from outside passes `plain` before it is shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from unicodedata import category

from fhir_adapters.clock import parse_time, to_datetime

_MARKUP = re.compile(r"[\\`*_{}\[\]<>()#+!|~&]")
_UNITS = {
    "umol/L": "µmol/L", "10*9/L": "10⁹/L", "mm[Hg]": "mmHg", "Cel": "°C", "kg/m2": "kg/m²",
    "a": "", "1": "", "{score}": "",
}  # fmt: skip
_UNIT_WORDS = {
    "da": {"d": "døgn", "SD": "× egne sædvanlige udsving", "mL/min/{1.73_m2}": "ml/min/1,73 m²"},
    "en": {"d": "days", "SD": "× own usual variation", "mL/min/{1.73_m2}": "mL/min/1.73 m²"},
}


def number(value: float, decimals: int, language: str) -> str:
    """A number with a fixed count of decimals; a true minus sign, never minus zero."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    text = text.replace("-", "−")
    return text if language == "en" else text.replace(".", ",")


def decimal(value: float, language: str) -> str:
    """A number with as many decimals as it has."""
    text = f"{value:g}".replace("-", "−")
    return text if language == "en" else text.replace(".", ",")


def shown_unit(unit: str, language: str) -> str:
    """A unit of the feature language (UCUM, and SD for own standard deviations) as printed."""
    return _UNIT_WORDS[language].get(unit) or _UNITS.get(unit, unit)


@lru_cache(maxsize=4096)
def day(moment: str, zone: tzinfo, language: str) -> str:
    """The day of an ISO instant. Remembered: a record's findings share days."""
    at = to_datetime(parse_time(moment), zone)
    return at.strftime("%Y-%m-%d") if language == "en" else at.strftime("%d.%m.%Y")


def day_and_time(moment: str, zone: tzinfo, language: str) -> str:
    """Day and time of an ISO instant; the day alone at midnight, as FHIR dates are kept."""
    at: datetime = to_datetime(parse_time(moment), zone)
    if (at.hour, at.minute) == (0, 0):  # a date, not a moment of the day
        return day(moment, zone, language)
    if language == "en":
        return at.strftime("%Y-%m-%d %H:%M")
    return at.strftime("%d.%m.%Y kl. %H.%M")


_MONTHS = {
    "da": ("januar", "februar", "marts", "april", "maj", "juni", "juli", "august", "september",
           "oktober", "november", "december"),
    "en": ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December"),
}  # fmt: skip


def day_in_words(moment: str, zone: tzinfo, language: str) -> str:
    """The day of an ISO instant with its month in words: 22. november 2026."""
    at = to_datetime(parse_time(moment), zone)
    dot = "" if language == "en" else "."
    return f"{at.day}{dot} {_MONTHS[language][at.month - 1]} {at.year}"


def printable(text: str) -> str:
    """The text without control, formatting (bidirectional), unassigned and surrogate characters.

    What is left is letters, marks, digits, punctuation, symbols and spaces, on one line.
    """
    return "".join(c for c in text if c.isprintable() or category(c) == "Zs")


def plain(text: str, longest: int = 60) -> str:
    """Text from outside made harmless: no control or bidirectional characters, markup escaped."""
    cleaned = printable(text)[:longest]
    return _MARKUP.sub(lambda found: "\\" + found.group(0), cleaned)


_OF_HUNDRED = {"da": ("færre end 1", "flere end 99"), "en": ("fewer than 1", "more than 99")}


def of_hundred(risk: float, language: str) -> str:
    """How many of 100 people a risk (0 to 1) is; never none of them, and never all."""
    few, most = _OF_HUNDRED["en" if language == "en" else "da"]
    people = round(100 * risk)
    if people < 1:
        return few
    return most if people > 99 else str(people)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


_OWN_CAPITAL = re.compile(r"Charlson\b|\S[^a-zæøå\s]|\S+[A-ZÆØÅ0-9]|\S+ [A-ZÆØÅ][a-zæøå]")
"""How a text begins that keeps its capital: a person's name, an abbreviation, a name in words."""


def uncapital(text: str) -> str:
    """The text as it stands in a sentence: no capital first letter, unless it is a name's."""
    return text if _OWN_CAPITAL.match(text) else text[:1].lower() + text[1:]


_NEXT_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-ZÆØÅ])")


def sentences(text: str) -> list[str]:
    """The sentences of a text; a stop before a small letter or a number ends none."""
    return _NEXT_SENTENCE.split(text)


def rounded_to_sum(parts: Sequence[float], total: float, decimals: int = 1) -> list[float]:
    """The parts rounded so that they add up to the rounded total (largest remainder method).

    A part moves by less than one unit of the last decimal from its own rounding down; so what a
    reader adds up on a card is what the card says.
    """
    scale = 10**decimals
    target = round(total * scale)
    floors = [math.floor(part * scale) for part in parts]
    short = target - sum(floors)
    by_remainder = sorted(range(len(parts)), key=lambda i: (floors[i] - parts[i] * scale, i))
    for i in (by_remainder * 2)[: max(0, short)]:
        floors[i] += 1
    for i in list(reversed(by_remainder))[: max(0, -short)]:
        floors[i] -= 1
    return [floor / scale for floor in floors]
