"""The edge towards the proxy: gRPC, health, and the wire messages of `ext_proc`."""
