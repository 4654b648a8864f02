"""Engines for tests: a virtual clock, round numbers."""

from epp.modelserver.engine import Engine, EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.sequence import EngineRequest

# An iteration takes one second, 0.125 more per decoding sequence, and 1/64 per prompt token.
ROUND_LATENCY = LatencyModel(
    prefill_tokens_per_s=64, decode_step_s=1, decode_step_per_seq_s=0.125, lora_load_s=4
)


def make_engine(**options: object) -> Engine:
    return Engine(EngineOptions(**{"latency": ROUND_LATENCY, "block_size": 4, **options}))


def request(
    request_id: str, prompt: int = 8, output: int = 1, *, chain: str = "", **fields: object
) -> EngineRequest:
    """Return a request whose blocks are equal to those of others of the same ``chain``."""
    blocks = (prompt + output) // 4
    hashes = [hash((chain or request_id, index)) for index in range(blocks)]
    return EngineRequest(
        request_id=request_id,
        prompt_tokens=prompt,
        output_tokens=output,
        block_hashes=hashes,
        **fields,
    )


def run(engine: Engine) -> list[tuple[float, str]]:
    """Step an engine until it is idle; return when each token came and whose it was."""
    tokens = []
    while (now := engine.wake_at) is not None:
        tokens += [(now, event.request_id) for event in engine.step(now).tokens]
    return tokens


def finish_times(engine: Engine) -> dict[str, float]:
    """Step an engine until it is idle; return when the last token of each request came."""
    return {request_id: now for now, request_id in run(engine)}
