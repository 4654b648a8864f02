"""What engines tell of their load in the headers of their responses."""

import asyncio
from pathlib import Path

from .conftest import logged_stack
from .http1 import Http1
from .stack import in_process_options
from .support import chat

_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\nendpoint-load-metrics: "
    b'JSON {"named_metrics":{"kv_cache_usage_perc":0.25,"num_requests_waiting":3}}\r\n\r\n{}'
)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(_ANSWER)
    writer.close()


async def test_a_report_in_a_response_is_what_the_next_pick_knows(tmp_path: Path) -> None:
    async with await asyncio.start_server(_serve, "127.0.0.1", 0) as server:
        address, port = server.sockets[0].getsockname()
        async with logged_stack(
            tmp_path,
            [],
            more_endpoints=[f"{address}:{port}"],
            in_process=in_process_options(tmp_path),
        ) as stack:
            pool = stack.router.pool
            assert pool.told(0) is None
            gateway = await stack.gateway()
            async with Http1(gateway.port) as http1:
                answer = await http1.post("/v1/chat/completions", chat())
            assert (answer.status, answer.body) == (200, b"{}")
            await stack.at_rest()
            told = pool.told(0)
            assert told is not None
            assert (told.waiting, told.kv_ratio) == (3.0, 0.25)
