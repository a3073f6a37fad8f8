"""No secret and no payload where it does not belong: files, logs, arguments, environments."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.e2e.world import Server, Tenant


def spellings(secret: bytes) -> dict[str, bytes]:
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret).rstrip(b"="),
        "base64url": base64.urlsafe_b64encode(secret).rstrip(b"="),
        "text in base64": base64.b64encode(secret.hex().encode()).rstrip(b"="),
    }


def found(needles: dict[str, bytes], haystack: bytes) -> set[str]:
    return {
        f"{name} ({how})"
        for name, raw in needles.items()
        for how, n in spellings(raw).items()
        if n in haystack
    }


def files_below(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def what_processes_show(server: Server) -> bytes:
    shown = b""
    for pid in [server.pid, *(pid for pid, _ in server.children())]:
        for part in ("cmdline", "environ"):
            shown += Path(f"/proc/{pid}/{part}").read_bytes()
    return shown


def test_secrets_and_payloads_stay_where_they_belong(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(LOG_LEVEL="debug").start()
    server.wait_ready()
    tenant = Tenant(server)
    canary = "canary-" + secrets.token_urlsafe(24)
    event = tenant.agent.event({"card": canary, "n": 1})
    assert tenant.post(event).json()["eventsAccepted"] == 1
    # Ways to make it say too much: conflicts, bad bodies, bad keys, refused queries.
    tenant.post(tenant.agent.event({"card": canary, "n": 2}, event_id=event["event_id"]))
    tenant.post_raw(tenant.agent.body([event]) + canary.encode())
    tenant.post_raw(tenant.agent.body([tenant.agent.event({"card": canary}) | {"payload_kind": canary}]))
    wrong_key = "ss_" + canary
    httpx.get(server.url + "/api/v1/ves/head", params=tenant.stream, headers={"x-api-key": wrong_key})
    httpx.get(server.url + f"/nope/{canary}", headers={"authorization": f"Bearer {canary}"})
    assert tenant.events()["events"][0]["payload"]["card"] == canary
    tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)

    keys = server.data_dir / "keys"
    outside = {"payload": canary.encode(), "tenant key": tenant.api_key.encode()}
    for name in ("bootstrap-admin-api-key", "receipt-signing-seed", "payload-encryption-keys"):
        text = (keys / name).read_text().strip()
        outside[name] = bytes.fromhex(text) if name != "bootstrap-admin-api-key" else text.encode()
    shown = what_processes_show(server)
    assert server.terminate() == 0

    # The scan itself can see: a leak on purpose is found in each spelling.
    leak = tmp_path / "leak"
    leak.write_bytes(b"x" + b"|".join(spellings(outside["payload"]).values()) + b"y")
    assert len(found({"payload": outside["payload"]}, leak.read_bytes())) == 6

    looked_at = 0
    for path in [*files_below(server.data_dir), server.log]:
        if keys in path.parents:
            assert path.stat().st_mode & 0o077 == 0, f"{path} is readable by others"
            continue
        leaks = found(outside, path.read_bytes())
        assert not leaks, f"{path}: {leaks}"
        looked_at += 1
    assert looked_at > 100
    assert any("postgresql-" in path.name for path in files_below(server.data_dir)), (
        "no PostgreSQL log was read"
    )
    assert not found(outside, shown)
