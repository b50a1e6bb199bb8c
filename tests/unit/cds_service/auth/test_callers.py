"""The file of callers: what is read, and what is refused with caller and field named."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from cds_service.auth.callers import Caller, FhirBase, JwtTrust, Policy, read_callers
from cds_service.auth.door import fetch_all_keys
from cds_service.errors import SetupError
from tests.issuers import caller_table, jwks, key_of, key_server

DIGEST = hashlib.sha256(b"token").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
WHOLE = """
[[caller]]
name = "sp-test"
organisation = "1234567890123456"
unit = "ward-a"
[caller.jwt]
issuer = "https://fhir.example.dk/api/FHIR/R4"
subject = "client-id"
tenant = "t"
audiences = ["https://varsel.example.dk/cds-services/readmission-30d"]
jku = "https://fhir.example.dk/keys?appid=1"
algorithms = ["RS384"]
networks = ["10.0.0.0/8"]
[[caller.fhir]]
base = "https://fhir.example.dk/api/FHIR/R4"
networks = ["10.20.0.0/16"]
[caller.policy]
deadline_ms = 1500
language = "en"
insufficient = "silent"
[caller.prefetch_keys.readmission-30d]
conds = "conditions"
"""


def caller(name: str = "a", digest: str = DIGEST, more: str = "") -> str:
    """One table of the file."""
    return f'[[caller]]\nname = "{name}"\norganisation = "o"\ntoken_sha256 = "{digest}"\n{more}\n'


def by_jwt(fields: str, name: str = "a", more: str = "") -> str:
    """One table of a caller with JWTs."""
    head = f'[[caller]]\nname = "{name}"\norganisation = "o"\n{more}\n'
    return f'{head}[caller.jwt]\nissuer = "https://i.example"\n{fields}\n'


def by_jku(fields: str, name: str = "a") -> str:
    """The same with an address of keys."""
    return by_jwt(f'jku = "https://i.example/keys"\n{fields}', name)


def written(folder: Path, text: str) -> Path:
    """The file with that text."""
    path = folder / "callers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_caller_is_known_by_its_token(tmp_path: Path) -> None:
    """With its organisation and unit; a token's hash is no token."""
    path = written(tmp_path, caller("a", DIGEST, 'unit = "ward"') + caller("b", OTHER))
    callers = read_callers(path)
    found = callers.with_token("token")
    assert found is not None
    assert (found.name, found.organisation, found.unit) == ("a", "o", "ward")
    assert [callers.with_token(token) for token in ("", "tokens", DIGEST)] == [None] * 3


def test_everything_a_caller_may_say_is_read(tmp_path: Path) -> None:
    """Field by field."""
    (read,) = read_callers(written(tmp_path, WHOLE)).listed
    assert read == Caller(
        name="sp-test",
        organisation="1234567890123456",
        unit="ward-a",
        jwt=JwtTrust(
            issuer="https://fhir.example.dk/api/FHIR/R4",
            subject="client-id",
            tenant="t",
            audiences=("https://varsel.example.dk/cds-services/readmission-30d",),
            jku="https://fhir.example.dk/keys?appid=1",
            algorithms=("RS384",),
            networks=("10.0.0.0/8",),
        ),
        fhir=(FhirBase(base="https://fhir.example.dk/api/FHIR/R4", networks=("10.20.0.0/16",)),),
        policy=Policy(deadline_ms=1500, language="en", insufficient="silent"),
        prefetch_keys={"readmission-30d": {"conds": "conditions"}},
    )


