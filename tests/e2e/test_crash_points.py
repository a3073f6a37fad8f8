"""At every named point of the product a process was killed, and nothing was lost, doubled or stuck.

Three kinds of processes and moments: a first start, a server at work, a worker process. After each death the
same data is served again without the fault, and read by the auditor. The list checks itself: a point in the
code without a case here fails the first test. (``tests/e2e/test_crash.py`` kills the points of the append
under load.)
"""

from __future__ import annotations

import re
import shutil
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.anchorkeys.test_keystores import OF_A_KEYSTORE
from tests.attacks.test_kills import OF_THE_ANCHOR
from tests.attacks.test_operators_hands import OF_A_DEPLOYMENT
from tests.auditor.audit import audit
from tests.auditor.audit_chain import audit_chain, read_chains
from tests.auditor.reading import over_http, read_stream
from tests.e2e import unsigned
from tests.e2e.nodes import restarts
from tests.e2e.test_archive import OF_AN_ARCHIVE
from tests.e2e.test_backup_restore import OF_A_BACKUP, OF_A_CONFIRMATION, OF_A_RESTORE
from tests.e2e.test_crash import WRITE_PATH
from tests.e2e.test_incidents import CRASHES as OF_AN_INCIDENT
from tests.e2e.test_receipt_key_rotation import OF_A_ROTATION
from tests.e2e.test_reencryption import OF_A_REENCRYPTION, OF_A_RETIREMENT
from tests.e2e.world import ROOT, Agent, Server, Tenant
from tests.sweeps import with_some

STEPS_OF_A_UNIT = ("begin", "commit_sent_before", "committed")
SMALL = {
    "REGION": "eu-west-1",
    "VERIFIERS": "1",
    "ENCRYPTORS": "1",
    "VERIFY_INLINE_BYTES": "0",
    "COMMITMENT_INTERVAL_SECS": "3600",
    "COMMITMENT_SWEEP_SECS": "0.2",
    "AUDIT_COMMITMENT_ENTRIES": "8",
}
ANCHORED_ELSEWHERE = {
    "ANCHOR": "apart",
    "L2_RPC_URL": "http://127.0.0.1:9",
    "SET_REGISTRY_ADDRESS": "0x" + "5f" * 20,
    "ANCHOR_WAIT_SECS": "0",
}
"""A server that takes requests for an anchor which is not there."""


def unit(name: str) -> list[str]:
    return [f"{name}.{step}" for step in STEPS_OF_A_UNIT]


FIRST_START = [
    *(f"key_file.written:{nth}" for nth in (1, 2, 3, 4)),
    *(f"key_file.named:{nth}" for nth in (1, 4)),
    "initdb.made",
    "initdb.renamed",
    "embedded.spawned",
    "embedded.ready",
    "migrate.applied",
    "migrate.committed",
    "migrate.login_made",
    *unit("claim_at_rest_keys"),
    *unit("claim_receipt_key"),
]
FIRST_EACH_TIME = (
    "key_file.written:1",
    "key_file.named:4",
    "initdb.renamed",
    "embedded.ready",
    "migrate.applied",
)
AT_WORK = [
    "settle.begin",
    "sequencer.legacy_read",
    "sequencer.legacy_sealed",
    "append_legacy.fenced",
    "append_legacy.copied",
    *unit("append_legacy"),
    "sequencer.legacy_appended",
    "verifier.verified",
    "encryptor.sealed",
    "committer.built",
    "committer.committed",
    *unit("commit"),
    "committer.legacy_built",
    "committer.legacy_committed",
    *unit("commit_legacy"),
    *unit("submit_validity_proof"),
    *unit("request_anchor"),
    *unit("report_anchor"),
    *unit("register_agent_key"),
    *unit("revoke_agent_key"),
    *unit("revoke_agent_keys"),
    *unit("rotate_agent_key"),
    *unit("create_api_key"),
    *unit("revoke_api_key"),
    *unit("create_schema"),
    *unit("set_schema_status"),
    *unit("set_policy"),
    *unit("set_regions"),
    *unit("revoke_tokens"),
    # The first is the server's start, and its commitment.
    *(f"{point}:2" for point in (*unit("audit"), "audit_committer.built", *unit("commit_audit"))),
]
OF_A_SWEEP = ["committer.built", "committer.committed", *unit("commit")]
"""Of ``AT_WORK`` those that a sweep comes by too, with many streams at a time."""
OF_BACKUPS = [*OF_A_BACKUP, *OF_A_RESTORE, *OF_A_CONFIRMATION]
OF_A_WORKER = ["worker.worked", "worker.half_answered", "worker.answered"]
NOTHING_IS_STORED = {
    "settle.commit_sent_before": "it looks and rolls back",
    "settle.committed": "it looks and rolls back",
    **dict.fromkeys(unit("room"), "only on a full disk: a temporary table, gone with its session"),
}


