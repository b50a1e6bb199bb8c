"""Who is on record where nobody says: the account a process runs under."""

from __future__ import annotations

import getpass
import os


def account() -> str:
    """The name of the account this process runs under; its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
