"""Where each version of a model stands here, what may become of it, and which answers. Pure.

candidate -> silent -> live -> paused -> retired: people decide, the database remembers who and why
(`cds_service/db/governance.py`), and this module says what follows from it. Called by the watch of
a serving process and by the commands of `varsel models` that decide. docs/governance.md is the
manual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from cds_service.errors import BadRequest
from fhir_adapters.clock import to_iso
from models.package import Package
from models.prediction import AiActRole, HitRate, ModelRef, RegulatoryRoute, Standing, State
from models.registry import BUNDLED, Registry

NEXT: Mapping[State, tuple[State, ...]] = {
    "candidate": ("silent", "retired"),
    "silent": ("live", "paused", "retired"),
    "live": ("silent", "paused", "retired"),
    "paused": ("live", "silent", "retired"),
    "retired": (),
}
"""What may be decided of a version; the demo profile may also take a candidate live at once."""
IN_FRONT: tuple[State, ...] = ("live", "paused")
"""The states of which an id has one version at most: the one that callers are answered by."""
OFFERED: tuple[State, ...] = ("live", "silent", "paused")
"""The states in which a service is offered to callers."""


STOPPED: tuple[State, ...] = ("paused", "retired")
"""The states in which features and rules are computed, and the model is not."""


class Version(NamedTuple):
    """A version of a model with the checksum of its files as they are now."""

    model_id: str
    version: str
    checksum: str
    bundled: bool = False

    def __str__(self) -> str:
        return f"{self.model_id}@{self.version}"


class Decision(NamedTuple):
    """What somebody decided of a version, its files being those of the checksum."""

    model_id: str
    version: str
    checksum: str
    state: State
    who: str
    why: str
    at: datetime


class Record(NamedTuple):
    """What a site put on record of a version's files before they may serve patients."""

    model_id: str
    version: str
    checksum: str
    intended_purpose: str
    regulatory_route: RegulatoryRoute
    ai_act_role: AiActRole
    clinical_owner: str
    who: str
    at: datetime


class Validated(NamedTuple):
    """What a local validation of a version found of one head's cards, and who vouches for it.

    `ppv` with its 95 % interval, 0 to 1: of `flagged` predictions at or above `threshold`, `events`
    were followed by the outcome. `synthetic`: of invented patients. `report_digest`: SHA-256 of the
    report.
    """

    model_id: str
    version: str
    checksum: str
    head: str
    threshold: float
    ppv: float
    low: float
    high: float
    flagged: int
    events: int
    first_index_time: datetime
    last_index_time: datetime
    synthetic: bool
    report_digest: str
    who: str
    at: datetime


