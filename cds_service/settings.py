"""All settings, read in one place from `VARSEL_*` environment variables and passed down as values.

docs/settings.md lists them (a test keeps it complete). Two profiles: `production` (the default)
refuses to start without its database, keys and callers; `demo` serves on loopback alone, makes its
own keys in the state folder, and allows synthetic models and replay.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cds_service.errors import SetupError
from cds_service.identities.keyring import KEY_BYTES, KeyRing, read_ring

_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")


class Settings(BaseSettings):
    """The installation's settings; the field descriptions are the text of docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix="VARSEL_", frozen=True, extra="ignore")

    profile: Literal["production", "demo"] = Field(
        "production", description="`production`, or `demo`: loopback only, own keys, replay allowed"
    )
    host: str = Field("127.0.0.1", description="Address to listen on; demo allows loopback only")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on")
    base_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+[^\s]*$",
        description="The service's own URL as clients see it; default http://host:port",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the prediction log; demo: SQLite in the state folder"
    )
    state_dir: Path = Field(
        Path("var"), description="Folder for what the service itself writes (SQLite, demo keys)"
    )
    spool_dir: Path | None = Field(
        None,
        description="Folder where predictions are kept while the database is away, one a replica, "
        "on a volume that outlives it; default `spool` in the state folder",
    )
    commit_seconds: float = Field(
        2.0,
        gt=0,
        description="Seconds after which a commit counts as hung and goes to the spool; below "
        "callers' deadlines",
    )
    states_seconds: float = Field(
        300.0,
        ge=5,
        description="Seconds a process goes on answering without having seen in the database which "
        "models are in service; then 503",
    )
    pseudonym_key: SecretStr | None = Field(
        None,
        description="Key of the pseudonyms: 32 bytes in base64, or several as `id:base64`, the one "
        "in use first; kept outside the database",
    )
    seal_key: SecretStr | None = Field(
        None,
        description="Key of the vault's keys: 32 bytes in base64, or several as `id:base64`, the "
        "one in use first",
    )
    log_signing_key: SecretStr | None = Field(
        None,
        description="Key that `varsel log seal` signs with: 32 bytes in base64, or several as "
        "`id:base64`, the one in use first; for that command alone, never for the service",
    )
    export_key: SecretStr | None = Field(
        None,
        description="Key of one export's codes (`varsel export --pseudonyms encryption` or "
        "`keyed-hash`): 32 bytes in base64; for that command alone, never for the service",
    )
    callers_file: Path | None = Field(
        None, description="TOML file of the callers allowed in; production needs it"
    )
    readers_file: Path | None = Field(
        None,
        description="TOML file of the issuers whose tokens let people read `/api`; without it "
        "nobody may (demo: everybody on the machine)",
    )
    erasures_file: Path | None = Field(
        None,
        description="File of what was erased, kept apart from the database's backups; demo: in the "
        "state folder",
    )
    retention: str | None = Field(
        None,
        description="Months after which `varsel privacy retention` takes predictions away, "
        "`organisation=months` separated by spaces; nothing is taken by itself",
    )
    organisation: str = Field(
        "demo",
        min_length=1,
        max_length=64,
        description="Organisation that calls without a caller are logged under: those of the demo "
        "profile and of `varsel score --log`",
    )
    language: Literal["da", "en"] = Field(
        "da", description="Language of cards where the caller asks for none (Accept-Language)"
    )
    timezone: str = Field(
        "Europe/Copenhagen", description="Zone of times that name none, and of times shown"
    )
    mode: Literal["live", "silent"] = Field(
        "live", description="`silent` computes and logs but shows no model card"
    )
    models_dir: Path | None = Field(
        None, description="Folder with further model packages beside the bundled ones"
    )
    publishers_file: Path | None = Field(
        None,
        description="TOML file of the publishers whose archives `varsel models import` lets in",
    )
    allow_synthetic_models: bool = Field(
        False, description="Whether models trained on synthetic data may be served (demo: always)"
    )
    allow_loopback: bool = Field(
        False,
        description="Whether callers' networks may hold loopback addresses (demo: always); for "
        "tests and trials on one machine; never in production",
    )
    max_body_bytes: int = Field(
        25_000_000, gt=0, description="Largest request body read, in bytes; more is answered 413"
    )
    max_resources: int = Field(
        20_000,
        gt=0,
        description="Most resources read of one request, prefetch keys among them; more is "
        "answered 413",
    )
    max_string_bytes: int = Field(
        1_000_000,
        ge=1000,
        description="Longest text in a request body, in bytes; a longer one is answered 400",
    )
    body_seconds: float = Field(
        10.0, gt=0, description="Seconds within which a request body arrives; else 408"
    )
    body_bytes_per_second: int = Field(
        10_000,
        gt=0,
        description="Slowest a request body may arrive, after the first two seconds; else 408",
    )
    max_calls: int = Field(
        64, gt=0, description="Most calls one process answers at once; the next one waits"
    )
    wait_seconds: float = Field(
        1.0, ge=0, description="Longest a call waits for its turn, in seconds; then 503"
    )
    calls_per_minute: int = Field(
        12_000,
        gt=0,
        description="Most calls of one caller that one process answers in a minute; more get 429",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins, separated by spaces, whose pages in a browser may call "
        "(https://host:port); without it none may",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("not a time zone of the tz database") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _named_origins(cls, value: str | None) -> str | None:
        """Origins as a browser sends them: nothing behind host and port, and no `*`."""
        for origin in (value or "").split():
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is not an origin such as https://host:port")
        return value

    @property
    def is_demo(self) -> bool:
        """Whether this is the demo profile."""
        return self.profile == "demo"

    @property
    def allows_synthetic(self) -> bool:
        """Whether models trained on synthetic data may be served."""
        return self.is_demo or self.allow_synthetic_models

    @property
    def allows_loopback(self) -> bool:
        """Whether FHIR servers and keys on this machine itself may be asked."""
        return self.is_demo or self.allow_loopback

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def url(self) -> str:
        """The service's own URL, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.base_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def database(self) -> str:
        """The URL of the prediction log."""
        return self.database_url or f"sqlite:///{self.state_dir / 'varsel.db'}"

    @property
    def spool(self) -> Path:
        """The folder of the spool."""
        return self.spool_dir or self.state_dir / "spool"

    @property
    def erasures(self) -> Path:
        """The register of erasures. Raises SetupError where none is named outside demo."""
        if self.erasures_file is not None:
            return self.erasures_file
        if self.is_demo:
            return self.state_dir / "erasures.jsonl"
        raise SetupError("VARSEL_ERASURES_FILE is not set: what is erased must not come back")

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins whose pages may call from a browser; none unless they are named."""
        return tuple((self.cors_origins or "").split())

    @property
    def keys(self) -> Keys:
        """The keys of pseudonyms and seals; demo makes its own and keeps them in the state folder.

        Raises SetupError where a key is missing or not 32 bytes.
        """
        if self.pseudonym_key and self.seal_key:
            return Keys(
                read_ring("VARSEL_PSEUDONYM_KEY", self.pseudonym_key.get_secret_value()),
                read_ring("VARSEL_SEAL_KEY", self.seal_key.get_secret_value()),
            )
        if self.is_demo and not (self.pseudonym_key or self.seal_key):
            return _demo_keys(self.state_dir)
        given = {"VARSEL_PSEUDONYM_KEY": self.pseudonym_key, "VARSEL_SEAL_KEY": self.seal_key}
        raise SetupError("; ".join(f"{k} is not set" for k, key in given.items() if key is None))


class Keys(NamedTuple):
    """The keys of pseudonyms and of seals."""

    pseudonym: KeyRing
    seal: KeyRing


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, with those `given` (by field name) in their place.

    SetupError names each variable that is wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [
            f"VARSEL_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            for e in error.errors(include_input=False, include_context=False)
        ]
        raise SetupError("; ".join(faults)) from None


def check_fit_to_serve(settings: Settings) -> None:
    """Raise SetupError naming everything that keeps this profile from serving."""
    faults = []
    if settings.is_demo:
        if not _is_loopback(settings.host):
            faults.append("the demo profile serves on loopback only (VARSEL_HOST)")
    else:
        needed = {
            "VARSEL_DATABASE_URL": settings.database_url,
            "VARSEL_PSEUDONYM_KEY": settings.pseudonym_key,
            "VARSEL_SEAL_KEY": settings.seal_key,
            "VARSEL_CALLERS_FILE": settings.callers_file,
        }
        faults += [f"{name} is not set" for name, value in needed.items() if value is None]
    if faults:
        hint = "" if settings.is_demo else " (for a trial on this machine: VARSEL_PROFILE=demo)"
        raise SetupError("; ".join(faults) + hint)
    _ = settings.keys


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _demo_keys(state_dir: Path) -> Keys:
    path = state_dir / "demo-keys.json"
    if not path.exists():
        state_dir.mkdir(parents=True, exist_ok=True)
        made = {
            name: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
            for name in ("pseudonym", "seal")
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(made), encoding="utf-8")
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return Keys(
            read_ring(str(path), str(read["pseudonym"])), read_ring(str(path), str(read["seal"]))
        )
    except (ValueError, KeyError, TypeError):
        raise SetupError(f"{path} is not what the demo wrote there") from None
