"""What clients say about a transaction, word by word, and what it means."""

from __future__ import annotations

import itertools

import pytest

from actors.chain import NonceUsed, SendAnswer, SendRefused, Taken, TooPoor, Underpriced
from transport.chain.send_answers import combined, meaning_of

WORDS: list[tuple[str, str, type[SendAnswer]]] = [
    ("anvil", "transaction already imported", Taken),
    ("geth", "already known", Taken),
    ("op-geth", "already known", Taken),
    ("reth", "already known", Taken),
    ("erigon", "already known", Taken),
    ("besu", "Known transaction", Taken),
    ("nethermind", "AlreadyKnown", Taken),
    ("anvil", "nonce too low", NonceUsed),
    ("geth", "nonce too low: next nonce 8, tx nonce 7", NonceUsed),
    (
        "op-geth",
        "nonce too low: address 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266, tx: 0 state: 1",
        NonceUsed,
    ),
    ("erigon", "nonce too low", NonceUsed),
    ("besu", "Nonce too low", NonceUsed),
    ("nethermind", "OldNonce, Current nonce: 8, nonce of rejected tx: 7.", NonceUsed),
    ("parity", "Transaction nonce is too low. Try incrementing the nonce.", NonceUsed),
    ("anvil", "replacement transaction underpriced", Underpriced),
    ("anvil", "max fee per gas less than block base fee", Underpriced),
    ("geth", "replacement transaction underpriced: new tx gas fee cap 10 <= 11 queued", Underpriced),
    ("geth", "transaction underpriced: gas tip cap 0, minimum needed 1", Underpriced),
    ("op-geth", "transaction underpriced: tip needed 1000000, tip permitted 0", Underpriced),
    (
        "geth",
        "max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1, baseFee: 7",
        Underpriced,
    ),
    ("erigon", "could not replace existing tx", Underpriced),
    ("erigon", "underpriced", Underpriced),
    ("erigon", "fee too low", Underpriced),
    ("besu", "Gas price below configured minimum gas price", Underpriced),
    ("nethermind", "FeeTooLow, MaxFeePerGas too low. MaxFeePerGas: 1, BaseFee: 7", Underpriced),
    ("nethermind", "FeeTooLowToCompete", Underpriced),
    ("nethermind", "ReplacementNotAllowed", Underpriced),
    ("anvil", "Insufficient funds for gas * price + value", TooPoor),
    ("geth", "insufficient funds for gas * price + value: balance 0, tx cost 42, overshot 42", TooPoor),
    ("op-geth", "insufficient funds for l1Cost + gas * price + value: balance 0, tx cost 42", TooPoor),
    ("erigon", "insufficient funds for gas * price + value", TooPoor),
    ("besu", "Upfront cost exceeds account balance", TooPoor),
    ("nethermind", "InsufficientFunds, Account balance: 0, cumulative cost: 42", TooPoor),
    ("anvil", "intrinsic gas too low", SendRefused),
    ("anvil", "invalid chain id for signer", SendRefused),
    ("geth", "exceeds block gas limit", SendRefused),
    ("geth", "txpool is full", SendRefused),
    ("geth", "nonce too high", SendRefused),
    ("geth", "max priority fee per gas higher than max fee per gas", SendRefused),
    ("nethermind", "NonceGap, Future nonce. Expected nonce: 3", SendRefused),
    ("geth", "tx fee (5.00 ether) exceeds the configured cap (1.00 ether)", SendRefused),
]


@pytest.mark.parametrize(
    ("client", "said", "means"), WORDS, ids=[f"{c}-{n}" for n, (c, _, _) in enumerate(WORDS)]
)
def test_what_a_client_says_is_understood(client: str, said: str, means: type[SendAnswer]) -> None:
    answer = meaning_of(said)
    assert type(answer) is means, client
    if isinstance(answer, SendRefused):
        assert answer.why == said


def test_of_several_answers_the_one_that_may_get_it_mined_counts() -> None:
    ranked: list[SendAnswer] = [Taken(), NonceUsed(), Underpriced(), TooPoor(), SendRefused("no")]
    for better, worse in itertools.combinations(ranked, 2):
        assert combined([worse, better]) == combined([better, worse]) == better
