"""Several endpoints, some of which fail: who answers, how long it takes, and who is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trio

from actors.chain import ChainAway, ChainLies, ChainNotOurs, NonceUsed, SendRefused, Taken
from tests.anvil import CHAIN_ID, Anvil
from tests.chain.accounts import account, address_of, signed
from tests.chain.bad_endpoint import (
    BadEndpoint,
    Fault,
    another_chain,
    bad_endpoint,
    closes,
    delays,
    hangs,
    loses_answer,
    never_ends,
    redirects,
    refuses,
    says_bytes,
    says_deep,
    says_http,
    says_huge,
    stands_still,
)
from transport.chain.breaker import Breaker
from transport.chain.endpoint import ANSWER_BYTES_MAX
from transport.chain.opening import open_chain
from ves.block_proofs import keccak256

ME = account(1)
ADDRESS = address_of(ME)


@dataclass
class Street:
    """A chain and two endpoints in front of it."""

    chain: Anvil
    preferred: BadEndpoint
    other: BadEndpoint
    ahead_s: float = 0.0
    """Added to the time that standings and breaker go by."""
    urls: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.urls = [self.preferred.url, self.other.url]

    def now(self) -> float:
        return trio.current_time() + self.ahead_s


@pytest.fixture
def street(chain: Anvil) -> Iterator[Street]:
    with bad_endpoint(chain.url) as preferred, bad_endpoint(chain.url) as other:
        chain.mine(30)
        yield Street(chain, preferred, other)


FAULTS: dict[str, Callable[[], Fault]] = {
    "hangs": hangs,
    "cuts": closes,
    "500": lambda: says_http(500),
    "503": lambda: says_http(503, body=b'{"jsonrpc":"2.0"}'),
    "429": lambda: says_http(429),
    "403": lambda: says_http(403),
    "404": lambda: says_http(404, body=b'{"message":"no route"}'),
    "redirect": lambda: redirects("http://127.0.0.1:1/"),
    "not-json": lambda: says_bytes(b"<html>all is well</html>"),
    "not-utf8": lambda: says_bytes(b'{"jsonrpc":"2.0","id":0,"result":"\xff"}'),
    "empty": lambda: says_bytes(b""),
    "list": lambda: says_bytes(b"[]"),
    "no-result": lambda: says_bytes(b'{"jsonrpc":"2.0","id":0}'),
    "other-id": lambda: says_bytes(b'{"jsonrpc":"2.0","id":"x","result":"0x1"}'),
    "deep": lambda: says_deep(200_000),
    "huge": lambda: says_huge(ANSWER_BYTES_MAX),
    "rate-limited": lambda: refuses(-32005, "daily request count exceeded, request rate limited"),
    "no-such-method": lambda: refuses(-32601, "Method not found"),
    "behind": lambda: refuses(-32000, "header not found"),
    "another-chain": lambda: another_chain(1),
}


@pytest.mark.parametrize("fault", list(FAULTS))
async def test_whatever_the_preferred_endpoint_does_the_other_one_answers(street: Street, fault: str) -> None:
    street.preferred.does(FAULTS[fault]())
    async with open_chain(street.urls, CHAIN_ID, 3.0) as rpc:
        began = time.monotonic()
        assert await rpc.nonce_of(ADDRESS) == 0
        assert time.monotonic() - began < 3.0
        assert await rpc.nonce_of(ADDRESS) == 0
    assert street.preferred.asked("eth_getTransactionCount") <= 1


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "another-chain"])
async def test_an_only_endpoint_that_fails_is_named_within_the_deadline(street: Street, fault: str) -> None:
    street.preferred.does(FAULTS[fault]())
    async with open_chain([street.preferred.url], CHAIN_ID, 0.4) as rpc:
        began = time.monotonic()
        with pytest.raises((ChainAway, ChainLies), match=r"endpoint 1 \(127\.0\.0\.1\)"):
            await rpc.nonce_of(ADDRESS)
        assert time.monotonic() - began < 3.0


async def test_an_answer_without_an_end_is_not_listened_to(street: Street) -> None:
    street.preferred.does(never_ends(), method="eth_getTransactionCount")
    async with open_chain([street.preferred.url], CHAIN_ID, 10.0) as rpc:
        with pytest.raises(ChainLies, match=f"more than {ANSWER_BYTES_MAX} bytes"):
            await rpc.nonce_of(ADDRESS)


async def test_the_preferred_endpoint_is_the_first_again_after_its_rest(street: Street) -> None:
    street.preferred.does(says_http(500), times=1)
    async with open_chain(street.urls, CHAIN_ID, 2.0, now=street.now) as rpc:
        await rpc.nonce_of(ADDRESS)
        await rpc.nonce_of(ADDRESS)
        assert street.preferred.asked("eth_getTransactionCount") == 0
        street.ahead_s = 3.0
        asked = street.other.asked("eth_getTransactionCount")
        await rpc.nonce_of(ADDRESS)
        assert street.preferred.asked("eth_getTransactionCount") == 1
        assert street.other.asked("eth_getTransactionCount") == asked


async def test_an_endpoint_that_names_a_pause_is_not_asked_before_but_not_left_for_ever(
    street: Street,
) -> None:
    street.preferred.does(says_http(429, retry_after="999999"), times=1)
    async with open_chain([street.preferred.url], CHAIN_ID, 2.0, now=street.now) as rpc:
        with pytest.raises(ChainAway, match="429"):
            await rpc.nonce_of(ADDRESS)
        asked = len(street.preferred.paths)
        street.ahead_s = 100.0
        with pytest.raises(ChainAway, match="asked us to wait"):
            await rpc.nonce_of(ADDRESS)
        assert len(street.preferred.paths) == asked
        street.ahead_s = 130.0
        assert await rpc.nonce_of(ADDRESS) == 0


async def test_a_foreign_chain_is_not_believed_and_takes_an_operator(street: Street) -> None:
    street.preferred.does(another_chain(11155111))
    async with open_chain([street.preferred.url], CHAIN_ID, 2.0) as rpc:
        with pytest.raises(ChainNotOurs, match=r"speaks of chain 11155111, not of 84532001.*L2_CHAIN_ID"):
            await rpc.block("latest")
        assert street.preferred.asked("eth_getBlockByNumber") == 0


async def test_the_chain_is_asked_for_again_on_every_new_connection(street: Street) -> None:
    """Whoever answers behind an address may have changed while nobody was connected."""
    async with open_chain([street.preferred.url], CHAIN_ID, 2.0) as rpc:
        await rpc.block("latest")
        await rpc.block("latest")
        assert street.preferred.asked("eth_chainId") == 1
        street.preferred.does(another_chain(5))
        street.preferred.cut()
        with pytest.raises((ChainNotOurs, ChainAway)):
            await rpc.block("latest")
        with pytest.raises(ChainNotOurs):
            await rpc.block("latest")


async def test_an_endpoint_that_lags_is_not_asked_about_the_present(street: Street) -> None:
    async with open_chain(street.urls, CHAIN_ID, 2.0, now=street.now) as rpc:
        latest = await rpc.block("latest")
        assert latest is not None
        assert latest.number == 30
        street.preferred.does(stands_still(20))
        street.ahead_s = 15.0
        assert await rpc.nonce_of(ADDRESS) == 0
        assert street.preferred.asked("eth_getTransactionCount") == 0
        again = await rpc.block("latest")
        assert again is not None
        assert again.number == 30
        street.preferred.behaves()
        street.ahead_s = 40.0
        assert await rpc.nonce_of(ADDRESS) == 0
        assert street.preferred.asked("eth_getTransactionCount") == 1


async def test_a_chain_that_everybody_says_is_shorter_is_believed_after_a_while(street: Street) -> None:
    async with open_chain([street.preferred.url], CHAIN_ID, 2.0, now=street.now) as rpc:
        await rpc.block("latest")
        street.preferred.does(stands_still(20))
        with pytest.raises(ChainAway, match="lags: its latest block is 10, 20 behind"):
            await rpc.block("latest")
        street.ahead_s = 301.0
        found = await rpc.block("latest")
        assert found is not None
        assert found.number == 10


async def test_a_transaction_goes_to_every_endpoint(street: Street) -> None:
    raw = signed(ME, 0)
    async with open_chain(street.urls, CHAIN_ID, 2.0) as rpc:
        assert await rpc.send(raw) == Taken()
    assert (
        street.preferred.asked("eth_sendRawTransaction") == street.other.asked("eth_sendRawTransaction") == 1
    )


async def test_one_endpoint_that_takes_a_transaction_is_enough(street: Street) -> None:
    street.preferred.does(refuses(-32000, "txpool is full"), method="eth_sendRawTransaction")
    async with open_chain(street.urls, CHAIN_ID, 1.5) as rpc:
        assert await rpc.send(signed(ME, 0)) == Taken()
        street.other.does(hangs(), method="eth_sendRawTransaction")
        assert await rpc.send(signed(ME, 1)) == SendRefused("txpool is full")


async def test_a_transaction_whose_answer_is_lost_may_be_there(street: Street) -> None:
    raw = signed(ME, 0)
    street.preferred.does(loses_answer(), method="eth_sendRawTransaction")
    async with open_chain([street.preferred.url], CHAIN_ID, 2.0, now=street.now) as rpc:
        with pytest.raises(ChainAway):
            await rpc.send(raw)
        assert await rpc.is_known(keccak256(raw))
        street.preferred.behaves()
        assert await rpc.send(raw) == Taken()
        street.chain.mine()
        assert await rpc.send(raw) == NonceUsed()


async def test_a_transaction_that_one_endpoint_knows_is_known(street: Street) -> None:
    raw = signed(ME, 0)
    street.chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
    street.preferred.does(
        says_bytes(b'{"jsonrpc":"2.0","id":0,"result":null}'), method="eth_getTransactionByHash"
    )
    async with open_chain(street.urls, CHAIN_ID, 2.0) as rpc:
        assert await rpc.is_known(keccak256(raw))


async def test_a_chain_that_failed_again_and_again_is_left_alone_and_tried_once(street: Street) -> None:
    street.preferred.does(says_http(500))
    breaker = Breaker(failures_max=2, pause_s=1000.0)
    async with open_chain([street.preferred.url], CHAIN_ID, 2.0, now=street.now, breaker=breaker) as rpc:
        for _ in range(2):
            assert not rpc.breaker_open
            with pytest.raises(ChainAway, match="HTTP 500"):
                await rpc.nonce_of(ADDRESS)
        assert rpc.breaker_open
        asked = len(street.preferred.paths)
        with pytest.raises(ChainAway, match="left alone for another 1000 s"):
            await rpc.nonce_of(ADDRESS)
        assert len(street.preferred.paths) == asked
        street.preferred.behaves()
        street.ahead_s = 1001.0
        assert await rpc.nonce_of(ADDRESS) == 0
        assert not rpc.breaker_open


async def test_a_call_nobody_waits_for_does_not_keep_the_breaker_half_open(street: Street) -> None:
    street.preferred.does(says_http(500), times=1)
    breaker = Breaker(failures_max=1, pause_s=1.0)
    async with open_chain([street.preferred.url], CHAIN_ID, 5.0, now=street.now, breaker=breaker) as rpc:
        with pytest.raises(ChainAway):
            await rpc.nonce_of(ADDRESS)
        street.ahead_s = 5.0
        street.preferred.does(delays(0.3), times=1)
        with trio.move_on_after(0.05):
            await rpc.nonce_of(ADDRESS)
        assert await rpc.nonce_of(ADDRESS) == 0
        assert not rpc.breaker_open