def _each_time(point: str) -> bool:
    """Of each unit the moment after COMMIT: what dies before it has stored nothing. Of unsigned events only
    that: the simulation kills at all their points, and signed ones go the same way."""
    name = point.partition(":")[0]
    if name.startswith(("sequencer.legacy_", "append_legacy.")):
        return name == "append_legacy.committed"
    return not name.endswith((".begin", ".commit_sent_before"))


def points_in_the_code() -> set[str]:
    found: set[str] = set()
    for room in ("supervisor", "transport", "actors", "journal", "config"):
        for file in (ROOT / room).rglob("*.py"):
            if file.name.startswith("memory"):  # the simulation's journal
                continue
            text = file.read_text()
            found |= set(re.findall(r'checkpoint(?:_or_wait)?\(\s*"([a-z_.]+)"', text))
            for name in re.findall(r'(?:named=|_(?:write|fenced)\w*\(\s*)"(\w+)"', text):
                found |= set(unit(name))
            for prefix in re.findall(r'checkpoint\(f"([a-z.]+){transition.state}"\)', text):
                found |= {f"{prefix}{state}" for state in ("included", "safe", "finalized")}
    return found


def test_no_point_in_the_code_is_without_a_crash() -> None:
    tried = {
        point.partition(":")[0]
        for points in (
            OF_A_ROTATION,
            OF_A_REENCRYPTION,
            OF_A_RETIREMENT,
            OF_AN_ARCHIVE,
            OF_AN_INCIDENT,
            OF_BACKUPS,
            WRITE_PATH,
            OF_THE_ANCHOR,
            [point for point, _ in OF_A_KEYSTORE],
            [OF_A_DEPLOYMENT],
        )
        for point in (*FIRST_START, *AT_WORK, *OF_A_WORKER, *points)
    }
    in_code = points_in_the_code()
    assert len(in_code) > 40, "the search finds nothing any more"
    assert in_code - tried - set(NOTHING_IS_STORED) == set(), "points without a crash"
    assert tried - in_code == set(), "crashes at points that are no more"


# ---- a first start --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("point", with_some(FIRST_START, FIRST_EACH_TIME.__contains__))
def test_a_first_start_that_is_killed_is_begun_again(own_server: Callable[..., Server], point: str) -> None:
    dying = own_server(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point, **SMALL)
    assert dying.launch().wait(60) == -signal.SIGKILL, dying.tail()
    assert not (dying.data_dir / "server.json").exists()
    keys = key_files(dying)
    server = own_server(**SMALL).start()
    server.wait_ready()
    kept = key_files(server)
    assert len(kept) == 4
    assert kept | keys == kept, "a key that was there has changed"
    there = {path.name for path in (server.data_dir / "keys").iterdir()}
    assert there == set(kept), "a key in a file that nobody knows"
    tenant = Tenant(server)
    posted = work(tenant)
    server.kill_9()
    server.start()
    server.wait_ready()
    tenant.moved_to(server)
    replayed(tenant, posted)
    audited(tenant)


def key_files(server: Server) -> dict[str, str]:
    folder = server.data_dir / "keys"
    return {p.name: p.read_text() for p in folder.iterdir() if p.name[0] != "."} if folder.exists() else {}


