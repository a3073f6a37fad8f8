"""A PKCS#11 device for tests: SoftHSM2, with tokens of its own under a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from actors.chain_signer_wire import DeviceKey, Secret
from tests.deploy.tools import missing, tool

HOW = "apt-get install softhsm2 opensc"
PIN = "314159265"
WRONG_PIN = "271828182"
_PLACES = ("/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib64/pkcs11")


class SoftHsm:
    """One token, ``anchor``, with one key pair on secp256k1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "softhsm2.conf"
        tokens = folder / "tokens"
        tokens.mkdir(parents=True)
        self.configuration.write_text(f"directories.tokendir = {tokens}\n")
        self.module = next((path for p in _PLACES if (path := Path(p) / "libsofthsm2.so").exists()), None)
        if self.module is None:
            missing(f"libsofthsm2.so is not installed: {HOW}")
        self.run(
            "softhsm2-util", "--init-token", "--free", "--label", "anchor", "--pin", PIN, "--so-pin", PIN
        )

    def make_pair(self, label: str = "anchor", *more: str, curve: str = "EC:secp256k1") -> None:
        self.tool("--keypairgen", "--key-type", curve, "--label", label, "--usage-sign", *more)

    def tool(self, *words: str) -> None:
        """As the user."""
        assert self.module is not None
        at = ("--module", str(self.module), "--token-label", "anchor", "--login", "--pin", PIN)
        self.run("pkcs11-tool", *at, *words)

    def run(self, name: str, *words: str) -> None:
        subprocess.run(
            [tool(name, HOW), *words],
            env={**os.environ, "SOFTHSM2_CONF": str(self.configuration)},
            check=True,
            capture_output=True,
            timeout=60,
        )

    def place(
        self,
        *,
        pin: Secret | None = None,
        token: str = "anchor",
        label: str = "anchor",
        by_hand: bool = False,
    ) -> DeviceKey:
        pin = Secret("ANCHOR_PKCS11_PIN", PIN) if pin is None else pin
        return DeviceKey(str(self.module), token, label, pin, by_hand)
