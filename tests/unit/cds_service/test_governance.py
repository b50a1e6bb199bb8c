"""Where versions stand, what may be decided of them, and which one answers: by rule, on plain data.

The names of versions are numbers; each test says what was decided, oldest first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.errors import BadRequest
from cds_service.governance import (
    IN_FRONT,
    NEXT,
    Decision,
    History,
    Record,
    Roster,
    Stand,
    Version,
    decide,
    retired_since,
    roster_of,
    stands_of,
)
from models.package import Package
from models.prediction import ModelRef, State
from models.registry import Registry

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
STATES = sorted(get_args(State))
ONE, TWO, THREE = (Version("m", number, f"files-{number}") for number in ("1", "2", "3"))
Said = tuple[Version, State]


def history(*said: Said, recorded: Sequence[Version] = ()) -> History:
    """Decisions an hour apart, oldest first, and complete records of some versions."""
    decisions = [
        Decision(*version[:3], state, "who", "why", START + timedelta(hours=hour))
        for hour, (version, state) in enumerate(said)
    ]
    records = [
        Record(*v[:3], "purpose", "ce-marked", "deployer", "owner", "who", START) for v in recorded
    ]
    return History(decisions, records)


def states(*versions: Version, after: History, demo: bool = False) -> list[State]:
    """The state of each version, by rule."""
    return [stand.state for stand in stands_of(versions, after, demo=demo)]


# ---- where a version stands -----------------------------------------------------------------


def test_a_version_nobody_decided_about_is_a_candidate() -> None:
    bundled = ONE._replace(bundled=True)
    assert states(ONE, bundled, after=history()) == ["candidate", "candidate"]


def test_in_the_demo_profile_a_bundled_package_starts_live() -> None:
    """Only a bundled one, and only while nobody put another version in front."""
    bundled = ONE._replace(bundled=True)
    assert states(bundled, TWO, after=history(), demo=True) == ["live", "candidate"]
    assert states(bundled, TWO, after=history((TWO, "live")), demo=True) == ["candidate", "live"]
    assert states(bundled, after=history((ONE, "paused")), demo=True) == ["paused"]
    assert states(bundled, after=history((ONE, "retired")), demo=True) == ["retired"]


def test_the_newest_decision_counts() -> None:
    """And says since when."""
    after = history((ONE, "silent"), (ONE, "paused"), recorded=[ONE])
    (stand,) = stands_of([ONE], after, demo=False)
    assert (stand.state, stand.since) == ("paused", START + timedelta(hours=1))


@pytest.mark.parametrize("state", ["silent", "live", "paused"])
def test_a_version_whose_files_changed_is_a_candidate_again_and_that_is_a_fault(
    state: State,
) -> None:
    """A decision is about files, not about a number."""
    changed = ONE._replace(checksum="other files")
    (stand,) = stands_of([changed], history((ONE, state), recorded=[ONE]), demo=False)
    assert stand.state == "candidate"
    assert (
        stand.fault == f"m@1 has other files than when it became {state}: it is a candidate again"
    )


def test_live_in_the_demo_profile_is_not_live_outside_without_a_record() -> None:
    """The same database under another profile serves nothing that was never on record."""
    (stand,) = stands_of([ONE], history((ONE, "live")), demo=False)
    assert stand.state == "candidate"
    assert "no record" in str(stand.fault)
    assert states(ONE, after=history((ONE, "live"), recorded=[ONE])) == ["live"]
    assert states(ONE, after=history((ONE, "live")), demo=True) == ["live"]


OTHER = ONE._replace(checksum="other files")
"""Version 1 with other files under the same number."""


def test_retired_files_stay_retired_whatever_is_decided_of_others_under_their_number() -> None:
    """Put back, they are retired as before, and that is final."""
    after = history((ONE, "live"), (ONE, "retired"), (OTHER, "silent"), recorded=[ONE])
    (stand,) = stands_of([ONE], after, demo=False)
    assert (stand.state, stand.since) == ("retired", START + timedelta(hours=1))
    with pytest.raises(BadRequest, match="that is final"):
        decide([stand], ONE, "silent", demo=False)


def test_a_record_is_of_files_not_of_a_number() -> None:
    """What was put on record of the files before does not let others under their number go live."""
    after = history((ONE, "live"), (OTHER, "silent"), recorded=[ONE])
    (stand,) = stands_of([OTHER], after, demo=False)
    assert stand.record is None
    with pytest.raises(BadRequest, match="varsel models record m@1"):
        decide([stand], OTHER, "live", demo=False)


def test_in_the_demo_a_bundled_version_is_not_live_while_one_that_is_not_here_is() -> None:
    """Another process may have it; nobody decided that the bundled one comes back."""
    bundled = ONE._replace(bundled=True)
    assert states(bundled, after=history((TWO, "live")), demo=True) == ["candidate"]


# ---- what may be decided --------------------------------------------------------------------


def may(stands: Sequence[Stand], state: State, *, demo: bool = False) -> bool:
    try:
        decide(stands, ONE, state, demo=demo)
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize("now", STATES)
def test_only_the_steps_of_the_manual_are_allowed(now: State) -> None:
    """candidate to silent to live; live, silent and paused among them; retired is final."""
    said: list[Said] = [] if now == "candidate" else [(ONE, now)]
    stands = stands_of([ONE], history(*said, recorded=[ONE]), demo=False)
    assert {state for state in STATES if may(stands, state)} == set(NEXT[now])
    in_demo = {state for state in STATES if may(stands, state, demo=True)}
    assert in_demo == set(NEXT[now]) | ({"live"} if now == "candidate" else set())


def test_live_is_refused_outside_the_demo_without_a_record() -> None:
    """All four parts are named, and how to put them on record."""
    stands = stands_of([ONE], history((ONE, "silent")), demo=False)
    with pytest.raises(BadRequest) as refused:
        decide(stands, ONE, "live", demo=False)
    for part in ("intended purpose", "regulatory route", "AI Act role", "clinical owner"):
        assert part in str(refused.value)
    assert "varsel models record m@1" in str(refused.value)
    assert decide(stands, ONE, "live", demo=True) == [(ONE, "live")]


@pytest.mark.parametrize("front", IN_FRONT)
def test_a_second_version_in_front_is_refused_and_the_way_out_named(front: State) -> None:
    """Retire the other, or replace it in the same decision: then it goes on silent."""
    after = history((ONE, "silent"), (TWO, "silent"), (TWO, front), recorded=[ONE, TWO])
    stands = stands_of([ONE, TWO], after, demo=False)
    with pytest.raises(BadRequest, match=rf"m@2 is {front}.*retire it first.*--replaces 2"):
        decide(stands, ONE, "live", demo=False)
    replaced = decide(stands, ONE, "live", demo=False, replaces="2")
    assert replaced == [(TWO, "silent"), (ONE, "live")]


def test_a_second_silent_version_is_refused() -> None:
    stands = stands_of([ONE, TWO], history((TWO, "silent")), demo=False)
    with pytest.raises(BadRequest, match=r"m@2 is silent.*retire it first"):
        decide(stands, ONE, "silent", demo=False)


def test_a_silent_version_beside_a_live_one_is_allowed() -> None:
    stands = stands_of([ONE, TWO], history((TWO, "live"), recorded=[TWO]), demo=False)
    assert decide(stands, ONE, "silent", demo=False) == [(ONE, "silent")]


@pytest.mark.parametrize("held", ["live", "paused", "silent"])
def test_a_version_whose_files_changed_keeps_its_place(held: State) -> None:
    """Its files may be put back; so it is withdrawn first, or there would be two."""
    after = history((ONE, held), (TWO, "silent"), recorded=[ONE, TWO])
    wanted: State = "silent" if held == "silent" else "live"
    start = stands_of([OTHER, TWO if wanted == "live" else THREE], after, demo=False)
    with pytest.raises(BadRequest, match=rf"m@1 was {held} .*varsel models withdraw m@1"):
        decide(start, start[1].version, wanted, demo=False)


def test_of_two_in_front_one_can_be_paused() -> None:
    """What stops a model is not refused because of another."""
    after = history((ONE, "live"), (TWO, "live"), recorded=[ONE, TWO])
    stands = stands_of([ONE, TWO], after, demo=False)
    assert decide(stands, ONE, "paused", demo=False) == [(ONE, "paused")]


def test_a_replaced_version_does_not_push_a_third_out_of_silence() -> None:
    """One silent version at most: the third has to be retired first."""
    stands = stands_of([ONE, TWO, THREE], history((TWO, "live"), (THREE, "silent")), demo=True)
    with pytest.raises(BadRequest, match=r"m@3 is silent.*retire it first"):
        decide(stands, ONE, "live", demo=True, replaces="2")


@pytest.mark.parametrize(("state", "replaces"), [("live", "3"), ("live", "1"), ("paused", "2")])
def test_only_a_version_in_front_can_be_replaced_by_one_going_live(
    state: State, replaces: str
) -> None:
    after = history((ONE, "silent"), (TWO, "live"), recorded=[ONE, TWO])
    stands = stands_of([ONE, TWO, THREE], after, demo=False)
    with pytest.raises(BadRequest) as refused:
        decide(stands, ONE, state, demo=False, replaces=replaces)
    assert refused.value.field == "--replaces"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ONE, TWO, THREE]),
            st.sampled_from(STATES),
            st.sampled_from([None, "1", "2", "3"]),
        ),
        max_size=25,
    ),
    st.booleans(),
)
def test_whatever_is_tried_one_version_is_in_front_and_one_is_silent(
    tried: list[tuple[Version, State, str | None]], demo: bool
) -> None:
    """At most one live or paused, at most one silent; what is retired stays so."""
    versions = [ONE._replace(bundled=True), TWO, THREE]
    after = history(recorded=[ONE, TWO])
    retired: set[str] = set()
    for about, state, replaces in tried:
        stands = stands_of(versions, after, demo=demo)
        version = next(v for v in versions if v.version == about.version)
        try:
            made = decide(stands, version, state, demo=demo, replaces=replaces)
        except BadRequest:
            continue
        at = START + timedelta(hours=len(after.decisions))
        new = [Decision(*v[:3], what, "who", "why", at) for v, what in made]
        after = dataclasses.replace(after, decisions=[*after.decisions, *new])
        stood = {s.version.version: s.state for s in stands_of(versions, after, demo=demo)}
        assert sum(s in IN_FRONT for s in stood.values()) <= 1
        assert sum(s == "silent" for s in stood.values()) <= 1
        assert all(stood[number] == "retired" for number in retired)
        retired |= {number for number, s in stood.items() if s == "retired"}


# ---- who answers ----------------------------------------------------------------------------


def numbered(package: Package, number: str) -> Package:
    """The package as if it were another version, in the site's own folder."""
    return dataclasses.replace(
        package,
        manifest=msgspec.structs.replace(package.manifest, version=number),
        checksum=f"files-{number}",
        folder=Path("site") / package.id / number,
    )


