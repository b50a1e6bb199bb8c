"""Keys as they are given in the environment."""

from __future__ import annotations

import base64

import pytest

from cds_service.errors import SetupError
from cds_service.identities.keyring import read_ring

ONE, TWO = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))


def test_one_key_needs_no_name() -> None:
    """Its id is 0."""
    ring = read_ring("VARSEL_SEAL_KEY", ONE)
    assert (ring.current, ring.key, ring.ids) == ("0", b"a" * 32, ("0",))


def test_of_several_keys_the_first_is_in_use() -> None:
    """The others are found by their ids."""
    ring = read_ring("VARSEL_SEAL_KEY", f"2027:{TWO} {ONE}")
    assert (ring.current, ring.key) == ("2027", b"b" * 32)
    assert (ring.find("0"), ring.find("2026")) == (b"a" * 32, None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "is empty"),
        (f"{ONE} {TWO}", "two keys of one id"),
        (f"a b:{ONE}", "not base64"),
        (f"{'x' * 17}:{ONE}", "an id is up to 16"),
        ("2027:AAAA", "must be 32 bytes, it is 3"),
    ],
)
def test_what_is_no_key_is_said_without_it(given: str, said: str) -> None:
    """The setting is named; what it holds is not."""
    with pytest.raises(SetupError, match=said) as refused:
        read_ring("VARSEL_SEAL_KEY", given)
    assert str(refused.value).startswith("VARSEL_SEAL_KEY")
    assert ONE not in str(refused.value)


def test_keys_are_never_printed() -> None:
    """Neither a ring nor what stands around it shows one."""
    ring = read_ring("VARSEL_SEAL_KEY", ONE)
    assert "a" * 8 not in repr(ring)
    assert ONE not in repr([ring])
