"""Server processes of the bench: started, awaited, measured, always ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PRODUCT = ("-m", "cds_service", "serve")
FLOOR = ("-m", "tests.bench.floor")
_LONGEST_START_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where, which process, and how many seconds it took to be ready."""

    port: int
    process: psutil.Process
    ready_after_s: float

    def cpu_s(self) -> float:
        """Seconds of CPU its threads have had. Linux counts nanoseconds, others hundredths."""
        threads = Path(f"/proc/{self.process.pid}/task")
        if (threads / str(self.process.pid) / "schedstat").exists():
            spent = [(thread / "schedstat").read_text().split()[0] for thread in threads.iterdir()]
            return sum(int(nanoseconds) for nanoseconds in spent) / 1e9
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        """Resident memory now, in millions of bytes."""
        return float(self.process.memory_info().rss) / 1e6


@contextmanager
def running(
    command: tuple[str, ...],
    state: Path,
    settings: Mapping[str, str] | None = None,
    *,
    python: Path = Path(sys.executable),
) -> Iterator[Server]:
    """A server in a process of its own, ready to answer; ended on the way out.

    `settings`: further environment variables, in the place of the demo's. `python`: the interpreter
    of another environment.
    Raises RuntimeError where it does not start; what it printed is in the message.
    """
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VARSEL_")},
        "VARSEL_PROFILE": "demo",
        "VARSEL_PORT": str(port),
        "VARSEL_STATE_DIR": str(state),
        **(settings or {}),
    }
    said = state / f"output-{port}.txt"
    with said.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            [python, *command], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        try:
            _await_ready(child, port, said)
            ready = time.perf_counter() - started
            yield Server(port, psutil.Process(child.pid), ready)
        finally:
            _end(child)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(child: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"the server ended: {said.read_text()[-500:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(_POLL_S)
    raise RuntimeError("the server was not ready in time")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
