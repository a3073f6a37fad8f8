"""The file format age v1 with a passphrase (age-encryption.org/v1, C2SP): what a backup is encrypted with.

``SealingWriter`` and ``OpeningReader`` are streams: 64 KiB at a time, each piece authenticated, the last one
marked as the last, so that a file that was changed, cut or lengthened is never taken for whole. Any age
program opens what is written here (``age -d``). Pure but for the random bytes of a new file.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

VERSION_LINE: Final = b"age-encryption.org/v1\n"
CHUNK_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
SALT_BYTES: Final = 16
WORK_FACTOR: Final = 18
"""log2 of scrypt's N, as the age command has it: 256 MiB and about a second for each guess."""
WORK_FACTOR_MAX: Final = 22
"""A file that asks for more wants our memory."""
_HEADER_BYTES_MAX = 4096
_NO_NONCE = bytes(12)


class AgeError(Exception):
    """The file is not what was written, or the passphrase is not the one; the text says which and where."""


class SealingWriter:
    """Everything written is encrypted into ``out``. Whole only after ``finish``."""

    def __init__(self, out: BinaryIO, passphrase: str, *, work_factor: int = WORK_FACTOR) -> None:
        self._out = out
        self._pending = bytearray()
        self._counter = 0
        file_key, salt, nonce = (secrets.token_bytes(16) for _ in range(3))
        wrapped = ChaCha20Poly1305(_wrapping_key(passphrase, salt, work_factor)).encrypt(
            _NO_NONCE, file_key, None
        )
        stanza = b"-> scrypt %s %d\n%s\n---" % (_base64(salt), work_factor, _base64(wrapped))
        header = VERSION_LINE + stanza
        out.write(header + b" " + _base64(_header_mac(file_key, header)) + b"\n" + nonce)
        self._cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))

    def write(self, data: bytes) -> int:
        self._pending += data
        while len(self._pending) > CHUNK_BYTES:  # the last one is kept back: it is sealed as the last
            self._seal(bytes(self._pending[:CHUNK_BYTES]), last=False)
            del self._pending[:CHUNK_BYTES]
        return len(data)

    def flush(self) -> None:
        """Nothing to do: what is pending waits for its piece to be full."""

    def finish(self) -> None:
        self._seal(bytes(self._pending), last=True)

    def _seal(self, piece: bytes, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_piece_nonce(self._counter, last), piece, None))
        self._counter += 1


class OpeningReader:
    """Reads what ``SealingWriter``, or any age program with a passphrase, wrote. Raises AgeError; whatever
    was read before was written so, and the file is whole once ``read`` has answered nothing."""

    def __init__(self, source: BinaryIO, passphrase: str) -> None:
        file_key = _file_key(source, passphrase)
        nonce = source.read(16)
        self._source = source
        self._cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
        self._ahead = source.read(CHUNK_BYTES + TAG_BYTES)
        self._ready = bytearray()
        self._counter = 0
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        while not self._ended and (size < 0 or len(self._ready) < size):
            self._open_next()
        cut = len(self._ready) if size < 0 else size
        answer = bytes(self._ready[:cut])
        del self._ready[:cut]
        return answer

    def _open_next(self) -> None:
        piece, self._ahead = self._ahead, b""
        if len(piece) == CHUNK_BYTES + TAG_BYTES:
            self._ahead = self._source.read(CHUNK_BYTES + TAG_BYTES)
        last = not self._ahead
        try:
            opened = self._cipher.decrypt(_piece_nonce(self._counter, last), piece, None)
        except (InvalidTag, ValueError):
            place = f"at byte {self._counter * CHUNK_BYTES} of its content"
            raise AgeError(f"the file was changed or cut {place}: it is not what was written") from None
        if last and not opened and self._counter:
            raise AgeError("the file ends with an empty piece: it is not what was written")
        self._ready += opened
        self._counter += 1
        self._ended = last


def _file_key(source: BinaryIO, passphrase: str) -> bytes:
    header = b""
    while not header.endswith(b"\n") or b"\n--- " not in header:
        byte = source.readline(_HEADER_BYTES_MAX)
        header += byte
        if not byte or len(header) > _HEADER_BYTES_MAX:
            raise AgeError("this is no age file: its header is cut or no header")
        if not header.startswith(VERSION_LINE):
            raise AgeError("this is no age file (age-encryption.org/v1)")
    found = re.fullmatch(
        rb"age-encryption\.org/v1\n-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n"
        rb"([A-Za-z0-9+/]{43})\n--- ([A-Za-z0-9+/]{43})\n",
        header,
    )
    if found is None:
        raise AgeError("this age file is not encrypted with a passphrase")
    work_factor = int(found[2])
    if work_factor > WORK_FACTOR_MAX:
        raise AgeError(
            f"this age file asks for a work factor of {work_factor}; up to {WORK_FACTOR_MAX} is done"
        )
    key = _wrapping_key(passphrase, _unbase64(found[1]), work_factor)
    try:
        file_key = ChaCha20Poly1305(key).decrypt(_NO_NONCE, _unbase64(found[3]), None)
    except InvalidTag:
        raise AgeError("the passphrase is not the one this file was encrypted with") from None
    signed = header[: header.index(b"\n--- ") + 4]
    if not hmac.compare_digest(_header_mac(file_key, signed), _unbase64(found[4])):
        raise AgeError("the header of this age file was changed")
    return file_key


def _wrapping_key(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    kdf = Scrypt(salt=b"age-encryption.org/v1/scrypt" + salt, length=32, n=1 << work_factor, r=8, p=1)
    return kdf.derive(passphrase.encode())


def _header_mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derived(file_key, b"", b"header"), header, "sha256")


def _derived(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)


def _piece_nonce(counter: int, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + bytes([last])


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    """Refuses another spelling of the same bytes: every changed bit is to be noticed."""
    raw = base64.b64decode(text + b"=" * (-len(text) % 4))
    if _base64(raw) != text:
        raise AgeError("the header of this age file was changed")
    return raw
