"""``sequencer token``: make signing keys, issue, look into and revoke signed tokens (JWT).

``new-key``, ``issue`` and ``inspect`` work offline; the server learns of a key by the key set file that it
reads (JWT_JWKS_FILE). ``revoke`` and ``revocations`` speak to the admin listener. Keys and tokens are read
from files only, never from the command line.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import jwt
import msgspec
from cyclopts import App, Parameter

from actors.token_rules import LIFETIME_MAX_S, TOKEN_BYTES_MAX
from transport.cli.console import AdminListener, Exit, Json, read_file, readably, run, show
from transport.cli.token_files import (
    SigningKey,
    key_set_to_change,
    read_signing_key,
    write_private,
    write_signing_key,
)
from transport.client.errors import ClientError
from transport.client.wire import decode
from ves.encoding import base64url_bytes

app = App(name="token", help="Make keys for signed tokens (JWT), issue, inspect and revoke tokens.")

PATH = "/api/v1/admin/tokens"
PAGE = 1000
HERE = AdminListener()
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]


@app.command
def new_key(*, out: Path, jwks: Path, kid: str | None = None, as_json: Json = False) -> int:
    """Make a key that signs tokens, and add its public half to a key set.

    Parameters
    ----------
    out
        New file for the private key, for you alone: a JWK if it ends with .jwk, else PEM.
    jwks
        The server's JWT_JWKS_FILE; made if there is none. Keys already in it stay.
    kid
        The key's name in tokens; default: its RFC 7638 thumbprint.
    """

    def work() -> int:
        key = SigningKey.generate(kid)
        with key_set_to_change(jwks) as key_set:
            write_signing_key(out, key)
            try:
                key_set.add(key.public_jwk)
            except BaseException:
                out.unlink(missing_ok=True)
                raise
        text = f"key {key.kid}: private half in {out}, public half in {jwks}"
        show(text, {"ok": True, "kid": key.kid, "out": str(out), "jwks": str(jwks)}, as_json)
        return Exit.OK

    return readably(work, as_json=as_json)


@app.command
def issue(
    *,
    key_file: Path,
    tenant: Tenant,
    agent: UUID,
    scope: Annotated[list[str], Parameter(negative=())],
    store: Annotated[list[UUID] | None, Parameter(negative=())] = None,
    ttl: str = "1h",
    audience: str | None = None,
    issuer: str | None = None,
    kid: str | None = None,
    out: Path | None = None,
    as_json: Json = False,
) -> int:
    """Sign a token for an agent. Offline.

    Parameters
    ----------
    key_file
        The private key that `token new-key` made.
    tenant
        The agent's tenant.
    agent
        Whom the token is for; it may post events of this agent only.
    scope
        A permission, for example events:write, commitments:* or *; give it once per permission.
    store
        Only these stores; default: all of the tenant.
    ttl
        How long it is good: 90s, 15m, 1h; at most 24h.
    audience
        The server's JWT_AUDIENCE, if it has one.
    issuer
        The server's JWT_ISSUER, if it has one.
    kid
        The key's name, where a PEM file's key was given one.
    out
        Write the token to this new file, readable by you alone, instead of printing it.
    """

    def work() -> int:
        key, now_s = read_signing_key(key_file, kid), int(time.time())
        claims: dict[str, Any] = {
            "sub": str(agent),
            "tenant": str(tenant),
            "iat": now_s,
            "exp": now_s + _seconds(ttl),
            "scope": scope,
        }
        if store:
            claims["stores"] = [str(one) for one in store]
        claims |= {name: value for name, value in (("aud", audience), ("iss", issuer)) if value is not None}
        text = jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid})
        if len(text) > TOKEN_BYTES_MAX:
            raise ClientError(f"the token would be longer than {TOKEN_BYTES_MAX} bytes: name fewer stores")
        if out is not None:
            write_private(out, text + "\n")
        told = {"ok": True, "kid": key.kid, "expires_at": claims["exp"]}
        show(
            text if out is None else f"token until {_when(claims['exp'])} (in {out})",
            told | ({"token": text} if out is None else {"out": str(out)}),
            as_json,
        )
        return Exit.OK

    return readably(work, as_json=as_json)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= LIFETIME_MAX_S:
        raise ClientError(f"--ttl {text}: write 90s, 15m or 1h; at most 24h")
    return seconds


def _when(seconds: Any) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError, OSError):
        return repr(seconds)


@app.command
def inspect(file: Path | None = None, *, as_json: Json = False) -> int:
    """Show what a token says, without believing it: no signature is checked, none is shown.

    Parameters
    ----------
    file
        The file that holds the token; default: stdin.
    """

    def work() -> int:
        header, claims = _unverified(read_file(file))
        lines = ["NOT VERIFIED: anybody can write this", f"header  {json.dumps(header)}"]
        lines.append(f"claims  {json.dumps(claims)}")
        lines += [f"{name}     {_when(claims[name])}" for name in ("iat", "nbf", "exp") if name in claims]
        show("\n".join(lines), {"verified": False, "header": header, "claims": claims}, as_json)
        return Exit.OK

    return readably(work, as_json=as_json)


def _unverified(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        header, claims, _ = raw.decode("ascii").strip().split(".")
        parsed = [json.loads(base64url_bytes(part)) for part in (header, claims)]
    except (ValueError, RecursionError):
        raise ClientError("this is no signed token: three base64url parts with dots between") from None
    if not all(isinstance(part, dict) for part in parsed):
        raise ClientError("this is no signed token: header and claims are JSON objects")
    return parsed[0], parsed[1]


# ---- speaking to the server -----------------------------------------------------------------------------


class _Revocation(msgspec.Struct, rename="camel"):
    number: int
    tenant_id: str
    subject: str
    revoked_until: str
    revoked_at: str
    reason: str | None


class _Page(msgspec.Struct):
    revocations: list[_Revocation]
    has_more: bool
    next_after: int | None


@app.command
def revoke(
    *,
    tenant: Tenant,
    agent: UUID | None = None,
    subject: UUID | None = None,
    reason: str | None = None,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """Revoke every token of an agent issued until now. At once on this server, within seconds on others.

    Parameters
    ----------
    tenant
        The agent's tenant.
    agent
        Whose tokens.
    subject
        Instead of --agent: the tenant's own id means every token of the tenant.
    reason
        Goes into the audit log.
    """

    async def work() -> int:
        if (agent is None) == (subject is None):
            raise ClientError("name either --agent or --subject")
        body: dict[str, Any] = {"tenantId": str(tenant), "subject": str(agent or subject)}
        if reason is not None:
            body["reason"] = reason
        async with admin.client() as client:
            # Repeatable: a second time only revokes until a little later.
            answer = await client.ask("POST", f"{PATH}/revoke", body=body)
        revoked = decode(answer, _Revocation, PATH)
        show(f"tokens of {revoked.subject} issued until {revoked.revoked_until} are dead", revoked, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def revocations(*, tenant: UUID | None = None, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """List revocations of tokens, oldest first.

    Parameters
    ----------
    tenant
        Only this tenant's.
    """

    async def work() -> int:
        query: dict[str, Any] = {"limit": PAGE} | ({"tenant_id": str(tenant)} if tenant else {})
        found: list[_Revocation] = []
        async with admin.client() as client:
            while True:
                answer = await client.ask("GET", f"{PATH}/revocations", query=query)
                page = decode(answer, _Page, PATH)
                found += page.revocations
                if not page.has_more or page.next_after in (None, query.get("after")):
                    break
                query["after"] = page.next_after
        lines = [_line(one) for one in found] or ["no token was revoked"]
        show("\n".join(lines), {"ok": True, "revocations": found}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _line(one: _Revocation) -> str:
    reason = f"  {one.reason!r}" if one.reason else ""
    return f"{one.number}  tenant {one.tenant_id}  subject {one.subject}  until {one.revoked_until}{reason}"
