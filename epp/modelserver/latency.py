"""How long one iteration of an engine takes."""

import msgspec

__all__ = ["LatencyModel"]


class LatencyModel(msgspec.Struct, frozen=True, kw_only=True):
    """A linear model: weights are read once per iteration, each token and sequence costs more.

    ``step_s = decode_step_s + decode_step_per_seq_s · decoding sequences
    + prompt tokens / prefill_tokens_per_s + lora_load_s · adapters loaded``, all divided by
    ``time_scale``. The defaults resemble an 8B model on a small GPU.
    """

    prefill_tokens_per_s: float = 8000.0
    decode_step_s: float = 0.02
    decode_step_per_seq_s: float = 0.0003
    lora_load_s: float = 0.1
    time_scale: float = 1.0

    def step_s(self, *, prefill_tokens: int, decoding_seqs: int, loras_loaded: int) -> float:
        """Return the duration in seconds of an iteration with this much work."""
        return (
            self.decode_step_s
            + self.decode_step_per_seq_s * decoding_seqs
            + prefill_tokens / self.prefill_tokens_per_s
            + self.lora_load_s * loras_loaded
        ) / self.time_scale
