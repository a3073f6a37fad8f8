"""What the journal promises about tenants' policies: schemas, their statuses, entity types, the mode."""

from __future__ import annotations

import msgspec
import pytest
import trio
from journal_builders import AUDIT, a_schema, uuid
from journal_worlds import PostgresWorld, World, sql

from journal.port import (
    SCHEMA_BYTES_ACTIVE_MAX,
    EventSchema,
    JournalAway,
    JournalOutcomeUnknown,
    Moved,
    SchemaLimit,
    TenantPolicy,
)
from ves.policy import SchemaName


async def created(world: World, schema: EventSchema) -> EventSchema:
    stamp = (await world.journal.read_policy(schema.tenant_id)).stamp
    made = await world.journal.create_schema(schema, believed_stamp=stamp, audit=AUDIT)
    assert isinstance(made, EventSchema)
    return made


async def test_a_tenant_that_never_demanded_anything_has_stamp_0(world: World) -> None:
    assert await world.journal.read_policy(uuid()) == TenantPolicy(0, None, None, ())


async def test_versions_count_from_1_per_event_type_and_are_never_given_again(world: World) -> None:
    tenant = uuid()
    first, second = await created(world, a_schema(tenant)), await created(world, a_schema(tenant))
    other = await created(world, a_schema(tenant, "order.paid"))
    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert (first.status, first.created_at_us > 0, first.updated_at_us >= first.created_at_us) == (
        "active",
        True,
        True,
    )
    await world.other.set_schema_status(second.id, tenant_id=tenant, status="archived", audit=AUDIT)
    assert (await created(world, a_schema(tenant))).version == 3


async def test_the_newest_active_version_is_the_one_demanded(world: World) -> None:
    tenant = uuid()
    first, second = await created(world, a_schema(tenant)), await created(world, a_schema(tenant))
    policy = await world.other.read_policy(tenant)
    assert policy.schemas == (SchemaName("order.created", second.id, 2),)
    found = await world.other.find_schema_version(tenant, "order.created", version=None)
    assert found is not None
    assert found.id == second.id
    for status in ("deprecated", "archived"):
        await world.journal.set_schema_status(second.id, tenant_id=None, status=status, audit=AUDIT)
        after = await world.other.read_policy(tenant)
        assert after.schemas == (SchemaName("order.created", first.id, 1),)
        assert after.stamp > policy.stamp
    again = await world.other.find_schema_version(tenant, "order.created", version=2)
    assert again is not None
    assert again.status == "archived"
    assert await world.other.find_schema_version(tenant, "order.created", version=9) is None
    assert await world.other.find_schema_version(tenant, "nothing", version=None) is None


async def test_a_schema_of_another_tenant_is_not_there(world: World) -> None:
    tenant = uuid()
    schema = await created(world, a_schema(tenant))
    assert await world.journal.find_schema(schema.id, tenant_id=uuid()) is None
    assert await world.journal.find_schema(schema.id, tenant_id=tenant) == schema
    assert await world.journal.find_schema(schema.id, tenant_id=None) == schema
    assert (
        await world.journal.set_schema_status(schema.id, tenant_id=uuid(), status="archived", audit=AUDIT)
        is None
    )
    assert (
        await world.journal.set_schema_status(uuid(), tenant_id=None, status="archived", audit=AUDIT) is None
    )
    assert await world.journal.find_schema(schema.id, tenant_id=tenant) == schema


