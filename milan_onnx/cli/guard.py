"""How a command ends: with an exit code and one sentence, never with a traceback for a mistake."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec

from milan_onnx.errors import MilanError

INTERRUPTED = 130
TERMINATED = 143

P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the package's errors, interrupts and a closed pipe into exit codes."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        signal.signal(signal.SIGTERM, _terminated)
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except MilanError as error:
            end(f"error: {error}", error.exit_code)
        except KeyboardInterrupt:
            end("interrupted: nothing was left behind", INTERRUPTED)
        except BrokenPipeError:
            # The reader of stdout went away (`| head`): no error, and not to be said at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return run


def end(text: str, code: int) -> NoReturn:
    """Say a last sentence and leave."""
    print(text, file=sys.stderr, flush=True)
    sys.exit(code)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
