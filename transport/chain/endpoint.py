"""One JSON-RPC endpoint: its answer to one question, or why there is none. Under Trio, with web3's provider.

It alone exchanges bytes with an endpoint: TLS verified, no proxy out of the environment, no redirect
followed, answers bounded. Its chain id is asked before anything it says is believed, and again whenever a
connection was opened since. Its address leaves this module only with the request itself: client, exceptions
and log lines see a placeholder. What an answer means is for its caller.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import trio

from transport.chain.addresses import Address
from transport.chain.libraries import AsyncJSONBaseProvider, AsyncWeb3
from transport.chain.wire import Envelope, Quantity, RpcFault, decode, quantity

ANSWER_BYTES_MAX = 32 * 1024 * 1024
_CHAIN_ID_MAX = 2**64
_IDLE_S = 30.0
"""Connections are kept for so long, longer than the anchor's pause between looks."""
_NOT_NOW_CODES = (-32005, -32016, -32002, 429)
_NOT_NOW = (
    "rate limit",
    "limit exceeded",
    "request limit",
    "too many requests",
    "capacity",
    "header not found",
    "missing trie node",
    "timed out",
    "timeout",
    "try again",
    "temporarily",
    "syncing",
)


class EndpointTrouble(Exception):
    """Why one endpoint gave nothing that could be used; the text names it and holds no secret."""


class EndpointAway(EndpointTrouble):
    """Not now. ``told_s``: it named the pause itself."""

    def __init__(self, why: str, told_s: float | None = None) -> None:
        super().__init__(why)
        self.told_s = told_s


class EndpointForeign(EndpointTrouble):
    """It speaks of another chain."""


class EndpointLies(EndpointTrouble):
    """What it said cannot be true."""


class EndpointRefuses(EndpointTrouble):
    """A JSON-RPC error that says something about the question."""

    def __init__(self, why: str, fault: RpcFault) -> None:
        super().__init__(why)
        self.code = fault.code
        self.message = fault.message
        """Bounded, without secrets."""
        self.data = fault.data


