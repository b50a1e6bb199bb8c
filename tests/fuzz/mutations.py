"""What can be wrong with a request: small changes to real ones, drawn by hypothesis.

A change is a `Step`: where, which kind, and which of the kind's variants. Steps are plain values,
so that the smallest failing input can be printed and repeated. What cannot be written from Python
values (NaN, bytes that are no text, very deep nesting) goes in as a mark and is put into the bytes
by `encode`. Called by `harness`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import strategies as st

Place = tuple[str | int, ...]
MOST_STEPS = 4

# ---- marks ----------------------------------------------------------------------------------

_NUMBERS = {
    "nan": "NaN", "infinity": "Infinity", "minus-infinity": "-Infinity", "huge": "1e400",
    "minus-huge": "-1e400", "digits": "9" * 5000, "tiny": "1e-400", "minus-zero": "-0",
    "overflow": "0.1e309", "leading-zero": "007", "plus": "+1", "hexadecimal": "0x10",
}  # fmt: skip
_DEPTHS = (60, 900, 1100, 50_000)
_DEEP = {
    **{f"arrays-{n}": b"[" * n + b"]" * n for n in _DEPTHS},
    **{f"objects-{n}": b'{"a":' * n + b"1" + b"}" * n for n in _DEPTHS},
}
_BYTES: dict[str, bytes] = {
    **{name: text.encode() for name, text in _NUMBERS.items()},
    **_DEEP,
    "bare-byte": b'"\xff"',
    "half-character": b'"\xc3"',
    "overlong": b'"\xc0\xaf"',
    "raw-newline": b'"a\nb"',
    "raw-nul": b'"a\x00b"',
    "lone-escape": b'"\\ud800"',
    "broken-escape": b'"\\u12"',
    "unclosed": b'"',
    "nothing": b"",
    "long": b'"' + b"x" * 200_000 + b'"',
    "too-long": b'"' + b"x" * 1_100_000 + b'"',
}
_MARK = re.compile(rb'"@@([a-z0-9-]+)@@"')
_TWICE = "@@twice@@"


def marked(name: str) -> str:
    """The mark that `encode` puts bytes in the place of."""
    return f"@@{name}@@"


def _meanings() -> Iterator[tuple[str, Any]]:
    for name, raw in _BYTES.items():
        if name not in _DEEP:
            with suppress(ValueError):
                yield marked(name), json.loads(raw)


MEANINGS = dict(_meanings())
"""What a reader makes of the marks that are numbers or text."""

# ---- kinds ----------------------------------------------------------------------------------

Parent = Any
Apply = Callable[[Parent, Any, int], None]


def _replace(*values: Any) -> Apply:
    def apply(parent: Parent, key: Any, pick: int) -> None:
        parent[key] = values[pick % len(values)]

    return apply


def _remove(parent: Parent, key: Any, _: int) -> None:
    del parent[key]


def _wrap(parent: Parent, key: Any, pick: int) -> None:
    old = parent[key]
    parent[key] = ([old], {"value": old}, [old, old], [[old]], str(old)[:99])[pick % 5]


def _other_form(parent: Parent, key: Any, pick: int) -> None:
    number = parent[key]
    forms = (
        str(number),
        f"{number},5",
        -number,
        number * 1000,
        number / 1000,
        bool(number),
        [number],
    )
    parent[key] = forms[pick % len(forms)]


def _again(parent: Parent, key: Any, pick: int) -> None:
    parent.extend([parent[key]] * (1, 2, 250)[pick % 3])


def _move(parent: Parent, key: Any, pick: int) -> None:
    parent.insert(pick % len(parent), parent.pop(key))


def _twice(parent: Parent, key: Any, pick: int) -> None:
    parent[_TWICE + str(key)] = (None, "", 1, {}, [], parent[key])[pick % 6]


def _is(*kinds: type) -> Callable[[Place, Any], bool]:
    return lambda _, value: isinstance(value, kinds) and not isinstance(value, bool)


def _named(*names: str) -> Callable[[Place, Any], bool]:
    return lambda place, value: place[-1] in names and isinstance(value, str)


def _is_time(_: Place, value: Any) -> bool:
    return isinstance(value, str) and re.match(r"\d{4}-\d\d", value) is not None


def _in_list(place: Place, _: Any) -> bool:
    return isinstance(place[-1], int)


def _in_object(place: Place, _: Any) -> bool:
    return isinstance(place[-1], str)


class Kind(NamedTuple):
    """One way to be wrong: what it may be done to, and how it is done."""

    fits: Callable[[Place, Any], bool]
    apply: Apply


VALUES: tuple[Any, ...] = (None, "", [], {}, 0, 1, True, "x", -1.5, [None], [{}])
TIMES = (
    "0001-01-01", "9999-12-31T23:59:59Z", "1900-01-01", "2999-01-01T00:00:00+14:00",
    "2023-13-45", "2023-02-30", "2023-10-20T24:00:00Z", "2023-06-30T23:59:60Z", "0000-00-00",
    "-0044-03-15", "2023", "2023-10", "20231020", "2023-10-20T10:00:00",
    "2023-10-20T10:00:00.123456789012Z", "2023-10-20T10:00:00-99:99", "now", "1e9",
)  # fmt: skip
TEXTS = (
    "", " ", "\ud800", "\udfff\ud800x", "\x00", "\u202eabc", "\ufeff", "null", "0", "12", "true",
    "../../etc", "|", "$this", "\U0001f4a9" * 40, "a" * 3000,
    *map(marked, ("bare-byte", "half-character", "overlong", "raw-newline", "raw-nul",
                  "lone-escape", "broken-escape", "unclosed", "long", "too-long")),
)  # fmt: skip
TYPES = (
    "Patient", "Observation", "Encounter", "Condition", "Procedure", "MedicationRequest", "Bundle",
    "OperationOutcome", "QuestionnaireResponse", "Claim", "MedicationOrder", "Nonsense", "",
    "observation", "Observation ", "A" * 100,
)  # fmt: skip
REFERENCES = (
    "Patient/somebody-else", "", "#contained", "urn:uuid:00000000-0000-4000-8000-000000000001",
    "https://elsewhere.example/fhir/Patient/x", "Patient/", "/", "Patient/x/_history/1",
    "Group/1", "Patient?identifier=1",
)  # fmt: skip
IDS = ("", "x", "same", "None", "a" * 65, "ø", "../x", "1", marked("nothing"))
UNITS = (
    "mg",
    "g/L",
    "mmol/l",
    "%",
    "",
    "10*9/L",
    "/min",
    "Cel",
    "[degF]",
    "{x}",
    "kPa",
    "mm[Hg]",
    "1",
)

KINDS: Mapping[str, Kind] = {
    "removed": Kind(lambda *_: True, _remove),
    "other value": Kind(lambda *_: True, _replace(*VALUES)),
    "wrapped": Kind(lambda *_: True, _wrap),
    "number in another form": Kind(_is(int, float), _other_form),
    "number that is none": Kind(_is(int, float), _replace(*map(marked, _NUMBERS))),
    "text": Kind(_is(str), _replace(*TEXTS)),
    "time": Kind(_is_time, _replace(*TIMES)),
    "deep": Kind(lambda *_: True, _replace(*map(marked, _DEEP))),
    "repeated": Kind(_in_list, _again),
    "moved": Kind(_in_list, _move),
    "key twice": Kind(_in_object, _twice),
    "other type": Kind(_named("resourceType"), _replace(*TYPES)),
    "reference": Kind(_named("reference", "fullUrl"), _replace(*REFERENCES)),
    "id": Kind(_named("id"), _replace(*IDS)),
    "unit": Kind(_named("unit", "code", "system"), _replace(*UNITS)),
}  # fmt: skip


class Step(NamedTuple):
    """One change: to which place, of which kind, and which of the kind's variants."""

    place: Place
    kind: str
    pick: int


