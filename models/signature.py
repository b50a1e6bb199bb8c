"""Ed25519 signatures of packages that are exchanged: keys, publishers, what exactly is signed.

What is signed is a domain of its own, who says it, of which kind the archive is and when, and the
bytes of SHA256SUMS, which name every file with its checksum. So a package cannot be passed for a
specification, nor the other way, and a signature made for anything else is none of these. Pure over
bytes; files are the callers' (models/exchange.py, `varsel models keygen`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tomllib
from collections import Counter
from typing import Annotated, Literal, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from models.errors import SignatureRefused

DOMAIN = b"dk.varsel.package-archive.v1"
ALGORITHM: Literal["Ed25519"] = "Ed25519"
KEY_ID_DIGITS = 16
KEY_BYTES = 32
ArchiveKind = Literal["package", "specification"]
KeyId = Annotated[str, msgspec.Meta(pattern=rf"\A[0-9a-f]{{{KEY_ID_DIGITS}}}\Z")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a signature says besides the files: by which key, of what kind, by whom and when."""

    algorithm: Literal["Ed25519"]
    key_id: KeyId
    kind: ArchiveKind
    publisher: Name
    signed_at: Annotated[str, msgspec.Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]


class Signature(Statement, frozen=True, forbid_unknown_fields=True):
    """The content of SIGNATURE.json: the statement, and its signature in base64."""

    signature: Annotated[str, msgspec.Meta(max_length=100)]


class Publisher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A publisher whose packages are let in: the name the site gave it, and its public key."""

    name: Name
    key_id: KeyId
    public_key: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    publisher: Annotated[list[Publisher], msgspec.Meta(min_length=1)]


# ---- keys and publishers --------------------------------------------------------------------


def key_id_of(public_key: bytes) -> str:
    """The id of a public key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:KEY_ID_DIGITS]


def publisher_of(key: Ed25519PrivateKey, name: str) -> Publisher:
    """What others must know to trust a key."""
    public = key.public_key().public_bytes_raw()
    return Publisher(name, key_id_of(public), base64.b64encode(public).decode())


def publisher_table(publisher: Publisher) -> str:
    """The TOML table of a publisher, as a list of publishers holds it."""
    name = msgspec.json.encode(publisher.name).decode()  # JSON strings are TOML strings
    return (
        f'[[publisher]]\nname = {name}\nkey_id = "{publisher.key_id}"\n'
        f'public_key = "{publisher.public_key}"\n'
    )


def parse_publishers(content: bytes) -> dict[str, Publisher]:
    """The publishers a TOML file lists, by key id; SignatureRefused names what is wrong in it."""
    try:
        file = msgspec.convert(tomllib.loads(content.decode("utf-8")), _File)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SignatureRefused(str(error)) from None
    for publisher in file.publisher:
        if publisher.key_id != key_id_of(_raw(publisher.public_key, publisher.name)):
            raise SignatureRefused(f"{publisher.name}: key_id is not that of public_key")
    if max(Counter(p.key_id for p in file.publisher).values()) > 1:
        raise SignatureRefused("two publishers of one key_id")
    return {publisher.key_id: publisher for publisher in file.publisher}


def _raw(public_key: str, name: str) -> bytes:
    try:
        raw = base64.b64decode(public_key, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureRefused(f"{name}: public_key is not base64") from None
    if len(raw) != KEY_BYTES:
        raise SignatureRefused(f"{name}: public_key must be {KEY_BYTES} bytes, it is {len(raw)}")
    return raw


def private_text(key: Ed25519PrivateKey) -> bytes:
    """A private key as PKCS8 PEM, without a passphrase: its file is for nobody else to read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_private(content: bytes) -> Ed25519PrivateKey:
    """The Ed25519 key of a PEM text; SignatureRefused where it is none."""
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignatureRefused("not a private key in PEM without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureRefused("not an Ed25519 key")
    return key


# ---- signing and verifying ------------------------------------------------------------------


class Signer(NamedTuple):
    """Who signs: the private key, and the publisher it belongs to."""

    key: Ed25519PrivateKey
    publisher: Publisher


def sign(signer: Signer, kind: ArchiveKind, *, sums: bytes, signed_at: str) -> Signature:
    """The signature of an archive whose SHA256SUMS are `sums`."""
    who = signer.publisher
    statement = Statement(ALGORITHM, who.key_id, kind, who.name, signed_at)
    signed = signer.key.sign(_message(statement, sums))
    return Signature(
        **msgspec.structs.asdict(statement), signature=base64.b64encode(signed).decode()
    )


def verify(signature: Signature, sums: bytes, trusted: dict[str, Publisher]) -> Publisher:
    """The trusted publisher who signed these sums; SignatureRefused where none did."""
    publisher = trusted.get(signature.key_id)
    if publisher is None:
        raise SignatureRefused(f"key_id: {signature.key_id} is not a key of a trusted publisher")
    statement = Statement(*(getattr(signature, name) for name in Statement.__struct_fields__))
    key = Ed25519PublicKey.from_public_bytes(_raw(publisher.public_key, publisher.name))
    try:
        key.verify(base64.b64decode(signature.signature, validate=True), _message(statement, sums))
    except (InvalidSignature, binascii.Error, ValueError):
        raise SignatureRefused(
            f"signature: not {publisher.name}'s signature of this content"
        ) from None
    return publisher


def _message(statement: Statement, sums: bytes) -> bytes:
    """The bytes that are signed. JSON escapes line breaks, so no part can run into the next."""
    return b"\n".join((DOMAIN, msgspec.json.encode(statement), sums))