def test_what_a_caller_leaves_out_has_a_default(tmp_path: Path) -> None:
    """RS384 and ES384, 2.5 s, the service's language, a card where data are insufficient."""
    (read,) = read_callers(written(tmp_path, by_jku(""))).listed
    assert read.jwt is not None
    assert read.jwt.algorithms == ("RS384", "ES384")
    assert read.policy == Policy(deadline_ms=2500, language=None, insufficient="card")
    assert (read.fhir, read.prefetch_keys) == ((), {})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "caller"),
        ("caller = []", "caller"),
        ("caller = 5", "caller"),
        ("[[caller]]\n", "name"),
        ("[[caller]", "Expected"),
        (caller(digest="abc"), "a: .*token_sha256"),
        (caller(digest=DIGEST.upper()), "a: .*token_sha256"),
        (caller(digest=f"{DIGEST}\\n"), "a: .*token_sha256"),
        (caller(name=""), "name"),
        (caller(name="x" * 65), "name"),
        (caller(more="password = 'x'"), "a: .*password"),
        (caller(more="unit = 5"), "a: .*unit"),
        (caller() + caller("b"), "two callers of one token_sha256"),
        (caller() + caller("a", OTHER), "two callers of one name"),
        ('[[caller]]\nname = "a"\norganisation = "o"\n', "a: token_sha256 is missing"),
        (by_jwt("jku = 'https://k.example'", more=f"token_sha256 = '{DIGEST}'"), "one of the two"),
        (by_jwt(""), "a: jwt: jku or jwks_file is missing"),
        (by_jku("secret = 'x'"), "a: .*secret"),
        (by_jku("algorithms = ['none']"), r"a: .*jwt\.algorithms"),
        (by_jku("algorithms = ['HS384']"), r"a: .*jwt\.algorithms"),
        (by_jku("algorithms = []"), r"a: .*jwt\.algorithms"),
        (by_jku("audiences = ['with space']"), r"a: .*jwt\.audiences"),
        (by_jku('audiences = ["line\\n"]'), r"a: .*jwt\.audiences"),
        (by_jku("networks = ['10.0.0.1/8']"), r"a: jwt\.networks: .*host bits"),
        (by_jwt("jku = 'http://k.example/keys'"), r"a: jwt\.jku: must be https"),
        (by_jwt("jku = 'ftp://k.example/keys'"), r"a: jwt\.jku: not a plain https URL"),
        (by_jwt("jku = 'https://u:p@k.example/'"), r"a: jwt\.jku: not a plain https URL"),
        (by_jwt("jku = 'https://k.example:x/'"), r"a: jwt\.jku: not a URL"),
        (by_jwt("jwks_file = 'nowhere.json'"), r"a: jwt\.jwks_file: No such file"),
        (by_jku("") + by_jku("", "b"), "a and b share a jwt.issuer"),
        (by_jku("subject = 's'") + by_jku("", "b"), "a and b share a jwt.issuer"),
        (by_jku("subject = 's'") + by_jku("tenant = 't'", "b"), "a and b share a jwt.issuer"),
        (caller(more="[[caller.fhir]]\nbase = 'http://f.example/R4'"), r"a: fhir\.base: must be"),
        (caller(more="[[caller.fhir]]\nbase = 'https://f.example/%52'"), r"a: fhir\.base: not a"),
        (caller(more="[[caller.fhir]]\nbase = 'https://f.example?x=1'"), r"a: fhir\.base: not a"),
        (
            caller(
                more="[[caller.fhir]]\nbase = 'https://f/'\n[[caller.fhir]]\nbase = 'https://f'"
            ),
            r"a: fhir\.base: the same twice",
        ),
        (
            caller(more="[[caller.fhir]]\nbase = 'https://f/'\nnetworks = ['ward']"),
            r"a: fhir\.networks",
        ),
        (caller(more="[caller.policy]\ndeadline_ms = 50"), r"a: .*policy\.deadline_ms"),
        (caller(more="[caller.policy]\nlanguage = 'sv'"), r"a: .*policy\.language"),
        (caller(more="[caller.policy]\ninsufficient = 'no'"), r"a: .*policy\.insufficient"),
        (caller(more="[caller.prefetch_keys.m]\na = 'c'\nb = 'c'"), r"a: prefetch_keys\.m"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, named: str) -> None:
    """The message names the setting, the caller and the field."""
    with pytest.raises(SetupError, match=named) as refused:
        read_callers(written(tmp_path, text))
    assert str(refused.value).startswith("VARSEL_CALLERS_FILE: ")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    """In one line, not with a traceback."""
    with pytest.raises(SetupError, match="No such file"):
        read_callers(tmp_path / "nowhere.toml")
    (tmp_path / "callers.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match="VARSEL_CALLERS_FILE"):
        read_callers(tmp_path / "callers.toml")


def test_keys_beside_the_file_are_read_with_it(tmp_path: Path) -> None:
    """At the start; what is no set of public keys stops it."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(jwks(key_of("ec-1"))), encoding="utf-8")
    path = written(tmp_path, by_jwt("jwks_file = 'keys.json'"))
    assert set(read_callers(path).pinned["a"]) == {("ec-1", "EC")}
    keys.write_text(json.dumps({"keys": [key_of("ec-1").as_dict(private=True)]}), encoding="utf-8")
    with pytest.raises(SetupError, match=r"a: jwt\.jwks_file: holds a private key"):
        read_callers(path)


def test_the_doctor_says_whose_keys_cannot_be_had(tmp_path: Path) -> None:
    """Caller, field and why; "" for those that can."""
    with key_server(key_of("ec-1")) as good, key_server() as empty:
        path = written(
            tmp_path,
            caller_table("good", jku=good.url)
            + caller_table("empty", issuer="https://e.example", jku=empty.url)
            + caller("bearer"),
        )
        assert asyncio.run(fetch_all_keys(read_callers(path))) == {
            "good": "",
            "empty": "no key with a kid that can check signatures",
        }


@pytest.mark.parametrize(
    "others", ["subject = 's2'", "subject = 's'\ntenant = 't2'", "tenant = 't2'"]
)
def test_callers_may_share_an_issuer_that_tells_them_apart(tmp_path: Path, others: str) -> None:
    """By a subject or tenant that both name and that differs."""
    text = by_jku("subject = 's'\ntenant = 't'") + by_jku(others, "b")
    assert len(read_callers(written(tmp_path, text)).listed) == 2
