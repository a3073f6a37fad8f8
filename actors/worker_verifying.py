"""What a verifier's process does: whole request bodies in, verified batches out.

Remembers public keys, which never change once bound to a name; that a name has none is never remembered,
because it may be registered a moment later. Judges ``created_at`` by its own machine's clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from actors.worker_wire import BecomeVerifier, VerifyAnswer, VerifyBody
from ves.records import KeyName
from ves.verification import verify_body


def _now_us() -> int:
    return time.time_ns() // 1000


_request: msgspec.msgpack.Decoder[VerifyBody] = msgspec.msgpack.Decoder(VerifyBody)


class Verifying:
    """One process's memory of bindings, least recently used ones forgotten."""

    public_key = b""

    def __init__(self, become: BecomeVerifier, *, now_us: Callable[[], int] = _now_us) -> None:
        self._now_us = now_us
        self._bindings_max = become.bindings_max
        self._bindings: OrderedDict[KeyName, bytes] = OrderedDict()

    def answer(self, body: bytes) -> VerifyAnswer:
        request = _request.decode(body)
        self._bindings.update(request.found)
        answer = verify_body(
            request.body,
            request.scope,
            self._public_key_of,
            now_us=self._now_us(),
            unknown=frozenset(request.absent),
        )
        while len(self._bindings) > self._bindings_max:  # only now: this call may need all of its own
            self._bindings.popitem(last=False)
        return answer

    def _public_key_of(self, name: KeyName) -> bytes | None:
        public_key = self._bindings.get(name)
        if public_key is not None:
            self._bindings.move_to_end(name)
        return public_key
