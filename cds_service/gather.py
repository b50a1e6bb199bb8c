"""What is known for one call: its prefetch, completed from the FHIR server its caller registered.

Only what the prefetch lacks is asked for, only of a base registered for this caller, with the token
of this call. Where nothing is lacking this costs a look at each key. How it is fetched stands in
`fhir_adapters/client`; docs/fhir-client.md tells the whole. Called by the hook route.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from ipaddress import ip_network
from typing import NamedTuple

from cds_service.auth.callers import Caller, FhirBase
from cds_service.protocol import HookCall, our_prefetch, read_prefetch, refused_input
from fhir_adapters.client.completion import Lacking, Limits, fetch_lacking, lacking
from fhir_adapters.client.fetch import Access, FhirClient
from fhir_adapters.client.guard import parse_base, same_base
from fhir_adapters.client.searches import context_tokens
from fhir_adapters.decode import NOT_ASKED, NOTHING_FETCHED, Fetched, Gathered
from fhir_adapters.errors import UnreadableInput
from models.package import Package

SHARE_FOR_FETCHING = 0.8
"""Of a caller's deadline; the rest is for the prognosis and its commit."""
SHORTEST_S = 0.01
NOT_REGISTERED = "not sent, and the request's fhirServer is not registered for this caller"


class Gathering(NamedTuple):
    """All data of a call. `fetched`: by template, what the FHIR server answered or why not.

    `began`: when reading them began, by `time.perf_counter`; `fetch_s`: how long fetching took.
    """

    gathered: Gathered
    began: float
    fetched: Mapping[str, Fetched] = NOTHING_FETCHED
    fetch_s: float = 0.0


async def gather(
    call: HookCall,
    package: Package,
    caller: Caller,
    *,
    client: FhirClient,
    size: int,
    most: int,
    started: float,
) -> Gathering:
    """The call's data for a package, fetched where they are lacking and may be.

    `size`: bytes that may be fetched; `most`: resources that may be read; `started`: when the call
    came, by `time.perf_counter`. Raises BadRequest where the data cannot be FHIR R4, TooLarge where
    there are more. What is lacking still is for `require_answers` to say.
    """
    began = time.perf_counter()
    try:
        gathered = read_prefetch(call, package, most=most)
        keys = lacking(gathered, package.expected)
        if not keys or not call.fhir_server:
            return Gathering(gathered, began)
        base = registered_base(call.fhir_server, caller)
        if base is None:
            _say_not_registered(gathered, package, keys)
            return Gathering(gathered, began)
        asking = time.perf_counter()
        left_s = SHARE_FOR_FETCHING * caller.policy.deadline_ms / 1000 - (asking - started)
        fetched = await fetch_lacking(
            _wanted(call, package, gathered, keys),
            context_tokens(
                patient_id=call.patient_id, user_id=call.user_id, encounter_id=call.encounter_id
            ),
            client=client,
            access=_access(base, call),
            limits=Limits(max(left_s, SHORTEST_S), size),
        )
        fetch_s = time.perf_counter() - asking
        # what was sent was counted above; what was fetched has the limits of `Limits`
        return Gathering(read_prefetch(call, package, fetched), began, fetched, fetch_s)
    except UnreadableInput as error:
        raise refused_input(error) from None


def registered_base(fhir_server: str, caller: Caller) -> FhirBase | None:
    """The registered base a request's `fhirServer` is; None where it is none of this caller's."""
    return next((fhir for fhir in caller.fhir if same_base(fhir.base, fhir_server)), None)


def _say_not_registered(gathered: Gathered, package: Package, keys: list[str]) -> None:
    """Of required keys that were not sent, why nobody asks for them either."""
    for key in keys:
        answer = gathered.answer(key)
        if package.manifest.prefetch[key].required and answer == NOT_ASKED:
            gathered.answers[key] = dataclasses.replace(answer, reason=NOT_REGISTERED)


def _wanted(
    call: HookCall, package: Package, gathered: Gathered, keys: list[str]
) -> dict[str, Lacking]:
    """What to ask, by template: a template that stands under two keys is asked once.

    What was sent under a key is begun from only where it is part of the answer.
    """
    sent = our_prefetch(call, package)
    templates = {key: package.manifest.prefetch[key].template for key in keys}
    begun = {key for key in keys if gathered.answer(key).state == "partial" and key in sent}
    return {
        t: Lacking(t, memoryview(sent[k]) if k in begun else None) for k, t in templates.items()
    }


def _access(base: FhirBase, call: HookCall) -> Access:
    parsed = parse_base(base.base)
    assert parsed is not None  # noqa: S101 - the callers file was read with this very check
    networks = tuple(ip_network(text) for text in base.networks)
    given = call.authorization
    return Access(parsed, networks, given.access_token if given else None)
