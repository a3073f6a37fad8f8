"""The attacks: each walks over every route the server tells of, and makes requests that must be refused.

What an attacker has: the documents, an account of his own with every permission a tenant can have, and what
he may have overheard of a victim (ids, one signed event, the hash of a key). No attack knows a route by name
but to say what is *not* one (``EXCUSED``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.probe import texts
from tests.probe.prober import Prober
from tests.probe.routes import Ask, Field, Route, well_formed

Json = dict[str, Any]


@dataclass(frozen=True)
class Party:
    """A tenant with one stream, a committed event, keys; ``known``: its ids by the names routes give them."""

    admin_key: str
    reader_key: str
    revoked_key: str
    known: Json


@dataclass(frozen=True)
class Scene:
    prober: Prober
    routes: list[Route]
    victim: Party
    attacker: Party
    token_public_key: bytes | None = None
    """Of the identity provider whose tokens the server believes; public, so the attacker has it."""

    def asks(self, whose: Party, *, only_secured: bool = True) -> Iterator[Ask]:
        for route in self.routes:
            if route.is_public and only_secured:
                continue
            yield well_formed(route, whose.known)


EXCUSED: dict[str, str] = {
    "POST /api/v1/ves/proofs/verify": "computes with what it is given and looks nothing up",
    "GET /api/v1/anchor/status": "tells of the chain and of no tenant",
    "POST /api/v1/proofs/verify": "computes with what it is given and looks nothing up",
    "GET /openapi.json": "public",
}
"""Routes that rightly answer an attacker's well-formed request about a victim, and why."""

INGEST = "POST /api/v1/ves/events/ingest"
FORGED_ALL = {INGEST, "GET /api/v1/ves/events", "GET /api/v1/admin/api-keys"}
"""One that writes, one that reads, one of the other listener: each is tried with every forged token …"""
FORGED_EVERY = 5
"""… and the others with every fifth."""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}" if not key.startswith("ss_") else f"ApiKey {key}"}


# Authentication.


def without_a_credential(scene: Scene) -> None:
    """No credential, half of one, another's hash, a revoked one, the right one in the wrong place."""
    key = scene.victim.admin_key
    hashed = hashlib.sha256(key.encode()).hexdigest()
    for ask in scene.asks(scene.victim):
        for headers in _bad_credentials(key, hashed, scene.victim.revoked_key):
            scene.prober.refused("authentication bypass", ask.with_headers(**headers), only=(401, 429))
    for ask in scene.asks(scene.victim):
        elsewhere = ask.target() + ("&" if "?" in ask.target() else "?") + f"api_key={key}&access_token={key}"
        request = f"{ask.route.method} {elsewhere} HTTP/1.1\r\nhost: x\r\ncookie: authorization={key}\r\n"
        request += "content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
        scene.prober.raw("a key in the wrong place", ask.route.listener, request.encode())


def _bad_credentials(key: str, hashed: str, revoked: str) -> Iterator[dict[str, str]]:
    yield {}
    for value in (
        "",
        "Bearer",
        "Bearer ",
        "ApiKey ",
        "Basic " + base64.b64encode(f":{key}".encode()).decode(),
    ):
        yield {"authorization": value}
    for wrong in (key[:-1], key + "A", key[:12], key.swapcase(), key[:-1] + "!", hashed, "ss_" + hashed):
        yield {"authorization": f"ApiKey {wrong}"}
        yield {"authorization": f"Bearer {wrong}"}
    yield {"authorization": f"Digest {key}", "x-api-key": key}
    yield {"authorization": f"ApiKey {key}, ApiKey {key}"}
    yield {"authorization": f"ApiKey {revoked}"}
    yield {"x-api-key": "' OR 1=1 --"}
    yield {"x_forwarded_user": "admin", "x_original_url": "/health", "x_http_method_override": "GET"}


