"""Measured values into the unit of their concept, or a refusal that says why.

Units are read as UCUM, after the spellings seen in Danish and American records are folded into it.
Plain scales come from the small reader below (why no library: docs/codes.md), analyte conversions
from molar masses. A value whose unit is missing is believed only if no other unit in use can be
meant. Plausible limits are otherwise not applied here: `facts.py`, the caller, does that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from fhir_adapters.codes import Concept

MAX_UNIT_CHARS = 40  # no unit in use is near this long; engineering choice, 2026-11-21
MEMO_LIMIT = 4096  # conversions remembered: concepts times spellings; beyond it hostile input

# Grams per mole: what turns mass into amount of substance. PubChem molecular weights, 2026-11,
# unless said otherwise.
MOLAR_MASS_G_MOL: Mapping[str, float] = {
    "haemoglobin": 16114.5,  # the monomer Hb(Fe), as Danish laboratories count (NPU02319)
    "creatinine": 113.12,
    "urea": 60.056,
    "glucose": 180.16,
    "bilirubin": 584.7,
    "lactate": 90.08,  # as lactic acid
    "albumin": 66500.0,  # legacy umol/L (NPU01132): factor 0.0665 to g/L, DALY-CARE laboratory data
    "crp": 105000.0,  # legacy nmol/L (NPU01423): factor 0.105 to mg/L, DALY-CARE laboratory data
    "nt_probnp": 8457.0,  # 76 amino acids; 1 pmol/L = 8.457 ng/L, assay manufacturers
}
# American laboratories report the nitrogen in urea (BUN): two atoms of 14.007 per molecule.
UREA_NITROGEN_G_MOL = 28.014
UREA_NITROGEN = "{urea_N}"  # how the code table marks such a code's own unit
# Ions of one charge: one equivalent is one mole.
MONOVALENT = frozenset({"sodium", "potassium"})
# HbA1c: IFCC mmol/mol = (NGSP % - 2.15) * 10.929, consensus statement 2007, ngsp.org.
HBA1C_FACTOR, HBA1C_OFFSET = 10.929, -2.15 * 10.929
# SpO2 and its like come as percent or as fraction. At most this is a fraction (1.5: none is above
# 1, and a percentage this low is not measured). Rule for FUT and dk-core senders, 2026-11.
HIGHEST_FRACTION = 1.5


class Converted(msgspec.Struct, frozen=True, gc=False):
    """A value in its concept's unit, or None and the reason, which holds no patient data."""

    value: float | None
    status: Literal["ok", "refused-unit"] = "ok"
    reason: str = ""


class _Unit(NamedTuple):
    """value in SI base units (gram for mass) = value * factor + offset."""

    factor: float
    dimension: tuple[int, int, int, int, int, int]  # m, g, s, K, mol, eq
    offset: float = 0.0


_Rule = Callable[[float], Converted]

_ONE = (0, 0, 0, 0, 0, 0)
_MASS = (-3, 1, 0, 0, 0, 0)
_AMOUNT = (-3, 0, 0, 0, 1, 0)
_EQUIVALENTS = (-3, 0, 0, 0, 0, 1)
_PREFIXES = {
    "k": 1e3,
    "d": 1e-1,
    "c": 1e-2,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
}
_METRIC = {  # UCUM atoms that take a prefix
    "m": _Unit(1.0, (1, 0, 0, 0, 0, 0)),
    "g": _Unit(1.0, (0, 1, 0, 0, 0, 0)),
    "s": _Unit(1.0, (0, 0, 1, 0, 0, 0)),
    "K": _Unit(1.0, (0, 0, 0, 1, 0, 0)),
    "mol": _Unit(1.0, (0, 0, 0, 0, 1, 0)),
    "eq": _Unit(1.0, (0, 0, 0, 0, 0, 1)),
    "L": _Unit(1e-3, (3, 0, 0, 0, 0, 0)),
    "l": _Unit(1e-3, (3, 0, 0, 0, 0, 0)),
    "Pa": _Unit(1e3, (-1, 1, -2, 0, 0, 0)),
    "m[Hg]": _Unit(133322.387415e3, (-1, 1, -2, 0, 0, 0)),
}
_PLAIN = {
    "min": _Unit(60.0, (0, 0, 1, 0, 0, 0)),
    "h": _Unit(3600.0, (0, 0, 1, 0, 0, 0)),
    "d": _Unit(86400.0, (0, 0, 1, 0, 0, 0)),
    "wk": _Unit(604800.0, (0, 0, 1, 0, 0, 0)),
    "[lb_av]": _Unit(453.59237, (0, 1, 0, 0, 0, 0)),
    "[oz_av]": _Unit(28.349523125, (0, 1, 0, 0, 0, 0)),
    "[in_i]": _Unit(0.0254, (1, 0, 0, 0, 0, 0)),
}
_WITH_OFFSET = {
    "Cel": _Unit(1.0, (0, 0, 0, 1, 0, 0), 273.15),
    "[degF]": _Unit(5 / 9, (0, 0, 0, 1, 0, 0), 459.67 * 5 / 9),
}
_POWER_OF_TEN = re.compile(r"10\*([+-]?\d{1,2})")
_INTEGER = re.compile(r"[1-9]\d{0,5}")
_SYMBOL = re.compile(r"([A-Za-z\[\]_%]+)([+-]?\d)?")

