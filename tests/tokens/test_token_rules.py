"""Which tokens are believed: the honest ones, and none of those that attackers write."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from actors import token_rules
from actors.token_rules import TOKEN_BYTES_MAX, Rules, Token, TokenRefused, verify
from tests.tokens.token_mint import (
    AGENT,
    NOW_S,
    OTHER_PRIVATE,
    PRIVATE,
    SECRET,
    STORE,
    TENANT,
    b64,
    claims,
    jwk,
    keys,
    legacy_claims,
    macced,
    parts,
    signed,
)

RULES = Rules()
BOTH = keys(secret=SECRET)
DAY_S = 24 * 3600
NIL = "00000000-0000-0000-0000-000000000000"


def read(text: str, rules: Rules = RULES, now_s: float = NOW_S, **more: Any) -> Token:
    return verify(text, more.get("keys", BOTH), rules, now_s)


def refusal(text: str, rules: Rules = RULES, now_s: float = NOW_S, **more: Any) -> str:
    with pytest.raises(TokenRefused) as caught:
        read(text, rules, now_s, **more)
    told = str(caught.value)
    assert not any(part and part in told for part in text.split(".")), "it shows the token"
    return told


def test_the_guides_token_says_who_may_do_what_where() -> None:
    token = read(signed(claims(stores=[str(STORE)])))
    assert (token.kind, token.tenant_id, token.agent_id) == ("agent", TENANT.bytes, AGENT.bytes)
    assert token.subject == AGENT.bytes
    assert token.store_ids == (STORE.bytes,)
    assert token.permissions == ("events:write", "events:read")
    assert read(signed()).store_ids is None
    assert read(signed(claims(stores=[]))).store_ids == (), "an empty list is no store, not every one"


def test_what_a_library_issues_is_believed() -> None:
    text = jwt.encode(claims(), PRIVATE, algorithm="EdDSA", headers={"kid": "one"})
    assert read(text).agent_id == AGENT.bytes


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": None}, {"sub": "me"}, {"sub": NIL}, {"sub": 7},
        {"tenant": None}, {"tenant": NIL}, {"tenant": [str(TENANT)]},
        {"exp": None}, {"exp": str(NOW_S + 60)}, {"exp": NOW_S + 60.5}, {"exp": True}, {"exp": 2**60},
        {"iat": None}, {"iat": -1}, {"exp": NOW_S}, {"exp": NOW_S + DAY_S + 1},
        {"scope": None}, {"scope": "events:write"}, {"scope": [7]}, {"scope": ["x"] * 101},
        {"stores": "all"}, {"stores": ["x"]}, {"stores": None, "nbf": "soon"},
    ],
)  # fmt: skip
def test_a_claim_that_is_missing_or_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    refusal(signed(claims(**changes)))


def test_clocks_may_be_off_by_the_leeway_and_no_more() -> None:
    text = signed(claims(nbf=NOW_S + 100))
    for now_s, good in ((39, False), (40, True), (3659.9, True), (3660, False)):
        if good:
            read(text, now_s=NOW_S + now_s)
        else:
            refusal(text, now_s=NOW_S + now_s)
    early = signed(claims(iat=NOW_S + 61, exp=NOW_S + 90))
    assert "iat" in refusal(early)
    assert read(early, now_s=NOW_S + 1)
    assert "expired" in refusal(signed(), now_s=NOW_S + 3660)
    with pytest.raises(TokenRefused) as caught:
        read(signed(), Rules(leeway_s=0), now_s=NOW_S + 3600)
    assert caught.value.expired
    assert read(signed(claims(exp=NOW_S + DAY_S)))


def test_whom_a_token_is_from_and_for() -> None:
    ours = Rules(issuer="https://id.example", audience="orders")
    good = claims(iss="https://id.example", aud="orders")
    assert read(signed(good), ours)
    assert read(signed(good | {"aud": ["shipping", "orders"]}), ours)
    for wrong in ({"iss": "https://id.example/"}, {"iss": 1}, {"aud": "order"}, {"aud": []}, {"aud": 1}):
        refusal(signed(good | wrong), ours)
    refusal(signed(), ours)
    assert "aud" in refusal(signed(claims(aud="somebody else"))), "RFC 7519, section 4.1.3"
    assert read(signed(claims(iss="anybody")))


def test_a_token_names_its_key_where_there_are_several() -> None:
    two = keys(jwk(), jwk(OTHER_PRIVATE, "two"))
    assert read(signed(), keys=two)
    assert read(signed(private=OTHER_PRIVATE, kid="two"), keys=two)
    refusal(signed(kid="two"), keys=two)
    refusal(signed(kid="three"), keys=two)
    refusal(signed(kid=None), keys=two)
    assert read(signed(kid=None), keys=keys(jwk(kid=None)))
    assert read(signed(kid=None), keys=BOTH), "there is one key of this algorithm"
    for header in ({"kid": None}, {"kid": ["one"]}, {"kid": ""}, {"kid": "x" * 129}):
        refusal(signed(header={"alg": "EdDSA"} | header))


def test_a_key_limited_to_tenants_speaks_for_no_other() -> None:
    limited = keys(jwk(tenants=[str(TENANT)]))
    assert read(signed(), keys=limited)
    assert "tenant" in refusal(signed(claims(tenant=str(STORE))), keys=limited)


# The attacks.


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, ["EdDSA"], {"EdDSA": 1}, 0])
def test_no_algorithm_is_no_signature(name: Any) -> None:
    message = parts({"alg": name, "kid": "one"}, claims())
    for signature in ("", ".", b64(b"x"), b64(PRIVATE.sign(message.encode()))):
        refusal(f"{message}.{signature}")
    refusal(signed(header={"kid": "one"}))


@pytest.mark.parametrize(
    "name", ["eddsa", "EDDSA", "EdDSA ", "Ed25519", "ES256", "RS256", "HS384", "HS512", "hs256", "HS256"]
)
def test_another_algorithm_than_the_keys_own_is_refused(name: str) -> None:
    refusal(signed(header={"alg": name, "kid": "one"}))
    refusal(signed(header={"alg": name}))


@pytest.mark.parametrize("with_secret", [True, False])
def test_a_public_key_is_never_a_secret(with_secret: bool) -> None:
    ours = BOTH if with_secret else keys()
    public = PRIVATE.public_key()
    raw = public.public_bytes_raw()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    spellings = [raw, pem, pem.strip(), der, b64(raw).encode(), raw.hex().encode(), b"", b"\0" * 32]
    spellings += [json.dumps(jwk()).encode(), json.dumps(jwk(), separators=(",", ":")).encode()]
    for key in spellings:
        for header in ({"alg": "HS256", "kid": "one"}, {"alg": "HS256"}):
            refusal(macced(claims(), key, header), keys=ours)
            refusal(macced(legacy_claims(), key, header), keys=ours)


def test_the_kind_of_a_token_is_its_keys_and_not_its_claims() -> None:
    both = claims() | legacy_claims()
    agents = read(signed(both), Rules(audience="stateset-api", issuer="stateset-sequencer"), keys=BOTH)
    assert (agents.kind, agents.permissions) == ("agent", ("events:write", "events:read"))
    refusal(macced(claims()))
    refusal(signed(legacy_claims()))
    refusal(macced(), keys=keys())  # without JWT_SECRET


@pytest.mark.parametrize(
    "more",
    [
        {"jwk": jwk(OTHER_PRIVATE)}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example"},
        {"x5c": ["MII"]}, {"x5t": "x"}, {"crit": ["b64"], "b64": False}, {"crit": []}, {"b64": True},
        {"zip": "DEF"}, {"enc": "A256GCM"}, {"cty": "JWT"}, {"typ": "JWE"}, {"typ": None}, {"anything": 1},
    ],
)  # fmt: skip
def test_a_header_brings_nothing_of_its_own(more: dict[str, Any]) -> None:
    header = {"alg": "EdDSA", "kid": "one"} | more
    refusal(signed(header=header))
    refusal(signed(header=header, private=OTHER_PRIVATE))


def test_a_member_named_twice_is_refused_wherever_it_stands() -> None:
    good = json.dumps(claims())
    for member in ('"sub": "x"', '"tenant": "x"', '"exp": 1', '"\\u0073ub": "x"'):
        refusal(signed(f"{{{member}, {good[1:]}".encode()))
        refusal(signed(f"{good[:-1]}, {member}}}".encode()))
    refusal(signed(header=b'{"alg": "none", "alg": "EdDSA", "kid": "one"}'))
    refusal(signed(header=b'{"alg": "EdDSA", "kid": "two", "kid": "one"}'))
    refusal(signed(claims(extra=json.loads('{"a": 1}')) | {"exp": float("nan")}))


def test_the_same_token_has_one_spelling() -> None:
    header, said, signature = signed().split(".")
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = signature[:-1] + alphabet[alphabet.index(last) ^ 1]
    spellings = [
        f"{header}=.{said}.{signature}", f"{header}.{said}.{signature}==", f"{header}.{said}.{twin}",
        f" {header}.{said}.{signature}", f"{header}.{said}.{signature}\n", f"{header}.{said}. {signature}",
        f"{header}.{said}.{signature}.", f".{header}.{said}.{signature}", f"{header}.{said}",
        f"{header}.{said}.", f"..{signature}", "", ".", "..", "....", f"{header}.{said}.{signature}\u2028",
        f"{header}.{said}.{signature}é", f"{header}.{said}.+/", f"{header}.{said}.{signature}A",
    ]  # fmt: skip
    for text in spellings:
        refusal(text)
    assert read(f"{header}.{said}.{signature}")


def test_a_huge_or_bottomless_or_nested_token_is_refused_before_its_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[str] = []
    decode = token_rules._JWS.decode
    monkeypatch.setattr(
        token_rules._JWS, "decode", lambda text, *a, **k: (checked.append(text), decode(text, *a, **k))[1]
    )
    refusal(signed(claims(padding="x" * TOKEN_BYTES_MAX)))
    refusal(signed(header=b'{"alg":' + b"[" * 3000))
    refusal(signed(header=b'{"alg": "EdDSA", "kid": ' + b"9" * 5000 + b"}"))
    assert not checked
    refusal(signed(signed().encode()))
    refusal(signed(b"[" * 3000))
    refusal(signed(b"\xff\xfe"))
    refusal(signed([claims()]))
    assert len(checked) == 4, "one signature check for each text, no more"


def test_what_was_signed_is_what_is_read() -> None:
    header, said, signature = signed().split(".")
    other = signed(claims(tenant=str(STORE))).split(".")
    refusal(f"{header}.{other[1]}.{signature}")
    refusal(f"{b64(json.dumps({'alg': 'EdDSA'}).encode())}.{said}.{signature}")
    refusal(signed(private=OTHER_PRIVATE))
    refusal(f"{header}.{said}.{b64(bytes(64))}")
    refusal(f"{header}.{said}.{signature[:-4]}")


# Legacy tokens.


def test_a_legacy_token_speaks_for_its_tenant_or_one_agent() -> None:
    token = read(macced())
    assert (token.kind, token.tenant_id, token.agent_id) == ("legacy", TENANT.bytes, None)
    assert token.subject == TENANT.bytes
    assert token.permissions == ("read", "write")
    assert token.store_ids is None
    bound = read(macced(legacy_claims(agent=str(AGENT), stores=f" {STORE} ,{TENANT}")))
    assert (bound.agent_id, bound.subject) == (AGENT.bytes, AGENT.bytes)
    assert bound.store_ids == (STORE.bytes, TENANT.bytes)
    assert read(macced(legacy_claims(perms=None))).permissions == ("",)
    assert read(macced(legacy_claims(stores=""))).store_ids is None


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": NIL, "perms": "admin"}, {"sub": None}, {"iss": None}, {"iss": "x"}, {"aud": None},
        {"aud": ["stateset-api"]}, {"exp": None}, {"iat": None}, {"nbf": None}, {"jti": None}, {"jti": 1},
        {"iat": str(NOW_S)}, {"stores": "x"}, {"stores": f"{STORE},"}, {"stores": [str(STORE)]},
        {"agent": ""}, {"agent": "x"}, {"agent": NIL}, {"perms": ["read"]}, {"nbf": NOW_S + 61},
        {"iat": NOW_S + 61}, {"exp": NOW_S - 60},
    ],
)  # fmt: skip
def test_a_legacy_claim_that_is_missing_or_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    refusal(macced(legacy_claims(**changes)))


def test_a_legacy_token_with_another_secret_or_a_name_of_a_key_is_refused() -> None:
    refusal(macced(key=SECRET.upper().encode()))
    refusal(macced(header={"alg": "HS256", "kid": "one"}))
    assert read(macced(legacy_claims(iss="i", aud="a")), Rules(issuer="i", audience="a"))
