"""A call's data: the prefetch alone where nothing is lacking or nobody may be asked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cds_service.auth.callers import Caller, FhirBase
from cds_service.gather import NOT_REGISTERED, Gathering, gather, registered_base
from cds_service.protocol import HookCall, decode_call, read_prefetch
from fhir_adapters.client.fetch import FhirClient
from fhir_adapters.decode import Fetched
from models.package import Package

SERVER = "https://ehr.example/fhir"
STRANGER = Caller("stranger", "demo", fhir=(FhirBase(base="https://other.example/fhir"),))


def call_with(package: Package, request: dict[str, Any], *keys: str) -> HookCall:
    """The demo request's call with the prefetch of some keys."""
    prefetch = {key: value for key, value in request["prefetch"].items() if key in keys}
    body = json.dumps({**request, "prefetch": prefetch}).encode()
    return decode_call(body, package.manifest.hooks)


def gathered_for(call: HookCall, package: Package, caller: Caller) -> Gathering:
    """The call's data, where nothing may be fetched: a connection would be refused by the test."""
    return asyncio.run(
        gather(call, package, caller, client=FhirClient(), size=10**6, most=10**6, started=0)
    )


def test_a_whole_prefetch_is_all_there_is(package: Package, demo_request: dict[str, Any]) -> None:
    """Nothing is asked, although the caller has the server registered."""
    call = call_with(package, demo_request, *demo_request["prefetch"])
    caller = Caller("known", "demo", fhir=(FhirBase(base=SERVER),))
    data = gathered_for(call, package, caller)
    assert data.fetched == {}
    assert {answer.state for answer in data.gathered.answers.values()} == {"complete"}


def test_a_server_of_nobody_we_know_is_not_asked(
    package: Package, demo_request: dict[str, Any]
) -> None:
    """Required keys say why they are lacking; the others stay "not asked"."""
    data = gathered_for(call_with(package, demo_request, "patient"), package, STRANGER)
    assert data.fetched == {}
    assert data.gathered.answer("encounters").reason == NOT_REGISTERED
    assert data.gathered.answer("laboratory").reason == "not asked"
    assert data.gathered.answer("laboratory").state == "absent"


@pytest.mark.parametrize(
    ("fhir_server", "registered"),
    [(SERVER, True), (f"{SERVER}/", True), (f"{SERVER}/r4", False), ("https://ehr.example", False)],
)
def test_r10_only_a_registered_base_may_be_asked(fhir_server: str, *, registered: bool) -> None:
    """Its origin and its whole path."""
    caller = Caller("known", "demo", fhir=(FhirBase(base=SERVER),))
    assert (registered_base(fhir_server, caller) is not None) == registered


def test_a_version_beside_reads_what_was_fetched_for_the_one_in_front(
    package: Package, demo_request: dict[str, Any]
) -> None:
    """By template, since it may call the same query by another key."""
    call = call_with(package, demo_request, "patient", "encounters")
    template = package.manifest.prefetch["laboratory"].template
    value = json.dumps(demo_request["prefetch"]["laboratory"]).encode()
    found = read_prefetch(call, package, {template: Fetched(value, to_the_end=True)})
    assert found.answer("laboratory").state == "complete"
    assert len(found.of("Observation")) == len(demo_request["prefetch"]["laboratory"]["entry"])
    assert found.answer("vitals").state == "absent"
