"""Thousands of tenants at once: what creating an API key and registering agents' keys leaves in the tables.

Over HTTP each is two audited requests of 4 ms, hence ten thousand of them a minute and a half before anything is
measured. Here they are four statements. There is no audit entry of them: they are scenery, like the events of
``bench.fill``. Everything that is measured afterwards asks the service, which finds these keys as it finds any.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from hashlib import sha256

import asyncpg

from tests.e2e.world import Agent
from transport.http.key_format import new_key

PERMISSIONS = ("read", "write", "admin")
_PUBLIC_KEYS = """
INSERT INTO record.agent_public_keys (public_key, tenant_id, agent_id)
SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::uuid[])
"""
_AGENT_KEYS = """
INSERT INTO record.agent_keys (tenant_id, agent_id, key_id, key_algorithm, registered_at, public_key)
SELECT tenant_id, agent_id, $4, 1, clock_timestamp(), public_key
FROM unnest($1::bytea[], $2::uuid[], $3::uuid[]) AS agents (public_key, tenant_id, agent_id)
"""
_EPOCHS = """
INSERT INTO record.tenant_epochs (tenant_id, key_epoch, credential_epoch)
SELECT tenant_id, 1, 0 FROM unnest($1::uuid[]) AS tenants (tenant_id)
"""
_API_KEYS = """
INSERT INTO record.api_keys (id, tenant_id, created_at, key_hash, prefix, permissions)
SELECT id, tenant_id, clock_timestamp(), key_hash, 'bench', $4::text[]
FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS keys (id, tenant_id, key_hash)
"""


def join(dsn: str, homes: Sequence[Sequence[Agent]]) -> list[str]:
    """An API key for each of these new tenants, told by its agents, all of whose keys are registered afterwards.
    ``dsn`` logs in as the owner."""
    return asyncio.run(_join(dsn, homes))


async def _join(dsn: str, homes: Sequence[Sequence[Agent]]) -> list[str]:
    keys = [new_key("live") for _ in homes]
    tenants = [agents[0].tenant_id for agents in homes]
    everybody = [agent for agents in homes for agent in agents]
    agents = (
        [bytes.fromhex(agent.public_key) for agent in everybody],
        [agent.tenant_id for agent in everybody],
        [agent.agent_id for agent in everybody],
    )
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(_PUBLIC_KEYS, *agents)
            await connection.execute(_AGENT_KEYS, *agents, everybody[0].key_id)
            await connection.execute(_EPOCHS, tenants)
            hashes = [sha256(key.encode()).digest() for key in keys]
            await connection.execute(
                _API_KEYS, [uuid.uuid4() for _ in keys], tenants, hashes, list(PERMISSIONS)
            )
        await connection.execute("ANALYZE record.agent_public_keys, record.agent_keys, record.api_keys")
    finally:
        await connection.close()
    return keys
