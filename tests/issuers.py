"""Issuers of JWTs as the tests need them: real keys, and a real server of their public halves."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from cds_service.auth.roles import ROLES

SERVICE_URL = "https://varsel.example.dk"
"""The service's own URL (VARSEL_BASE_URL) in these tests."""
HOOK_PATH = "/cds-services/readmission-30d"
ISSUER = "https://fhir.example.dk/api/FHIR/R4"


@cache
def key_of(kid: str) -> RSAKey | ECKey:
    """The private key of a `kid`, made once a process: P-384, or `p256-…`, or `rsa-…` (2,048)."""
    if kid.startswith("rsa"):
        return RSAKey.generate_key(2048, {"kid": kid})
    if kid.startswith("p256"):
        return ECKey.generate_key("P-256", {"kid": kid})
    return ECKey.generate_key("P-384", {"kid": kid})


def jwks(*keys: RSAKey | ECKey) -> dict[str, Any]:
    """The public halves of some keys, as an issuer publishes them."""
    return {"keys": [key.as_dict(private=False) for key in keys]}


def claims(path: str = HOOK_PATH, **changes: Any) -> dict[str, Any]:
    """A payload as Epic sends it, for a call of a path now; `...` leaves a claim out."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "sub": "client-id",
        "aud": SERVICE_URL + path,
        "iat": now,
        "nbf": now - 300,
        "exp": now + 900,
        "jti": str(uuid.uuid4()),
        **changes,
    }
    return {name: value for name, value in said.items() if value is not ...}


def signed(
    key: Any, payload: dict[str, Any], *, alg: str | None = None, **header: Any
) -> dict[str, str]:
    """The headers of a call with a JWT; `header` changes the JWT's own, `...` leaves one out."""
    name = alg or ("RS384" if key.key_type == "RSA" else "ES384")
    said = {"alg": name, "kid": key.kid, "typ": "JWT", **header}
    kept = {part: value for part, value in said.items() if value is not ...}
    token = jwt.encode(kept, payload, key, algorithms=[name], default_type=None)
    return {"Authorization": f"Bearer {token}"}


@dataclass
class KeyServer:
    """What a JWKS address answers with, and how often it was asked."""

    keys: dict[str, Any]
    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_s: float = 0.0
    documents: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    hosts: list[str] = field(default_factory=list)


@contextmanager
def key_server(*keys: RSAKey | ECKey) -> Iterator[KeyServer]:
    """A server on loopback that publishes some keys; what it answers may be changed meanwhile."""
    state = KeyServer(jwks(*keys))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            state.hosts.append(self.headers["Host"])
            time.sleep(state.delay_s)
            answer = state.documents.get(self.path, state.keys)
            body = json.dumps(answer).encode() if state.body is None else state.body
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except ConnectionError:
                return  # who asked went away, as it may

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/keys"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


API = f"{SERVICE_URL}/api"
"""The audience of readers' tokens in these tests."""
OPENID_ISSUER = "https://login.example.dk/realms/hospital"


def access_claims(*roles: str, **changes: Any) -> dict[str, Any]:
    """The payload of a reader's access token (RFC 9068) with roles; `...` leaves a claim out."""
    now = int(time.time())
    said = {
        "iss": OPENID_ISSUER,
        "sub": "anna",
        "aud": API,
        "client_id": "workbench",
        "iat": now,
        "exp": now + 900,
        "roles": list(roles),
        **changes,
    }
    return {name: value for name, value in said.items() if value is not ...}


def access_token(
    *roles: str, kid: str = "p256-1", alg: str = "ES256", **changes: Any
) -> dict[str, str]:
    """The headers of a reader's call with some roles."""
    return signed(key_of(kid), access_claims(*roles, **changes), alg=alg, typ="at+jwt")


def reader_table(organisation: str = "org-a", **fields: Any) -> str:
    """An issuer's table in the file of readers; its roles are called as ours. `...` leaves a field
    out."""
    said = {
        "issuer": OPENID_ISSUER,
        "organisation": organisation,
        "audience": API,
        "networks": ["127.0.0.0/8"],
        **fields,
    }
    roles = said.pop("roles", None) or {role: role for role in ROLES}
    lines = [f"{k} = {json.dumps(v)}" for k, v in said.items() if v is not ...]
    names = [f"{json.dumps(theirs)} = {json.dumps(ours)}" for theirs, ours in roles.items()]
    return "\n".join(["[[issuer]]", *lines, "[issuer.roles]", *names, ""])


def caller_table(name: str = "sp-test", organisation: str = "org-a", **jwt_fields: Any) -> str:
    """A caller's table in the file, proved by JWTs of ISSUER; `...` leaves a field out."""
    said = {"issuer": ISSUER, "networks": ["127.0.0.0/8"], **jwt_fields}
    lines = [f"{k} = {json.dumps(v)}" for k, v in said.items() if v is not ...]
    head = f'[[caller]]\nname = "{name}"\norganisation = "{organisation}"\nunit = "ward"\n'
    return head + "[caller.jwt]\n" + "\n".join(lines) + "\n"
