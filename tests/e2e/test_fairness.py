"""A tenant that floods the pools does not stand before a quiet one: who is served when, not how fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e.test_operators import Operator
from tests.e2e.world import Server, Tenant

pytestmark = pytest.mark.slow

FLOOD, BATCH = 24, 100
VERIFIERS = "house/verifiers"


def test_a_quiet_tenants_batch_passes_the_large_ones_that_came_before(
    own_server: Callable[..., Server],
) -> None:
    """The verifier is held until all of them wait; then the small one, written last, is among the first."""
    server = own_server(VERIFIERS="1", ENCRYPTORS="1", COMMITMENT_INTERVAL_SECS="3600").start()
    server.wait_ready()
    loud, quiet = Tenant(server), Tenant(server)
    large = [loud.agent.body([loud.agent.event({"n": n}) for n in range(BATCH)]) for _ in range(FLOOD)]
    small = quiet.agent.body([quiet.agent.event({"n": n}) for n in range(5)])  # more than is verified inline
    order: list[Tenant] = []

    def post(tenant: Tenant, body: bytes) -> None:
        answer = tenant.post_raw(body)
        assert answer.status_code == 200, answer.text
        order.append(tenant)

    with Operator(server) as operator:
        operator.act("suspend", f"{VERIFIERS}/0")
        threads = [threading.Thread(target=post, args=(loud, body)) for body in large]
        for thread in threads:
            thread.start()
        until_waiting(operator, FLOOD)
        threads.append(threading.Thread(target=post, args=(quiet, small)))
        threads[-1].start()
        until_waiting(operator, FLOOD + 1)
        operator.act("resume", f"{VERIFIERS}/0")
        for thread in threads:
            thread.join(60)
    assert len(order) == FLOOD + 1
    assert order.index(quiet) < FLOOD / 4
    assert (loud.head(), quiet.head()) == (FLOOD * BATCH, 5)


def until_waiting(operator: Operator, letters: int) -> None:
    give_up = time.monotonic() + 30
    while (waiting := operator.look(VERIFIERS)["tree"]["mailbox"]["depth"]) < letters:
        assert time.monotonic() < give_up, f"{waiting} of {letters}"
        time.sleep(0.02)
