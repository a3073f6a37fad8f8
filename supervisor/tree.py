"""The inhabitants: who lives in the house, in which order they start, and who knows whose address.

The only module that names them all. Start order is the order below; stop order is the reverse, so that
whoever still needs somebody is gone before that somebody is. Decides nothing else.

    house                   one_for_one
      registry              agent-key bindings
      frontends             pool of processes: HTTP and TLS with clients, nothing else
      encryptors            pool of worker processes: seal, sign receipts, open
      verifiers             pool of worker processes: decode, canonicalise, hash, verify, compare with schemas
      schema-checker        tries schemas before they are registered, in a worker process of its own
      sequencers            one per tenant, on first use, retired when idle
      committer             commitments, one at a time
      sweeper               asks the committer for what is due
      anchoring             an annex: it may die as it likes and takes nobody with it
        dev-chain           keeps the development chain running (ANCHOR=dev)
        anchor              puts commitments on a chain, unless another node's does
      revocations           polls revoked credentials
      token-keys            reads the tokens' key file again when it changes
      failed-attempts       writes failed authentications into the audit chain, summed up
      key-watch             counts keys that are over age
      policies              polls what tenants demand of their events
      pulse                 tells readiness whether the database answers
      audit-spool           carries audit entries that could not wait for the database into the chain
      numbers-keeper        notes the newest number given in each stream beside the database
      rates                 forgets full rate buckets; tells spent ones to the other nodes, if they are shared
      certificates          notices new certificates for the listeners
      audit-committer       commits every node's audit chain, and says when one is broken
      watchdog              event-loop lag
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from actors.at_rest_watch import AtRestWatch
from actors.audit_commitments import AuditCommitter, AuditPolicy
from actors.audit_spool import AuditSpool, SpoolEmptier
from actors.buckets import of_seconds
from actors.certificates import Certificates, CertificateWatcher
from actors.committer import Committer
from actors.credentials import CredentialBook, RevocationPoller
from actors.encryptor import Encryptor
from actors.failed_attempts import FailedAttempts, FailureReporter, Patience
from actors.fair_mailbox import FairMailbox
from actors.given_numbers import GivenNumbers, NumbersKeeper
from actors.key_ages import KeyAgePolicy, KeyAges, KeyWatch
from actors.mailbox import Actor, Mailbox, Ref
from actors.policies import PolicyBook, PolicyPoller
from actors.rate_limits import LIMITED, RateLimits
from actors.rate_sharing import RateKeeper, Sharing
from actors.receipt_key import ReceiptKeyInUse
from actors.registry import KeyRegistry
from actors.right_of_way import RightOfWay
from actors.schema_checker import SchemaChecker
from actors.security_events import SecurityEvents
from actors.sequencer import GroupLimits, Sequencer, Tally
from actors.settled_tenants import SettledTenants
from actors.small_bodies import SmallBodies
from actors.sweeper import CommitmentPolicy, Sweeper
from actors.token_keys import NO_KEYS, KeySet
from actors.token_rules import Rules
from actors.tokens import KeyFile, KeySetWatcher, TokenBook
from actors.verifier import Verifier
from actors.vitals import LoopLag, Pulse
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import BecomeVerifier
from config.exposure import files_of_listeners
from config.secrets import Secrets
from config.settings import Settings
from journal.port import Journal, ReceiptKey
from supervisor.anchor_parts import AnchorParts
from supervisor.annex import Annex
from supervisor.branch import Branch
from supervisor.dynamic import DynamicSupervisor
from supervisor.overseer import TreeOverseer
from supervisor.policy import Pauses
from supervisor.supervisor import ChildSpec, Pool, Supervisor
from supervisor.watchdog import Watchdog
from transport.front.hall import FrontEnd, Hall, SpawnFront, own_front
from transport.house import House, Readiness
from ves.encoding import uuid_text
from ves.policy import Policy
from ves.records import Uuid

log = structlog.get_logger("house")

PULSE_S = 1.0
RESTING = frozenset({"sweeper", "anchoring", "audit-committer"})
"""Not at home in a house that must not write: they would try again and again, and log each time."""
AUDIT_SPOOL = "audit-spool.jsonl"
UNREADY_BEATS = 5
ANCHOR_STOP_S = 10.0
"""It gives its lease back, so that the next one need not wait for it to run out."""
SCHEMA_LETTERS_MAX = 32
"""Registering schemas is rare, and each may take seconds."""
WORKER_DEATHS = 20
WORKER_PERIOD_S = 30.0
WORKER_PAUSES = Pauses(max_s=0.5)
"""A worker process may be killed from outside, by the kernel or by a drill, and costs only its letter: the
house should not fall for a handful of them."""


def _now_us() -> int:
    return time.time_ns() // 1000


def _new_uuid() -> Uuid:
    return uuid.uuid4().bytes


@dataclass(frozen=True)
class Ports:
    """What the house takes from the world beside its journal; a simulation gives its own."""

    now_us: Callable[[], int] = _now_us
    new_uuid: Callable[[], Uuid] = _new_uuid
    chance: random.Random = field(default_factory=random.Random)
    """For jitter between retries, nothing secret."""
    spawn: Spawn = OwnProcess
    """Starts a worker process."""
    spawn_front: SpawnFront | None = own_front
    """Starts a front-end process; None: there are none, and nobody is to start one."""
    watchdog: Callable[[LoopLag], Actor] = Watchdog
    """Measures the machine's time, not ``now_us``."""


