"""The decisions: plain synchronous Python that does no I/O, knows no clock and has no locks.

Time comes in as an argument (``now``, monotonic seconds), randomness as a generator that is handed
in. Nothing in here imports asyncio, grpc, kubernetes, aiohttp or prometheus; a contract in
``pyproject.toml`` checks it.
"""
