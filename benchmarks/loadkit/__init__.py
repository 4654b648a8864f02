"""The parts of ``benchmarks/load.py``: a gateway, a server, a client, and the figures."""
