"""An answer of any length in constant memory, made piece by piece in worker threads.

The next piece is made when the one before it was taken, so that one piece at a time is in memory
however slowly it is read. Who hangs up or stops reading ends it. An error under way cuts the answer
off: without its last chunk, HTTP shows it to be incomplete. Used by the routes under `/api`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import anyio.to_thread
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.api")
LONGEST_STALL_S = 60.0
"""How long a piece waits to be taken; then its reader is gone."""


class Streamed(Response):
    """An answer made of pieces. `ended` is called once, whatever the end: with True where every
    piece was sent.
    """

    def __init__(
        self, pieces: Iterator[bytes], media_type: str, ended: Callable[[bool], None]
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._ended = ended

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until they end, or nobody takes them."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_hung_up(receive))
        whole = False
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                whole = True
            else:
                events.log(logging.INFO, "export not taken", why="hung up")
        except (TimeoutError, ClientDisconnect, OSError) as error:
            events.log(logging.INFO, "export not taken", why=type(error).__name__)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
            self._ended(whole)

    async def _send(self, send: Send) -> None:
        # the first piece before the headers: what fails at once is answered as an error
        piece = await anyio.to_thread.run_sync(next, self._pieces, None)
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        while piece is not None:
            body: Message = {"type": "http.response.body", "body": piece, "more_body": True}
            async with asyncio.timeout(LONGEST_STALL_S):
                await send(body)
            piece = await anyio.to_thread.run_sync(next, self._pieces, None)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hung_up(receive: Receive) -> None:
    """Wait until the other end is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
