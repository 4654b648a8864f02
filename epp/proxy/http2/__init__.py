"""gRPC over HTTP/2, as a server.

From the wire up: ``frames``, ``hpack_cache`` and ``blocks`` read, ``outbox`` writes; ``requests``
and ``grpc_framing`` know what the bytes mean; ``control``, ``calls`` and ``connection`` are one
class in three parts, the protocol without any I/O, which tells of ``events``; ``server`` drives it
with asyncio, and ``services`` are the calls that it serves.
"""
