"""OpenID Connect tokens of readers (RFC 6750, RFC 9068): whom they let in, and whom never.

Real keys, a real issuer on loopback, and the whole application over a real database.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey, OctKey
from structlog.testing import capture_logs

from cds_service.app import create_app
from cds_service.auth.reader_door import fetch_reader_keys
from cds_service.auth.readers import read_readers
from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.errors import SetupError
from cds_service.settings import Settings
from models.registry import Registry
from tests.issuers import (
    API,
    OPENID_ISSUER,
    SERVICE_URL,
    access_claims,
    access_token,
    caller_table,
    jwks,
    key_of,
    key_server,
    reader_table,
    signed,
)

LIST = "/api/v1/predictions?purpose=HQUALIMP"
KEYS = ("p256-1", "rsa-1", "ec-1")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[TestClient]:
    """A service that believes one issuer for hospital a, and another one for b and c."""
    tmp_path = tmp_path_factory.mktemp("readers")
    keys = jwks(*(key_of(kid) for kid in KEYS))
    (tmp_path / "a.json").write_text(json.dumps(keys), encoding="utf-8")
    (tmp_path / "region.json").write_text(json.dumps(jwks(key_of("p256-r"))), encoding="utf-8")
    region = {"issuer": "https://login.region.dk", "jwks_file": "region.json"}
    tables = reader_table(jwks_file="a.json")
    tables += reader_table("org-b", audience="https://b.example", **region)
    tables += reader_table("org-c", audience="https://c.example", **region)
    with running(tmp_path, registry, tables) as client:
        yield client


def running(folder: Path, registry: Registry, tables: str) -> TestClient:
    """The service with a file of readers."""
    (folder / "readers.toml").write_text(tables, encoding="utf-8")
    settings = Settings(
        profile="demo",
        state_dir=folder,
        readers_file=folder / "readers.toml",
        base_url=SERVICE_URL,
    )
    return TestClient(create_app(settings, registry), raise_server_exceptions=False)


def why_not(client: TestClient, headers: Mapping[str, str]) -> str:
    """The reason our log gives for a refused call; the answer is the bare 401 it always is."""
    with capture_logs() as events:
        answer = client.get(LIST, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert [issue["diagnostics"] for issue in answer.json()["issue"]] == ["not authenticated"]
    (refused,) = [event for event in events if event["event"] == "refused"]
    assert headers.get("Authorization", "no header") not in str(events)
    return str(refused["reason"])


def status_of(client: TestClient, headers: Mapping[str, str]) -> int:
    """The status of a list."""
    return client.get(LIST, headers=headers).status_code


# ---- let in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kid", "alg"), [("p256-1", "ES256"), ("ec-1", "ES384"), ("rsa-1", "RS256"), ("rsa-1", "PS256")]
)
def test_a_token_of_the_hospitals_issuer_lets_in(client: TestClient, kid: str, alg: str) -> None:
    """By each signature agreed upon, and as often as it is shown while it holds."""
    headers = access_token("validator", kid=kid, alg=alg)
    assert [status_of(client, headers) for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "JWT", "jwt", ...])
def test_a_token_may_call_itself_what_issuers_call_it(client: TestClient, typ: Any) -> None:
    """RFC 9068 2.1; older issuers say JWT, or nothing."""
    headers = signed(key_of("p256-1"), access_claims("validator"), alg="ES256", typ=typ)
    assert status_of(client, headers) == 200


def test_an_issuer_of_several_hospitals_tells_them_apart_by_audience(client: TestClient) -> None:
    """A token meant for two would be of two organisations, and is of none."""
    region = {"kid": "p256-r", "iss": "https://login.region.dk"}
    b, c = "https://b.example", "https://c.example"
    assert status_of(client, access_token("validator", aud=b, **region)) == 200
    assert status_of(client, access_token("validator", aud=["x", c], **region)) == 200
    assert why_not(client, access_token("validator", aud=[b, c], **region)) == "audience"


# ---- kept out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://login.nobody.dk"}, "issuer"),
        ({"iss": OPENID_ISSUER + "/"}, "issuer"),
        ({"iss": ...}, "not a JWT"),
        ({"aud": "workbench"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": API + "/"}, "audience"),
        ({"aud": ...}, "not a JWT"),
        ({"sub": ...}, "not a JWT"),
        ({"sub": ""}, "not a JWT"),
        ({"sub": "a" * 129}, "not a JWT"),
        ({"exp": ...}, "not a JWT"),
        ({"iat": ...}, "not a JWT"),
        ({"exp": "tomorrow"}, "not a JWT"),
    ],
)
def test_a_payload_that_is_not_for_here_and_now_is_refused(
    client: TestClient, changes: Mapping[str, Any], reason: str
) -> None:
    """Of another issuer or audience by a letter, or without what every token must say."""
    assert why_not(client, access_token("validator", **changes)) == reason


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"iat": -900, "exp": -61}, "expired"),
        ({"nbf": 90}, "not yet valid"),
        ({"iat": 90}, "not yet valid"),
        ({"iat": -60, "exp": 7300}, "lifetime"),
    ],
)
def test_a_token_that_does_not_hold_now_is_refused(
    client: TestClient, times: Mapping[str, int], reason: str
) -> None:
    """A minute's leeway either way, two hours' life at most."""
    moments: dict[str, Any] = {n: int(time.time()) + offset for n, offset in times.items()}
    assert why_not(client, access_token("validator", **moments)) == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "logout+jwt"}, "typ"),
        ({"typ": "dpop+jwt"}, "typ"),
        ({"jwk": {"kty": "EC"}}, "embedded key"),
        ({"x5u": "https://x.example/c"}, "embedded key"),
        ({"jku": "https://x.example/keys"}, "jku"),
        ({"kid": "nobody's"}, "key"),
        ({"kid": ...}, "not a JWT"),
    ],
)
def test_a_header_that_brings_or_hides_its_key_is_refused(
    client: TestClient, header: Mapping[str, Any], reason: str
) -> None:
    """And so is a token of another kind than one that gives access."""
    payload = access_claims("validator")
    assert why_not(client, signed(key_of("p256-1"), payload, alg="ES256", **header)) == reason


def unsigned(header: Mapping[str, Any], payload: Mapping[str, Any], signature: str) -> str:
    """A JWT put together by hand."""
    parts = [
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, payload)
    ]
    return ".".join([*parts, signature])


@pytest.mark.parametrize("alg", ["none", "None", "HS256"])
def test_none_and_shared_secrets_are_refused(client: TestClient, alg: str) -> None:
    """Whatever stands where the signature should."""
    header = {"alg": alg, "kid": "p256-1", "typ": "at+jwt"}
    token = unsigned(header, access_claims("validator"), "AAAA")
    assert why_not(client, {"Authorization": f"Bearer {token}"}) == "algorithm"


def test_the_public_key_is_no_shared_secret(client: TestClient) -> None:
    """The old trick: sign with HMAC and the published key as its secret."""
    public = urlsafe_b64encode(key_of("rsa-1").as_pem(private=False)).decode()
    secret = OctKey.import_key(public, {"kid": "rsa-1"})
    headers = signed(secret, access_claims("validator"), alg="HS256", typ="at+jwt")
    assert why_not(client, headers) == "algorithm"


def test_a_signature_that_was_not_agreed_upon_is_refused(client: TestClient) -> None:
    """RS512 is a good one, but nobody said that this issuer uses it."""
    assert why_not(client, access_token("validator", kid="rsa-1", alg="RS512")) == "algorithm"


def test_another_key_or_another_payload_is_refused(client: TestClient) -> None:
    """A key made up under a known name; roles changed under an old signature; another issuer's."""
    forged = ECKey.generate_key("P-256", {"kid": "p256-1"})
    assert why_not(client, signed(forged, access_claims("validator"), alg="ES256")) == "signature"
    token = access_token("operator")["Authorization"].removeprefix("Bearer ")
    header, _, signature = token.split(".")
    _, payload, _ = unsigned({}, access_claims("validator"), "").split(".")
    changed = {"Authorization": f"Bearer {header}.{payload}.{signature}"}
    assert why_not(client, changed) == "signature"
    others = access_token("validator", kid="p256-r")
    assert why_not(client, others) == "key"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "no bearer token"),
        ({"Authorization": "Basic " + b64encode(b"anna:secret").decode()}, "no bearer token"),
        ({"Authorization": "Bearer"}, "no bearer token"),
        ({"Authorization": "Bearer x"}, "not a JWT"),
        ({"Authorization": "Bearer " + "a" * 20_000}, "too long"),
    ],
)
def test_who_shows_no_token_is_refused(
    client: TestClient, headers: Mapping[str, str], reason: str
) -> None:
    """On every route of the API, before anything is looked up."""
    assert why_not(client, headers) == reason
    for path in (
        "/api/v1/audit",
        "/api/v1/models",
        f"/api/v1/predictions/{'0' * 8}-0000-0000-0000-{'0' * 12}",
    ):
        assert client.get(path, headers=headers).status_code == 401


