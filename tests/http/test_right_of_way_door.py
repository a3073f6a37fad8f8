"""Whose events are on their way has the right of way, from the body's last byte to the answer."""

from __future__ import annotations

import pytest
import trio

from actors.messages import Verify, VerifyLegacy
from actors.right_of_way import LARGE_EVENTS, LITTLE_BYTES
from tests.http.doubles import (
    AGENT,
    INGEST,
    JSON,
    OTHER_TENANT,
    STORE,
    TENANT,
    batch,
    serving,
    until,
    verified,
)
from ves.legacy import LegacyBatch
from ves.records import VerifiedBatch


@pytest.mark.parametrize("path", [INGEST, "/api/v1/events/ingest"])
async def test_a_large_group_of_another_tenant_waits_until_a_small_request_is_answered(path: str) -> None:
    arrived, may_answer = trio.Event(), trio.Event()

    async def verify(message: Verify | VerifyLegacy) -> VerifiedBatch | LegacyBatch:
        arrived.set()
        await may_answer.wait()
        if isinstance(message, VerifyLegacy):
            return LegacyBatch(TENANT.bytes, STORE.bytes, AGENT.bytes, [])
        return batch(verified())

    async def no_head(*_: object) -> int:
        return 0

    async with serving() as house:
        house.verifiers.reply = verify
        house.journal.read_legacy_head = no_head
        way = house.house.right_of_way
        async with house.client(house.api_key("write")) as client, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.post(path, content=b"{}", headers=JSON))
            await arrived.wait()
            with way.group(OTHER_TENANT.bytes, LARGE_EVENTS) as passage:
                assert passage.is_large_beside_others
                nursery.start_soon(passage.step)
                await trio.testing.wait_all_tasks_blocked()
                assert way.waited_s == 0, "it waits"
                may_answer.set()
                await until(lambda: way.waited_s > 0)


async def test_a_long_body_has_no_right_of_way() -> None:
    async with serving() as house:
        seen: list[bool] = []

        async def verify(message: Verify) -> VerifiedBatch:
            with house.house.right_of_way.group(OTHER_TENANT.bytes, LARGE_EVENTS) as passage:
                seen.append(passage.is_large_beside_others)
            return batch(verified())

        house.verifiers.reply = verify
        async with house.client(house.api_key("write")) as client:
            for body in (b"{}" + b" " * LITTLE_BYTES, b"{}"):
                assert (await client.post(INGEST, content=body, headers=JSON)).status_code == 200
        assert seen == [False, True]
        assert house.house.right_of_way.tenants == 0
