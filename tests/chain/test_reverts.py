"""Why a contract refused, in the shapes in which clients and gateways tell it."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chain import Reverted
from transport.chain.reverts import NO_REASON, reverted_by


def error(text: str) -> str:
    return "0x08c379a0" + encode(["string"], [text]).hex()


def panic(code: int) -> str:
    return "0x4e487b71" + encode(["uint256"], [code]).hex()


CUSTOM = "0xdeadbeef" + "00" * 31 + "07"

SHAPES: dict[str, tuple[int, str, Any, str]] = {
    "geth": (3, "execution reverted: not owner", error("not owner"), "not owner"),
    "anvil": (3, "execution reverted: not owner", error("not owner"), "not owner"),
    "erigon": (3, "execution reverted", error("not owner"), "not owner"),
    "nethermind": (-32015, "VM execution error.", "Reverted " + error("not owner"), "not owner"),
    "besu": (-32000, "Execution reverted", error("not owner"), "not owner"),
    "nested": (-32603, "Internal error", {"data": error("not owner")}, "not owner"),
    "nested-twice": (-32603, "oops", {"originalError": {"data": error("not owner")}}, "not owner"),
    "panic": (3, "execution reverted", panic(0x11), "panic 0x11: arithmetic overflow"),
    "strange-panic": (3, "execution reverted", panic(0x77), "panic 0x77: of an unknown kind"),
    "custom": (3, "execution reverted", CUSTOM, CUSTOM),
    "long": (3, "execution reverted", "0x" + "ab" * 5000, "0x" + "ab" * 96),
    "silent": (3, "execution reverted", "0x", NO_REASON),
    "silent-old": (-32000, "execution reverted", None, NO_REASON),
    "text-only": (-32000, "execution reverted: paused", None, "paused"),
    "empty-text": (3, "execution reverted", error(""), NO_REASON),
    "broken-text": (3, "execution reverted", "0x08c379a0" + "ff" * 40, "0x08c379a0" + "ff" * 40),
    "no-gas": (-32000, "out of gas", None, "out of gas"),
    "anvil-opcode": (-32603, "EVM error InvalidFEOpcode", None, "EVM error InvalidFEOpcode"),
    "not-hex": (3, "execution reverted", "0xzz", NO_REASON),
    "lines": (3, "execution reverted", error("a\nb\x1b[31m"), "a b [31m"),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_refusal_of_a_contract_is_read(shape: str) -> None:
    code, message, data, reason = SHAPES[shape]
    found = reverted_by(code, message, data)
    assert found is not None
    assert found.reason.rstrip("…") == reason
    assert len(found.reason) <= 204


@pytest.mark.parametrize(
    ("code", "message"),
    [(-32601, "Method not found"), (-32602, "invalid argument 0"), (-32000, "header not found")],
)
def test_an_error_about_something_else_is_no_refusal_of_the_contract(code: int, message: str) -> None:
    assert reverted_by(code, message, None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("0x08c379a0") | st.just(error("x")),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "originalError", "x"]), inner),
)


@settings(max_examples=40)
@given(code=st.integers(), message=st.text(), data=JSON)
def test_whatever_stands_in_an_error_it_is_read_or_not_but_never_fails(
    code: int, message: str, data: Any
) -> None:
    found = reverted_by(code, message, data)
    assert found is None or isinstance(found, Reverted)


@given(st.binary(max_size=200))
def test_every_data_of_a_refusal_is_shown_on_one_bounded_line(data: bytes) -> None:
    for start in (b"", bytes.fromhex("08c379a0"), bytes.fromhex("4e487b71")):
        found = reverted_by(3, "execution reverted", "0x" + (start + data).hex())
        assert found is not None
        assert found.reason
        assert len(found.reason) <= 204
        assert found.reason.isprintable()
