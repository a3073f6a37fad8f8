"""The operator's choices, read once from the environment at start; each room receives its own part.

Alone owns the names and defaults of the environment variables. Never reads a secret file, runs a secret's
command or logs: ``config.secret_sources`` does the first two when an owner asks, nobody does the third.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from config.machine import usable_cores
from config.networks import parse_networks
from config.secret_sources import FetchedSecret, SecretSources, TwoSources, secret_settings

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
NetworkList = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    NoDecode,
    BeforeValidator(lambda value: parse_networks(value) if isinstance(value, str) else value),
]
"""Addresses and networks, comma-separated."""
PerSecond = Annotated[float, Field(ge=0.02, le=1_000_000)]
Burst = Annotated[int, Field(ge=1, le=1_000_000)]
Days = Annotated[int, Field(ge=1, le=36_500)]

RATE_CLASSES = ("events_ingest", "events_read", "commitments", "agent_keys", "admin", "public", "failed")
RATE_LIMITED = (*RATE_CLASSES, "tenant_events")
RATE_REFILL_S_MAX = 3600
TENANTS_IDLE = 2000
"""Kept, unless told otherwise: eight kilobytes each, and every full garbage collection looks at them."""
_DAY_US = 86_400_000_000


POSTGRESQL = ("postgresql://", "postgres://")
NO_ADDRESS = "is no address of PostgreSQL; write postgresql://user:password@host:5432/database"
REGION = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"

OF_THE_HOUSE = (
    "database_url",
    "database_admin_url",
    "bootstrap_admin_api_key",
    "ves_sequencer_signing_key",
    "ves_sequencer_signing_key_previous",
    "payload_encryption_keys",
    "payload_encryption_key",
    "payload_encryption_keys_by_tenant",
    "sequencer_private_key",
    "l2_rpc_url",
    "anchor_database_url",
    "anchor_keystore_password",
    "anchor_pkcs11_pin",
    "anchor_vault_token",
    "jwt_secret",
    "backup_passphrase",
)
"""Secrets that their owners have taken before the house is built, or that nobody in it may have."""
_MODES = {
    "disabled": ("disabled", "off", "none", "false", "0"),
    "warn": ("warn", "warnonly", "warn_only", "warning"),
    "enforce": ("enforce", "on", "true", "1"),
    "required": ("required", "require", "strict"),
}


_AT_REST_MODES = {
    "required": ("required", "on", "true", "1"),
    "optional": ("optional",),
    "disabled": ("disabled", "off", "false", "0"),
}


def _idle_at_most(tenants_max: int) -> int:
    """The idle ones are looked through each second: meanwhile others must find a place."""
    return max(1, tenants_max * 3 // 4)


def _one_of(modes: dict[str, tuple[str, ...]]) -> BeforeValidator:
    """The mode by its name or one of the original service's other words for it."""

    def named(text: object) -> object:
        word = str(text).strip().lower()
        return next((mode for mode, words in modes.items() if word in words), text)

    return BeforeValidator(named)


SchemaValidationMode = Annotated[Literal["disabled", "warn", "enforce", "required"], _one_of(_MODES)]
DatabaseTls = Literal["verify-full", "insecure-allowed"]
PayloadEncryptionMode = Annotated[Literal["required", "optional", "disabled"], _one_of(_AT_REST_MODES)]


