"""What a token means at the door: believed or 401, and what its holder may do.

Names of permissions that nobody needs give nothing, and ``operator`` cannot be given by a token, whoever
signed it. It verifies nothing itself.
"""

from __future__ import annotations

from typing import Final

from actors.token_rules import Token, TokenRefused
from actors.tokens import TokenBook
from transport.http.errors import ApiError, Code
from transport.http.permissions import EVERYTHING, NEEDED, OF_THE_NODE, ROLES, Permissions, of_flags

_NAMED: Final = frozenset().union(*NEEDED.values(), *ROLES.values()) - OF_THE_NODE - {EVERYTHING}
GRANTABLE: Final[Permissions] = _NAMED | {f"{name.partition(':')[0]}:*" for name in _NAMED} | {EVERYTHING}
"""What a scope may give: every permission some route needs but the node's own, its family's wildcard, and
``*``."""


async def believed(text: str, book: TokenBook) -> Token:
    """The token, or 401. Raises what the token book raises when the database is away."""
    try:
        return await book.find(text)
    except TokenRefused as refused:
        code = Code.TOKEN_EXPIRED if refused.expired else Code.INVALID_TOKEN
        raise ApiError(code, str(refused)) from None


def permissions_of(token: Token) -> Permissions:
    if token.kind == "legacy":
        return GRANTABLE & of_flags(token.permissions)
    return GRANTABLE.intersection(token.permissions)
