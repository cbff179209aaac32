"""The admin port: metrics and liveness over HTTP, on loopback alone, by a thread that the event loop cannot hold up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from innerloop_server.errors import PreconditionFailed

HOST = "127.0.0.1"


class AdminServer:
    """Answers ``/metrics`` (Prometheus text) and ``/healthz`` (200 ``ok``, or 503 ``draining``)."""

    def __init__(self, registry: CollectorRegistry, serving: Callable[[], bool]) -> None:
        self._registry = registry
        self._serving = serving
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, port: int) -> int:
        """Listen on 127.0.0.1, on any free port if 0. The port.

        Raises:
            PreconditionFailed: ``PORT_TAKEN``.
        """
        try:
            self._http = ThreadingHTTPServer((HOST, port), self._handler())
        except OSError as error:
            raise PreconditionFailed(
                f"the admin port {HOST}:{port} cannot be opened: {error.strerror}; choose another",
                reason="PORT_TAKEN",
                facts={"port": str(port)},
            ) from error
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="admin", daemon=True)
        self._thread.start()
        return int(self._http.server_address[1])

    def stop(self) -> None:
        """Stop listening. Without effect where it never started."""
        if self._http is not None and self._thread is not None:
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()
            self._http = self._thread = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry, serving = self._registry, self._serving

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif self.path == "/healthz":
                    up = serving()
                    self._answer(200 if up else 503, "text/plain", b"ok\n" if up else b"draining\n")
                else:
                    self._answer(404, "text/plain", b"there is /metrics and /healthz\n")

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: a scrape every few seconds is no news."""

        return Handler