def test_a_callers_token_is_no_readers_token(tmp_path: Path, registry: Registry) -> None:
    """Who may ask for cards may not read what was logged, by the same issuer though it be."""
    (tmp_path / "keys.json").write_text(json.dumps(jwks(key_of("ec-1"))), encoding="utf-8")
    (tmp_path / "callers.toml").write_text(
        caller_table(jwks_file="keys.json", issuer=OPENID_ISSUER), encoding="utf-8"
    )
    (tmp_path / "readers.toml").write_text(reader_table(jwks_file="keys.json"), encoding="utf-8")
    settings = Settings(
        profile="demo",
        state_dir=tmp_path,
        callers_file=tmp_path / "callers.toml",
        readers_file=tmp_path / "readers.toml",
        base_url=SERVICE_URL,
    )
    with TestClient(create_app(settings, registry)) as client:
        said = {"jti": "1", "aud": f"{SERVICE_URL}/cds-services"}
        headers = signed(key_of("ec-1"), access_claims("validator", **said))
        assert client.get("/cds-services", headers=headers).status_code == 200
        assert client.get(LIST, headers=headers).status_code == 401


# ---- roles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "payload", "status"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["varsel-validators"]}}, 200),
        (
            "https://varsel.example/roles",
            {"https://varsel.example/roles": ["varsel-validators"]},
            200,
        ),
        ("scope", {"scope": "openid varsel-validators"}, 200),
        ("roles", {"roles": ["validator", "admin", 5, None]}, 403),
        ("roles", {"roles": ...}, 403),
        ("roles", {"roles": {"varsel-validators": True}}, 403),
        ("realm_access.roles", {"realm_access": "varsel-validators"}, 403),
    ],
)
def test_roles_are_read_where_the_file_says_and_by_the_issuers_names(
    tmp_path: Path, registry: Registry, claim: str, payload: Mapping[str, Any], status: int
) -> None:
    """What is not mapped is no role: the reader is known and may read nothing."""
    (tmp_path / "a.json").write_text(json.dumps(jwks(key_of("p256-1"))), encoding="utf-8")
    tables = reader_table(
        jwks_file="a.json", roles_claim=claim, roles={"varsel-validators": "validator"}
    )
    with running(tmp_path, registry, tables) as client:
        assert status_of(client, access_token(**payload)) == status


