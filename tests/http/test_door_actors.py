"""The operator's routes: what they show, what they refuse, and that each act is audited before it is done."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from actors.letters import Letter
from actors.mailbox import Ref
from actors.messages import FindKeys
from tests.http.doubles import BOOTSTRAP, TENANT, Cardboard, serving
from tests.http.living import CANARY, LivingHouse
from tests.http.test_door_refusals import check_shape

ACTORS = "/api/v1/admin/actors"
DEAD = f"{ACTORS}/dead-letters"
WHY = "a drill"


@asynccontextmanager
async def living(**settings: Any) -> AsyncIterator[tuple[Cardboard, LivingHouse, httpx.AsyncClient]]:
    """A served house with a real, living tree, and an operator's client."""
    lives = LivingHouse()
    async with serving(root=lives.root, **settings) as house, trio.open_nursery() as nursery:
        await nursery.start(lives.root.run)
        async with house.client(BOOTSTRAP, admin=True) as operator:
            yield house, lives, operator
        lives.root.stop()


async def act(client: httpx.AsyncClient, action: str, path: str, **more: Any) -> httpx.Response:
    return await client.post(f"{ACTORS}/{action}", json={"path": path, "reason": WHY, **more})


def acts(house: Cardboard) -> list[tuple[str, str]]:
    """Audit entries beside the uses of the credential."""
    return [(e.action, e.subject) for e in house.journal.audits if e.action != "credential.use"]


# Looking.


async def test_the_tree_is_shown_with_how_the_node_is() -> None:
    async with living() as (house, lives, operator):
        house.house.lag.beat(0.25)
        house.readiness.wait_for("operator", "suspended: house/keys")
        assert await Ref(lives.keys).ask(FindKeys([]), deadline_s=5) == {}
        seen = (await operator.get(ACTORS)).json()
        assert [child["name"] for child in seen["tree"]["children"]] == ["keys", "watch", "tenants"]
        keys = seen["tree"]["children"][0]
        assert (keys["path"], keys["state"], keys["incarnation"]) == ("house/keys", "running", 1)
        assert keys["mailbox"]["handled"] == keys["handled"] == 1
        assert seen["waiting_for"] == {"operator": "suspended: house/keys"}
        assert (seen["lag_peak_s"], seen["dead_letters_total"], seen["tenants"]) == (0.25, 0, [])
        assert house.house.lag.take_peak() == 0.25, "looking took the peak from the metrics"


async def test_tenants_are_paged_by_name_and_found_by_activity() -> None:
    async with living() as (_, lives, operator):
        for number in range(7):
            for _ in range(number):
                await lives.tenants.ref(f"t{number}").ask(FindKeys([]), deadline_s=5)
        page = (await operator.get(ACTORS, params={"path": "house/tenants", "children": 4})).json()["tree"]
        assert [child["name"] for child in page["children"]] == ["t1", "t2", "t3", "t4"]
        assert page["children_total"] == 6
        rest = await operator.get(ACTORS, params={"path": "house/tenants", "children": 4, "after": "t4"})
        assert [child["name"] for child in rest.json()["tree"]["children"]] == ["t5", "t6"]
        none = (await operator.get(ACTORS, params={"children": 0, "tenants": 2, "order": "handled"})).json()
        assert none["tree"]["children"][2]["children"] == []
        assert [one["name"] for one in none["tenants"]] == ["t6", "t5"]
        busiest = await operator.get(f"{ACTORS}/tenants", params={"order": "handled", "limit": 3})
        assert [one["handled"] for one in busiest.json()["tenants"]] == [6, 5, 4]


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        (ACTORS, {"children": "1001"}, "children"),
        (ACTORS, {"children": "-1"}, "children"),
        (ACTORS, {"path": ""}, "path"),
        (ACTORS, {"order": "size"}, "order"),
        (f"{ACTORS}/tenants", {"order": "name"}, "order"),
        (f"{ACTORS}/tenants", {"limit": "0"}, "limit"),
        (DEAD, {"after": "0"}, "after"),
        (DEAD, {"limit": "1001"}, "limit"),
        (f"{DEAD}/none", {}, "id"),
    ],
)
async def test_a_wrong_parameter_is_named(path: str, query: dict[str, str], named: str) -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin=True) as operator:
        assert (
            named
            in check_shape(await operator.get(path, params=query), 400, "INVALID_FIELD_VALUE")["message"]
        )


# Acting.


