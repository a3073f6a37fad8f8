"""What this machine cannot exceed, measured in the same minutes as the service: signatures, durable rows, requests.

Three limits, each without anything of ours in the way. Signatures: libsodium through PyNaCl on the signing hashes
of real events, in processes of their own, with one core busy and with all. Rows: COPY of a real row's bytes into
a table like ves_events with all its indexes and checks, one connection, each COMMIT on the disk. Requests: the
same small POST to an ASGI application of ten lines in Hypercorn on Trio, by our load generator.

``python -m bench.limits`` is such a process, for signatures (``signatures SECONDS``) or requests (``echo``).
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    Scope,
)
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

from bench.playing import Play, run_plays
from bench.results import Limits
from bench.signing import write_file
from bench.stage import Stage
from tests.e2e.world import ROOT, Agent, signing_hash

HASHES = 64
"""Of as many events by as many agents: more than any cache of a key would hold."""
ECHO_CONNECTIONS = 16
ECHO_POST_BYTES = 970
"""About what one signed event is long."""
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = struct.pack(">h", -1)
_ROW = struct.Struct(">h")
_FIELD = struct.Struct(">i")


def measure(stage: Stage, into: Limits, seconds: float) -> None:
    """One round of all three, ``seconds`` each. The stage's server stands still meanwhile."""
    [alone] = _signatures(1, seconds)
    into.verify_us.append(alone["verify_us"])
    into.verify_us_median.append(alone["verify_us_median"])
    into.sign_us.append(alone["sign_us"])
    into.sign_us_median.append(alone["sign_us_median"])
    together = _signatures(len(os.sched_getaffinity(0)), seconds)
    into.verify_us_all_cores.append(statistics.mean(one["verify_us_median"] for one in together))
    into.sign_us_all_cores.append(statistics.mean(one["sign_us_median"] for one in together))
    into.copy_rows_per_s.append(asyncio.run(_copied_per_s(stage.owner_dsn, 1000, seconds)))
    into.copy_rows_per_s_100.append(asyncio.run(_copied_per_s(stage.owner_dsn, 100, seconds)))
    per_s, cpu_us = _echo(stage.folder, seconds)
    into.echo_per_s.append(per_s)
    into.echo_cpu_us.append(cpu_us)


# Signatures.


def _signatures(processes: int, seconds: float) -> list[dict[str, float]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.limits", "signatures", str(seconds)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        for _ in range(processes)
    ]
    return [json.loads(one.communicate(timeout=seconds + 60)[0]) for one in started]


def time_signatures(seconds: float) -> dict[str, float]:
    """Microseconds of one, least and median over many repeats of ``HASHES`` of each in turns."""
    agents = [Agent(uuid4(), uuid4()) for _ in range(HASHES)]
    hashes = [signing_hash(agent.event({"n": n}, agent_signature="")) for n, agent in enumerate(agents)]
    pairs = [crypto_sign_seed_keypair(agent.key.private_bytes_raw()) for agent in agents]
    signed = [crypto_sign(digest, secret) for digest, (_, secret) in zip(hashes, pairs, strict=True)]
    to_verify = [(text, public) for text, (public, _) in zip(signed, pairs, strict=True)]
    to_sign = [(digest, secret) for digest, (_, secret) in zip(hashes, pairs, strict=True)]
    verify, sign = [], []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        verify.append(_each_us(crypto_sign_open, to_verify))
        sign.append(_each_us(crypto_sign, to_sign))
    return {
        "verify_us": min(verify),
        "verify_us_median": statistics.median(verify),
        "sign_us": min(sign),
        "sign_us_median": statistics.median(sign),
    }


def _each_us(work: Callable[[bytes, bytes], object], arguments: list[tuple[bytes, bytes]]) -> float:
    began = time.perf_counter_ns()
    for one, other in arguments:
        work(one, other)
    return (time.perf_counter_ns() - began) / len(arguments) / 1000


# Rows.


