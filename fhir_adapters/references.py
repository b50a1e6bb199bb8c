"""FHIR references in one form, `Type/id`, whichever of the four ways they were written.

A reference may be relative (`Patient/1`), absolute (`https://ehr/fhir/Patient/1`), versioned
(`Patient/1/_history/2`) or the `urn:uuid:` of a Bundle entry. Fragments (`#med`) point into the
resource itself and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping


def last_segments(reference: str, count: int) -> str:
    """The last path segments of a reference, versions dropped: `.../Patient/1/_history/2` -> it."""
    path = reference.split("/_history/", 1)[0].rstrip("/")
    segments = path.rsplit("/", count)
    return "/".join(segments[-count:]).removeprefix("urn:uuid:").removeprefix("urn:oid:")


def reference_key(reference: str | None, ids_by_full_url: Mapping[str, str]) -> str | None:
    """The reference as `Type/id`, the entry's own for a `urn:uuid:`; None where there is none."""
    if not reference:
        return None
    known = ids_by_full_url.get(reference)
    if known:
        return known
    if reference.startswith(("#", "urn:")):
        return reference
    return last_segments(reference, 2)


def refers_to_patient(
    reference: str | None,
    patient_id: str,
    ids_by_full_url: Mapping[str, str],
    *,
    base: str = "",
) -> bool:
    """Whether a subject reference means this patient; no reference at all means nobody else.

    A resource is known by its whole address: `Patient/1` of another server than `base`, where that
    is known, is somebody else. So is whoever a fragment (`#p`) means, since a contained Patient has
    no identity of its own.
    """
    if not reference:
        return True
    own = f"Patient/{patient_id}"
    if reference.startswith("urn:"):
        return ids_by_full_url.get(reference, reference) in (own, f"urn:uuid:{patient_id}")
    if reference.startswith("#"):
        return False
    key = last_segments(reference, 2)
    server = reference.split("/_history/", 1)[0].rstrip("/").removesuffix(key)
    return key == own and is_on_server(server, base)


def is_on_server(server: str, base: str) -> bool:
    """Whether what stands before `Type/id` or `Type?` is nothing, or the address of `base`.

    The scheme does not count: servers behind a proxy call themselves http. Without a base nobody
    can tell, and every server will do.
    """
    if not server or not base:
        return True
    return _address(server) == _address(base)


def _address(url: str) -> tuple[str, str]:
    """Host with port, the scheme's usual one left out, and path without a slash at its end."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    usual = ":443" if scheme.lower() == "https" else ":80"
    return host.lower().removesuffix(usual), path.rstrip("/")
