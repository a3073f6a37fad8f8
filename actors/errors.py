"""«Not now»: the named exceptions that reach one table in the door, from exception to status.

Each says what is true afterwards and whether to ask again. A refusal (the asker's doing) is never one of
these, it is a value in the answer; a surprise is neither: it kills the incarnation.
"""

from __future__ import annotations


class NotNow(Exception):
    """The answer is not available now. ``retry_after_s`` is an honest guess of when to ask again."""

    def __init__(self, text: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class MailboxFull(NotNow):
    """The letter was not accepted; nothing was done. Ask again after a pause."""


class Unavailable(NotNow):
    """Something we depend on is away; nothing was done, for certain. Ask again after a pause."""


class DoesNotOpen(Unavailable):
    """What is stored at a row does not become a plaintext; nothing was done. Asking again helps only after an
    operator has acted: the text, with the reason, is for operators, ``for_callers`` for whoever may read the
    row."""

    def __init__(self, row: str, why: str) -> None:
        super().__init__(f"{row} does not open: {why}", retry_after_s=60.0)
        self.for_callers = f"{row} does not open: its key is missing from the ring, or the row was changed"


class Stopping(NotNow):
    """The house is closing; the letter was not taken; nothing was done. Ask another node or later."""


class TooManyChildren(NotNow):
    """A dynamic supervisor is at its bound; nothing was done. Ask again after a pause."""


class Poisoned(NotNow):
    """Lives ended with this message in hand; it is harmless to do twice and was not done. Handed out again
    only after ``retry_after_s``; somebody should look at it (dead letters) before."""


class OutcomeUnknown(NotNow):
    """It may or may not have been done. Sending the same request again is harmless and tells which."""


class DeadlinePassed(OutcomeUnknown):
    """No answer within the asker's deadline. As for OutcomeUnknown: send the same request again."""


class CredentialRevoked(NotNow):
    """The credential was revoked between the door and the sequencer; nothing was done. Do not retry."""


class CredentialExpired(CredentialRevoked):
    """The credential has expired by the database's clock; nothing was done. Do not retry."""
