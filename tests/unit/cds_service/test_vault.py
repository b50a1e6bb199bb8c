"""The vault: what opens a patient's references, and what does not."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from cds_service.errors import Erased, SealBroken
from cds_service.identities.keyring import KeyRing
from cds_service.identities.vault import Vault, Wrapped

OLD, NEW = b"s" * 32, b"t" * 32
VAULT = Vault(KeyRing.of(OLD))
HELD = VAULT.new_key("k-1", "org")
KEY = VAULT.data_key(HELD)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(TEXT, TEXT, max_size=3), st.integers(0, 60))
def test_an_entry_opens_whole_or_not_at_all(content: dict[str, str], place: int) -> None:
    """What was sealed comes back; one changed bit, and nothing does."""
    entry = VAULT.seal(KEY, "id", msgspec.json.encode(content))
    assert VAULT.unseal("id", entry, HELD) == content
    at = place % len(entry)
    broken = entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :]
    with pytest.raises(SealBroken):
        VAULT.unseal("id", broken, HELD)


def test_the_same_content_is_sealed_differently_each_time() -> None:
    """Nobody sees from two entries that they hold the same."""
    assert VAULT.seal(KEY, "id", b"{}") != VAULT.seal(KEY, "id", b"{}")


def test_an_entry_opens_under_its_own_prediction_and_key_alone() -> None:
    """Not as another prediction's, not with another patient's key, not with a part of it."""
    entry = VAULT.seal(KEY, "id", b"{}")
    other = VAULT.new_key("k-2", "org")
    for prediction, held, what in (
        ("other", HELD, entry),
        ("id", other, entry),
        ("id", HELD, entry[:5]),
    ):
        with pytest.raises(SealBroken, match="cannot be unsealed"):
            VAULT.unseal(prediction, what, held)


def test_an_entry_whose_data_key_is_gone_was_erased() -> None:
    """Destroying the key of a patient is a decision, not a fault."""
    entry = VAULT.seal(KEY, "id", b"{}")
    with pytest.raises(Erased, match="prediction id was destroyed"):
        VAULT.unseal("id", entry, None)


def test_a_data_key_is_of_one_organisation() -> None:
    """Moved to another organisation, or given another id, it does not open."""
    for moved in (HELD._replace(organisation="other"), HELD._replace(key_id="k-2")):
        with pytest.raises(SealBroken):
            VAULT.data_key(moved)


def test_a_new_seal_key_opens_what_the_old_one_wrapped_while_both_are_here() -> None:
    """Wrapped anew, the old one is not needed any more; and the entries stay as they are."""
    entry = VAULT.seal(KEY, "id", b'{"patient":"1"}')
    both = Vault(KeyRing("2027", {"2027": NEW, "0": OLD}))
    assert both.unseal("id", entry, HELD) == {"patient": "1"}
    rewrapped = both.rewrap(HELD)
    assert rewrapped.seal_key == "2027"
    alone = Vault(KeyRing("2027", {"2027": NEW}))
    assert alone.unseal("id", entry, rewrapped) == {"patient": "1"}
    with pytest.raises(SealBroken, match="no key called 0"):
        alone.unseal("id", entry, HELD)


@pytest.mark.parametrize("first", ["0", "2027"])
def test_an_entry_older_than_the_vault_opens_with_whichever_key_it_was_sealed(first: str) -> None:
    """It was sealed with the key of the seals itself and does not say which; a newer one stands
    behind it, then before it."""
    nonce = bytes(12)
    entry = b"\x01" + nonce + AESGCM(OLD).encrypt(nonce, b'{"patient":"1"}', b"id")
    keys = {"2027": NEW, "0": OLD}
    both = Vault(KeyRing(first, {first: keys[first], **keys}))
    assert both.unseal("id", entry, None) == {"patient": "1"}
    with pytest.raises(SealBroken):
        both.unseal("id", entry, Wrapped("k-1", "org", "0", b""))
