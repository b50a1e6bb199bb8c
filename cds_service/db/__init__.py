"""The prediction log: tables in `tables.py`, all SQL in `log.py`, migrations beside them."""
