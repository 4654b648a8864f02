"""The local gateway: Envoy's bootstrap, and ``epp up``, which runs all parts on one machine."""
