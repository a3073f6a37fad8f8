"""What is offered for gas: the first offer, a higher one when no block took it, and what a day may cost.

EIP-1559: a transaction pays the block's base fee and a tip, and at most what it offers. Pools take a second
transaction of the same nonce only if it raises both by a tenth. Pure arithmetic, in wei.
"""

from __future__ import annotations

import msgspec

from actors.chain import FeeQuote

_GAS_MARGIN_PERCENT = 20
"""What a call uses depends on what is stored when it runs, which can change after the estimate."""
GAS_LIMIT_MAX = 2_000_000
"""Ours take some 100,000: an estimate beyond this is not about our contract, or a lie."""
DAY_US = 86_400_000_000


class Offer(msgspec.Struct, frozen=True):
    max_fee_per_gas: int
    max_priority_fee_per_gas: int


def first_offer(quote: FeeQuote, cap: int) -> Offer | None:
    """Enough for a base fee that doubles, which takes at least six full blocks. None: no block would take
    what the cap allows."""
    if quote.base_fee_per_gas > cap:
        return None
    fee = min(cap, 2 * quote.base_fee_per_gas + quote.max_priority_fee_per_gas)
    return Offer(fee, min(fee, quote.max_priority_fee_per_gas))


def higher_offer(last: Offer, quote: FeeQuote, cap: int) -> Offer | None:
    """Both an eighth above ``last``, or as much as is asked now if that is more. None: the cap allows no such
    step."""
    least_fee, least_tip = _eighth_more(last.max_fee_per_gas), _eighth_more(last.max_priority_fee_per_gas)
    if least_fee > cap:
        return None
    fee = min(cap, max(least_fee, 2 * quote.base_fee_per_gas + quote.max_priority_fee_per_gas))
    tip = min(fee, max(least_tip, quote.max_priority_fee_per_gas))
    return None if tip < least_tip else Offer(fee, tip)


def _eighth_more(amount: int) -> int:
    return max(amount + 1, -(-amount * 9 // 8))


def gas_limit(estimate: int) -> int | None:
    """With a margin; None for an estimate that nothing of ours needs."""
    limit = estimate * (100 + _GAS_MARGIN_PERCENT) // 100
    return limit if limit <= GAS_LIMIT_MAX else None


def worst_case(limit: int, offer: Offer) -> int:
    return limit * offer.max_fee_per_gas


def is_affordable(spent: int, more: int, budget: int) -> bool:
    """``spent`` counts the worst case of what is in flight; ``more`` is what comes on top of that."""
    return spent + more <= budget