# Spellings folded into UCUM: whole units, compared without spaces and in lower case.
_SPELLINGS = {
    "mmhg": "mm[Hg]",
    "bpm": "/min",
    "beats/min": "/min",
    "beats/minute": "/min",
    "breaths/min": "/min",
    "slag/min": "/min",
    "slag/minut": "/min",
    "/minut": "/min",
    "1/minut": "/min",
    "°c": "Cel",
    "℃": "Cel",
    "c": "Cel",
    "celsius": "Cel",
    "gradercelsius": "Cel",
    "gradercelcius": "Cel",
    "°f": "[degF]",
    "f": "[degF]",
    "fahrenheit": "[degF]",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "oz": "[oz_av]",
    "in": "[in_i]",
    "inches": "[in_i]",
    "percent": "%",
    "procent": "%",
    "inr": "1",
    "score": "1",
    "point": "1",
    "points": "1",
    "ingen": "",
}
_FOLDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\u00b5\u03bc]", "u"),
        (r"^(mikro|micro|mc)(?=[gLlm])", "u"),
        (r"^nano(?=[gLlm])", "n"),
        (r"mEq", "meq"),
        (r"^[×xX](?=1[0/])", ""),  # ×10^9/L, × 1/min
        (r"/\(?1[.,]73\.?m(2|²|\^2)\)?$", ""),  # per body surface, said in words
        (r"^10[\^eE](?=[+-]?\d)", "10*"),
        (r"²", "2"),
        (r"(?<=[A-Za-z])\^(?=\d)", ""),
        (r"(^|[./])\{[^{}]*\}(?=[./]|$)", r"\g<1>1"),  # an annotation that stands alone is 1
        (r"\{[^{}]*\}", ""),
    )
)
_SUPERSCRIPT = re.compile("^10([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_SUPERSCRIPT_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")

_rules: dict[tuple[str, str, str | None], _Rule] = {}


def to_concept_unit(
    value: float, unit: str | None, concept: Concept, own_unit: str | None
) -> Converted:
    """The value in the unit of its concept.

    `unit` is the Quantity's UCUM code, or its unit text; None or "" if it has none. `own_unit` is
    what the code implies (urea or its nitrogen). Refused, never guessed: a unit that is not known
    or measures something else, a missing one that could be several, NaN and infinity. Concepts
    without a unit take no numbers.
    """
    if not math.isfinite(value):
        return Converted(None, "refused-unit", "not a finite number")
    if unit is None:
        unit = ""
    elif len(unit) > MAX_UNIT_CHARS:
        return Converted(None, "refused-unit", "unit text too long")
    key = (concept.name, unit, own_unit)
    rule = _rules.get(key)
    if rule is None:
        rule = _rule(fold_unit(unit), concept, own_unit)
        if len(_rules) >= MEMO_LIMIT:
            _rules.clear()
        _rules[key] = rule
    return rule(value)


def fold_unit(unit: str) -> str:
    """A unit's spelling folded into UCUM without annotations; "" where it says there is none."""
    text = "".join(unit.split())
    spelled = _SPELLINGS.get(text.lower())
    if spelled is not None:
        return spelled
    text = _SUPERSCRIPT.sub(lambda m: "10*" + m.group(1).translate(_SUPERSCRIPT_DIGITS), text)
    for pattern, replacement in _FOLDS:
        text = pattern.sub(replacement, text)
    return _SPELLINGS.get(text.lower(), text)


def _rule(unit: str, concept: Concept, own_unit: str | None) -> _Rule:
    """How to convert from a folded unit; worked out once per concept and spelling."""
    if concept.unit is None:
        return _refuse("the concept has no unit")
    target = fold_unit(concept.unit)
    if unit == target:
        return _as_is
    if not unit:
        return _as_is if target == "1" else _without_unit(concept, own_unit)
    if target == "%" and unit == "1":
        return _fraction_to_percent
    if concept.name == "hba1c" and unit == "%":
        return _linear(HBA1C_FACTOR, HBA1C_OFFSET)
    source, wanted = _parse(unit), _parse(target)
    if source is None or wanted is None:
        return _refuse("unit not known")
    if wanted.dimension == _ONE or source.dimension == _ONE:
        return _refuse("unit of another kind than the concept's")
    molar = 1.0
    if source.dimension != wanted.dimension:
        ratio = _substance_factor(source.dimension, wanted.dimension, concept.name, own_unit)
        if ratio is None:
            return _refuse("unit of another kind than the concept's")
        molar = ratio
    return _linear(
        _twelve_digits(source.factor * molar / wanted.factor),
        _twelve_digits((source.offset - wanted.offset) / wanted.factor),
    )