# ---- keys of the issuer's own ----------------------------------------------------------------


def test_keys_are_found_through_the_issuers_configuration(
    tmp_path: Path, registry: Registry
) -> None:
    """OpenID Connect Discovery: two fetches for the first token, then none."""
    with key_server(key_of("p256-1")) as server:
        issuer = server.url.removesuffix("/keys") + "/realms/hospital"
        server.documents = {
            "/realms/hospital/.well-known/openid-configuration": {
                "issuer": issuer,
                "jwks_uri": server.url,
                "authorization_endpoint": "https://x.example",
            }
        }
        tables = reader_table(issuer=issuer, discovery=True)
        with running(tmp_path, registry, tables) as client:
            headers = access_token("validator", iss=issuer)
            assert [status_of(client, headers) for _ in range(3)] == [200] * 3
        assert server.asked == 2


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ({"issuer": "https://x.example"}, "the configuration is of another issuer"),
        ({"jwks_uri": "http://x.example/keys"}, "jwks_uri: must be https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri: not a plain https URL"),
        ({"jwks_uri": "http://[::1]/keys"}, "its address lies in no network of the caller's"),
        ({"jwks_uri": 5}, "not an OpenID configuration"),
    ],
)
def test_a_configuration_that_leads_elsewhere_is_not_followed(
    tmp_path: Path, registry: Registry, configuration: Mapping[str, Any], why: str
) -> None:
    """Nobody is let in by keys of another place, and our log says what was wrong."""
    with key_server(key_of("p256-1")) as server:
        issuer = server.url.removesuffix("/keys")
        said = {"issuer": issuer, "jwks_uri": server.url, **configuration}
        server.documents = {"/.well-known/openid-configuration": said}
        tables = reader_table(issuer=issuer, discovery=True)
        with running(tmp_path, registry, tables) as client, capture_logs() as events:
            assert status_of(client, access_token("validator", iss=issuer)) == 401
        assert [e["why"] for e in events if e["event"] == "keys not had"] == [why]


