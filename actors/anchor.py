"""The anchor: puts commitments on the chain, and follows each until it is final. One works over all nodes.

It alone holds the lease and opens the signer. One life: open the signer, claim the lease or look again when
it may have run out, then one look at everything each few seconds. A chain, database or signer that is away
costs a pause, not a life; what takes an operator stops the work, says why, and is looked at again each
minute; whatever else ends the life, and the next one reads everything anew. It never asks anybody and nobody
asks it: commitments come to it through the journal.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from actors.anchor_lease import Deposed, LeasedJournal
from actors.anchor_policy import AnchorPolicy
from actors.anchor_steps import NeedsOperator, NotYet, Trouble, TroubleKind
from actors.anchor_tenure import Suspicions, Tenure
from actors.anchor_vitals import AnchorVitals, Role
from actors.chain import Chain, ChainAway, ChainLies, ChainNotOurs, ChainSigner, SignerAway, SignerRefused
from actors.faults import checkpoint
from actors.mailbox import EndOfLife, Inbox
from actors.security_events import SecurityEvents
from journal.anchor_port import AnchorJournal, LeaseHeld
from journal.port import JournalAway
from ves.records import Uuid

PAUSE_MAX_S = 60.0
STOPPED_S = 60.0
BREAKER_FAILURES = 5
"""So many failures of the chain in a row, and vitals say that it is left alone for a while."""
QUIET: tuple[TroubleKind, ...] = ("chain away", "database away", "signer away", "nonce behind")
"""Passes by itself, as a rule: told in the log and by metrics, no security event."""

log = structlog.get_logger(__name__)

OpenSigner = Callable[[], AbstractAsyncContextManager[ChainSigner]]


@dataclass
class _Life:
    """What one signer's time goes through."""

    signer: ChainSigner
    suspicions: Suspicions
    tenure: Tenure | None = None
    refilled: bool = False
    failures: int = 0
    """Looks in a row that found chain or journal away."""


