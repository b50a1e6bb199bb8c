"""Two documents compared to the last bit, every difference named by its place. Pure.

Called by `replay.py`. Members of a list are told apart by what they are called, so that one that
came or went does not make all after it differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_NAMES = ("head", "ranking", "category", "name", "id", "feature", "rule", "score")
"""What a member of a list is called by, the first that every member has."""


class Difference(NamedTuple):
    """A field, such as `heads[readmission].risk`, with what was logged and what was computed now.

    None stands for null and for what is not there.
    """

    field: str
    logged: Any
    computed: Any

    @property
    def distance(self) -> float | None:
        """How far apart two numbers are; None where they are not two numbers."""
        both = (self.logged, self.computed)
        if all(isinstance(value, float) for value in both):
            return float(abs(self.logged - self.computed))
        return None


def differences(logged: Any, computed: Any, field: str = "") -> Iterator[Difference]:
    """Every place where two JSON values differ; numbers are the same where all their bits are."""
    if isinstance(logged, Mapping) and isinstance(computed, Mapping):
        for name in dict.fromkeys([*logged, *computed]):
            inner = f"{field}.{name}" if field else str(name)
            yield from differences(logged.get(name), computed.get(name), inner)
    elif isinstance(logged, list) and isinstance(computed, list):
        yield from _of_lists(logged, computed, field)
    elif not _same(logged, computed):
        yield Difference(field, logged, computed)


def _same(logged: Any, computed: Any) -> bool:
    if isinstance(logged, float) and isinstance(computed, float):
        return logged.hex() == computed.hex()
    return type(logged) is type(computed) and bool(logged == computed)


def _of_lists(logged: list[Any], computed: list[Any], field: str) -> Iterator[Difference]:
    before, now = _by_name(logged, computed)
    for name in dict.fromkeys([*before, *now]):
        yield from differences(before.get(name), now.get(name), f"{field}[{name}]")
    if list(before) != list(now) and set(before) == set(now):
        yield Difference(f"{field} (order)", list(before), list(now))


def _by_name(*lists: Sequence[Any]) -> list[dict[Any, Any]]:
    """The members of each list by name; by their places where they have none of their own."""
    for name in _NAMES:
        if all(_are_called_by(name, members) for members in lists):
            return [{member[name]: member for member in members} for members in lists]
    return [dict(enumerate(members)) for members in lists]


def _are_called_by(name: str, members: Sequence[Any]) -> bool:
    if not all(isinstance(member, Mapping) and name in member for member in members):
        return False
    return len({member[name] for member in members}) == len(members)
