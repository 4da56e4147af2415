"""An HTTP proxy before the real S3 server that breaks what it is told to break.

Requests pass with the headers and the path that the client signed, the `Host` among them, so signatures hold.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = (
    "500",  # InternalError, the request does not reach the server
    "slow_down",  # 503 SlowDown, likewise
    "reset_answer",  # in the middle of the answer's body, or of its head where it has none
    "reset_upload",  # in the middle of the request's body, of which the server sees nothing
    "lost_answer",  # the server did what was asked, and nobody hears of it
    "late",  # the request waits `delay` seconds
    "outage",  # the connection is reset at once
)
_ERRORS = {"500": (500, "InternalError"), "slow_down": (503, "SlowDown")}
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class Fault:
    """What happens to requests of `methods` whose path holds `path`.

    times: so often; None: until it is taken away.
    share: to this share of them.
    """

    kind: str
    times: int | None = None
    share: float = 1.0
    methods: tuple[str, ...] = ("GET", "PUT", "POST", "HEAD", "DELETE")
    path: str = ""
    delay: float = 0.0  # s

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no fault")


@dataclass
class Proxy:
    """In use while the context lasts; `url` is the endpoint that clients get."""

    target: str  # http://host:port
    injected: Counter[str] = field(default_factory=Counter)  # faults that happened, by kind
    requests: Counter[str] = field(default_factory=Counter)  # by method

    def __enter__(self) -> "Proxy":
        self._faults, self._lock, self._random = list[Fault](), threading.Lock(), random.Random(0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, kind: str, **how: Any) -> Fault:
        fault = Fault(kind, **how)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def meets(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            self.requests[method] += 1
            for fault in self._faults:
                if fault.times == 0 or method not in fault.methods or fault.path not in path:
                    continue
                if fault.share < 1 and self._random.random() >= fault.share:
                    continue
                fault.times = None if fault.times is None else fault.times - 1
                self.injected[fault.kind] += 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the other side went, or we cut
            self.close_connection = True

    def _serve(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.meets(self.command, self.path)
        kind = fault.kind if fault else ""
        length = int(self.headers.get("Content-Length", 0))
        if kind == "outage":
            return self._reset()
        if kind == "reset_upload":
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if kind in _ERRORS:
            status, name = _ERRORS[kind]
            text = f"<Error><Code>{name}</Code><Message>injected</Message></Error>".encode()
            return self._answer(status, [("Content-Type", "application/xml")], text)
        if fault and kind == "late":
            time.sleep(fault.delay)
        status, headers, answer = self._forward(proxy.target, body)
        if kind == "lost_answer":
            return self._reset()
        self._answer(status, headers, answer, cut=kind == "reset_answer")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _forward(self, target: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        far = http.client.HTTPConnection(target.removeprefix("http://"), timeout=120)
        try:
            far.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    far.putheader(name, value)
            if body or "Content-Length" in self.headers:
                far.putheader("Content-Length", str(len(body)))
            far.endheaders(body or None)
            answer = far.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            if self.command == "HEAD":
                headers.append(("Content-Length", answer.headers.get("Content-Length", "0")))
            return answer.status, headers, answer.read()
        finally:
            far.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(body)))
        if cut and not body:
            return self._reset()
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            time.sleep(0.05)  # a reset takes back what the other side has not read yet
            self._reset()

    def _reset(self) -> None:
        """End the connection by a reset, not by an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
