"""The peer, HealthChain: its CDS Hooks endpoint with a handler that does nothing.

Runs in an environment of its own (`.venv-peer`, requirements.txt beside this file), never in ours:
what it pins conflicts. `python app.py shipped` serves it as `healthchain serve` does where
nothing but HealthChain is installed: uvicorn with its plain event loop and parser. `tuned` gives it
what we give ourselves: uvloop, httptools, no access log, our settings of the garbage collector.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

SERVICE = "readmission-30d"
HOOK = "encounter-discharge"
GC_THRESHOLD = 100_000  # as cds_service/server.py
PLAIN = {"loop": "asyncio", "http": "h11"}
FAST = {"loop": "uvloop", "http": "httptools", "access_log": False}


def peer_app() -> Any:
    """The application with one CDS service; it answers every call with no card."""
    gateway = importlib.import_module("healthchain.gateway")
    answers = importlib.import_module("healthchain.models.responses.cdsresponse")
    service = gateway.CDSHooksService()

    @service.hook(HOOK, id=SERVICE)  # type: ignore[untyped-decorator]
    def nothing(_request: Any) -> Any:
        return answers.CDSResponse(cards=[])

    app = gateway.HealthChainAPI()
    app.register_service(service)

    @app.get("/readyz")  # type: ignore[untyped-decorator]
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main(form: str) -> None:
    """Serve the peer on loopback until told to stop."""
    app = peer_app()
    options: dict[str, Any] = PLAIN
    if form == "tuned":
        options = FAST
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 50)
    port = int(os.environ["VARSEL_PORT"])
    importlib.import_module("uvicorn").run(app, host="127.0.0.1", port=port, **options)


if __name__ == "__main__":
    main(sys.argv[1])
