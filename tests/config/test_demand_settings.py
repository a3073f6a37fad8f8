"""What the operator demands of events: words, lists and bounds as they are read from the environment."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from config.settings import Settings


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("disabled", "disabled"),
        ("OFF", "disabled"),
        ("0", "disabled"),
        ("warn_only", "warn"),
        (" on ", "enforce"),
        ("true", "enforce"),
        ("strict", "required"),
        ("required", "required"),
    ],
)
def test_the_mode_is_read_by_all_its_names(monkeypatch: pytest.MonkeyPatch, word: str, mode: str) -> None:
    monkeypatch.setenv("SCHEMA_VALIDATION_MODE", word)
    assert Settings(_env_file=None).schema_validation_mode == mode


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCHEMA_VALIDATION_MODE", "sometimes"),
        ("SCHEMA_VALIDATION_MODE", ""),
        ("ALLOWED_ENTITY_TYPES", ""),
        ("ALLOWED_ENTITY_TYPES", "order,,invoice"),
        ("ALLOWED_ENTITY_TYPES", "x" * 129),
        ("MAX_EVENT_PAYLOAD_SIZE", "0"),
        ("MAX_EVENT_PAYLOAD_SIZE", "1048577"),
        ("MAX_FUTURE_SKEW_SECS", "-1"),
    ],
)
def test_what_cannot_be_meant_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings(_env_file=None)


def test_entity_types_are_a_list_with_commas_and_all_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(_env_file=None).entity_types is None
    monkeypatch.setenv("ALLOWED_ENTITY_TYPES", "order, invoice,order")
    assert Settings(_env_file=None).entity_types == ("order", "invoice")
    defaults = Settings(_env_file=None)
    assert (defaults.max_event_payload_size, defaults.max_future_skew_secs) == (1_048_576, 3600)
