"""The server process: logging, garbage collection, uvicorn, and the demo's first patient."""

from __future__ import annotations

import gc
import json
import logging
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.resources import files
from typing import Any

import structlog
import uvicorn

from cds_service.app import create_app
from cds_service.errors import OurFault, SetupError
from cds_service.service import open_registry, open_serving_log
from cds_service.settings import Settings, check_fit_to_serve

DEMO_PATIENT = "demo/hook-request.json"
_DEMO_WAITS_S = 60.0
_GC_THRESHOLD = 100_000


def run(settings: Settings, *, demo: bool) -> None:
    """Serve until told to stop.

    Raises SetupError where settings or database are not fit to serve, OurFault where the server
    ends before it began.
    """
    gc.disable()  # nothing made at start-up is garbage; `_settle_memory` collects again
    check_fit_to_serve(settings)
    open_serving_log(settings).stop()
    listener = _listen(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    registry = open_registry(settings)
    for name, fault in registry.refused.items():
        print(f"varsel: {name} refused: {fault}", file=sys.stderr)
    configure_logging()
    app = create_app(settings, registry)
    _settle_memory()
    _say_where(settings)
    if demo:
        threading.Thread(target=_show_demo, args=(settings,), daemon=True).start()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        loop="auto",
        http="httptools",
        ws="none",
        server_header=False,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise OurFault("the service did not start")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror} (VARSEL_PORT)"
        ) from None
    return listener


def configure_logging() -> None:
    """Our own events as JSON lines on standard error; nothing of requests or of SQL in them."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _settle_memory() -> None:
    """Freeze what start-up made; collect rarely: typed structs leave little to collect."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 50, 50)
    gc.enable()


def _say_where(settings: Settings) -> None:
    print(f"Varsel ({settings.profile}) on {settings.url}")
    for path in ("/cds-services", "/docs", "/readyz"):
        print(f"  {settings.url}{path}")
    sys.stdout.flush()


# ---- demo -----------------------------------------------------------------------------------


def _show_demo(settings: Settings) -> None:
    """Post the bundled patient as a hook request, over HTTP like anybody, and print the card."""
    body = files("cds_service").joinpath(DEMO_PATIENT).read_bytes()
    url = f"{settings.url}/cds-services/readmission-30d"
    answer = _post(url, body)
    for card in answer["cards"]:
        print(f"\n{card['summary']}\n{'-' * len(card['summary'])}\n{card['detail']}\n")
        for link in card.get("links", []):
            print(f"{link['label']}: {link['url']}")
    print(f"\nThe same call: curl -H 'Content-Type: application/json' -d @FILE {url}")
    print("Stop with Ctrl-C.")
    sys.stdout.flush()


def _post(url: str, body: bytes) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own URL
        url, data=body, headers={"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + _DEMO_WAITS_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return {"cards": [{"summary": f"HTTP {error.code}", "detail": error.read().decode()}]}
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
