"""The evidence of one event: from a real server and a real chain, checked by two verifiers, until the chain
takes the block away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from journal.embedded import embedded_dsn
from tests.anvil import CHAIN_ID, Anvil, anvil
from tests.auditor import evidence as auditor
from tests.e2e.world import Server, Tenant
from tests.evidence.by_hand import ByHand
from transport.cli.verify import app as verify_app
from transport.client.wire import WireCommitment, decode
from ves.encoding import prefixed_hex

TOLD = {True: "passed", False: "failed", None: "not checked"}
ON_CHAIN = {"block_canonical", "block_final", "contract_state"}


class Desk:
    """A tenant with committed events, and the papers of whoever checks them."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.tenant = Tenant(server)
        self.folder = folder / str(self.tenant.tenant_id)
        self.folder.mkdir()
        self.event = [self.tenant.agent.event({"n": n}) for n in range(5)][3]
        self.key, self.file, self.trust = (
            self.folder / name for name in ("key", "evidence.json", "trust.json")
        )
        self.key.write_text(self.tenant.api_key)

    def post(self) -> None:
        agent = self.tenant.agent
        events = [agent.event({"n": n}) for n in range(3)]
        assert self.tenant.post(*events, self.event, agent.event({})).status_code == 200

    def commit(self) -> str:
        answer = self.tenant.http.post("/api/v1/ves/commitments", json=self.tenant.stream)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["batch_id"])

    def commitment(self, batch_id: str) -> WireCommitment:
        answer = self.tenant.http.get(f"/api/v1/ves/commitments/{batch_id}", params=self.tenant.stream)
        return decode(answer.content, WireCommitment, "commitment")

    def get(self, key: str | None = None, **query: str) -> httpx.Response:
        path = f"/api/v1/ves/events/{self.event['event_id']}/evidence"
        headers = {} if key is None else {"authorization": f"ApiKey {key}"}
        return self.tenant.http.get(path, params=self.tenant.stream | query, headers=headers)

    def fetch(self, *words: str) -> dict[str, Any]:
        """With the command, into ``file``."""
        stream = ["--tenant", str(self.tenant.tenant_id), "--store", str(self.tenant.store_id)]
        where = ["--url", self.server.url, "--api-key-file", str(self.key), "--out", str(self.file)]
        said = self.server.command("agent", "evidence", self.event["event_id"], *stream, *where, *words)
        assert said.returncode == 0, said.stderr
        return dict(json.loads(self.file.read_bytes()))

    def trusting(self, contract: bytes, **more: Any) -> None:
        keys = httpx.get(self.server.url + "/.well-known/ves-sequencer").json()
        chain = {"chain_id": CHAIN_ID, "contract": prefixed_hex(contract)}
        self.trust.write_text(json.dumps(keys | chain | more))

    def verify(self, *words: str) -> tuple[int, dict[str, str], str]:
        """Exit code, verdict by link, and the whole sentence."""
        said = StringIO()
        with redirect_stdout(said):  # in this process: a new one takes a second to come up
            code = verify_app(["evidence", str(self.file), *words, "--json"], result_action="return_value")
        return int(code), *_told(said.getvalue())

    def ask(self, chain: Anvil, *more: str) -> tuple[int, dict[str, str], str]:
        """The same with --rpc."""
        with pytest.MonkeyPatch.context() as patch, capture_logs():
            patch.setattr("config.logs.configure_logs", lambda *words: None)  # these are pytest's own
            return self.verify("--trust", str(self.trust), "--rpc", chain.url, *more)

    def command(self, chain: Anvil, *more: str) -> CompletedProcess[str]:
        """The same in a process of its own."""
        words = ["--trust", str(self.trust), "--rpc", chain.url, *more]
        return self.server.command("verify", "evidence", str(self.file), *words)

    def audited(self) -> dict[str, str]:
        """What the other verifier says."""
        file = auditor.read(self.file.read_bytes())
        found = auditor.audited(file, json.loads(self.trust.read_bytes()))
        return {name: TOLD[verdict] for name, verdict in found.items()}


def _told(text: str) -> tuple[dict[str, str], str]:
    told = json.loads(text)
    return {link["name"]: link["verdict"] for link in told["links"]}, told["verdict"]


@pytest.fixture
def desk(server: Server, tmp_path: Path) -> Desk:
    made = Desk(server, tmp_path)
    made.post()
    return made


@pytest.fixture
def chain() -> Iterator[Anvil]:
    with anvil() as running:
        yield running


