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
    reference: str | None, patient_id: str, ids_by_full_url: Mapping[str, str]
) -> bool:
    """Whether a subject reference means this patient; no reference at all means nobody else."""
    key = reference_key(reference, ids_by_full_url)
    return key is None or key in (f"Patient/{patient_id}", f"urn:uuid:{patient_id}")