@dataclass(frozen=True)
class Built:
    """The tree, not yet alive, and what the doors may know of it."""

    root: Supervisor
    house: House
    hall: Hall | None
    """Where front-ends meet; None: the public door is kept in this process."""


def build(
    settings: Settings,
    secrets: Secrets,
    journal: Journal,
    *,
    receipt_key: ReceiptKey,
    token_keys: KeySet = NO_KEYS,
    strays: Callable[[], int] = lambda: 0,
    given: GivenNumbers | None = None,
    anchor: AnchorParts | None = None,
    read_only: str | None = None,
    ports: Ports | None = None,
) -> Built:
    """Everybody introduced to everybody they need; nobody started. ``receipt_key``: the one claimed;
    ``given``: where numbers are noted; ``anchor``: if somebody anchors; ``read_only``: why nobody may
    write."""
    ports = ports or Ports()
    readiness = Readiness()
    lag = LoopLag()
    given = given or GivenNumbers(None)
    tally = Tally(given=given)
    settled_tenants = SettledTenants()
    right_of_way = RightOfWay()
    security = SecurityEvents()
    rate_limits = rate_limits_of(settings)
    at_rest = at_rest_of(secrets, security)
    certificates = Certificates(
        files_of_listeners(settings), security=security, now_s=lambda: ports.now_us() / 1_000_000
    )
    key_ages = KeyAges()
    demands = Policy(entity_types=settings.entity_types, schema_mode=settings.schema_validation_mode)
    policies = PolicyBook(journal=journal, defaults=demands)
    become_verifier = BecomeVerifier(
        demands=demands,
        payload_bytes_max=settings.max_event_payload_size,
        future_us_max=round(settings.max_future_skew_secs * 1_000_000),
    )
    credentials = CredentialBook(journal=journal, now_us=ports.now_us)
    tokens = TokenBook(
        journal=journal,
        keys=token_keys,
        rules=Rules(settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_secs),
        now_s=lambda: ports.now_us() / 1_000_000,
    )
    failed_attempts = FailedAttempts(
        patience=Patience(
            settings.auth_failures_burst,
            settings.auth_failures_per_minute,
            settings.auth_failures_addresses_max,
        ),
        security=security,
        now_s=lambda: ports.now_us() / 1_000_000,
    )
    key_file = None if settings.jwt_jwks_file is None else KeyFile(settings.jwt_jwks_file)
    in_use = ReceiptKeyInUse(journal=journal, keys=secrets.keys, claimed=receipt_key, security=security)
    audit_spool = AuditSpool(journal=journal, path=settings.data_dir / AUDIT_SPOOL)

    registry = Mailbox("registry", letters_max=settings.mailbox_letters_max)
    committer = FairMailbox("committer", letters_max=settings.mailbox_letters_max)
    schema_checker = Mailbox("schema-checker", letters_max=SCHEMA_LETTERS_MAX)
    encryptors = Pool(
        "encryptors",
        settings.encryptor_count,
        lambda: Encryptor(keys=in_use.for_a_life, spawn=ports.spawn, watch=at_rest),
        settings.mailbox_letters_max,
        declares_ready=True,
        intensity=WORKER_DEATHS,
        period_s=WORKER_PERIOD_S,
        pauses=WORKER_PAUSES,
        fair=True,
    )
    verifiers = Pool(
        "verifiers",
        settings.verifier_count,
        lambda: Verifier(
            registry=Ref(registry), policies=policies, become=become_verifier, spawn=ports.spawn
        ),
        settings.mailbox_letters_max,
        declares_ready=True,
        intensity=WORKER_DEATHS,
        period_s=WORKER_PERIOD_S,
        pauses=WORKER_PAUSES,
        fair=True,
    )

    hall: Hall | None = None
    front_ends: list[Pool] = []
    if settings.front_end_count and ports.spawn_front is not None:
        hall = keepers = Hall(settings, spawn=ports.spawn_front)
        front_ends.append(
            Pool(
                "frontends",
                settings.front_end_count,
                lambda: FrontEnd(keepers),
                0,
                intensity=WORKER_DEATHS,
                period_s=WORKER_PERIOD_S,
                pauses=WORKER_PAUSES,
            )
        )

    def sequencer(tenant_id: Uuid) -> Sequencer:
        return Sequencer(
            tenant_id=tenant_id,
            journal=journal,
            encryptors=encryptors.ref,
            sequencer_id=secrets.sequencer_id,
            limits=GroupLimits(
                letters_max=settings.sequencer_letters_max,
                events_max=settings.group_events_max,
                bytes_max=settings.group_bytes_max,
                sealed_at_once=settings.encryptor_count,
            ),
            chance=ports.chance,
            tally=tally,
            settled_tenants=settled_tenants,
            right_of_way=right_of_way,
            key_age_max_us=settings.agent_key_age_enforced_us,
        )

    sequencers = DynamicSupervisor(
        "sequencers",
        sequencer,
        children_max=settings.tenants_max,
        letters_max=settings.sequencer_letters_max,
        idle_s=settings.tenant_idle_secs,
        idle_max=settings.idle_tenants_kept,
        shutdown_s=settings.db_unit_deadline_s,
        name_of=uuid_text,
    )

    unready_beats = 0

    def tell_pulse(trouble: str | None) -> None:
        nonlocal unready_beats
        security.tell_withheld()
        if trouble is None:
            readiness.done("database")
        else:
            readiness.wait_for("database", trouble)
        # One actor between two lives is everyday life; one that does not come back is not.
        unready_beats = 0 if root.ready else unready_beats + 1
        if unready_beats > UNREADY_BEATS:
            readiness.wait_for("tree", "an actor does not come up")
        else:
            readiness.done("tree")

    readiness.wait_for("database", "not asked yet")
    if read_only is not None:
        readiness.wait_for("restored", read_only)
    everybody: list[ChildSpec | Branch] = [
        ChildSpec(
            name="registry",
            factory=lambda: KeyRegistry(journal=journal),
            mailbox=registry,
        ),
        *front_ends,
        encryptors,
        verifiers,
        ChildSpec(
            name="schema-checker",
            factory=lambda: SchemaChecker(spawn=ports.spawn),
            mailbox=schema_checker,
        ),
        sequencers,
        ChildSpec(
            name="committer",
            factory=lambda: Committer(journal=journal, new_batch_id=ports.new_uuid, now_us=ports.now_us),
            mailbox=committer,
            shutdown_s=settings.db_unit_deadline_s,
        ),
        ChildSpec(
            name="sweeper",
            factory=lambda: Sweeper(
                journal=journal,
                committer=Ref(committer),
                policy=CommitmentPolicy(
                    events=settings.commitment_events,
                    interval_s=settings.commitment_interval_secs,
                    sweep_s=settings.commitment_sweep_secs,
                ),
                now_us=ports.now_us,
            ),
        ),
        *annex_for(anchor, security, ports),
        ChildSpec(
            name="revocations",
            factory=lambda: RevocationPoller(journal=journal, book=credentials, tokens=tokens),
        ),
        ChildSpec(
            name="token-keys", factory=lambda: KeySetWatcher(book=tokens, file=key_file, journal=journal)
        ),
        ChildSpec(
            name="failed-attempts",
            factory=lambda: FailureReporter(journal=journal, attempts=failed_attempts),
        ),
        ChildSpec(
            name="key-watch",
            factory=lambda: KeyWatch(
                journal=journal,
                policy=KeyAgePolicy(
                    watched=settings.key_rotation_mode != "off",
                    agent_key_age_max_us=settings.agent_key_age_max_us,
                    receipt_key_age_max_us=settings.receipt_key_age_max_us,
                ),
                sequencer_id=secrets.sequencer_id,
                now_us=ports.now_us,
                ages=key_ages,
                security=security,
            ),
        ),
        ChildSpec(
            name="policies",
            factory=lambda: PolicyPoller(journal=journal, book=policies),
        ),
        ChildSpec(
            name="pulse",
            factory=lambda: Pulse(journal=journal, every_s=PULSE_S, tell=tell_pulse),
            suspendable=False,  # readiness would go on telling what was true before
        ),
        ChildSpec(name="audit-spool", factory=lambda: SpoolEmptier(audit_spool)),
        ChildSpec(name="numbers-keeper", factory=lambda: NumbersKeeper(given)),
        ChildSpec(name="rates", factory=lambda: RateKeeper(rate_limits, journal=journal)),
        ChildSpec(name="certificates", factory=lambda: CertificateWatcher(certificates)),
        ChildSpec(
            name="audit-committer",
            factory=lambda: AuditCommitter(
                journal=journal,
                policy=AuditPolicy(
                    node_id=secrets.sequencer_id,
                    entries=settings.audit_commitment_entries,
                    interval_s=settings.audit_commitment_interval_secs,
                    sweep_s=settings.commitment_sweep_secs,
                ),
                security=security,
                now_us=ports.now_us,
            ),
            shutdown_s=settings.db_unit_deadline_s,
        ),
        ChildSpec(name="watchdog", factory=lambda: ports.watchdog(lag), suspendable=False),
    ]
    root = Supervisor("house", [one for one in everybody if read_only is None or one.name not in RESTING])
    readiness.held_back = root.held_back
    house = House(
        settings=settings,
        journal=journal,
        credentials=credentials,
        policies=policies,
        tokens=tokens,
        failed_attempts=failed_attempts,
        verifiers=verifiers.ref,
        schema_checker=Ref(schema_checker),
        encryptors=encryptors.ref,
        sequencer_of=sequencers.ref,
        committer=Ref(committer),
        sequencer_id=secrets.sequencer_id,
        bootstrap_key_sha256=secrets.bootstrap_key_sha256,
        readiness=readiness,
        overseer=TreeOverseer(root),
        audit_spool=audit_spool,
        security=security,
        rate_limits=rate_limits,
        at_rest=at_rest,
        certificates=certificates,
        key_ages=key_ages,
        lag=lag,
        tally=tally,
        right_of_way=right_of_way,
        strays=strays,
        front_ends=tuple if hall is None else hall.look,
        anchoring=None if anchor is None else anchor.anchoring,
        small_bodies=SmallBodies(
            registry=Ref(registry),
            become=become_verifier,
            bytes_max=settings.verify_inline_bytes,
            now_us=ports.now_us,
        ),
        read_only=read_only,
    )
    return Built(root, house, hall)


