"""Which language an answer is in, by the header's weights (RFC 9110, 12.5.4)."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from cds_service.web import language_of


def asked(header: str | None) -> Request:
    """A request with that Accept-Language."""
    headers = [] if header is None else [(b"accept-language", header.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "da"),
        ("", "da"),
        ("en", "en"),
        ("EN-us", "en"),
        ("da-DK, en", "da"),
        ("en, da", "en"),
        ("da;q=0.8, en;q=0.9", "en"),
        ("da; q=0.8 ,en ;q=0.9", "en"),
        ("en;q=0.5, da;q=0.5", "en"),
        ("en;q=0", "da"),
        ("en;q=0.000, da;q=0.001", "da"),
        ("*", "da"),
        ("fr, *;q=0.5", "da"),
        ("fr, en;q=0.1", "en"),
        ("den, dav, eng", "da"),
        ("en;q=nan", "da"),
        ("en;q=2", "da"),
        ("en;q=1.5, da;q=0.1", "da"),
        (",,;;=,en", "en"),
        ("x" * 300 + ",en", "da"),
    ],
)
def test_the_heaviest_of_danish_and_english_wins(header: str | None, language: str) -> None:
    """The first of equals; what is no language range is passed over; Danish where neither is."""
    assert language_of(asked(header), "da") == language


def test_the_site_chooses_where_the_client_does_not() -> None:
    """VARSEL_LANGUAGE is for clients that name neither language."""
    assert language_of(asked("nb"), "en") == "en"
    assert language_of(asked("da"), "en") == "da"
