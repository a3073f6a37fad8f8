"""The hostile texts and bytes: what goes into every field, every body and every header."""

from __future__ import annotations

SQL = (
    "' OR '1'='1",
    "'; DROP TABLE record.ves_events; --",
    '"; SELECT pg_sleep(5); --',
    "1) UNION SELECT key_hash FROM record.api_keys --",
    "$1",
    "\\'; COPY record.ves_events TO PROGRAM 'id' --",
    "x' AND (SELECT 1/0) --",
)
LOG = (
    'x\r\n{"event":"security_event","kind":"forged"}',
    "x\n2026-01-01T00:00:00Z [error] forged line",
    "\x1b[2J\x1b[31mforged",
    "%s%n%x{event}${jndi:ldap://127.0.0.1/a}",
    "x\u2028forged\u2029x\x85x",
)
PATHS = (
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/proc/self/environ",
    "C:\\x",
    "file:///etc/passwd",
)
TEMPLATES = ("{{7*7}}", "${7*7}", "<script>alert(1)</script>", "{0.__class__}", "%(secret)s")
ODD = ("", " ", "null", "NaN", "-1", "0x", "1e400", "9" * 400, "é" * 300, "\ud800", "a\x00b", "x" * 70_000)

INJECTIONS = SQL + LOG + PATHS + TEMPLATES

WRONG_TYPES = (None, True, 0, -1, 1.5, 1e300, 2**70, "", "x", [], [None], {}, {"$ne": 1}, [[[[]]]])

BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "two documents": b"{}{}",
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 20_000,
    "doubled members": b'{"tenantId":"a","tenantId":"b"}',
    "not UTF-8": b'{"tenantId":"\xff\xfe"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "U+0000": b'{"tenantId":"\\u0000"}',
    "half a surrogate": b'{"tenantId":"\\ud800"}',
    "a huge number": b'{"keyId":' + b"9" * 50_000 + b"}",
    "an exponent": b'{"keyId":1e999999999}',
    "NaN": b'{"keyId":NaN}',
    "BOM": b"\xef\xbb\xbf{}",
    "many members": b"{" + b",".join(b'"m%d":1' % n for n in range(5000)) + b"}",
    "prototype": b'{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}',
}

OF_UNKNOWN_MEMBERS = ("many members", "prototype", "U+0000", "half a surrogate")

CONTENT_TYPES = (
    "",
    "text/plain",
    "application/xml",
    "multipart/form-data; boundary=x",
    "application/json\x0b",
    "*/*",
)
