"""A small mutator for the tests of every run: the same bytes for the same number, no coverage to guide it.

It keeps what parsers live on: texts are cut, doubled, joined with their neighbours', and filled with the
words that readers disagree about. The long runs are atheris' (``python -m tests.fuzz``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

WORDS = (
    *(b"null", b"true", b"-0", b"1e400", b"9007199254740993", b"1" * 5000, b"1.0", b"NaN", b"0x", b"\\ud800"),
    *(
        b"\\u0000",
        b"\xff",
        b"\xed\xa0\x80",
        b"\x00",
        b'"',
        b"{}",
        b"[]",
        b"[" * 40,
        b"[" * 20_000,
        b'{"a":' * 300,
    ),
    *(
        b",",
        b":",
        b"=",
        b"&",
        b"%00",
        b"%ff",
        b"+",
        b" ",
        b"\r\n",
        b"\r\n\r\n",
        b".",
        b"-",
        b"_",
        b"::",
        b"%25",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n"),
    *("\u2212".encode(), "\u0661".encode(), "\U0001f511".encode(), b"0000", b"60", b"99999999999999999999"),
)


def mutations(seeds: Sequence[bytes], *, seed: int, bytes_max: int) -> Iterator[bytes]:
    """Without end; the seeds themselves come first."""
    yield from seeds
    random = Random(seed)
    while True:
        data = bytearray(random.choice(seeds))
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            random.choice(_STEPS)(data, seeds, random)
        yield bytes(data[:bytes_max])


def _at(data: bytearray, random: Random) -> int:
    return random.randrange(len(data) + 1)


def _flip(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _byte(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _cut(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    at = _at(data, random)
    del data[at : at + random.choice((1, 1, 2, 8, 64))]


def _end(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    del data[_at(data, random) :]


def _double(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    at, length = _at(data, random), random.choice((1, 2, 8, 64, 400))
    data[at:at] = data[at : at + length]


def _word(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    at = _at(data, random)
    data[at : at + random.choice((0, 0, 1, 4))] = random.choice(WORDS)


def _value(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    """Another word in the place of a member's value."""
    colon = data.find(b":", _at(data, random))
    if colon >= 0:
        ends = [end for mark in (b",", b"}", b"\r") if (end := data.find(mark, colon)) >= 0]
        data[colon + 1 : min(ends, default=len(data))] = random.choice(WORDS)


def _splice(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    other = random.choice(seeds)
    data[_at(data, random) :] = other[random.randrange(len(other) + 1) :]


_STEPS = (_flip, _byte, _cut, _end, _double, _word, _value, _splice)
