"""Several endpoints as one: who is asked, how long, and what it means when nobody answers.

It alone fails over, comes back, and keeps whoever lags from speaking of the present. It does not know what is
asked, nor whether an answer is true beyond its chain and its form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
import trio

from actors.chain import ChainAway, ChainLies, ChainNotOurs
from transport.chain.endpoint import (
    Endpoint,
    EndpointAway,
    EndpointForeign,
    EndpointLies,
    EndpointTrouble,
)
from transport.chain.standings import HighestSeen, Standing, in_turn
from transport.chain.wire import Quantity, decode, quantity

log = structlog.get_logger("chain")

T = TypeVar("T")
Work = Callable[[Endpoint], Awaitable[T]]


class Pool:
    def __init__(self, endpoints: Sequence[Endpoint], lag_blocks_max: int, now: Callable[[], float]) -> None:
        self._members = [(one, Standing()) for one in endpoints]
        self._highest = HighestSeen(lag_blocks_max)
        self._now = now

    @property
    def is_alone(self) -> bool:
        return len(self._members) == 1

    async def first(self, work: Work[T], *, within_s: float, of_the_present: bool) -> T:
        """The first usable answer. Each endpoint gets its share of the time, what it leaves goes to the next.
        ``of_the_present``: whoever lags is passed over. Raises ChainAway, ChainNotOurs, ChainLies."""
        deadline = trio.current_time() + within_s
        turns = self._turns()
        troubles: list[EndpointTrouble] = []
        for left, (endpoint, standing) in zip(range(len(turns), 0, -1), turns, strict=True):
            share = max(deadline - trio.current_time(), 0.0) / left
            answer = await self._attempt(endpoint, standing, work, share, of_the_present)
            if not isinstance(answer, EndpointTrouble):
                return answer
            troubles.append(answer)
        raise _meaning(troubles)

    async def every(self, work: Work[T], *, within_s: float) -> list[tuple[Endpoint, T]]:
        """The answers of all who answer, in their order; at least one, else as ``first``."""
        turns = self._turns()
        answers: dict[int, T | EndpointTrouble] = {}

        async def one(at: int) -> None:
            answers[at] = await self._attempt(*turns[at], work, within_s, False)

        async with trio.open_nursery() as nursery:
            for at in range(len(turns)):
                nursery.start_soon(one, at)
        good: list[tuple[Endpoint, T]] = []
        troubles: list[EndpointTrouble] = []
        for at, (endpoint, _) in enumerate(turns):
            answer = answers[at]
            if isinstance(answer, EndpointTrouble):
                troubles.append(answer)
            else:
                good.append((endpoint, answer))
        if not good:
            raise _meaning(troubles)
        return good

    def _turns(self) -> list[tuple[Endpoint, Standing]]:
        at = in_turn([standing for _, standing in self._members], self._now())
        if not at:
            raise ChainAway("every endpoint asked us to wait, and we do")
        return [self._members[each] for each in at]

    async def _attempt(
        self, endpoint: Endpoint, standing: Standing, work: Work[T], within_s: float, of_the_present: bool
    ) -> T | EndpointTrouble:
        trouble: EndpointTrouble
        try:
            with trio.fail_after(within_s):
                if of_the_present:
                    await self._require_no_lag(endpoint, standing)
                answer = await work(endpoint)
        except trio.TooSlowError:
            trouble = EndpointAway(f"{endpoint.name} gave no answer within {within_s:.3g} s")
        except EndpointTrouble as told:
            trouble = told
        else:
            if standing.failures:
                log.info("chain_endpoint_back", endpoint=endpoint.name)
            standing.answered()
            return answer
        self._note(endpoint, standing, trouble)
        return trouble

    def _note(self, endpoint: Endpoint, standing: Standing, trouble: EndpointTrouble) -> None:
        endpoint.disbelieve()
        say = log.error if isinstance(trouble, EndpointForeign | EndpointLies) else log.warning
        if standing.failures == 0 or say is log.error:
            say("chain_endpoint_put_aside", endpoint=endpoint.name, why=str(trouble))
        standing.failed(self._now(), getattr(trouble, "told_s", None))

    async def _require_no_lag(self, endpoint: Endpoint, standing: Standing) -> None:
        now = self._now()
        if standing.head_is_fresh(now) and not self._highest.blocks_behind(standing.head or 0, now):
            return  # one that lagged may have caught up since, so it is asked
        raw = await endpoint.ask("eth_blockNumber")
        try:
            number = quantity(decode(raw, Quantity))
        except ValueError as wrong:
            raise endpoint.lies("eth_blockNumber", wrong) from None
        self.showed_head(endpoint, number)

    def showed_head(self, endpoint: Endpoint, number: int) -> None:
        """Raises EndpointAway when this says that it lags."""
        now = self._now()
        standing = next(standing for one, standing in self._members if one is endpoint)
        standing.showed_head(number, now)
        behind = self._highest.blocks_behind(number, now)
        if behind:
            raise EndpointAway(
                f"{endpoint.name} lags: its latest block is {number}, {behind} behind one that we saw"
            )
        self._highest.showed(number, now)


def _meaning(troubles: list[EndpointTrouble]) -> ChainAway | ChainLies | ChainNotOurs:
    text = "; ".join(map(str, troubles))
    if any(isinstance(one, EndpointLies) for one in troubles):
        return ChainLies(text)
    if troubles and all(isinstance(one, EndpointForeign) for one in troubles):
        return ChainNotOurs(text)
    return ChainAway(text)
