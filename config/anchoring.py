"""How this node is to anchor, checked before anything starts: what belongs together is given together.

Decides nothing that the settings do not say, and reads no key: the anchor's signing process does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from config.secret_sources import SecretsError
from config.settings import Settings

URLS_MAX = 5


@dataclass(frozen=True)
class AnchorChoice:
    who: Literal["inside", "apart", "dev"]
    """dev: ``urls``, ``chain_id`` and ``contract`` are the development chain's, which is not there yet."""
    chain_id: int
    urls: tuple[str, ...] = field(repr=False)
    """Secret: such addresses often hold a provider's key."""
    contract: bytes | None


def anchor_choice(settings: Settings) -> AnchorChoice | None:
    """None: nobody anchors. Raises SecretsError, which names what is missing."""
    who = settings.anchoring
    if who == "off":
        return None
    if who == "dev":
        if settings.l2_rpc_url is not None or settings.set_registry_address is not None:
            raise SecretsError(
                "ANCHOR=dev makes a chain and a contract of its own: unset L2_RPC_URL and "
                "SET_REGISTRY_ADDRESS, or choose ANCHOR=inside"
            )
        return AnchorChoice("dev", 0, (), None)
    missing = [
        name
        for name, value in (
            ("L2_RPC_URL", settings.l2_rpc_url),
            ("SET_REGISTRY_ADDRESS", settings.set_registry_address),
        )
        if value is None
    ]
    if missing:
        raise SecretsError(f"ANCHOR={who} needs {' and '.join(missing)}; ANCHOR=off anchors nothing")
    return AnchorChoice(who, settings.l2_chain_id, rpc_urls(settings), settings.contract)


def rpc_urls(settings: Settings) -> tuple[str, ...]:
    """The endpoints, the preferred one first. Raises SecretsError."""
    assert settings.l2_rpc_url is not None
    urls = [url.strip() for url in settings.l2_rpc_url.get_secret_value().split(",")]
    if not all(urls) or len(urls) > URLS_MAX or len(set(urls)) < len(urls):
        raise SecretsError(
            f"L2_RPC_URL is a list of 1 to {URLS_MAX} different addresses, separated by commas"
        )
    return tuple(urls)


def refuse_without_login(settings: Settings) -> None:
    """The anchor does not share the server's login, whatever it may do. Raises SecretsError."""
    if settings.database_url is not None and settings.anchor_database_url is None:
        raise SecretsError(
            "the anchor needs a database login of its own: CREATE ROLE … LOGIN IN ROLE sequencer_anchor, and "
            "name it in ANCHOR_DATABASE_URL"
        )