def _twelve_digits(number: float) -> float:
    """Frees a factor of rounding noise, so that 7.2 x 10*3/uL is 7.2 x 10*9/L exactly."""
    return float(f"{number:.12g}")


def _substance_factor(
    source: tuple[int, ...], wanted: tuple[int, ...], name: str, own_unit: str | None
) -> float | None:
    """What turns mass, amount or equivalents per volume of an analyte into each other, or None."""
    if (source, wanted) == (_EQUIVALENTS, _AMOUNT) and name in MONOVALENT:
        return 1.0
    mass = MOLAR_MASS_G_MOL.get(name)
    if mass is None:
        return None
    if name == "urea" and own_unit is not None and UREA_NITROGEN in own_unit:
        mass = UREA_NITROGEN_G_MOL
    if (source, wanted) == (_MASS, _AMOUNT):
        return 1 / mass
    return mass if (source, wanted) == (_AMOUNT, _MASS) else None


# ---- rules: a number in, the converted one or a refusal out -------------------------------------


def _as_is(value: float) -> Converted:
    return Converted(value)


def _linear(factor: float, offset: float) -> _Rule:
    return lambda value: Converted(value * factor + offset)


def _refuse(reason: str) -> _Rule:
    refusal = Converted(None, "refused-unit", reason)
    return lambda _: refusal


def _fraction_to_percent(value: float) -> Converted:
    if value > HIGHEST_FRACTION:
        return Converted(None, "refused-unit", "unit says fraction, the number does not")
    return Converted(value * 100.0)


def _without_unit(concept: Concept, own_unit: str | None) -> _Rule:
    """Believes a bare number if only the concept's own unit can be meant.

    Every unit in use is tried. If all mean the same, the number is taken; else it must be plausible
    in the concept's unit and in no other. A fraction below 1.5 where percent is held is taken for
    what it is, since nothing else is written so.
    """
    units = [*concept.other_units, *([own_unit] if own_unit else [])]
    others = [_rule(fold_unit(unit), concept, own_unit) for unit in units if fold_unit(unit)]

    def rule(value: float) -> Converted:
        readings = {round(value, 9)}
        readings.update(
            round(r.value, 9) for r in (o(value) for o in others) if r.value is not None
        )
        plausible = [reading for reading in readings if _is_plausible(reading, concept)]
        if len(readings) == 1 or plausible == [round(value, 9)]:
            return _as_is(value)
        if concept.unit == "%" and len(plausible) == 1:
            return Converted(plausible[0])
        return Converted(None, "refused-unit", "unit missing, and the number does not tell it")

    return rule


def _is_plausible(value: float, concept: Concept) -> bool:
    low, high = concept.plausible_low, concept.plausible_high
    return (low is None or value >= low) and (high is None or value <= high)


# ---- reading UCUM -------------------------------------------------------------------------------


def _parse(unit: str) -> _Unit | None:
    """A folded UCUM code as factor and dimension; None if it is not in the part we read.

    Products and quotients of atoms with whole exponents, powers of ten and whole numbers; no
    brackets, as no unit in use for our concepts needs them.
    """
    if unit in _WITH_OFFSET:
        return _WITH_OFFSET[unit]
    factor, dimension = 1.0, [0] * 6
    text = "1" + unit if unit.startswith("/") else unit
    for sign, term in zip(_signs(text), re.split(r"[./]", text), strict=True):
        read = _parse_term(term)
        if read is None:
            return None
        factor *= read.factor**sign
        dimension = [
            sum_ + sign * each for sum_, each in zip(dimension, read.dimension, strict=True)
        ]
    m, g, s, k, mol, eq = dimension
    return _Unit(factor, (m, g, s, k, mol, eq))


def _signs(text: str) -> list[int]:
    return [1, *(-1 if mark == "/" else 1 for mark in re.findall(r"[./]", text))]


def _parse_term(term: str) -> _Unit | None:
    if power := _POWER_OF_TEN.fullmatch(term):
        return _Unit(10.0 ** int(power.group(1)), _ONE)
    if _INTEGER.fullmatch(term):
        return _Unit(float(term), _ONE)
    symbol = _SYMBOL.fullmatch(term)
    atom = _parse_symbol(symbol.group(1)) if symbol else None
    if symbol is None or atom is None:
        return None
    exponent = int(symbol.group(2) or 1)
    m, g, s, k, mol, eq = (each * exponent for each in atom.dimension)
    return _Unit(atom.factor**exponent, (m, g, s, k, mol, eq))


def _parse_symbol(symbol: str) -> _Unit | None:
    if symbol == "%":
        return _Unit(0.01, _ONE)
    known = _PLAIN.get(symbol) or _METRIC.get(symbol)
    if known is not None:
        return known
    prefix, atom = _PREFIXES.get(symbol[:1]), _METRIC.get(symbol[1:])
    return _Unit(prefix * atom.factor, atom.dimension) if prefix and atom else None
