"""How a command ends: with an exit code and one sentence, never with a traceback for a mistake."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn, ParamSpec

from milan_onnx.errors import EnvironmentUnfit, MilanError
from milan_onnx.progress import printable

INTERRUPTED = 130

P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the package's errors, the machine's, interrupts and a closed pipe into exit codes."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _catch_signals()
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except MilanError as error:
            end(f"error: {error}", error.exit_code)
        except KeyboardInterrupt:
            end("interrupted", INTERRUPTED)
        except BrokenPipeError:
            # The reader of stdout went away (`| head`): no error, and not to be said at exit.
            discard_stdout()
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError):
                discard_stdout()
            code, text = failure(error)
            end(f"error: {text}", code)

    return run


def failure(error: Exception) -> tuple[int, str]:
    """The exit code and the sentence for an error; 1 for what is a fault of the program."""
    if isinstance(error, MilanError):
        return error.exit_code, str(error)
    if isinstance(error, OSError):
        return EnvironmentUnfit.exit_code, _reason(error)
    if isinstance(error, MemoryError):
        hint = "describe fewer layers at once, or lower --tail-memory, --threads or --beam"
        return EnvironmentUnfit.exit_code, f"the machine's memory is not enough; {hint}"
    return MilanError.exit_code, f"{type(error).__name__}: {error}"


def end(text: str, code: int) -> NoReturn:
    """Say a last sentence, on one line, and leave."""
    with contextlib.suppress(OSError):  # stderr may be full or closed too
        print(printable(text), file=sys.stderr, flush=True)
    sys.exit(code)


def usable_streams() -> None:
    """Make stdout and stderr something that any text can be printed to.

    One that was closed (``>&-``) swallows all, and a character that the terminal's encoding does
    not have is written as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Let what is not written yet go nowhere, so that the exit does not try again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if error.filename is None:
        return f"cannot write the output: {reason}; free space, or send it elsewhere"
    return f"{os.fsdecode(error.filename)}: {reason}"


def _catch_signals() -> None:
    """End as after an error when asked to, or when the terminal goes away (not under nohup)."""
    signal.signal(signal.SIGTERM, _terminated)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        signal.signal(hangup, _terminated)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