def forged_tokens(scene: Scene) -> None:
    """Tokens that say everything, signed by nobody or with what everybody has. Every route is tried with some
    and every token at some: all routes ask the same verifier."""
    for number, token in enumerate(_forgeries(scene.victim.known, scene.token_public_key)):
        for turn, ask in enumerate(scene.asks(scene.victim)):
            if ask.route.name in FORGED_ALL or (number + turn) % FORGED_EVERY == 0:
                scene.prober.refused(
                    "token confusion", ask.with_headers(authorization=f"Bearer {token}"), only=(401, 429, 431)
                )


def _forgeries(known: Json, public_key: bytes | None) -> Iterator[str]:
    now = int(time.time())
    claims = {
        "sub": known["agent_id"],
        "tenant": known["tenant_id"],
        "iat": now,
        "exp": now + 600,
        "scope": ["*", "operator", "events:read", "events:write"],
    }
    legacy = {
        **claims,
        "sub": known["tenant_id"],
        "iss": "stateset-sequencer",
        "aud": "stateset-api",
        "nbf": now,
        "jti": "1",
        "perms": "read,write,admin",
    }
    nobody = {**legacy, "sub": str(uuid.UUID(int=0))}
    for body in (claims, legacy, nobody):
        for algorithm in ("none", "None", "NONE", "", "HS256", "hs256", "EdDSA", "RS256", "ES256"):
            yield _token({"alg": algorithm, "typ": "JWT"}, body, b"")
        for secret in (b"", b"secret", *_spelled(public_key)):
            for algorithm in ("HS256", "HS384", "HS512"):
                digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[algorithm]
                header = {"alg": algorithm, "typ": "JWT"}
                yield _token(header, body, b"", sign=lambda m, s=secret, d=digest: hmac.digest(s, m, d))
        yield from _own_key(body)
    yield "a.b.c"
    yield "e30.e30."
    yield "." * 2000
    yield _token({"alg": "EdDSA"}, {"scope": ["*"] * 5000}, b"\0" * 64)


def _own_key(body: Json) -> Iterator[str]:
    """Signed well, by the attacker, with the key brought along."""
    own = Ed25519PrivateKey.generate()
    x = _b64(own.public_key().public_bytes_raw())
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": x}
    for more in (
        {},
        {"jwk": jwk},
        {"jku": "http://127.0.0.1:9/jwks"},
        {"kid": "../../dev/null"},
        {"crit": ["exp"]},
    ):
        yield _token({"alg": "EdDSA", **more}, body, b"", sign=own.sign)


def _spelled(public_key: bytes | None) -> Iterator[bytes]:
    if public_key is not None:
        yield public_key
        yield _b64(public_key).encode()
        yield public_key.hex().encode()
        der = bytes.fromhex("302a300506032b6570032100") + public_key
        yield b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


def _token(
    header: Json, body: Json, signature: bytes, *, sign: Callable[[bytes], bytes] | None = None
) -> str:
    signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(body).encode())}"
    return f"{signed}.{_b64(sign(signed.encode()) if sign else signature)}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# Authorization.


def anothers_tenant(scene: Scene) -> None:
    """The attacker's own good credential, the victim's names: 403 or 404, nothing of the victim's seen."""
    for ask in scene.asks(scene.victim):
        if ask.route.name in EXCUSED:
            continue
        for key in (scene.attacker.admin_key, scene.attacker.reader_key):
            scene.prober.refused("another's tenant", ask.with_headers(**bearer(key)), only=(403, 404))


def absent_is_like_foreign(scene: Scene) -> None:
    """By id alone, the victim's and nobody's things look the same to the attacker."""
    for route in scene.routes:
        ids_of = [one for one in route.fields if one.where == "path" and _is_uuid(one)]
        if route.is_public or not ids_of:
            continue
        told = []
        for ids in (_ids(route, ids_of, scene.victim.known), {one.name: str(uuid.uuid4()) for one in ids_of}):
            aimed = {(route.path, name): value for name, value in ids.items()}
            ask = well_formed(route, {**scene.attacker.known, **aimed})
            ask = ask.with_headers(**bearer(scene.attacker.admin_key))
            answer = scene.prober.send(ask)
            scene.prober.judge("absent or foreign", ask, answer, also=(200,))
            told.append((answer.status_code, _without_ids(answer.text, [*ids.values()], answer)))
        if told[0] != told[1]:
            scene.prober.problems.append(f"absent or foreign: {route.name} tells them apart: {told}")


