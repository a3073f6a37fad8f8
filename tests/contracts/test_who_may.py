"""Who may anchor, who owns the contract, and what a pause stops."""

from __future__ import annotations

import msgspec
import pytest

from tests.anvil import anvil
from tests.contracts.on_chain import OnChain, anchor_batch, digest, history
from ves import anchor_calls as calls

word = calls.address_word


def _writes() -> list[bytes]:
    (one,) = history("a", 2)
    return [calls.anchor(one), anchor_batch([one]), calls.anchor_many(digest("root"), 1, 0)]


def _set_sequencer(address: bytes, allowed: bool) -> bytes:
    return calls.calldata("setSequencer(address,bool)", word(address), calls.number_word(allowed))


def _is_sequencer(contract: OnChain, address: bytes) -> bool:
    return calls.read_bool(contract.ask(calls.is_sequencer(address)))


def test_it_starts_with_its_deployer_as_owner_unpaused_and_not_permissionless(contract: OnChain) -> None:
    assert calls.read_address(contract.ask(calls.OWNER)) == contract.owner
    assert calls.read_address(contract.ask(calls.PENDING_OWNER)) == calls.NO_ADDRESS
    assert not calls.read_bool(contract.ask(calls.PAUSED))
    assert not calls.read_bool(contract.ask(calls.PERMISSIONLESS))
    assert calls.read_number(contract.ask(calls.AGGREGATED_COUNT)) == 0
    assert calls.read_hash(contract.ask(calls.AGGREGATE_HEAD)) == bytes(32)
    assert len(contract.deployed["logs"]) == 2


def test_owner_and_named_sequencers_may_anchor_and_nobody_else(contract: OnChain) -> None:
    for write in _writes():
        assert contract.refusal(write, contract.owner) == ""
        assert contract.refusal(write, contract.sequencer) == "Not authorized"
    contract.send(_set_sequencer(contract.sequencer, True))
    assert _is_sequencer(contract, contract.sequencer)
    assert not _is_sequencer(contract, contract.stranger)
    for write in _writes():
        assert contract.refusal(write, contract.sequencer) == ""
        assert contract.refusal(write, contract.stranger) == "Not authorized"
    contract.send(_set_sequencer(contract.sequencer, False))
    assert not _is_sequencer(contract, contract.sequencer)
    for write in _writes():
        assert contract.refusal(write, contract.sequencer) == "Not authorized"


def test_the_owner_cannot_shut_itself_out(contract: OnChain) -> None:
    contract.send(_set_sequencer(contract.owner, False))
    assert _is_sequencer(contract, contract.owner)


def test_ownership_changes_when_the_proposed_one_accepts_and_not_before(contract: OnChain) -> None:
    propose = calls.calldata("transferOwnership(address)", word(contract.successor))
    accept = calls.calldata("acceptOwnership()")
    contract.send(_set_sequencer(contract.sequencer, True))
    assert contract.send(propose).logs == 1
    assert calls.read_address(contract.ask(calls.OWNER)) == contract.owner
    assert calls.read_address(contract.ask(calls.PENDING_OWNER)) == contract.successor
    assert not _is_sequencer(contract, contract.successor)
    assert contract.refusal(accept, contract.stranger) == "Not proposed"
    assert contract.refusal(accept, contract.owner) == "Not proposed"
    assert contract.send(accept, contract.successor).logs == 1
    assert calls.read_address(contract.ask(calls.OWNER)) == contract.successor
    assert calls.read_address(contract.ask(calls.PENDING_OWNER)) == calls.NO_ADDRESS
    assert _is_sequencer(contract, contract.successor)
    assert _is_sequencer(contract, contract.sequencer)
    assert not _is_sequencer(contract, contract.owner)
    assert contract.refusal(accept, contract.successor) == "Not proposed"
    assert contract.refusal(calls.calldata("pause()"), contract.owner) == "Not owner"
    contract.send(calls.calldata("pause()"), contract.successor)


def test_a_proposal_can_be_replaced_and_withdrawn(contract: OnChain) -> None:
    accept = calls.calldata("acceptOwnership()")
    for address in (contract.successor, contract.stranger):
        contract.send(calls.calldata("transferOwnership(address)", word(address)))
    assert contract.refusal(accept, contract.successor) == "Not proposed"
    contract.send(calls.calldata("transferOwnership(address)", word(calls.NO_ADDRESS)))
    assert contract.refusal(accept, contract.stranger) == "Not proposed"
    assert calls.read_address(contract.ask(calls.OWNER)) == contract.owner


