"""The operator's choices, read once from the environment at start; each room receives its own part.

Alone owns the names and defaults of the environment variables. Never reads a secret file and never logs:
``config.secrets`` does the first, nobody does the second with a secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
_MODES = {
    "disabled": ("disabled", "off", "none", "false", "0"),
    "warn": ("warn", "warnonly", "warn_only", "warning"),
    "enforce": ("enforce", "on", "true", "1"),
    "required": ("required", "require", "strict"),
}


def _mode(text: object) -> object:
    """The mode by its name or one of the original service's other words for it."""
    word = str(text).strip().lower()
    return next((mode for mode, words in _MODES.items() if word in words), text)


SchemaValidationMode = Annotated[Literal["disabled", "warn", "enforce", "required"], BeforeValidator(_mode)]


class Settings(BaseSettings):
    """Every setting is one environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # Where we live.
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65533)] = 8080
    """0 lets the system choose (tests); the admin listener then chooses its own too."""
    admin_bind: str | None = None
    """``host:port`` of the admin listener; default 127.0.0.1 and PORT+2."""
    data_dir: Path = Path(".sequencer")

    # The journal.
    database_url: SecretStr | None = None
    """None: the embedded PostgreSQL under DATA_DIR."""
    database_admin_url: SecretStr | None = None
    """Migrations run at start only with it or with the embedded server."""
    pg_bin: Path | None = None
    """A folder with initdb and postgres, instead of the wheel's."""
    db_connections_max: Count = 8
    db_unit_deadline_s: Seconds = 15.0
    db_statement_timeout_s: Seconds = 10.0
    db_lock_timeout_s: Seconds = 5.0
    db_idle_in_transaction_timeout_s: Seconds = 5.0

    # Secrets, from the environment or generated under DATA_DIR/keys with mode 0600.
    bootstrap_admin_api_key: SecretStr | None = None
    ves_sequencer_id: UUID | None = None
    ves_sequencer_signing_key: SecretStr | None = None
    payload_encryption_keys: SecretStr | None = None
    payload_encryption_key: SecretStr | None = None

    api_key_mode: Literal["live", "test"] = "live"
    """The kind of API keys this node issues; those of the other kind are refused."""
    # Signed tokens (JWT).
    jwt_jwks_file: Path | None = None
    """JSON Web Key Set with the public Ed25519 keys that sign agents' tokens; read again when it changes."""
    jwt_secret: SecretStr | None = None
    """At least 32 random characters: also accept HS256 tokens with the original's claims."""
    jwt_issuer: str | None = None
    """``iss`` must be it; None: not looked at (legacy tokens: stateset-sequencer)."""
    jwt_audience: str | None = None
    """``aud`` must name it; None: tokens with ``aud`` are refused (legacy tokens: stateset-api)."""
    jwt_leeway_secs: Annotated[int, Field(ge=0, le=600)] = 60
    """How far issuers' clocks may be off."""

    # Failed authentication, per client address (IPv6: per /64).
    auth_failures_burst: Count = 20
    """So many failures at once before an address is throttled."""
    auth_failures_per_minute: Annotated[float, Field(gt=0)] = 10.0
    """So many more are forgiven each minute."""
    auth_failures_addresses_max: Count = 10_000
    """Addresses remembered; beyond it the one that failed longest ago is forgotten."""

    # Limits at the door.
    max_body_size_bytes: Annotated[int, Field(ge=1, le=33_554_432)] = 10_485_760
    request_timeout_secs: Seconds = 30.0
    connections_max: Count = 1000
    connections_per_address_max: Count = 500
    tenant_bytes_in_flight_max: Count = 64 * 1024 * 1024
    node_bytes_in_flight_max: Count | None = None
    """None: a quarter of the machine's memory."""
    page_bytes_max: Annotated[int, Field(ge=1, le=33_554_432)] = 8 * 1024 * 1024
    write_stall_secs: Seconds = 30.0
    graceful_timeout_secs: Seconds = 20.0
    shutdown_pause_secs: Annotated[float, Field(ge=0)] = 0.0
    """Between /ready going false and the listener closing, for a load balancer to notice."""
    # What is demanded of events.
    max_event_payload_size: Annotated[int, Field(ge=1, le=1024 * 1024)] = 1024 * 1024
    """Bytes of a payload's canonical JSON, or of the encrypted payload; the protocol's limit or less."""
    max_future_skew_secs: Annotated[float, Field(ge=0, le=31_536_000)] = 3600.0
    """How far ``created_at`` may lie ahead of our clock."""
    allowed_entity_types: str | None = None
    """Comma-separated; None: all. A tenant may narrow it."""
    schema_validation_mode: SchemaValidationMode = "enforce"
    """Unless a tenant chose its own."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    # The house.
    verifiers: Count | None = None
    """Worker processes that verify; None: one per core."""
    encryptors: Count | None = None
    """Worker processes that seal and sign; None: one per two cores."""
    mailbox_letters_max: Count = 1024
    sequencer_letters_max: Count = 256
    """Per tenant; a full one answers 503."""
    group_events_max: Annotated[int, Field(ge=1, le=10_000)] = 2000
    group_bytes_max: Annotated[int, Field(ge=1, le=33_554_432)] = 16 * 1024 * 1024
    tenants_max: Count = 10_000
    tenant_idle_secs: Seconds = 120.0
    tenants_idle_max: Count = 2000
    """Of more idle tenants the longest idle are retired at once: each costs about ten kilobytes."""
    commitment_events: Annotated[int, Field(ge=1, le=65_536)] = 1000
    """Commit a stream when so many events wait …"""
    commitment_interval_secs: Seconds = 60.0
    """… or when its oldest waiting event is this old."""
    commitment_sweep_secs: Seconds = 5.0

    @field_validator(
        "database_url",
        "database_admin_url",
        "bootstrap_admin_api_key",
        "ves_sequencer_signing_key",
        "payload_encryption_keys",
        "payload_encryption_key",
        "jwt_secret",
    )
    @classmethod
    def _set_but_empty_is_an_error(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("is set but empty; unset it or give it a value")
        return value

    @field_validator("jwt_issuer", "jwt_audience")
    @classmethod
    def _names_somebody(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is set but empty; unset it or give it a value")
        return value

    @field_validator("database_url", "database_admin_url")
    @classmethod
    def _is_a_postgresql_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError(
                "is no address of PostgreSQL; write postgresql://user:password@host:5432/database"
            )
        return value

    @field_validator("allowed_entity_types")
    @classmethod
    def _is_a_list_of_names(cls, value: str | None) -> str | None:
        if value is not None:
            names = [name.strip() for name in value.split(",")]
            if not all(0 < len(name.encode()) <= 128 for name in names):
                raise ValueError(
                    "give names of 1 to 128 bytes, separated by commas, or unset it to allow all"
                )
        return value

    @property
    def entity_types(self) -> tuple[str, ...] | None:
        """The allowed ones; None: all."""
        if self.allowed_entity_types is None:
            return None
        return tuple(dict.fromkeys(name.strip() for name in self.allowed_entity_types.split(",")))

    @property
    def verifier_count(self) -> int:
        return self.verifiers or max(1, os.cpu_count() or 1)

    @property
    def encryptor_count(self) -> int:
        return self.encryptors or max(1, (os.cpu_count() or 1) // 2)
