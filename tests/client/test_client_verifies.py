"""What the client believes: nothing that does not hold, from nobody but the keys it pinned."""

from __future__ import annotations

import copy
import datetime
import hashlib
import os
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.client.playing import INGEST, PlayedSequencer, played_sequencer
from transport.client.agent import Agent
from transport.client.errors import BadAnswer, InsecureUrl, KeyFileError, NotVerified, PinMismatch, Refused
from transport.client.retry import RetryPolicy
from transport.client.sequencer import SequencerClient
from transport.client.tls import TlsFiles
from transport.client.trust import Pins
from transport.client.wire import Acknowledgement, Stream
from ves.encoding import uuid_bytes
from ves.payload_encryption import unseal
from ves.records import KeyName
from ves.signatures import proven_possession

QUICK = RetryPolicy(deadline_s=3, attempt_s=2, first_pause_s=0.01, pause_max_s=0.02)
EVENTS = "/api/v1/ves/events"
COMMITMENTS = "/api/v1/ves/commitments"
WELL_KNOWN = "/.well-known/ves-sequencer"
LIAR = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)


@pytest.fixture
async def play() -> AsyncIterator[PlayedSequencer]:
    async with played_sequencer() as playing:
        yield playing


@pytest.fixture
async def client(play: PlayedSequencer) -> AsyncIterator[SequencerClient]:
    async with SequencerClient(play.url, api_key="ss_test", retry=QUICK) as connected:
        yield connected


@pytest.fixture
def stream(play: PlayedSequencer) -> Stream:
    return Stream(uuid_bytes(play.honest.tenant_id), uuid_bytes(play.honest.store_id))


def agent_of(play: PlayedSequencer) -> Agent:
    name = KeyName(uuid_bytes(play.honest.tenant_id), uuid_bytes(play.honest.agent_id), 1)
    return Agent(name, bytes([1]) * 32)


async def fill(play: PlayedSequencer, client: SequencerClient, stream: Stream) -> list[Acknowledgement]:
    """Seven events, five of them under one commitment."""
    agent = agent_of(play)
    envelopes = [
        agent.sign(
            stream.store_id, entity_type="order", entity_id="o", event_type="order.created", payload={"n": n}
        )
        for n in range(7)
    ]
    first = await client.post(envelopes[:5])
    committed = await client.commit(stream)
    assert committed is not None
    assert committed.leaf_count == 5
    rest = await client.post(envelopes[5:])
    receipts = first.receipts + rest.receipts
    return [Acknowledgement(e, r) for e, r in zip(envelopes, receipts, strict=True)]