async def test_a_kill_ends_the_life_and_shows_the_next_one() -> None:
    async with living() as (house, _, operator):
        done = (await act(operator, "kill", "house/keys")).json()
        assert done["ended"] == {"incarnation": 1, "how": "killed", "why": WHY}
        assert (done["path"], done["action"]) == ("house/keys", "kill")
        await until_state(operator, "house/keys", "running", incarnation=2)
        assert acts(house) == [("actor.kill", "house/keys")]


async def until_state(client: httpx.AsyncClient, path: str, state: str, *, incarnation: int) -> None:
    with trio.fail_after(5):
        while True:
            seen = (await client.get(ACTORS, params={"path": path})).json()["tree"]
            if (seen["state"], seen["incarnation"]) == (state, incarnation):
                return
            await trio.sleep(0.01)


async def test_a_drained_actor_is_revived_by_restart_and_a_suspended_one_resumed() -> None:
    async with living() as (house, lives, operator):
        assert (await act(operator, "drain", "house/keys")).json()["state"] == "drained"
        check_shape(await act(operator, "kill", "house/keys"), 409, "CONFLICT")
        assert (await act(operator, "restart", "house/keys")).status_code == 200
        await until_state(operator, "house/keys", "running", incarnation=2)
        assert (await act(operator, "suspend", "house/keys")).json()["state"] == "suspended"
        assert (await act(operator, "resume", "house/keys")).json()["state"] == "running"
        assert await Ref(lives.keys).ask(FindKeys([]), deadline_s=5) == {}
        wanted = ["drain", "kill", "restart", "suspend", "resume"]
        assert acts(house) == [(f"actor.{action}", "house/keys") for action in wanted]


async def test_the_audit_entry_is_there_before_the_act_and_says_who_asked_why() -> None:
    async with serving() as house:
        seen: list[list[str]] = []

        async def cut_short(*_: object, **__: object) -> None:
            seen.append([entry.action for entry in house.journal.audits])
            raise AssertionError("the house fell")

        house.house.overseer.act = cut_short  # type: ignore[method-assign]
        async with house.client(BOOTSTRAP, admin=True) as operator:
            answer = await act(operator, "kill", f"root/sequencers/{TENANT}")
        check_shape(answer, 500, "INTERNAL_ERROR")
        assert seen == [["credential.use", "actor.kill"]]
        entry = house.journal.audits[1]
        assert (entry.actor, entry.subject) == ("bootstrap", f"root/sequencers/{TENANT}")
        assert entry.details["reason"] == WHY
        assert entry.details["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("action", ["kill", "restart", "drain", "suspend", "resume"])
async def test_nobody_of_that_path_is_404_and_the_whole_house_409(action: str) -> None:
    async with living() as (house, _, operator):
        for path in ("house/nobody", "house/tenants/nobody", "elsewhere/keys", "keys", "house/keys/x", "/"):
            error = check_shape(await act(operator, action, path), 404, "RESOURCE_NOT_FOUND")
            assert error["message"].startswith("path: ")
        check_shape(await act(operator, action, "house"), 409, "CONFLICT")
        assert acts(house) == []


async def test_what_takes_no_letters_cannot_be_suspended() -> None:
    async with living() as (_, __, operator):
        check_shape(await act(operator, "suspend", "house/watch"), 409, "CONFLICT")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"path": "house/keys"}, "reason"),
        ({"reason": WHY}, "path"),
        ({"path": "house/keys", "reason": ""}, "reason"),
        ({"path": "house/keys", "reason": "x" * 201}, "reason"),
        ({"path": "house/keys", "reason": "a\nb"}, "reason"),
        ({"path": "x" * 301, "reason": WHY}, "path"),
        ({"path": 7, "reason": WHY}, "path"),
    ],
)
async def test_an_act_without_a_usable_path_or_reason_is_refused_by_name(
    body: dict[str, Any], named: str
) -> None:
    async with living() as (house, _, operator):
        answer = await operator.post(f"{ACTORS}/kill", json=body)
        assert named in check_shape(answer, 422, answer.headers["x-error-code"])["message"]
        assert acts(house) == []


async def test_who_may_not_act_is_told_so_before_anything_is_read() -> None:
    async with living() as (house, _, __):
        for key in (None, house.api_key("read", "write", "admin")):
            async with house.client(key, admin=True) as client:
                answer = await client.post(f"{ACTORS}/kill", content=b"{")
                assert answer.status_code == (401 if key is None else 403), answer.text
        async with house.client(BOOTSTRAP) as public:
            check_shape(await public.get(ACTORS), 404, "RESOURCE_NOT_FOUND")
        assert house.journal.audits == []


# Dead letters.


