"""Every route for every kind of credential, whatever it is aimed at, against the table written by hand.

Routes come from the OpenAPI documents that the running applications serve, expectations from
``tests.security.matrix``: a route without a row fails, and so does a permission that says something else
than the row.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from actors.messages import VerifyLegacy
from journal.port import EventSchema, StoredProof, ValidityProof
from tests.http.anchors import anchoring
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    JSON,
    OTHER_STORE,
    OTHER_TENANT,
    STORE,
    TENANT,
    Cardboard,
    serving,
)
from tests.security.matrix import (
    ADMIN_LISTENER,
    CREDENTIALS,
    GOES,
    NOTHING,
    PUBLIC,
    PUBLIC_LISTENER,
    Row,
)
from transport.http.app import ADMIN
from transport.http.app import PUBLIC as PUBLIC_ROUTES
from transport.http.permissions import NEEDED
from ves.legacy_verification import verify_legacy_body
from ves.verification import AwaitsKeys, verify_body

OTHER_AGENT = uuid.UUID("88888888-8888-4888-8888-888888888888")
ABSENT = uuid.UUID("99999999-9999-4999-8999-999999999999")
OTHERS = {
    "key_id": "1",
    "event_id": str(ABSENT),
    "entity_type": "order",
    "entity_id": "o-1",
    "event_type": "order.created",
    "sequence_number": "1",
    "number": "1",
    "node_id": str(ABSENT),
    "entry_number": "1",
}
"""What stands in a path for all that is not aimed at anybody."""
LISTENERS = {"public": PUBLIC_LISTENER, "admin": ADMIN_LISTENER}
REQUEST_ID = {"x-request-id": "the-same"}

BOUND_TO_STORE = {"admin-of-a-store"}
BOUND_TO_AGENT = {"agent-itself", "admin-of-an-agent"}


class Target(NamedTuple):
    """What a request is aimed at, and the values that say so."""

    name: str
    values: dict[str, str]


class Case(NamedTuple):
    listener: str
    route: str
    """As the table spells it."""
    row: Row
    credential: str
    target: Target

    def __str__(self) -> str:
        return f"{self.route.partition('?')[0]} of {self.credential} aimed at {self.target.name}"


@asynccontextmanager
async def matrix() -> AsyncIterator[Matrix]:
    # Thousands of requests: without sockets, and without a line for each.
    house = Cardboard({"rate_limit_mode": "off", "anchor_wait_secs": 0}, anchoring=anchoring())
    house.verifiers.reply = _verify
    found = Matrix(house)
    with capture_logs():
        yield found
    await found.aclose()


async def _verify(message: Any) -> Any:
    """The real reading and scoping of a body; no key is registered."""
    if isinstance(message, VerifyLegacy):
        return verify_legacy_body(message.body, message.scope, now_us=1_800_000_000_000_000)
    answer = verify_body(message.body, message.scope, lambda name: None, now_us=0)
    return answer.needs if isinstance(answer, AwaitsKeys) else answer


class Matrix:
    def __init__(self, house: Cardboard) -> None:
        self.house = house
        self.keys = _credentials(house)
        self.targets = [
            _target(house, "his own", TENANT, STORE, AGENT),
            _target(house, "another store", TENANT, OTHER_STORE, AGENT),
            _target(house, "another agent", TENANT, STORE, OTHER_AGENT),
            _target(house, "another tenant", OTHER_TENANT, STORE, AGENT),
        ]
        self.clients = {
            (credential, listener): httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url="http://127.0.0.1",
                headers={} if key is None else {"authorization": f"Bearer {key}"},
                trust_env=False,
            )
            for credential, key in self.keys.items()
            for listener, app in (("public", house.public), ("admin", house.admin))
        }

    async def aclose(self) -> None:
        for client in self.clients.values():
            await client.aclose()

    def cases(self, listener: str, route: str, row: Row) -> Iterator[Case]:
        targets = self.targets[:1] if row.names == NOTHING else self.targets
        for credential in CREDENTIALS:
            # Who may nothing here is refused before it is read what he asks for.
            tried = targets if credential in row.who else [targets[0], targets[-1]]
            for target in tried[: len(targets)]:
                yield Case(listener, route, row, credential, target)

    async def trouble(self, case: Case) -> str | None:
        answer = await self.ask(case, case.target.values)
        expected, status = _expected(case), answer.status_code
        if not (status == expected if expected != GOES else _went_through(status)):
            wanted = "to go through" if expected == GOES else expected
            return f"{case}: expected {wanted}, was {status} {answer.text[:200]}"
        if status == 403 and case.credential not in case.row.who and not _lacks_permission(answer):
            return f"{case}: was refused, but not for the permission it lacks: {answer.text[:200]}"
        if status == 404 and expected == 404:
            absent = await self.ask(case, dict.fromkeys(case.target.values, str(ABSENT)))
            if answer.content != absent.content:
                return f"{case}: what is not his differs from what is not there"
        return None

    async def ask(self, case: Case, values: dict[str, str]) -> httpx.Response:
        method, _, path = _filled(case.route, values).partition(" ")
        body = None if case.row.body is None else _filled(case.row.body, values)
        headers = REQUEST_ID if body is None else REQUEST_ID | JSON
        return await self.clients[case.credential, case.listener].request(
            method, path, content=body, headers=headers
        )


def _credentials(house: Cardboard) -> dict[str, str | None]:
    keys: dict[str, str | None] = {"none": None, "bootstrap": BOOTSTRAP}
    for role in ("agent", "reader", "admin", "anchor", "monitor"):
        keys[role] = house.api_key(role=role)
    for flag in ("read", "write"):
        keys[flag] = house.api_key(flag)
    keys["legacy-admin"] = house.api_key("admin")
    keys["admin-of-a-store"] = house.api_key(role="admin", stores=[STORE])
    keys["agent-itself"] = house.api_key(role="agent", agent=AGENT)
    keys["admin-of-an-agent"] = house.api_key(role="admin", agent=AGENT)
    assert set(keys) == set(CREDENTIALS)
    return keys


def _target(house: Cardboard, name: str, tenant: uuid.UUID, store: uuid.UUID, agent: uuid.UUID) -> Target:
    """With commitments of both streams, a proof, an API key and a schema of its own, which nobody uses."""
    commitment = msgspec.structs.replace(
        house.journal.commit([b"\x01" * 32], 1), tenant_id=tenant.bytes, store_id=store.bytes
    )
    house.journal.commitments[-1] = commitment
    house.api_key(role="agent", tenant=tenant, agent=agent)
    spare = list(house.journal.api_keys.values())[-1]
    schema = EventSchema(uuid.uuid4().bytes, tenant.bytes, "order.created", 1, "{}", "none", None, "cli")
    house.journal.tables.keeping(schema)()
    proof = ValidityProof(
        uuid.uuid4().bytes, commitment.batch_id, tenant.bytes, store.bytes, "other", 1, bytes(32), None
    )
    house.journal.proofs.submission(StoredProof(proof, b"proof"), 0)[1]()
    legacy = house.journal.commit_legacy([b"\x01" * 32], 1, tenant.bytes, store.bytes)
    values = {
        "legacy_batch_id": uuid.UUID(bytes=legacy.batch_id),
        "proof_id": uuid.UUID(bytes=proof.proof_id),
        "schema_id": uuid.UUID(bytes=schema.id),
        "tenant": tenant,
        "store": store,
        "agent_id": agent,
        "batch_id": uuid.UUID(bytes=commitment.batch_id),
        "id": uuid.UUID(bytes=spare.id),
    }
    hash_prefix = {"key_prefix": spare.key_hash.hex()[:16]}
    return Target(name, {name: str(value) for name, value in values.items()} | hash_prefix)


def _expected(case: Case) -> int:
    """The row's word for it, in the order in which the door asks."""
    row, credential, aimed = case.row, case.credential, case.target.name
    names = row.names
    if PUBLIC in row.who:
        return GOES
    if credential == "none":
        return 401
    if credential not in row.who:
        return 403
    if credential == "bootstrap":
        return row.bootstrap
    if credential in BOUND_TO_STORE and names.bound_to_store:
        return names.bound_to_store
    if credential in BOUND_TO_AGENT and names.bound_to_agent:
        return names.bound_to_agent
    if aimed == "another tenant":
        return names.foreign_tenant
    if aimed == "another store" and credential in BOUND_TO_STORE:
        return names.other_store
    if aimed == "another agent" and credential in BOUND_TO_AGENT:
        return names.other_agent
    return names.own


