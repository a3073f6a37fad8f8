"""A start and a stop leave their entry wherever there is room for it; without room they happen too."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.audit_spool import AuditSpool
from config.settings import Settings
from journal.memory import MemoryDatabase, MemoryJournal
from supervisor.main import audit_start, audit_stop
from transport.house import Readiness

NODE = uuid.uuid4().bytes


def a_house(folder: Path, **spool: Any) -> Any:
    database = MemoryDatabase(now_us=lambda: 1_700_000_000_000_000)
    journal = MemoryJournal(database, node_id=NODE)
    return SimpleNamespace(
        database=database,
        journal=journal,
        audit_spool=AuditSpool(journal=journal, path=folder / "spool", **spool),
        readiness=Readiness(),
        sequencer_id=NODE,
        sequencer_key_version=1,
        read_only=None,
        at_rest=SimpleNamespace(mode="required", current_key="00" * 8, tenants_with_own_ring=0),
    )


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


async def test_a_start_and_a_stop_are_in_the_chain_and_committed(tmp_path: Path) -> None:
    house = a_house(tmp_path)
    await audit_start(house, settings().fingerprint(), 1)
    await audit_stop(house)
    texts = [text for text, _ in house.database.audit_log[NODE]]
    assert ['"server.start"' in texts[0], '"server.stop"' in texts[1]] == [True, True]
    assert house.database.audit_commitments[NODE][-1].entry_end == 2


async def test_while_the_database_is_away_the_stop_waits_in_the_spool(tmp_path: Path) -> None:
    house = a_house(tmp_path)
    house.database.reachable = False
    house.readiness.wait_for("database", "gone")
    await audit_stop(house)
    assert house.audit_spool.bytes_waiting > 0
    house.database.reachable = True
    await house.audit_spool.empty()
    assert '"server.stop"' in house.database.audit_log[NODE][0][0]


async def test_a_node_without_room_for_the_entry_starts_and_stops_all_the_same(tmp_path: Path) -> None:
    house = a_house(tmp_path, bytes_max=1)
    house.database.reachable = False
    await audit_start(house, settings().fingerprint(), 1)
    await audit_stop(house)
    assert house.database.audit_log[NODE] == []


def test_the_fingerprint_tells_configurations_apart_and_knows_no_secret() -> None:
    plain = settings()
    assert plain.fingerprint() == settings().fingerprint()
    assert plain.fingerprint() != settings(port=9000).fingerprint()
    secrets = [settings(database_url=f"postgresql://shop:{word}@db/x") for word in ("one", "two")]
    assert secrets[0].fingerprint() == secrets[1].fingerprint()
    assert secrets[0].fingerprint() != plain.fingerprint(), "embedded or external is no secret"