async def test_a_whole_stream_is_verified_with_few_requests(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    kept = await fill(play, client, stream)
    play.page = 3
    play.bodies.clear()
    report = await client.verify_stream(stream, acknowledged=kept)
    assert report.problems == []
    assert report.ok
    assert (report.events, report.receipts, report.head_sequence) == (7, 7, 7)
    assert (report.commitments, report.proofs, report.uncommitted) == (1, 5, 2)
    assert report.state_root == "0x" + play.honest.commitments[0]["new_state_root"]
    asked = sum(len(bodies) for bodies in play.bodies.values())
    assert asked == 3 + 1 + 1 + 2 + 1  # pages, agent keys, commitments, heads, leaves


async def test_an_empty_stream_holds(client: SequencerClient, stream: Stream) -> None:
    report = await client.verify_stream(stream)
    assert report.ok
    assert report.events == 0
    assert await client.commit(stream) is None


async def test_pulled_events_come_in_order_and_verified(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    await fill(play, client, stream)
    play.page = 2
    numbers, page = [], await client.pull(stream)
    numbers += [event.sequence_number for event in page.events]
    while page.has_more:
        page = await client.pull(stream, page.next_from)
        numbers += [event.sequence_number for event in page.events]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert [event.sequence_number for event in (await client.pull(stream, 6)).events] == [6, 7]
    assert await client.head(stream) == 7


Lie = Callable[[PlayedSequencer], None]


def altered_payload(play: PlayedSequencer) -> None:
    play.honest.events[2]["payload"] = {"n": 99}


def renamed_entity(play: PlayedSequencer) -> None:
    play.honest.events[2]["entity_id"] = "other"


def forged_signature(play: PlayedSequencer) -> None:
    play.honest.events[2]["agent_signature"] = "0x" + LIAR.sign(b"x").hex()


def swapped(play: PlayedSequencer) -> None:
    events = play.honest.events
    events[2], events[3] = events[3] | {"sequence_number": 3}, events[2] | {"sequence_number": 4}


def gap(play: PlayedSequencer) -> None:
    del play.honest.events[3]


def doubled(play: PlayedSequencer) -> None:
    play.honest.events[6] = play.honest.events[5] | {"sequence_number": 7}


def receipt_by_a_liar(play: PlayedSequencer) -> None:
    receipt = play.honest.events[2]["receipt"]
    receipt["sequencerSignature"] = LIAR.sign(bytes.fromhex(receipt["receiptHash"])).hex()


def receipt_unsigned(play: PlayedSequencer) -> None:
    play.honest.events[2]["receipt"] |= {"signatureAlg": "none"}


def other_signing_hash(play: PlayedSequencer) -> None:
    play.honest.events[2]["event_signing_hash"] = "0x" + "00" * 32


PULLED_LIES: dict[Lie, str] = {
    altered_payload: "the payload is not the one that was hashed",
    renamed_entity: "the agent's key did not sign this event",
    forged_signature: "the agent's key did not sign this event",
    swapped: "receipt",
    gap: "number 4 was due",
    doubled: "receipt",
    receipt_by_a_liar: "the sequencer's key did not sign this receipt",
    receipt_unsigned: "signed with 'none', not ed25519",
    other_signing_hash: "the signing hash shown is not the event's",
}


@pytest.mark.parametrize(("lie", "sentence"), PULLED_LIES.items(), ids=[lie.__name__ for lie in PULLED_LIES])
async def test_a_lie_in_a_stream_is_neither_pulled_nor_verified(
    play: PlayedSequencer, client: SequencerClient, stream: Stream, lie: Lie, sentence: str
) -> None:
    await fill(play, client, stream)
    play.honest.events = copy.deepcopy(play.honest.events)
    lie(play)
    report = await client.verify_stream(stream)
    assert not report.ok
    with pytest.raises((NotVerified, BadAnswer), match=sentence):
        await client.pull(stream)


def wrong_root(c: dict[str, Any]) -> None:
    c["merkle_root"] = "11" * 32


def wrong_state(c: dict[str, Any]) -> None:
    c["prev_state_root"] = "22" * 32


def wrong_depth(c: dict[str, Any]) -> None:
    c["tree_depth"] = 2


def shifted(c: dict[str, Any]) -> None:
    c["sequence_start"], c["sequence_end"] = 2, 6


def shorter(c: dict[str, Any]) -> None:
    c["sequence_end"] = 4


def beyond_the_head(c: dict[str, Any]) -> None:
    c["sequence_end"] = 20


@pytest.mark.parametrize("lie", [wrong_root, wrong_state, wrong_depth, shifted, shorter, beyond_the_head])
async def test_a_lie_in_a_commitment_is_found(
    play: PlayedSequencer, client: SequencerClient, stream: Stream, lie: Callable[[dict[str, Any]], None]
) -> None:
    await fill(play, client, stream)
    lie(play.honest.commitments[0])
    report = await client.verify_stream(stream)
    assert not report.ok
    assert report.proofs == 0 or lie is wrong_state


async def test_leaves_that_are_not_the_events_are_found(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    await fill(play, client, stream)
    play.honest.leaves[play.honest.commitments[0]["batch_id"]].reverse()
    report = await client.verify_stream(stream)
    assert any("leaf hashes" in problem for problem in report.problems)


async def test_an_acknowledged_event_that_is_gone_is_missed(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    kept = await fill(play, client, stream)
    play.honest.events.pop()
    report = await client.verify_stream(stream, acknowledged=kept)
    assert [p for p in report.problems if kept[-1].receipt.event_id in p]


async def test_agent_keys_one_brings_are_believed_instead_of_the_servers_list(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    await fill(play, client, stream)
    name = agent_of(play).name
    assert (await client.verify_stream(stream, agent_keys={name: agent_of(play).public_key})).ok
    other = await client.verify_stream(stream, agent_keys={name: LIAR.public_key().public_bytes_raw()})
    assert len(other.problems) == 7
    unknown = await client.verify_stream(stream, agent_keys={})
    assert len(unknown.problems) == 7


async def test_a_receipt_that_does_not_hold_is_not_given_out(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    def other_number(answer: dict[str, Any]) -> dict[str, Any]:
        answer = copy.deepcopy(answer)
        answer["receipts"][0]["sequenceNumber"] += 1
        return answer

    play.spoil[INGEST] = other_number
    with pytest.raises(NotVerified, match="receipt"):
        await client.post(
            [agent_of(play).sign(stream.store_id, entity_type="a", entity_id="b", event_type="c", payload=1)]
        )


async def test_a_proof_comes_verified_with_all_it_takes_to_check_it_again(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    await fill(play, client, stream)
    file = await client.prove(stream, 3)
    assert file.proof.leaf_index == 2
    with pytest.raises(Refused, match="404"):
        await client.prove(stream, 6)
    with pytest.raises(Refused, match="no event 8"):
        await client.prove(stream, 8)


async def test_a_proof_that_only_walks_from_the_root_to_itself_is_refused(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    await fill(play, client, stream)
    play.spoil["/api/v1/ves/proofs/3"] = lambda proof: (
        proof
        | {
            "leaf_hash": proof["merkle_root"],
            "proof_path": [],
            "directions": [],
            "leaf_index": 0,
        }
    )
    with pytest.raises(NotVerified, match="inclusion of event 3"):
        await client.prove(stream, 3)


async def test_an_encrypted_event_opens_for_its_recipient_only(
    play: PlayedSequencer, client: SequencerClient, stream: Stream
) -> None:
    reader = X25519PrivateKey.generate()
    envelope = agent_of(play).sign(
        stream.store_id,
        entity_type="payment",
        entity_id="p-1",
        event_type="payment.captured",
        payload={"card": "tok_é"},
        recipients={7: reader.public_key().public_bytes_raw()},
    )
    await client.post([envelope])
    assert (await client.verify_stream(stream)).ok
    pulled = (await client.pull(stream)).events[0].sequenced(1)
    private = reader.private_bytes_raw()
    opened = unseal(pulled.header, pulled.payload, pulled.payload_plain_hash, 7, private)
    assert opened == '{"card":"tok_é"}'.encode()
    assert "tok_" not in str(play.bodies)


async def test_registering_proves_possession_of_the_key_under_its_name(
    play: PlayedSequencer, client: SequencerClient
) -> None:
    agent = Agent.generate(bytes(range(16)), key_id=4)
    await client.register_key(agent)
    body = play.registered[0]
    assert body["keyId"] == 4
    proof = bytes.fromhex(body["proofOfPossessionBundle"]["ed25519Pop"].removeprefix("0x"))
    assert proven_possession(agent.name, agent.public_key, proof) == 2


# ---- pins


async def test_the_receipt_key_is_pinned_on_first_use_and_said_aloud(
    play: PlayedSequencer, tmp_path: Path
) -> None:
    heard: list[str] = []
    path = tmp_path / "config" / "pins.json"
    async with SequencerClient(play.url, pins=Pins(path), notice=heard.append) as client:
        keys = await client.receipt_keys()
    assert len(heard) == 1
    assert "first time" in heard[0]
    assert str(path) in heard[0]
    async with SequencerClient(play.url, pins=Pins(path), notice=heard.append) as client:
        assert await client.receipt_keys() == keys
    assert len(heard) == 1
    assert Pins(path).all_keys() == keys


@pytest.mark.parametrize("change", ["another key", "another sequencer", "no key at all"])
async def test_another_receipt_key_at_a_known_address_is_refused(
    play: PlayedSequencer, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "pins.json"
    async with SequencerClient(play.url, pins=Pins(path)) as client:
        await client.receipt_keys()
    before = path.read_bytes()
    if change == "another key":
        play.honest.sequencer_key = LIAR
    elif change == "another sequencer":
        play.honest.sequencer_id = play.honest.agent_id
    else:
        play.spoil[WELL_KNOWN] = lambda shown: shown | {"receipt_keys": []}
    async with SequencerClient(play.url, pins=Pins(path)) as client:
        with pytest.raises(PinMismatch, match=r"pins\.json"):
            await client.receipt_keys()
    assert path.read_bytes() == before


def entry(play: PlayedSequencer, version: int, key: Ed25519PrivateKey, **more: Any) -> dict[str, Any]:
    public = "0x" + key.public_key().public_bytes_raw().hex()
    name = {"sequencer_id": play.honest.sequencer_id, "key_version": version, "alg": "ed25519"}
    return name | {"public_key": public} | more


def vouched(play: PlayedSequencer, old: Ed25519PrivateKey, version: int, new: Ed25519PrivateKey) -> str:
    """Made by the book, not by our own code."""
    statement = hashlib.sha256(
        b"VES_RECEIPT_KEY_V1"
        + uuid.UUID(play.honest.sequencer_id).bytes
        + version.to_bytes(4, "big")
        + new.public_key().public_bytes_raw()
    ).digest()
    return "0x" + old.sign(statement).hex()


def rotates(play: PlayedSequencer, new: Ed25519PrivateKey, signature: str | None) -> None:
    """From now on it shows a version 2 and signs with it."""
    old = play.honest.sequencer_key
    shown = [entry(play, 1, old), entry(play, 2, new, previous_signature=signature)]
    play.spoil[WELL_KNOWN] = lambda _: {"sequencer_id": play.honest.sequencer_id, "receipt_keys": shown}

    def signed_by_the_new_key(answer: dict[str, Any]) -> dict[str, Any]:
        answer = copy.deepcopy(answer)
        for receipt in answer["receipts"]:
            receipt["sequencerSignature"] = new.sign(bytes.fromhex(receipt["receiptHash"])).hex()
            receipt["sequencerKeyVersion"] = 2
        return answer

    play.spoil[INGEST] = signed_by_the_new_key


def an_event(play: PlayedSequencer, stream: Stream) -> Any:
    return agent_of(play).sign(stream.store_id, entity_type="a", entity_id="b", event_type="c", payload=1)


@pytest.mark.parametrize("met_before", [True, False], ids=["while connected", "at the next meeting"])
async def test_a_new_receipt_key_is_followed_when_the_pinned_one_signed_it(
    play: PlayedSequencer, stream: Stream, tmp_path: Path, met_before: bool
) -> None:
    heard: list[str] = []
    path = tmp_path / "pins.json"
    async with SequencerClient(play.url, pins=Pins(path)) as client:
        await client.post([an_event(play, stream)])
        new = Ed25519PrivateKey.generate()
        rotates(play, new, vouched(play, play.honest.sequencer_key, 2, new))
        if met_before:
            await client.post([an_event(play, stream)])
    async with SequencerClient(play.url, pins=Pins(path), notice=heard.append) as client:
        assert len(await client.receipt_keys()) == 2
        await client.post([an_event(play, stream)])
    assert len(heard) == (0 if met_before else 1)
    assert all("signed by the pinned one" in text for text in heard)
    assert {name.key_version for name in Pins(path).all_keys()} == {1, 2}


@pytest.mark.parametrize(
    "lie", ["no signature", "signed by a stranger", "for another version", "version 2 is missing"]
)
async def test_a_broken_chain_of_receipt_keys_is_refused_and_nothing_is_pinned(
    play: PlayedSequencer, stream: Stream, tmp_path: Path, lie: str
) -> None:
    path = tmp_path / "pins.json"
    async with SequencerClient(play.url, pins=Pins(path)) as client:
        await client.receipt_keys()
        before = path.read_bytes()
        old, new = play.honest.sequencer_key, Ed25519PrivateKey.generate()
        signature = {
            "no signature": None,
            "signed by a stranger": vouched(play, LIAR, 2, new),
            "for another version": vouched(play, old, 3, new),
            "version 2 is missing": vouched(play, old, 2, new),
        }[lie]
        rotates(play, new, signature)
        if lie == "version 2 is missing":
            shown = [entry(play, 1, old), entry(play, 3, new, previous_signature=vouched(play, old, 3, new))]
            play.spoil[WELL_KNOWN] = lambda s: s | {"receipt_keys": shown}
        with pytest.raises(PinMismatch, match=r"version [23] is"):
            await client.post([an_event(play, stream)])
    assert path.read_bytes() == before
    async with SequencerClient(play.url, pins=Pins(tmp_path / "none.json")) as stranger:
        with pytest.raises(PinMismatch, match="do not follow from each other"):
            await stranger.receipt_keys()
    assert not (tmp_path / "none.json").exists()


async def test_a_key_of_a_sequencer_never_met_is_not_believed_for_receipts(
    play: PlayedSequencer, client: SequencerClient, stream: Stream, tmp_path: Path
) -> None:
    pins = Pins(tmp_path / "pins.json")
    async with SequencerClient(play.url, pins=pins) as first:
        await first.receipt_keys()
    stranger = str(uuid.uuid4())
    added = entry(play, 1, LIAR, sequencer_id=stranger)
    play.spoil[WELL_KNOWN] = lambda shown: shown | {"receipt_keys": [*shown["receipt_keys"], added]}

    def signed_by_the_new_key(answer: dict[str, Any]) -> dict[str, Any]:
        answer = copy.deepcopy(answer)
        for receipt in answer["receipts"]:
            receipt["sequencerSignature"] = LIAR.sign(bytes.fromhex(receipt["receiptHash"])).hex()
            receipt["sequencerId"] = stranger
        return answer

    play.spoil[INGEST] = signed_by_the_new_key
    async with SequencerClient(play.url, pins=pins) as again:
        with pytest.raises(NotVerified, match="not trusted"):
            await again.post(
                [
                    agent_of(play).sign(
                        stream.store_id, entity_type="a", entity_id="b", event_type="c", payload=1
                    )
                ]
            )


@pytest.mark.parametrize("content", [b"{", b'{"pins": 1}', b'{"pins": {"a": [{"key_version": 1}]}}'])
def test_a_damaged_pin_file_is_an_error_and_not_a_first_meeting(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pins.json"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match="damaged"):
        Pins(path)


# ---- key files


def test_a_key_file_comes_back_as_the_same_agent_and_is_ours_alone(tmp_path: Path) -> None:
    agent = Agent.generate(bytes(16), key_id=3)
    path = tmp_path / "agent.json"
    agent.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Agent.load(path)
    assert (again.name, again.public_key) == (agent.name, agent.public_key)
    with pytest.raises(KeyFileError, match="never overwritten"):
        agent.save(path)


def test_a_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    Agent.generate(bytes(16)).save(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Agent.load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"type": "ves-agent-key", "seed": "00"}'])
def test_what_is_no_key_file_is_named_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.json"
    path.write_bytes(content)
    os.chmod(path, 0o600)
    with pytest.raises(KeyFileError, match="no agent key file"):
        Agent.load(path)


def test_a_key_file_with_another_keys_public_half_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    agent = Agent.generate(bytes(16))
    agent.save(path)
    other = Agent.generate(bytes(16)).public_key.hex()
    path.write_text(path.read_text().replace(agent.public_key.hex(), other))
    with pytest.raises(KeyFileError, match="not that of its seed"):
        Agent.load(path)


# ---- TLS


@pytest.fixture
async def tls_url(play: PlayedSequencer, tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """The play behind TLS with a certificate of its own; (address, CA file)."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file, key_file = tmp_path / "ca.pem", tmp_path / "key.pem"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ca_file, key_file)

    async def handle(tls: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await play.serve(tls)
        except trio.BrokenResourceError:
            await tls.transport_stream.aclose()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, handle, 0, context, host="127.0.0.1")
        listeners = await nursery.start(serve)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        yield f"https://localhost:{port}", ca_file
        nursery.cancel_scope.cancel()


async def test_a_certificate_nobody_vouches_for_is_refused_at_once(tls_url: tuple[str, Path]) -> None:
    url, ca_file = tls_url
    async with SequencerClient(url, api_key="ss_secret", retry=QUICK) as client:
        with pytest.raises(InsecureUrl, match=r"self-signed.* --ca-file"):
            await client.receipt_keys()
    async with SequencerClient(url, api_key="ss_secret", tls=TlsFiles(ca_file), retry=QUICK) as client:
        assert await client.receipt_keys()
