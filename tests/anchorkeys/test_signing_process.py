"""The process that holds the anchoring account's key: what it answers, what it shows, and how it ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from actors import chain_signer
from actors.chain import SignerAway, SignerRefused
from actors.chain_signer import COMMAND, SigningKey, environment_of
from actors.chain_signer_wire import DeviceKey, KeystoreKey, KmsKey, RawKey, Secret, VaultKey
from actors.worker_spawn import OwnProcess
from tests.anchorkeys.memory import memory_holds, spelled
from tests.anchorkeys.signing import DIGEST, accepted, account_of, becoming, raw_key_in
from tests.anvil import anvil
from ves.secp256k1 import is_low, recover_address

ROOT = Path(__file__).resolve().parents[2]


def is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_chain_takes_what_a_raw_key_in_a_file_signs(tmp_path: Path) -> None:
    place, secret = raw_key_in(tmp_path)
    async with SigningKey(becoming(place, tmp_path)).open() as signer:
        assert signer.address == account_of(secret)
        signature = await signer.sign(DIGEST)
        assert is_low(signature.s)
        assert recover_address(DIGEST, signature.y_parity, signature.r, signature.s) == signer.address
        with pytest.raises(ValueError, match="32 bytes"):
            await signer.sign(DIGEST + b"\0")
        with anvil() as chain:
            await accepted(signer, chain)


async def test_killed_while_idle_or_asked_it_is_away_and_the_next_life_signs(tmp_path: Path) -> None:
    place, _ = raw_key_in(tmp_path)
    key = SigningKey(becoming(place, tmp_path))
    with pytest.raises(SignerAway, match="has ended"):  # noqa: PT012 - the life, not a line
        async with key.open() as signer:
            os.kill(signer.process_id or 0, signal.SIGKILL)
            await trio.sleep(30)
            raise AssertionError("the block goes on")
    with pytest.raises(SignerAway):  # noqa: PT012 - the life, not a line
        async with key.open() as signer:
            os.kill(signer.process_id or 0, signal.SIGKILL)
            await signer.sign(DIGEST)
    async with key.open() as signer:
        await signer.sign(DIGEST)
    assert not is_alive(signer.process_id)


async def test_one_that_does_not_answer_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_signer, "SIGN_DEADLINE_S", 0.3)
    place, _ = raw_key_in(tmp_path)
    with pytest.raises(SignerAway, match=r"no answer within 0\.3 s"):  # noqa: PT012 - the life, not a line
        async with SigningKey(becoming(place, tmp_path)).open() as signer:
            os.kill(signer.process_id or 0, signal.SIGSTOP)
            await signer.sign(DIGEST)
    assert not is_alive(signer.process_id)


LIAR = """
import os, struct, sys, time
import msgspec
from coincurve import PrivateKey
from ves.secp256k1 import ORDER, address_of, completed
def read():
    head = sys.stdin.buffer.read(12)
    n, i = struct.unpack(">IQ", head)
    sys.stdin.buffer.read(n - 8)
    return i
def say(i, what):
    body = what if isinstance(what, bytes) else msgspec.msgpack.encode(what)
    sys.stdout.buffer.write(struct.pack(">IQ", len(body) + 8, i) + body)
    sys.stdout.buffer.flush()
def signed(digest, secret):
    raw = PrivateKey(secret).sign_recoverable(digest, hasher=None)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    return completed(digest, r, s, address_of(PrivateKey(secret).public_key.format()))
def answer(parity, r, s):
    return ["signed", parity, r.to_bytes(32, "big"), s.to_bytes(32, "big")]
