"""An agent: its name, its private key, and the events it signs. Offline; knows no server.

Alone owns the agent key file: JSON with the 32-byte seed, mode 0600, refused when others may read it. Time,
event ids and the randomness of encryption are taken from the system here, because ``ves`` takes them as
arguments.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

import msgspec

from transport.client.errors import KeyFileError
from transport.client.wire import UNREADABLE, Envelope
from ves.encoding import hex_bytes, prefixed_hex, uuid_bytes, uuid_text
from ves.events import EventHeader, encrypted_envelope, plaintext_envelope
from ves.payload_encryption import DEK_BYTES, NONCE_BYTES, SALT_BYTES, seal
from ves.records import KeyName, Uuid
from ves.signatures import Signer, pop_challenge_v2, rotation_hash


class _KeyFile(msgspec.Struct):
    type: Literal["ves-agent-key"]
    tenant_id: str
    agent_id: str
    key_id: int
    public_key: str
    seed: str


class Agent:
    """One agent of one tenant with one signing key."""

    def __init__(self, name: KeyName, seed: bytes) -> None:
        """``seed`` is the 32-byte Ed25519 private key."""
        self.name = name
        self._seed = seed
        self._signer = Signer(seed)

    @classmethod
    def generate(cls, tenant_id: Uuid, agent_id: Uuid | None = None, key_id: int = 1) -> Self:
        """A new agent, or a new key for an existing one, with a fresh random seed."""
        return cls(KeyName(tenant_id, agent_id or uuid4().bytes, key_id), secrets.token_bytes(32))

    @property
    def public_key(self) -> bytes:
        return self._signer.public_key

    def proof_of_possession(self) -> bytes:
        """64 bytes that show whoever registers this key under this name that we hold it."""
        return self._signer.sign(pop_challenge_v2(self.name, self.public_key))

    def word_for(self, successor: Agent) -> bytes:
        """64 bytes that show whoever rotates keys that this key wants that one in its place."""
        return self._signer.sign(
            rotation_hash(self.name, self.public_key, successor.name.key_id, successor.public_key)
        )

    def sign(
        self,
        store_id: Uuid,
        *,
        entity_type: str,
        entity_id: str,
        event_type: str,
        payload: Any,
        created_at: str | None = None,
        event_id: Uuid | None = None,
        command_id: Uuid | None = None,
        base_version: int | None = None,
        recipients: Mapping[int, bytes] | None = None,
    ) -> Envelope:
        """A signed event; with ``recipients`` (X25519 public keys by id) its payload is encrypted for them.

        Sign once and keep what you get: posting it again is harmless, signing again makes another event.
        ValueError for a payload the sequencer would refuse.
        """
        header = EventHeader(
            tenant_id=self.name.tenant_id,
            store_id=store_id,
            event_id=event_id or uuid4().bytes,
            source_agent_id=self.name.agent_id,
            agent_key_id=self.name.key_id,
            entity_type=entity_type,
            entity_id=entity_id,
            event_type=event_type,
            created_at=created_at or _now(),
        )
        if recipients:
            sealed = seal(
                header,
                payload,
                recipients,
                salt=secrets.token_bytes(SALT_BYTES),
                dek=secrets.token_bytes(DEK_BYTES),
                nonce=secrets.token_bytes(NONCE_BYTES),
            )
            envelope = encrypted_envelope(
                self._signer,
                header,
                sealed.payload_encrypted,
                sealed.payload_plain_hash,
                sealed.payload_cipher_hash,
                command_id=command_id,
                base_version=base_version,
            )
        else:
            envelope = plaintext_envelope(
                self._signer, header, payload, command_id=command_id, base_version=base_version
            )
        return msgspec.json.decode(msgspec.json.encode(envelope), type=Envelope)

    def save(self, path: Path) -> None:
        """Write the key file, mode 0600; KeyFileError if it exists, for a key is never overwritten."""
        tenant_id, agent_id, key_id = self.name
        file = _KeyFile(
            type="ves-agent-key",
            tenant_id=uuid_text(tenant_id),
            agent_id=uuid_text(agent_id),
            key_id=key_id,
            public_key=prefixed_hex(self.public_key),
            seed=self._seed.hex(),
        )
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
                out.flush()
                os.fsync(out.fileno())
        except FileExistsError:
            raise KeyFileError(f"{path} exists; a key is never overwritten") from None
        except OSError as error:
            raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """The agent of a key file; KeyFileError if it is missing, malformed or open to others."""
        try:
            with path.open("rb") as source:
                mode = os.fstat(source.fileno()).st_mode
                raw = source.read()
        except OSError as error:
            raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
        if stat.S_IMODE(mode) & 0o077:
            raise KeyFileError(f"{path} is open to others; run: chmod 600 {path}")
        try:
            file = msgspec.json.decode(raw, type=_KeyFile)
            name = KeyName(uuid_bytes(file.tenant_id), uuid_bytes(file.agent_id), file.key_id)
            agent = cls(name, hex_bytes(file.seed, 32))
            public_key = hex_bytes(file.public_key, 32)
        except (*UNREADABLE, ValueError) as error:
            raise KeyFileError(f"{path} is no agent key file") from error
        if agent.public_key != public_key:
            raise KeyFileError(f"{path}: its public key is not that of its seed")
        return agent


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