class Endpoint:
    def __init__(self, address: Address, chain_id: int, tls: ssl.SSLContext | None) -> None:
        self.name = address.name
        self._address = address
        self._chain_id = chain_id
        self._connects = 0
        self._believed_at_connects = -1
        """How many connections had been opened when its chain id was last right."""
        self._client = httpx.AsyncClient(  # nosec B113
            transport=_Outward(address, tls),
            timeout=None,  # noqa: S113 - its callers set a trio deadline around each attempt
            follow_redirects=False,
            trust_env=False,
            headers={"accept-encoding": "identity", "user-agent": "ves-sequencer"},
        )
        self._web3: Any = AsyncWeb3(_Provider(self._exchange), middleware=[])

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, method: str, *params: Any) -> msgspec.Raw:
        """The answer's ``result`` as JSON text. Raises EndpointTrouble."""
        if self._believed_at_connects < 0:
            await self._check_chain()
        answer = await self._put(method, params)
        if self._connects != self._believed_at_connects:
            await self._check_chain()
        return answer

    def disbelieve(self) -> None:
        """After a failure: whoever answers next may be somebody else."""
        self._believed_at_connects = -1

    async def _check_chain(self) -> None:
        raw = await self._put("eth_chainId", ())
        try:
            said = quantity(decode(raw, Quantity), _CHAIN_ID_MAX)
        except ValueError as wrong:
            raise self.lies("eth_chainId", wrong) from None
        if said != self._chain_id:
            self.disbelieve()
            raise EndpointForeign(
                f"{self.name} speaks of chain {said}, not of {self._chain_id}: "
                "compare L2_RPC_URL with L2_CHAIN_ID"
            )
        self._believed_at_connects = self._connects

    async def _put(self, method: str, params: Any) -> msgspec.Raw:
        result: msgspec.Raw = await self._web3.manager.coro_request(method, list(params))
        return result

    async def _exchange(self, method: str, body: bytes, request_id: object) -> msgspec.Raw:
        status, raw = await self._post(body)
        try:
            envelope = decode(raw, Envelope)
        except ValueError as wrong:
            if status != 200:
                raise EndpointAway(f"{self.name} says HTTP {status}") from None
            raise self.lies(method, wrong) from None
        if envelope.error is not None:
            raise self._refusal(method, envelope.error)
        if envelope.id != request_id or not bytes(envelope.result):
            raise self.lies(method, ValueError("it answers no question of ours"))
        result: msgspec.Raw = envelope.result
        return result

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        extensions = {"trace": self._notice_connection}
        try:
            async with self._client.stream(
                "POST",
                "http://endpoint/",
                content=body,
                headers={"content-type": "application/json"},
                extensions=extensions,
            ) as response:
                return await self._read(response)
        except httpx.HTTPError as error:
            why = self._address.without_secrets(_told_by(error))
            raise EndpointAway(f"{self.name}: {why}") from None

    async def _read(self, response: httpx.Response) -> tuple[int, bytes]:
        status = response.status_code
        if status == 429:
            raise EndpointAway(f"{self.name} says HTTP 429: too many requests", _pause(response))
        if status >= 500:
            told = _pause(response) if "retry-after" in response.headers else None
            raise EndpointAway(f"{self.name} says HTTP {status}", told)
        if status in (401, 403):
            raise EndpointAway(f"{self.name} says HTTP {status}: is the key in L2_RPC_URL right?")
        if 300 <= status < 400:
            raise EndpointAway(f"{self.name} points elsewhere (HTTP {status}): give the final address")
        if "content-encoding" in response.headers:
            raise EndpointLies(f"{self.name} compressed its answer although it was asked not to")
        body = await self._bounded(response)
        return status, body

    async def _bounded(self, response: httpx.Response) -> bytes:
        body = bytearray()
        # Cancelled, not left: an exception from here would leave httpcore's generators to the collector.
        with trio.CancelScope() as scope:
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    scope.cancel()
        if len(body) > ANSWER_BYTES_MAX:
            raise EndpointLies(f"{self.name} answered with more than {ANSWER_BYTES_MAX} bytes")
        return bytes(body)

    async def _notice_connection(self, event: str, info: object) -> None:
        if event == "connection.connect_tcp.complete":
            self._connects += 1

    def _refusal(self, method: str, fault: RpcFault) -> EndpointTrouble:
        fault.message = self._address.without_secrets(fault.message)
        why = f"{self.name} to {method}: {fault.message} ({fault.code})"
        said = fault.message.lower()
        if fault.code in _NOT_NOW_CODES or any(words in said for words in _NOT_NOW):
            return EndpointAway(why)
        return EndpointRefuses(why, fault)

    def lies(self, method: str, wrong: ValueError) -> EndpointLies:
        return EndpointLies(f"{self.name} to {method}: {self._address.without_secrets(str(wrong))}")


class _Provider(AsyncJSONBaseProvider):
    """web3 forms the request; the answer comes back as JSON text, which it hands through."""

    global_ccip_read_enabled = False

    def __init__(self, exchange: Callable[[str, bytes, object], Awaitable[msgspec.Raw]]) -> None:
        super().__init__()
        self._exchange = exchange

    async def make_request(self, method: Any, params: Any) -> Any:
        request = self.form_request(method, params)
        result = await self._exchange(method, self.encode_rpc_dict(request), request["id"])
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}


class _Outward(httpx.AsyncBaseTransport):
    """Puts the real address into a request on its way out."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None) -> None:
        url = address.url
        self._url = url.copy_with(username=None, password=None)
        self._headers = [(b"host", url.netloc)]
        if address.authorization:
            self._headers.append((b"authorization", address.authorization))
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=_IDLE_S)
        # Without TLS (on this machine only) there is nobody to verify, and no context to make.
        self._inner = httpx.AsyncHTTPTransport(verify=tls or False, trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = [pair for pair in request.headers.raw if pair[0].lower() != b"host"] + self._headers
        real = httpx.Request(
            request.method, self._url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        return await self._inner.handle_async_request(real)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _told_by(error: BaseException) -> str:
    """The first words in the chain of its causes: httpx has none for a failed handshake."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {cause.verify_message}"
        if str(cause):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _pause(response: httpx.Response) -> float:
    """Retry-After in seconds; a date or nonsense counts as a short pause."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() and len(text) < 7 else 5.0