@pytest.mark.parametrize(
    "signature",
    [
        "transferOwnership(address)",
        "setSequencer(address,bool)",
        "setPermissionless(bool)",
        "pause()",
        "unpause()",
    ],
)
def test_only_the_owner_may(contract: OnChain, signature: str) -> None:
    arguments = signature.partition("(")[2].rstrip(")")
    words = [calls.number_word(1)] * len(arguments.split(",") if arguments else [])
    contract.send(_set_sequencer(contract.sequencer, True))
    for somebody in (contract.sequencer, contract.stranger):
        assert contract.refusal(calls.calldata(signature, *words), somebody) == "Not owner"
    assert contract.send(calls.calldata(signature, *words)).logs == 1, "it is logged"


def test_a_pause_stops_both_roads_and_no_view(contract: OnChain) -> None:
    one, two = history("a", 2, 2)
    contract.send(calls.anchor(one))
    root = digest("a root")
    contract.send(calls.anchor_many(root, 1, 0))
    contract.send(calls.calldata("pause()"))
    assert calls.read_bool(contract.ask(calls.PAUSED))
    for write in (calls.anchor(two), anchor_batch([two]), calls.anchor_many(digest("b"), 1, 1)):
        assert contract.refusal(write) == "Paused"
    assert calls.read_bool(contract.ask(calls.is_anchored(one.batch_id)))
    assert calls.read_bool(contract.ask(calls.verify_included(root, root, [], 0)))
    contract.send(calls.calldata("unpause()"))
    contract.send(calls.anchor(two))
    contract.send(calls.anchor_many(digest("b"), 1, 1))


def test_permissionless_opens_the_single_road_alone_and_can_be_taken_back(contract: OnChain) -> None:
    permissionless = "setPermissionless(bool)"
    contract.send(calls.calldata(permissionless, calls.number_word(True)))
    assert calls.read_bool(contract.ask(calls.PERMISSIONLESS))
    single, batch, many = _writes()
    assert contract.refusal(single, contract.stranger) == ""
    assert contract.refusal(batch, contract.stranger) == ""
    assert contract.refusal(many, contract.stranger) == "Not authorized"
    contract.send(calls.calldata("pause()"))
    assert contract.refusal(single, contract.stranger) == "Paused"
    contract.send(calls.calldata("unpause()"))
    contract.send(calls.calldata(permissionless, calls.number_word(False)))
    assert contract.refusal(single, contract.stranger) == "Not authorized"


def test_in_permissionless_mode_a_stranger_can_take_a_streams_place(contract: OnChain) -> None:
    """What the mode costs, said in the source and in docs/contract.md: the sequencer is shut out."""
    contract.send(calls.calldata("setPermissionless(bool)", calls.number_word(True)))
    (honest,) = history("a", 2)
    forged = history("a", 1)[0]
    contract.send(calls.anchor(forged), contract.stranger)
    kept = calls.read_commitment(contract.ask(calls.get_commitment(forged.batch_id)))
    assert kept.anchored_by == contract.stranger
    assert contract.refusal(calls.anchor(honest)) == "Already anchored"
    other_id = msgspec.structs.replace(honest, batch_id=digest("another id")[:16])
    assert contract.refusal(calls.anchor(other_id)) == "Not contiguous"


def test_it_can_be_deployed_permissionless() -> None:
    with anvil() as chain:
        open_to_all = OnChain(chain, permissionless=True)
        assert calls.read_bool(open_to_all.ask(calls.PERMISSIONLESS))
        open_to_all.send(calls.anchor(history("a", 2)[0]), open_to_all.stranger)


def test_it_takes_no_money(contract: OnChain) -> None:
    request = {"from": f"0x{contract.owner.hex()}", "to": f"0x{contract.address.hex()}", "value": "0x1"}
    for data in ("0x", *(f"0x{write.hex()}" for write in _writes())):
        with pytest.raises(RuntimeError, match="revert"):
            contract.chain.rpc("eth_call", request | {"data": data}, "latest")