async def test_schemas_are_listed_by_event_type_newest_first_in_pages(world: World) -> None:
    tenant = uuid()
    schemas = [await created(world, a_schema(tenant, name)) for name in ("b", "a", "b", "B", "a")]
    names = [(s.event_type, s.version) for s in schemas]
    everything: list[EventSchema] = []
    while page := await world.other.list_schemas(
        tenant, event_type=None, after=everything[-1].id if everything else None, limit=2
    ):
        everything += page
    assert [(s.event_type, s.version) for s in everything] == [
        ("B", 1),
        ("a", 2),
        ("a", 1),
        ("b", 2),
        ("b", 1),
    ]
    assert sorted(names) == sorted((s.event_type, s.version) for s in everything)
    only = await world.other.list_schemas(tenant, event_type="a", after=None, limit=9)
    assert [s.version for s in only] == [2, 1]
    assert await world.other.list_schemas(uuid(), event_type=None, after=None, limit=9) == []
    assert await world.other.list_schemas(uuid(), event_type=None, after=schemas[0].id, limit=9) == []
    texts = await world.other.read_schema_texts([schemas[0].id, uuid()])
    assert texts == {schemas[0].id: "{}"}


async def test_a_schema_that_was_compared_with_something_older_is_not_created(world: World) -> None:
    tenant = uuid()
    await created(world, a_schema(tenant))
    late = a_schema(tenant)
    assert isinstance(await world.other.create_schema(late, believed_stamp=0, audit=AUDIT), Moved)
    assert await world.other.find_schema(late.id, tenant_id=None) is None


async def test_two_that_register_at_once_do_not_both_get_the_version(world: World) -> None:
    tenant, answers = uuid(), []

    async def create(node: World) -> None:
        answers.append(await node.create_schema(a_schema(tenant), believed_stamp=0, audit=AUDIT))  # type: ignore[attr-defined]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, world.journal)
        nursery.start_soon(create, world.other)
    assert sorted(type(answer).__name__ for answer in answers) == ["EventSchema", "Moved"]


