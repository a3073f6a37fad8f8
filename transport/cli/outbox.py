"""Signed events between signing and their receipts: a file beside the agent's key, so that none is signed
twice.

Alone owns ``KEYFILE.outbox``. It is complete on disk before the first event is sent and removed after the
last verdict; as long as it exists no other events are signed with this key by the command. Resending it is
harmless. Never sends anything itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from transport.client.errors import ClientError
from transport.client.wire import UNREADABLE, Envelope, encode

REQUEST_BYTES_MAX = 8 * 1024 * 1024
"""Below the server's body limit of 10 MiB."""


class Outbox:
    def __init__(self, key_file: Path) -> None:
        self.path = key_file.with_name(key_file.name + ".outbox")

    def fill(self, envelopes: Sequence[Envelope]) -> None:
        """All of them are on disk, or ClientError because an earlier post is not finished."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".outbox-") as draft:
                draft.writelines(encode(envelope) + b"\n" for envelope in envelopes)
                draft.flush()
                os.fsync(draft.fileno())
                os.link(draft.name, self.path)  # appears complete or not at all, and only if there is none
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise ClientError(
                f"{self.path} holds the signed events of a post that did not finish: send them with "
                "--resume, or delete the file to forget them"
            ) from None
        except OSError as error:
            raise ClientError(f"{self.path} cannot be written: {error.strerror}") from error

    def load(self) -> list[Envelope]:
        try:
            lines = self.path.read_bytes().splitlines()
            return [msgspec.json.decode(line, type=Envelope) for line in lines]
        except FileNotFoundError:
            raise ClientError(f"there is nothing to resume: {self.path} does not exist") from None
        except (OSError, *UNREADABLE) as error:
            raise ClientError(f"{self.path} cannot be read: {error}") from error

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def requests(envelopes: Sequence[Envelope], events_max: int) -> Iterator[list[Envelope]]:
    """The envelopes in order, cut into requests by count and by size."""
    batch: list[Envelope] = []
    size = 0
    for envelope in envelopes:
        length = len(encode(envelope)) + 1
        if batch and (len(batch) == events_max or size + length > REQUEST_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(envelope)
        size += length
    if batch:
        yield batch
