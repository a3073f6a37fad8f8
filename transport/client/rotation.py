"""A new key in an agent's key file, so that no crash leaves the agent without a key that works.

    KEYFILE.next         the new key: durable before the server hears of it
                         (the server registers it and says until when the old one works)
    KEYFILE.old-KEYID    the old key, under a second name
    KEYFILE              the new key, by one rename

Begun again it goes on with the key that waits in ``.next``. Alone owns these names; sends nothing itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from config.files import sync_folder
from transport.client.agent import Agent
from transport.client.errors import KeyFileError


class KeyChange:
    """The change of one key file. ``waiting``: the new key of a change that was begun and not ended."""

    def __init__(self, key_file: Path) -> None:
        self.key_file = key_file
        self.agent = Agent.load(key_file)
        self.next_path = key_file.with_name(f"{key_file.name}.next")
        self.old_path = key_file.with_name(f"{key_file.name}.old-{self.agent.name.key_id}")

    def waiting(self) -> Agent | None:
        if not self.next_path.exists():
            return None
        new = Agent.load(self.next_path)
        if new.name[:2] != self.agent.name[:2] or new.name.key_id == self.agent.name.key_id:
            raise KeyFileError(f"{self.next_path} is no successor of {self.key_file}; move it away first")
        return new

    def prepare(self, key_id: int) -> Agent:
        """A new key under this id, durable in ``.next``; or the one that waits there, whatever its id."""
        draft = self.key_file.with_name(f"{self.next_path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        Agent.generate(self.agent.name.tenant_id, self.agent.name.agent_id, key_id).save(draft)
        try:
            os.link(draft, self.next_path)  # appears complete or not at all, and only if there is none
        except FileExistsError:
            pass  # another one of us was first
        except OSError as error:
            raise KeyFileError(f"{self.next_path} cannot be written: {error.strerror}") from error
        finally:
            draft.unlink()
        sync_folder(self.key_file.parent)
        new = self.waiting()
        assert new is not None, "it was just put there"
        return new

    def switch(self) -> None:
        """The key file holds the new key and the old one stays beside it. Only after the server has answered.

        KeyFileError when another file has the old key's second name: then nothing is changed.
        """
        try:
            os.link(self.key_file, self.old_path)
        except FileExistsError:
            if not os.path.samefile(self.key_file, self.old_path):
                raise KeyFileError(f"{self.old_path} exists; move it away and begin again") from None
        except OSError as error:
            raise KeyFileError(f"{self.old_path} cannot be written: {error.strerror}") from error
        os.replace(self.next_path, self.key_file)
        sync_folder(self.key_file.parent)