async def test_a_dead_letter_is_listed_shown_and_resent_but_its_content_never_shown() -> None:
    async with living() as (house, lives, operator):
        await lives.bury_one()
        listed = await operator.get(DEAD)
        shown = await operator.get(f"{DEAD}/1")
        assert listed.json()["dead_letters"] == [shown.json()]
        assert (shown.json()["message"], shown.json()["mailbox"]) == ("FindKeys", "keys")
        for answer in (listed, shown, await operator.get(ACTORS), await operator.get("/health/detailed")):
            for spelled in (CANARY[:16], CANARY[:16].hex().encode(), b"CANARY"):
                assert spelled not in answer.content
        lives.cure()
        again = await operator.post(f"{DEAD}/1/resend")
        assert again.json() == {"id": 1, "answered": True, "why": None}
        check_shape(await operator.get(f"{DEAD}/1"), 404, "RESOURCE_NOT_FOUND")
        assert acts(house) == [("dead_letter.resend", "dead-letter/1")]


async def test_a_resend_that_is_not_answered_leaves_the_letter_dead() -> None:
    async with living() as (_, lives, operator):
        await lives.bury_one()
        again = (await operator.post(f"{DEAD}/1/resend")).json()
        assert not again["answered"]
        assert "Poisoned" in again["why"]
        assert len((await operator.get(DEAD)).json()["dead_letters"]) == 1


async def test_dead_letters_are_paged_newest_first_and_dropped_for_good() -> None:
    async with living() as (house, lives, operator):
        office = lives.root.dead_letters
        for _ in range(5):
            office.bury(Ref(lives.keys), Letter(FindKeys([])), "a test")
        first = (await operator.get(DEAD, params={"limit": 2})).json()
        assert [one["id"] for one in first["dead_letters"]] == [5, 4]
        assert (first["has_more"], first["next_after"]) == (True, 4)
        last = (await operator.get(DEAD, params={"limit": 9, "after": 4})).json()
        assert [one["id"] for one in last["dead_letters"]] == [3, 2, 1]
        assert (last["has_more"], last["next_after"]) == (False, None)
        assert (await operator.delete(f"{DEAD}/3")).json()["id"] == 3
        check_shape(await operator.delete(f"{DEAD}/3"), 404, "RESOURCE_NOT_FOUND")
        assert acts(house) == [("dead_letter.drop", "dead-letter/3")]


# While the database is away.


async def test_without_the_database_operators_look_and_act_and_the_entries_wait() -> None:
    async with living() as (house, _, operator):
        house.journal.away = True
        assert (await operator.get(ACTORS)).status_code == 200
        assert (await act(operator, "kill", "house/keys")).status_code == 200
        seen = (await operator.get(ACTORS)).json()
        assert seen["audit_bytes_spooled"] == house.house.audit_spool.bytes_waiting > 0
        spool = house.folder / "audit-spool.jsonl"
        assert stat.S_IMODE(spool.stat().st_mode) == 0o600
        assert house.journal.audits == []
        house.journal.away = False
        await house.house.audit_spool.empty()
        uses = ["credential.use"]
        assert [e.action for e in house.journal.audits] == [*uses, *uses, "actor.kill", *uses]
        assert all("spooled_at" in entry.details for entry in house.journal.audits)
        assert len({entry.details["audit_id"] for entry in house.journal.audits}) == 4
        assert (await operator.get(ACTORS)).json()["audit_bytes_spooled"] == 0
        assert "spooled_at" not in house.journal.audits[-1].details


async def test_a_database_known_to_be_away_is_not_waited_for() -> None:
    async with living() as (house, _, operator):

        async def never(entry: object) -> None:
            raise AssertionError("the journal was asked")

        house.journal.audit = never  # type: ignore[method-assign]
        house.readiness.wait_for("database", "does not answer")
        assert (await act(operator, "kill", "house/keys")).status_code == 200


async def test_only_the_actors_routes_work_without_the_database() -> None:
    async with living() as (house, _, operator):
        house.journal.away = True
        for path in ("/api/v1/admin/api-keys", "/metrics", "/health/detailed"):
            check_shape(await operator.get(path), 503, "SERVICE_UNAVAILABLE")
        assert not (house.folder / "audit-spool.jsonl").exists()


async def test_an_act_whose_entry_can_be_kept_nowhere_is_not_done() -> None:
    async with living() as (house, lives, operator):
        house.journal.away = True
        (house.folder / "audit-spool.jsonl").mkdir()
        answer = await act(operator, "kill", "house/keys")
        check_shape(answer, 503, "SERVICE_UNAVAILABLE")
        assert lives.root.look("house/keys").tree.incarnation == 1
