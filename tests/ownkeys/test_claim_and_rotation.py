"""Which receipt key a node claims, in which order a rotation happens, and what the next life signs with."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from actors.receipt_key import ReceiptKeyInUse
from actors.security_events import SecurityEvents
from config.own_keys import OwnKeys, ReceiptSeeds
from config.secret_sources import SecretsError
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import JournalAway, JournalOutcomeUnknown, ReceiptKey, ReceiptKeyDiffers
from supervisor.receipt_keys import RotatedMeanwhile, claim, make_seed, may_rotate, note_source, rotate
from tests.keyholder import public_key_of
from ves.at_rest import key_id, parse_key
from ves.receipt_keys import ReceiptKeyLink, rotation_holds

RING = (bytes(range(32)),)


@dataclass
class Node:
    folder: Path
    sequencer_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)
    database: MemoryDatabase = field(
        default_factory=lambda: MemoryDatabase(now_us=lambda: time.time_ns() // 1000)
    )
    security: SecurityEvents = field(default_factory=SecurityEvents)

    def __post_init__(self) -> None:
        self.journal = MemoryJournal(self.database, node_id=self.sequencer_id)

    def seeds(self, *given: bytes) -> ReceiptSeeds:
        return ReceiptSeeds(self.folder, given, parse_key=parse_key, public_key_of=public_key_of)

    async def claimed(self, *given: bytes) -> ReceiptKey:
        return (await claim(self.journal, self.sequencer_id, self.seeds(*given))).key

    async def rotated(self, old: ReceiptKey) -> ReceiptKey:
        seeds = self.seeds()
        public_key = make_seed(seeds, old, lambda name: None)
        return await rotate(self.journal, seeds, old, public_key, compromised=False, reason="")

    def in_use(self, claimed: ReceiptKey, *given: bytes) -> ReceiptKeyInUse:
        keys = OwnKeys(RING, self.seeds(*given), key_id=key_id)
        return ReceiptKeyInUse(journal=self.journal, keys=keys, claimed=claimed, security=self.security)

    async def chain_holds(self) -> int:
        """The number of versions, each vouched for by the one before."""
        chain = await self.journal.receipt_keys()
        for before, key in pairwise(chain):
            link = ReceiptKeyLink(key.key_version, key.public_key, key.previous_signature)
            assert rotation_holds(before.public_key, self.sequencer_id, link)
        return len(chain)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    path = folder / "receipt-signing-seed"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    return Node(folder)


# ---- keys in files


async def test_the_record_decides_which_of_the_seeds_signs(node: Node) -> None:
    first = await node.claimed()
    assert (first.key_version, await node.claimed()) == (1, first)
    second = await node.rotated(first)
    assert (second.key_version, await node.claimed()) == (2, second)
    assert await node.rotated(second) == await node.claimed()
    assert await node.chain_holds() == 3
    assert len(node.seeds().public_keys()) == 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in node.folder.iterdir())


async def test_a_seed_whose_rotation_died_before_its_record_is_never_signed_with(node: Node) -> None:
    first = await node.claimed()
    unused = make_seed(node.seeds(), first, lambda name: None)
    assert await node.claimed() == first
    second = await node.rotated(first)
    assert second.public_key != unused
    assert await node.claimed() == second


async def test_the_second_of_two_rotations_learns_that_it_was_late(node: Node) -> None:
    first = await node.claimed()
    second = await node.rotated(first)
    with pytest.raises(RotatedMeanwhile, match="version 2"):
        await node.rotated(first)
    assert await node.claimed() == second


@pytest.mark.parametrize("fault", ["away", "lost", "unheard"])
async def test_a_rotation_that_failed_or_nobody_heard_of_is_finished_by_doing_it_again(
    node: Node, fault: str
) -> None:
    first = await node.claimed()
    seeds = node.seeds()
    public_key = make_seed(seeds, first, lambda name: None)
    node.journal.fail_next("rotate_receipt_key", fault)  # type: ignore[arg-type]
    with pytest.raises(JournalAway if fault == "away" else JournalOutcomeUnknown):
        await rotate(node.journal, seeds, first, public_key, compromised=True, reason="stolen")
    assert (await node.claimed()).public_key in (first.public_key, public_key), "a key that is here"
    done = await rotate(node.journal, seeds, first, public_key, compromised=True, reason="stolen")
    assert await node.claimed() == done
    entries = [text for text, _ in node.database.audit_log[node.sequencer_id]]
    assert len([text for text in entries if "receipt_key.rotate" in text and "stolen" in text]) == 1


async def test_a_rotation_that_was_stored_unheard_and_followed_by_another_is_known_for_stored(
    node: Node,
) -> None:
    first = await node.claimed()
    seeds = node.seeds()
    public_key = make_seed(seeds, first, lambda name: None)
    node.journal.fail_next("rotate_receipt_key", "unheard")
    with pytest.raises(JournalOutcomeUnknown):
        await rotate(node.journal, seeds, first, public_key, compromised=False, reason="")
    assert (await node.rotated(await node.claimed())).key_version == 3
    ours = await rotate(node.journal, seeds, first, public_key, compromised=False, reason="")
    assert (ours.key_version, ours.public_key) == (2, public_key)


async def test_nothing_is_made_or_recorded_without_the_old_seed(node: Node) -> None:
    first = await node.claimed()
    (node.folder / "receipt-signing-seed").rename(node.folder.parent / "away")
    with pytest.raises(SecretsError, match=first.public_key.hex()):
        await node.rotated(first)
    assert list(node.folder.iterdir()) == []
    with pytest.raises(SecretsError, match="no receipt seed"):
        may_rotate(node.seeds(), node.folder.parent)


async def test_a_node_whose_recorded_seed_is_gone_does_not_start(node: Node) -> None:
    second = await node.rotated(await node.claimed())
    (node.folder / f"receipt-signing-seed.{second.public_key.hex()}").unlink()
    with pytest.raises(ReceiptKeyDiffers, match="another one"):
        await node.claimed()


async def test_several_seeds_and_no_record_of_which_one_signs_is_no_start(node: Node) -> None:
    await node.rotated(await node.claimed())
    node.journal = MemoryJournal(MemoryDatabase(now_us=lambda: 1), node_id=node.sequencer_id)
    with pytest.raises(SecretsError, match="2 receipt seeds and no record"):
        await node.claimed()


async def test_a_seed_in_a_file_of_another_name_does_not_pass_for_it(node: Node) -> None:
    first = await node.claimed()
    second = await node.rotated(first)
    path = node.folder / f"receipt-signing-seed.{second.public_key.hex()}"
    path.write_text(os.urandom(32).hex())
    with pytest.raises(SecretsError):
        node.seeds().seed(second.public_key)


# ---- keys given by the operator


async def test_a_given_key_with_the_previous_one_beside_it_becomes_the_next_version_by_itself(
    node: Node,
) -> None:
    old, new, third = (os.urandom(32) for _ in range(3))
    first = await node.claimed(old)
    answer = await claim(node.journal, node.sequencer_id, node.seeds(new, old))
    assert (answer.rotated, answer.key.key_version) == (True, 2)
    assert answer.key.public_key == public_key_of(new)
    again = await claim(node.journal, node.sequencer_id, node.seeds(new, old))
    assert (again.rotated, again.key) == (False, answer.key)
    assert await node.claimed(new) == answer.key, "the previous one is needed only once"
    with pytest.raises(ReceiptKeyDiffers):
        await node.claimed(third)
    with pytest.raises(ReceiptKeyDiffers):
        await node.claimed(third, old)
    with pytest.raises(ReceiptKeyDiffers, match="before, as version 1"):
        await node.claimed(old, new)
    assert await node.chain_holds() == 2
    assert first.public_key == public_key_of(old)
    with pytest.raises(SecretsError, match="VES_SEQUENCER_SIGNING_KEY_PREVIOUS"):
        may_rotate(node.seeds(new), node.folder)


async def test_a_shell_without_the_given_key_does_not_rotate_what_lies_in_files(node: Node) -> None:
    await node.claimed()
    data_dir = node.folder.parent
    note_source(node.seeds(os.urandom(32)), data_dir)
    with pytest.raises(SecretsError, match="VES_SEQUENCER_SIGNING_KEY_PREVIOUS"):
        may_rotate(node.seeds(), data_dir)
    note_source(node.seeds(), data_dir)
    may_rotate(node.seeds(), data_dir)


async def test_two_nodes_rotate_independently(node: Node, tmp_path: Path) -> None:
    other = Node(tmp_path / "nowhere", database=node.database)
    seeds = os.urandom(32), os.urandom(32)
    mine, theirs = await node.claimed(), await other.claimed(seeds[0])
    assert (await node.rotated(mine)).key_version == 2
    assert await other.claimed(seeds[0]) == theirs
    assert (await other.claimed(seeds[1], seeds[0])).key_version == 2


# ---- what the next life signs with


async def test_the_next_life_takes_up_a_rotation_and_says_so_once(node: Node) -> None:
    first = await node.claimed()
    in_use = node.in_use(first)
    before = await in_use.for_a_life()
    second = await node.rotated(first)
    after = [await in_use.for_a_life() for _ in range(2)]
    assert (before.receipt_key_version, before.receipt_public_key) == (1, first.public_key)
    for keys in after:
        assert (keys.receipt_key_version, keys.receipt_public_key) == (2, second.public_key)
        assert public_key_of(keys.receipt_seed) == second.public_key
        assert keys.at_rest_ring == RING
        assert keys.receipt_seed.hex() not in repr(keys)
        assert repr(keys.receipt_seed) not in repr(keys)
    assert node.security.counts["receipt_key_rotated"] == 1


async def test_a_life_that_begins_while_the_database_is_away_goes_on_with_the_key_known_last(
    node: Node,
) -> None:
    first = await node.claimed()
    in_use = node.in_use(first)
    await node.rotated(first)
    node.database.reachable = False
    with pytest.raises(JournalAway):
        await node.journal.receipt_keys()
    assert (await in_use.for_a_life()).receipt_key_version == 1
    node.database.reachable = True
    assert (await in_use.for_a_life()).receipt_key_version == 2


async def test_a_recorded_key_whose_seed_is_not_here_is_not_signed_with(node: Node) -> None:
    old, new = os.urandom(32), os.urandom(32)
    first = await node.claimed(old)
    in_use = node.in_use(first, old)
    await node.claimed(new, old)  # by another process: ours was not given the new one
    keys = await in_use.for_a_life()
    assert (keys.receipt_key_version, keys.receipt_seed) == (1, old)
