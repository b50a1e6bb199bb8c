"""One resource of a type and id is one resource, wherever its versions came from.

The same resource comes under several prefetch keys (the contact of the context among all contacts),
on two pages of a search that shifted meanwhile, or was sent and then fetched again, changed. FHIR
has one current version of an id, so that one counts, even where it says that nothing happened
(entered in error, cancelled, refuted). Called by the modules that read a kind of resource, before
they ask what its status is. Measurements only where some were sent and some fetched, because there
are many: otherwise `facts.py` keeps one a moment.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from fhir_adapters.decode import Gathered


def current(gathered: Gathered, kind: str) -> list[Any]:
    """The resources of a type, each once: of those with one id, the one that came last.

    What was fetched comes after what was sent, so it is the newer one. Those without an id, as in
    hand-made input, all stay; so do those that stand under addresses of several servers, and the
    order.
    """
    resources = gathered.of(kind)
    last = {one.id: one for one in resources}
    if len(last) == len(resources):
        return resources
    others = _of_several_servers(gathered, kind)
    return [one for one in resources if not one.id or one.id in others or last[one.id] is one]


def _of_several_servers(gathered: Gathered, kind: str) -> AbstractSet[str]:
    """The ids that entries of more than one server have: of each it is another resource."""
    servers: dict[str, set[str]] = {}
    for full_url, key in gathered.ids_by_full_url.items():
        if key.startswith(f"{kind}/") and full_url.endswith(key):
            own_id = key.removeprefix(f"{kind}/")
            servers.setdefault(own_id, set()).add(full_url.removesuffix(key))
    return {own_id for own_id, found in servers.items() if len(found) > 1}
