"""Every score gives the answers worked out by hand from its published tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.charlson import charlson_index
from models.scores.copd import Decaf, Emrcd, Pearl, decaf, pearl
from models.scores.heart_failure import Maggic, maggic
from models.scores.news2 import VitalSigns, news2
from models.scores.readmission import (
    Hospital,
    Lace,
    SimplifiedHospital,
    hospital,
    lace,
    simplified_hospital,
)
from models.scores.surgery import CrPossum, Sort, cr_possum, sort

Vector = dict[str, Any]

ROOT = Path(__file__).parents[4]
VECTORS: dict[str, list[Vector]] = json.loads(
    (ROOT / "tests" / "data" / "scores" / "vectors.json").read_text(encoding="utf-8")
)


def each(family: str) -> pytest.MarkDecorator:
    """A test for every vector of a family."""
    return pytest.mark.parametrize("vector", VECTORS[family], ids=lambda v: str(v["inp"]))


@each("news2")
def test_news2(vector: Vector) -> None:
    rate, spo2, oxygen, systolic, pulse, acvpu, temperature, scale = vector["inp"]
    signs = VitalSigns(
        rate, spo2, oxygen, systolic, pulse, acvpu == "A", temperature, scale_2=scale == 2
    )
    names = {"rr": "resp_rate", "o2": "on_oxygen", "acvpu": "alert", "temp": "temperature"}
    found = news2(signs)
    assert found.points == vector["total"]
    assert found.band == vector["risk"]
    assert found.parts == {names.get(k, k): points for k, points in vector["parts"].items()}


@each("lace")
def test_lace(vector: Vector) -> None:
    found = lace(Lace(*vector["inp"]))
    assert found.points == vector["total"]
    assert list(found.parts.values()) == vector["parts"]


@pytest.mark.parametrize(
    ("inputs", "percent"),
    [
        ((0, False, 0, 0), 2.0),
        ((1, True, 0, 0), 4.2),
        ((3, True, 2, 1), 10.3),
        ((5, True, 5, 2), 23.0),
        ((14, True, 4, 4), 43.7),
        ((2, False, 3, 0), 5.0),
    ],
)
def test_the_expected_risk_of_lace(inputs: tuple[int, bool, int, int], percent: float) -> None:
    risk = lace(Lace(*inputs)).risk
    assert risk is not None
    assert 100 * risk == pytest.approx(percent, abs=0.06)


@each("hospital")
def test_hospital(vector: Vector) -> None:
    inputs = Hospital(*vector["inp"])
    assert hospital(inputs, "2016").points == vector["v2016"]
    assert hospital(inputs, "2013").points == vector["v2013"]


@pytest.mark.parametrize(
    ("inputs", "from_5_days", "from_8_days"),
    [
        ((13.5, False, 140, False, 0, 2), 0, 0),
        ((11.9, False, 134, True, 1, 5), 5, 3),
        ((12.0, False, 135, True, 2, 4), 3, 3),
        ((9.8, True, 131, True, 6, 9), 12, 12),
        ((11.0, False, 138, True, 3, 6), 6, 4),
        ((14.0, True, 140, False, 5, 1), 4, 4),
    ],
)
def test_simplified_hospital(inputs: Any, from_5_days: int, from_8_days: int) -> None:
    patient = SimplifiedHospital(*inputs)
    assert simplified_hospital(patient, "5-days").points == from_5_days
    assert simplified_hospital(patient, "8-days").points == from_8_days


@pytest.mark.parametrize(
    ("points", "band", "risk"),
    [(0, "low", 0.058), (4, "low", 0.058), (5, "intermediate", 0.119), (7, "high", 0.228)],
)
def test_hospital_bands(points: int, band: str, risk: float) -> None:
    inputs = {
        0: Hospital(13, False, 140, False, False, 0, 1),
        4: Hospital(11, False, 134, True, True, 0, 1),
        5: Hospital(13, False, 140, False, False, 6, 1),
        7: Hospital(13, True, 140, False, False, 6, 1),
    }[points]
    found = hospital(inputs, "2016")
    assert (found.points, found.band, found.risk) == (points, band, risk)
    assert hospital(inputs, "2013").risk is None


@each("crpossum")
def test_cr_possum(vector: Vector) -> None:
    found = cr_possum(CrPossum(*vector["inp"]))
    assert found.parts == {"physiological": vector["ps"], "operative": vector["os"]}
    assert found.points == vector["ps"] + vector["os"]
    assert found.risk == pytest.approx(vector["p"], abs=5e-6)


@each("sort")
def test_sort(vector: Vector) -> None:
    found = sort(Sort(*vector["inp"]))
    assert found.points is None
    assert found.risk == pytest.approx(vector["p"], abs=5e-6)


@each("maggic")
def test_maggic(vector: Vector) -> None:
    inputs = Maggic(*vector["inp"])
    assert maggic(inputs, 1).points == maggic(inputs, 3).points == vector["total"]
    assert maggic(inputs, 1).risk == vector["r1"]
    assert maggic(inputs, 3).risk == vector["r3"]


def test_maggic_sums_above_the_table_have_its_last_risk() -> None:
    worst = Maggic(19, 80, 109, 14, 250, 4, *[True] * 7)
    assert maggic(worst, 1).points == 57
    assert maggic(worst, 1).risk == 0.842
    assert maggic(worst, 3).risk == 0.985


@pytest.mark.parametrize(
    ("emrcd", "eosinophils", "consolidation", "ph", "af", "points", "band"),
    [
        ("4", 0.10, False, 7.40, False, 0, "low"),
        ("5a", 0.04, True, 7.35, False, 3, "high"),
        ("5b", 0.02, True, 7.25, True, 6, "high"),
        ("5a", 0.05, False, 7.30, True, 2, "intermediate"),
        ("3", 0.049, False, 7.299, False, 2, "intermediate"),
    ],
)
def test_decaf(
    *,
    emrcd: Emrcd,
    eosinophils: float,
    consolidation: bool,
    ph: float,
    af: bool,
    points: int,
    band: str,
) -> None:
    found = decaf(Decaf(emrcd, eosinophils, consolidation, ph, af))
    assert (found.points, found.band) == (points, band)


def test_decaf_without_a_blood_gas_goes_by_the_saturation_on_air() -> None:
    """Echevarria 2016: from 93 % on air acidaemia is taken not to be there; below, unknown."""
    patient = Decaf("1", 0.1, False, None, False)
    assert decaf(patient._replace(spo2_on_air=93)).points == 0
    assert decaf(patient._replace(spo2_on_air=92)).missing == ("ph",)
    assert decaf(patient).missing == ("ph",)
    assert decaf(patient._replace(ph=7.2, spo2_on_air=99)).points == 1


@pytest.mark.parametrize(
    ("inputs", "points", "band"),
    [
        ((0, "3", 70, False, False), 0, "low"),
        ((2, "4", 80, False, False), 5, "high"),
        ((3, "5b", 85, True, True), 9, "high"),
        ((1, "5a", 79, False, True), 3, "intermediate"),
        ((2, "3", 66, True, False), 4, "intermediate"),
    ],
)
def test_pearl(inputs: Any, points: int, band: str) -> None:
    found = pearl(Pearl(*inputs))
    assert (found.points, found.band) == (points, band)


@pytest.mark.parametrize("vector", VECTORS["charlson"], ids=lambda v: " ".join(v["codes"]))
def test_charlson(vector: Vector) -> None:
    assert charlson_index(vector["codes"], "original") == vector["original"]
    assert charlson_index(vector["codes"], "quan2011") == vector["quan2011"]
