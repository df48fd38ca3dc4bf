"""The process that describes one job: ``python -m ...jobs.worker LIMITS FOLDER SETTINGS``.

It limits itself, checks what was uploaded, and calls `milan_onnx.describe` with the folder of the
job; where that was begun before, it goes on. What it does is told on stdout, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from milan_onnx.errors import MilanError, SubjectError, UsageError
from milan_onnx.serve.jobs.confine import Limits, confine
from milan_onnx.serve.jobs.folders import PHOTOS, REQUEST, RUN, UPLOAD, model_of
from milan_onnx.serve.jobs.telling import Teller, clipped

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

NO_MEMORY = re.compile(r"bad.?alloc|AllocateRaw|failed to allocate|out of memory", re.I)


def main() -> None:
    """Work, tell how it went, and leave with the exit code that the command line would have."""
    folder, settings = Path(sys.argv[2]), json.loads(sys.argv[3])
    confined(lambda teller: work(folder, settings, teller), folder)


def confined(task: Callable[[Teller], dict[str, Any]], folder: Path | None = None) -> None:
    """Limit this process as its first argument says, and then do a task.

    What it returns is told as ``done``, what it raises as ``failed``, where what lies in ``folder``
    is called by its name there.
    """
    facts = json.loads(sys.argv[1])
    parent = facts.pop("parent")
    limits = Limits(**facts)
    confine(limits, parent)
    signal.signal(signal.SIGTERM, _stopped)
    teller = own_teller()
    try:
        summary = task(teller)
    except Exception as error:
        text, hint, code = failure(error, limits)
        for place in (folder / UPLOAD, folder) if folder else ():
            text = text.replace(f"{place}/", "")
        teller.tell("failed", error=clipped(text), hint=clipped(hint), exit_code=code)
        sys.exit(code)
    teller.tell("done", **summary)


def own_teller() -> Teller:
    """Talks on what was stdout, which from now on is the log: libraries print there too."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Teller(stream)


def work(folder: Path, settings: dict[str, Any], teller: Teller) -> dict[str, int]:
    """Describe what a job asks for into its folder; returns the figures of the run.

    ``settings``: bundle, device, threads and max_nodes of the service.
    """
    from milan_onnx.describing import describe
    from milan_onnx.run import MANIFEST
    from milan_onnx.serve.jobs.request import OptionsRequest, describe_options

    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))["request"]
    model, uploaded = model_of(folder, request)
    check_model(model, uploaded=uploaded, max_nodes=settings["max_nodes"])
    asked = OptionsRequest.model_validate_json(json.dumps(request["options"]))
    # What a service of another version began is not gone on with: it begins anew.
    options = replace(
        describe_options(asked, settings["device"], settings["threads"]),
        overwrite=not (folder / RUN / MANIFEST).is_file(),
    )
    run = describe(
        model,
        request["layers"],
        folder / PHOTOS if request["uploaded_images"] else request["images"],
        folder / RUN,
        bundle=settings["bundle"],
        options=options,
        reporter=teller,
        on_label=teller.label,
    )
    return {
        "layers": len(run.layers),
        "units": len(run.labels),
        "described": sum(label.description is not None for label in run.labels),
        "abstained": sum("abstained" in label.flags for label in run.labels),
    }


def check_model(path: Path, *, uploaded: bool, max_nodes: int) -> None:
    """Refuse what a client may not send, before any session is made.

    Raises SubjectError for what is no model or keeps weights in other files though it was
    uploaded, UsageError for too many nodes.
    """
    from milan_onnx.subject import parse_model

    model = parse_model(path)
    if uploaded and _has_external_data(model):
        raise SubjectError(
            "the uploaded model keeps weights in other files, which an upload may not",
            hint="save it as one file: onnx.save_model(..., save_as_external_data=False)",
        )
    count = _count_nodes(model)
    if count > max_nodes:
        raise UsageError(
            f"the model has {count} nodes, more than the {max_nodes} that this service takes",
            hint="simplify the model, or raise the service's --max-nodes",
        )


def _has_external_data(model: ModelProto) -> bool:
    from milan_onnx.subject.model import all_tensors

    return any(
        tensor.data_location == tensor.EXTERNAL or len(tensor.external_data) > 0
        for tensor in all_tensors(model)
    )


def _count_nodes(model: ModelProto) -> int:
    """Nodes of the graph, of the bodies of its loops and branches, and of its functions."""
    from milan_onnx.subject.graph import inner_graphs

    waiting: list[Iterable[NodeProto]] = [model.graph.node]
    waiting += [function.node for function in model.functions]
    count = 0
    while waiting:
        for node in waiting.pop():
            count += 1
            waiting += [body.node for body in inner_graphs(node)]
    return count


def failure(error: Exception, limits: Limits) -> tuple[str, str, int]:
    """What is told of an error: the sentence, the mend, and the exit code."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        text = f"the work needs more than the {limits.memory >> 20} MiB of memory that it may use"
        return text, "describe fewer layers at once, or raise the service's --job-memory", 4
    if isinstance(error, MilanError):
        return error.message, error.hint, error.exit_code
    traceback.print_exc()
    if isinstance(error, RecursionError):
        return "the model is nested too deeply", "export it again, flatter", 5
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        return f"a file cannot be read or written: {reason}", "free space on the service's disk", 4
    text = f"the work failed: {type(error).__name__}: {error}"
    return text, "this is a fault of the program: the job's log says more", 1


def _stopped(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
