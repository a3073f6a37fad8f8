"""One chain for all tests of the contract; each finds it freshly deployed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.anvil import anvil
from tests.contracts.on_chain import OnChain


@pytest.fixture(scope="session")
def deployed() -> Iterator[OnChain]:
    with anvil() as chain:
        yield OnChain(chain)


@pytest.fixture
def contract(deployed: OnChain) -> Iterator[OnChain]:
    as_deployed = deployed.chain.rpc("evm_snapshot")
    yield deployed
    assert deployed.chain.rpc("evm_revert", as_deployed)