def _ids(route: Route, fields: list[Field], known: Json) -> dict[str, str]:
    """The victim's, by the names the route gives them."""
    return {one.name: str(known.get((route.path, one.name)) or known[one.name]) for one in fields}


def _without_ids(text: str, ids: list[str], answer: Any) -> str:
    for one in (*ids, answer.headers.get("x-request-id", "")):
        text = text.replace(one, "…") if one else text
    return text


def _is_uuid(one: Field) -> bool:
    return "{8}(-" in json.dumps(one.schema)


def a_readers_hands(scene: Scene) -> None:
    """A key that may only read changes nothing, not even its own tenant's things."""
    for ask in scene.asks(scene.attacker):
        if ask.route.changes_state and ask.route.name not in EXCUSED and "read" not in ask.route.needs:
            scene.prober.refused(
                "a reader writes", ask.with_headers(**bearer(scene.attacker.reader_key)), only=(403,)
            )


# Malformed.


def malformed_bodies(scene: Scene) -> None:
    for ask in scene.asks(scene.attacker, only_secured=False):
        if not ask.route.takes_body:
            continue
        aimed = ask.with_headers(**bearer(scene.attacker.admin_key))
        demands = any(one.required for one in ask.route.fields if one.where == "body")
        for name, body in texts.BODIES.items():
            if name in texts.OF_UNKNOWN_MEMBERS and not demands:
                continue  # unknown members are ignored, and no other is needed
            scene.prober.refused("malformed body", Ask(aimed.route, aimed.values, aimed.headers, body))
        for content_type in texts.CONTENT_TYPES:
            scene.prober.refused(
                "content type", aimed.with_headers(content_type=content_type), only=(415, 400, 403)
            )
        _oversize(scene, aimed)


def _oversize(scene: Scene, ask: Ask) -> None:
    """Declared too large, and too large without a word."""
    head = f"{ask.route.method} {ask.target()} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"authorization: {ask.headers['authorization']}\r\nconnection: close\r\n"
    declared = head + "content-length: 99999999999\r\n\r\n{"
    scene.prober.raw("oversize, declared", ask.route.listener, declared.encode())
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    chunks = (head + "transfer-encoding: chunked\r\n\r\n").encode() + chunk * 200
    scene.prober.raw("oversize, in chunks", ask.route.listener, chunks)


def wrong_types(scene: Scene) -> None:
    """Every body member, one at a time, of every wrong type, the others right."""
    for ask in scene.asks(scene.attacker, only_secured=False):
        aimed = ask.with_headers(**bearer(scene.attacker.admin_key))
        for one in ask.route.fields:
            if one.where != "body":
                continue
            for value in texts.WRONG_TYPES:
                if not jsonschema_rs.is_valid(one.schema, value):
                    scene.prober.refused("wrong type", aimed.with_value(one.name, value))


def left_out(scene: Scene) -> None:
    """Every required member or parameter, one at a time, not there."""
    for ask in scene.asks(scene.attacker):
        for one in ask.route.fields:
            if one.required and one.where != "path":
                values = {name: value for name, value in ask.values.items() if name != one.name}
                short = Ask(ask.route, values, bearer(scene.attacker.admin_key))
                scene.prober.refused("left out", short)


# Injection.


def injections(scene: Scene) -> None:
    """In every field every other hostile text, and every text in every other field. Where it is a valid
    value, only with a key that cannot write."""
    turn = 0
    for ask in scene.asks(scene.attacker, only_secured=False):
        for one in ask.route.fields:
            turn += 1
            for text in (*texts.INJECTIONS, *texts.ODD)[turn % 2 :: 2]:
                _inject(scene, ask, one, text)