class Settings(BaseSettings):
    """Every setting is one environment variable of the same name in capitals. A SecretStr may also come from
    a file or a command: ``config.secret_sources``."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # Where we live.
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65533)] = 8080
    """0 lets the system choose (tests); the admin listener then chooses its own too."""
    admin_bind: str | None = None
    """``host:port`` of the admin listener; default 127.0.0.1 and PORT+2."""
    data_dir: Path = Path(".sequencer")

    # How we are reached: config.exposure says what is safe.
    tls_cert_file: Path | None = None
    """PEM chain of the public listener, its own certificate first; with it only TLS 1.3 is spoken."""
    tls_key_file: Path | None = None
    admin_tls_cert_file: Path | None = None
    """None: the public listener's pair."""
    admin_tls_key_file: Path | None = None
    admin_tls_client_ca_file: Path | None = None
    """Only clients with a certificate of these authorities reach the admin listener."""
    tls_terminated_by_proxy: bool = False
    """A proxy before us speaks TLS: plain HTTP beyond loopback is allowed, and HSTS is sent."""
    trusted_proxies: NetworkList = ()
    """Whose X-Forwarded-For is believed."""
    admin_ip_allowlist: NetworkList = ()
    """Who may speak to the admin listener at all; empty: whoever reaches it."""

    # The journal.
    database_url: SecretStr | None = None
    """None: the embedded PostgreSQL under DATA_DIR."""
    database_admin_url: SecretStr | None = None
    """Migrations run at start only with it or with the embedded server."""
    database_tls: DatabaseTls = "verify-full"
    """Of connections to other machines; insecure-allowed: as the address says, down to clear text."""
    pg_bin: Path | None = None
    """A folder with initdb and postgres, instead of the wheel's."""
    backup_passphrase: SecretStr | None = None
    """What `backup` encrypts with and `restore` opens; best as a file or a command."""
    backup_wal_dir: Path | None = None
    """The embedded PostgreSQL keeps every WAL file here too: what `restore --to-latest` replays."""
    backup_wal_timeout_secs: Annotated[int, Field(ge=1, le=86_400)] = 60
    """At most so much of what was acknowledged is not in BACKUP_WAL_DIR yet."""
    db_connections_max: Count = 8
    db_unit_deadline_s: Seconds = 15.0
    db_statement_timeout_s: Seconds = 10.0
    db_lock_timeout_s: Seconds = 5.0
    db_idle_in_transaction_timeout_s: Seconds = 5.0

    # Where data may be.
    region: Annotated[str, Field(pattern=REGION)] | None = None
    """Where this node and its database are, say eu-west-1: with it, tenants that are pinned elsewhere are not
    served."""
    tenant_region_required: bool = False
    """Serve no tenant that is not pinned to this region."""

    # Secrets, given or generated under DATA_DIR/keys with mode 0600.
    bootstrap_admin_api_key: SecretStr | None = None
    ves_sequencer_id: UUID | None = None
    ves_sequencer_signing_key: SecretStr | None = None
    ves_sequencer_signing_key_previous: SecretStr | None = None
    """The receipt key before this one: with it, a start signs and records the new one as the next version."""
    payload_encryption_mode: PayloadEncryptionMode = "required"
    """required: frames are written and read; optional: what was stored without is read too; disabled: nothing
    new is encrypted at rest."""
    payload_encryption_keys: SecretStr | None = None
    payload_encryption_key: SecretStr | None = None
    payload_encryption_keys_by_tenant: SecretStr | None = None
    """JSON; a tenant in it has this ring and not the other one: ``config.tenant_rings``."""
    # The anchor: docs/anchoring.md.
    anchor: Literal["off", "inside", "apart", "dev"] | None = None
    """inside: this process anchors, as soon as no other node does; apart: `sequencer anchor run` does; dev:
    inside, on a chain of our own on this machine. None: inside when L2_RPC_URL, SET_REGISTRY_ADDRESS and a
    key are given, else off."""
    l2_rpc_url: SecretStr | None = None
    """JSON-RPC endpoints of one chain, comma-separated, the preferred one first; secret, for such addresses
    often hold a provider's key."""
    l2_chain_id: Annotated[int, Field(ge=1, le=2**53 - 1)] = 84_532_001
    set_registry_address: str | None = None
    """The contract's: 0x and 40 hex digits."""
    anchor_database_url: SecretStr | None = None
    """The anchor's own login, a member of sequencer_anchor; not needed with the embedded server."""
    anchor_key: Literal["keystore", "raw", "pkcs11", "kms", "vault"] | None = None
    """Where the anchoring account's key is. None: raw when SEQUENCER_PRIVATE_KEY is given, else keystore."""
    sequencer_private_key: SecretStr | None = None
    """raw: 64 hex digits. Only the anchor's signing process fetches it."""
    anchor_keystore_file: Path | None = None
    """keystore: encrypted (Web3 Secret Storage); None: anchor-keystore.json in DATA_DIR/keys."""
    anchor_keystore_password: SecretStr | None = None
    anchor_pkcs11_module: Path | None = None
    """pkcs11: the device's library."""
    anchor_pkcs11_token: str | None = None
    """Its label."""
    anchor_pkcs11_key: str = "anchor"
    """The key pair's label, on secp256k1."""
    anchor_pkcs11_pin: SecretStr | None = None
    anchor_kms_key_id: str | None = None
    """kms: id, ARN or alias of an ECC_SECG_P256K1 key; credentials as the AWS SDK finds them."""
    anchor_vault_address: str | None = None
    anchor_vault_path: str | None = None
    anchor_vault_token: SecretStr | None = None
    anchor_road: Literal["aggregate", "single"] = "aggregate"
    """aggregate: one transaction for many commitments, of which a chain shows nothing but a root; single: one
    each, which shows tenants, stores and counts to everybody."""
    anchor_batch_threshold: Annotated[int, Field(ge=1, le=4096)] = 100
    """Anchor when so many commitments wait …"""
    anchor_interval_secs: Seconds = 60.0
    """… or when the oldest waiting one is this old, …"""
    anchor_fee_target_gwei: Annotated[float, Field(gt=0)] | None = None
    """… but while gas costs more than this, wait …"""
    anchor_age_max_secs: Seconds = 3600.0
    """… until the oldest one is this old."""
    anchor_fee_cap_gwei: Annotated[float, Field(gt=0, le=1_000_000)] = 200.0
    """Never offer more for gas."""
    anchor_budget_per_day_eth: Annotated[float, Field(gt=0, le=1_000_000)] = 0.1
    """Never spend more in 24 hours; what waits then waits on."""
    anchor_stuck_secs: Seconds = 60.0
    """A transaction that no block took for so long is replaced by one that offers more."""
    anchor_finality: Literal["tags", "depth"] = "tags"
    """tags: the chain's safe and finalized blocks; depth: ANCHOR_FINALITY_CONFIRMATIONS."""
    anchor_finality_confirmations: Annotated[int, Field(ge=1, le=10_000)] = 12
    anchor_poll_secs: Seconds = 4.0
    anchor_rpc_timeout_secs: Seconds = 10.0
    anchor_lease_secs: Annotated[float, Field(ge=2, le=600)] = 20.0
    """An anchor that does not renew its lease for so long is deposed by another node's."""
    anchor_wait_secs: Annotated[float, Field(ge=0, le=25)] = 20.0
    """How long a request to anchor waits for a block before it answers with the state so far."""
    anchor_dev_port: Annotated[int, Field(ge=0, le=65535)] = 8545
    """Of the development chain, on loopback; 0 lets the system choose."""
    anchor_backlog_max: Count = 10_000
    """More waiting commitments are worth an alert."""

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

    # Keys: what shows that somebody holds one, and how old they may get.
    require_pop: Literal["off", "v1", "v2"] = "off"
    """Proof of possession at registration. off: checked when sent; v1: any; v2: bound to the key's name."""
    key_rotation_mode: Literal["off", "report", "enforce"] = "report"
    """report: keys over age are counted and told; enforce: events signed by them are refused as well."""
    agent_key_max_age_days: Days = 90
    sequencer_key_max_age_days: Days = 180
    """Of the receipt key. Told, never enforced."""

    # Limits at the door.
    max_body_size_bytes: Annotated[int, Field(ge=1, le=33_554_432)] = 10_485_760
    request_timeout_secs: Seconds = 30.0
    connections_max: Count = 1000
    connections_per_address_max: Count = 500
    tenant_bytes_in_flight_max: Count = 64 * 1024 * 1024
    node_bytes_in_flight_max: Count | None = None
    """None: a quarter of the memory that we may use."""
    page_bytes_max: Annotated[int, Field(ge=1, le=33_554_432)] = 8 * 1024 * 1024
    write_stall_secs: Seconds = 30.0
    graceful_timeout_secs: Seconds = 20.0
    shutdown_pause_secs: Annotated[float, Field(ge=0)] = 0.0
    """Between /ready going false and the listener closing, for a load balancer to notice."""

    # Rate limits: requests a second, and how many at once. By credential; the last two by address.
    rate_limit_mode: Literal["enforce", "off"] = "enforce"
    rate_limit_shared: bool = False
    """All nodes of a database keep one limit together, through the database."""
    rate_limit_events_ingest_per_second: PerSecond = 100
    rate_limit_events_ingest_burst: Burst = 500
    rate_limit_events_read_per_second: PerSecond = 1000
    rate_limit_events_read_burst: Burst = 2000
    rate_limit_commitments_per_second: PerSecond = 10
    rate_limit_commitments_burst: Burst = 50
    rate_limit_agent_keys_per_second: PerSecond = 20
    rate_limit_agent_keys_burst: Burst = 100
    rate_limit_admin_per_second: PerSecond = 50
    rate_limit_admin_burst: Burst = 200
    rate_limit_public_per_second: PerSecond = 100
    """Routes that need no credential: health probes, the receipt keys."""
    rate_limit_public_burst: Burst = 500
    rate_limit_failed_per_second: PerSecond = 50
    """Requests refused for want of a credential, a permission or a route."""
    rate_limit_failed_burst: Burst = 200
    rate_limit_tenant_events_per_second: PerSecond = 2_500
    """Events, not requests, of a tenant, whoever posts them: a quarter of what a node of two cores takes."""
    rate_limit_tenant_events_burst: Burst = 10_000

    # What is demanded of events.
    max_event_payload_size: Annotated[int, Field(ge=1, le=1024 * 1024)] = 1024 * 1024
    """Bytes of a payload's canonical JSON, or of the encrypted payload; the protocol's limit or less."""
    max_future_skew_secs: Annotated[float, Field(ge=0, le=31_536_000)] = 3600.0
    """How far ``created_at`` may lie ahead of our clock."""
    allowed_entity_types: str | None = None
    """Comma-separated; None: all. A tenant may narrow it."""
    schema_validation_mode: SchemaValidationMode = "enforce"
    """Unless a tenant chose its own."""
    ves_stark_verify_on_submit: bool = True
    """True: no STARK proof is taken, since there is nothing here to verify it with; False: it is stored
    unverified, and never called valid."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    # The house.
    workers: Count | Literal["auto"] = "auto"
    """How many cores the worker processes are for; auto: all that we may use."""
    verifiers: Count | None = None
    """Worker processes that verify; None: one per core of ``workers``."""
    encryptors: Count | None = None
    """Worker processes that seal and sign; None: one per two cores of ``workers``, and one more."""
    verify_inline_bytes: Annotated[int, Field(ge=0, le=65_536)] = 2048
    """Request bodies up to this size are verified without the way to a worker process; 0: none are."""
    frontends: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = "auto"
    """Processes that speak HTTP and TLS with clients; 0: the core process does it itself; auto: one for every
    four cores that we may use, and at least one."""
    mailbox_letters_max: Count = 1024
    sequencer_letters_max: Count = 256
    """Per tenant; a full one answers 503."""
    group_events_max: Annotated[int, Field(ge=1, le=10_000)] = 2000
    group_bytes_max: Annotated[int, Field(ge=1, le=33_554_432)] = 16 * 1024 * 1024
    tenants_max: Count = 10_000
    tenant_idle_secs: Seconds = 120.0
    tenants_idle_max: Count | None = None
    """Of more idle tenants the longest idle are retired at once; None: of more than 2,000, or than may be."""
    commitment_events: Annotated[int, Field(ge=1, le=65_536)] = 1000
    """Commit a stream when so many events wait …"""
    commitment_interval_secs: Seconds = 60.0
    """… or when its oldest waiting event is this old."""
    commitment_sweep_secs: Seconds = 5.0
    audit_commitment_entries: Annotated[int, Field(ge=1, le=1024)] = 256
    """Commit the audit chain when so many entries wait …"""
    audit_commitment_interval_secs: Seconds = 60.0
    """… or when its oldest waiting entry is this old."""

    @field_validator(
        "database_url",
        "database_admin_url",
        "bootstrap_admin_api_key",
        "ves_sequencer_signing_key",
        "ves_sequencer_signing_key_previous",
        "payload_encryption_keys",
        "payload_encryption_key",
        "payload_encryption_keys_by_tenant",
        "jwt_secret",
        "sequencer_private_key",
        "l2_rpc_url",
        "anchor_database_url",
        "anchor_keystore_password",
        "anchor_pkcs11_pin",
        "anchor_vault_token",
        "backup_passphrase",
    )
    @classmethod
    def _set_but_empty_is_an_error(cls, value: SecretStr | None) -> SecretStr | None:
        if isinstance(value, FetchedSecret):
            return value  # looked at when it is fetched
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("is set but empty; unset it or give it a value")
        return value

    @field_validator("set_registry_address")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
            raise ValueError("is no contract's address: 0x and 40 hex digits")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everybody(cls, value: tuple[IPv4Network | IPv6Network, ...]) -> Any:
        if any(network.prefixlen == 0 for network in value):
            raise ValueError("would let every client choose its own address: name the proxies")
        return value

    @field_validator("tenant_region_required")
    @classmethod
    def _needs_a_region(cls, value: bool, given: ValidationInfo) -> bool:
        if value and given.data.get("region") is None:
            raise ValueError("needs REGION: say where this node is")
        return value

    @field_validator("jwt_issuer", "jwt_audience")
    @classmethod
    def _names_somebody(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is set but empty; unset it or give it a value")
        return value

    @field_validator("database_url", "database_admin_url", "anchor_database_url")
    @classmethod
    def _is_a_postgresql_address(cls, value: SecretStr | None) -> SecretStr | None:
        if isinstance(value, FetchedSecret):
            return value  # ``config.database_tls`` looks at it
        if value is not None and not value.get_secret_value().startswith(POSTGRESQL):
            raise ValueError(NO_ADDRESS)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _given_once(cls, value: Any) -> Any:
        if isinstance(value, TwoSources):
            raise value
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Before the environment: what is given in two ways is refused, not decided by an order.
        return init_settings, SecretSources(settings_cls), env_settings

    @classmethod
    def secret_names(cls) -> list[str]:
        return secret_settings(cls)

    def without_secrets(self) -> Settings:
        """For the house: what its owners have taken is nowhere else."""
        # Who anchors may follow from what is given.
        return self.model_copy(update=dict.fromkeys(OF_THE_HOUSE) | {"anchor": self.anchoring})

    @field_validator(*(f"rate_limit_{name}_burst" for name in RATE_LIMITED))
    @classmethod
    def _fills_up_within_an_hour(cls, burst: int, given: ValidationInfo) -> int:
        per_second = given.data.get(str(given.field_name).replace("_burst", "_per_second"))
        if per_second is not None and burst > per_second * RATE_REFILL_S_MAX:
            raise ValueError("is more than its …_PER_SECOND brings in an hour; lower it, or raise that")
        return burst

    @field_validator("tenants_idle_max")
    @classmethod
    def _leaves_room_for_others(cls, value: int | None, given: ValidationInfo) -> int | None:
        tenants_max = given.data.get("tenants_max")
        if value is not None and tenants_max is not None and value > _idle_at_most(tenants_max):
            raise ValueError(
                f"of TENANTS_MAX ({tenants_max}) at most {_idle_at_most(tenants_max)} may be idle ones,"
                " or who comes finds no place; lower it, or raise TENANTS_MAX"
            )
        return value

    def rate_limit_of(self, rate_class: str) -> tuple[float, int]:
        """Requests (of ``tenant_events``: events) a second, and at once."""
        prefix = f"rate_limit_{rate_class}"
        return getattr(self, f"{prefix}_per_second"), getattr(self, f"{prefix}_burst")

    def fingerprint(self) -> str:
        """SHA-256 over every setting by name; of a secret only whether it is set."""
        told = {name: "set" if isinstance(value, SecretStr) else str(value) for name, value in self}
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

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
    def idle_tenants_kept(self) -> int:
        return self.tenants_idle_max or min(TENANTS_IDLE, _idle_at_most(self.tenants_max))

    @property
    def verifier_count(self) -> int:
        return self.verifiers or self.worker_cores

    @property
    def front_end_count(self) -> int:
        if self.frontends == "auto":
            return max(1, usable_cores() // 4)
        return self.frontends

    @property
    def encryptor_count(self) -> int:
        return self.encryptors or min(self.worker_cores, self.worker_cores // 2 + 1)

    @property
    def worker_cores(self) -> int:
        return usable_cores() if self.workers == "auto" else self.workers

    @property
    def anchoring(self) -> Literal["off", "inside", "apart", "dev"]:
        """Who anchors."""
        if self.anchor is not None:
            return self.anchor
        given = self.l2_rpc_url is not None and self.set_registry_address is not None
        key = self.sequencer_private_key is not None or self.anchor_key is not None
        return "inside" if given and key else "off"

    @property
    def contract(self) -> bytes | None:
        """20 bytes."""
        return None if self.set_registry_address is None else bytes.fromhex(self.set_registry_address[2:])

    @property
    def agent_key_age_max_us(self) -> int:
        return self.agent_key_max_age_days * _DAY_US

    @property
    def agent_key_age_enforced_us(self) -> int | None:
        """None: agent keys of any age may sign."""
        return self.agent_key_age_max_us if self.key_rotation_mode == "enforce" else None

    @property
    def receipt_key_age_max_us(self) -> int:
        return self.sequencer_key_max_age_days * _DAY_US
