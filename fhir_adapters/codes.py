"""Which concept a code means: canonical code systems, the code table, and the concepts themselves.

The data lie in `codes.csv` (one row per code, with its source) and `concepts.toml` (unit, plausible
limits, labels); what is in them, what was left out and why: docs/codes.md. Look-up is by system and
code, never by display. Units are converted in `units.py`; which codings a resource has, and whether
it counts at all, is `facts.py`, the main caller.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

ConceptKind = Literal["observation", "condition", "procedure", "medication", "answer"]
"""`answer`: said in a questionnaire, whose link ids a package names; it has no codes."""

# Canonical code systems. The Danish aliases: hl7dk/dk-core 3.8.0 aliases.fsh, FUT infrastructure
# and MedCom terminology implementation guides, read 2026-11.
LOINC = "http://loinc.org"
SNOMED_CT = "http://snomed.info/sct"
ICD_10 = "http://hl7.org/fhir/sid/icd-10"
ATC = "http://www.whocc.no/atc"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
MDC = "urn:iso:std:iso:11073:10101"  # IEEE 11073, decimal codes
SKS = "urn:oid:1.2.208.176.2.4"  # Danish hospital classification, all hierarchies
NPU = "urn:oid:1.2.208.176.2.1"  # laboratory and home measurements
MEDCOM = "urn:oid:1.2.208.184.100.8"  # MedCom measurement codes (MCS)
KIP = "https://kip.rkkp.dk/fhir/CodeSystem/"  # Danish clinical quality registries

# Other ways to write the same system, without scheme, version and trailing slash. OIDs:
# hl7.org/fhir/R4/terminologies-systems.html.
_ALIASES: Mapping[str, str] = {
    "loinc.org": LOINC,
    "urn:oid:2.16.840.1.113883.6.1": LOINC,
    "snomed.info/sct": SNOMED_CT,
    "urn:oid:2.16.840.1.113883.6.96": SNOMED_CT,
    "hl7.org/fhir/sid/icd-10": ICD_10,
    "hl7.org/fhir/sid/icd-10-cm": ICD_10,
    "hl7.dk/fhir/core/CodeSystem/icd10-danish-extensions": ICD_10,
    "urn:oid:2.16.840.1.113883.6.3": ICD_10,
    "urn:oid:2.16.840.1.113883.6.90": ICD_10,
    "whocc.no/atc": ATC,
    "urn:oid:2.16.840.1.113883.6.73": ATC,
    "nlm.nih.gov/research/umls/rxnorm": RXNORM,
    "urn:oid:2.16.840.1.113883.6.88": RXNORM,
    "npu-terminology.org": NPU,
    "urn:oid:1.2.208.176.2.1": NPU,
    "medcomfhir.dk/ig/terminology/CodeSystem/medcom-observation-codes": MEDCOM,
    "urn:oid:1.2.208.184.100.8": MEDCOM,
    "urn:oid:1.2.208.176.2.4": SKS,
    "urn:oid:1.2.208.176.2.4.12": SKS,
    "kip.rkkp.dk/fhir/CodeSystem/SKS": SKS,
}
_HIERARCHICAL = frozenset({ICD_10, SKS, ATC})  # codes here mean all codes that begin with them
_UPPER_CASE = frozenset({NPU, MEDCOM})
_SYSTEMS = frozenset({LOINC, SNOMED_CT, ICD_10, ATC, RXNORM, MDC, SKS, NPU, MEDCOM})

_SKS_DIAGNOSIS = re.compile(r"D[A-Z]\d\d")
_SKS_DRUG = re.compile(r"M[A-Z]\d\d")
_SCHEME = re.compile(r"^https?://(www\.)?", re.IGNORECASE)
_STEM = re.compile(r"[^\W_]*")

_FOLDER = Path(__file__).parent
_COLUMNS = ["concept", "system", "code", "answer", "own_unit", "source"]
_CONCEPT_KEYS = frozenset(
    {"kind", "unit", "other_units", "low", "high", "limits", "label_da", "label_en"}
    | {"detection_limit"}
)

# A hostile sender must not fill the memory with look-ups of codes that do not exist. Real records
# hold some hundreds of different codings; engineering choices, 2026-11-21.
MEMO_LIMIT = 8192
MAX_SYSTEM_CHARS = 200
MAX_CODE_CHARS = 64


@dataclass(frozen=True, slots=True)
class Concept:
    """A thing features can ask for, whatever it was coded in.

    `unit` is the UCUM code its values are held in, None where there is no number. `other_units` are
    the further units in use for it. Values outside `plausible_low`..`plausible_high` (in `unit`,
    ends included; None: no limit) are slips of entry or need a look at the patient. A result said
    to be below at most `detection_limit` (in `unit`) is read as that number: so the method reports
    the healthy. None: what is below a number has no value.
    """

    name: str
    kind: ConceptKind
    unit: str | None
    plausible_low: float | None
    plausible_high: float | None
    label_da: str
    label_en: str
    other_units: tuple[str, ...] = ()
    detection_limit: float | None = None


class CodedConcept(NamedTuple):
    """What one code means: the concept, and the unit the code itself implies, if any."""

    concept: str
    own_unit: str | None


def normalise_system(uri: str) -> str:
    """The canonical URI of a code system; unknown systems come back merely cleaned.

    Drops a `|version`, a trailing slash and SNOMED CT's edition, mends `urn:oid.1.2` (seen in
    Danish profiles) and folds http and https.
    """
    cleaned = uri.partition("|")[0].strip().rstrip("/")
    if cleaned.startswith("urn:oid."):
        cleaned = "urn:oid:" + cleaned.removeprefix("urn:oid.")
    key = _SCHEME.sub("", cleaned)
    if key.startswith("snomed.info/sct/"):
        return SNOMED_CT
    return _ALIASES.get(key, cleaned)


def normalise_coding(system: str | None, code: str) -> tuple[str, str]:
    """The canonical (system, code) of a coding; the system is "" where none was given.

    SKS diagnoses (`D`, letter, two digits: DJ44.1, DJ448A, DS721+TUL1) become ICD-10 codes without
    the D, SKS drugs (MC03C) ATC codes. Dots go, and what follows the first other sign than a letter
    or digit: add-on codes, dagger and asterisk. Other SKS hierarchies stay what they are.
    """
    known = normalise_system(system) if system else ""
    if known not in _HIERARCHICAL:
        return known, code.strip().upper() if known in _UPPER_CASE else code.strip()
    found = _STEM.match(code.strip().upper().replace(".", ""))
    stem = found.group() if found else ""
    if known != ATC and _SKS_DIAGNOSIS.match(stem):
        return ICD_10, stem[1:]
    if known == SKS and _SKS_DRUG.match(stem):
        return ATC, stem[1:]
    return known, stem


class CodeTable:
    """Codes to concepts. Look-ups are remembered, within bounds; safe to share between requests."""

    def __init__(
        self, concepts: Mapping[str, Concept], rows: Iterable[Mapping[str, str | None]]
    ) -> None:
        """Checks every row and raises ValueError that names the first one that cannot be right."""
        self._concepts = dict(concepts)
        self._exact: dict[tuple[str, str], tuple[CodedConcept, ...]] = {}
        self._prefixes: dict[tuple[str, str], tuple[CodedConcept, ...]] = {}
        self._answers: dict[tuple[str, str, str], float] = {}
        self._memo: dict[tuple[str, str], tuple[CodedConcept, ...]] = {}
        for number, row in enumerate(rows, start=2):
            try:
                self._add(row)
            except ValueError as problem:
                raise ValueError(f"codes.csv row {number}: {problem}") from None

    def concept(self, name: str) -> Concept:
        """The concept of that name; KeyError if there is none."""
        return self._concepts[name]

    def names(self) -> frozenset[str]:
        """The names of all concepts."""
        return frozenset(self._concepts)

    def concepts_of(self, system: str | None, code: str | None) -> tuple[CodedConcept, ...]:
        """What a coding means; () for an unknown code, and for a code without a system."""
        if not system or not code:
            return ()
        found = self._memo.get((system, code))
        return self._look_up(system, code) if found is None else found

    def answer_of(self, concept: str, system: str | None, code: str | None) -> float | None:
        """What a coded answer is worth, or None: NYHA III is 3, "never smoked" is 0."""
        if not system or not code or len(system) > MAX_SYSTEM_CHARS or len(code) > MAX_CODE_CHARS:
            return None
        return self._answers.get((concept, *normalise_coding(system, code)))

    def _look_up(self, system: str, code: str) -> tuple[CodedConcept, ...]:
        if len(system) > MAX_SYSTEM_CHARS or len(code) > MAX_CODE_CHARS:
            return ()
        found = self._meaning(*normalise_coding(system, code))
        if len(self._memo) >= MEMO_LIMIT:
            self._memo.clear()
        self._memo[(system, code)] = found
        return found

    def _meaning(self, system: str, code: str) -> tuple[CodedConcept, ...]:
        found = list(self._exact.get((system, code), ()))
        if system in _HIERARCHICAL:
            for length in range(len(code), 0, -1):
                found += self._prefixes.get((system, code[:length]), ())
        return tuple({coded.concept: coded for coded in reversed(found)}.values())

    def _add(self, row: Mapping[str, str | None]) -> None:
        if any(row.get(column) is None for column in _COLUMNS) or len(row) != len(_COLUMNS):
            raise ValueError(f"columns must be {', '.join(_COLUMNS)}")
        concept, system, code, answer, own_unit, source = (row[c] or "" for c in _COLUMNS)
        if concept not in self._concepts:
            raise ValueError(f"unknown concept {concept!r}")
        if not source:
            raise ValueError(f"{concept} {code}: no source")
        stem = code.removesuffix("*")
        if system not in _SYSTEMS and not system.startswith(KIP):
            raise ValueError(f"{concept} {code}: unknown system {system!r}")
        if not stem or normalise_coding(system, stem) != (system, stem):
            raise ValueError(f"{concept} {code}: system or code is not in canonical form")
        if answer:
            self._add_answer((concept, system, code), answer)
        elif stem != code:
            self._add_prefix((system, stem), CodedConcept(concept, own_unit or None))
        else:
            _append(self._exact, (system, code), CodedConcept(concept, own_unit or None))

    def _add_prefix(self, key: tuple[str, str], coded: CodedConcept) -> None:
        if key[0] not in _HIERARCHICAL:
            raise ValueError(f"{coded.concept} {key[1]}*: {key[0]} has no prefixes")
        _append(self._prefixes, key, coded)

    def _add_answer(self, key: tuple[str, str, str], answer: str) -> None:
        if key in self._answers:
            raise ValueError(f"{key[0]} {key[2]}: the answer stands twice")
        self._answers[key] = float(answer)


def _append(
    table: dict[tuple[str, str], tuple[CodedConcept, ...]],
    key: tuple[str, str],
    coded: CodedConcept,
) -> None:
    before = table.get(key, ())
    if any(known.concept == coded.concept for known in before):
        raise ValueError(f"{coded.concept} {key[1]}: stands twice")
    table[key] = (*before, coded)


def read_concept(name: str, entry: Mapping[str, Any]) -> Concept:
    """One table of concepts.toml as a Concept; ValueError that names it if it cannot be right."""
    unknown = set(entry) - _CONCEPT_KEYS
    if unknown:
        raise ValueError(f"concepts.toml [{name}]: unknown key {min(unknown)}")
    if entry.get("kind") not in get_args(ConceptKind):
        raise ValueError(f"concepts.toml [{name}]: kind must be one of {get_args(ConceptKind)}")
    if not entry.get("label_da") or not entry.get("label_en"):
        raise ValueError(f"concepts.toml [{name}]: label_da and label_en are needed")
    low, high = entry.get("low"), entry.get("high")
    if (low is None) != (high is None) or (low is not None and not low < high):
        raise ValueError(f"concepts.toml [{name}]: low must be below high, both or neither given")
    if low is not None and not (entry.get("limits") and entry.get("unit")):
        raise ValueError(f"concepts.toml [{name}]: limits without unit or without their origin")
    detection = entry.get("detection_limit")
    return Concept(
        name=name,
        kind=entry["kind"],
        unit=entry.get("unit"),
        plausible_low=None if low is None else float(low),
        plausible_high=None if high is None else float(high),
        label_da=entry["label_da"],
        label_en=entry["label_en"],
        other_units=tuple(entry.get("other_units", ())),
        detection_limit=None if detection is None else float(detection),
    )


def read_code_table(concepts_file: Path, codes_file: Path) -> CodeTable:
    """A code table from its two files; ValueError that names row or entry if one is bad."""
    entries = tomllib.loads(concepts_file.read_text("utf-8"))
    concepts = {name: read_concept(name, entry) for name, entry in entries.items()}
    with codes_file.open(encoding="utf-8", newline="") as lines:
        return CodeTable(concepts, csv.DictReader(lines))


@cache
def code_table() -> CodeTable:
    """The packaged code table, read once."""
    return read_code_table(_FOLDER / "concepts.toml", _FOLDER / "codes.csv")
