"""The primitive encodings of VES section 1: integers, strings, UUIDs, hex and base64url.

It alone decides which spellings are read and which one is written. Readers raise ``ValueError`` with a text
that says what was expected; writers always give the one canonical spelling. Nothing here hashes or signs.
"""

from __future__ import annotations

import binascii
import re

_SIMPLE_OR_HYPHENATED = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def u32(value: int) -> bytes:
    """U32 of VES 1.2: 4 bytes, big-endian. OverflowError outside 0..2**32-1."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """U64 of VES 1.2: 8 bytes, big-endian. OverflowError outside 0..2**64-1."""
    return value.to_bytes(8, "big")


def string(text: str) -> bytes:
    """S(x) of VES 1.3: U32 of the byte length, then UTF-8. UnicodeEncodeError for lone surrogates."""
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw


def uuid_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID (VES 1.1): hyphenated, 32 digits, ``urn:uuid:`` or ``{braced}``, any case."""
    # The common spelling first. fromhex skips ASCII white space, which is why all lengths are checked:
    # 36 characters with hyphens at these four places leave exactly 32, and 16 bytes need all of them.
    if len(text) == 36 and text[8:24:5] == "----":
        try:
            raw = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            raise _not_a_uuid(text) from None
        if len(raw) == 16:
            return raw
    bare = text
    if text[:9].lower() == "urn:uuid:":
        bare = text[9:]
    elif text[:1] == "{" and text[-1:] == "}":
        bare = text[1:-1]
    if not _SIMPLE_OR_HYPHENATED.fullmatch(bare):
        raise _not_a_uuid(text)
    return bytes.fromhex(bare.replace("-", ""))


def _not_a_uuid(text: str) -> ValueError:
    return ValueError(f"not a UUID: {text[:64]!r}")


def uuid_text(raw: bytes | bytearray) -> str:
    """16 bytes as a lowercase hyphenated UUID."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def hex_bytes(text: str, length: int) -> bytes:
    """Exactly ``length`` bytes from hex, any case, with or without ``0x`` (VES 1.4); ``0X`` is refused."""
    digits = text[2:] if text[:2] == "0x" else text
    if len(digits) == 2 * length:
        try:
            return binascii.unhexlify(digits)  # which, unlike fromhex, skips nothing
        except ValueError:
            pass
    raise ValueError(f"expected {2 * length} hex digits, optionally after 0x")


def bare_hex_bytes(text: str, length: int) -> bytes:
    """Like ``hex_bytes`` but without ``0x``: bodies of proof checks and legacy hashes (VES 1.4)."""
    if text[:2] == "0x":
        raise ValueError(f"expected {2 * length} hex digits without 0x")
    return hex_bytes(text, length)


def strict_hex_bytes(text: str, length: int) -> bytes:
    """Only the spelling we write in envelopes: ``0x`` and lowercase digits (VES 1.4, strict mode)."""
    raw = hex_bytes(text, length)
    if text != prefixed_hex(raw):
        raise ValueError(f"expected 0x and {2 * length} lowercase hex digits")
    return raw


def prefixed_hex(raw: bytes) -> str:
    """``0x`` and lowercase digits: hashes and signatures of an event envelope (VES 1.4)."""
    return "0x" + raw.hex()


def base64url(raw: bytes) -> str:
    """Unpadded base64url (VES 1.5, RFC 4648 section 5)."""
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=").translate(_TO_URL).decode()


_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def base64url_bytes(text: str) -> bytes:
    """Bytes of base64url, unpadded or correctly padded (VES 1.5).

    Refused: the ``+ /`` alphabet, white space, wrong padding and non-zero trailing bits, so that two texts
    of the same padding never mean the same bytes.
    """
    bare = text.rstrip("=")
    padding = len(text) - len(bare)
    if not _BASE64URL.fullmatch(bare) or (padding and (padding > 2 or len(text) % 4)):
        raise ValueError("must be base64url")
    try:
        raw = binascii.a2b_base64(bare.encode().translate(_FROM_URL) + b"=" * (-len(bare) % 4))
    except binascii.Error:
        raise ValueError("must be base64url") from None
    if base64url(raw) != bare:
        raise ValueError("must be base64url")
    return raw


def base64_bytes(text: str) -> bytes:
    """Bytes of base64 in any of its four usual spellings: either alphabet, padded correctly or not at all;
    blanks around it do not count. Refused: a text that mixes the alphabets, anything between the digits, and
    non-zero trailing bits."""
    whole = text.strip()
    digits = whole.rstrip("=")
    padding = len(whole) - len(digits)
    if ("+" in digits or "/" in digits) and ("-" in digits or "_" in digits):
        raise ValueError("the standard and the URL-safe alphabet are mixed")
    try:
        if padding and (padding > 2 or len(whole) % 4):
            raise ValueError
        plain = digits.encode("ascii").translate(_FROM_URL)
        raw = binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
        if (rest := len(raw) % 3) and not plain.endswith(
            binascii.b2a_base64(raw[-rest:], newline=False).rstrip(b"=")
        ):
            raise ValueError
    except ValueError:  # also binascii.Error and UnicodeEncodeError
        wanted = "expected the standard or the URL-safe alphabet, padded correctly or not at all"
        raise ValueError(wanted) from None
    return raw
