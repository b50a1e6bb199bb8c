"""Resources as the bytes of an answer: a Bundle written piece by piece, or one resource a line.

Neither holds more than one resource at a time, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

Resource = dict[str, Any]
_JSON = msgspec.json.Encoder()


def collection(resources: Iterable[Resource]) -> Iterator[bytes]:
    """The pieces of a Bundle of type `collection` with a resource an entry, each by its urn:uuid.

    Every resource's id is a UUID. Where `resources` fails midway, what was written is no JSON, so
    that nobody takes a part for the whole.
    """
    yield b'{"resourceType":"Bundle","type":"collection"'
    before = b',"entry":['
    for resource in resources:
        entry = {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
        yield before + _JSON.encode(entry)
        before = b","
    # FHIR has no empty lists: without a resource there is no `entry`
    yield b"]}" if before == b"," else b"}"


def ndjson_line(resource: Resource) -> bytes:
    """A resource as a line of newline-delimited JSON."""
    return _JSON.encode(resource) + b"\n"
