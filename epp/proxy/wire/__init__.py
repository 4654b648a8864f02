"""Envoy's messages as upb classes, generated from ``protos/`` by ``make protos``; never edited."""
