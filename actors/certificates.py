"""The certificates in use, and the actor that notices when their files were replaced.

Alone decides which certificate the next handshake gets. Open connections keep what they began with. A new
pair that cannot be used changes nothing: the old one stays in use, and a security event says why. Whoever
replaces two files does it one after the other, so a change is tried when it has stood still for one look.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

import structlog

from actors.mailbox import Inbox
from actors.security_events import SecurityEvents
from config.certificates import Certificate, CertificateError, CertificateFiles, Listener, load

LOOK_S = 2.0
EXPIRES_SOON_S = 14 * 86_400.0

log = structlog.get_logger("certificates")


class Pair:
    """One listener's certificate, now and next."""

    def __init__(self, listener: Listener, files: CertificateFiles) -> None:
        """Raises CertificateError: with what cannot be used nobody starts."""
        self.listener = listener
        self.files = files
        self.tried = self.seen = files.signature()
        self.certificate: Certificate = load(files)

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        return self.certificate.context

    def changed(self) -> bool:
        """The files differ from those tried last, and stood still since the last look."""
        before, self.seen = self.seen, self.files.signature()
        return self.seen == before and self.seen != self.tried

    def replace(self) -> None:
        """Raises CertificateError; then all is as before."""
        self.tried = self.files.signature()
        self.certificate = load(self.files)


class Certificates:
    """The pairs of all listeners that speak TLS; none: nobody does."""

    def __init__(
        self,
        files: Mapping[Listener, CertificateFiles],
        *,
        security: SecurityEvents,
        now_s: Callable[[], float],
    ) -> None:
        """``now_s``: seconds since 1970. Raises CertificateError."""
        self._security = security
        self._now_s = now_s
        self._heard_by: list[Callable[[Listener], None]] = []
        self._pairs = {listener: Pair(listener, its) for listener, its in files.items()}
        for pair in self._pairs.values():
            self._warn_of_age(pair)

    def context_of(self, listener: Listener) -> Callable[[], ssl.SSLContext] | None:
        """Answers the context of the moment; None: this listener speaks plain HTTP."""
        pair = self._pairs.get(listener)
        return None if pair is None else pair.context

    def certificate_of(self, listener: Listener) -> Callable[[], Certificate] | None:
        """Answers the pair of the moment; None: this listener speaks plain HTTP."""
        pair = self._pairs.get(listener)
        return None if pair is None else lambda: pair.certificate

    def tell(self, hear: Callable[[Listener], None]) -> None:
        """``hear`` is called after a pair was replaced."""
        self._heard_by.append(hear)

    def files_of(self, listener: Listener) -> CertificateFiles | None:
        pair = self._pairs.get(listener)
        return None if pair is None else pair.files

    def seconds_left(self) -> dict[Listener, float]:
        """Until each expires; negative when it has."""
        now_s = self._now_s()
        return {name: pair.certificate.not_after_s - now_s for name, pair in self._pairs.items()}

    def look(self) -> None:
        """Take over what was replaced since."""
        for pair in self._pairs.values():
            if pair.changed():
                self._replace(pair)

    def reload(self) -> None:
        """Read all files now, changed or not: somebody asked."""
        for pair in self._pairs.values():
            self._replace(pair)

    def _replace(self, pair: Pair) -> None:
        try:
            pair.replace()
        except CertificateError as error:
            self._security.happened("certificate_refused", listener=pair.listener, reason=str(error))
        else:
            self._security.happened("certificate_reloaded", listener=pair.listener)
            for hear in self._heard_by:
                hear(pair.listener)
            self._warn_of_age(pair)

    def _warn_of_age(self, pair: Pair) -> None:
        left_s = pair.certificate.not_after_s - self._now_s()
        if left_s < EXPIRES_SOON_S:
            log.warning(
                "certificate expires soon" if left_s > 0 else "certificate has expired",
                listener=pair.listener,
                file=str(pair.files.cert),
                days_left=round(left_s / 86_400, 1),
            )


class CertificateWatcher:
    """Looks at the files every few seconds; nobody writes to it."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    async def run(self, inbox: Inbox) -> None:
        while True:
            await inbox.pause(LOOK_S)
            self._certificates.look()
