"""What a log line looks like, and what never gets into one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from config.logs import REDACTED, configure_logs, redact


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_one_json_object_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("room").info("started", port=8080)
    structlog.get_logger("room").debug("not asked for")
    logging.getLogger("library").warning("trouble %d", 7)
    out, err = capfd.readouterr()
    assert out == ""
    ours, theirs = map(json.loads, err.splitlines())
    assert (ours["event"], ours["level"], ours["port"]) == ("started", "info", 8080)
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("trouble 7", "warning", "library")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_local_variable(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", form)
    log = structlog.get_logger()

    def fail(seed: str) -> None:
        raise ValueError(f"wrong length: {len(seed)}; ss_canary0123456789abcdef")

    try:
        fail("-".join(["local", "canary", "value"]))
    except ValueError:
        log.exception("failed")
    line = capfd.readouterr().err
    assert "wrong length" in line
    assert "local-canary" not in line
    assert "ss_canary" not in line


def test_text_is_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", "text")
    structlog.get_logger().info("not asked for")
    structlog.get_logger().warning("look", seed="canary")
    err = capfd.readouterr().err
    assert "look" in err
    assert "canary" not in err


@pytest.mark.parametrize(
    "name",
    [
        "bootstrap_api_key",
        "api_key",
        "Authorization",
        "x-api-key",
        "password",
        "receipt_signing_seed",
        "private_key",
        "at_rest_ring",
        "database_url",
        "owner_dsn",
        "payload",
        "cookie",
    ],
)
def test_values_of_names_that_say_secret_are_blanked_at_any_depth(name: str) -> None:
    event = redact(None, "info", {"event": "x", name: "canary", "inner": [{"more": {name: b"canary"}}]})
    assert event[name] == REDACTED
    assert "canary" not in str(event)


def test_harmless_names_pass() -> None:
    harmless = {
        "event": "x",
        "key_id": "0a",
        "agent_key_id": 3,
        "payload_bytes": 12,
        "public_key": "ab",
        "keys": 2,
    }
    assert redact(None, "info", dict(harmless)) == harmless


def test_keys_and_passwords_inside_texts_are_blanked() -> None:
    event = redact(
        None,
        "info",
        {"event": "got ss_abcdefghijklmnopqrstuvwx", "why": "postgresql://user:canary@host/db is away"},
    )
    assert "abcdefghijkl" not in event["event"]
    assert "canary" not in event["why"]
    assert "host/db is away" in event["why"]


@pytest.mark.parametrize(
    ("text", "blanked"),
    [
        ("Bearer sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV28hqg7.", True),
        ("key=sk_test_0123456789ABCDEFGHIJKLMNOPQRSTUV28hqg7&x", True),
        ("x_sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV28hqg7", True),
        ("cut: sk_live_01234567", True),
        ("its beginning: sk_live_0123", False),
        ("its beginning: ss_012345670123", False),
        ("a class_of_words_and_more_words", False),
    ],
)
def test_new_keys_are_blanked_even_when_cut_but_not_their_beginnings(text: str, blanked: bool) -> None:
    said = redact(None, "info", {"event": text})["event"]
    assert ("0123456" in said) == (not blanked and "0123456" in text)
    assert (REDACTED in said) == blanked


@pytest.mark.parametrize(("level", "form"), [("loud", "json"), ("info", "xml")])
def test_an_unknown_choice_is_refused(level: str, form: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        configure_logs(level, form)
