"""What a registration must bring to show that somebody holds the key."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agentkeys.rotating import REGISTER, ROTATE, names, proof, rotation, successor
from tests.e2e.world import Agent
from tests.http.doubles import AGENT, STORE, TENANT, Cardboard, serving


def an_agent() -> Agent:
    return Agent(TENANT, STORE, AGENT)


def body(agent: Agent, **more: Any) -> dict[str, Any]:
    return {**names(agent), "keyId": agent.key_id, "publicKey": agent.public_key, **more}


async def told(house: Cardboard, path: str, sent: dict[str, Any]) -> tuple[int, str]:
    """Status, and the message or what is recorded as proven."""
    async with house.client(house.api_key("admin")) as client:
        answer = await client.post(path, json=sent)
    if answer.status_code != 200:
        return answer.status_code, answer.json()["message"]
    return 200, str(answer.json()["proofOfPossession"])


@pytest.mark.parametrize(
    ("required", "accepted"),
    [("off", {None, 1, 2}), ("v1", {1, 2}), ("v2", {2})],
)
async def test_the_operator_says_which_proof_a_registration_must_bring(
    required: str, accepted: set[int | None]
) -> None:
    async with serving(require_pop=required) as house:
        for version in (None, 1, 2):
            agent = an_agent()
            agent.key_id = version or 0
            sent = body(agent, **({} if version is None else {"proofOfPossession": proof(agent, version)}))
            status, message = await told(house, REGISTER, sent)
            assert (status == 200) == (version in accepted), message
            if status == 200:
                assert message == str(version)
            else:
                assert status == 400
                assert message.startswith("proofOfPossession: ")
                assert "VES_POP_V2" in message, "how to make it"
        wrong = body(an_agent(), proofOfPossession=proof(an_agent()))
        assert (await told(house, REGISTER, wrong))[0] == 400


async def test_a_rotation_must_bring_the_same() -> None:
    async with serving(require_pop="v2") as house:
        old = an_agent()
        assert (await told(house, REGISTER, body(old, proofOfPossession=proof(old))))[0] == 200
        new = successor(old)
        for sent in (
            rotation(old, new, proofOfPossession=None),
            rotation(old, new, proofOfPossession=proof(new, 1)),
        ):
            status, message = await told(house, ROTATE, sent)
            assert (status, "VES_POP_V2" in message) == (400, True)
        assert await told(house, ROTATE, rotation(old, new)) == (200, "2")


async def test_a_proof_comes_by_itself_or_in_the_originals_bundle_or_alike_in_both() -> None:
    async with serving() as house:
        agent = an_agent()
        mine = proof(agent)
        bundled = {"ed25519Pop": "0x" + mine}
        for sent in (
            {"proofOfPossession": mine},
            {"proofOfPossessionBundle": bundled},
            {"proofOfPossession": mine, "proofOfPossessionBundle": bundled},
        ):
            assert await told(house, REGISTER, body(agent, **sent)) == (200, "2")
        both = {"proofOfPossession": proof(agent, 1), "proofOfPossessionBundle": bundled}
        status, message = await told(house, REGISTER, body(agent, **both))
        assert (status, "send one of them" in message) == (400, True)


async def test_a_bundle_that_names_another_key_is_refused() -> None:
    async with serving() as house:
        agent, other = an_agent(), an_agent()
        same = {"publicKeyBundle": {"ed25519PublicKey": "0x" + agent.public_key, "mlDsa65PublicKey": "00"}}
        assert (await told(house, REGISTER, body(agent, **same)))[0] == 200
        another = {"publicKeyBundle": {"ed25519PublicKey": other.public_key}}
        status, message = await told(house, REGISTER, body(agent, **another))
        assert (status, message) == (400, "publicKeyBundle.ed25519PublicKey: another key than publicKey")
