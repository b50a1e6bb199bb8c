"""The registered name is proved by its certificate, although the connection goes to an address."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fhir_adapters.client.fetch import Access, Allowance, FhirClient
from fhir_adapters.client.guard import parse_base
from fhir_adapters.errors import FetchFailed
from tests.servers.tiny import Asked, Tiny, bundle, response, serving

NAME = "ehr.example"


def certificate_for(name: str, folder: Path) -> ssl.SSLContext:
    """A server's context for a name, and the certificate that proves it in `trusted.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "trusted.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context


async def loopback(_host: str, _port: int) -> Sequence[str]:
    """Every name leads here."""
    return ["127.0.0.1"]


def asked_over_tls(tls: ssl.SSLContext) -> tuple[bytes | FetchFailed, Tiny]:
    """What one request gets from a TLS server under the registered name."""

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(response(bundle("a")))

    async def run() -> tuple[bytes | FetchFailed, Tiny]:
        async with serving(answer, tls) as server:
            base = parse_base(f"https://{NAME}:{server.port}/fhir")
            assert base is not None
            client = FhirClient(look_up=loopback)
            access = Access(base, (ip_network("127.0.0.0/8"),), "token")
            try:
                return await client.get(
                    f"{base.url}/Condition?x=1", access, Allowance(10**6)
                ), server
            except FetchFailed as failure:
                return failure, server
            finally:
                await client.aclose()

    return asyncio.run(run())


def test_the_certificate_is_held_against_the_registered_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not against the address; a site's own authority is trusted through SSL_CERT_FILE."""
    tls = certificate_for(NAME, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    body, server = asked_over_tls(tls)
    assert isinstance(body, bytes)
    assert [asked.headers["host"] for asked in server.asked] == [f"{NAME}:{server.port}"]


@pytest.mark.parametrize("kind", ["another name", "nobody we trust"])
def test_who_cannot_prove_the_name_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Neither the token nor the question is sent."""
    tls = certificate_for("evil.example" if kind == "another name" else NAME, tmp_path)
    if kind == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    failure, server = asked_over_tls(tls)
    assert str(failure) == "the FHIR server's certificate is not one trusted here"
    assert server.asked == []