ours, other, digest = b"\\x07" * 32, b"\\x08" * 32, bytes(range(32))
say(read(), [os.getpid(), b""])
say(read(), ["opened", ADDRESS])
i = read()
parity, r, s = signed(digest, ours)
say(i, LIE)
time.sleep(30)
"""
OURS = "address_of(PrivateKey(ours).public_key.format())"
LIES = {
    "another account's": (OURS, "answer(*signed(digest, other))", "not the account's"),
    "over another digest": (OURS, "answer(*signed(bytes(32), ours))", "not the account's"),
    "of the other parity": (OURS, "answer(1 - parity, r, s)", "not the account's"),
    "of the upper half": (OURS, "answer(1 - parity, r, ORDER - s)", "not the account's"),
    "no number": (OURS, "answer(parity, 0, 0)", "not the account's"),
    "another type": (OURS, "['signed', 'yes']", "nonsense"),
    "no frame": (OURS, "b'\\xc1'", "nonsense"),
    "no address": ("b'short'", "answer(parity, r, s)", "its address is none"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_signature_that_is_not_the_accounts_is_never_used(lie: str, tmp_path: Path) -> None:
    place, _ = raw_key_in(tmp_path)
    address, what, reason = LIES[lie]
    script = LIAR.replace("ADDRESS", address).replace("LIE", what)
    spawn = partial(OwnProcess, (sys.executable, "-c", script))
    with pytest.raises(SignerAway, match=reason):  # noqa: PT012 - the life, not a line
        async with SigningKey(becoming(place, tmp_path), spawn=spawn).open() as signer:
            await signer.sign(DIGEST)
            raise AssertionError("believed")


async def test_the_same_liar_is_believed_when_it_says_the_truth(tmp_path: Path) -> None:
    place, _ = raw_key_in(tmp_path)
    script = LIAR.replace("ADDRESS", OURS).replace("LIE", "answer(parity, r, s)")
    spawn = partial(OwnProcess, (sys.executable, "-c", script))
    async with SigningKey(becoming(place, tmp_path), spawn=spawn).open() as signer:
        await signer.sign(DIGEST)


async def test_no_secret_is_in_its_arguments_or_environment_and_nobody_may_look_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-aws")
    _, secret = raw_key_in(tmp_path)
    place = RawKey(Secret("SEQUENCER_PRIVATE_KEY", secret.hex()))
    become = becoming(place, tmp_path)
    assert secret.hex() not in repr(become) + repr(place)
    async with SigningKey(become).open() as signer:
        assert signer.process_id is not None
        assert secret.hex() not in repr(signer)
        process = Path(f"/proc/{signer.process_id}")
        assert secret.hex() not in process.joinpath("cmdline").read_text()
        if os.geteuid() == 0:  # not dumpable: for others the kernel hides it altogether
            environment = process.joinpath("environ").read_text()
            assert secret.hex() not in environment
            assert "canary-of-aws" not in environment
        else:
            with pytest.raises(PermissionError):
                process.joinpath("environ").read_bytes()
        assert resource.prlimit(signer.process_id, resource.RLIMIT_CORE) == (0, 0)


def test_it_gets_of_our_environment_what_its_kind_of_key_needs(tmp_path: Path) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "a", "HOME": "h", "VAULT_CACERT": "v", "SOFTHSM2_CONF": "s", "OTHER": "o"}
    by_file, by_command = Secret("NAME_FILE", "f"), Secret("NAME_COMMAND", "c")
    given = {
        KmsKey("k"): {"AWS_ACCESS_KEY_ID", "HOME"},
        VaultKey("a", "p", by_file): {"VAULT_CACERT"},
        VaultKey("a", "p", by_command): set(environ),
        DeviceKey("m", "t", "l", by_file, False): set(environ),
        RawKey(by_file): set(),
        RawKey(by_command): set(environ),
        KeystoreKey("p", False, True, None, "w"): set(),
        KeystoreKey("p", False, True, by_command, "w"): set(environ),
    }
    for place, names in given.items():
        assert set(environment_of(becoming(place, tmp_path), environ)) == names


async def test_a_surprise_shows_where_it_happened_and_not_what_was_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, _ = raw_key_in(tmp_path)
    with pytest.raises(SignerAway):
        async with SigningKey(becoming(place, tmp_path / "canary-in-an-error")).open():
            raise AssertionError("opened")
    said = capfd.readouterr()
    assert "signing process: FileNotFoundError at" in said.err
    assert "canary-in-an-error" not in said.err + said.out


async def test_names_are_looked_up_from_where_the_server_works_and_commands_run_there(tmp_path: Path) -> None:
    _, secret = raw_key_in(tmp_path)
    for text in ("raw-key", "cat raw-key"):
        variable = "SEQUENCER_PRIVATE_KEY" + ("_COMMAND" if " " in text else "_FILE")
        key = SigningKey(becoming(RawKey(Secret(variable, text)), tmp_path))
        async with key.open() as signer:
            assert signer.address == account_of(secret)
    key = SigningKey(becoming(RawKey(Secret("SEQUENCER_PRIVATE_KEY_COMMAND", "false")), tmp_path))
    with pytest.raises(SignerRefused, match="SEQUENCER_PRIVATE_KEY_COMMAND: the command ended with 1"):
        async with key.open():
            raise AssertionError("opened")


# A server's process, as one that anchors: it is told where its key is, has signed, and is looked into.

SERVER = """
import os, sys, trio
from config.logs import configure_logs
from config.secret_sources import forget
from config.settings import Settings
from actors.chain_key_place import key_place
from actors.chain_signer import SigningKey
configure_logs("debug", "text")
settings = Settings()
forget(Settings.secret_names(), os.environ)
canary = os.urandom(32)
async def main():
    async with SigningKey(key_place(settings)).open() as signer:
        await signer.sign(bytes(range(32)))
        print("ready", signer.process_id, signer.address.hex(), canary.hex(), flush=True)
        await trio.sleep(60)
