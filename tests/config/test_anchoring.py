"""What the anchor's settings demand of each other: named before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from config.anchoring import anchor_choice, refuse_without_login
from config.secret_sources import SecretsError
from config.settings import Settings

CONTRACT = "0x" + "5f" * 20
RPC = "https://one.example/v2/a-provider-key,https://two.example"


def settings(monkeypatch: pytest.MonkeyPatch, **given: str) -> Settings:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_nobody_anchors_unless_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert anchor_choice(settings(monkeypatch)) is None


def test_the_originals_three_variables_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(
        monkeypatch, L2_RPC_URL=RPC, SET_REGISTRY_ADDRESS=CONTRACT, SEQUENCER_PRIVATE_KEY="1" * 64
    )
    choice = anchor_choice(chosen)
    assert choice is not None
    assert (choice.who, choice.chain_id, choice.contract) == ("inside", 84_532_001, bytes.fromhex("5f" * 20))
    assert choice.urls == ("https://one.example/v2/a-provider-key", "https://two.example")
    assert "provider" not in repr(choice)


def test_without_a_key_the_chain_alone_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert anchor_choice(settings(monkeypatch, L2_RPC_URL=RPC, SET_REGISTRY_ADDRESS=CONTRACT)) is None


def test_the_servers_own_database_login_is_not_the_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(
        monkeypatch,
        ANCHOR="inside",
        L2_RPC_URL=RPC,
        SET_REGISTRY_ADDRESS=CONTRACT,
        DATABASE_URL="postgresql://server@db.example/ves",
    )
    with pytest.raises(SecretsError, match="ANCHOR_DATABASE_URL"):
        refuse_without_login(chosen)
    monkeypatch.setenv("ANCHOR_DATABASE_URL", "postgresql://anchor@db.example/ves")
    refuse_without_login(Settings())


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ANCHOR": "inside"}, "L2_RPC_URL and SET_REGISTRY_ADDRESS"),
        ({"ANCHOR": "apart", "L2_RPC_URL": RPC}, "SET_REGISTRY_ADDRESS"),
        ({"ANCHOR": "dev", "L2_RPC_URL": RPC}, "unset L2_RPC_URL"),
        ({"ANCHOR": "inside", "L2_RPC_URL": "https://a.example,", "SET_REGISTRY_ADDRESS": CONTRACT}, "list"),
        (
            {
                "ANCHOR": "inside",
                "L2_RPC_URL": "https://a.example,https://a.example",
                "SET_REGISTRY_ADDRESS": CONTRACT,
            },
            "list",
        ),
    ],
    ids=["nothing", "no contract", "dev and a real one", "a comma too many", "twice the same"],
)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str) -> None:
    with pytest.raises(SecretsError, match=named) as refused:
        anchor_choice(settings(monkeypatch, **given))
    assert "provider" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [{"SET_REGISTRY_ADDRESS": "0x1234"}, {"SET_REGISTRY_ADDRESS": "5f" * 20}, {"ANCHOR": "yes"}],
    ids=["short", "no 0x", "no such way"],
)
def test_what_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        settings(monkeypatch, **given)
