"""What an endpoint's refusal of a transaction means, and what several endpoints' answers mean together.

Clients word the same refusal differently and agree on no code, so this is decided by words: those of anvil,
geth, op-geth, erigon, nethermind, besu and reth. What is not known stays SendRefused, in the endpoint's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.chain import NonceUsed, SendAnswer, SendRefused, Taken, TooPoor, Underpriced

_WORDS: tuple[tuple[SendAnswer, tuple[str, ...]], ...] = (
    (
        Taken(),
        ("already known", "alreadyknown", "already imported", "known transaction", "already in the pool"),
    ),
    (
        NonceUsed(),
        ("nonce too low", "nonce is too low", "nonce_too_low", "oldnonce", "nonce has already been"),
    ),
    (
        Underpriced(),
        (
            "underpriced",
            "less than block base fee",
            "fee too low",
            "feetoolow",
            "fee cap less than",
            "gas price too low",
            "gas price below",
            "could not replace existing",
            "replacementnotallowed",
            "replacement not allowed",
        ),
    ),
    (
        TooPoor(),
        (
            "insufficient funds",
            "insufficientfunds",
            "insufficient balance",
            "not enough balance",
            "upfront cost exceeds",
            "upfront_cost_exceeds",
        ),
    ),
)
_BEST_FIRST = (Taken, NonceUsed, Underpriced, TooPoor, SendRefused)


def meaning_of(message: str) -> SendAnswer:
    """``message``: bounded and without secrets already."""
    said = message.lower()
    for answer, words in _WORDS:
        if any(each in said for each in words):
            return answer
    return SendRefused(message)


def combined(answers: Sequence[SendAnswer]) -> SendAnswer:
    """At least one. Whoever took it may get it mined, whatever the others say."""
    return min(answers, key=lambda each: _BEST_FIRST.index(type(each)))