# ---- a server at work -----------------------------------------------------------------------------------


@dataclass
class Posted:
    body: bytes
    receipts: list[dict[str, object]]


def work(tenant: Tenant) -> Posted:
    body = tenant.agent.body([tenant.agent.event({"n": n}) for n in range(3)])
    answer = tenant.post_raw(body)
    assert answer.status_code == 200, answer.text
    return Posted(body, answer.json()["receipts"])


def replayed(tenant: Tenant, posted: Posted) -> None:
    answer = tenant.post_raw(posted.body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["receipts"] == posted.receipts
    assert answer.json()["eventsReplayed"] == len(posted.receipts)


def committed(tenant: Tenant) -> httpx.Response:
    return tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)


def audited(tenant: Tenant) -> None:
    get = over_http(tenant.server.url, tenant.api_key)
    evidence = read_stream(get, str(tenant.tenant_id), str(tenant.store_id), proof_every=0)
    problems = audit(evidence)
    assert not problems, problems[:5]


@dataclass
class Estate:
    """A data directory in which a tenant has three events; each case works on a copy."""

    data_dir: Path
    tenant: Tenant
    posted: Posted


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Estate:
    server = Server(tmp_path_factory.mktemp("estate") / "data", **SMALL).start()
    server.wait_ready()
    tenant = Tenant(server)
    posted = work(tenant)
    assert server.terminate() == 0, server.tail()
    return Estate(server.data_dir, tenant, posted)


def of_point(point: str) -> dict[str, str]:
    return SMALL | ANCHORED_ELSEWHERE if point.startswith("request_anchor") else SMALL


@dataclass
class Case:
    """A server that will die at the point, and the tenant whose act leads there."""

    point: str
    tenant: Tenant

    @property
    def durable(self) -> bool:
        """What was under way is stored: it died after COMMIT."""
        return self.point.partition(":")[0].endswith(("committed", "appended"))

    def dies(self, act: Callable[[], object]) -> None:
        server = self.tenant.server
        with pytest.raises(httpx.TransportError):
            act()
        assert server.process is not None
        assert server.process.wait(20) == -signal.SIGKILL, server.tail()

    def revives(self) -> None:
        server = self.tenant.server
        server.environment = dict(of_point(self.point))
        server.start()
        server.wait_ready()
        self.tenant.moved_to(server)


def revoke_agent_key(tenant: Tenant) -> httpx.Response:
    agent = tenant.agent
    body = {"tenantId": str(tenant.tenant_id), "agentId": str(agent.agent_id), "keyId": agent.key_id}
    return tenant.http.post("/api/v1/agents/keys/revoke", json=body)


def admin(tenant: Tenant, method: str, path: str, **more: object) -> httpx.Response:
    server = tenant.server
    key = {"authorization": f"ApiKey {server.bootstrap_key}"}
    url = f"{server.admin_url}/api/v1/admin/api-keys{path}"
    return httpx.request(method, url, headers=key, timeout=30, **more)  # type: ignore[arg-type]


def api_keys(tenant: Tenant) -> list[dict[str, object]]:
    answer = admin(tenant, "GET", "", params={"tenant_id": str(tenant.tenant_id)})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["apiKeys"])


