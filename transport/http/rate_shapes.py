"""How the node's rate limits look from outside."""

from __future__ import annotations

from typing import Literal

import msgspec


class RateLimitsReply(msgspec.Struct):
    """``sharing``: ``alone`` means that limits should be shared between nodes and the database does not
    answer; ``refused`` counts requests over their limit by class since the node started."""

    mode: Literal["enforce", "off"]
    sharing: Literal["off", "shared", "alone"]
    buckets: int
    refused: dict[str, int]
