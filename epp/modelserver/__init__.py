"""The simulated model server: OpenAI's API and vLLM's metrics over an engine without a GPU."""
