"""One resource of a type and id is one resource, wherever its versions came from.

The same resource comes under several prefetch keys (the contact of the context among all contacts),
on two pages of a search that shifted meanwhile, or was sent and then fetched again, changed. FHIR
has one current version of an id, so that one counts, even where it says that nothing happened
(entered in error, cancelled, refuted). Called by the modules that read a kind of resource, before
they ask what its status is. Measurements only where some were sent and some fetched, because there
are many: otherwise `facts.py` keeps one a moment.
"""

from __future__ import annotations

from typing import TypeVar

from fhir_adapters.resources import Resource

R = TypeVar("R", bound=Resource)


def current(resources: list[R]) -> list[R]:
    """Each resource of one type once: of those with one id, the one that came last.

    What was fetched comes after what was sent, so it is the newer one. Those without an id, as in
    hand-made input, all stay; so does the order.
    """
    last = {one.id: one for one in resources}
    if len(last) == len(resources):
        return resources
    return [one for one in resources if one.id is None or last[one.id] is one]
