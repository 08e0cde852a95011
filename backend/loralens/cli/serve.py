"""`loralens serve`: page and API in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Annotated

from loralens.cli.words import Option
from loralens.core.errors import DependencyMissing, InvalidInput, LoraLensError

Host = Annotated[str | None, Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network.")]
Port = Annotated[int | None, Option("--port", min=0, max=65_535, help="Port; 0 picks a free one.")]
Reload = Annotated[bool, Option("--reload", help="Restart when a source file changes.")]
LogLevel = Annotated[str | None, Option("--log-level", help="critical, error, warning, info or debug.")]
LEVELS = ("critical", "error", "warning", "info", "debug")


class PortTaken(LoraLensError):
    """Something else listens on the port."""

    code = "port_taken"
    title = "Port taken"


def command(host: Host = None, port: Port = None, reload: Reload = False, log_level: LogLevel = None) -> None:
    """Serve the page and the API (default: http://localhost:5173)."""
    try:
        import uvicorn
        from pydantic import ValidationError

        from loralens.settings import Settings
    except ImportError as error:
        raise DependencyMissing(f"{error.name} is not installed", hint="pip install loralens") from None
    given = {"host": host, "port": port, "log_level": log_level}
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
    # The reloader's child builds its settings anew: it must see the flags too.
    os.environ.update(
        LORALENS_HOST=settings.host, LORALENS_PORT=str(settings.port), LORALENS_LOG_LEVEL=settings.log_level
    )
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = "localhost" if shown in ("127.0.0.1", "0.0.0.0", "[::]", "[::1]") else shown
    address = f"http://{shown}:{listening.getsockname()[1]}"
    page = settings.page_directory()
    print(
        f"LoRA Lens: {address}/part2" if page else f"LoRA Lens, API only (the page is not built): {address}/api",
        flush=True,
    )
    config = uvicorn.Config(
        "loralens.api.app:create_app",
        factory=True,
        log_level=settings.log_level,
        access_log=settings.log_level in ("info", "debug"),
        # uvicorn would wait without limit for open event streams
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
        reload=reload,
        reload_dirs=[str(Path(__file__).parent.parent)] if reload else None,
    )
    logging.getLogger("uvicorn.error").addFilter(_cut_streams_are_no_error)
    server = uvicorn.Server(config)
    if reload:
        from uvicorn.supervisors import ChangeReload

        ChangeReload(config, target=server.run, sockets=[listening]).run()
    else:
        server.run(sockets=[listening])


def _cut_streams_are_no_error(record: logging.LogRecord) -> bool:
    """Keep uvicorn from printing a traceback for each event stream that a stopping server has to cut."""
    cause = record.exc_info[1] if record.exc_info else None
    return not (isinstance(cause, asyncio.CancelledError) or str(record.msg).startswith("Cancel %s running task(s)"))


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is said in one line before anything is started."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
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
