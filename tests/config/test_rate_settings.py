"""The operator's rate limits: the guide's numbers unless told otherwise, and nonsense is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from actors.rate_limits import CLASSES, LIMITED
from config import settings as settings_room
from config.settings import RATE_CLASSES, RATE_LIMITED, Settings
from journal import port


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def test_the_defaults_are_the_security_guides() -> None:
    given = settings()
    assert given.rate_limit_of("events_ingest") == (100, 500)
    assert given.rate_limit_of("events_read") == (1000, 2000)
    assert given.rate_limit_of("commitments") == (10, 50)
    assert given.rate_limit_of("tenant_events") == (2500, 10_000), "ours: the guide counts requests only"
    assert (given.rate_limit_mode, given.rate_limit_shared) == ("enforce", False)


def test_every_class_has_its_settings() -> None:
    assert RATE_CLASSES == CLASSES
    assert RATE_LIMITED == LIMITED
    assert settings_room.RATE_REFILL_S_MAX == port.RATE_REFILL_S_MAX
    for rate_class in RATE_LIMITED:
        per_second, burst = settings(
            **{f"rate_limit_{rate_class}_per_second": 0.5, f"rate_limit_{rate_class}_burst": 7}
        ).rate_limit_of(rate_class)
        assert (per_second, burst) == (0.5, 7)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("rate_limit_mode", "maybe", "'enforce' or 'off'"),
        ("rate_limit_public_per_second", "0", "greater than"),
        ("rate_limit_public_per_second", "nan", "less than"),
        ("rate_limit_public_per_second", "inf", "less than"),
        ("rate_limit_public_burst", "0", "greater than"),
        ("rate_limit_commitments_burst", "36001", "brings in an hour"),
        ("rate_limit_tenant_events_per_second", "0", "greater than"),
    ],
)
def test_nonsense_is_refused_by_name_and_with_a_reason(name: str, value: str, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**{name: value})
    [problem] = refused.value.errors()
    assert problem["loc"] == (name,)
    assert reason in problem["msg"]


def test_a_rate_too_low_for_the_usual_burst_is_refused_too() -> None:
    with pytest.raises(ValidationError) as refused:
        settings(rate_limit_events_read_per_second=0.5)
    [problem] = refused.value.errors()
    assert problem["loc"] == ("rate_limit_events_read_burst",)
