"""Which hit rate holds for a version, and how card and page say it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import msgspec
import pytest

from cds_service.governance import (
    Decision,
    History,
    Validated,
    hit_rates_of,
    roster_of,
    version_of,
)
from cds_service.standing import said_hit_rate
from fhir_adapters.clock import COPENHAGEN
from models.package import Package
from models.prediction import HitRate
from models.registry import Registry

AT = datetime(2026, 7, 1, 8, tzinfo=UTC)
HEAD = "readmission"


def found(package: Package, **other: object) -> Validated:
    """94 of 410 in the first half of 2026, of the package as it is here."""
    made = Validated(
        *version_of(package)[:3],
        head=HEAD,
        threshold=0.2,
        ppv=94 / 410,
        low=0.1911,
        high=0.2724,
        flagged=410,
        events=94,
        first_index_time=datetime(2026, 1, 1, 8, tzinfo=UTC),
        last_index_time=datetime(2026, 6, 30, 8, tzinfo=UTC),
        synthetic=False,
        report_digest="0" * 64,
        who="B. Holm",
        at=AT,
    )
    return made._replace(**other)  # type: ignore[arg-type]


def flagged(package: Package, *validations: Validated, demo: bool = False) -> int | None:
    """Of how many cards the hit rate is that holds; None where it is unknown."""
    rates = hit_rates_of(package, History(validations=validations), demo=demo)
    return rates[HEAD].flagged if HEAD in rates else None


# ---- which holds ----------------------------------------------------------------------------


def test_without_a_local_validation_it_is_unknown(package: Package) -> None:
    assert flagged(package) is None


def test_the_newest_of_these_files_holds(package: Package) -> None:
    newer = found(package, flagged=500)
    assert flagged(package, found(package), newer) == 500


@pytest.mark.parametrize(
    "other",
    [{"checksum": "before"}, {"version": "0.9.0"}, {"threshold": 0.265}, {"head": "death"}],
)
def test_of_other_files_another_threshold_or_outcome_it_says_nothing(
    package: Package, other: dict[str, object]
) -> None:
    """Also not when it is newer than one that holds."""
    elsewhere = found(package, flagged=1000, **other)
    assert flagged(package, elsewhere) is None
    assert flagged(package, found(package), elsewhere) == 410


def test_after_the_files_changed_it_is_unknown_again(package: Package) -> None:
    changed = dataclasses.replace(package, checksum="after")
    assert flagged(changed, found(package)) is None


def test_one_of_invented_patients_counts_in_the_demo_profile_only(package: Package) -> None:
    """Also when the database it was recorded in is taken into production."""
    invented = found(package, synthetic=True)
    assert flagged(package, invented, demo=True) == 410
    assert flagged(package, invented) is None


def test_the_roster_carries_it_to_the_version_in_front_and_its_shadow(package: Package) -> None:
    """Each its own."""
    manifest = msgspec.structs.replace(package.manifest, version="2.0.0")
    second = dataclasses.replace(package, manifest=manifest, checksum="second")
    states = (("1.0.0", package.checksum, "live"), ("2.0.0", "second", "silent"))
    history = History(
        [Decision(package.id, *said, "who", "why", AT) for said in states],  # type: ignore[arg-type]
        validations=[found(package), found(second, flagged=77)],
    )
    packages = {"1": dataclasses.replace(package), "2": second}
    roster = roster_of(Registry(packages, {}), history, demo=True)
    duty = roster.duties[package.id]
    assert duty.shadow is not None
    assert (duty.hit_rates[HEAD].flagged, duty.shadow.hit_rates[HEAD].flagged) == (410, 77)


# ---- how it is said -------------------------------------------------------------------------


def rate(ppv: float, low: float, high: float, *, synthetic: bool = False) -> HitRate:
    return HitRate(
        ppv=ppv,
        low=low,
        high=high,
        flagged=410,
        from_="2026-01-01T08:00:00Z",
        to="2026-06-30T21:59:00Z",
        synthetic=synthetic,
    )


@pytest.mark.parametrize(
    ("known", "danish", "english"),
    [
        (
            rate(0.2293, 0.1911, 0.2724),
            (
                "Hvor ofte et sådant kort blev fulgt af hændelsen her: 23 % (19–28 %) "
                "af 410 kort, 01.01.2026–30.06.2026."
            ),
            (
                "How often such a card was followed by the event here: 23 % (19–28 %) "
                "of 410 cards, 2026-01-01 to 2026-06-30."
            ),
        ),
        (
            rate(0.0341, 0.0204, 0.0565, synthetic=True),
            (
                "Hvor ofte et sådant kort blev fulgt af hændelsen her: 3,4 % (2,0–5,7 %) "
                "af 410 kort, 01.01.2026–30.06.2026, på SYNTETISKE data."
            ),
            (
                "How often such a card was followed by the event here: 3.4 % (2.0–5.7 %) "
                "of 410 cards, 2026-01-01 to 2026-06-30, on SYNTHETIC data."
            ),
        ),
        (
            None,
            "Hvor ofte et sådant kort følges af hændelsen: ukendt her.",
            "How often such a card is followed by the event: unknown here.",
        ),
    ],
)
def test_share_interval_number_and_period_stand_together(
    known: HitRate | None, danish: str, english: str
) -> None:
    """The interval is rounded outwards; of rare events with a decimal."""
    assert said_hit_rate(known, COPENHAGEN, "da") == danish
    assert said_hit_rate(known, COPENHAGEN, "en") == english


def test_in_json_the_period_is_from_and_to() -> None:
    """As the schema of a prediction has it, there and back."""
    one = rate(0.2, 0.1, 0.3)
    told = msgspec.json.encode(one)
    assert list(msgspec.json.decode(told)) == [
        "ppv", "low", "high", "flagged", "from", "to", "synthetic",
    ]  # fmt: skip
    assert msgspec.json.decode(told, type=HitRate) == one
