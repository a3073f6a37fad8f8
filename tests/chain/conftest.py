"""One chain for a module's tests: what each of them does to it is taken back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.anvil import Anvil, anvil
from tests.chain.accounts import account, address_of


@pytest.fixture(scope="module")
def one_chain() -> Iterator[Anvil]:
    with anvil(automine=False) as chain:
        chain.fund(address_of(account(1)))
        yield chain


@pytest.fixture
def chain(one_chain: Anvil) -> Iterator[Anvil]:
    """Mines when told to; the first account has money."""
    before = one_chain.rpc("evm_snapshot")
    yield one_chain
    one_chain.rpc("anvil_dropAllTransactions")
    one_chain.rpc("evm_revert", before)
