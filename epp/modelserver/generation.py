"""From a request for text to its answer: parse, generate, write, fail where a test asks for it."""

import asyncio
import socket
import struct
from collections.abc import Callable
from itertools import count

from aiohttp import web

from epp.core.parsing.decompress import decompressed
from epp.modelserver.answers import ChatAnswer, CompletionAnswer, block_hashes
from epp.modelserver.errors import ApiError
from epp.modelserver.faults import FAULT_HEADER, Fault, FaultPlan, parse_fault
from epp.modelserver.journal import Journal, RequestRecord
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.prompts import Generation, parse_chat, parse_completion
from epp.modelserver.runner import EngineRunner, TokenFeed
from epp.modelserver.sequence import EngineRequest

__all__ = ["GenerationService"]

_STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER for zero seconds
_NO_FAULT = Fault()


class GenerationService:
    """Serves completions and chats from one engine."""

    def __init__(
        self, options: ModelServerOptions, runner: EngineRunner, journal: Journal, faults: FaultPlan
    ) -> None:
        self._options = options
        self._runner = runner
        self._journal = journal
        self._faults = faults
        self._ids = map(str, count())

    async def complete(self, request: web.Request, record: RequestRecord) -> web.StreamResponse:
        """Serve ``POST /v1/completions``."""
        return await self._serve(request, record, parse_completion, CompletionAnswer)

    async def chat(self, request: web.Request, record: RequestRecord) -> web.StreamResponse:
        """Serve ``POST /v1/chat/completions``."""
        return await self._serve(request, record, parse_chat, ChatAnswer)

    async def _serve(
        self,
        request: web.Request,
        record: RequestRecord,
        parse: Callable[[bytes, ModelServerOptions], Generation],
        answer_type: type[ChatAnswer | CompletionAnswer],
    ) -> web.StreamResponse:
        body = await self._body(request)
        fault = self._fault(request)
        await _misbehave_first(fault)
        generation = parse(body, self._options)
        answer = answer_type(generation, body)
        engine_id = next(self._ids)
        feed = self._runner.submit(
            EngineRequest(
                request_id=engine_id,
                prompt_tokens=generation.prompt_tokens,
                output_tokens=generation.output_tokens,
                block_hashes=block_hashes(
                    generation, answer.output, self._options.engine.block_size
                ),
                adapter=generation.adapter,
                finish_reason=generation.finish_reason,
            ),
            on_start=lambda: self._journal.started(record),
        )
        try:
            limit, is_reset = _limit(generation, fault)
            if generation.stream:
                response = await self._stream(request, answer, feed, limit)
            else:
                await _take_all(feed, limit)
                response = web.Response(body=answer.whole(), content_type="application/json")
            if is_reset:
                self._journal.ended(record, "failed")
                _reset(request)
                return response
            # Before the last bytes: whoever reads them may send the next request at once.
            self._journal.ended(record, "finished")
            if generation.stream:
                await response.write_eof(answer.closing())
            return response
        finally:
            self._runner.abort(engine_id)

    async def _stream(
        self,
        request: web.Request,
        answer: ChatAnswer | CompletionAnswer,
        feed: TokenFeed,
        limit: int,
    ) -> web.StreamResponse:
        """Write the first ``limit`` tokens of an answer, one write for each, and leave it open."""
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        if not self._options.headers_with_first_token:
            await response.prepare(request)
        sent = 0
        while sent < limit:
            ready = min(sent + await feed.take(), limit)
            if not sent:
                await response.prepare(request)
            for index in range(sent, ready):
                chunk = answer.chunk(index)
                await response.write(chunk if index else answer.opening() + chunk)
            sent = ready
        return response

    async def _body(self, request: web.Request) -> bytes:
        body = await request.read()
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding == "identity":
            return body
        limit = self._options.max_body_bytes
        plain = decompressed(body, encoding.encode("utf-8", "replace"), max_bytes=limit)
        if plain is None:
            raise ApiError(
                400,
                f"The request body is not {encoding!a} of at most {limit} bytes when decompressed.",
            )
        return plain

    def _fault(self, request: web.Request) -> Fault:
        header = request.headers.get(FAULT_HEADER)
        if header is not None:
            return parse_fault(header)
        return self._faults.take() or _NO_FAULT


async def _misbehave_first(fault: Fault) -> None:
    """Apply the part of a fault that comes before any work."""
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.hang:
        await asyncio.get_running_loop().create_future()
    if fault.status is not None:
        raise ApiError(fault.status, "This error was asked for.", code="injected_fault")


def _limit(generation: Generation, fault: Fault) -> tuple[int, bool]:
    """Return how many tokens are generated before the answer ends, and whether a reset ends it."""
    tokens = fault.reset_after_tokens
    if tokens is None or tokens > generation.output_tokens:
        return generation.output_tokens, False
    return tokens, True


async def _take_all(feed: TokenFeed, tokens: int) -> None:
    while tokens > 0:
        tokens -= await feed.take()


def _reset(request: web.Request) -> None:
    """Close the connection with a reset instead of an orderly end."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