def of_an_event(case: Case) -> None:
    body = case.tenant.agent.body([case.tenant.agent.event({"n": 1})])
    case.dies(lambda: case.tenant.post_raw(body))
    case.revives()
    answer = case.tenant.post_raw(body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["eventsAccepted"] == 1, "nothing of it had been sent to the disk"


def of_an_unsigned_event(case: Case) -> None:
    tenant = case.tenant
    event = unsigned.unsigned(tenant, {"n": 1}, entity_id="once", command_id=str(uuid.uuid4()))
    case.dies(lambda: unsigned.post(tenant, event))
    case.revives()
    told = unsigned.post(tenant, event)
    assert unsigned.reasons(told) == (["DuplicateEventId"] if case.durable else [])
    assert (told["events_accepted"], told["head_sequence"]) == (1 - case.durable, 1)
    # Either way it is there once, with its command id and its step of the entity's version.
    assert [one["event_id"] for one in unsigned.whole_stream(tenant)] == [event["event_id"]]
    again = unsigned.unsigned(tenant, {"n": 2}, command_id=event["command_id"])
    assert unsigned.reasons(unsigned.post(tenant, again)) == ["DuplicateCommandId"]
    signed = tenant.post(tenant.agent.event({"n": 3}, entity_id="once", base_version=1))
    assert signed.json()["eventsAccepted"] == 1


def of_a_commitment(case: Case) -> None:
    case.dies(lambda: committed(case.tenant))
    case.revives()
    head = case.tenant.head()
    answer = committed(case.tenant)
    if case.durable:
        assert answer.status_code == 409, "the commitment was durable, nothing is left to commit"
    else:
        assert answer.status_code == 200, answer.text
        assert (answer.json()["sequence_start"], answer.json()["sequence_end"]) == (1, head)


def of_a_legacy_commitment(case: Case) -> None:
    tenant = case.tenant
    unsigned.post(tenant, *(unsigned.unsigned(tenant, {"n": n}) for n in range(3)))
    span = {**tenant.stream, "sequence_start": 1, "sequence_end": 3}
    case.dies(lambda: tenant.http.post("/api/v1/commitments", json=span))
    case.revives()
    listed = tenant.http.get("/api/v1/commitments", params=tenant.stream).json()
    assert listed["count"] == case.durable
    again = tenant.http.post("/api/v1/commitments", json=span)
    assert again.status_code == 200, again.text
    assert [again.json()["batch_id"]][: case.durable] == [one["batch_id"] for one in listed["commitments"]]
    proof = tenant.http.get("/api/v1/proofs/3", params=tenant.stream).json()
    assert proof["events_root"] == again.json()["events_root"]


def of_a_validity_proof(case: Case) -> None:
    batch = committed(case.tenant).json()["batch_id"]
    path = f"/api/v1/ves/validity/{batch}/proofs"
    proof = {"proofType": "other", "proofB64": "cHJvb2Y="}
    case.dies(lambda: case.tenant.http.post(path, json=proof))
    case.revives()
    listed = case.tenant.http.get(path).json()
    assert listed["count"] == case.durable
    again = case.tenant.http.post(path, json=proof)
    assert again.status_code == 200, again.text
    if case.durable:
        assert listed["proofs"] == [again.json()]
    one = case.tenant.http.get(f"/api/v1/ves/validity/proofs/{again.json()['proof_id']}").json()
    assert one["proof_b64"] == proof["proofB64"]


def of_an_anchor_request(case: Case) -> None:
    body = {"batch_id": committed(case.tenant).json()["batch_id"]}
    case.dies(lambda: case.tenant.http.post("/api/v1/ves/anchor", json=body))
    case.revives()
    again = case.tenant.http.post("/api/v1/ves/anchor", json=body)
    assert (again.status_code, again.json()["status"]) == (202, "pending")


def of_an_anchor_report(case: Case) -> None:
    batch = committed(case.tenant).json()["batch_id"]
    key = {"authorization": f"ApiKey {case.tenant.server.bootstrap_key}"}
    body = {"chain_tx_hash": "ab" * 32, "chain_id": 1}

    def report() -> httpx.Response:
        url = f"{case.tenant.server.url}/v1/commitments/{batch}/anchored"
        return httpx.post(url, headers=key, json=body, timeout=30)

    case.dies(report)
    case.revives()
    assert report().json()["status"] == ("already_anchored" if case.durable else "anchored")
    told = case.tenant.http.get(f"/api/v1/ves/commitments/{batch}").json()["anchor"]
    assert (told["state"], told["tx_hash"]) == ("reported", "ab" * 32)


def of_a_registration(case: Case) -> None:
    tenant = case.tenant
    body = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "keyId": 2}
    body["publicKey"] = tenant.agent.public_key
    case.dies(lambda: tenant.http.post("/api/v1/agents/keys", json=body))
    case.revives()
    again = tenant.http.post("/api/v1/agents/keys", json=body)
    assert again.status_code in (200, 201), again.text
    assert again.json()["alreadyRegistered"] is case.durable
    event = tenant.agent.event({"n": 2}, agent_key_id=2)
    assert tenant.post(event).json()["eventsAccepted"] == 1


