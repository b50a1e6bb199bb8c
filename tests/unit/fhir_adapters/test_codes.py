"""A code means the same concept however its system is written, and a bad table is not loaded."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fhir_adapters.codes as codes_module
from fhir_adapters.codes import (
    ATC,
    ICD_10,
    LOINC,
    MEDCOM,
    NPU,
    RXNORM,
    SKS,
    SNOMED_CT,
    CodeTable,
    Concept,
    code_table,
    normalise_coding,
    normalise_system,
    read_code_table,
    read_concept,
)

CODES_FILE = Path(codes_module.__file__).with_name("codes.csv")
PULSE = Concept("pulse", "observation", "/min", 25.0, 220.0, "Puls", "Pulse")


def concepts(system: str | None, code: str | None) -> set[str]:
    return {coded.concept for coded in code_table().concepts_of(system, code)}


def clinical(system: str, code: str) -> set[str]:
    """The concepts a code means, the Charlson groups apart."""
    return {name for name in concepts(system, code) if not name.startswith("charlson_")}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://loinc.org", LOINC),
        ("https://loinc.org/", LOINC),
        ("http://loinc.org|2.77", LOINC),
        ("urn:oid:2.16.840.1.113883.6.1", LOINC),
        ("http://snomed.info/sct", SNOMED_CT),
        ("http://snomed.info/sct/554471000005108", SNOMED_CT),
        ("http://snomed.info/sct/900000000000207008/version/20240401", SNOMED_CT),
        ("http://snomed.info/sct|http://snomed.info/sct/554471000005108", SNOMED_CT),
        ("urn:oid:2.16.840.1.113883.6.96", SNOMED_CT),
        ("http://hl7.org/fhir/sid/icd-10", ICD_10),
        ("http://hl7.org/fhir/sid/icd-10-cm", ICD_10),
        ("http://hl7.dk/fhir/core/CodeSystem/icd10-danish-extensions", ICD_10),
        ("urn:oid:2.16.840.1.113883.6.90", ICD_10),
        ("http://www.whocc.no/atc", ATC),
        ("https://whocc.no/atc", ATC),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", RXNORM),
        ("http://npu-terminology.org", NPU),
        ("urn:oid:1.2.208.176.2.1", NPU),
        ("urn:oid.1.2.208.176.2.1", NPU),
        ("http://medcomfhir.dk/ig/terminology/CodeSystem/medcom-observation-codes", MEDCOM),
        ("urn:oid:1.2.208.184.100.8", MEDCOM),
        ("urn:oid:1.2.208.176.2.4", SKS),
        ("urn:oid:1.2.208.176.2.4.12", SKS),
        ("https://kip.rkkp.dk/fhir/CodeSystem/SKS", SKS),
        ("https://example.org/local/", "https://example.org/local"),
    ],
)
def test_every_way_to_write_a_code_system_means_the_same(written: str, meant: str) -> None:
    assert normalise_system(written) == meant


@pytest.mark.parametrize(
    ("system", "code", "meant"),
    [
        # SKS diagnoses: D, letter, two digits; the D goes
        ("urn:oid:1.2.208.176.2.4.12", "DJ441", (ICD_10, "J441")),
        ("urn:oid:1.2.208.176.2.4", "dj44.1", (ICD_10, "J441")),
        ("urn:oid:1.2.208.176.2.4.12", "DJ448A", (ICD_10, "J448A")),
        ("urn:oid:1.2.208.176.2.4.12", "DS721+TUL1", (ICD_10, "S721")),
        ("urn:oid:1.2.208.176.2.4.12", "DC189M", (ICD_10, "C189M")),
        ("urn:oid:1.2.208.176.2.4", "DI501:ZZ", (ICD_10, "I501")),
        ("http://hl7.dk/fhir/core/CodeSystem/icd10-danish-extensions", "DJ441", (ICD_10, "J441")),
        # anaemia: a bare D50 is ICD-10 already, DD50 is its Danish form
        ("http://hl7.org/fhir/sid/icd-10", "D50", (ICD_10, "D50")),
        ("http://hl7.org/fhir/sid/icd-10-cm", "D50.9", (ICD_10, "D509")),
        ("http://hl7.org/fhir/sid/icd-10", "DD50", (ICD_10, "D50")),
        ("urn:oid:1.2.208.176.2.4.12", "DD500", (ICD_10, "D500")),
        ("http://hl7.org/fhir/sid/icd-10", "G30.0†", (ICD_10, "G300")),
        # other hierarchies of SKS are not diagnoses
        ("urn:oid:1.2.208.176.2.4", "DUT12", (SKS, "DUT12")),
        ("urn:oid:1.2.208.176.2.4", "DVRA01", (SKS, "DVRA01")),
        ("urn:oid:1.2.208.176.2.4", "E11", (SKS, "E11")),
        ("urn:oid:1.2.208.176.2.4", "J441", (SKS, "J441")),
        ("urn:oid:1.2.208.176.2.4", "KJFB30", (SKS, "KJFB30")),
        # M and an ATC code is a drug
        ("urn:oid:1.2.208.176.2.4", "MC03CA01", (ATC, "C03CA01")),
        ("http://www.whocc.no/atc", "c03ca01", (ATC, "C03CA01")),
        ("http://npu-terminology.org", " npu02319 ", (NPU, "NPU02319")),
        ("http://loinc.org", "718-7", (LOINC, "718-7")),
        (None, "718-7", ("", "718-7")),
        ("", "DJ441", ("", "DJ441")),
    ],
)
def test_a_coding_has_one_canonical_form(
    system: str | None, code: str, meant: tuple[str, str]
) -> None:
    assert normalise_coding(system, code) == meant


@given(system=st.sampled_from([LOINC, SNOMED_CT, ICD_10, ATC, NPU, SKS]), code=st.text(max_size=20))
def test_the_canonical_form_of_a_diagnosis_is_stable_but_for_a_second_danish_d(
    system: str, code: str
) -> None:
    once = normalise_coding(system, code)
    again = normalise_coding(*once)
    assert again == once or (once[0] == ICD_10 and again == (ICD_10, once[1][1:]))


# Every coded observation of hl7dk/dk-core 3.8.0's examples (CC0): codings and what they mean.
DK_CORE = [
    ("urn:iso:std:iso:11073:10101", "150020", "bp_panel"),
    ("urn:iso:std:iso:11073:10101", "150021", "sbp"),
    ("urn:iso:std:iso:11073:10101", "150022", "dbp"),
    ("urn:iso:std:iso:11073:10101", "149546", "pulse"),
    ("urn:iso:std:iso:11073:10101", "150456", "spo2"),
    ("urn:iso:std:iso:11073:10101", "188736", "weight"),
    ("http://loinc.org", "85354-9", "bp_panel"),
    ("http://snomed.info/sct", "75367002", "bp_panel"),
    ("urn:oid:1.2.208.176.2.4", "ZZ3170", "bp_panel"),
    ("urn:oid:1.2.208.176.2.4", "ZZ3160", "bp_panel"),
    ("http://loinc.org", "8480-6", "sbp"),
    ("http://snomed.info/sct", "407554009", "sbp"),
    ("http://loinc.org", "8462-4", "dbp"),
    ("http://snomed.info/sct", "407555005", "dbp"),
    ("http://loinc.org", "8867-4", "pulse"),
    ("http://snomed.info/sct", "364075005", "pulse"),
    ("urn:oid:1.2.208.176.2.4", "ZZ3140", "pulse"),
    ("http://npu-terminology.org", "NPU21692", "pulse"),
    ("http://loinc.org", "9279-1", "resp_rate"),
    ("http://snomed.info/sct", "86290005", "resp_rate"),
    ("http://loinc.org", "8310-5", "temperature"),
    ("http://snomed.info/sct", "276885007", "temperature"),
    ("urn:oid:1.2.208.176.2.4", "ZZ0253", "temperature"),
    ("http://loinc.org", "2708-6", "spo2"),
    ("http://npu-terminology.org", "NPU27280", "spo2"),
    ("http://loinc.org", "29463-7", "weight"),
    ("http://npu-terminology.org", "NPU03804", "weight"),
    ("http://snomed.info/sct", "6942003", "consciousness"),
    ("http://loinc.org", "80288-4", "consciousness"),
    (
        "http://medcomfhir.dk/ig/terminology/CodeSystem/medcom-observation-codes",
        "MCS88125",
        "tobs",
    ),
    ("http://npu-terminology.org", "NPU01685", "inr"),
    ("http://npu-terminology.org", "NPU03230", "potassium"),
    ("http://npu-terminology.org", "NPU03429", "sodium"),
]


@pytest.mark.parametrize(("system", "code", "concept"), DK_CORE)
def test_the_danish_core_examples_are_understood(system: str, code: str, concept: str) -> None:
    assert concepts(system, code) == {concept}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("67996", "battery level"),
        ("150023", "mean pressure"),
        ("67975", "clock"),
        ("8410608", "device status"),
    ],
)
def test_what_a_device_says_of_itself_is_no_measurement_of_the_patient(
    code: str, what: str
) -> None:
    assert concepts("urn:iso:std:iso:11073:10101", code) == set(), what


@pytest.mark.parametrize(
    ("system", "code", "meant"),
    [
        ("urn:oid:1.2.208.176.2.4.12", "DE11", {"diabetes"}),
        ("urn:oid:1.2.208.176.2.4.12", "DC43", {"cancer"}),
        ("urn:oid:1.2.208.176.2.4.12", "DZ340", {"pregnancy"}),
        ("urn:oid:1.2.208.176.2.4.12", "DS721+TUL1", set()),
        ("urn:oid:1.2.208.176.2.4.12", "DC443", set()),  # skin cancer other than melanoma
        ("urn:oid:1.2.208.176.2.4.12", "DC187", {"cancer", "colon_cancer"}),
        ("urn:oid:1.2.208.176.2.4.12", "DC209M", {"cancer", "rectal_cancer", "metastatic_cancer"}),
        ("urn:oid:1.2.208.176.2.4.12", "DC209X", {"cancer", "rectal_cancer"}),
        ("urn:oid:1.2.208.176.2.4.12", "DF329", {"depression", "psychiatric"}),
        ("urn:oid:1.2.208.176.2.4.12", "DF001", {"dementia"}),
        ("urn:oid:1.2.208.176.2.4.12", "DF102", {"alcohol_disorder"}),
        ("urn:oid:1.2.208.176.2.4.12", "DF172", set()),  # tobacco is not a substance disorder here
        ("urn:oid:1.2.208.176.2.4.12", "DZ515", {"palliative"}),
        ("urn:oid:1.2.208.176.2.4.12", "DO800", {"delivery", "pregnancy"}),
        ("http://hl7.org/fhir/sid/icd-10-cm", "I50.9", {"heart_failure"}),
        ("urn:oid:1.2.208.176.2.4", "KJFB30A", {"colorectal_resection", "abdominal_surgery"}),
        ("urn:oid:1.2.208.176.2.4", "KJFB00", {"abdominal_surgery"}),  # small bowel
        ("urn:oid:1.2.208.176.2.4", "NABE", {"icu"}),
        ("urn:oid:1.2.208.176.2.4", "BGXA5", {"oxygen_therapy"}),
        ("urn:oid:1.2.208.176.2.4", "MC03CA01", {"loop_diuretic", "diuretic"}),
        ("http://www.whocc.no/atc", "B01AC06", set()),  # aspirin is no anticoagulant
        ("http://www.whocc.no/atc", "B01AF01", {"anticoagulant"}),
        ("http://www.whocc.no/atc", "R03BA05", set()),  # an inhaled steroid is no bronchodilator
        ("http://www.whocc.no/atc", "R03BB04", {"inhaled_bronchodilator"}),
    ],
)
def test_danish_diagnoses_operations_and_drugs_mean_what_a_clinician_means(
    system: str, code: str, meant: set[str]
) -> None:
    assert clinical(system, code) == meant


@pytest.mark.parametrize(
    ("system", "code", "concept"),
    [
        (SNOMED_CT, "88805009", "heart_failure"),
        (SNOMED_CT, "185086009", "copd"),
        (SNOMED_CT, "87433001", "copd"),
        (SNOMED_CT, "44054006", "diabetes"),
        (SNOMED_CT, "363406005", "colon_cancer"),
        (SNOMED_CT, "94260004", "metastatic_cancer"),
        (SNOMED_CT, "431855005", "ckd"),
        (SNOMED_CT, "26929004", "dementia"),
        (SNOMED_CT, "49436004", "af"),
        (SNOMED_CT, "7200002", "alcohol_disorder"),
        (SNOMED_CT, "385763009", "palliative"),
        (SNOMED_CT, "72892002", "pregnancy"),
        (SNOMED_CT, "265764009", "dialysis"),
        (SNOMED_CT, "43075005", "colorectal_resection"),
        (SNOMED_CT, "449868002", "smoking"),
        (RXNORM, "855332", "anticoagulant"),
        (RXNORM, "1049221", "opioid"),
        (RXNORM, "106892", "insulin"),
        (RXNORM, "315971", "loop_diuretic"),
        (RXNORM, "197604", "digoxin"),
        (LOINC, "718-7", "haemoglobin"),
        (LOINC, "2947-0", "sodium"),
        (LOINC, "38483-4", "creatinine"),
        (LOINC, "6690-2", "leukocytes"),
        (LOINC, "55284-4", "bp_panel"),
        (LOINC, "33914-3", "egfr"),
    ],
)
def test_codes_of_the_synthea_records_are_understood(system: str, code: str, concept: str) -> None:
    assert concept in concepts(system, code)


def test_a_suspicion_or_a_benign_tumour_is_not_a_cancer() -> None:
    """Suspected lung cancer, carcinoma in situ and neoplasm of prostate in Synthea."""
    for code in ("162573006", "92691004", "126906006"):
        assert concepts(SNOMED_CT, code) == set()


def test_codes_tell_the_unit_they_imply() -> None:
    own = {
        (system, code): code_table().concepts_of(system, code)[0].own_unit
        for system, code in [
            (LOINC, "718-7"),
            (NPU, "NPU02319"),
            (LOINC, "6299-2"),
            (NPU, "NPU03794"),
        ]
    }
    assert list(own.values()) == ["g/dL", "mmol/L", "mg{urea_N}/dL", "m"]


@pytest.mark.parametrize(
    ("system", "code"),
    [(None, "718-7"), (LOINC, None), ("", "718-7"), (LOINC, ""), ("https://local", "718-7")],
)
def test_a_code_without_its_system_is_not_believed(system: str | None, code: str | None) -> None:
    assert code_table().concepts_of(system, code) == ()


@pytest.mark.parametrize(
    ("concept", "system", "code", "worth"),
    [
        ("nyha", SNOMED_CT, "420913000", 3.0),
        ("nyha", "http://loinc.org", "LA28407-7", 4.0),
        ("nyha", "https://kip.rkkp.dk/fhir/CodeSystem/NYHACS", "NYHAII", 2.0),
        ("asa_class", SNOMED_CT, "413496000", 2.0),
        ("who_performance", LOINC, "LA9624-3", 2.0),
        ("smoking", "http://snomed.info/sct/554471000005108", "449868002", 1.0),
        ("smoking", SNOMED_CT, "266919005", 0.0),
        ("consciousness", SNOMED_CT, "248234008", 0.0),
        ("consciousness", SNOMED_CT, "450847001", 1.0),
        ("smoking", SNOMED_CT, "420913000", None),
        ("nyha", None, "420913000", None),
        ("nyha", SNOMED_CT, "9" * 1000, None),
    ],
)
def test_a_coded_answer_is_worth_a_number_for_its_concept_only(
    concept: str, system: str | None, code: str, worth: float | None
) -> None:
    assert code_table().answer_of(concept, system, code) == worth


def test_never_smoked_is_an_answer_and_not_a_sign_of_smoking() -> None:
    assert concepts(SNOMED_CT, "266919005") == set()


def test_look_ups_of_codes_that_do_not_exist_do_not_fill_the_memory() -> None:
    table = CodeTable({"pulse": PULSE}, [])
    tracemalloc.start()
    try:
        for number in range(15_000):
            table.concepts_of(LOINC, f"{number:064d}")
            table.concepts_of(LOINC, "x" * 10_000 + str(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4_000_000


@given(st.text(), st.text())
def test_no_coding_can_break_the_look_up(system: str, code: str) -> None:
    assert isinstance(code_table().concepts_of(system, code), tuple)


def test_every_code_has_a_source_and_every_concept_a_code_and_labels() -> None:
    with CODES_FILE.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert all(row["source"] for row in rows)
    answers = {name for name in code_table().names() if code_table().concept(name).kind == "answer"}
    assert {row["concept"] for row in rows} == code_table().names() - answers
    for name in code_table().names():
        concept = code_table().concept(name)
        assert concept.label_da
        assert concept.label_en
        assert (concept.unit is None) or concept.kind == "observation"


def row(**changes: str | None) -> dict[str, str | None]:
    good: dict[str, str | None] = {
        "concept": "pulse",
        "system": LOINC,
        "code": "8867-4",
        "answer": "",
        "own_unit": "/min",
        "source": "somewhere",
    }
    return {**good, **changes}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row(concept="puls"), "unknown concept 'puls'"),
        (row(source=""), "no source"),
        (row(system="http://npu-terminology.org"), "unknown system"),
        (row(system="https://loinc.org"), "unknown system"),
        (row(system=ICD_10, code="I48.0"), "canonical"),
        (row(system=ICD_10, code="DI48*"), "canonical"),
        (row(code=""), "canonical"),
        (row(code="8867*"), "has no prefixes"),
        (row(answer="much"), "could not convert"),
        (row(source=None), "columns must be"),
        ({"concept": "pulse"}, "columns must be"),
        (row(extra="x"), "columns must be"),
    ],
)
def test_a_bad_row_is_refused_and_named(bad: dict[str, str | None], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        CodeTable({"pulse": PULSE}, [row(code="8889-8"), bad])
    assert "row 3" in str(refusal.value)


def test_a_code_or_an_answer_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="row 3: pulse 8867-4: stands twice"):
        CodeTable({"pulse": PULSE}, [row(), row()])
    with pytest.raises(ValueError, match="the answer stands twice"):
        CodeTable({"pulse": PULSE}, [row(answer="1"), row(answer="2")])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"kind": "thing", "label_da": "x", "label_en": "x"}, "kind must be"),
        ({"kind": "condition", "label_en": "x"}, "label_da"),
        (
            {"kind": "condition", "label_da": "x", "label_en": "x", "colour": 1},
            "unknown key colour",
        ),
        ({"kind": "observation", "label_da": "x", "label_en": "x", "low": 1}, "both or neither"),
        (
            {"kind": "observation", "label_da": "x", "label_en": "x", "low": 2, "high": 1},
            "low must be below high",
        ),
        (
            {"kind": "observation", "label_da": "x", "label_en": "x", "low": 1, "high": 2},
            "without unit",
        ),
    ],
)
def test_a_bad_concept_is_refused_and_named(entry: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        read_concept("pulse", entry)
    assert "[pulse]" in str(refusal.value)


def test_a_table_can_be_read_from_files_of_ones_own(tmp_path: Path) -> None:
    concepts_file, codes_file = tmp_path / "concepts.toml", tmp_path / "codes.csv"
    concepts_file.write_text('[p]\nkind = "condition"\nlabel_da = "p"\nlabel_en = "p"\n', "utf-8")
    codes_file.write_text(
        f"concept,system,code,answer,own_unit,source\np,{ICD_10},J44*,,,here\n", "utf-8"
    )
    table = read_code_table(concepts_file, codes_file)
    assert [coded.concept for coded in table.concepts_of("urn:oid:1.2.208.176.2.4", "DJ441")] == [
        "p"
    ]


def test_plausible_limits_are_those_of_the_specifications() -> None:
    """The filter against slips of entry: value in the concept's unit."""
    expected = {
        "sbp": (50, 260),
        "dbp": (20, 160),
        "pulse": (25, 220),
        "spo2": (50, 100),
        "resp_rate": (4, 60),
        "temperature": (30, 43),
        "weight": (25, 300),
        "height": (120, 220),
        "bmi": (12, 70),
        "haemoglobin": (2.5, 13),
        "sodium": (100, 175),
        "potassium": (1.5, 9),
        "creatinine": (15, 1800),
        "urea": (0.5, 70),
        "crp": (0.3, 600),
        "albumin": (8, 60),
        "leukocytes": (0.1, 200),
        "lvef": (5, 85),
        "fev1_pct": (10, 140),
    }
    found = {name: code_table().concept(name) for name in expected}
    assert {n: (c.plausible_low, c.plausible_high) for n, c in found.items()} == expected
