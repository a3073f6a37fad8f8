"""What a new API key looks like, and that every slip of the fingers shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from transport.http.key_format import SCANNER, checksum, new_key, shown, trouble

KNOWN = "sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV"


def test_the_checksum_is_crc32_in_base_62_so_that_others_can_compute_it() -> None:
    # zlib.crc32(KNOWN) = 1960926955 = 2·62⁵ + 8·62⁴ + 43·62³ + 52·62² + 42·62 + 7, in 0-9A-Za-z
    assert checksum(KNOWN) == "28hqg7"
    assert checksum("") == "000000"
    assert trouble(KNOWN + checksum(KNOWN), "live") is None


def test_every_new_key_is_another_and_fits() -> None:
    keys = {new_key("live") for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert trouble(key, "live") is None
        assert re.fullmatch(SCANNER, key)
        assert len(key) - len(shown(key)) == 34, "28 random characters and the checksum stay unknown"


def test_every_wrong_swapped_or_missing_character_is_noticed() -> None:
    key = new_key("test")
    for place in range(len(key)):
        for other in "0aZ_-":
            if other != key[place]:
                assert trouble(key[:place] + other + key[place + 1 :], "test"), place
        assert trouble(key[:place] + key[place + 1 :], "test")
        if place and key[place] != key[place - 1]:
            swapped = key[: place - 1] + key[place] + key[place - 1] + key[place + 1 :]
            assert trouble(swapped, "test")
    for wrong in (key + "0", key[:-1], "sk_", "sk_live_", key + "\n", key.replace("test", "prod")):
        assert "mistyped or cut" in str(trouble(wrong, "test"))


@pytest.mark.parametrize(("key", "node"), [("live", "test"), ("test", "live")])
def test_a_key_of_the_other_kind_is_told_so(key: str, node: str) -> None:
    text = trouble(new_key(key), node)  # type: ignore[arg-type]
    assert text == f"it is a {key} key, and this server takes {node} keys only"


def test_a_scanner_finds_a_key_in_any_text_and_nothing_else() -> None:
    key = new_key("live")
    assert re.findall(SCANNER, f'curl -H "Authorization: Bearer {key}" # {key}.') == [key, key]
    assert not re.search(SCANNER, f"x{key} sk_live_short {key}0 {shown(key)}")


def test_the_pattern_and_the_example_in_the_document_are_the_programs() -> None:
    page = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    assert f"`{SCANNER}`" in page
    (example,) = re.findall(SCANNER, page)
    assert trouble(example, "live") is None