@dataclass(frozen=True, slots=True)
class History:
    """Every decision, record and validation there is, oldest first; none is ever taken out."""

    decisions: Sequence[Decision] = ()
    records: Sequence[Record] = ()
    validations: Sequence[Validated] = ()


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a version stands: its state, since when, its record, and what is wrong with it.

    `decided`: what was decided last under its number, of whichever files.
    """

    version: Version
    state: State
    since: datetime | None = None
    record: Record | None = None
    fault: str | None = None
    decided: State | None = None


@dataclass(frozen=True, slots=True)
class Duty:
    """The version that answers for an id, and the silent one computed beside it, if any.

    `hit_rates`: by head, how often its cards were followed by the outcome, where that is known.
    """

    package: Package
    standing: Standing
    hit_rates: Mapping[str, HitRate]
    shadow: Duty | None = None


@dataclass(frozen=True, slots=True)
class Roster:
    """Who answers in a process at a moment: by service id; with all stands, and what is wrong.

    `faults` keep callers from what was decided; `warnings` do not.
    """

    duties: Mapping[str, Duty]
    stands: Sequence[Stand]
    faults: Sequence[str]
    warnings: Sequence[str]
    history: History


# ---- where versions stand -------------------------------------------------------------------


def version_of(package: Package) -> Version:
    """The version a package is."""
    bundled = package.folder.is_relative_to(BUNDLED)
    return Version(package.id, package.manifest.version, package.checksum, bundled)


def stands_of(versions: Iterable[Version], history: History, *, demo: bool) -> list[Stand]:
    """Where each version stands by the newest decision of it; files once retired stay so.

    A version nobody decided about is a candidate; in the demo profile a bundled one is live, unless
    another version of its id was put in front.
    """
    decided = {d[:2]: d for d in history.decisions}
    retired = {d[:3]: d for d in reversed(history.decisions) if d.state == "retired"}
    records = {r[:3]: r for r in history.records}
    stands = [
        _stand(v, decided.get(v[:2]), retired.get(v[:3]), records.get(v[:3]), demo=demo)
        for v in versions
    ]
    taken = {model_id for (model_id, _), d in decided.items() if d.state in IN_FRONT}

    def is_live_from_the_start(v: Version) -> bool:
        return demo and v.bundled and v.model_id not in taken and v[:2] not in decided

    return [
        Stand(s.version, "live", None, s.record) if is_live_from_the_start(s.version) else s
        for s in stands
    ]


def _stand(
    version: Version,
    decision: Decision | None,
    retired: Decision | None,
    record: Record | None,
    *,
    demo: bool,
) -> Stand:
    """By the newest decision under a number, the one that retired these files, and their record."""
    if decision is None:
        return Stand(version, "candidate", None, record)
    newest = decision.state
    if retired is not None:
        return Stand(version, "retired", retired.at, record, None, newest)
    if decision.checksum != version.checksum:
        changed = f"{version} has other files than when it became {newest}: it is a "
        fault = f"{changed}candidate again" if newest != "retired" else None
        return Stand(version, "candidate", None, record, fault, newest)
    if decision.state == "live" and record is None and not demo:
        fault = f"{version} was made live in the demo profile and has no record: not in service"
        return Stand(version, "candidate", None, None, fault, newest)
    return Stand(version, newest, decision.at, record, None, newest)


def standing_of(stand: Stand) -> Standing:
    """A stand as a prediction carries it."""
    record = stand.record
    return Standing(
        state=stand.state,
        since=to_iso(stand.since.timestamp()) if stand.since else None,
        regulatory_route=record.regulatory_route if record else None,
        ai_act_role=record.ai_act_role if record else None,
        clinical_owner=record.clinical_owner if record else None,
    )


def hit_rates_of(package: Package, history: History, *, demo: bool) -> dict[str, HitRate]:
    """By head, the hit rate measured here: of these very files and thresholds, the newest.

    One of invented patients counts in the demo profile only, whatever profile it was recorded in.
    """
    thresholds = {head.id: head.threshold for head in package.manifest.heads}
    version = version_of(package)
    return {
        found.head: _hit_rate(found)
        for found in history.validations
        if found[:3] == version[:3]
        and thresholds.get(found.head) == found.threshold
        and (demo or not found.synthetic)
    }


def _hit_rate(found: Validated) -> HitRate:
    return HitRate(
        ppv=found.ppv,
        low=found.low,
        high=found.high,
        flagged=found.flagged,
        from_=to_iso(found.first_index_time.timestamp()),
        to=to_iso(found.last_index_time.timestamp()),
        synthetic=found.synthetic,
    )


def retired_since(history: History, model: ModelRef) -> datetime | None:
    """When the version that made a prediction was retired; None where it was not.

    The version, or the very files: those stay retired when others come under the same number.
    """
    of_version = [d for d in history.decisions if d[:2] == (model.id, model.version)]
    of_files = [d for d in of_version if d.checksum == model.checksum]
    return next((d.at for d in [*of_files, *of_version[-1:]] if d.state == "retired"), None)


# ---- who answers ----------------------------------------------------------------------------


def roster_of(registry: Registry, history: History, *, demo: bool) -> Roster:
    """Who answers, of the packages a process has loaded."""
    packages = {version_of(package): package for package in registry.packages.values()}
    stands = stands_of(packages, history, demo=demo)
    duties: dict[str, Duty] = {}
    for model_id in dict.fromkeys(version.model_id for version in packages):
        ours = [s for s in stands if s.version.model_id == model_id]
        duty = _duty(ours, lambda stand: _serving(stand, packages, history, demo=demo))
        if duty is not None:
            duties[model_id] = duty
    faults = [stand.fault for stand in stands if stand.fault]
    faults += [*_several_in_front(stands), *_not_loaded(packages, history, IN_FRONT)]
    return Roster(duties, stands, faults, _not_loaded(packages, history, ("silent",)), history)


def _duty(stands: list[Stand], serving: Callable[[Stand], Duty]) -> Duty | None:
    """The version in front, else the silent one, else the one retired last, else none."""
    newest_first = sorted(stands, key=lambda s: s.since or datetime.min.replace(tzinfo=UTC))[::-1]
    for states in (IN_FRONT, ("silent",), ("retired",)):
        for stand in newest_first:
            if stand.state in states:
                beside = [s for s in newest_first if s.state == "silent" and s is not stand]
                shadow = serving(beside[0]) if beside else None
                return replace(serving(stand), shadow=shadow)
    return None


def _serving(
    stand: Stand, packages: Mapping[Version, Package], history: History, *, demo: bool
) -> Duty:
    package = packages[stand.version]
    return Duty(package, standing_of(stand), hit_rates_of(package, history, demo=demo))


def _several_in_front(stands: Sequence[Stand]) -> list[str]:
    """Ids of which two versions or more are in front, which no decision should come to."""
    front: dict[str, list[str]] = {}
    for stand in stands:
        if stand.state in IN_FRONT:
            said = f"{stand.version} is {stand.state}"
            front.setdefault(stand.version.model_id, []).append(said)
    several = [said for said in front.values() if len(said) > 1]
    return [f"{' and '.join(said)}: one version of a model can be" for said in several]


def _not_loaded(
    versions: Iterable[Version], history: History, states: tuple[State, ...]
) -> list[str]:
    """Versions decided to be in one of some states that this process has not got."""
    here = {version[:2] for version in versions}
    newest = {(d.model_id, d.version): d for d in history.decisions}
    return [
        f"{model_id}@{version} is {decision.state}, but this process has not loaded it"
        for (model_id, version), decision in newest.items()
        if decision.state in states and (model_id, version) not in here
    ]


# ---- what may be decided --------------------------------------------------------------------


def decide(
    stands: Sequence[Stand],
    version: Version,
    state: State,
    *,
    demo: bool,
    replaces: str | None = None,
) -> list[tuple[Version, State]]:
    """What a decision comes to: the version's new state, after that of the version it replaces.

    `stands`: of every version of the model, also of those whose files are changed or gone: they may
    be put back. `replaces`: the version in front until now, which goes on silent. Raises BadRequest
    where the step is not allowed, the record is missing, or another version is in the way.
    """
    stand = next(s for s in stands if s.version == version)
    _check_step(stand, state, demo=demo)
    others = [s for s in stands if s.version.model_id == version.model_id and s is not stand]
    replaced = _replaced(others, state, replaces)
    held = _held(stand, state)
    if replaced is not None:
        held.add("silent")
    for other in others:
        if other is not replaced and {other.state, other.decided} & held:
            raise BadRequest(_in_the_way(other, held, state), field="STATE")
    first: list[tuple[Version, State]] = [(replaced.version, "silent")] if replaced else []
    return [*first, (version, state)]


def _check_step(stand: Stand, state: State, *, demo: bool) -> None:
    """Raise BadRequest where a version may not come from its state to another."""
    allowed = NEXT[stand.state]
    if demo and stand.state == "candidate":
        allowed = ("live", *allowed)
    if state not in allowed:
        can = f"it can become {', '.join(allowed)}" if allowed else "that is final"
        raise BadRequest(f"{stand.version} is {stand.state}; {can}", field="STATE")
    if state == "live" and stand.record is None and not demo:
        raise BadRequest(
            f"{stand.version} cannot be live without intended purpose, regulatory route, AI Act "
            f"role and clinical owner on record: varsel models record {stand.version}",
            field="STATE",
        )


def _replaced(others: Sequence[Stand], state: State, replaces: str | None) -> Stand | None:
    """The stand of the version to be replaced. Raises BadRequest where there is none in front."""
    if replaces is None:
        return None
    found = [s for s in others if s.version.version == replaces and s.state in IN_FRONT]
    if state != "live" or not found:
        raise BadRequest(
            "names the version that is live or paused until now, for another to become live",
            field="--replaces",
        )
    return found[0]


def _held(stand: Stand, state: State) -> set[State]:
    """The states no other version may be in, for this one to come to a state; to pause what is
    live is never in anybody's way.
    """
    if state == "live" or (state == "paused" and stand.state not in IN_FRONT):
        return set(IN_FRONT)
    return {"silent"} if state == "silent" else set()


def _in_the_way(other: Stand, held: set[State], state: State) -> str:
    """Which version is in the way, and what an operator can do about it."""
    one = "and one version of a model can be"
    if other.state not in held:
        was = f"{other.version} was {other.decided} with other files, which may be put back"
        return f"{was}, {one}: varsel models withdraw {other.version} first"
    way_out = "retire it first"
    if state == "live" and other.state in IN_FRONT:
        way_out += f", or say --replaces {other.version.version} and it goes on silent"
    return f"{other.version} is {other.state}, {one}: {way_out}"
