"""The decisions of the endpoint picker under a virtual clock, against simulated engines."""