def _went_through(status: int) -> bool:
    return status not in (401, 403, 429) and status < 500


def _lacks_permission(answer: httpx.Response) -> bool:
    """Refused by the door, whatever the request says."""
    return str(answer.json()["message"]).endswith("permission required")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: (values | OTHERS)[match[1]], text)


def _bare(route: str) -> str:
    """Without the query, and whatever the parameters of the path are called."""
    return re.sub(r"\{\w+\}", "{}", route.partition("?")[0])


async def test_every_route_has_a_row_and_every_row_a_route() -> None:
    async with serving(rate_limit_mode="off") as house:
        for listener, table in LISTENERS.items():
            async with house.client(admin=listener == "admin") as client:
                paths = (await client.get("/openapi.json")).json()["paths"]
            routes = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
            rows = {_bare(route) for route in table}
            assert len(rows) == len(table), "a route has two rows"
            for route in routes:
                assert _bare(route) in rows, (
                    f"{route} of the {listener} listener has no row in tests/security/matrix.py: say there "
                    f'who may, by hand, for example:  "{route}": may(ADMINS, STREAM),'
                )
            assert rows <= {_bare(route) for route in routes}, "a row without a route"


async def test_everybody_may_exactly_what_the_table_says() -> None:
    async with matrix() as tried:
        troubles = [
            trouble
            for listener, table in LISTENERS.items()
            for route, row in table.items()
            for case in tried.cases(listener, route, row)
            if (trouble := await tried.trouble(case)) is not None
        ]
    assert not troubles, "\n".join(troubles)


