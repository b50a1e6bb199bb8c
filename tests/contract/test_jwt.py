"""JWT client trust (CDS Hooks 2.0.1, "Trusting CDS Clients"): who is let in, and who never is.

Real keys, a real server of JWKS on loopback, and the whole application over a real database.
"""

from __future__ import annotations

import json
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey, OctKey
from structlog.testing import capture_logs

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry
from tests.issuers import (
    HOOK_PATH,
    ISSUER,
    SERVICE_URL,
    KeyServer,
    caller_table,
    claims,
    jwks,
    key_of,
    key_server,
    signed,
)

Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
Logged = Callable[[], list[Any]]
OTHER_ISSUER = "https://other.example.dk/fhir"


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    """The issuer's JWKS, with an EC and an RSA key."""
    with key_server(key_of("ec-1"), key_of("rsa-1")) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, registry: Registry, keys: KeyServer) -> Iterator[TestClient]:
    """The service with callers of two issuers, the second with keys of its own from a file."""
    (tmp_path / "other.json").write_text(json.dumps(jwks(key_of("other"))), encoding="utf-8")
    file = tmp_path / "callers.toml"
    file.write_text(
        caller_table(jku=keys.url, audiences=["typed-by-hand"])
        + caller_table("other", "org-b", issuer=OTHER_ISSUER, jwks_file="other.json"),
        encoding="utf-8",
    )
    with running(tmp_path, file, registry) as client:
        yield client


def running(folder: Path, callers_file: Path, registry: Registry) -> TestClient:
    """The service with a file of callers, and replay allowed so that the demo request scores."""
    settings = Settings(
        profile="demo", state_dir=folder, callers_file=callers_file, base_url=SERVICE_URL
    )
    return TestClient(create_app(settings, registry), raise_server_exceptions=False)


def offered(client: TestClient, headers: Mapping[str, str]) -> int:
    """The status of a call of discovery: the smallest call that needs a caller."""
    return client.get("/cds-services", headers=headers).status_code


def discovery(**changes: Any) -> dict[str, Any]:
    """The payload of a token for discovery."""
    return claims("/cds-services", **changes)