class Anchor:
    """``signer`` makes one for each time that one is opened; ``security`` is told of what needs a person."""

    def __init__(
        self,
        *,
        journal: AnchorJournal,
        chain: Chain,
        signer: OpenSigner,
        policy: AnchorPolicy,
        vitals: AnchorVitals,
        security: SecurityEvents | None,
        holder: Uuid,
        now_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._policy = policy
        self._vitals = vitals
        self._security = security
        self._holder = holder
        self._now_us = now_us
        self._chance = chance

    async def run(self, inbox: Inbox) -> None:
        self._say("starting", None)
        failures = 0
        while True:
            try:
                async with self._signer() as signer:
                    failures = 0
                    ending = await self._with_signer(_Life(signer, Suspicions(self._policy.stuck_s)), inbox)
            except SignerAway as error:
                ending = error
            except SignerRefused as error:
                ending = error
            if isinstance(ending, EndOfLife):
                raise ending
            failures += 1
            await inbox.pause(self._signer_trouble(ending, failures))

    def _signer_trouble(self, error: SignerAway | SignerRefused, failures: int) -> float:
        """Told; how long to pause before it is opened anew."""
        if isinstance(error, SignerAway):
            self._say(self._vitals.role, Trouble("signer away", str(error)))
            return self._growing(failures)
        self._say("stopped", Trouble("signer refuses", str(error)))
        return STOPPED_S

    async def _with_signer(self, life: _Life, inbox: Inbox) -> EndOfLife | SignerAway | SignerRefused:
        """Until the signer is gone or this life is to end: which of them. The lease is free then."""
        self._vitals.address = life.signer.address
        try:
            while True:
                await inbox.pause(await self._round(life))
        except (EndOfLife, SignerAway, SignerRefused) as ending:
            await self._resign(life)
            return ending

    async def _round(self, life: _Life) -> float:
        """One look, told in vitals; how long to pause then."""
        try:
            pause_s = await self._work(life)
        except Deposed as error:
            log.info("anchor deposed", reason=str(error))
            life.tenure = None
            return self._policy.poll_s
        except (ChainAway, ChainLies, JournalAway) as error:
            life.failures += 1
            return self._away(error, life.failures)
        except ChainNotOurs as error:
            return await self._stop(life, Trouble("another chain", str(error)))
        except NeedsOperator as error:
            return await self._stop(life, error.trouble)
        life.failures = 0
        self._vitals.breaker_open = False
        return pause_s

    async def _work(self, life: _Life) -> float:
        if life.tenure is None:
            life.tenure = await self._claim(life)
        if life.tenure is None:
            self._say("standby", None)
            return self._policy.lease_s / 3
        try:
            await life.tenure.tick()
        except NeedsOperator:
            raise
        except NotYet as error:
            suspected = bool(life.suspicions.now)
            role = self._vitals.role if suspected else "active"
            self._say(role, error.trouble, alarming=not suspected)
        else:
            self._say("active", None)
        return self._policy.poll_s

    async def _claim(self, life: _Life) -> Tenure | None:
        claimed = await self._journal.claim_lease(self._holder, lease_s=self._policy.lease_s)
        if isinstance(claimed, LeaseHeld):
            return None
        checkpoint("anchor.claimed")
        log.info("anchor claimed the lease", epoch=claimed.epoch)
        leased = LeasedJournal(self._journal, claimed, lease_s=self._policy.lease_s)
        await self._refill(life)
        return Tenure(
            journal=self._journal,
            leased=leased,
            chain=self._chain,
            signer=life.signer,
            policy=self._policy,
            vitals=self._vitals,
            suspicions=life.suspicions,
            alarm=self._alarm,
            pauses=self._growing,
            now_us=self._now_us,
        )

    async def _refill(self, life: _Life) -> None:
        """Once is enough, and not worth a death: what is stored comes there by itself."""
        if life.refilled:
            return
        life.refilled = True
        try:
            added = await self._journal.refill_backlog()
        except JournalAway as error:
            log.info("anchor backlog not refilled", reason=str(error))
        else:
            log.info("anchor backlog refilled", added=added)

    async def _resign(self, life: _Life) -> None:
        if life.tenure is not None:
            await life.tenure.leased.release()
            life.tenure = None

    # What is told, and how long to pause.

    async def _stop(self, life: _Life, trouble: Trouble) -> float:
        """The lease is free meanwhile: for another node, and for the operator's commands."""
        await self._resign(life)
        self._say("stopped", trouble)
        return STOPPED_S

    def _away(self, error: ChainAway | ChainLies | JournalAway, failures: int) -> float:
        kind: TroubleKind = "chain away"
        if isinstance(error, ChainLies):
            kind = "chain lies"
        elif isinstance(error, JournalAway):
            kind = "database away"
        self._vitals.breaker_open = kind != "database away" and failures >= BREAKER_FAILURES
        self._say(self._vitals.role, Trouble(kind, str(error)))
        return self._growing(failures)

    def _growing(self, failures: int) -> float:
        """Twice as long each time, up to a minute, and never the same for two nodes."""
        doubled = self._policy.poll_s * 2.0 ** min(failures - 1, 10)
        return min(PAUSE_MAX_S, doubled) * self._chance.uniform(0.8, 1.2)

    def _say(self, role: Role, trouble: Trouble | None, *, alarming: bool = True) -> None:
        """Each change is logged; somebody is alarmed once of each kind, and once more when all work stops."""
        before = self._vitals.role, self._vitals.trouble
        text = None if trouble is None else f"{trouble.kind}: {trouble.text}"
        if (role, text) == before:
            return
        self._vitals.role, self._vitals.trouble = role, text
        log.info("anchor", role=role, trouble=text)
        if trouble is None or trouble.kind in QUIET or not alarming:
            return
        known = (before[1] or "").startswith(f"{trouble.kind}:")
        if not known or (role == "stopped" and before[0] != role):
            self._alarm(f"{trouble.kind}: {trouble.text}")

    def _alarm(self, text: str) -> None:
        if self._security is not None:
            self._security.happened("anchor_failed", reason=text)
