"""How synthetic hospitals code things: which code systems, codes and units, and who uses which.

Five record systems, as found in the Danish and international material that the code table of
`fhir_adapters` names: NPU under its OID, NPU under its URL (dk-core), LOINC with American units,
several codings side by side, and MedCom or FUT style (units as text only, older SKS address).
Only constants and their look-up; `fhir_lines` puts them into resources.
"""

from functools import cache
from typing import Final, NamedTuple

import msgspec

LOINC: Final = "http://loinc.org"
SNOMED: Final = "http://snomed.info/sct"
NPU: Final = "urn:oid:1.2.208.176.2.1"
NPU_URL: Final = "http://npu-terminology.org"
MCS: Final = "urn:oid:1.2.208.184.100.8"
MCS_URL: Final = "http://medcomfhir.dk/ig/terminology/CodeSystem/medcom-observation-codes"
MDC: Final = "urn:iso:std:iso:11073:10101"
SKS: Final = "urn:oid:1.2.208.176.2.4"
SKS_DIAGNOSES: Final = "urn:oid:1.2.208.176.2.4.12"
ICD10: Final = "http://hl7.org/fhir/sid/icd-10"
ATC: Final = "http://www.whocc.no/atc"
UCUM: Final = "http://unitsofmeasure.org"
ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_PRIORITY: Final = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
DISPOSITION: Final = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
CLINICAL: Final = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFICATION: Final = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
CONDITION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/condition-category"
OBSERVATION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

NPU_OID_SYSTEM, NPU_URL_SYSTEM, AMERICAN_SYSTEM, MIXED_SYSTEM, MEDCOM_SYSTEM = range(5)
SYSTEM_SHARES: Final = (0.34, 0.22, 0.12, 0.18, 0.14)
"""Share of patients whose hospital uses each of the five record systems: design choice."""


@cache
def coded(*codings: tuple[str, str]) -> msgspec.Raw:
    """A CodeableConcept of the given (system, code) pairs, as JSON."""
    items = [{"system": system, "code": code} for system, code in codings]
    return msgspec.Raw(msgspec.json.encode({"coding": items}))


class Form(NamedTuple):
    """One way of recording a measurement: its codes, its unit, and the Danish value turned into it.

    `ucum` None means that the unit is text without a code, as MedCom sends it. The recorded value
    is `value * factor + offset`, rounded to `decimals`.
    """

    codings: tuple[tuple[str, str], ...]
    unit: str
    ucum: str | None
    decimals: int
    factor: float = 1.0
    offset: float = 0.0

    def quantity(self, value: float) -> dict[str, float | str]:
        """The FHIR Quantity of a value in the Danish unit."""
        number = round(value * self.factor + self.offset, self.decimals)
        recorded: dict[str, float | str] = {"value": number if self.decimals else int(number)}
        recorded["unit"] = self.unit
        if self.ucum is not None:
            recorded["system"] = UCUM
            recorded["code"] = self.ucum
        return recorded


def _form(
    *codings: tuple[str, str], unit: str, decimals: int, ucum: str | None = "", **by: float
) -> Form:
    """A form whose UCUM code is its unit unless another, or None for no code, is given."""
    return Form(codings, unit, unit if ucum == "" else ucum, decimals, **by)


# Factors from the Danish to the recorded unit, standard molar masses; legacy albumin and CRP as
# published with the DALY-CARE data (albumin umol/L x 0.0665 = g/L, CRP nmol/L x 0.105 = mg/L).
G_PER_DL_OF_MMOL_L_HB: Final = 1 / 0.6206
MG_PER_DL_OF_UMOL_L_CREATININE: Final = 1 / 88.42