def _inject(scene: Scene, ask: Ask, one: Field, text: str) -> None:
    encodable = text.encode("utf-8", "ignore").decode()
    if one.where != "body" and (not encodable or len(encodable) > 10_000):
        return
    value = text if one.where == "body" else encodable
    valid = _may_be_valid(one, value)
    if valid and ask.route.changes_state:
        key, also = scene.attacker.reader_key, ()
        if ask.route.name in EXCUSED or "read" in ask.route.needs:
            also = (200,)
    else:
        key, also = scene.attacker.admin_key, (200,) if valid else ()
    scene.prober.refused("injection", ask.with_value(one.name, value).with_headers(**bearer(key)), also=also)


def _may_be_valid(one: Field, text: str) -> bool:
    """As a text: what a query string means by digits, the server decides."""
    return jsonschema_rs.is_valid(one.schema, text.encode("utf-8", "ignore").decode())


def inside_an_event(scene: Scene) -> None:
    """Hostile texts in the members of a signed event, whose signature is then wrong: refused one and all."""
    [route] = [route for route in scene.routes if route.name == INGEST]
    ask = well_formed(route, scene.attacker.known).with_headers(**bearer(scene.attacker.admin_key))
    [event] = ask.values["events"]
    for name in event:
        for value in (*texts.INJECTIONS, *texts.ODD, *texts.WRONG_TYPES):
            if value == event[name]:
                continue
            changed = {**event, "event_id": str(uuid.uuid4()), name: value}
            answer = scene.prober.send(ask.with_value("events", [changed]))
            scene.prober.judge("inside an event", ask, answer, also=(200,))
            if answer.status_code == 200 and answer.json()["eventsAccepted"]:
                scene.prober.problems.append(f"inside an event: {name}={value!r} was accepted")


# The wire itself.


def raw_requests(scene: Scene) -> None:
    key = scene.attacker.admin_key
    good = f"authorization: {bearer(key)['authorization']}\r\n"
    for listener in ("public", "admin"):
        for request in _raw(good):
            scene.prober.raw("raw request", listener, request, one_answer=False)


def _raw(good: str) -> Iterator[bytes]:
    ingest = f"POST /api/v1/ves/events/ingest HTTP/1.1\r\nhost: x\r\n{good}content-type: application/json\r\n"
    both = f"{ingest}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    yield f"{both}GET /x HTTP/1.1\r\n\r\n".encode()
    yield f"{ingest}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}".encode()
    yield f"{ingest}content-length: -1\r\n\r\n".encode()
    yield f"{ingest}content-length: 0x10\r\n\r\n".encode()
    yield f"{ingest}transfer-encoding: chunked\r\n\r\nzz\r\n\r\n".encode()
    yield f"{ingest}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".encode()
    yield f"{ingest}x-a: b\r\n c: folded\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    yield b"GET /api/v1/ves/head HTTP/1.1\r\n\r\n"
    yield b"GET / HTTP/9.9\r\nhost: x\r\n\r\n"
    yield b"GET /\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100
    yield b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 70_000 + b"\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(5000)) + b"\r\n"
    yield b"GET /%00%0d%0aset-cookie:x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    yield b"GET /api/v1/../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    yield b"GET //x/api/v1/ves/head HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    yield b"TRACE / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    yield b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def other_methods(scene: Scene) -> None:
    """Every path by every method it is not told with."""
    told: dict[tuple[str, str], set[str]] = {}
    for route in scene.routes:
        told.setdefault((route.listener, route.path), set()).add(route.method)
    for route in scene.routes:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - told[route.listener, route.path]:
            other = Route(route.listener, method, route.path, False, route.fields, method != "GET", "")
            ask = well_formed(other, scene.attacker.known).with_headers(**bearer(scene.attacker.admin_key))
            scene.prober.refused("other methods", ask, only=(404, 405))


ATTACKS: tuple[Callable[[Scene], None], ...] = (
    without_a_credential,
    forged_tokens,
    anothers_tenant,
    absent_is_like_foreign,
    a_readers_hands,
    malformed_bodies,
    wrong_types,
    left_out,
    injections,
    inside_an_event,
    raw_requests,
    other_methods,
)
