"""Settings of the server: environment variables `LORALENS_*`, overridden by the flags of `loralens serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from loralens.core.jsontext import MAX_DEPTH

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent
LEAST_TOKEN = 16


class Settings(BaseSettings):
    """Every setting with its default; lists are written with commas."""

    model_config = SettingsConfigDict(env_prefix="LORALENS_", extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 opens the server to the network.")
    port: int = Field(5173, ge=0, le=65_535, description="Port of page and API; 0 picks a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Host names beside localhost and IP addresses under which the server may be called."
    )
    embed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("'self'",), description="Sites that may show the page in a frame (CSP frame-ancestors)."
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest request body that is read.")
    max_depth: int = Field(MAX_DEPTH, ge=4, le=200, description="Deepest nesting of a JSON body.")
    web_dir: Path | None = Field(None, description="Folder of the built page; default: found by itself.")
    state_dir: Path | None = Field(None, description="Folder for jobs and their results; default: found by itself.")
    max_adapter_bytes: int = Field(
        268_435_456, ge=1024, le=1_073_741_824, description="Largest adapter that may be uploaded."
    )
    max_snapshot_bytes: int = Field(
        268_435_456, ge=1024, le=1_073_741_824, description="Largest memory snapshot that may be uploaded."
    )
    adapters_dir: Path | None = Field(None, description="Folder whose subfolders are PEFT adapters to offer by name.")
    models_dir: Path | None = Field(
        None, description="Folder whose subfolders are Hugging Face models to offer by name."
    )
    lab: Literal["yes", "no"] = Field(
        "yes", description="Whether ./start.sh brings PyTorch in behind the page, for benchmark and experiments."
    )
    runner: Literal["local", "ray"] = Field(
        "local", description="What runs jobs: local, a child process; ray, a Ray cluster (extra: cluster)."
    )
    ray_address: str | None = Field(
        None, description="With runner ray: the cluster's address; default: one is started on this machine."
    )
    hub: Literal["on", "off"] = Field(
        "on", description="Whether a model may be looked up on the Hugging Face Hub when somebody asks for it."
    )
    hub_url: str = Field("https://huggingface.co", description="Address of the Hub, or of a mirror of it.")
    hub_seconds: float = Field(8, gt=0, le=60, description="How long one look-up on the Hub may take in all.")
    shutdown_seconds: float = Field(3, ge=1, le=60, description="How long the server may take to stop.")
    token: SecretStr | None = Field(
        None, description="Whoever calls must have it; auto makes one and prints the link. Default: nobody is asked."
    )
    shared: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Several people use it: limits per client, and each sees only the jobs of their own; auto: on when "
        "the address is not this machine's own.",
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that answer; they share jobs and limits.")
    max_connections: int = Field(2000, ge=10, le=100_000, description="Connections that one worker keeps open.")
    client_rate: float = Field(100, gt=0, le=1e6, description="Shared: requests per second of one address.")
    client_burst: int = Field(500, ge=1, le=1_000_000, description="Shared: requests of one address in one go.")
    client_requests: int = Field(64, ge=1, le=10_000, description="Shared: requests of one address at a time.")
    client_streams: int = Field(256, ge=1, le=10_000, description="Shared: event streams of one address at a time.")
    client_jobs: int = Field(20, ge=1, le=10_000, description="Shared: jobs of one address that wait or run.")
    log_level: str = Field("warning", description="critical, error, warning, info or debug.")

    @field_validator("allowed_hosts", "embed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("hub_url")
    @classmethod
    def _a_plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("an address like https://huggingface.co")
        return value.rstrip("/")

    @field_validator("embed_origins")
    @classmethod
    def _one_source_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # A space or semicolon would let one entry write further directives into the policy.
        if any(symbol in origin for origin in value for symbol in " ;\r\n"):
            raise ValueError("each origin is one word, like https://course.example")
        return value

    @field_validator("token")
    @classmethod
    def _no_guess(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if text not in ("", "auto") and (len(text) < LEAST_TOKEN or not re.fullmatch(r"[A-Za-z0-9._~-]+", text)):
            raise ValueError(f"at least {LEAST_TOKEN} letters, digits or . _ ~ -; auto makes one")
        return value if text else None

    def token_text(self) -> str | None:
        """The token that callers must have; None where nobody is asked."""
        return None if self.token is None else self.token.get_secret_value()

    def is_shared(self) -> bool:
        """Whether several people are expected."""
        if self.shared != "auto":
            return self.shared == "on"
        return self.token is not None or (self.host not in ("localhost", "::1") and not self.host.startswith("127."))

    def page_directory(self) -> Path | None:
        """Where the built page lies: the setting, the package (image, wheel) or the checkout; None if nowhere."""
        candidates = [self.web_dir] if self.web_dir else [_PACKAGE / "web", _CHECKOUT / "frontend" / "dist"]
        return next((folder for folder in candidates if (folder / "index.html").is_file()), None)

    def hub_address(self) -> str | None:
        """Where models may be looked up; None where that is switched off."""
        return self.hub_url if self.hub == "on" else None

    def state_directory(self) -> Path:
        """Where jobs are kept: the setting, `.loralens` of the checkout, or the user's state folder."""
        if self.state_dir:
            return self.state_dir
        in_checkout = (_CHECKOUT / "backend" / "pyproject.toml").is_file()
        return _CHECKOUT / ".loralens" if in_checkout else Path.home() / ".local" / "state" / "loralens"