ANNOTATIONS = [
    *((route, "public") for route in PUBLIC_ROUTES),
    *((route, "admin") for route in ADMIN),
]
WRONG = {
    "nobody needs anything": (),
    "agents may": ("events:write",),
    "readers may": ("commitments:read",),
    "only the operator may": ("operator",),
}
ASKS_FOR_MORE = {("POST", "/api/v1/agents/keys/rotate"): ("agents may", "readers may")}
"""Mistakes nobody can notice here: the handler asks those for a signature that they do not have."""


@pytest.mark.parametrize("mistake", WRONG)
async def test_a_wrong_annotation_is_caught_on_every_route(mistake: str) -> None:
    """Each route in turn is given another permission than it has; the first case that notices is enough."""
    async with matrix() as tried:
        for route, listener in ANNOTATIONS:
            right = route.needed
            assert right == NEEDED[route.method, route.path]
            if mistake in ASKS_FOR_MORE.get((route.method, route.path), ()):
                continue
            if set(right) == set(WRONG[mistake]) or set(right) < set(WRONG[mistake]):
                continue
            spelled, row = next(
                (spelled, row)
                for spelled, row in LISTENERS[listener].items()
                if _bare(spelled) == _bare(f"{route.method} {route.path}")
            )
            object.__setattr__(route, "needed", WRONG[mistake])
            try:
                noticed = False
                for case in tried.cases(listener, spelled, row):
                    noticed = noticed or await tried.trouble(case) is not None
                    if noticed:
                        break
                assert noticed, f"{mistake}: nothing noticed it on {route.method} {route.path}"
            finally:
                object.__setattr__(route, "needed", right)
