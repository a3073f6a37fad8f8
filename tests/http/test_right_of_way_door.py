"""Whose events are on their way has the right of way, from the body's last byte to the answer."""

from __future__ import annotations

import pytest
import trio

from actors import right_of_way
from actors.messages import Append, Appended, AppendedLegacy, AppendLegacy, Verify, VerifyLegacy
from actors.right_of_way import LARGE_EVENTS, LITTLE_BYTES, Passage
from tests.house.test_right_of_way import unsigned_event
from tests.http.doubles import AGENT, INGEST, JSON, OTHER_TENANT, STORE, TENANT, batch, serving, verified
from ves.legacy import LegacyBatch
from ves.records import VerifiedBatch


@pytest.mark.parametrize("path", [INGEST, "/api/v1/events/ingest"])
async def test_a_large_group_of_another_tenant_waits_until_a_small_request_is_answered(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(right_of_way, "PATIENCE_S", 1.0)
    in_hand, may_answer, stepped = trio.Event(), trio.Event(), trio.Event()

    async def verify(message: Verify | VerifyLegacy) -> VerifiedBatch | LegacyBatch:
        if isinstance(message, VerifyLegacy):
            return LegacyBatch(TENANT.bytes, STORE.bytes, AGENT.bytes, [unsigned_event(1)])
        return batch(verified())

    async def append(message: Append | AppendLegacy) -> Appended | AppendedLegacy:
        in_hand.set()
        await may_answer.wait()
        if isinstance(message, AppendLegacy):
            return AppendedLegacy([], 1, 1, 1, 1)
        return Appended([], 0, 1, 1, 1, 1)

    async def step(passage: Passage) -> None:
        await passage.step()
        stepped.set()

    async with serving() as house:
        house.verifiers.reply = verify
        house.sequencer.reply = append
        way = house.house.right_of_way
        async with house.client(house.api_key("write")) as client, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.post(path, content=b"{}", headers=JSON))
            await in_hand.wait()
            with way.group(OTHER_TENANT.bytes, LARGE_EVENTS) as passage, trio.fail_after(5):
                nursery.start_soon(step, passage)
                await trio.sleep(0.05)
                assert not stepped.is_set()
                may_answer.set()
                await stepped.wait()


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