FORMS: Final[dict[str, tuple[Form, Form, Form, Form, Form]]] = {
    "haemoglobin": (
        _form((NPU, "NPU02319"), unit="mmol/L", decimals=1),
        _form((LOINC, "59260-0"), unit="mmol/L", decimals=1),
        _form((LOINC, "718-7"), unit="g/dL", decimals=1, factor=G_PER_DL_OF_MMOL_L_HB),
        _form((NPU, "NPU02319"), (LOINC, "59260-0"), unit="mmol/L", decimals=1),
        _form((NPU, "NPU28309"), unit="g/L", decimals=0, factor=10 * G_PER_DL_OF_MMOL_L_HB),
    ),
    "sodium": (
        _form((NPU, "NPU03429"), unit="mmol/L", decimals=0),
        _form((NPU_URL, "NPU03429"), unit="mmol/L", decimals=0),
        _form((LOINC, "2951-2"), unit="mmol/L", decimals=0),
        _form((NPU, "NPU03429"), (LOINC, "2951-2"), unit="mmol/L", decimals=0),
        _form((NPU, "NPU03429"), unit="mmol/l", ucum=None, decimals=0),
    ),
    "potassium": (
        _form((NPU, "NPU03230"), unit="mmol/L", decimals=1),
        _form((NPU_URL, "NPU03230"), unit="mmol/L", decimals=1),
        _form((LOINC, "2823-3"), unit="mmol/L", decimals=1),
        _form((LOINC, "6298-4"), unit="mmol/L", decimals=1),
        _form((NPU, "NPU03230"), unit="mmol/l", ucum=None, decimals=1),
    ),
    "creatinine": (
        _form((NPU, "NPU18016"), unit="µmol/L", ucum="umol/L", decimals=0),
        _form((LOINC, "14682-9"), unit="µmol/L", ucum="umol/L", decimals=0),
        _form((LOINC, "2160-0"), unit="mg/dL", decimals=2, factor=MG_PER_DL_OF_UMOL_L_CREATININE),
        _form((NPU, "NPU18016"), (LOINC, "14682-9"), unit="umol/L", decimals=0),
        _form((NPU, "NPU04998"), unit="umol/L", decimals=0),
    ),
    "albumin": (
        _form((NPU, "NPU19673"), unit="g/L", decimals=0),
        _form((NPU_URL, "NPU19673"), unit="g/L", decimals=0),
        _form((LOINC, "1751-7"), unit="g/dL", decimals=1, factor=0.1),
        _form((NPU, "NPU19673"), (LOINC, "1751-7"), unit="g/L", decimals=0),
        _form((NPU, "NPU01132"), unit="µmol/L", ucum="umol/L", decimals=0, factor=1 / 0.0665),
    ),
    "crp": (
        _form((NPU, "NPU19748"), unit="mg/L", decimals=0),
        _form((LOINC, "1988-5"), unit="mg/L", decimals=0),
        _form((LOINC, "1988-5"), unit="mg/dL", decimals=1, factor=0.1),
        _form((NPU, "NPU19748"), (LOINC, "1988-5"), unit="mg/L", decimals=0),
        _form((NPU, "NPU01423"), unit="nmol/L", decimals=0, factor=1 / 0.105),
    ),
    "leukocytes": (
        _form((NPU, "NPU02593"), unit="10*9/L", decimals=1),
        _form((LOINC, "6690-2"), unit="10*9/L", decimals=1),
        _form((LOINC, "6690-2"), unit="10*3/uL", decimals=1),
        _form((LOINC, "26464-8"), unit="10*9/L", decimals=1),
        _form((NPU, "NPU02593"), unit="10^9/L", ucum=None, decimals=1),
    ),
    "pulse": (
        _form((NPU, "NPU21692"), unit="/min", decimals=0),
        _form((NPU_URL, "NPU21692"), unit="/min", decimals=0),
        _form((LOINC, "8867-4"), unit="/min", decimals=0),
        _form((LOINC, "8867-4"), (SNOMED, "364075005"), unit="/min", decimals=0),
        _form((NPU, "NPU21692"), unit="1/min", ucum=None, decimals=0),
    ),
    "spo2": (
        _form((NPU, "NPU03011"), unit="1", decimals=2, factor=0.01),
        _form((NPU_URL, "NPU27280"), unit="1", decimals=2, factor=0.01),
        _form((LOINC, "59408-5"), unit="%", decimals=0),
        _form((LOINC, "2708-6"), (MDC, "150456"), unit="%", decimals=0),
        _form((NPU, "NPU03011"), unit="%", decimals=0),
    ),
    "temperature": (
        _form((NPU, "NPU08676"), unit="Cel", decimals=1),
        _form((NPU_URL, "NPU08676"), unit="°C", ucum="Cel", decimals=1),
        _form((LOINC, "8310-5"), unit="[degF]", decimals=1, factor=1.8, offset=32.0),
        _form((LOINC, "8310-5"), unit="Cel", decimals=1),
        _form((NPU, "NPU08676"), unit="°C", ucum=None, decimals=1),
    ),
    "respiration": (
        _form((MCS, "MCS88122"), unit="/min", decimals=0),
        _form((LOINC, "9279-1"), (SNOMED, "86290005"), unit="/min", decimals=0),
        _form((LOINC, "9279-1"), unit="/min", decimals=0),
        _form((SNOMED, "86290005"), unit="/min", decimals=0),
        _form((MCS_URL, "MCS88122"), unit="1/min", ucum=None, decimals=0),
    ),
    "oxygen": (
        _form((LOINC, "3151-8"), unit="L/min", decimals=0),
        _form((LOINC, "3151-8"), unit="L/min", decimals=0),
        _form((LOINC, "3151-8"), unit="L/min", decimals=0),
        _form((LOINC, "3151-8"), unit="l/min", ucum="L/min", decimals=0),
        _form((LOINC, "3151-8"), unit="L/min", ucum=None, decimals=0),
    ),
    "early_warning": (
        _form((MCS, "MCS88125"), unit="{score}", decimals=0),
        _form((MCS_URL, "MCS88125"), unit="1", decimals=0),
        _form((MCS, "MCS88125"), unit="{score}", decimals=0),
        _form((MCS_URL, "MCS88125"), unit="{score}", decimals=0),
        _form((MCS, "MCS88125"), unit="1", decimals=0),
    ),
}
"""Forms of each measurement by record system, in the order of the five systems."""