def test_evidence_grows_from_the_receipt_to_the_commitment_and_says_how_far_it_is(desk: Desk) -> None:
    early = desk.get().json()
    assert (early["commitment"], early["anchor"]) == (None, None)
    assert early["said"]["anchor_state"] == "uncommitted"
    batch_id = desk.commit()
    later = desk.get().json()
    assert (later["commitment"]["batch_id"], later["anchor"]) == (batch_id, None)
    assert later["said"]["anchor_state"] == "unanchored"
    desk.fetch()
    desk.trusting(bytes(20))
    code, links, verdict = desk.verify("--trust", str(desk.trust))
    assert (code, links["inclusion"], links["aggregate"]) == (3, "passed", "not checked")
    assert "not proven" in verdict
    assert links == desk.audited()


def test_the_payload_is_for_those_who_may_read_events_and_ask_for_it(desk: Desk) -> None:
    assert "payload" not in desk.get().json()["event"]
    assert desk.get(payload="true").json()["event"]["payload"] == {"n": 3}
    answer = httpx.post(
        desk.server.admin_url + "/api/v1/admin/api-keys",
        headers={"authorization": f"ApiKey {desk.server.bootstrap_key}"},
        json={"tenantId": str(desk.tenant.tenant_id), "role": "anchor"},
        timeout=30,
    )
    narrow = answer.json()["apiKey"]
    assert desk.get(narrow).status_code == 200
    refused = desk.get(narrow, payload="true")
    assert refused.status_code == 403
    assert "events:read" in refused.json()["message"]


def test_an_event_of_another_tenant_is_as_absent_as_none(desk: Desk, server: Server) -> None:
    path = f"/api/v1/ves/events/{desk.event['event_id']}/evidence"
    stranger = Tenant(server)
    found = stranger.http.get(path)
    assert (found.status_code, found.json()["error"]["code"]) == (404, "EVENT_NOT_FOUND")
    assert desk.tenant.http.get(path).status_code == 200


def test_evidence_on_a_real_chain_holds_in_both_verifiers_and_not_after_a_reorganisation(
    desk: Desk, server: Server, chain: Anvil
) -> None:
    other = Desk(server, desk.folder.parent)
    other.post()
    batches = [each.commitment(each.commit()).commitment() for each in (other, desk)]
    hand = ByHand(chain, embedded_dsn(server.data_dir, anchor=True))
    receipt = hand.anchor(batches)
    desk.file.write_bytes(desk.get(payload="true").content)
    file = json.loads(desk.file.read_bytes())
    assert file["anchor"]["block"]["number"] == receipt.block_number
    assert (file["anchor"]["aggregate"]["position"], file["anchor"]["aggregate"]["count"]) == (1, 2)

    code, links, verdict = desk.verify()
    assert (code, "failed" in links.values()) == (3, False)
    assert "not trusted" in verdict
    desk.trusting(hand.contract, anchoring_accounts=[prefixed_hex(hand.account)])
    code, links, verdict = desk.verify("--trust", str(desk.trust))
    assert code == 0, verdict
    assert {name for name, told in links.items() if told == "not checked"} >= ON_CHAIN
    assert links == desk.audited()
    assert desk.verify("--trust", str(desk.trust), "--require-final")[0] == 3

    code, links, verdict = desk.ask(chain, "--require-final")
    assert (code, links["block_canonical"], links["contract_state"]) == (3, "passed", "passed")
    assert verdict == "consistent, not proven: not checked is block_final"
    fork = chain.rpc("evm_snapshot")
    chain.mine(10)
    code, links, _ = desk.ask(chain, "--require-final")
    assert (code, {links[name] for name in ON_CHAIN}) == (0, {"passed"})

    assert chain.rpc("evm_revert", fork)
    chain.rpc("anvil_reorg", 1, [])
    code, links, verdict = desk.ask(chain)
    assert (code, links["block_canonical"], links["block_final"]) == (1, "failed", "not checked")
    assert links["contract_state"] == "failed"
    assert desk.verify("--trust", str(desk.trust))[0] == 0, "offline nobody can know"


@pytest.mark.slow
def test_an_endpoint_that_is_away_or_of_another_chain_settles_nothing(
    desk: Desk, server: Server, chain: Anvil
) -> None:
    desk.commit()
    hand = ByHand(chain, embedded_dsn(server.data_dir, anchor=True))
    hand.anchor([desk.commitment(desk.get().json()["commitment"]["batch_id"]).commitment()])
    desk.fetch()
    desk.trusting(hand.contract)
    chain.rpc("anvil_setChainId", 5)
    foreign = desk.command(chain, "--json")
    links, _ = _told(foreign.stdout)  # one object, whatever the endpoint's trouble wrote to stderr
    assert (foreign.returncode, links["block_canonical"]) == (1, "failed")
    chain.process.kill()
    said = desk.command(chain)
    assert (said.returncode, said.stdout) == (4, "")
    assert "did not answer" in said.stderr or "no answer" in said.stderr
