"""What goes wrong at the door, in one shape: codes, statuses, and one table from exception to answer.

It alone knows the error body and the numeric codes. Nothing here decides whether something is wrong; it
never shows an exception's own text unless the exception was written for the caller.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import msgspec
import trio

from actors.errors import (
    CredentialExpired,
    CredentialRevoked,
    DeadlinePassed,
    DoesNotOpen,
    MailboxFull,
    NotNow,
    OutcomeUnknown,
    Poisoned,
    Stopping,
    TooManyChildren,
    Unavailable,
)
from journal.port import CredentialEnded, JournalAway, JournalOutcomeUnknown


class Code(Enum):
    """(numeric code, usual status). The name is what clients see as ``code`` and ``x-error-code``."""

    AUTH_REQUIRED = (1001, 401)
    INVALID_API_KEY = (1002, 401)
    INVALID_TOKEN = (1003, 401)
    TOKEN_EXPIRED = (1004, 401)
    INSUFFICIENT_PERMISSIONS = (1005, 403)
    ADMIN_IP_DENIED = (1006, 403)
    WRONG_REGION = (1007, 421)
    RATE_LIMIT_EXCEEDED = (2001, 429)
    INVALID_REQUEST_BODY = (3001, 400)
    MISSING_REQUIRED_FIELD = (3002, 400)
    INVALID_FIELD_VALUE = (3003, 400)
    PAYLOAD_TOO_LARGE = (3004, 413)
    BATCH_TOO_LARGE = (3005, 413)
    SCHEMA_VALIDATION_FAILED = (3006, 400)
    SCHEMA_NOT_FOUND = (3007, 404)
    METHOD_NOT_ALLOWED = (3008, 405)
    UNSUPPORTED_MEDIA_TYPE = (3009, 415)
    REQUEST_TIMEOUT = (3010, 408)
    MALFORMED_REQUEST = (3011, 400)
    RESOURCE_NOT_FOUND = (4001, 404)
    EVENT_NOT_FOUND = (4002, 404)
    BATCH_NOT_FOUND = (4003, 404)
    AGENT_KEY_NOT_FOUND = (4005, 404)
    ALREADY_EXISTS = (5004, 409)
    CONFLICT = (5005, 409)
    SIGNATURE_VERIFICATION_FAILED = (6002, 400)
    INVALID_PUBLIC_KEY = (6003, 400)
    SERVICE_UNAVAILABLE = (8002, 503)
    TIMEOUT = (8003, 504)
    OUTCOME_UNKNOWN = (8004, 503)
    NOT_READY = (8005, 503)
    NOT_IMPLEMENTED = (8006, 501)
    INTERNAL_ERROR = (8999, 500)
    ANCHOR_NOT_CONFIGURED = (9001, 503)

    @property
    def numeric(self) -> int:
        return self.value[0]

    @property
    def status(self) -> int:
        return self.value[1]


class ErrorDetail(msgspec.Struct, omit_defaults=True):
    """``retry_after`` is in whole seconds, the same as the ``Retry-After`` header."""

    code: str
    numeric_code: int
    message: str
    request_id: str
    retry_after: int | msgspec.UnsetType = msgspec.UNSET
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct):
    """The one shape of every error. ``message`` repeats ``error.message`` for clients that read it there."""

    error: ErrorDetail
    message: str


class ApiError(Exception):
    """A refusal for the caller to read. ``status`` only where it is not the code's usual one."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        details: dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or code.status
        self.retry_after_s = retry_after_s
        self.details = details
        self.extra_headers = headers

    def headers(self) -> list[tuple[str, str]]:
        headers = [("x-error-code", self.code.name), *self.extra_headers]
        if self.retry_after_s is not None:
            headers.append(("retry-after", str(_whole_seconds(self.retry_after_s))))
        if self.status == 401 or self.code is Code.INSUFFICIENT_PERMISSIONS:
            headers.append(("www-authenticate", f"{_bearer(self.code)}, ApiKey"))
        return headers

    def body(self, request_id: str) -> bytes:
        detail = ErrorDetail(self.code.name, self.code.numeric, self.message, request_id)
        if self.retry_after_s is not None:
            detail.retry_after = _whole_seconds(self.retry_after_s)
        if self.details is not None:
            detail.details = self.details
        return msgspec.json.encode(ErrorBody(detail, self.message))


def _bearer(code: Code) -> str:
    """The challenge of RFC 6750 section 3; without an error when no credential came."""
    if code is Code.AUTH_REQUIRED:
        return 'Bearer realm="sequencer"'
    error = "insufficient_scope" if code is Code.INSUFFICIENT_PERMISSIONS else "invalid_token"
    return f'Bearer realm="sequencer", error="{error}"'


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))


RESEND = "; send the same request again: it is harmless and tells which"

_NOT_NOW: list[tuple[type[Exception], Code, str]] = [
    # First match wins: subclasses before their parents. Our own texts, because the exceptions' may name
    # actors, other tenants or the database's address; they are in the log.
    (CredentialExpired, Code.INVALID_API_KEY, "the API key has expired"),
    (CredentialRevoked, Code.INVALID_API_KEY, "the credential was revoked"),
    (CredentialEnded, Code.INVALID_API_KEY, "the API key was revoked or has expired"),
    (DeadlinePassed, Code.TIMEOUT, "no answer in time; it may or may not have been done" + RESEND),
    (OutcomeUnknown, Code.OUTCOME_UNKNOWN, "it may or may not have been done" + RESEND),
    (MailboxFull, Code.SERVICE_UNAVAILABLE, "too many requests are waiting; nothing was done"),
    (Stopping, Code.SERVICE_UNAVAILABLE, "this node is stopping; nothing was done"),
    (TooManyChildren, Code.SERVICE_UNAVAILABLE, "too many tenants are active; nothing was done"),
    (
        Poisoned,
        Code.SERVICE_UNAVAILABLE,
        "parts of the service failed on this very request; nothing was done",
    ),
    (Unavailable, Code.SERVICE_UNAVAILABLE, "a part of the service is not available; nothing was done"),
    (NotNow, Code.SERVICE_UNAVAILABLE, "not available now"),
    (JournalAway, Code.SERVICE_UNAVAILABLE, "the database is not available; nothing was done"),
    (JournalOutcomeUnknown, Code.OUTCOME_UNKNOWN, "it may or may not have been done" + RESEND),
    (trio.TooSlowError, Code.TIMEOUT, "no answer in time; it may or may not have been done" + RESEND),
]

EXPECTED = tuple(kind for kind, _, _ in _NOT_NOW)
"""The exceptions ``answer_to`` has a row for; everything else is a surprise."""

JOURNAL_PAUSE_S = 2.0
"""What we tell callers to wait when the journal, which gives no guess of its own, is away."""


def answer_to(error: Exception, *, operator: bool = False) -> ApiError:
    """The row of the table for an exception of ``EXPECTED``. Operators of the node are told why a stored row
    does not open, because only they can help."""
    code, text = next((code, text) for kind, code, text in _NOT_NOW if isinstance(error, kind))
    if code.status == 401:
        return ApiError(code, text)
    retry_after_s = error.retry_after_s if isinstance(error, NotNow) else JOURNAL_PAUSE_S
    if isinstance(error, DoesNotOpen):
        details = {"reason": str(error)} if operator else None
        return ApiError(code, error.for_callers, retry_after_s=retry_after_s, details=details)
    return ApiError(code, text, retry_after_s=retry_after_s)


def internal_error() -> ApiError:
    return ApiError(Code.INTERNAL_ERROR, "internal error; the request id finds it in the server's log")
