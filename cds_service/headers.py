"""What every answer says to browsers and caches, and whose pages may call from a browser.

Nothing here is stored, framed, guessed at or followed; a page that needs more says so itself (the
explanation page and the API documentation set their own policy). Whether browsers must use HTTPS
(HSTS) is said by the proxy that speaks it. Added by `app`.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cds_service.docs import json_response
from cds_service.outcome import operation_outcome

POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
NO_STORE = (b"cache-control", b"no-store")
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY.encode()),
)
CACHED = ("/static/",)
"""Paths of files that are the same for everybody."""
PREFLIGHT_S = 600


class SecureHeaders:
    """Adds to each answer what it does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, with the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = ALWAYS if scope["path"].startswith(CACHED) else (*ALWAYS, NO_STORE)

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = message.get("headers", ())
                names = {name.lower() for name, _ in said}
                lacking = [header for header in wanted if header[0] not in names]
                message = {**message, "headers": [*said, *lacking]}
            await send(message)

        await self.app(scope, receive, complete)


class _CrossOrigin(CORSMiddleware):
    """Starlette's, but for a refusal, which is an OperationOutcome like every other."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight: 200 with what a page may do, or 400 naming what it may not."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        said = bytes(answer.body).decode()  # names what is refused and repeats nothing sent
        refusal = json_response(operation_outcome("forbidden", said), answer.status_code)
        for name, value in answer.headers.items():
            refusal.headers.setdefault(name, value)
        return refusal


def cross_origin(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The application, open to pages of these origins: a browser client of CDS Hooks asks before
    (preflight) whether it may send Authorization and Content-Type.
    """
    return _CrossOrigin(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type"),
        expose_headers=("Retry-After",),
        max_age=PREFLIGHT_S,
    )
