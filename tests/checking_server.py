"""The base of the tests' HTTP servers: what goes wrong in them fails the test."""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CheckingServer(ThreadingHTTPServer):
    """`bad` holds what was wrong with requests; a thread a request, on any free port of this machine."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)
        self.bad: list[str] = []
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that went away is part of the tests; anything else fails them."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.bad.append(repr(error))


class CheckingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def read_body(self) -> bytes:
        """The whole request body; a client that left before it was whole went away."""
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError("the client left before its request was whole")
        return body

    def send(self, status: int, body: str, retry_after: str | None = None) -> None:
        """A whole JSON answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body.encode())

    def drop(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
