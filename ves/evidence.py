"""Checking an evidence file, link by link, from an event's signature down to a block. Pure, offline.

    event -- agent's key -- its registration in the audit chain
      \\-- receipt -- sequencer's key -- a key that was trusted before
      \\-- commitment (Merkle path, state root) -- aggregate (Merkle path, head) -- the contract's log
              -- receipt -- block header         -- transaction

``check`` answers one ``Link`` for each, and stops at none. What to trust comes from outside the file: without
it everything may be consistent and still be one liar's work. Whether the block is the chain's, and stays,
only the chain can say: those links stay «not checked» here. ``docs/evidence.md`` has every formula.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Literal

import msgspec

from ves import anchor_calls
from ves.anchor_calls import AggregateAnchored, CommitmentAnchored
from ves.anchor_transactions import decode_transaction, sender_of, transaction_hash
from ves.anchoring import aggregate_head, anchor_leaf, verify_in_aggregate
from ves.audit import AuditCommitment, entry_hash, is_included, state_root
from ves.block_proofs import BlockHeader, decode_header, decode_receipt, verify_receipt_proof
from ves.encoding import uuid_bytes, uuid_text
from ves.events import EventHeader
from ves.evidence_file import Evidence, EvidenceAnchor, EvidenceCommitment, raw_of
from ves.merkle import leaf_hash, padded_leaf_count, tree_depth
from ves.proofs import SequencedEvent, path_leads_to_root, verify_commitment, verify_event
from ves.receipt_keys import BrokenChain, ReceiptKeyLink, follow
from ves.receipts import receipt_hash
from ves.records import Commitment, KeyName, Uuid
from ves.rlp_reading import read_list
from ves.signatures import pop_challenge_v1, pop_challenge_v2, verify_signature

Verdict = Literal["passed", "failed", "not checked"]


class Link(msgspec.Struct, frozen=True):
    name: str
    verdict: Verdict
    text: str
    """One sentence: what holds, what does not, or why nobody looked."""
    needed: bool = True
    """Without it nobody should call the event proven. Not needed: what strengthens it, or needs the chain."""


class Trust(msgspec.Struct, frozen=True):
    """What somebody decided to believe before seeing the file."""

    receipt_keys: Mapping[tuple[Uuid, int], bytes]
    """(sequencer_id, key_version) -> public key."""
    chain_id: int | None = None
    contract: bytes | None = None
    anchoring_accounts: frozenset[bytes] = frozenset()
    """Empty: whoever the contract lets anchor is good enough."""
    agent_keys: Mapping[KeyName, bytes] = {}
    audit_state_roots: frozenset[bytes] = frozenset()
    """State roots of audit commitments that somebody kept."""


LINKS = (
    *("payload", "agent_signature", "agent_key", "agent_possession", "agent_registration", "audit_root"),
    *("receipt", "receipt_signature", "sequencer_key", "inclusion", "state_root"),
    *("chain", "aggregate", "aggregate_head", "log", "block_receipt", "transaction", "anchoring_account"),
    *("block_canonical", "block_final", "contract_state"),
)
"""In the order of ``check``'s answer; the last three are the chain's to answer."""
ON_CHAIN = LINKS[-3:]
_NOT_ASKED = "only the chain knows: give --rpc"
_ANCHORED = (
    "chain",
    "aggregate",
    "aggregate_head",
    "log",
    "block_receipt",
    "transaction",
    "anchoring_account",
)
_LATER = {"audit_root", "agent_possession", "agent_registration", "agent_key", "payload", "anchoring_account"}
"""Not needed: see ``Link.needed``."""


class Unchecked(Exception):
    """This link cannot be judged; the text says why."""


def check(evidence: Evidence, trust: Trust | None) -> list[Link]:
    """One link for each name in ``LINKS``, in that order."""
    return [
        *_Event(evidence, trust).links(),
        *_anchor_links(evidence, trust),
        *(Link(name, "not checked", _NOT_ASKED, needed=False) for name in ON_CHAIN),
    ]


def failed(links: list[Link]) -> list[Link]:
    return [link for link in links if link.verdict == "failed"]


def missing(links: list[Link]) -> list[Link]:
    """What is needed and was not judged."""
    return [link for link in links if link.needed and link.verdict == "not checked"]


def judged(name: str, judge: Callable[[], str]) -> Link:
    """``judge`` answers a sentence, raises Unchecked, or ValueError for what does not hold."""
    needed = name not in _LATER
    try:
        return Link(name, "passed", judge(), needed)
    except Unchecked as why:
        return Link(name, "not checked", str(why), needed)
    except (ValueError, OverflowError) as wrong:
        return Link(name, "failed", str(wrong), needed)


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


class _Event:
    """The links before the chain: event, agent, receipt, commitment."""

    def __init__(self, evidence: Evidence, trust: Trust | None) -> None:
        self._file = evidence
        self._trust = trust

    def links(self) -> Iterator[Link]:
        yield judged("payload", self._payload)
        yield judged("agent_signature", self._agent_signature)
        yield judged("agent_key", self._agent_key)
        yield judged("agent_possession", self._possession)
        yield judged("agent_registration", self._registration)
        yield judged("audit_root", self._audit_root)
        yield judged("receipt", self._receipt)
        yield judged("receipt_signature", self._receipt_signature)
        yield judged("sequencer_key", self._sequencer_key)
        yield judged("inclusion", self._inclusion)
        yield judged("state_root", self._state_root)

    @cached_property
    def _event(self) -> SequencedEvent:
        told = self._file.event
        body = told.payload if told.payload_kind == 0 else told.payload_encrypted
        return SequencedEvent(
            header=EventHeader(
                tenant_id=uuid_bytes(told.tenant_id),
                store_id=uuid_bytes(told.store_id),
                event_id=uuid_bytes(told.event_id),
                source_agent_id=uuid_bytes(told.source_agent_id),
                agent_key_id=told.agent_key_id,
                entity_type=told.entity_type,
                entity_id=told.entity_id,
                event_type=told.event_type,
                created_at=told.created_at,
            ),
            payload_kind=told.payload_kind,
            payload=b"" if isinstance(body, msgspec.UnsetType) else bytes(body),
            payload_plain_hash=raw_of(told.payload_plain_hash),
            payload_cipher_hash=raw_of(told.payload_cipher_hash),
            agent_signature=raw_of(told.agent_signature),
            sequence_number=self._file.receipt.sequence_number,
        )

    @property
    def _name(self) -> KeyName:
        header = self._event.header
        return KeyName(header.tenant_id, header.source_agent_id, header.agent_key_id)

    @property
    def _agent_public_key(self) -> bytes:
        if self._file.agent_key is None:
            raise Unchecked("the file does not have the agent's key")
        return raw_of(self._file.agent_key.public_key)

    def _payload(self) -> str:
        told = self._file.event
        other = told.payload_encrypted if told.payload_kind == 0 else told.payload
        _must(isinstance(other, msgspec.UnsetType), "the payload is of the other kind")
        if not self._event.payload:
            raise Unchecked("the file does not have it; its hashes are what the agent signed")
        problems = verify_event(self._event)
        _must(not problems, "; ".join(problem.text for problem in problems))
        return "the payload is the one that was hashed"

    def _agent_signature(self) -> str:
        signed = verify_signature(
            self._agent_public_key, self._event.signing_hash(), self._event.agent_signature
        )
        _must(signed, "the agent's key did not sign this event")
        return "the agent's key signed this event"

    def _agent_key(self) -> str:
        if self._trust is None or not self._trust.agent_keys:
            raise Unchecked("no agent key was given to trust: it is the one the sequencer registered")
        known = self._trust.agent_keys.get(self._name)
        _must(
            known == self._agent_public_key, "the key trusted under this agent's name and key id is not this"
        )
        return "the key is the trusted one of this agent"

    def _possession(self) -> str:
        key = self._agent_public_key
        proof = self._file.agent_key and self._file.agent_key.possession
        if not proof:
            raise Unchecked("the key was registered without a proof that its holder has it")
        challenge = pop_challenge_v1(key) if proof.version == 1 else pop_challenge_v2(self._name, key)
        signed = verify_signature(key, challenge, raw_of(proof.signature))
        _must(signed, "the proof of possession is not the key's signature over its challenge")
        return f"the key's holder proved at its registration that it has it (challenge {proof.version})"

    def _registration(self) -> str:
        key = self._agent_public_key
        told = self._file.agent_key and self._file.agent_key.registration
        if not told:
            raise Unchecked("the file does not have the audit entry of the key's registration")
        _registers(told.text, self._name, key, told.node_id, told.entry_number)
        if told.committed is None:
            raise Unchecked("the audit entry is in no commitment yet; that takes a minute")
        committed = AuditCommitment(
            node_id=uuid_bytes(told.node_id),
            entry_start=told.committed.entry_start,
            entry_end=told.committed.entry_end,
            merkle_root=raw_of(told.committed.merkle_root),
            prev_state_root=raw_of(told.committed.prev_state_root),
            new_state_root=raw_of(told.committed.new_state_root),
            committed_at_us=0,
        )
        digest = entry_hash(raw_of(told.prev_hash), told.text)
        path = [raw_of(step) for step in told.path]
        _must(
            is_included(committed, told.entry_number, digest, path),
            "the audit commitment does not hold this entry",
        )
        _must(
            state_root(committed) == committed.new_state_root,
            "the audit commitment's state root does not chain its roots and its range",
        )
        return f"entry {told.entry_number} of audit chain {told.node_id} registers the key"

    def _audit_root(self) -> str:
        told = self._file.agent_key and self._file.agent_key.registration
        if not told or told.committed is None:
            raise Unchecked("the file has no audit commitment")
        if self._trust is None or not self._trust.audit_state_roots:
            raise Unchecked("no audit state root was given to trust")
        root = raw_of(told.committed.new_state_root)
        _must(root in self._trust.audit_state_roots, "the audit commitment's state root is no trusted one")
        return "the audit commitment is one whose state root is trusted"

    def _receipt(self) -> str:
        header, receipt = self._event.header, self._file.receipt
        expected = receipt_hash(
            header.tenant_id,
            header.store_id,
            header.event_id,
            receipt.sequence_number,
            self._event.signing_hash(),
        )
        _must(raw_of(receipt.receipt_hash) == expected, "the receipt is not this event's at this number")
        return f"the receipt puts this event at number {receipt.sequence_number} of its stream"

    @property
    def _receipt_links(self) -> list[ReceiptKeyLink]:
        return [
            ReceiptKeyLink(
                key.key_version,
                raw_of(key.public_key),
                None if key.previous_signature is None else raw_of(key.previous_signature),
            )
            for key in self._file.sequencer_keys
        ]

    def _receipt_signature(self) -> str:
        receipt = self._file.receipt
        keys = {link.key_version: link.public_key for link in self._receipt_links}
        _must(receipt.key_version in keys, f"the file does not have key version {receipt.key_version}")
        signed = verify_signature(
            keys[receipt.key_version], raw_of(receipt.receipt_hash), raw_of(receipt.sequencer_signature)
        )
        _must(signed, "the sequencer's key did not sign this receipt")
        return f"the sequencer's key, version {receipt.key_version}, signed the receipt"

    def _sequencer_key(self) -> str:
        receipt = self._file.receipt
        sequencer_id = uuid_bytes(receipt.sequencer_id)
        _chain_holds(sequencer_id, self._receipt_links)
        if self._trust is None:
            raise Unchecked("no key was given to trust: anybody can make such a file")
        believed = {v: key for (owner, v), key in self._trust.receipt_keys.items() if owner == sequencer_id}
        if not believed:
            raise Unchecked(f"no key of sequencer {receipt.sequencer_id} is trusted")
        keys = follow(believed, sequencer_id, self._receipt_links)
        if receipt.key_version < min(believed):
            raise Unchecked("nothing leads from a trusted key back to this older version")
        _must(receipt.key_version in keys, f"the file does not have key version {receipt.key_version}")
        if receipt.key_version in believed:
            return f"version {receipt.key_version} of the sequencer's key is trusted"
        return f"trusted keys lead to version {receipt.key_version} of the sequencer's key"

    def _inclusion(self) -> str:
        told = _commitment_of(self._file)
        header = self._event.header
        index = self._file.receipt.sequence_number - told.sequence_start
        count = told.sequence_end - told.sequence_start + 1
        path = [raw_of(step) for step in told.path]
        _must(0 <= index < count and told.leaf_count == count, "the event's number is not in this commitment")
        _must(told.leaf_index == index, f"the leaf index must be {index}")
        _must(len(path) == tree_depth(count), "the path is not as long as the tree is deep")
        leaf = leaf_hash(
            header.tenant_id,
            header.store_id,
            self._file.receipt.sequence_number,
            self._event.signing_hash(),
            self._event.agent_signature,
        )
        holds = path_leads_to_root(leaf, index, path, raw_of(told.merkle_root))
        _must(holds, "the path does not lead from this event to the commitment's root")
        return f"the commitment holds the event at leaf {index} of {count}"

    def _state_root(self) -> str:
        commitment = commitment_of(self._file)
        problems = verify_commitment(commitment)
        _must(not problems, "; ".join(problem.text for problem in problems))
        span = f"{commitment.sequence_start} to {commitment.sequence_end}"
        return f"the state root chains the commitment, numbers {span}, to the one before"


def _chain_holds(sequencer_id: Uuid, links: list[ReceiptKeyLink]) -> None:
    """The file's own keys follow from each other, and the first needs no signature."""
    versions = [link.key_version for link in links]
    _must(versions == sorted(set(versions)), "the sequencer's keys are not in order")
    _must(links[0].previous_signature is None, "the first of the sequencer's keys has a signature")
    try:
        follow({}, sequencer_id, links)
    except BrokenChain as broken:
        raise ValueError(f"the sequencer's keys do not follow from each other: {broken}") from None


