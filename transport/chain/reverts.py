"""Why a contract refuses, out of the error of a call: endpoints nest the data differently.

It alone knows those shapes. It never decides whether to try again.
"""

from __future__ import annotations

from typing import Any

from actors.chain import Reverted

_ERROR = bytes.fromhex("08c379a0")  # Error(string)
_PANIC = bytes.fromhex("4e487b71")  # Panic(uint256)
_PANICS = {
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "no such enum value",
    0x22: "broken storage",
    0x31: "pop from an empty array",
    0x32: "index out of range",
    0x41: "out of memory",
    0x51: "uninitialised function",
}
_DATA_SHOWN_BYTES = 96
"""A custom error's four bytes and nearly three words."""
_TEXT_SHOWN_CHARS = 200
_NESTED_MAX = 3
_EXECUTION_FAILED = (
    "revert",
    "invalid opcode",
    "evm error",
    "vm execution error",
    "out of gas",
    "gas required exceeds",
    "always failing transaction",
    "stack underflow",
    "bad jump",
    "invalid jump",
    "insufficient funds",
)
NO_REASON = "no reason given"


def reverted_by(code: int, message: str, data: Any) -> Reverted | None:
    """None: the error is not about the contract."""
    raw = _revert_data(data, _NESTED_MAX)
    said = message.lower()
    if code != 3 and not raw and not any(words in said for words in _EXECUTION_FAILED):
        return None
    return Reverted(_shown(_reason(raw) if raw else _after_the_colon(message)))


def _revert_data(data: Any, nested_max: int) -> bytes | None:
    """``"0x…"`` (geth, anvil), ``"Reverted 0x…"`` (nethermind), or an object that holds it (gateways)."""
    if isinstance(data, str):
        digits = data.removeprefix("Reverted ").strip()
        try:
            return bytes.fromhex(digits[2:]) if digits.startswith("0x") else None
        except ValueError:
            return None
    if isinstance(data, dict) and nested_max:
        for name in ("data", "originalError", "result", "return"):
            found = _revert_data(data.get(name), nested_max - 1)
            if found:
                return found
    return None


def _reason(raw: bytes) -> str:
    if raw.startswith(_ERROR):
        text = _text(raw[4:])
        if text is not None:
            return text or NO_REASON
    if raw.startswith(_PANIC) and len(raw) == 36:
        code = int.from_bytes(raw[4:], "big")
        return f"panic {code:#04x}: {_PANICS.get(code, 'of an unknown kind')}"
    more = "…" if len(raw) > _DATA_SHOWN_BYTES else ""
    return f"0x{raw[:_DATA_SHOWN_BYTES].hex()}{more}"


def _text(encoded: bytes) -> str | None:
    """One ABI-encoded string; None: it is none."""
    at = int.from_bytes(encoded[:32], "big")
    length = int.from_bytes(encoded[at : at + 32], "big")
    if len(encoded) < 64 or at != 32 or len(encoded) < 64 + length:
        return None
    return encoded[64 : 64 + length].decode("utf-8", "replace")


def _after_the_colon(message: str) -> str:
    lowered = message.lower()
    if lowered.startswith("execution reverted"):
        return message[len("execution reverted") :].lstrip(": ") or NO_REASON
    return message


def _shown(text: str) -> str:
    line = "".join(each if each.isprintable() else " " for each in text)
    return line if len(line) <= _TEXT_SHOWN_CHARS else line[:_TEXT_SHOWN_CHARS] + "…"