def of_a_revocation(case: Case) -> None:
    case.dies(lambda: revoke_agent_key(case.tenant))
    case.revives()
    told = case.tenant.post(case.tenant.agent.event({"n": 3})).json()
    assert told["eventsAccepted"] == (0 if case.durable else 1)
    again = revoke_agent_key(case.tenant)
    assert again.status_code == 200, again.text
    assert again.json()["alreadyRevoked"] is case.durable
    told = case.tenant.post(case.tenant.agent.event({"n": 4})).json()
    assert told["rejections"][0]["reason"].startswith("agent_key_invalid")


def revoke_all_keys(tenant: Tenant) -> httpx.Response:
    body = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "allKeys": True}
    return tenant.http.post("/api/v1/agents/keys/revoke", json=body)


def of_a_revocation_of_all(case: Case) -> None:
    case.dies(lambda: revoke_all_keys(case.tenant))
    case.revives()
    told = case.tenant.post(case.tenant.agent.event({"n": 3})).json()
    assert told["eventsAccepted"] == (0 if case.durable else 1)
    assert revoke_all_keys(case.tenant).json()["keysRevoked"] == (0 if case.durable else 1)
    told = case.tenant.post(case.tenant.agent.event({"n": 4})).json()
    assert told["rejections"][0]["reason"].startswith("agent_key_invalid")


def of_a_rotation(case: Case) -> None:
    """The old key ends at once, so that its end can be seen."""
    tenant, old = case.tenant, case.tenant.agent
    new = Agent(old.tenant_id, old.store_id, old.agent_id, 2)
    body = {"tenantId": str(old.tenant_id), "agentId": str(old.agent_id), "keyId": 2, "replaces": 1}
    body |= {"publicKey": new.public_key, "gracePeriodSecs": 0}
    case.dies(lambda: tenant.http.post("/api/v1/agents/keys/rotate", json=body))
    case.revives()
    # Both or neither: the old key's end and the new key.
    assert tenant.post(old.event({"n": 1})).json()["eventsAccepted"] == (0 if case.durable else 1)
    assert tenant.post(new.event({"n": 2}), agent=new).json()["eventsAccepted"] == (1 if case.durable else 0)
    again = tenant.http.post("/api/v1/agents/keys/rotate", json=body)
    assert again.status_code == 200, again.text
    assert again.json()["alreadyRotated"] is case.durable
    assert tenant.post(new.event({"n": 3}), agent=new).json()["eventsAccepted"] == 1
    assert tenant.post(old.event({"n": 4})).json()["eventsAccepted"] == 0


def of_a_new_api_key(case: Case) -> None:
    before = len(api_keys(case.tenant))
    case.dies(lambda: case.tenant.new_api_key(["read"]))
    case.revives()
    assert len(api_keys(case.tenant)) == before + case.durable
    case.tenant.new_api_key(["read"])
    assert len(api_keys(case.tenant)) == before + case.durable + 1


def of_a_revoked_api_key(case: Case) -> None:
    mine = str(api_keys(case.tenant)[0]["id"])
    case.dies(lambda: admin(case.tenant, "DELETE", f"/{mine}"))
    case.revives()
    assert case.tenant.http.get("/api/v1/ves/head", params=case.tenant.stream).status_code == (
        401 if case.durable else 200
    )
    assert admin(case.tenant, "DELETE", f"/{mine}").status_code == 200
    case.tenant.api_key = case.tenant.new_api_key(["read", "write", "admin"])
    case.tenant.moved_to(case.tenant.server)


def register_schema(tenant: Tenant) -> httpx.Response:
    body = {"tenantId": str(tenant.tenant_id), "eventType": "order.created", "schemaJson": False}
    return tenant.http.post("/api/v1/schemas", json=body | {"compatibility": "none"})


