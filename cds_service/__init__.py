"""The edge: web, database, configuration, command line, pages. Nothing imports this room.

A hook call walks `routes/hooks.py` -> `protocol.py` -> `registry.py` -> `assess.py` -> `cards.py`,
and the prediction is committed by `db/log.py` before the answer leaves.
"""

__version__ = "0.1.0"
