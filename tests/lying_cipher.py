"""A worker whose AES-256-GCM-SIV lies: as if memory, processor or library were broken.

``LIAR`` is Python for the worker's process, before anything of ours is imported there. How it lies stands in
the file that takes the place of FAULT, read at each sealing; no such file: it is honest.

    once       one changed bit, then honest (the file is removed)
    always     one changed bit each time
    misread    what was sealed right is opened to something else
    poison X   one changed bit wherever X is in the plaintext
"""

from __future__ import annotations

LIAR = """
import sys
if "actors.worker" in sys.orig_argv or "-c" in sys.orig_argv:
    from pathlib import Path
    from cryptography.hazmat.primitives.ciphers import aead
    Honest, fault = aead.AESGCMSIV, Path("FAULT")

    class Liar:
        def __init__(self, key):
            self.cipher = Honest(key)

        def encrypt(self, nonce, plaintext, aad):
            sealed = self.cipher.encrypt(nonce, plaintext, aad)
            how, _, what = fault.read_text().partition(" ") if fault.exists() else ("", "", "")
            if how == "once":
                fault.unlink()
            if how in ("once", "always") or how == "poison" and what.encode() in plaintext:
                sealed = bytes([sealed[0] ^ 1]) + sealed[1:]
            return sealed

        def decrypt(self, nonce, sealed, aad):
            opened = self.cipher.decrypt(nonce, sealed, aad)
            return opened[::-1] if fault.exists() and fault.read_text() == "misread" else opened

    aead.AESGCMSIV = Liar
"""
"""Also as a sitecustomize.py on PYTHONPATH, which changes nobody but the workers."""
