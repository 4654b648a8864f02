"""More than one process: streams end in workers, decisions are made in one core process.

``docs/architecture.md``, "Several processes", is the plan of this room.
"""