# Blood pressure: systolic form, diastolic form, and the panel's codes, or None where the two are
# sent as separate Observations.
_DNK = ((NPU, "DNK05472"), (NPU, "DNK05473"))
_LOINC_BP = ((LOINC, "8480-6"), (LOINC, "8462-4"))
_SNOMED_BP = ((SNOMED, "271649006"), (SNOMED, "271650006"))
PRESSURE: Final[tuple[tuple[Form, Form, tuple[tuple[str, str], ...] | None], ...]] = tuple(
    (
        _form(systolic, unit="mm[Hg]" if ucum else "mmHg", ucum=ucum, decimals=0),
        _form(diastolic, unit="mm[Hg]" if ucum else "mmHg", ucum=ucum, decimals=0),
        panel,
    )
    for (systolic, diastolic), ucum, panel in (
        (_DNK, "mm[Hg]", None),
        (_LOINC_BP, "mm[Hg]", ((LOINC, "85354-9"),)),
        (_LOINC_BP, "mm[Hg]", ((LOINC, "85354-9"),)),
        (_SNOMED_BP, "mm[Hg]", ((SNOMED, "75367002"), (LOINC, "85354-9"))),
        (_DNK, None, None),
    )
)

YES_NO: Final = {
    "living_alone": ("105529008",),
    "home_care": ("60689008",),
    "nursing_home": ("160734000", "394923006"),
}
"""SNOMED CT codes of the yes or no questions about daily life."""
FRAILTY_SCALE: Final = (SNOMED, "763264000")

# Diagnoses by ICD-10 code without dot. Chronic illness: the codes one patient's illness may have.
ILLNESS: Final[dict[str, tuple[str, ...]]] = {
    "heart_failure": ("I509", "I501", "I420", "I110"),
    "copd": ("J449", "J448", "J439"),
    "diabetes": ("E119", "E112", "E109"),
    "ckd": ("N183", "N184", "N189"),
    "cancer": ("C349", "C187", "C509", "C619", "C679", "C900"),
    "metastatic_cancer": ("C787", "C795", "C780"),
    "dementia": ("F009", "G309", "F019", "F039"),
    "liver_disease": ("K703", "K746", "K729"),
    "psychiatric": ("F329", "F339", "F209", "F411"),
    "alcohol_disorder": ("F102", "F101"),
    "atrial_fibrillation": ("I489", "I480"),
}
SNOMED_OF: Final = {
    "I509": "84114007", "I501": "42343007", "J449": "13645005", "J439": "87433001",
    "E119": "44054006", "E109": "46635009", "N189": "709044004", "C187": "363406005",
    "C787": "94260004", "G309": "26929004", "F039": "52448006", "K746": "235856003",
    "F329": "35489007", "F102": "7200002", "I489": "49436004", "J189": "233604007",
}  # fmt: skip
DANISH_EXTENSION: Final = {"J448": "DJ448A", "I501": "DI501B", "S721": "DS721+TUL1"}
"""Danish five- and six-character codes and an add-on code, as hospitals write them."""