def why_not(client: TestClient, headers: Mapping[str, str]) -> str:
    """The reason our log gives for a refused call; the answer is the bare 401 it always is."""
    with capture_logs() as events:
        answer = client.get("/cds-services", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert [issue["diagnostics"] for issue in answer.json()["issue"]] == ["not authenticated"]
    token = headers["Authorization"].removeprefix("Bearer ")
    assert token not in str(events)
    (refused,) = [event for event in events if event["event"] == "refused"]
    return str(refused["reason"])


# ---- who is let in --------------------------------------------------------------------------


@pytest.mark.parametrize("kid", ["ec-1", "rsa-1"])
def test_r32_a_jwt_lets_a_caller_call_and_discover(
    client: TestClient, changed: Changed, kid: str, rows: Logged
) -> None:
    """ES384 and RS384; what it sends is logged under its organisation and unit."""
    key = key_of(kid)
    assert offered(client, signed(key, discovery())) == 200
    answer = client.post(HOOK_PATH, json=changed({}), headers=signed(key, claims()))
    assert answer.status_code == 200
    (row,) = rows()
    assert (row["caller"], row["organisation"], row["unit"]) == ("sp-test", "org-a", "ward")


def test_r07_discovery_wants_its_own_audience(client: TestClient) -> None:
    """A token for a service is none for discovery, nor the other way round."""
    assert offered(client, signed(key_of("ec-1"), discovery())) == 200
    assert why_not(client, signed(key_of("ec-1"), claims())) == "audience"
    for_discovery = signed(key_of("ec-1"), discovery())
    assert client.post(HOOK_PATH, content=b"{}", headers=for_discovery).status_code == 401


@pytest.mark.parametrize("typ", ["JWT", "jwt", ...])
def test_r33_typ_is_jwt_or_left_out(client: TestClient, typ: Any) -> None:
    """Epic's and the sandbox's; anything else was made for another purpose."""
    assert offered(client, signed(key_of("ec-1"), discovery(), typ=typ)) == 200
    assert why_not(client, signed(key_of("ec-1"), discovery(), typ="at+jwt")) == "typ"


@pytest.mark.parametrize(
    ("aud", "let_in"),
    [
        (f"{SERVICE_URL}/cds-services", True),
        (["https://elsewhere.example", f"{SERVICE_URL}/cds-services"], True),
        ("typed-by-hand", True),
        (["typed-by-hand"], True),
        (f"{SERVICE_URL}/cds-services/", False),
        (f"{SERVICE_URL}/cds-services/other", False),
        ("https://elsewhere.example/cds-services", False),
        ([], False),
    ],
)
def test_r33_audience_is_the_url_called(client: TestClient, aud: Any, let_in: bool) -> None:
    """As a string or within an array; or a string registered for the caller, letter by letter."""
    headers = signed(key_of("ec-1"), discovery(aud=aud))
    if let_in:
        assert offered(client, headers) == 200
    else:
        assert why_not(client, headers) == "audience"


@pytest.mark.parametrize("missing", ["iss", "aud", "exp", "iat", "jti"])
def test_r33_every_required_claim_is_required(client: TestClient, missing: str) -> None:
    """A token without one of them is no JWT of a CDS client."""
    assert why_not(client, signed(key_of("ec-1"), discovery(**{missing: ...}))) == "not a JWT"


def test_r33_kid_is_required(client: TestClient) -> None:
    """Which key signed is said, not tried out."""
    assert why_not(client, signed(key_of("ec-1"), discovery(), kid=...)) == "not a JWT"


# ---- times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"iat": -900, "exp": -61}, "expired"),
        ({"iat": -900, "exp": -30}, None),
        ({"iat": 61 + 5, "exp": 900}, "not yet valid"),
        ({"iat": 30, "exp": 900}, None),
        ({"nbf": 61 + 5}, "not yet valid"),
        ({"nbf": 30}, None),
        ({"iat": 0, "exp": 3605}, "lifetime"),
        ({"iat": -5, "exp": 3595}, None),
        ({"iat": -10 * 365 * 86_400, "exp": 900}, "lifetime"),
    ],
)
def test_r36_tokens_hold_for_their_time(
    client: TestClient, times: Mapping[str, int], reason: str | None
) -> None:
    """A minute's leeway either way, an hour's life at most (Epic: 900 s)."""
    now = int(time.time())
    moments = {name: now + offset for name, offset in times.items()}
    headers = signed(key_of("ec-1"), discovery(**{"nbf": ..., **moments}))
    if reason is None:
        assert offered(client, headers) == 200
    else:
        assert why_not(client, headers) == reason


# ---- algorithms and keys --------------------------------------------------------------------


def unsigned(header: Mapping[str, Any], payload: Mapping[str, Any], signature: str = "") -> str:
    """A JWT put together by hand."""
    parts = [
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, payload)
    ]
    return ".".join([*parts, signature])


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "HS384"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_r34_none_and_symmetric_algorithms_are_refused(
    client: TestClient, alg: str, signature: str
) -> None:
    """Whatever stands where the signature should."""
    token = unsigned({"alg": alg, "kid": "ec-1", "typ": "JWT"}, discovery(), signature)
    reason = "algorithm" if signature else "not a JWT"
    assert why_not(client, {"Authorization": f"Bearer {token}"}) == reason


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_r34_the_public_key_is_no_shared_secret(client: TestClient, alg: str) -> None:
    """The old trick: sign with HMAC and the published key as its secret."""
    public = key_of("rsa-1").as_pem(private=False)
    secret = OctKey.import_key(urlsafe_b64encode(public).decode(), {"kid": "rsa-1"})
    assert why_not(client, signed(secret, discovery(), alg=alg)) == "algorithm"


@pytest.mark.parametrize("alg", ["RS256", "RS512", "PS384"])
def test_r34_only_agreed_algorithms_count(client: TestClient, alg: str) -> None:
    """Others only where the caller's table names them."""
    assert why_not(client, signed(key_of("rsa-1"), discovery(), alg=alg)) == "algorithm"