def schemas_of(tenant: Tenant) -> list[dict[str, object]]:
    return list(tenant.http.get("/api/v1/schemas").json()["schemas"])


def refuses(tenant: Tenant) -> bool:
    return bool(tenant.post(tenant.agent.event({"n": 6})).json()["eventsRejected"])


def demand(tenant: Tenant, what: str, **demanded: object) -> None:
    server = tenant.server
    answer = httpx.put(
        f"{server.admin_url}/api/v1/admin/tenants/{tenant.tenant_id}/{what}",
        headers={"authorization": f"ApiKey {server.bootstrap_key}"},
        json=demanded,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def set_policy(tenant: Tenant, **policy: object) -> None:
    demand(tenant, "policy", **policy)


def of_a_schema(case: Case) -> None:
    case.dies(lambda: register_schema(case.tenant))
    case.revives()
    assert len(schemas_of(case.tenant)) == case.durable
    assert refuses(case.tenant) is case.durable
    assert register_schema(case.tenant).json()["version"] == 1 + case.durable
    assert refuses(case.tenant)


def of_a_schemas_status(case: Case) -> None:
    schema_id = register_schema(case.tenant).json()["id"]
    case.dies(lambda: case.tenant.http.delete(f"/api/v1/schemas/{schema_id}"))
    case.revives()
    assert refuses(case.tenant) is not case.durable
    assert case.tenant.http.delete(f"/api/v1/schemas/{schema_id}").status_code == 200
    assert not refuses(case.tenant)


def of_a_pin(case: Case) -> None:
    case.dies(lambda: demand(case.tenant, "regions", regions=["us-east-1"]))
    case.revives()
    event = case.tenant.agent.event({"n": 7})
    assert case.tenant.post(event).status_code == (421 if case.durable else 200)
    demand(case.tenant, "regions", regions=[])
    assert case.tenant.post(event).status_code == 200


def of_a_policy(case: Case) -> None:
    case.dies(lambda: set_policy(case.tenant, entityTypes=["invoice"]))
    case.revives()
    assert refuses(case.tenant) is case.durable
    set_policy(case.tenant, entityTypes=["invoice"])
    assert refuses(case.tenant)


def of_revoked_tokens(case: Case) -> None:
    tenant = case.tenant
    body = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id)}

    def act(method: str, path: str, **more: object) -> httpx.Response:
        key = {"authorization": f"ApiKey {tenant.server.bootstrap_key}"}
        url = f"{tenant.server.admin_url}/api/v1/admin/tokens/{path}"
        return httpx.request(method, url, headers=key, timeout=30, **more)  # type: ignore[arg-type]

    case.dies(lambda: act("POST", "revoke", json=body))
    case.revives()
    assert act("GET", "revocations").json()["count"] == case.durable
    assert act("POST", "revoke", json=body).status_code == 200
    listed = act("GET", "revocations").json()["revocations"]
    assert [one["number"] for one in listed] == list(range(1, len(listed) + 1))
    assert len(listed) == case.durable + 1


def of_an_audit_entry(case: Case) -> None:
    case.dies(lambda: api_keys(case.tenant))
    case.revives()
    assert len(api_keys(case.tenant)) == 1  # the audit chain goes on: each of these writes to it


def of_an_audit_commitment(case: Case) -> None:
    case.dies(lambda: [api_keys(case.tenant) for _ in range(1000)])
    case.revives()
    for _ in range(1000):
        chains = read_chains(over_http(case.tenant.server.admin_url, case.tenant.server.bootstrap_key))
        assert [problem for chain in chains for problem in audit_chain(chain)] == []
        if chains[0].head["committed_through"] > 10:
            return
    raise AssertionError("the chain is committed no further")


