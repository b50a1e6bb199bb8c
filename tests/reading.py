"""A service that two hospitals call and whose people read, as the tests of the API need it."""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import insert, select

from cds_service.app import create_app
from cds_service.db.log import PredictionLog
from cds_service.db.tables import prediction_payloads, predictions
from cds_service.settings import Settings
from models.registry import Registry
from tests.issuers import (
    HOOK_PATH,
    OPENID_ISSUER,
    SERVICE_URL,
    access_token,
    jwks,
    key_of,
    reader_table,
)

OTHER_ISSUER = "https://login.other.dk"
TOKENS = {"org-a": "a-token-of-hospital-a", "org-b": "a-token-of-hospital-b"}
LIST = "/api/v1/predictions"
WHY = {"purpose": "HQUALIMP"}


@dataclass(frozen=True, slots=True)
class House:
    """The running service; `request` is a hook call that ends in a card."""

    client: TestClient
    request: Mapping[str, Any]

    @property
    def log(self) -> PredictionLog:
        """Its prediction log."""
        log: PredictionLog = self.client.app.state.service.log  # type: ignore[attr-defined]
        return log

    def predicts(self, organisation: str = "org-a", **prefetch: Any) -> str:
        """Have a prediction made for a hospital; its id. `prefetch`: what is sent otherwise."""
        request = copy.deepcopy(dict(self.request))
        request["hookInstance"] = str(uuid.uuid4())
        request["prefetch"] |= prefetch
        headers = {"Authorization": f"Bearer {TOKENS[organisation]}"}
        answer = self.client.post(HOOK_PATH, json=request, headers=headers)
        assert answer.status_code == 200, answer.text
        query = select(predictions.c.prediction_id)
        with self.log.engine.connect() as connection:
            made = predictions.c.hook_instance == request["hookInstance"]
            return str(connection.execute(query.where(made)).scalar_one())

    def copied(self, prediction_id: str, rows: list[dict[str, Any]]) -> None:
        """Put copies of a prediction into the log, each with some columns of its own."""
        with self.log.engine.begin() as connection:
            for table in (predictions, prediction_payloads):
                its = table.c.prediction_id == prediction_id
                row = dict(connection.execute(select(table).where(its)).mappings().one())
                row |= {name: None for name in row if name.startswith("chain_")}
                made = [
                    row | {k: v for k, v in own.items() if k in row} | self._call(row, own)
                    for own in rows
                ]
                connection.execute(insert(table), made)

    def _call(self, row: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        return {"hook_instance": own["prediction_id"]} if "hook_instance" in row else {}

    def reads(
        self, path: str = LIST, *roles: str, organisation: str = "org-a", accept: str | None = None,
        **query: Any,
    ) -> Response:  # fmt: skip
        """The answer to somebody of a hospital in some roles; a validator where none is said."""
        headers = token_of(organisation, *(roles or ("validator",)))
        if accept is not None:
            headers["Accept"] = accept
        asked = {**WHY, **{name.rstrip("_"): value for name, value in query.items()}}
        kept = {name: value for name, value in asked.items() if value is not ...}
        return self.client.get(path, params=kept, headers=headers)


def token_of(organisation: str, *roles: str) -> dict[str, str]:
    """The headers of somebody of a hospital, by its own issuer and key."""
    if organisation == "org-a":
        return access_token(*roles)
    return access_token(*roles, kid="p256-b", iss=OTHER_ISSUER)


@contextmanager
def house(folder: Path, registry: Registry, request: Mapping[str, Any]) -> Iterator[House]:
    """The service with two hospitals, each with a caller, and an issuer of its readers' tokens."""
    for name, kid in (("a", "p256-1"), ("b", "p256-b")):
        (folder / f"{name}.json").write_text(json.dumps(jwks(key_of(kid))), encoding="utf-8")
    callers, readers = folder / "callers.toml", folder / "readers.toml"
    digests = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}
    callers.write_text(
        "".join(
            f'[[caller]]\nname = "ehr-{name}"\norganisation = "{name}"\ntoken_sha256 = "{digest}"\n'
            for name, digest in digests.items()
        ),
        encoding="utf-8",
    )
    readers.write_text(
        reader_table("org-a", issuer=OPENID_ISSUER, jwks_file="a.json")
        + reader_table("org-b", issuer=OTHER_ISSUER, jwks_file="b.json"),
        encoding="utf-8",
    )
    settings = Settings(
        profile="demo",
        state_dir=folder,
        callers_file=callers,
        readers_file=readers,
        base_url=SERVICE_URL,
    )
    app = create_app(settings, registry)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield House(client, request)