def test_r34_a_site_may_agree_on_another_algorithm(tmp_path: Path, registry: Registry) -> None:
    """RS256 where registered, and then nothing else."""
    (tmp_path / "keys.json").write_text(json.dumps(jwks(key_of("rsa-1"))), encoding="utf-8")
    file = tmp_path / "callers.toml"
    file.write_text(caller_table(jwks_file="keys.json", algorithms=["RS256"]), encoding="utf-8")
    key = key_of("rsa-1")
    with running(tmp_path, file, registry) as client:
        assert offered(client, signed(key, discovery(), alg="RS256")) == 200
        assert why_not(client, signed(key, discovery())) == "algorithm"


@pytest.mark.parametrize("part", ["jwk", "x5c", "x5u"])
def test_r35_a_key_in_the_header_is_refused(client: TestClient, part: str) -> None:
    """Who sends the key along proves nothing but that they have one."""
    mine = key_of("mine")
    brought: dict[str, Any] = {
        "jwk": mine.as_dict(private=False),
        "x5c": ["MIIB"],
        "x5u": "https://x.example/c",
    }
    headers = signed(mine, discovery(), **{part: brought[part]})
    assert why_not(client, headers) == "embedded key"


def test_r35_a_jku_counts_only_as_registered(client: TestClient, keys: KeyServer) -> None:
    """Of another host it is refused, and nothing is fetched from there."""
    with key_server(key_of("mine")) as elsewhere:
        headers = signed(key_of("mine"), discovery(), jku=elsewhere.url)
        assert why_not(client, headers) == "jku"
        assert elsewhere.asked == 0
    for jku in (keys.url + "/", keys.url.replace("keys", "KEYS"), keys.url + "?x=1"):
        assert why_not(client, signed(key_of("ec-1"), discovery(), jku=jku)) == "jku"
    assert offered(client, signed(key_of("ec-1"), discovery(), jku=keys.url)) == 200


def test_r35_keys_from_a_file_are_the_only_ones(tmp_path: Path, registry: Registry) -> None:
    """A `jku` registered beside them is what a header may say, as Epic does; it is not fetched."""
    (tmp_path / "keys.json").write_text(json.dumps(jwks(key_of("ec-1"))), encoding="utf-8")
    file = tmp_path / "callers.toml"
    with key_server(key_of("ec-2")) as keys:
        file.write_text(caller_table(jwks_file="keys.json", jku=keys.url), encoding="utf-8")
        with running(tmp_path, file, registry) as client:
            assert offered(client, signed(key_of("ec-1"), discovery(), jku=keys.url)) == 200
            assert why_not(client, signed(key_of("ec-2"), discovery(), jku=keys.url)) == "key"
            elsewhere = signed(key_of("ec-1"), discovery(), jku="https://x.example/keys")
            assert why_not(client, elsewhere) == "jku"
        assert keys.asked == 0


@pytest.mark.parametrize("source", ["addresses", "files"])
def test_r35_sites_whose_keys_come_the_same_way_are_kept_apart(
    tmp_path: Path, registry: Registry, source: str
) -> None:
    """Each key is its own site's alone, whether all keys lie in files or behind addresses."""
    ours, theirs = key_of("ec-1"), key_of("other")
    file = tmp_path / "callers.toml"
    with key_server(ours) as one, key_server(theirs) as two:
        tables = []
        for name, iss, key, server in (
            ("one", ISSUER, ours, one),
            ("two", OTHER_ISSUER, theirs, two),
        ):
            (tmp_path / f"{name}.json").write_text(json.dumps(jwks(key)), encoding="utf-8")
            keys = {"jku": server.url} if source == "addresses" else {"jwks_file": f"{name}.json"}
            tables.append(caller_table(name, f"org-{name}", issuer=iss, **keys))
        file.write_text("".join(tables), encoding="utf-8")
        with running(tmp_path, file, registry) as client:
            assert offered(client, signed(ours, discovery(iss=ISSUER))) == 200
            assert offered(client, signed(theirs, discovery(iss=OTHER_ISSUER))) == 200
            assert why_not(client, signed(theirs, discovery(iss=ISSUER))) == "key"
            assert why_not(client, signed(ours, discovery(iss=OTHER_ISSUER))) == "key"