trio.run(main)
"""


class Server:
    def __init__(self, **environment: str) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER)],
            cwd=ROOT,
            env=kept | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.logged = ""
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith("ready"):
            self.logged += line
            assert line, self.process.communicate()
        words = line.split()
        self.signer_pid, self.address, self.canary = int(words[1]), words[2], bytes.fromhex(words[3])

    def stop(self) -> None:
        self.process.kill()
        out, err = self.process.communicate()
        self.logged += out + err


def raw_by_file(folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    place, secret = raw_key_in(folder)
    return {"SEQUENCER_PRIVATE_KEY_FILE": place.key.text}, spelled(secret)


def raw_by_command(folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    place, secret = raw_key_in(folder)
    return {"SEQUENCER_PRIVATE_KEY_COMMAND": f"cat {place.key.text}"}, spelled(secret)


def own_keystore(folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    from actors.chain_keys.keystore import open_keystore

    keys = folder / "data" / "keys"
    keys.parent.mkdir(mode=0o700)
    password = keys / "anchor-keystore-password"
    place = KeystoreKey(str(keys / "anchor-keystore.json"), False, True, None, str(password))
    held, _ = open_keystore(place, scrypt_n=2)
    secret = held._key.secret
    return {"DATA_DIR": str(keys.parent)}, spelled(secret) | {"password": password.read_bytes().strip()}


@pytest.mark.slow
@pytest.mark.parametrize("given", [raw_by_command, own_keystore], ids=lambda way: way.__name__)
def test_the_key_is_never_in_the_servers_own_process(
    given: Callable[[Path], tuple[dict[str, str], dict[str, bytes]]], tmp_path: Path
) -> None:
    environment, needles = given(tmp_path)
    server = Server(**environment)
    try:
        seen = memory_holds(server.process.pid, needles | {"canary": server.canary})
        assert seen == {"canary"}, "the search finds what is there, and no key"
        if os.geteuid() == 0:
            assert "raw" in memory_holds(server.signer_pid, needles), "the search would know the key"
        else:
            with pytest.raises(PermissionError):
                memory_holds(server.signer_pid, needles)
    finally:
        server.stop()
    logged = server.logged.encode()
    assert b"chain-signer" in logged
    assert not [name for name, needle in needles.items() if needle in logged]


@pytest.mark.slow
def test_no_signing_process_outlives_a_server_killed_by_sigkill(tmp_path: Path) -> None:
    environment, _ = raw_by_file(tmp_path)
    for stopped in (False, True):
        server = Server(**environment)
        assert is_alive(server.signer_pid)
        if stopped:
            os.kill(server.signer_pid, signal.SIGSTOP)
        server.stop()
        until = time.monotonic() + 5
        while is_alive(server.signer_pid):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_one_whose_parent_is_gone_before_it_looks_does_not_stay() -> None:
    done = subprocess.run([*COMMAND, "1"], cwd=ROOT, stdin=subprocess.PIPE, timeout=20, check=False)
    assert done.returncode == 3
