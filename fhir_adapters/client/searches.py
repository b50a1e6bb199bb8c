"""From prefetch templates to URLs, and from the pages of an answer to one Bundle.

Templates are filled with checked ids only. Pages stay bytes: their entries are put into one Bundle
unread, so that a fetched answer is decoded as a prefetch would be. Called by `completion`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from fhir_adapters.client.guard import Base
from fhir_adapters.errors import FetchFailed
from fhir_adapters.resources import Element, Link

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9.-]{1,64}")
_REFERENCE = re.compile(rf"[A-Z][A-Za-z]{{1,63}}/{_ID.pattern}")
_USER_TOKENS = {
    "Practitioner": "userPractitionerId",
    "PractitionerRole": "userPractitionerRoleId",
    "Patient": "userPatientId",
    "RelatedPerson": "userRelatedPersonId",
}


class Page(Element):
    """One page of a search: its entries unread, where the next one is, how many hits in all."""

    resource_type: str | None = None
    total: int | None = None
    link: list[Link] | None = None
    entry: list[msgspec.Raw] | None = None

    @property
    def has_next(self) -> bool:
        """Whether the page says that there is another, be it without saying where."""
        return any(one.relation == "next" for one in self.link or ())

    @property
    def next(self) -> str | None:
        """The link to the next page; None on the last, and where the link has no address."""
        return next(
            (one.url for one in self.link or () if one.relation == "next" and one.url), None
        )


_PAGE = msgspec.json.Decoder(Page)


def context_tokens(*, patient_id: str, user_id: str, encounter_id: str | None) -> dict[str, str]:
    """The values a hook's context gives to the tokens of CDS Hooks prefetch templates."""
    kind, _, user = user_id.partition("/")
    tokens = {"context.patientId": patient_id, "context.userId": user_id}
    if encounter_id is not None:
        tokens["context.encounterId"] = encounter_id
    if kind in _USER_TOKENS:
        tokens[_USER_TOKENS[kind]] = user
    return tokens


def filled(template: str, tokens: Mapping[str, str], base: Base) -> str:
    """The URL of a template below a base. Raises FetchFailed where a token has no sound value."""

    def value_of(found: re.Match[str]) -> str:
        name = found.group(1)
        value = tokens.get(name)
        if value is None:
            raise FetchFailed(f"{name} is not in the request")
        if not (_ID.fullmatch(value) or _REFERENCE.fullmatch(value)):
            raise FetchFailed(f"{name} is not a FHIR id")
        return value

    return f"{base.url}/{_PLACEHOLDER.sub(value_of, template)}"


def page_of(raw: bytes | memoryview) -> Page | None:
    """A page of a search; None for anything else the bytes hold, be it FHIR or not."""
    try:
        page: Page = _PAGE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return page if page.resource_type == "Bundle" else None


def one_bundle(pages: Sequence[Page], *, more: bool) -> bytes:
    """The pages of a search as one searchset Bundle; with a `next` link where there are `more`.

    `total` is the largest that any page said.
    """
    totals = [page.total for page in pages if page.total is not None]
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        **({"total": max(totals)} if totals else {}),
        **({"link": [{"relation": "next"}]} if more else {}),
        "entry": [entry for page in pages for entry in page.entry or ()],
    }
    return msgspec.json.encode(bundle)
