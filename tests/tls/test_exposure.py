"""Nothing in clear text beyond loopback, unless somebody vouches for a proxy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from config.exposure import Exposed, files_of_listeners, is_loopback, refuse_clear_text
from config.settings import Settings

PAIR = {"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}
ADMIN_PAIR = {"admin_tls_cert_file": "ac.pem", "admin_tls_key_file": "ak.pem"}
PROXY = {"tls_terminated_by_proxy": True}
LIST = {"admin_ip_allowlist": "10.0.0.0/8"}


def settings(**chosen: Any) -> Settings:
    return Settings(_env_file=None, **chosen)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"host": "::1", "admin_bind": "[::1]:1"},
        {"host": "localhost", "admin_bind": "localhost:1"},
        {"host": "127.8.8.8"},
        {"host": "0.0.0.0", **PAIR},
        {"host": "::", "admin_bind": "[::]:1", **PAIR},
        {"host": "0.0.0.0", **PROXY},
        {"admin_bind": "10.0.0.1:1", **ADMIN_PAIR},
        {"admin_bind": "10.0.0.1:1", **PROXY, **LIST},
    ],
)
def test_loopback_tls_or_a_proxy_somebody_vouches_for_may_start(chosen: dict[str, Any]) -> None:
    refuse_clear_text(settings(**chosen))


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"host": "0.0.0.0"}, "HOST 0.0.0.0 .*TLS_CERT_FILE.*TLS_TERMINATED_BY_PROXY"),
        ({"host": "::"}, "HOST ::"),
        ({"host": ""}, "HOST"),
        ({"host": "sequencer.internal"}, "HOST sequencer.internal"),
        ({"host": "192.0.2.1", **ADMIN_PAIR}, "HOST 192.0.2.1"),
        ({"admin_bind": "0.0.0.0:1"}, "ADMIN_BIND 0.0.0.0:1 .*ADMIN_IP_ALLOWLIST"),
        ({"admin_bind": "0.0.0.0:1", **PROXY}, "ADMIN_BIND"),
        ({"admin_bind": "0.0.0.0:1", **LIST}, "ADMIN_BIND"),
        ({"admin_bind": ":8082"}, "ADMIN_BIND"),
        ({"admin_bind": "8082"}, "give host:port"),
    ],
)
def test_clear_text_beyond_loopback_is_refused_with_the_remedy(chosen: dict[str, Any], named: str) -> None:
    with pytest.raises(Exposed, match=named):
        refuse_clear_text(settings(**chosen))


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"tls_cert_file": "c.pem"}, "both or neither"),
        ({"tls_key_file": "k.pem"}, "both or neither"),
        ({"admin_tls_key_file": "k.pem", **PAIR}, "ADMIN_TLS_CERT_FILE and ADMIN_TLS_KEY_FILE: give both"),
        ({"admin_tls_client_ca_file": "ca.pem"}, "ADMIN_TLS_CLIENT_CA_FILE asks for TLS"),
    ],
)
def test_half_a_pair_is_refused(chosen: dict[str, Any], named: str) -> None:
    with pytest.raises(Exposed, match=named):
        files_of_listeners(settings(**chosen))


def test_the_admin_listener_has_the_public_pair_or_its_own() -> None:
    both = files_of_listeners(settings(**PAIR, admin_tls_client_ca_file="ca.pem"))
    assert both["admin"].cert == both["public"].cert
    assert (both["public"].client_ca, str(both["admin"].client_ca)) == (None, "ca.pem")
    assert str(files_of_listeners(settings(**PAIR, **ADMIN_PAIR))["admin"].cert) == "ac.pem"
    assert set(files_of_listeners(settings(**ADMIN_PAIR))) == {"admin"}
    assert files_of_listeners(settings()) == {}


@pytest.mark.parametrize("name", ["TRUSTED_PROXIES", "ADMIN_IP_ALLOWLIST"])
def test_a_bad_entry_in_a_list_of_networks_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "10.0.0.0/8,elsewhere")
    with pytest.raises(ValidationError, match="'elsewhere' is no IP address or network"):
        Settings()
    monkeypatch.setenv(name, "10.0.0.0/8, ::1")
    assert [str(one) for one in getattr(Settings(), name.lower())] == ["10.0.0.0/8", "::1/128"]
    monkeypatch.setenv(name, "")
    assert getattr(Settings(), name.lower()) == ()


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "10.0.0.0/8,::/0"])
def test_not_everybody_is_a_proxy(everybody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", everybody)
    with pytest.raises(ValidationError, match="name the proxies"):
        Settings()


def test_names_other_than_localhost_are_not_loopback() -> None:
    assert not any(
        is_loopback(host) for host in ("localhost.evil.example", "127.0.0.1.evil.example", "0", "127.1")
    )
