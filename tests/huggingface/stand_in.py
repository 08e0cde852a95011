"""A small HTTP server that stands in for the Hub: it answers well, slowly, hugely, elsewhere, or not at all."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 160,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}  # fmt: skip
# Embedding and head; per layer q and o, k and v, three matrices of the MLP, two norms; the last norm.
PARAMETERS = 2 * 1000 * 64 + 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64 + 2 * 64) + 64


class StandIn(ThreadingHTTPServer):
    """`with StandIn() as hub`: its `url`, and the `paths` it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.elsewhere = "http://127.0.0.1:9/stolen"
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        owner, name = self.path.strip("/").split("/")[:2]
        getattr(self, f"_{name.replace('-', '_')}", self._missing)(owner)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _small(self, owner: str) -> None:
        if self.path.startswith("/api/"):
            return self._send(404, b"")
        self._send(200, json.dumps(CONFIG).encode())

    def _missing(self, owner: str) -> None:
        self._send(404, b"Not Found", x_error_code="EntryNotFound" if owner == "empty" else "RepoNotFound")

    def _stranger(self, owner: str) -> None:
        self._send(401, b"{}", x_error_code="RepoNotFound")

    def _gated(self, owner: str) -> None:
        self._send(401, b"{}", x_error_code="GatedRepo")

    def _forbidden(self, owner: str) -> None:
        self._send(403, b"{}")

    def _broken(self, owner: str) -> None:
        self._send(500, b"oops")

    def _html(self, owner: str) -> None:
        self._send(200, b"<!doctype html><title>hello</title>")

    def _list(self, owner: str) -> None:
        self._send(200, b"[1, 2]")

    def _deep(self, owner: str) -> None:
        self._send(200, b'{"a":' * 50_000 + b"1" + b"}" * 50_000)

    def _odd(self, owner: str) -> None:
        self._send(200, b'{"model_type": "no-such-family"}')

    def _packed(self, owner: str) -> None:
        self._send(200, b"\x1f\x8b\x08", content_encoding="gzip")

    def _huge(self, owner: str) -> None:
        # Without a length, and for as long as anybody reads.
        self.send_response(200)
        self.end_headers()
        while not self.server.closing.is_set():
            self.wfile.write(b" " * 65_536)

    def _slow(self, owner: str) -> None:
        self.server.closing.wait()

    def _dripping(self, owner: str) -> None:
        # Each byte comes in time; all of them never do.
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.closing.wait(0.05):
            self.wfile.write(b"x-more: 1\r\n")
            self.wfile.flush()

    def _renamed(self, owner: str) -> None:
        self._send(307, b"", location="/new-owner/small/resolve/main/config.json")

    def _elsewhere(self, owner: str) -> None:
        self._send(302, b"", location=self.server.elsewhere)

    def _circle(self, owner: str) -> None:
        self._send(302, b"", location=self.path)

    def _nowhere(self, owner: str) -> None:
        self._send(302, b"", location="file:///etc/passwd")
