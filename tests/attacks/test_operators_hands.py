"""``sequencer anchor deploy`` and ``resume`` on a real chain and database, with what goes wrong between."""

from __future__ import annotations

import secrets
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.anvil import ETHER
from tests.attacks.world import World, send, world_in

pytestmark = pytest.mark.slow

OF_A_DEPLOYMENT = "deploy.written"

Said = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of these tests' own: they use the account by hand, which no other's verdict forgives."""
    with world_in(tmp_path_factory.mktemp("hands")) as world:
        yield world


@pytest.fixture
def deploy(world: World, tmp_path: Path) -> Callable[..., Said]:
    """With an account of its own, which has nothing, and the lease free."""
    world.anchor.stop()
    own = {
        "DATA_DIR": str(tmp_path / "deployer"),
        "VES_SEQUENCER_ID": str(uuid.uuid4()),
        "SEQUENCER_PRIVATE_KEY": secrets.token_hex(32),
    }
    (tmp_path / "deployer").mkdir(mode=0o700)
    return lambda *words, **more: world.anchor.command(*words, **own, **more)


def test_deploying_needs_money_first_and_then_makes_one_contract_whatever_happened(
    world: World, deploy: Callable[..., Said]
) -> None:
    account = deploy("key").stdout.split()[0]
    poor = deploy("deploy", "--yes")
    assert poor.returncode == 1
    assert "is too poor: send it at least" in poor.stderr
    deploys = "SELECT nonce FROM record.anchor_transactions WHERE purpose = 'deploy'"
    assert world.sql(deploys) == [], "nothing is signed for that cannot be paid"

    world.fund_of(account, ETHER)
    died = deploy("deploy", "--yes", SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=OF_A_DEPLOYMENT)
    assert died.returncode == -9, died.stderr
    assert world.chain.rpc("eth_getTransactionCount", account, "pending") == "0x0"
    gone_on = deploy("deploy", "--yes")
    assert gone_on.returncode == 0, gone_on.stderr
    contract = gone_on.stdout.split("SET_REGISTRY_ADDRESS=")[1].split()[0]
    assert world.chain.rpc("eth_getCode", contract, "latest") != "0x"

    again = deploy("deploy", "--yes")
    assert "nothing was sent" in again.stdout
    assert f"SET_REGISTRY_ADDRESS={contract}" in again.stdout
    assert len(world.sql(deploys)) == 1
    another = deploy("deploy", "--yes", SET_REGISTRY_ADDRESS=contract)
    assert another.returncode == 0, another.stderr
    assert f"SET_REGISTRY_ADDRESS={contract}" not in another.stdout


@pytest.mark.thorough
def test_an_anchor_that_others_account_use_stopped_goes_on_with_what_it_had_planned(world: World) -> None:
    world.becomes(world.commit(world.tenant()), "finalized")
    world.owner_sends("pause()")
    batch = world.commit(world.tenant())
    world.becomes(batch, "pending")
    send(world.chain, "0x" + world.account.hex(), "0x" + "ab" * 20, b"")
    world.says(f"sequencer anchor resume --next-nonce {world.nonce()}")
    world.owner_sends("unpause()")
    ahead = world.anchor.command("resume", "--next-nonce", str(world.nonce() + 1), "--reason", "a guess")
    assert ahead.returncode == 1
    assert f"is {world.nonce()} on the chain" in ahead.stderr
    resumed = world.anchor.command(
        "resume", "--next-nonce", str(world.nonce()), "--reason", "a payment by hand"
    )
    assert resumed.returncode == 0, resumed.stderr
    world.anchor.stop()
    world.anchor.start()
    assert world.becomes(batch, "finalized") == "finalized"
    assert world.sql("SELECT reason FROM record.anchor_resumptions")[0][0] == "a payment by hand"
