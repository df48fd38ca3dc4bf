"""A service as a process: its socket, its signals, its log."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from milan_onnx.choice import Choice
from milan_onnx.errors import EnvironmentUnfit, UsageError
from milan_onnx.progress import Reporter
from milan_onnx.serve.app import create_app
from milan_onnx.serve.settings import ServeSettings

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAITING_CONNECTIONS = 2048


class Service(uvicorn.Server):
    """uvicorn's server, which ends without raising the signal that ended it again."""

    fault: Exception | None = None
    """What a part could not start for."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End gracefully: answers that never end by themselves do so now."""
        for part in self.config.app.state.parts:  # type: ignore[union-attr]
            part.hush()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the service gracefully, a second SIGINT at once."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def give_up(self, error: Exception) -> None:
        """End, for an error."""
        self.fault = error
        self.should_exit = True


def run(settings: ServeSettings, say: Reporter, *, access_log: bool = False) -> None:
    """Serve until a signal ends it; requests under way have the settings' ``grace`` to finish.

    Raises UsageError, EnvironmentUnfit where the address cannot be had, and what a part cannot
    start for.
    """
    settings.check()
    with _listening(settings) as listener:
        _introduce(settings, listener, say)
        service: Service

        def give_up(error: Exception) -> None:
            service.give_up(error)

        app = create_app(settings, say=say, on_fault=give_up)
        service = Service(_config(app, settings, access_log))
        service.run(sockets=[listener])
    if service.fault is not None:
        raise service.fault
    say.note("stopped")


def _config(app: Any, settings: ServeSettings, access_log: bool) -> uvicorn.Config:
    _log_to_stderr()
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        lifespan="on",
        ws="none",
    )


def _log_to_stderr() -> None:
    """Warnings and faults, and the access log where it is asked for; no news of uvicorn's."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    levels = {"milan_onnx.serve": "INFO", "uvicorn": "WARNING", "uvicorn.access": "INFO"}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _listening(settings: ServeSettings) -> socket.socket:
    """The socket. Raises EnvironmentUnfit where the address is taken or cannot be had."""
    host, port = settings.host, settings.port
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"{host} is no address of this machine", hint="see --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(WAITING_CONNECTIONS)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentUnfit(
                f"port {port} of {host} is in use", hint="stop what uses it, or give another --port"
            ) from error
        reason = (error.strerror or str(error)).lower()
        raise EnvironmentUnfit(
            f"cannot listen on port {port} of {host}: {reason}", hint="see --host and --port"
        ) from error
    return listener


def _introduce(settings: ServeSettings, listener: socket.socket, say: Reporter) -> None:
    """Say every choice, and what is dangerous."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    why = "this machine only" if settings.local else "--host"
    say.choice("address", Choice(f"http://{shown}:{port}", why))
    asked = "asked for" if settings.token else "none"
    say.choice("token", Choice(asked, "given" if settings.token else "none given"))
    mode = "read-only" if settings.read_only else "jobs may be started"
    say.choice("mode", Choice(mode, "--read-only" if settings.read_only else "no --read-only"))
    batch = f"up to {settings.batch} units, {settings.wait_ms:g} ms of waiting"
    say.choice("batches", Choice(batch, f"--batch, --wait-ms; {settings.queue} units may wait"))
    if not settings.local and settings.token is None:
        say.note(
            "warning: whoever reaches this address may use it: there is no token; "
            "give --token-file, or listen on 127.0.0.1"
        )
