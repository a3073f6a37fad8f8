"""An auditor at work in one process: the auditor's honest sequencer, which a test may turn into a liar."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.client.playing import PlayedSequencer
from transport.client.errors import Refused, Unanswered
from transport.client.follow_begin import begin
from transport.client.follow_memory import Finding, Memory
from transport.client.follow_view import Contradicted, Look, View
from transport.client.following import Follower
from transport.client.wire import Stream, TrustFile
from ves.encoding import hex_bytes, uuid_bytes
from ves.records import KeyName

Json = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.UTC)


class Watched:
    """Speaks as ``SequencerClient`` does, until it has answered ``answers_left`` times."""

    def __init__(self, name: str = "honest", answers_left: int = 10**9) -> None:
        self.origin = f"http://{name}"
        self.play = PlayedSequencer()
        self.play.page = 3
        self.honest = self.play.honest
        self.answers_left = answers_left
        self.gone: set[str] = set()
        """Ends of paths that are answered with 404."""
        self.agent_key = "0x" + self.honest.agent_key.public_key().public_bytes_raw().hex()
        for count in (4, 1, 3):
            self.grow(count)
        self.honest.post({"n": "not committed"})

    def grow(self, count: int) -> None:
        """So many events and a commitment over them, and over what waited."""
        for n in range(count):
            self.honest.post({"n": n})
        self.honest.commit()

    async def ask(self, method: str, path: str, *, query: Json | None = None) -> bytes:
        if self.answers_left == 0:
            raise Unanswered(1, "killed")
        self.answers_left -= 1
        if any(path.endswith(end) for end in self.gone):
            raise Refused(404, "RESOURCE_NOT_FOUND", "there is none", "")
        status, answer = self.play.answer(method, f"{path}?{urlencode(query or {})}", b"")
        assert status == 200, path
        return json.dumps(answer).encode()

    async def agent_keys(self, tenant_id: bytes, agent_id: bytes) -> dict[KeyName, bytes]:
        await self.ask("GET", "/health")
        assert agent_id == uuid_bytes(self.honest.agent_id)
        return {KeyName(tenant_id, agent_id, 1): hex_bytes(self.agent_key, 32)} if self.agent_key else {}

    @property
    def stream(self) -> Stream:
        return Stream(uuid_bytes(self.honest.tenant_id), uuid_bytes(self.honest.store_id))

    def forked_from(self, through: int, name: str = "other") -> Watched:
        """The same up to event ``through``; from there on another history, signed by the same sequencer."""
        other = Watched(name)
        other.honest.__dict__ |= copy.deepcopy(
            {k: v for k, v in self.honest.__dict__.items() if k not in ("agent_key", "sequencer_key")}
        )
        kept = [c for c in other.honest.commitments if c["sequence_end"] <= through]
        other.honest.commitments = kept
        other.honest.events = [e for e in other.honest.events if e["sequence_number"] <= through]
        other.honest.head = through
        return other


class Auditor:
    """With a state file; ``chance`` always says the lowest number unless it is told otherwise."""

    def __init__(self, folder: Path, watched: Watched, name: str = "state.json") -> None:
        self.path = folder / name
        self.watched = watched
        self.chance: Callable[[int], int] = lambda below: 0
        self.now = NOW

    async def looks(self, trust: TrustFile | None = None, **more: Any) -> Look:
        """One look, as after a start."""
        client: Any = self.watched
        memory = Memory.open(self.path, self.watched.stream, self.watched.origin)
        if memory is None:
            memory = await begin(self.path, client, self.watched.stream, trust, self.now.isoformat())
        try:
            view = View(client, memory, now=lambda: self.now, chance=self.chance)
            return await Follower(view, **more).look()
        finally:
            memory.close()

    async def finds(self, **more: Any) -> Finding:
        """The contradiction that a look ends with, as it is on record."""
        with pytest.raises(Contradicted) as lie:
            await self.looks(**more)
        [*_, kept] = self.remembers().state.open_findings()
        assert (kept.kind, kept.text) == (lie.value.finding.kind, lie.value.finding.text)
        return kept

    def remembers(self) -> Memory:
        memory = Memory.open(self.path, self.watched.stream, self.watched.origin)
        assert memory is not None
        memory.close()
        return memory
