"""Connections of the server: how many there are, how much of a request they take, and how long.

Uvicorn's parser has no limit for headers and its server none for slow clients. One look at all
connections a second takes the place of a timer for each of them.
"""

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import uvicorn
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pipeline.config import Serving
from pipeline.serving.guard import Guard
from pipeline.serving.memory import keep_large_blocks_apart
from pipeline.serving.responses import HEADERS
from pipeline.tracing import traced

LONGEST_HEAD = 16_384
"""Bytes of a request besides its body: its line, headers, trailers, and the lengths of chunks."""
_PER_BYTE = 1
"""Bytes that chunks may take for each that they carry."""
_SLICE = 4_096
"""Bytes that are parsed before it is looked at what they hold."""
_PIPELINED = 4
"""Requests that wait for the answer before them; what follows is not parsed yet."""


@dataclass(frozen=True)
class Limits:
    """Limits of connections.

    Attributes
    ----------
    connections, of_client : int
        Connections in all, and from one address.
    seconds : float
        How long headers may take to arrive, and an answer to be taken.
    """

    connections: int
    of_client: int
    seconds: float


class Connection(HttpToolsProtocol):
    """A client's connection within limits."""

    def __init__(self, *arguments: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._limits = limits
        self._rest = b""
        self._extra = 0
        self._head_since: float | None = None
        self._unsent_since: float | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        host = self.client and self.client[0]
        of_client = sum(
            isinstance(one, Connection) and one.client is not None and one.client[0] == host
            for one in self.connections
        )
        if len(self.connections) > self._limits.connections or of_client > self._limits.of_client:
            sentence = "Too many connections are open; close some, or retry in a second."
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, sentence)

    def data_received(self, data: bytes) -> None:
        """Parse what a client sent, a part at a time."""
        if self._rest:
            self._rest += data
            return
        if self._head_since is None and (self.cycle is None or self.cycle.response_complete):
            self._head_since = self.loop.time()
        for start in range(0, len(data), _SLICE):
            if len(self.pipeline) >= _PIPELINED:
                self._rest = data[start:]
                self.flow.pause_reading()
                return
            part = data if len(data) <= _SLICE else data[start : start + _SLICE]
            super().data_received(part)
            if self.transport.is_closing():
                return
            self._extra += len(part)
            if self._extra > LONGEST_HEAD:
                sentence = f"A request must have at most {LONGEST_HEAD:,} bytes besides its body."
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, sentence)
                return

    def on_message_begin(self) -> None:
        """Count the bytes of a request from here on."""
        super().on_message_begin()
        self._extra = 0

    def on_headers_complete(self) -> None:
        """Begin to answer; the time for headers is over."""
        self._head_since = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; it does not count as headers."""
        self._extra = max(self._extra - (_PER_BYTE + 1) * len(body), -LONGEST_HEAD)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on with what was not parsed while requests were waiting."""
        super().on_response_complete()
        if self._rest and not self.transport.is_closing():
            rest, self._rest = self._rest, b""
            self.data_received(rest)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        del msg
        self._refuse(HTTPStatus.BAD_REQUEST, "A request must be valid HTTP/1.1.")

    def check_time(self, now: float) -> None:
        """Close the connection if its client is too slow."""
        late = now - self._limits.seconds
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif self._unsent_since < late:
            self.transport.abort()
            return
        if self._head_since is not None and self._head_since < late:
            sentence = f"The headers did not arrive within {self._limits.seconds:g} seconds."
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, sentence)

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer with an error, unless another answer is being written, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            content = to_json({"error": sentence})
            lines = [*HEADERS, (b"content-length", b"%d" % len(content)), (b"connection", b"close")]
            head = b"".join(b"%s: %s\r\n" % line for line in lines)
            self.transport.write(b"".join([STATUS_LINE[status], head, b"\r\n", content]))
        self.transport.close()


class Server(uvicorn.Server):
    """Uvicorn with limits for its connections.

    Parameters
    ----------
    app : Guard
        Answers requests and counts them.
    options : Serving
        Address and limits.
    """

    def __init__(self, app: Guard, options: Serving) -> None:
        keep_large_blocks_apart()
        self._metrics = app.metrics
        limits = Limits(
            options.max_connections,
            options.max_client_connections,
            options.timeout.total_seconds(),
        )
        protocol: Any = partial(Connection, limits=limits)
        config = uvicorn.Config(
            traced(app),
            host=options.host,
            port=options.port,
            http=protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,  # its records go where all others go
            server_header=False,
            timeout_graceful_shutdown=30,
        )
        super().__init__(config)

    async def on_tick(self, counter: int) -> bool:
        """Look at all connections once a second; uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            self._metrics.share()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check_time(connection.loop.time())
        return await super().on_tick(counter)