ACUTE_REASONS: Final = ("J189", "N390", "A419", "I639", "S721", "N179", "R060", "R074", "A099",
                        "K922", "L031", "R509", "K590", "J209", "R298")  # fmt: skip
PLANNED_REASONS: Final = ("K802", "M161", "K409", "M171", "H259", "I839", "N201", "K439")
OUTPATIENT_REASONS: Final = ("H269", "M545", "H919", "Z098", "E785", "L409")
DELIVERY, PSYCHOSIS, PALLIATIVE = "O809", "F200", "Z515"

OPERATIONS: Final = (((SKS, "KJAH00"),), ((SNOMED, "52734007"),), ((SNOMED, "80146002"),),
                     ((SNOMED, "38102005"),))  # fmt: skip
BOWEL_OPERATIONS: Final = (((SKS, "KJFB43"),), ((SKS, "KJFB50"),), ((SKS, "KJGB00"),),
                           ((SNOMED, "43075005"),))  # fmt: skip
INTENSIVE_CARE: Final = (((SKS, "NABB"),), ((SKS, "NABE"),), ((SNOMED, "305351004"),))

# Medicines by ATC code. Aspirin and clopidogrel (B01AC) are among the others: no anticoagulants.
HIGH_RISK_DRUGS: Final[dict[str, tuple[str, ...]]] = {
    "opioid": ("N02AX02", "N02AA01", "N02AA05"),
    "anticoagulant": ("B01AF02", "B01AF01", "B01AA03", "B01AE07"),
    "insulin": ("A10AE04", "A10AB05", "A10AD05"),
    "diuretic": ("C03CA01", "C03CA01", "C03AB01", "C03DA01"),
    "digoxin": ("C01AA05",),
}
OTHER_DRUGS: Final = (
    "N02BE01", "A02BC02", "C10AA05", "C09CA01", "C07AB02", "C08CA01", "A06AD65", "A10BA02",
    "R03AC02", "R03BB04", "R03AK07", "N06AB04", "N06AX11", "H03AA01", "A11CC05", "A12AX01",
    "B01AC06", "B01AC04", "G04CA02", "J01CA08", "H02AB06", "N05CF01", "N03AX16", "B03AA07",
    "B03BA03", "A03FA01", "C09AA02", "C10AA01", "N05BA04",
)  # fmt: skip
"""A prime number of medicines, so that any step walks through all before one comes twice."""


@cache
def diagnosis(icd: str, system: int) -> msgspec.Raw:
    """One diagnosis as the record system codes it: SKS, ICD-10, SNOMED CT or several."""
    dotted = (ICD10, icd if len(icd) <= 3 else f"{icd[:3]}.{icd[3:]}")
    danish = DANISH_EXTENSION.get(icd, "D" + icd)
    snomed = SNOMED_OF.get(icd)
    if system == AMERICAN_SYSTEM:
        return coded((SNOMED, snomed)) if snomed else coded(dotted)
    if system == MIXED_SYSTEM:
        extra = ((SNOMED, snomed),) if snomed else ()
        return coded(*extra, (SKS_DIAGNOSES, danish), dotted)
    if system == MEDCOM_SYSTEM:
        return coded((SKS, danish))
    return coded((SKS_DIAGNOSES, danish))


@cache
def medicine(atc: str, system: int) -> msgspec.Raw:
    """One medicine as the record system codes it: ATC, or SKS (M and ATC), or both."""
    if system == MEDCOM_SYSTEM:
        return coded((SKS, "M" + atc))
    if system == MIXED_SYSTEM:
        return coded((SKS, "M" + atc), (ATC, atc))
    return coded((ATC, atc))
