"""Contacts become stays: linking, admissions, and the stay a moment belongs to."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.clock import HOUR_S
from fhir_adapters.record import Contact
from fhir_adapters.stays import StayRule, index_stay, is_admission, link_stays, stay_facts

RULE = StayRule()
FAR = 1e9


def contact(start_h: float, end_h: float, class_code: str = "IMP", **said: bool | None) -> Contact:
    return Contact(
        start=start_h * HOUR_S,
        end=end_h * HOUR_S,
        class_code=class_code,
        acute=said.get("acute"),
        source=f"Encounter/{start_h:g}-{end_h:g}-{class_code}",
    )


def hours(contacts: list[Contact], as_of_h: float = 1000.0) -> list[tuple[float, float]]:
    stays = link_stays(contacts, RULE, as_of_h * HOUR_S)
    return [(stay.start / HOUR_S, stay.end / HOUR_S) for stay in stays]


@pytest.mark.parametrize(
    ("contacts", "stays"),
    [
        ([], []),
        ([contact(0, 24), contact(28, 48)], [(0, 48)]),
        ([contact(0, 24), contact(28.1, 48)], [(0, 24), (28.1, 48)]),
        ([contact(0, 100), contact(10, 20), contact(103, 110)], [(0, 110)]),
        ([contact(0, 24), contact(25, 26, "AMB"), contact(29, 48)], [(0, 24), (29, 48)]),
    ],
)
def test_stays(contacts: list[Contact], stays: list[tuple[float, float]]) -> None:
    """At most four hours between the furthest end so far and the next start; outpatients aside."""
    assert hours(contacts) == stays


def test_a_contact_that_begins_later_is_not_known() -> None:
    """At 30 hours, only the first has begun; at 10 it is still going on."""
    contacts = [contact(0, 24), contact(48, 60)]
    assert hours(contacts, as_of_h=30) == [(0, 24)]
    assert hours(contacts, as_of_h=10) == [(0, float("inf"))]


def test_the_rule_is_the_packages() -> None:
    """Another country, another gap."""
    loose = StayRule(link_gap_hours=24, min_hours=48)
    (stay,) = link_stays([contact(0, 24), contact(40, 60)], loose, FAR)
    assert is_admission(stay, loose, FAR)
    assert not is_admission(stay, StayRule(min_hours=61), FAR)


@pytest.mark.parametrize(
    ("first", "acute"),
    [
        (contact(0, 5, acute=True), True),
        (contact(0, 5, acute=False), False),
        (contact(0, 5), None),
        (contact(0, 5, "EMER"), True),
        (contact(0, 5, "EMER", acute=False), True),
    ],
)
def test_the_first_contact_says_how_acute_a_stay_is(first: Contact, acute: bool | None) -> None:
    """An emergency contact is acute whatever else it says; silence is silence."""
    (stay,) = link_stays([first, contact(6, 30, acute=not acute)], RULE, FAR)
    assert stay.acute is acute


def test_the_index_stay_is_the_newest_that_reaches_the_moment() -> None:
    """Within the hours allowed after its end."""
    stays = link_stays([contact(0, 24), contact(30, 40)], RULE, 45 * HOUR_S)
    found = index_stay(stays, 45 * HOUR_S, 24)
    assert found is not None
    assert found.start == 30 * HOUR_S
    assert index_stay(stays, 64 * HOUR_S, 24) is found
    assert index_stay(stays, 64.1 * HOUR_S, 24) is None


def test_earlier_admissions_and_single_contacts_are_facts_without_the_index_stay() -> None:
    """Two days in March, a visit of two hours, and the stay the question is about."""
    contacts = [contact(0, 48, acute=True), contact(100, 102, "EMER"), contact(200, 240)]
    stays = link_stays(contacts, RULE, 250 * HOUR_S)
    admissions, single = stay_facts(stays, stays[-1], RULE, 250 * HOUR_S)
    assert [(f.value, set(f.tags)) for f in admissions] == [(2.0, {"acute", "?for"})]
    assert [set(f.tags) for f in single] == [{"EMER", "?for"}]


CONTACTS = st.lists(
    st.builds(
        lambda start, length, code: contact(start, start + length, code),
        st.integers(0, 300),
        st.integers(0, 72),
        st.sampled_from(["IMP", "EMER", "AMB"]),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(CONTACTS, st.integers(0, 400))
def test_stays_lie_apart_and_hold_every_contact_once(contacts: list[Contact], as_of: int) -> None:
    """More than four hours between any two; nothing lost, nothing twice."""
    stays = link_stays(contacts, RULE, as_of * HOUR_S)
    for before, after in pairwise(stays):
        reach = max(c.end for c in before.contacts)
        assert after.start - reach > 4 * HOUR_S
    held = [c for stay in stays for c in stay.contacts]
    known = [c for c in contacts if c.start <= as_of * HOUR_S and c.class_code != "AMB"]
    assert sorted(held, key=str) == sorted(known, key=str)


@settings(deadline=None)
@given(st.permutations([contact(h, h + 10) for h in (0, 5, 13, 20, 40, 52, 70)]))
def test_the_order_of_contacts_does_not_matter(contacts: list[Contact]) -> None:
    """Sorted, reversed or shuffled."""
    assert hours(contacts) == [(0, 30), (40, 62), (70, 80)]