def roster(package: Package, *said: tuple[str, State]) -> Roster:
    """The roster of a process that loaded versions 1 and 2, after some decisions."""
    packages = {number: numbered(package, number) for number in "12"}
    known = {number: Version(package.id, number, f"files-{number}") for number in "129"}
    after = history(*((known[number], state) for number, state in said), recorded=[*known.values()])
    return roster_of(Registry(packages, {}), after, demo=False)


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        ([], None),
        ([("1", "live")], ("1", "live", None)),
        ([("1", "live"), ("2", "silent")], ("1", "live", "2")),
        ([("1", "paused"), ("2", "silent")], ("1", "paused", "2")),
        ([("1", "silent")], ("1", "silent", None)),
        ([("1", "retired")], ("1", "retired", None)),
        ([("1", "retired"), ("2", "retired")], ("2", "retired", None)),
        ([("2", "retired"), ("1", "retired")], ("1", "retired", None)),
        ([("1", "live"), ("2", "live")], ("2", "live", None)),
        ([("1", "retired"), ("2", "silent")], ("2", "silent", None)),
    ],
)
def test_the_version_in_front_answers_else_the_silent_one_else_the_last_retired(
    package: Package, said: list[tuple[str, State]], answers: tuple[str, State, str | None] | None
) -> None:
    """With the silent one beside it as its shadow."""
    duty = roster(package, *said).duties.get(package.id)
    if answers is None:
        assert duty is None
        return
    assert duty is not None
    shadow = duty.shadow.package.manifest.version if duty.shadow else None
    assert (duty.package.manifest.version, duty.standing.state, shadow) == answers


