"""Every error a user can meet, with the exit code the command line ends with.

    MilanError                 1  the work failed
    ├── UsageError             2  the command line asks for something that cannot be
    │   ├── LayerNotFound      2  no tensor, node, module or weight of that name
    │   ├── LayerAmbiguous     2  a name that fits several layers
    │   ├── LayerUnsuitable    2  a tensor that has no units (an integer, a scalar, a weight)
    │   └── PhraseUnknown      2  a phrase in words that the captioner does not have
    ├── GateNotMet             3  a limit the user set was broken
    ├── EnvironmentUnfit       4  this machine or installation cannot do it
    │   ├── ExtraMissing       4  a package of an extra is not installed
    │   ├── RuntimeConflict    4  none, or two, ONNX Runtime distributions
    │   ├── DeviceUnavailable  4  the asked-for device is not there
    │   ├── OutputUnwritable   4  the output folder or file cannot be written
    │   └── FolderBusy         4  another process makes the output folder
    └── BadInput               5  a file or folder that was given cannot be used
        ├── SubjectError       5  the subject model
        ├── ProbeError         5  the probe images
        ├── BundleError        5  the captioner bundle
        └── RunError           5  a run directory

The message of an error is one sentence that names the thing and the cause; ``hint`` is the mend.
An interrupt (Ctrl-C) ends with 130, as shells expect.
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "BundleError",
    "DeviceUnavailable",
    "EnvironmentUnfit",
    "ExtraMissing",
    "FolderBusy",
    "GateNotMet",
    "LayerAmbiguous",
    "LayerNotFound",
    "LayerUnsuitable",
    "MilanError",
    "MilanWarning",
    "OutputUnwritable",
    "PhraseUnknown",
    "ProbeError",
    "RunError",
    "RuntimeConflict",
    "SubjectError",
    "UsageError",
]


class MilanError(Exception):
    """Root of the tree: ``hint`` is the mend, ``exit_code`` the command's exit status."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(MilanError):
    exit_code = 2


class LayerNotFound(UsageError):
    pass


class LayerAmbiguous(UsageError):
    pass


class LayerUnsuitable(UsageError):
    pass


class PhraseUnknown(UsageError):
    pass


class GateNotMet(MilanError):
    exit_code = 3


class EnvironmentUnfit(MilanError):
    exit_code = 4


class ExtraMissing(EnvironmentUnfit):
    pass


class RuntimeConflict(EnvironmentUnfit):
    pass


class DeviceUnavailable(EnvironmentUnfit):
    pass


class OutputUnwritable(EnvironmentUnfit):
    pass


class FolderBusy(EnvironmentUnfit):
    pass


class BadInput(MilanError):
    exit_code = 5


class SubjectError(BadInput):
    pass


class ProbeError(BadInput):
    pass


class BundleError(BadInput):
    pass


class RunError(BadInput):
    pass


class MilanWarning(UserWarning):
    """Something the user should know that does not stop the work."""
