"""In a house at work nobody but one object holds the receipt seed and the at-rest ring: the heap is searched.

The search knows only the first bytes of each spelling of a secret, so it cannot find itself. It walks over
every object that Python knows of, what suspended actors have in their local variables included.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from actors.messages import Seal
from config.own_keys import OwnKeys, ReceiptSeeds
from config.secret_sources import forget
from config.secrets import Formats, Secrets, load_secrets, prepare_data_dir
from config.settings import Settings
from journal.memory import MemoryDatabase, MemoryJournal
from supervisor.receipt_keys import claim
from supervisor.tree import Built, build
from tests.keyholder import public_key_of
from ves.at_rest import key_id, parse_key

NEEDLE_BYTES = 11
ANCHOR = "SEQUENCER_PRIVATE_KEY"


def needles(secret: bytes) -> set[bytes]:
    text = secret.hex()
    spelled = [secret, text.encode(), text.upper().encode(), base64.b64encode(secret)]
    spelled += [base64.urlsafe_b64encode(secret), base64.b64encode(text.encode())]
    return {bytes(one[:NEEDLE_BYTES]) for one in spelled}


def everything() -> Iterator[tuple[object, list[object]]]:
    """Every object that refers to others, with what it refers to."""
    seen: set[int] = set()
    waiting: list[object] = [one for one in gc.get_objects() if one is not seen]
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or holder is waiting or isinstance(holder, str | bytes | int | float | type):
            continue
        seen.add(id(holder))
        held = gc.get_referents(holder)
        yield holder, held
        waiting += held


def leaks(wanted: set[bytes]) -> list[object]:
    """Everybody, beside the one holder, who has a secret, or the very object in which the holder has it."""
    gc.collect()
    judged: dict[int, bool] = {}

    def has(atom: object) -> bool:
        if not isinstance(atom, str | bytes | bytearray) or len(atom) <= NEEDLE_BYTES:
            return False
        if id(atom) not in judged:
            raw = atom.encode("utf-8", "replace") if isinstance(atom, str) else bytes(atom)
            judged[id(atom)] = any(needle in raw for needle in wanted)
        return judged[id(atom)]

    holders = [one for one in gc.get_objects() if isinstance(one, OwnKeys | ReceiptSeeds)]
    rooms = [
        held for holder in holders for held in gc.get_referents(holder) if isinstance(held, tuple | dict)
    ]
    rooms += [ring for held in rooms for ring in gc.get_referents(held) if isinstance(ring, tuple)]
    inner = {id(held) for held in rooms if any(map(has, gc.get_referents(held)))}
    inner |= {id(held) for held in rooms if any(id(one) in inner for one in gc.get_referents(held))}
    assert inner, "the holders hold nothing: the search looks in the wrong place"
    mine = {id(holders), id(wanted), id(rooms)}
    return [
        holder
        for holder, held in everything()
        if not isinstance(holder, OwnKeys | ReceiptSeeds)
        and id(holder) not in inner | mine
        and any(id(one) in inner or has(one) for one in held)
    ]


def needles_of(secrets: Secrets) -> set[bytes]:
    seeds = secrets.keys.receipt_seeds
    wanted = set[bytes]()
    rings = [secrets.keys.at_rest_ring(), *(ring for _, ring in secrets.keys.at_rest_rings_by_tenant())]
    for secret in (seeds.seed(seeds.public_keys()[0]), *(key for ring in rings for key in ring)):
        wanted |= needles(secret)
    return wanted


@asynccontextmanager
async def a_house(settings: Settings, secrets: Secrets) -> AsyncIterator[Built]:
    journal = MemoryJournal(MemoryDatabase(now_us=lambda: 1), node_id=secrets.sequencer_id)
    claimed = await claim(journal, secrets.sequencer_id, secrets.keys.receipt_seeds)
    built = build(settings, secrets, journal, receipt_key=claimed.key)
    async with trio.open_nursery() as nursery:
        await nursery.start(built.root.run)
        yield built
        built.root.stop()


@pytest.mark.parametrize("given", [False, True], ids=["made by us", "given by the operator"])
async def test_no_object_but_one_holds_a_key_while_encryptors_work(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    ran = tmp_path / "ran"
    monkeypatch.setenv(f"{ANCHOR}_COMMAND", f"touch {ran}")
    if given:
        monkeypatch.setenv("VES_SEQUENCER_SIGNING_KEY", os.urandom(32).hex())
        monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS", os.urandom(32).hex())
        own = {str(uuid.uuid4()): [os.urandom(32).hex(), os.urandom(32).hex()] for _ in range(2)}
        monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS_BY_TENANT", json.dumps(own))
        del own
        monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY", "ss_" + os.urandom(24).hex())
    prepare_data_dir(tmp_path / "data")
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", encryptors=1, verifiers=1)
    forget(Settings.secret_names(), os.environ)
    bootstrap = settings.bootstrap_admin_api_key
    secrets = load_secrets(settings, settings.data_dir, Formats(parse_key, key_id, public_key_of))
    wanted = needles_of(secrets)
    if bootstrap is None:
        text = (settings.data_dir / "keys/bootstrap-admin-api-key").read_text().strip()
    else:
        text = bootstrap.get_secret_value()
    wanted |= needles(text.encode())
    settings = settings.without_secrets()
    del text, bootstrap
    async with a_house(settings, secrets) as built:
        sealed = await built.house.encryptors.ask(Seal(uuid.uuid4().bytes, []), deadline_s=10)
        assert sealed.sequencer_key_version == 1
        # The search can see: a key that somebody keeps is found, as the object it is and spelled otherwise.
        seeds = secrets.keys.receipt_seeds
        as_it_is = [secrets.keys.at_rest_ring()]
        spelled = [[seeds.seed(seeds.public_keys()[0]).hex()]]
        found = leaks(wanted)
        assert any(one is as_it_is for one in found)
        assert any(one is spelled[0] for one in found)
        assert [one for one in found if one is not as_it_is and one is not spelled[0]] == []
    assert not ran.exists(), "nobody in this version asks for the anchoring account's key"
