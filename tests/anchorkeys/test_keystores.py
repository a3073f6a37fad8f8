"""The encrypted key file: made once and whole, closed to others, opened with its password only."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.chain import SignerRefused
from actors.chain_key_place import key_place
from actors.chain_keys.accounts import Account
from actors.chain_keys.held import HeldKey
from actors.chain_keys.keystore import SCRYPT_N, open_keystore
from actors.chain_signer import SigningKey
from actors.chain_signer_wire import KeystoreKey, Secret
from config.settings import Settings
from tests.anchorkeys.signing import DIGEST, account_of

CHEAP = 2


class Dies(Exception):
    pass


def own(folder: Path, *, password: Secret | None = None, may_make: bool = True) -> KeystoreKey:
    """As it is without any setting."""
    keys = folder / "keys"
    return KeystoreKey(
        str(keys / "anchor-keystore.json"), False, may_make, password, str(keys / "anchor-keystore-password")
    )


def given(path: Path, password: Secret | None, *, may_make: bool = False) -> KeystoreKey:
    return KeystoreKey(str(path), True, may_make, password, str(path.parent / "anchor-keystore-password"))


def opened(place: KeystoreKey) -> HeldKey:
    return open_keystore(place, scrypt_n=CHEAP)[0]


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.slow
async def test_the_first_life_makes_a_keystore_that_other_tools_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    become = key_place(Settings(data_dir=tmp_path))
    async with SigningKey(become).open() as signer:
        assert signer.made == str(tmp_path / "keys/anchor-keystore.json")
        await signer.sign(DIGEST)
    assert modes(tmp_path / "keys") == {"anchor-keystore.json": 0o600, "anchor-keystore-password": 0o600}
    text = (tmp_path / "keys/anchor-keystore.json").read_text()
    assert json.loads(text)["crypto"]["kdfparams"]["n"] == SCRYPT_N >= 2**17
    password = (tmp_path / "keys/anchor-keystore-password").read_text().strip()
    secret = bytes(Account.decrypt(text, password))
    assert account_of(secret) == signer.address
    assert secret.hex() not in text + password


OF_A_KEYSTORE = [
    ("key_file.written", 1),
    ("key_file.named", 1),
    ("anchor_keystore.password", 1),
    ("key_file.written", 2),
    ("key_file.named", 2),
]


@pytest.mark.parametrize(("point", "nth"), OF_A_KEYSTORE)
def test_dying_while_it_is_made_leaves_no_keystore_that_nobody_can_open(
    point: str, nth: int, tmp_path: Path
) -> None:
    reached = {point: 0}

    def die(name: str) -> None:
        if name == point:
            reached[point] += 1
            if reached[point] == nth:
                raise Dies

    with pytest.raises(Dies):
        open_keystore(own(tmp_path), scrypt_n=CHEAP, checkpoint=die)
    before = tmp_path / "keys/anchor-keystore.json"
    there = before.read_bytes() if before.exists() else None
    first = opened(own(tmp_path)).address()
    assert there is None or before.read_bytes() == there
    assert opened(own(tmp_path)).address() == first
    assert set(modes(tmp_path / "keys").values()) == {0o600}


def test_two_that_start_at_once_have_one_account(tmp_path: Path) -> None:
    both, together = [], threading.Barrier(2)

    def start() -> None:
        together.wait(5)
        both.append(opened(own(tmp_path)).address())

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(both) == 2
    assert len(set(both)) == 1


def test_files_that_are_open_to_others_are_refused(tmp_path: Path) -> None:
    opened(own(tmp_path))
    for name in ("anchor-keystore.json", "anchor-keystore-password"):
        path = tmp_path / "keys" / name
        for mode in (0o644, 0o640, 0o604, 0o622):
            path.chmod(mode)
            with pytest.raises(SignerRefused, match=rf"{name} can be read by others: chmod 600"):
                opened(own(tmp_path))
        path.chmod(0o600)
    (tmp_path / "keys/anchor-keystore.json").rename(tmp_path / "given.json")
    password = (tmp_path / "keys/anchor-keystore-password").read_text()
    place = given(tmp_path / "given.json", Secret("ANCHOR_KEYSTORE_PASSWORD", password))
    (tmp_path / "given.json").chmod(0o440)  # as Kubernetes mounts it
    opened(place)
    (tmp_path / "given.json").chmod(0o444)
    with pytest.raises(SignerRefused, match=r"ANCHOR_KEYSTORE_FILE: .* is open to others"):
        opened(place)


def test_a_wrong_or_missing_password_names_where_it_is_from(tmp_path: Path) -> None:
    opened(own(tmp_path))
    wrong = Secret("ANCHOR_KEYSTORE_PASSWORD_COMMAND", "echo canary-of-a-password")
    with pytest.raises(SignerRefused, match="password of ANCHOR_KEYSTORE_PASSWORD_COMMAND") as refused:
        opened(own(tmp_path, password=wrong))
    assert "canary" not in str(refused.value)
    password = tmp_path / "keys/anchor-keystore-password"
    right = password.read_text()
    password.write_text("canary")
    with pytest.raises(SignerRefused, match=f"does not open with the password of {password}"):
        opened(own(tmp_path))
    password.unlink()  # lost: another one would open nothing, and is not made
    with pytest.raises(SignerRefused, match=r"no password for .* give ANCHOR_KEYSTORE_PASSWORD"):
        opened(own(tmp_path))
    assert not password.exists()
    opened(own(tmp_path, password=Secret("ANCHOR_KEYSTORE_PASSWORD", right)))


def test_a_keystore_that_was_named_is_made_by_a_person_only(tmp_path: Path) -> None:
    path, password = tmp_path / "mounted.json", Secret("ANCHOR_KEYSTORE_PASSWORD", secrets.token_hex())
    with pytest.raises(SignerRefused, match=r"\(ANCHOR_KEYSTORE_FILE\) is not there: mount it"):
        opened(given(path, password))
    assert not path.exists()
    made = opened(given(path, password, may_make=True)).address()
    assert opened(given(path, password)).address() == made


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in KEYSTORE["crypto"].items() if name != key}


KEYSTORE: dict[str, Any] = {
    "version": 3,
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "00" * 16},
        "ciphertext": "00" * 32,
        "kdf": "scrypt",
        "kdfparams": {"dklen": 32, "n": 2, "p": 1, "r": 8, "salt": "00" * 16},
        "mac": "00" * 32,
    },
}
SCRYPT = KEYSTORE["crypto"]["kdfparams"]
DAMAGED: dict[str, tuple[object, str]] = {
    "no JSON": ("no json", "is no keystore"),
    "a list": ([], "is no keystore"),
    "deep": ("[" * 5000, "is no keystore"),
    "long": ({**KEYSTORE, "more": "x" * 20_000}, "is no keystore"),
    "no mac": ({**KEYSTORE, "crypto": _without("mac")}, "is no keystore"),
    "another version": ({**KEYSTORE, "version": 4}, "of another kind"),
    "another mac": (KEYSTORE, "does not open with the password"),
    "no hex": (
        {**KEYSTORE, "crypto": {**KEYSTORE["crypto"], "mac": "zz"}},
        "does not open with the password",
    ),
    "dear in memory": (
        {**KEYSTORE, "crypto": {**KEYSTORE["crypto"], "kdfparams": {**SCRYPT, "n": 2**24}}},
        "parameters that nobody uses",
    ),
    "dear in time": (
        {
            **KEYSTORE,
            "crypto": {**KEYSTORE["crypto"], "kdf": "pbkdf2", "kdfparams": {**SCRYPT, "c": 2**40}},
        },
        "parameters that nobody uses",
    ),
}


def test_what_reads_keystores_leaves_pythons_recursion_limit_alone() -> None:
    ask = "import sys, actors.chain_keys.keystore; print(sys.getrecursionlimit())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, timeout=60, check=True, text=True)
    assert done.stdout == "1000\n", "nested text would overflow the stack of its parser"


@pytest.mark.parametrize("how", DAMAGED)
def test_what_is_no_keystore_is_refused_before_it_costs_anything(how: str, tmp_path: Path) -> None:
    content, reason = DAMAGED[how]
    path = tmp_path / "key.json"
    path.touch(0o600)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SignerRefused, match=reason):
        opened(given(path, Secret("ANCHOR_KEYSTORE_PASSWORD", "x")))