def test_keys_are_fetched_from_the_address_in_the_file(tmp_path: Path, registry: Registry) -> None:
    """Once, and again for a key that is not known: a rotated key works at once."""
    with key_server(key_of("p256-1")) as server:
        with running(tmp_path, registry, reader_table(jku=server.url)) as client:
            assert status_of(client, access_token("validator")) == 200
            server.keys = jwks(key_of("p256-2"))
            assert status_of(client, access_token("validator", kid="p256-2")) == 200
        assert server.asked == 2


# ---- the file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "issuer"),
        (reader_table(), "discovery, jku or jwks_file: one of the three"),
        (reader_table(jku="https://x.example", discovery=True), "one of the three"),
        (reader_table(jku="http://x.example/keys"), "jku: must be https"),
        (reader_table(issuer="not a url", discovery=True), "issuer"),
        (reader_table(issuer="http://x.example", discovery=True), "issuer: must be https"),
        (reader_table(jwks_file="nothing.json"), "jwks_file: No such file"),
        (reader_table(discovery=True, algorithms=["HS256"]), "algorithms"),
        (reader_table(discovery=True, algorithms=["none"]), "algorithms"),
        (reader_table(discovery=True, algorithms=[]), "algorithms"),
        (reader_table(discovery=True, networks=["10.0.0.0/33"]), "networks"),
        (reader_table(discovery=True, roles={"x": "root"}), "roles"),
        (reader_table(discovery=True, surprise=1), "surprise"),
        (reader_table(discovery=True) * 2, "an issuer twice with one audience"),
        (reader_table(discovery=True) + "[", "VARSEL_READERS_FILE"),
    ],
)
def test_a_fault_in_the_file_stops_the_start(tmp_path: Path, table: str, said: str) -> None:
    """With a line that names the issuer and the field."""
    file = tmp_path / "readers.toml"
    file.write_text(table, encoding="utf-8")
    with pytest.raises(SetupError, match="VARSEL_READERS_FILE: ") as fault:
        read_readers(file)
    assert said in str(fault.value)


# ---- profiles -------------------------------------------------------------------------------


def in_production(folder: Path, **given: Any) -> Settings:
    """Settings of the production profile, its database there."""
    (folder / "callers.toml").write_text(
        caller_table(jku="https://ehr.example/keys", networks=...), encoding="utf-8"
    )
    key = b64encode(bytes(32)).decode()
    settings = Settings(
        profile="production",
        database_url=f"sqlite:///{folder / 'varsel.db'}",
        callers_file=folder / "callers.toml",
        pseudonym_key=key,
        seal_key=key,
        allow_synthetic_models=True,
        **given,
    )
    engine = open_engine(settings.database)
    upgrade(engine)
    engine.dispose()
    return settings


def test_in_production_nobody_reads_without_a_file_of_readers(
    tmp_path: Path, registry: Registry
) -> None:
    """Denied by default, token or none."""
    with TestClient(create_app(in_production(tmp_path), registry)) as client:
        assert why_not(client, {}) == "no bearer token"
        assert why_not(client, access_token("validator")) == "issuer"


def test_in_production_an_issuer_on_loopback_stops_the_start(
    tmp_path: Path, registry: Registry
) -> None:
    """As it does for callers."""
    file = tmp_path / "readers.toml"
    file.write_text(reader_table(discovery=True), encoding="utf-8")
    with pytest.raises(SetupError, match="holds loopback addresses"):
        create_app(in_production(tmp_path, readers_file=file), registry)


def test_doctor_fetches_the_issuers_keys(tmp_path: Path) -> None:
    """And names the issuer whose keys cannot be had, before anybody is kept out."""
    with key_server(key_of("p256-1")) as server:
        (tmp_path / "readers.toml").write_text(reader_table(jku=server.url), encoding="utf-8")
        readers = read_readers(tmp_path / "readers.toml")
        name = f"{OPENID_ISSUER} ({API})"
        assert asyncio.run(fetch_reader_keys(readers)) == {name: ""}
        server.status = 503
        assert asyncio.run(fetch_reader_keys(readers)) == {name: "answered 503"}


def test_in_the_demo_profile_everybody_on_the_machine_reads(client_open: TestClient) -> None:
    """As the demo organisation, in every role; with a purpose all the same."""
    assert client_open.get(LIST).status_code == 200
    assert client_open.get("/api/v1/audit?purpose=HCOMPL").status_code == 200
    assert client_open.get("/api/v1/predictions").status_code == 400


@pytest.fixture
def client_open(tmp_path: Path, registry: Registry) -> Iterator[TestClient]:
    """The demo service as `make run` starts it."""
    settings = Settings(profile="demo", state_dir=tmp_path)
    with TestClient(create_app(settings, registry)) as client:
        yield client
