"""The stages of an agent key's life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ves.key_life import LIVES, life_of, unfit
from ves.records import KeyStatus

moments = st.none() | st.integers(0, 100)
keys = st.builds(KeyStatus, moments, moments, st.booleans(), moments, st.integers(0, 100))


def test_each_stage_is_what_its_name_says() -> None:
    for key, life in [
        (KeyStatus(None, None, True, 5, 0), "revoked"),
        (KeyStatus(None, None, False, 49, 0), "retired"),
        (KeyStatus(None, None, False, 50, 0), "retiring"),
        (KeyStatus(None, 49, False, None, 0), "expired"),
        (KeyStatus(51, None, False, None, 0), "pending"),
        (KeyStatus(None, None, False, None, 9), "overdue"),
        (KeyStatus(None, None, False, None, 10), "expiring"),
        (KeyStatus(None, None, False, None, 15), "expiring"),
        (KeyStatus(None, None, False, None, 16), "active"),
        (KeyStatus(40, None, False, None, 9), "active"),
        (KeyStatus(None, 55, False, None, 50), "expiring"),
        (KeyStatus(None, 56, False, None, 50), "active"),
    ]:
        assert life_of(key, 50, age_max_us=40, soon_us=5) == life, key
    assert life_of(KeyStatus(None, None, False), 50, age_max_us=None, soon_us=5) == "active"


@given(keys, st.integers(0, 120), st.none() | st.integers(0, 50))
def test_a_key_may_sign_exactly_in_the_stages_that_say_so(
    key: KeyStatus, now_us: int, age_max_us: int | None
) -> None:
    life = life_of(key, now_us, age_max_us=age_max_us, soon_us=5)
    assert life in LIVES
    signs = unfit(key, now_us, age_max_us=None) is None
    if life == "retiring":
        return  # its own window may not have begun or may be over
    assert signs == (life in ("active", "expiring", "overdue"))
    enforced = unfit(key, now_us, age_max_us=age_max_us) is None
    assert enforced == (life in ("active", "expiring"))
