"""What the chain holds of a commitment, asked by the auditor himself: the one view that is common to all.

Takes the evidence of the commitment's last event from the server, judges every link of it offline, holds it
against what was verified, then asks the chain whether the block is its own and the contract says the same.
Trusts for this what the trust file names: chain id and contract. The server's word counts for nothing here.
"""

from __future__ import annotations

from actors.chain import Chain, ChainAway, ChainLies, ChainNotOurs
from transport.client.errors import ClientError, Refused, Unanswered
from transport.client.evidence_on_chain import ask_chain
from transport.client.follow_anchors import AnchorUnproven, NotFinalThere
from transport.client.follow_view import View
from ves.encoding import uuid_text
from ves.evidence import ON_CHAIN, Trust, Unchecked, check, commitment_of, failed
from ves.evidence_file import Evidence, NotEvidence, read_evidence
from ves.following import Contradiction, Verified, name_of

_SAME = ("batch_id", "sequence_start", "sequence_end", "merkle_root", "prev_state_root", "new_state_root")


class OnChain:
    """Of one stream and one contract."""

    def __init__(self, view: View, chain: Chain, chain_id: int, contract: bytes) -> None:
        self._view = view
        self._chain = chain
        self._chain_id = chain_id
        self._contract = contract

    async def contradiction(self, verified: Verified) -> tuple[Contradiction, bytes] | None:
        """Of a commitment that the server says is final: what is wrong, and the evidence it gave. None: the
        chain holds exactly it. Unanswered: no endpoint answered."""
        raw = await self._evidence(verified)
        try:
            evidence = read_evidence(raw)
        except NotEvidence as form:
            raise AnchorUnproven(f"{name_of(verified.commitment)}: its evidence is none: {form}") from None
        wrong = self._offline(evidence, verified) or await self._asked(evidence, verified)
        if wrong is None:
            return None
        kind, text = wrong
        one = verified.commitment
        found = Contradiction(kind, f"{name_of(one)}: {text}", one.sequence_start, one.sequence_end)
        return found, raw

    async def _evidence(self, verified: Verified) -> bytes:
        path = f"/api/v1/ves/events/{uuid_text(verified.last_receipt.event_id)}/evidence"
        try:
            return await self._view.ask(path)
        except Refused as refused:
            if refused.status != 404:
                raise
            raise AnchorUnproven(f"{name_of(verified.commitment)}: there is no evidence of it") from refused

    def _offline(self, evidence: Evidence, verified: Verified) -> tuple[str, str] | None:
        """The file holds, and is about what was verified."""
        keys = {(n.sequencer_id, n.key_version): k for n, k in self._view.memory.state.keys().items()}
        trust = Trust(receipt_keys=keys, chain_id=self._chain_id, contract=self._contract)
        if broken := failed(check(evidence, trust)):
            return "anchor_false", "; ".join(f"{link.name}: {link.text}" for link in broken)
        try:
            told = commitment_of(evidence)
        except Unchecked as why:
            return "anchor_false", str(why)
        if any(getattr(told, member) != getattr(verified.commitment, member) for member in _SAME):
            return "anchor_false", "the evidence is of another commitment than the one that was verified"
        if evidence.anchor is None:
            return "anchor_false", "the server calls its anchor final and its evidence names no block"
        return None

    async def _asked(self, evidence: Evidence, verified: Verified) -> tuple[str, str] | None:
        try:
            await self._chain.block("latest")  # whether there is an endpoint that can be believed at all
            links = await ask_chain(evidence, self._chain)
            names_final = await self._chain.block("finalized") is not None
        except ChainAway as away:
            raise Unanswered(1, f"the chain's endpoints: {away}") from None
        except (ChainNotOurs, ChainLies) as strange:
            raise ClientError(f"--rpc: no endpoint could be believed: {strange}") from None
        if broken := failed(links):
            return "chain_differs", "; ".join(f"{link.name}: {link.text}" for link in broken)
        # The sequencer may call final what is deep enough; who follows waits for the chain's own word.
        early = [link.text for link in links if link.name == ON_CHAIN[1] and link.verdict != "passed"]
        if early and names_final:
            text = f"{name_of(verified.commitment)}: the server calls its anchor final and the chain does not"
            raise NotFinalThere(f"{text}: {early[0]}")
        return None