def annex_for(anchor: AnchorParts | None, security: SecurityEvents, ports: Ports) -> list[Annex]:
    """None where somebody else anchors, or nobody."""
    if anchor is None or anchor.actor is None:
        return []
    make = anchor.actor
    spec = ChildSpec(
        name="anchor",
        factory=lambda: make(security, ports.now_us, ports.chance),
        shutdown_s=ANCHOR_STOP_S,
    )
    keeper = [] if anchor.keeper is None else [ChildSpec(name="dev-chain", factory=anchor.keeper)]
    return [Annex("anchoring", [*keeper, spec])]


def at_rest_of(secrets: Secrets, security: SecurityEvents) -> AtRestWatch:
    keys = secrets.keys
    if keys.at_rest_mode == "disabled":
        log.warning("new payloads are stored unencrypted: PAYLOAD_ENCRYPTION_MODE is disabled")
    return AtRestWatch(
        security=security,
        mode=keys.at_rest_mode,
        current_key=keys.at_rest_key_ids[0].hex(),
        tenants_with_own_ring=len(keys.at_rest_key_ids_by_tenant),
    )


def rate_limits_of(settings: Settings) -> RateLimits:
    enforced = settings.rate_limit_mode == "enforce"
    if not enforced:
        log.warning("rate limits are off: RATE_LIMIT_MODE")
    return RateLimits(
        {name: of_seconds(*settings.rate_limit_of(name)) for name in LIMITED if enforced},
        sharing=Sharing() if enforced and settings.rate_limit_shared else None,
    )
