"""`loralens serve`: page and API in one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Annotated

from loralens.cli.words import Option
from loralens.core.errors import DependencyMissing, InvalidInput, LoraLensError

Host = Annotated[str | None, Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network.")]
Port = Annotated[int | None, Option("--port", min=0, max=65_535, help="Port; 0 picks a free one.")]
Workers = Annotated[int | None, Option("--workers", min=1, max=64, help="Processes that answer; they share the jobs.")]
Reload = Annotated[bool, Option("--reload", help="Restart when a source file changes.")]
LogLevel = Annotated[str | None, Option("--log-level", help="critical, error, warning, info or debug.")]
OTHER_DESCRIPTORS = 200
"""Beside connections: the job store, files of the page, a job's pipes (generous)."""
_TOKEN = re.compile(r"([?&]token=)[^&\s]+")
LEVELS = ("critical", "error", "warning", "info", "debug")


class PortTaken(LoraLensError):
    """Something else listens on the port."""

    code = "port_taken"
    title = "Port taken"


EXAMPLES = (
    ("loralens serve", "page and API on http://localhost:5173"),
    ("loralens serve --port 0", "on a free port, which it prints"),
    ("loralens serve --host 0.0.0.0", "open to the network"),
)


def command(
    host: Host = None, port: Port = None, workers: Workers = None, reload: Reload = False, log_level: LogLevel = None
) -> None:
    """Serve the page and the API (default: http://localhost:5173)."""
    try:
        import uvicorn
        from pydantic import ValidationError

        from loralens.limits import FILE_VARIABLE, new_file
        from loralens.settings import Settings
    except ImportError as error:
        raise DependencyMissing(f"{error.name} is not installed", hint="pip install loralens") from None
    given = {"host": host, "port": port, "workers": workers, "log_level": log_level}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        message = f"{name}: {first['msg']}, got {first['input']!r}"
        raise InvalidInput(message, field=name, hint=f"see LORALENS_{name.upper()}") from None
    if settings.log_level not in LEVELS:
        raise InvalidInput(
            f"log level must be one of {', '.join(LEVELS)}, got {settings.log_level!r}", field="log_level"
        )
    listening = _listen(settings.host, settings.port)
    _allow_descriptors(settings.max_connections + OTHER_DESCRIPTORS)
    # Children (workers, the reloader's) build their settings anew: they must see the flags too.
    os.environ.update(
        LORALENS_HOST=settings.host,
        LORALENS_PORT=str(settings.port),
        LORALENS_LOG_LEVEL=settings.log_level,
        LORALENS_WORKERS=str(settings.workers),
    )
    token = settings.token_text()
    if token == "auto":
        token = os.environ["LORALENS_TOKEN"] = secrets.token_urlsafe(24)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = "localhost" if shown in ("127.0.0.1", "0.0.0.0", "[::]", "[::1]") else shown
    address = f"http://{shown}:{listening.getsockname()[1]}"
    page = settings.page_directory()
    link = f"?token={token}" if token and settings.token_text() == "auto" else ""
    print(
        f"LoRA Lens: {address}/part2{link}"
        if page
        else f"LoRA Lens, API only (the page is not built): {address}/api{link and f' (token {token})'}",
        flush=True,
    )
    config = uvicorn.Config(
        "loralens.api.app:create_app",
        factory=True,
        log_level=settings.log_level,
        access_log=settings.log_level in ("info", "debug"),
        http="loralens.api.protocol:BoundedProtocol",
        ws="none",
        limit_concurrency=settings.max_connections + 1,
        # Streams have the first third of the time to stop, running jobs the second.
        timeout_graceful_shutdown=max(1, int(settings.shutdown_seconds / 3)),
        server_header=False,
        workers=settings.workers,
        reload=reload,
        reload_dirs=[str(Path(__file__).parent.parent)] if reload else None,
    )
    logging.getLogger("uvicorn.error").addFilter(_cut_streams_are_no_error)
    logging.getLogger("uvicorn.access").addFilter(_without_token)
    server = uvicorn.Server(config)
    if reload:
        from uvicorn.supervisors import ChangeReload

        ChangeReload(config, target=server.run, sockets=[listening]).run()
    elif settings.workers > 1:
        from uvicorn.supervisors import Multiprocess

        limits = new_file(2 * settings.workers)
        os.environ[FILE_VARIABLE] = str(limits)
        try:
            Multiprocess(config, sockets=[listening]).run()
        finally:
            limits.unlink(missing_ok=True)
    else:
        server.run(sockets=[listening])


def _allow_descriptors(wanted: int) -> None:
    """As many open files as the connections need, as far as the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _without_token(record: logging.LogRecord) -> bool:
    """The access log shows addresses; a token in one is not for it."""
    if isinstance(record.args, tuple):
        record.args = tuple(_TOKEN.sub(r"\1…", arg) if isinstance(arg, str) else arg for arg in record.args)
    return True


def _cut_streams_are_no_error(record: logging.LogRecord) -> bool:
    """Keep uvicorn from printing a traceback for each event stream that a stopping server has to cut."""
    cause = record.exc_info[1] if record.exc_info else None
    return not (isinstance(cause, asyncio.CancelledError) or str(record.msg).startswith("Cancel %s running task(s)"))


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is said in one line before anything is started."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends small answers at once (TCP_NODELAY) only where a socket says that it is TCP's
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)  # a browser that is told the address may come before the server is up: it waits
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortTaken(
            f"cannot listen on {host}:{port}: {reason}", hint="choose another port, as with PORT=5174"
        ) from None
    listening.set_inheritable(True)
    return listening
