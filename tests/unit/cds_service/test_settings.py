"""Settings: read from the environment, wrong ones named, secrets never shown."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from cds_service.errors import SetupError
from cds_service.settings import Settings, read_settings

KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROFILE", "staging"),
        ("PORT", "99999"),
        ("PORT", "http"),
        ("LANGUAGE", "sv"),
        ("TIMEZONE", "Europe/Nowhere"),
        ("MODE", "loud"),
        ("MAX_BODY_BYTES", "0"),
        ("BASE_URL", "ehr.example"),
        ("ORGANISATION", ""),
        ("ORGANISATION", "x" * 65),
        ("ALLOW_SYNTHETIC_MODELS", "perhaps"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """By its variable."""
    monkeypatch.setenv(f"VARSEL_{name}", value)
    with pytest.raises(SetupError, match=f"^VARSEL_{name}: "):
        read_settings()


def test_all_settings_that_are_wrong_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt shows all."""
    monkeypatch.setenv("VARSEL_PORT", "x")
    monkeypatch.setenv("VARSEL_MODE", "x")
    with pytest.raises(SetupError, match=r"VARSEL_PORT: .*; VARSEL_MODE: "):
        read_settings()


def test_what_the_command_line_gives_is_checked_too() -> None:
    """`varsel serve --port 99999` names the setting."""
    with pytest.raises(SetupError, match=r"^VARSEL_PORT: "):
        read_settings(port=99999)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables take the place of defaults; the URL follows host and port, or is given."""
    monkeypatch.setenv("VARSEL_PROFILE", "demo")
    monkeypatch.setenv("VARSEL_HOST", "::1")
    monkeypatch.setenv("VARSEL_PORT", "9000")
    assert read_settings().url == "http://[::1]:9000"
    monkeypatch.setenv("VARSEL_BASE_URL", "https://varsel.example/")
    assert read_settings().url == "https://varsel.example"


def test_keys_are_never_shown() -> None:
    """Neither in the settings' text nor in an error's."""
    settings = Settings(profile="production", pseudonym_key=KEY, seal_key="wrong-but-secret")
    assert KEY not in repr(settings)
    with pytest.raises(SetupError, match="VARSEL_SEAL_KEY") as refused:
        _ = settings.keys
    assert "wrong-but-secret" not in str(refused.value)


@pytest.mark.parametrize("profile", ["demo", "production"])
def test_one_key_without_the_other_is_refused(tmp_path: Path, profile: str) -> None:
    """The missing one is named; the demo does not make one up beside a given one."""
    settings = Settings.model_validate(
        {"profile": profile, "state_dir": tmp_path, "pseudonym_key": KEY}
    )
    with pytest.raises(SetupError, match=r"^VARSEL_SEAL_KEY is not set$"):
        _ = settings.keys


def test_the_demo_makes_its_keys_once(tmp_path: Path) -> None:
    """Readable by their owner alone, and the same at the next start."""
    settings = Settings(profile="demo", state_dir=tmp_path / "new")
    made = settings.keys
    file = tmp_path / "new" / "demo-keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Settings(profile="demo", state_dir=tmp_path / "new").keys
    kept = (again.pseudonym.key, again.seal.key)
    assert (made.pseudonym.key, made.seal.key) == kept
    assert made.pseudonym.key != made.seal.key


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pseudonym": 1, "seal": 2}', "\x00"])
def test_demo_keys_that_were_damaged_are_refused(tmp_path: Path, content: str) -> None:
    """The file is named."""
    (tmp_path / "demo-keys.json").write_text(content, encoding="utf-8")
    with pytest.raises(SetupError, match=r"demo-keys\.json"):
        _ = Settings(profile="demo", state_dir=tmp_path).keys
