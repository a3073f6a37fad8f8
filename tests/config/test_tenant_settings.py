"""How many tenants may be alive, and how many of them idle: whoever comes must find a place."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from config.settings import Settings


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, 2000),
        ({"tenants_max": 100}, 75),
        ({"tenants_max": 1}, 1),
        ({"tenants_max": 20_000}, 2000),
        ({"tenants_idle_max": 7500}, 7500),
        ({"tenants_max": 20_000, "tenants_idle_max": 15_000}, 15_000),
    ],
)
def test_so_many_idle_ones_are_kept(given: dict[str, int], kept: int) -> None:
    assert settings(**given).idle_tenants_kept == kept


@pytest.mark.parametrize(
    "given",
    [
        {"tenants_idle_max": 7501},
        {"tenants_max": 100, "tenants_idle_max": 76},
        {"tenants_max": 1, "tenants_idle_max": 2},
    ],
)
def test_idle_ones_that_would_leave_no_room_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**given)
    [problem] = refused.value.errors()
    assert problem["loc"] == ("tenants_idle_max",)
    assert "lower it, or raise TENANTS_MAX" in problem["msg"]