FRAMES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut": lambda body: body[: len(body) // 2],
    "byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "twice": lambda body: body + body,
    "UTF-16": lambda body: body.decode("utf-8", "replace").encode("utf-16"),
    "in an array": lambda body: b"[" + body + b"]",
    "nothing": lambda _: b"",
    "trailing comma": lambda body: body[:-1] + b",}",
}
"""What can be wrong with a body as a whole."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A real request to a service, and by kind the places that can be changed so."""

    name: str
    service: str
    text: str
    places: Mapping[str, tuple[Place, ...]] = field(repr=False)

    def __repr__(self) -> str:
        """Its name, which is what a failure is reported with."""
        return f"<{self.name}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """The same for hypothesis, which prints a dataclass field by field."""
        printer.text(repr(self))


def seed_of(name: str, service: str, request: Mapping[str, Any]) -> Seed:
    """A request made ready to be changed."""
    everywhere = [(place, value) for place, value in _walk(request, ()) if place]
    places = {
        kind: tuple(place for place, value in everywhere if how.fits(place, value))
        for kind, how in KINDS.items()
    }
    return Seed(name, service, json.dumps(request), {k: v for k, v in places.items() if v})


def _walk(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    yield place, value
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        yield from _walk(part, (*place, key))


class Mutant(NamedTuple):
    """A seed with what is changed in it; `frame` what is wrong with its body as a whole, if."""

    seed: Seed
    steps: tuple[Step, ...]
    escaped: bool = True
    frame: str | None = None


def mutants(seeds: tuple[Seed, ...]) -> st.SearchStrategy[Mutant]:
    """Seeds with one to four changes each; one in some thirty is also broken as a whole.

    Only numbers are drawn, and taken modulo what there is to choose from: what is drawn first does
    not decide what is drawn next, so that hypothesis shrinks well.
    """
    choice = st.tuples(st.integers(0, 63), st.integers(0, 2**20), st.integers(0, 31))

    def mutant(drawn: tuple[Seed, list[tuple[int, int, int]], bool, int]) -> Mutant:
        seed, choices, escaped, frame = drawn
        broken = sorted(FRAMES)[frame] if frame < len(FRAMES) else None
        return Mutant(seed, tuple(_step(seed, *found) for found in choices), escaped, broken)

    return st.tuples(
        st.sampled_from(seeds),
        st.lists(choice, min_size=1, max_size=MOST_STEPS),
        st.booleans(),
        st.integers(0, 30 * len(FRAMES)),
    ).map(mutant)


def _step(seed: Seed, kind: int, place: int, pick: int) -> Step:
    """A change that fits the seed."""
    kinds = sorted(seed.places)
    chosen = kinds[kind % len(kinds)]
    places = seed.places[chosen]
    return Step(places[place % len(places)], chosen, pick)


# ---- making it ------------------------------------------------------------------------------


def changed(mutant: Mutant) -> Any:
    """The request as values, changed; a step an earlier one took the place of does nothing."""
    request = json.loads(mutant.seed.text)
    for step in mutant.steps:
        how = KINDS[step.kind]
        parent = request
        for part in step.place[:-1]:
            parent = _part(parent, part)
        value = _part(parent, step.place[-1])
        if value is not None and how.fits(step.place, value):
            how.apply(parent, step.place[-1], step.pick)
    return request


def _part(parent: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return parent[part] if isinstance(parent, list) and part < len(parent) else None
    return parent.get(part) if isinstance(parent, dict) else None


def encode(request: Any, mutant: Mutant) -> bytes:
    """The body of a changed request."""
    text = json.dumps(request, ensure_ascii=mutant.escaped).replace(f'"{_TWICE}', '"')
    body = text.encode("utf-8", "surrogatepass")
    body = _MARK.sub(lambda found: _BYTES[found.group(1).decode()], body)
    return FRAMES[mutant.frame](body) if mutant.frame else body
