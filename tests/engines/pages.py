"""Engines that are nothing but a metrics page, with whatever is wrong with it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from epp.core.resources import Endpoint, split_host_port

__all__ = ["LOAD_PAGE", "Handler", "endpoint_at", "raw_server", "web_server"]

LOAD_PAGE = (
    b'vllm:num_requests_waiting{engine="0"} 2.0\n'
    b'vllm:num_requests_running{engine="0"} 3.0\n'
    b'vllm:kv_cache_usage_perc{engine="0"} 0.5\n'
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def endpoint_at(destination: str) -> Endpoint:
    """Return the endpoint with this ``ip:port``."""
    address, port = split_host_port(destination)
    return Endpoint(name=destination, address=address, port=port)


@asynccontextmanager
async def web_server(
    handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve all paths by a handler, perhaps over TLS; yield the server's ``ip:port``."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: bytes, *, then_close: bool = True) -> AsyncIterator[str]:
    """Answer each request with these bytes, whatever they are; yield the server's ``ip:port``."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if not then_close:
                await over.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()