def test_what_the_site_recorded_goes_with_the_answer(package: Package) -> None:
    """State, since when, route, role and owner; not who decided or why."""
    standing = roster(package, ("1", "live")).duties[package.id].standing
    assert msgspec.to_builtins(standing) == {
        "state": "live",
        "since": "2026-11-22T08:00:00Z",
        "regulatory_route": "ce-marked",
        "ai_act_role": "deployer",
        "clinical_owner": "owner",
    }


def test_two_versions_in_front_are_a_fault(package: Package) -> None:
    """However it came to be: the newest answers, and readiness says it."""
    found = roster(package, ("1", "live"), ("2", "paused"))
    both = f"{package.id}@1 is live and {package.id}@2 is paused"
    assert found.faults == [f"{both}: one version of a model can be"]


def test_a_silent_version_that_the_process_has_not_loaded_is_a_warning(package: Package) -> None:
    """Nobody is shown less for it: the process goes on serving."""
    found = roster(package, ("1", "live"), ("9", "silent"))
    assert found.faults == []
    assert found.warnings == [f"{package.id}@9 is silent, but this process has not loaded it"]


@pytest.mark.parametrize("state", ["live", "paused"])
def test_a_version_in_service_that_the_process_has_not_loaded_is_a_fault(
    package: Package, state: State
) -> None:
    """It was put here after the start, or taken away: readiness says so."""
    found = roster(package, ("1", "live"), ("9", state))
    assert found.faults == [f"{package.id}@9 is {state}, but this process has not loaded it"]
    assert roster(package, ("9", state), ("9", "retired")).faults == []


def test_predictions_of_a_retired_version_are_known_as_such() -> None:
    """By the version and by the very files, also when others came under the same number."""
    others = ONE._replace(checksum="other files")
    model, other = (ModelRef(v.model_id, v.version, v.checksum) for v in (ONE, others))
    assert retired_since(history((ONE, "live")), model) is None
    assert retired_since(history(), model) is None
    assert retired_since(history((ONE, "live"), (ONE, "retired")), model) == START + timedelta(
        hours=1
    )
    again = history((ONE, "retired"), (others, "live"))
    assert retired_since(again, model) == START
    assert retired_since(again, other) is None
    assert retired_since(history((others, "live"), (ONE, "retired")), other) is not None