ACTS: dict[str, Callable[[Case], None]] = {
    "settle": of_an_event,
    "sequencer": of_an_unsigned_event,
    "append_legacy": of_an_unsigned_event,
    "verifier": of_an_event,
    "encryptor": of_an_event,
    "committer": of_a_commitment,
    "commit": of_a_commitment,
    "committer.legacy_built": of_a_legacy_commitment,
    "committer.legacy_committed": of_a_legacy_commitment,
    "commit_legacy": of_a_legacy_commitment,
    "submit_validity_proof": of_a_validity_proof,
    "request_anchor": of_an_anchor_request,
    "report_anchor": of_an_anchor_report,
    "register_agent_key": of_a_registration,
    "revoke_agent_key": of_a_revocation,
    "revoke_agent_keys": of_a_revocation_of_all,
    "rotate_agent_key": of_a_rotation,
    "create_api_key": of_a_new_api_key,
    "revoke_api_key": of_a_revoked_api_key,
    "create_schema": of_a_schema,
    "set_schema_status": of_a_schemas_status,
    "set_policy": of_a_policy,
    "set_regions": of_a_pin,
    "revoke_tokens": of_revoked_tokens,
    "audit": of_an_audit_entry,
    "audit_committer": of_an_audit_commitment,
    "commit_audit": of_an_audit_commitment,
}


@pytest.mark.slow
@pytest.mark.parametrize("point", with_some(AT_WORK, _each_time))
def test_a_server_that_is_killed_at_work_goes_on_from_what_is_durable(
    own_server: Callable[..., Server], estate: Estate, tmp_path: Path, point: str
) -> None:
    shutil.copytree(estate.data_dir, tmp_path / "data")
    server = own_server(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point, **of_point(point)).start()
    server.wait_ready()
    tenant = estate.tenant.seen_from(server)
    act = ACTS.get(point) or ACTS[point.partition(".")[0]]
    act(Case(point, tenant))
    replayed(tenant, estate.posted)
    assert committed(tenant).status_code in (200, 409)  # with it, the auditor recomputes the roots
    audited(tenant)


# ---- a worker process -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("point", OF_A_WORKER)
def test_a_worker_that_is_killed_costs_nobody_an_answer(
    own_server: Callable[..., Server], estate: Estate, tmp_path: Path, point: str
) -> None:
    shutil.copytree(estate.data_dir, tmp_path / "data")
    drill = {"SEQUENCER_FAULTS": "1", "SEQUENCER_WORKER_CRASH_AT": f"{point}:9"}
    server = own_server(**drill, **SMALL).start()
    server.wait_ready()
    tenant = estate.tenant.seen_from(server)
    posted = [work(tenant) for _ in range(20)]  # each of the two kinds of worker dies at its ninth answer
    assert restarts(server)["verifiers/0"] >= 2
    assert restarts(server)["encryptors/0"] >= 2
    assert tenant.head() == 3 * 21
    for one in (estate.posted, *posted[:3]):
        replayed(tenant, one)
    audited(tenant)


@pytest.mark.slow
@pytest.mark.parametrize("point", with_some(OF_A_SWEEP, "commit.committed".__eq__))
def test_a_sweep_that_is_killed_has_committed_all_it_took_together_or_nothing(
    own_server: Callable[..., Server], estate: Estate, tmp_path: Path, point: str
) -> None:
    shutil.copytree(estate.data_dir, tmp_path / "data")
    server = own_server(**SMALL).start()
    server.wait_ready()
    tenants = [estate.tenant.seen_from(server), *(Tenant(server) for _ in range(2))]
    posted = [estate.posted, *(work(tenant) for tenant in tenants[1:])]
    assert server.terminate() == 0, server.tail()
    at_once = {"COMMITMENT_INTERVAL_SECS": "0.2"}
    server.environment = SMALL | at_once | {"SEQUENCER_FAULTS": "1", "SEQUENCER_CRASH_AT": point}
    assert server.launch().wait(60) == -signal.SIGKILL, server.tail()

    server.environment = dict(SMALL)
    server.start()
    server.wait_ready()
    durable = point.endswith(".committed")
    for tenant, earlier in zip(tenants, posted, strict=True):
        tenant.moved_to(server)
        assert committed(tenant).status_code == (409 if durable else 200)
        replayed(tenant, earlier)
        audited(tenant)