def _registers(text: str, name: KeyName, key: bytes, node_id: str, number: int) -> None:
    """The entry says that this key got this name."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the audit entry is no JSON") from None
    _must(isinstance(told, dict), "the audit entry is no JSON object")
    wanted = {
        "node_id": node_id,
        "number": number,
        "tenant_id": uuid_text(name.tenant_id),
        "subject": f"{uuid_text(name.agent_id)}/{name.key_id}",
    }
    for member, value in wanted.items():
        _must(told.get(member) == value, f"the audit entry's {member} is another one")
    known = told.get("action") in ("agent_key.register", "agent_key.rotate")
    _must(known, "the audit entry does not register a key")
    details = told.get("details")
    same = isinstance(details, dict) and details.get("public_key") == key.hex()
    _must(same, "the audit entry registers another key")


def _commitment_of(file: Evidence) -> EvidenceCommitment:
    if file.commitment is None:
        raise Unchecked("no commitment holds the event yet")
    return file.commitment


def commitment_of(file: Evidence) -> Commitment:
    """As the formulas take it. Raises Unchecked without one."""
    told = _commitment_of(file)
    return Commitment(
        batch_id=uuid_bytes(told.batch_id),
        tenant_id=uuid_bytes(file.event.tenant_id),
        store_id=uuid_bytes(file.event.store_id),
        ves_version=file.event.ves_version,
        tree_depth=tree_depth(told.leaf_count),
        leaf_count=told.leaf_count,
        padded_leaf_count=padded_leaf_count(told.leaf_count),
        merkle_root=raw_of(told.merkle_root),
        prev_state_root=raw_of(told.prev_state_root),
        new_state_root=raw_of(told.new_state_root),
        sequence_start=told.sequence_start,
        sequence_end=told.sequence_end,
        committed_at_us=0,
    )


def _anchor_links(evidence: Evidence, trust: Trust | None) -> Iterator[Link]:
    if evidence.anchor is None:
        why = f"no block holds it yet: the server says {evidence.said.anchor_state}"
        yield from (Link(name, "not checked", why, name not in _LATER) for name in _ANCHORED)
    else:
        yield from _Anchor(evidence, evidence.anchor, trust).links()


class _Anchor:
    """The links from the commitment into a block."""

    def __init__(self, evidence: Evidence, anchor: EvidenceAnchor, trust: Trust | None) -> None:
        self._file = evidence
        self._anchor = anchor
        self._trust = trust

    def links(self) -> Iterator[Link]:
        yield judged("chain", self._chain)
        yield judged("aggregate", self._aggregate)
        yield judged("aggregate_head", self._head)
        yield judged("log", self._log)
        yield judged("block_receipt", self._block_receipt)
        yield judged("transaction", self._transaction)
        yield judged("anchoring_account", self._account)

    @property
    def _contract(self) -> bytes:
        return raw_of(self._anchor.contract)

    def _chain(self) -> str:
        if self._trust is None or self._trust.chain_id is None or self._trust.contract is None:
            raise Unchecked("no chain id and contract were given to trust")
        _must(self._anchor.chain_id == self._trust.chain_id, f"the trusted chain is {self._trust.chain_id}")
        expected = "0x" + self._trust.contract.hex()
        _must(self._contract == self._trust.contract, f"the trusted contract is {expected}")
        return f"chain {self._anchor.chain_id} and contract {expected} are the trusted ones"

    def _aggregate(self) -> str:
        commitment = commitment_of(self._file)
        told = self._anchor.aggregate
        if told is None:
            return "the commitment went to the chain alone"
        leaf = anchor_leaf(self._anchor.chain_id, self._contract, commitment)
        _must(raw_of(told.leaf) == leaf, "the leaf is not this commitment's for this chain and contract")
        path = [raw_of(step) for step in told.path]
        holds = verify_in_aggregate(leaf, path, told.position, told.count, raw_of(told.root))
        _must(holds, "the path does not lead from this commitment to the aggregate's root")
        return f"the aggregate holds the commitment at position {told.position} of {told.count}"

    def _head(self) -> str:
        told = self._anchor.aggregate
        if told is None:
            return "there is no aggregate to chain"
        head = aggregate_head(raw_of(told.previous_head), raw_of(told.root), told.first_index, told.count)
        _must(raw_of(told.head) == head, "the head does not chain this aggregate to the one before")
        return f"the head chains the aggregate, leaf {told.first_index} on, to the one before"

    def _log(self) -> str:
        receipt = decode_receipt(raw_of(self._anchor.block.receipt))
        _must(receipt.succeeded, "the transaction failed: its receipt says so")
        timestamp_s = decode_header(raw_of(self._anchor.block.header)).timestamp_s
        wanted = self._wanted(timestamp_s)
        for log in receipt.logs:
            if log.address != self._contract:
                continue
            try:
                if anchor_calls.read_event(log.topics, log.data) == wanted:
                    return f"the contract logged {type(wanted).__name__} with these values"
            except ValueError:
                continue
        raise ValueError(f"the contract logged no {type(wanted).__name__} with these values")

    def _wanted(self, timestamp_s: int) -> AggregateAnchored | CommitmentAnchored:
        told = self._anchor.aggregate
        if told is not None:
            return AggregateAnchored(
                root=raw_of(told.root),
                first_index=told.first_index,
                count=told.count,
                previous_head=raw_of(told.previous_head),
                head=raw_of(told.head),
                timestamp_s=timestamp_s,
            )
        commitment = commitment_of(self._file)
        return CommitmentAnchored(
            batch_id=commitment.batch_id,
            tenant_id=commitment.tenant_id,
            store_id=commitment.store_id,
            events_root=commitment.merkle_root,
            state_root=commitment.new_state_root,
            sequence_start=commitment.sequence_start,
            sequence_end=commitment.sequence_end,
            event_count=commitment.leaf_count,
            timestamp_s=timestamp_s,
        )

    def _block_receipt(self) -> str:
        header = proven_block(self._anchor)
        return f"the receipts trie of block {header.number} holds the receipt, and the header its hash"

    def _transaction(self) -> str:
        raw = raw_of(self._anchor.transaction)
        _must(
            transaction_hash(raw) == raw_of(self._anchor.transaction_hash),
            "the transaction's hash is another",
        )
        read_list(raw[1:])  # bounds what the next reader gets
        signed = decode_transaction(raw)
        unsigned, told = signed.unsigned, self._anchor.aggregate
        _must(unsigned.chain_id == self._anchor.chain_id, "the transaction is for another chain")
        _must(unsigned.to == self._contract, "the transaction calls another contract")
        _must(unsigned.value == 0, "the transaction sends value along")
        if told is None:
            expected = anchor_calls.anchor(commitment_of(self._file))
        else:
            expected = anchor_calls.anchor_many(raw_of(told.root), told.count, told.first_index)
        _must(unsigned.data == expected, "the transaction asks for something else")
        return f"account 0x{sender_of(signed).hex()} signed the call that does this"

    def _account(self) -> str:
        if self._trust is None or not self._trust.anchoring_accounts:
            raise Unchecked("no anchoring account was given to trust: the contract decides who may anchor")
        raw = raw_of(self._anchor.transaction)
        read_list(raw[1:])
        sender = sender_of(decode_transaction(raw))
        _must(sender in self._trust.anchoring_accounts, f"account 0x{sender.hex()} is no trusted one")
        return f"account 0x{sender.hex()} is a trusted one"


def proven_block(anchor: EvidenceAnchor) -> BlockHeader:
    """The header, once everything about the block holds. ValueError otherwise."""
    block = anchor.block
    header = verify_receipt_proof(
        raw_of(block.header),
        raw_of(block.hash),
        block.transaction_index,
        raw_of(block.receipt),
        [raw_of(node) for node in block.receipt_proof],
    )
    _must(header.number == block.number, f"the header's number is {header.number}")
    return header