async def test_active_schemas_of_a_tenant_have_a_limit_together(world: World) -> None:
    tenant, text = uuid(), '"' + "x" * 102_398 + '"'
    last = None
    for n in range(SCHEMA_BYTES_ACTIVE_MAX // len(text)):
        last = await created(world, a_schema(tenant, f"type {n}", text))
    assert last is not None
    stamp = (await world.journal.read_policy(tenant)).stamp
    over = await world.journal.create_schema(
        a_schema(tenant, "more", text), believed_stamp=stamp, audit=AUDIT
    )
    assert isinstance(over, SchemaLimit)
    assert (await world.journal.read_policy(tenant)).stamp == stamp
    await world.journal.set_schema_status(last.id, tenant_id=tenant, status="archived", audit=AUDIT)
    await created(world, a_schema(tenant, "more", text))
    back = await world.journal.set_schema_status(last.id, tenant_id=tenant, status="active", audit=AUDIT)
    assert isinstance(back, SchemaLimit)


async def test_a_policy_is_its_newest_row(world: World) -> None:
    tenant = uuid()
    first = await world.journal.set_policy(tenant, entity_types=("a", "b"), schema_mode=None, audit=AUDIT)
    assert await world.other.read_policy(tenant) == first
    second = await world.other.set_policy(tenant, entity_types=None, schema_mode="required", audit=AUDIT)
    assert (first.entity_types, first.schema_mode) == (("a", "b"), None)
    assert (second.entity_types, second.schema_mode) == (None, "required")
    assert second.stamp > first.stamp
    assert await world.journal.read_policy(tenant) == second
    empty = await world.journal.set_policy(tenant, entity_types=(), schema_mode=None, audit=AUDIT)
    assert empty.entity_types == ()


async def test_no_change_is_missed_by_those_who_ask_with_the_cursor(own_world: World) -> None:
    cursor = (await own_world.other.policy_changes_since(None)).cursor
    tenants = [uuid() for _ in range(3)]
    schema = await created(own_world, a_schema(tenants[0]))
    await own_world.journal.set_policy(tenants[1], entity_types=None, schema_mode="warn", audit=AUDIT)
    news = await own_world.other.policy_changes_since(cursor)
    assert news.tenant_ids == tenants[:2]
    await own_world.journal.set_schema_status(schema.id, tenant_id=None, status="deprecated", audit=AUDIT)
    later = await own_world.other.policy_changes_since(news.cursor)
    assert later.tenant_ids == tenants[:1]
    # The same status again is no change.
    await own_world.journal.set_schema_status(schema.id, tenant_id=None, status="deprecated", audit=AUDIT)
    assert (await own_world.other.policy_changes_since(later.cursor)).tenant_ids == []


@pytest.mark.parametrize("done", [True, False])
async def test_a_registration_of_unknown_outcome_is_there_or_not(world: World, done: bool) -> None:
    schema = a_schema(uuid())
    world.fail_next("create_schema", "unheard" if done else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.create_schema(schema, believed_stamp=0, audit=AUDIT)
    found = await world.other.find_schema(schema.id, tenant_id=None)
    assert (found is not None) is done


async def test_without_a_database_nothing_is_registered(world: World) -> None:
    schema = a_schema(uuid())
    world.fail_next("create_schema", "away")
    with pytest.raises(JournalAway):
        await world.journal.create_schema(schema, believed_stamp=0, audit=AUDIT)
    assert await world.other.find_schema(schema.id, tenant_id=None) is None


async def test_every_change_is_audited_in_its_own_transaction(postgres: PostgresWorld) -> None:
    tenant = uuid()
    entry = msgspec.structs.replace(AUDIT, tenant_id=tenant)
    stamp = 0
    schema = await postgres.journal.create_schema(a_schema(tenant), believed_stamp=stamp, audit=entry)
    assert isinstance(schema, EventSchema)
    await postgres.journal.create_schema(a_schema(tenant), believed_stamp=stamp, audit=entry)  # Moved
    await postgres.journal.set_schema_status(schema.id, tenant_id=tenant, status="archived", audit=entry)
    await postgres.journal.set_schema_status(schema.id, tenant_id=tenant, status="archived", audit=entry)
    await postgres.journal.set_policy(tenant, entity_types=None, schema_mode=None, audit=entry)
    [[entries]] = await sql(
        postgres.owner_dsn, f"SELECT count(*) FROM record.audit_log WHERE tenant_id = '{tenant.hex()}'"
    )
    assert entries == 3


async def test_a_pin_counts_like_every_change_and_is_lifted_by_naming_no_region(world: World) -> None:
    tenant = uuid()
    policy = await world.journal.set_policy(tenant, entity_types=("order",), schema_mode=None, audit=AUDIT)
    cursor = (await world.other.policy_changes_since(None)).cursor
    pinned = await world.journal.set_regions(tenant, regions=("eu-west-1", "eu-central-1"), audit=AUDIT)
    assert pinned == msgspec.structs.replace(
        policy, stamp=pinned.stamp, regions=("eu-west-1", "eu-central-1")
    )
    assert pinned.stamp > policy.stamp
    assert await world.other.read_policy(tenant) == pinned
    assert tenant in (await world.other.policy_changes_since(cursor)).tenant_ids
    again = await world.other.set_policy(tenant, entity_types=None, schema_mode=None, audit=AUDIT)
    assert again.regions == pinned.regions
    assert (await world.journal.set_regions(tenant, regions=(), audit=AUDIT)).regions == ()
    assert (await world.other.read_policy(tenant)).regions == ()


async def test_pinned_tenants_are_listed_in_pages_and_free_ones_are_not(world: World) -> None:
    tenants = sorted(uuid() for _ in range(4))
    for tenant in tenants:
        await world.journal.set_regions(tenant, regions=("us-east-1",), audit=AUDIT)
    await world.journal.set_regions(tenants[1], regions=(), audit=AUDIT)
    found: list[bytes] = []
    after = None
    while page := await world.other.list_pinned(after=after, limit=2):
        assert len(page) <= 2
        found += [one.tenant_id for one in page]
        after = page[-1].tenant_id
    assert [one for one in found if one in tenants] == [tenants[0], tenants[2], tenants[3]]
    assert found == sorted(found)
