"""The numbers and byte strings the VES v1 protocol fixes, each with the section it comes from.

This module alone spells a domain separator or a protocol limit; everything else imports the name. Nothing
here is configurable: another value would be another protocol.
"""

from __future__ import annotations

VES_VERSION = 1
ZERO_HASH = bytes(32)
"""Cipher hash of plaintext events (VES 3.1), state root before the first commitment (VES 3.9)."""

# Domain separators (VES 2): ASCII, no terminator, first bytes of what is hashed.
PAYLOAD_PLAIN = b"VES_PAYLOAD_PLAIN_V1"  # VES 3.1
PAYLOAD_AAD = b"VES_PAYLOAD_AAD_V1"  # VES 3.1
PAYLOAD_CIPHER = b"VES_PAYLOAD_CIPHER_V1"  # VES 3.1
RECIPIENTS = b"VES_RECIPIENTS_V1"  # VES 3.1
EVENTSIG = b"VES_EVENTSIG_V1"  # VES 3.2
RECEIPT = b"VES_RECEIPT_V1"  # VES 3.6
RECEIPT_KEY = b"VES_RECEIPT_KEY_V1"  # ours: what a receipt key signs about its successor
INCIDENT_REPORT = b"VES_INCIDENT_REPORT_V1"  # ours: reports about incidents
LEAF = b"VES_LEAF_V1"  # VES 3.7
PAD_LEAF = b"VES_PAD_LEAF_V1"  # VES 3.7
NODE = b"VES_NODE_V1"  # VES 3.7
STREAM = b"VES_STREAM_V1"  # VES 3.9
STATE_ROOT = b"VES_STATE_ROOT_V1"  # VES 3.9
POP_V1 = b"VES_POP_V1"  # VES 6.3
POP_V2 = b"VES_POP_V2"  # ours: binds the proof to the key's name as well
KEY_ROTATION = b"VES_KEY_ROTATION_V1"  # ours: a key names its successor
VALIDITY_PROOF_HASH = b"STATESET_VES_VALIDITY_PROOF_HASH_V1"  # VES 7.2
COMMITMENT_LEAF = b"STATESET_COMMITMENT_LEAF_V1"  # VES 3.10, leaves of the legacy stream
ATREST_PAYLOAD = b"STATESET_PAYLOAD_ATREST_AAD_V1"  # VES 5.1, legacy event rows
ATREST_VES_PAYLOAD = b"STATESET_VES_PAYLOAD_ATREST_AAD_V1"  # ours: VES event rows
ATREST_VALIDITY_PROOF = b"STATESET_VES_VALIDITY_PROOF_ATREST_AAD_V1"  # VES 5.1
ATREST_COMPLIANCE_PROOF = b"STATESET_VES_COMPLIANCE_PROOF_ATREST_AAD_V1"  # VES 5.1
ATREST_KEY_ID = b"STATESET_ATREST_KEYID_V1"  # ours: fingerprint of a ring key
ATREST_MAGIC = b"SSE1"  # VES 5.1
ATREST_MAGIC_2 = b"SSE2"  # ours: AES-256-GCM-SIV under derived keys
KDF_CONTEXT = b"stateset-sequencer-v1-encryption"  # ours, the name from the security guide: HKDF's info

# Domain separators of the audit trail: ours, not the streams', so that no proof passes for both.
AUDIT_ENTRY = b"VES_AUDIT_ENTRY_V1"
AUDIT_LEAF = b"VES_AUDIT_LEAF_V1"
AUDIT_PAD_LEAF = b"VES_AUDIT_PAD_LEAF_V1"
AUDIT_NODE = b"VES_AUDIT_NODE_V1"
AUDIT_CHAIN = b"VES_AUDIT_CHAIN_V1"
AUDIT_STATE_ROOT = b"VES_AUDIT_STATE_ROOT_V1"

# Domain separators of aggregates on a chain (ours; ves/anchoring.py has the formulas).
ANCHOR_LEAF = b"VES_ANCHOR_LEAF_V1"
ANCHOR_PAD_LEAF = b"VES_ANCHOR_PAD_LEAF_V1"
ANCHOR_NODE = b"VES_ANCHOR_NODE_V1"
ANCHOR_HEAD = b"VES_ANCHOR_HEAD_V1"
ANCHOR_NODE_ID = b"VES_ANCHOR_NODE_ID_V1"

FOLLOWED = b"VES_AUDIT_FOLLOWED_V1"  # ours: what an auditor has verified of a stream, in order

# Payload kinds (VES 3.4).
PLAINTEXT = 0
ENCRYPTED = 1

# Limits (VES 1.9). Names are counted in bytes of UTF-8.
EVENTS_PER_REQUEST_MAX = 1000
PAYLOAD_BYTES_MAX = 1024 * 1024
ENTITY_TYPE_BYTES_MAX = 128
ENTITY_ID_BYTES_MAX = 512
EVENT_TYPE_BYTES_MAX = 256
LEGACY_SIGNATURE_BYTES_MAX = 8192  # ours: kept as sent, never verified; the longest in use has 3,309
CREATED_AT_BYTES_MAX = 64  # ours: RFC 3339 sets no limit to the digits of a fraction

# Nesting (VES 1.8): containers inside containers; a payload sits three levels deep in the body.
BODY_DEPTH_MAX = 127
PAYLOAD_DEPTH_MAX = 124

INTEGER_MAX = 2**53 - 1
"""Largest integer every JSON reader agrees on (RFC 8785 section 3.2.2.3, RFC 7493 section 2.2)."""
U32_MAX = 2**32 - 1
I64_MAX = 2**63 - 1  # largest sequence number: kept in a signed 64-bit column

PROOF_PATH_MAX = 64  # VES 3.8

# VES-ENC-1 (VES 4): the one profile that can be used.
ENC_VERSION = 1
ENC_AEAD = "AES-256-GCM"
HPKE_MODE = "base"
HPKE_KEM = "X25519-HKDF-SHA256"
HPKE_KDF = "HKDF-SHA256"
HPKE_AEAD = "AES-256-GCM"