def test_r35_a_key_proves_only_its_own_issuer(client: TestClient) -> None:
    """The other site's key, good as it is, signs nothing for this one."""
    other = key_of("other")
    assert offered(client, signed(other, discovery(iss=OTHER_ISSUER))) == 200
    assert why_not(client, signed(other, discovery(iss=ISSUER))) == "key"
    assert why_not(client, signed(other, discovery(iss=ISSUER), kid="ec-1")) == "signature"
    assert why_not(client, signed(key_of("ec-1"), discovery(iss=OTHER_ISSUER))) == "key"
    assert why_not(client, signed(other, discovery(iss="https://nobody.example"))) == "issuer"


def test_r36_a_rotated_key_is_found_and_unknown_ones_are_not_sought_again_and_again(
    client: TestClient, keys: KeyServer
) -> None:
    """One fetch for the first call, one for a key that is not known; then none for a minute."""
    assert offered(client, signed(key_of("ec-1"), discovery())) == 200
    assert offered(client, signed(key_of("ec-1"), discovery())) == 200
    assert keys.asked == 1
    keys.keys = jwks(key_of("ec-1"), key_of("ec-2"))
    assert offered(client, signed(key_of("ec-2"), discovery())) == 200
    assert keys.asked == 2
    for kid in ("ec-3", "ec-4", "ec-5"):
        assert why_not(client, signed(key_of(kid), discovery())) == "key"
    assert keys.asked == 2
    assert offered(client, signed(key_of("ec-1"), discovery())) == 200


def test_r36_known_keys_serve_while_their_address_is_down(
    client: TestClient, keys: KeyServer
) -> None:
    """Calls go on; a key that is not known is refused, aloud in our log."""
    assert offered(client, signed(key_of("ec-1"), discovery())) == 200
    keys.status = 503
    with capture_logs() as events:
        assert offered(client, signed(key_of("ec-9"), discovery())) == 401
    (failed,) = [event for event in events if event["event"] == "keys not had"]
    assert (failed["issuer"], failed["why"]) == (ISSUER, "answered 503")
    assert offered(client, signed(key_of("ec-1"), discovery())) == 200


# ---- what is no token -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        ("Bearer " + "a" * 20_000, "too long"),
        ("Bearer x", "not a JWT"),
        ("Bearer a.b.c", "not a JWT"),
        ("Bearer ....", "not a JWT"),
        ("Bearer " + unsigned({}, {}, "AAAA"), "not a JWT"),
        ("Bearer " + unsigned({"alg": 5, "kid": {}}, {"iss": []}, "AAAA"), "not a JWT"),
        ("Bearer " + "e30." * 3, "not a JWT"),
        ("Basic a.b.c", "no bearer token"),
        ("Bearer", "no bearer token"),
    ],
)
def test_r36_garbage_is_refused(client: TestClient, authorization: str, reason: str) -> None:
    """With the same 401 as everything else, and without a 500."""
    assert why_not(client, {"Authorization": authorization}) == reason


def test_r36_a_changed_token_is_refused(client: TestClient) -> None:
    """One claim exchanged under the old signature."""
    token = signed(key_of("ec-1"), discovery())["Authorization"].removeprefix("Bearer ")
    header, _, signature = token.split(".")
    _, other, _ = unsigned({}, discovery(sub="somebody"), signature).split(".")
    changed = f"Bearer {header}.{other}.{signature}"
    assert why_not(client, {"Authorization": changed}) == "signature"


def test_r36_an_extension_nobody_understands_is_refused(client: TestClient) -> None:
    """`crit` names what must be understood (RFC 7515 4.1.11); we understand none of it."""
    header = {"alg": "ES384", "kid": "ec-1", "crit": ["b64"], "b64": False}
    token = unsigned(header, discovery(), "AAAA")
    assert why_not(client, {"Authorization": f"Bearer {token}"}) == "critical header"


def test_r36_two_authorization_headers_are_refused(client: TestClient) -> None:
    """A proxy may have looked at the other one."""
    one = signed(key_of("ec-1"), discovery())["Authorization"].encode()
    twice = [(b"authorization", one), (b"authorization", one)]
    assert client.get("/cds-services", headers=twice).status_code == 401


# ---- callers of one issuer ------------------------------------------------------------------


