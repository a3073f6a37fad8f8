"""A sealed value is opened once more before it leaves: a cipher that lies costs a life and stores nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from signing_agent import Agent

from actors import worker_spawn
from actors.encryptor import Encryptor, EncryptorKeys
from actors.errors import NotNow
from actors.messages import RowBytes, SealAtRest
from supervisor.policy import Pauses
from supervisor.supervisor import Pool, Supervisor
from tests.lying_cipher import LIAR
from ves.at_rest import AtRest, AtRestMode, Ring, RingKey, Row
from ves.kdf import Purpose
from ves.signatures import Signer

RING = (b"\x01" * 32,)
SEED = b"\x02" * 32
ROW_HASH = b"r" * 32


async def keys() -> EncryptorKeys:
    return EncryptorKeys(RING, SEED, Signer(SEED).public_key, 1)


def opened(tenant_id: bytes, frame: bytes) -> bytes:
    at_rest = AtRest(AtRestMode.REQUIRED, Ring([RingKey(RING[0])]))
    return at_rest.read(Row(Purpose.EVENTS, tenant_id, ROW_HASH), frame)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("once", "what was sealed does not open again: another row, or changed bytes"),
        ("misread", "what was sealed opens to something else"),
        ("poison secret", "what was sealed does not open again: another row, or changed bytes"),
    ],
)
async def test_a_cipher_that_lies_costs_the_life_of_its_process_and_nothing_it_sealed_gets_out(
    lie: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = tmp_path / "fault"
    liar = LIAR.replace("FAULT", str(fault)) + "\nfrom actors.worker import main\nmain()"
    monkeypatch.setattr(worker_spawn, "_COMMAND", (sys.executable, "-c", liar))
    pool = Pool(
        "encryptors",
        1,
        lambda: Encryptor(keys=keys),
        16,
        declares_ready=True,
        intensity=10,
        pauses=Pauses(first_s=0.01, max_s=0.02),
    )
    house = Supervisor("house", [pool])
    tenant_id = Agent().tenant_id

    async def seal(plaintext: bytes) -> bytes:
        letter = SealAtRest(Purpose.EVENTS, tenant_id, [RowBytes("a row", ROW_HASH, plaintext)])
        [stored] = await pool.ref.ask(letter, deadline_s=20)
        return bytes(stored)

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            await nursery.start(house.run)
            assert opened(tenant_id, await seal(b"honest")) == b"honest"
            fault.write_text(lie)
            if lie == "once":
                assert opened(tenant_id, await seal(b"secret")) == b"secret", "the next life sealed it"
            else:
                with pytest.raises(NotNow):
                    await seal(b"secret")
            if lie.startswith("poison"):
                assert opened(tenant_id, await seal(b"others")) == b"others", "only that one is refused"
            fault.unlink(missing_ok=True)
            assert opened(tenant_id, await seal(b"healed")) == b"healed"
            [seen] = house.view(children_max=10).children
            assert seen.children[0].restarts == (1 if lie == "once" else 2)
            assert said in str(seen.children[0].last_error)
            assert "secret" not in str(seen)
            house.stop()
