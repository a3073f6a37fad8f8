"""What a client can be told instead of an answer. Each says what is true afterwards and whether to resend.

Three kinds and no others: the server said no (``Refused``), nobody knows yet (``Unanswered``), and what came
or what is configured cannot be trusted (the rest). All are ``ClientError``, with texts written for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from ves.proofs import Problem


class ClientError(Exception):
    """Any expected failure of the client; its text is fit to be shown."""


class Refused(ClientError):
    """The server answered and said no. Nothing was done; sending the same again gets the same answer.

    Except status 500, a fault of the server: whether something was done is in its log, under the request id.
    """

    def __init__(self, status: int, code: str, message: str, request_id: str) -> None:
        found = f" (request {request_id})" if request_id else ""
        super().__init__(f"{status} {code}: {message}{found}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id


class Unanswered(ClientError):
    """No final answer before the deadline. A write may or may not have been done.

    Resend exactly the same request later: the same bytes, for events the same event_ids. That is harmless
    and tells which.
    """

    def __init__(self, attempts: int, last: str) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(f"no answer after trying {times}; the last time: {last}")
        self.attempts = attempts
        self.last = last


class BadAnswer(ClientError):
    """The answer has not the documented form. Whether a write was done is unknown; resending is harmless."""


class NotVerified(ClientError):
    """What was shown does not hold. The data must not be used; keep it as evidence."""

    def __init__(self, what: str, problems: Sequence[Problem]) -> None:
        super().__init__(f"{what}: " + "; ".join(problem.text for problem in problems))
        self.problems = list(problems)


class PinMismatch(ClientError):
    """The server shows another identity or receipt key than the one pinned earlier. Nothing was sent."""


class InsecureUrl(ClientError):
    """A credential would have crossed the network in clear text, or one side could not verify the other.
    Nothing was done."""


class KeyFileError(ClientError):
    """A file with a key or pins is missing, malformed or readable by others."""