def test_r36_callers_of_one_issuer_are_told_apart(
    tmp_path: Path, registry: Registry, keys: KeyServer, changed: Changed, rows: Logged
) -> None:
    """By subject or by tenant; one that is neither is nobody."""
    file = tmp_path / "callers.toml"
    file.write_text(
        caller_table("one", "org-1", jku=keys.url, subject="client-1")
        + caller_table("two", "org-2", jku=keys.url, subject="client-2", tenant="t"),
        encoding="utf-8",
    )
    with running(tmp_path, file, registry) as client:
        for said in ({"sub": "client-1"}, {"sub": "client-2", "tenant": "t"}):
            headers = signed(key_of("ec-1"), claims(**said))
            assert client.post(HOOK_PATH, json=changed({}), headers=headers).status_code == 200
        strangers: list[dict[str, Any]] = [
            {"sub": "client-3"},
            {"sub": ...},
            {"sub": "client-2", "tenant": "u"},
        ]
        for said in strangers:
            headers = signed(key_of("ec-1"), discovery(**said))
            assert why_not(client, headers) == "subject or tenant"
    assert [(row["caller"], row["organisation"]) for row in rows()] == [
        ("one", "org-1"),
        ("two", "org-2"),
    ]
    assert keys.asked == 1


# ---- tokens are used once -------------------------------------------------------------------


def test_r36_a_token_is_good_for_one_body(
    client: TestClient, changed: Changed, rows: Logged
) -> None:
    """The same body again is a retry and gets the stored answer; another one is a replay, and
    nothing of it is kept."""
    headers, request = signed(key_of("ec-1"), claims()), changed({})
    first = client.post(HOOK_PATH, json=request, headers=headers)
    again = client.post(HOOK_PATH, json=request, headers=headers)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    replay = client.post(HOOK_PATH, json=changed({}), headers=headers)
    assert replay.status_code == 401
    assert len(rows()) == 1


@pytest.mark.parametrize("change", [{"context": ...}, {"prefetch": {}}])
def test_r36_a_token_is_used_by_a_refused_call_too(
    client: TestClient, changed: Changed, rows: Logged, change: Mapping[str, Any]
) -> None:
    """400 and 412 are answers; and a replay learns nothing about its own body."""
    headers = signed(key_of("ec-1"), claims())
    request = changed(change)
    refused = client.post(HOOK_PATH, json=request, headers=headers)
    assert refused.status_code in (400, 412)
    assert client.post(HOOK_PATH, json=request, headers=headers).status_code == refused.status_code
    for body in (changed({}), changed(change)):
        assert client.post(HOOK_PATH, json=body, headers=headers).status_code == 401
    assert rows() == []


def test_r36_a_jti_belongs_to_its_issuer(client: TestClient, changed: Changed) -> None:
    """Two issuers may by chance, or by intent, use one jti; neither locks the other out."""
    jti = str(uuid.uuid4())
    for kid, issuer in (("ec-1", ISSUER), ("other", OTHER_ISSUER)):
        headers = signed(key_of(kid), claims(iss=issuer, jti=jti))
        assert client.post(HOOK_PATH, json=changed({}), headers=headers).status_code == 200


def test_r36_an_unproven_token_claims_nothing(client: TestClient, changed: Changed) -> None:
    """Otherwise anybody who guesses a jti could lock its owner out."""
    payload = claims()
    forged = signed(ECKey.generate_key("P-384", {"kid": "ec-1"}), payload)
    assert client.post(HOOK_PATH, json=changed({}), headers=forged).status_code == 401
    good = signed(key_of("ec-1"), payload)
    assert client.post(HOOK_PATH, json=changed({}), headers=good).status_code == 200


def test_r36_a_discovery_token_may_be_used_again(client: TestClient) -> None:
    """It has no body to be exchanged."""
    headers = signed(key_of("ec-1"), discovery())
    assert [offered(client, headers) for _ in range(2)] == [200, 200]


def test_r36_nobody_unknown_makes_us_read_a_body(client: TestClient) -> None:
    """The 401 comes before the first byte of it is asked for."""
    read: list[str] = []
    app, sent = client.app, []

    async def receive() -> dict[str, Any]:
        read.append("asked")
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"20000000")]
    scope = {
        "type": "http", "method": "POST", "path": HOOK_PATH, "raw_path": HOOK_PATH.encode(),
        "query_string": b"", "root_path": "", "headers": headers, "scheme": "https",
        "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    assert client.portal is not None
    client.portal.call(app, scope, receive, send)
    assert sent[0]["status"] == 401
    assert read == []