async def _copied_per_s(dsn: str, rows_a_commit: int, seconds: float) -> float:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "DROP SCHEMA IF EXISTS bench_limits CASCADE; CREATE SCHEMA bench_limits;"
            "CREATE TABLE bench_limits.copied (LIKE record.ves_events INCLUDING ALL)"
        )
        names, fields = await _a_real_row(connection)
        copied, elapsed = 0, 0.0
        while elapsed < seconds:
            data = _rows(names, fields, range(copied + 1, copied + rows_a_commit + 1))
            began = time.perf_counter()
            await connection.copy_to_table(
                "copied", schema_name="bench_limits", columns=names, source=data, format="binary"
            )
            elapsed += time.perf_counter() - began
            copied += rows_a_commit
        stored = await connection.fetchval("SELECT count(*) FROM bench_limits.copied")
        if stored != copied:
            raise SystemExit(f"{copied} rows were copied, {stored} are there")
        return copied / elapsed
    finally:
        await connection.execute("DROP SCHEMA IF EXISTS bench_limits CASCADE")
        await connection.close()


async def _a_real_row(connection: asyncpg.Connection) -> tuple[list[str], list[bytes | None]]:
    """Columns of an event that the service stored, and their bytes as COPY has them."""
    told = io.BytesIO()
    # Not the first: pages of a new table differ from those of one that grows.
    await connection.copy_from_query(
        "SELECT * FROM record.ves_events ORDER BY sequence_number DESC LIMIT 1", output=told, format="binary"
    )
    columns = await connection.fetch(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = 'record.ves_events'::regclass"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    data, at = told.getvalue(), len(_COPY_HEADER)
    (count,) = _ROW.unpack_from(data, at)
    if count != len(columns):
        raise SystemExit("no event is stored yet: the limit of COPY is measured with a real one")
    at += _ROW.size
    fields: list[bytes | None] = []
    for _ in range(count):
        (length,) = _FIELD.unpack_from(data, at)
        at += _FIELD.size
        fields.append(None if length < 0 else data[at : at + length])
        at += max(0, length)
    return [str(column[0]) for column in columns], fields


def _rows(names: list[str], fields: list[bytes | None], numbers: range) -> io.BytesIO:
    """The row so many times, under numbers and ids of their own."""
    number_at, id_at, entity_at = (names.index(name) for name in ("sequence_number", "event_id", "entity_id"))
    own, data = list(fields), [_COPY_HEADER]
    for number in numbers:
        own[number_at] = struct.pack(">q", number)
        own[id_at] = os.urandom(16)
        own[entity_at] = b"o-" + os.urandom(6).hex().encode()
        data.append(_ROW.pack(len(own)))
        data += [_FIELD.pack(-1) if field is None else _FIELD.pack(len(field)) + field for field in own]
    data.append(_COPY_END)
    return io.BytesIO(b"".join(data))


# Requests.


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Reads the body and answers it: what any HTTP service of this kind has to pay."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, more = body + message["body"], message["more_body"]
    length = str(len(body)).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send(HTTPResponseStartEvent(type="http.response.start", status=200, headers=head))
    await send(HTTPResponseBodyEvent(type="http.response.body", body=body, more_body=False))


async def serve_echo() -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.keep_alive_max_requests = 1 << 30
    config.accesslog = config.errorlog = None
    async with trio.open_nursery() as nursery:
        without_lifespan = partial(serve, echo, config, mode="asgi")
        urls = await nursery.start(without_lifespan)
        print(urls[0], flush=True)


def _echo(folder: Path, seconds: float) -> tuple[float, float]:
    """(requests a second, processor microseconds of the server for each)."""
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.limits", "echo"], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        request = (
            b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        path = folder / "echo-requests"
        write_file(path, [request % ECHO_POST_BYTES + b"x" * ECHO_POST_BYTES])
        for turn_s in (min(0.5, seconds), seconds):  # the first warms it up
            play = Play([path], ECHO_CONNECTIONS, turn_s, repeat=True)
            [run] = run_plays(url, server.pid, [play])
        answered = run.told["answered"]
        return answered / run.told["seconds"], 1e6 * run.cpu_s["core"] / answered
    finally:
        server.terminate()
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()


def main(what: str, *arguments: str) -> None:
    if what == "signatures":
        print(json.dumps(time_signatures(float(arguments[0]))))
    elif what == "echo":
        with suppress(KeyboardInterrupt):
            trio.run(serve_echo)
    else:
        raise SystemExit(f"{what!r} is none of: signatures SECONDS, echo")


if __name__ == "__main__":
    main(*sys.argv[1:])
