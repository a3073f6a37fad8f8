"""What these tests share: where keys are, and a transaction as an anchor sends it."""

from __future__ import annotations

import secrets
from pathlib import Path

import rlp
import trio
from coincurve import PrivateKey
from eth_hash.auto import keccak

from actors.chain import ChainSigner, Signature
from actors.chain_signer_wire import BecomeSigner, KeyPlace, RawKey, Secret
from tests.anvil import CHAIN_ID, Anvil
from ves.secp256k1 import address_of, is_low

DIGEST = bytes(range(32))


def becoming(place: KeyPlace, folder: Path, *, development: bool = False) -> BecomeSigner:
    return BecomeSigner(place, str(folder), development)


def raw_key_in(folder: Path) -> tuple[RawKey, bytes]:
    """In a file, and its 32 bytes."""
    secret = secrets.token_bytes(32)
    path = folder / "raw-key"
    path.touch(0o600)
    path.write_text(f"0x{secret.hex()}\n")
    return RawKey(Secret("SEQUENCER_PRIVATE_KEY_FILE", str(path))), secret


def account_of(secret: bytes) -> bytes:
    return address_of(PrivateKey(secret).public_key.format())


async def transaction(signer: ChainSigner, nonce: int = 0) -> bytes:
    """EIP-1559, with call data, signed: its raw bytes."""
    to, gwei = b"\xaa" * 20, 10**9
    fields = [CHAIN_ID, nonce, gwei, 100 * gwei, 60_000, to, 0, b"anchored", []]
    signature: Signature = await signer.sign(keccak(b"\x02" + rlp.encode(fields)))
    assert is_low(signature.s)
    return b"\x02" + bytes(rlp.encode([*fields, signature.y_parity, signature.r, signature.s]))


async def accepted(signer: ChainSigner, chain: Anvil) -> None:
    """A real node takes two of its transactions, as of its account."""
    chain.fund(signer.address)
    for nonce in (0, 1):
        raw = await transaction(signer, nonce)
        tx_hash = chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        with trio.fail_after(10):
            while (receipt := chain.rpc("eth_getTransactionReceipt", tx_hash)) is None:  # noqa: ASYNC110 - it does not call us
                await trio.sleep(0.01)
        assert receipt["status"] == "0x1"
        assert receipt["from"] == "0x" + signer.address.hex()
