"""Whose events are on their way: counted by tenant, whatever becomes of their requests."""

from __future__ import annotations

import pytest

from journal.expected import Expected

ONE, OTHER = b"1" * 16, b"2" * 16


def test_a_tenant_counts_once_until_its_last_request_is_over() -> None:
    expected = Expected()
    with expected.of(ONE):
        with expected.of(ONE), expected.of(OTHER):
            assert len(expected) == 2
        assert len(expected) == 1
        with expected.of(None), expected.of(None):
            assert len(expected) == 2, "one that is not known yet"
    assert len(expected) == 0


def test_a_request_that_fails_is_not_expected_any_more() -> None:
    expected = Expected()
    with pytest.raises(ZeroDivisionError), expected.of(ONE):
        raise ZeroDivisionError
    assert len(expected) == 0
