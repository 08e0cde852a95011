"""Every error that LoRA Lens raises on purpose.

    LoraLensError
    ├── InvalidInput (also ValueError)   a value is out of range, malformed or unknown; names its field
    │   └── InputTooLarge                the input is well formed but over a stated size limit
    ├── NotFound (also LookupError)
    │   ├── UnknownModel                 no such alias or catalogue id
    │   ├── UnknownGpu                   no such GPU in the catalogue
    │   └── JobNotFound                  no such job in the store
    ├── UnsupportedArchitecture          the config is readable, its model family is not modelled
    ├── Unavailable
    │   ├── DeviceUnavailable            the hardware asked for is not in this machine
    │   ├── DependencyMissing            an optional package is not installed
    │   ├── LabInstalling                PyTorch is being installed beside the running server
    │   ├── HubUnavailable               the Hugging Face Hub cannot be reached
    │   └── NeedsServer                  the page computes by itself, and this is not computed in a browser
    ├── GatedModel                       the Hub shows the model's files only to people whom its publisher let in
    ├── Overloaded                       the server computes as much as it can already
    ├── TookTooLong                      the answer would take longer than a request may
    ├── DeviceBusy                       the device runs another job and queueing was refused
    └── JobFailed                        a job ended with an error
        └── OutOfMemory                  the device ran out of memory while working

"It does not fit" is an answer of the calculator, never an error.
Each class carries a stable `code`, an HTTP `status` and a CLI `exit_code`; the API and the CLI each translate them in one place.
"""

from __future__ import annotations

from typing import ClassVar


class LoraLensError(Exception):
    """Base of all errors with a message for people, a stable code for programs and a hint: what to type next."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint


class InvalidInput(LoraLensError, ValueError):
    """A value that was given is out of range, malformed or unknown."""

    code = "invalid_input"
    title = "Invalid input"
    status = 422
    exit_code = 2


class InputTooLarge(InvalidInput):
    """The input is larger than the stated limit."""

    code = "input_too_large"
    title = "Input too large"
    status = 413


class NotFound(LoraLensError, LookupError):
    """The thing that was named does not exist."""

    code = "not_found"
    title = "Not found"
    status = 404
    exit_code = 2


class UnknownModel(NotFound):
    """No alias or catalogue entry has this name."""

    code = "unknown_model"
    title = "Unknown model"


class UnknownGpu(NotFound):
    """No GPU in the catalogue has this id."""

    code = "unknown_gpu"
    title = "Unknown GPU"


class JobNotFound(NotFound):
    """No job in the store has this id."""

    code = "job_not_found"
    title = "Unknown job"


class UnsupportedArchitecture(LoraLensError):
    """The configuration is readable but its model family is not modelled."""

    code = "unsupported_architecture"
    title = "Unsupported architecture"
    status = 422
    exit_code = 2


class Unavailable(LoraLensError):
    """Something outside the program is needed and is not there."""

    code = "unavailable"
    title = "Not available here"
    status = 503
    exit_code = 3


class DeviceUnavailable(Unavailable):
    """The hardware that was asked for is not in this machine."""

    code = "device_unavailable"
    title = "Device not available"


class DependencyMissing(Unavailable):
    """An optional package is not installed; the hint names the extra that brings it."""

    code = "dependency_missing"
    title = "Optional package missing"


class LabInstalling(Unavailable):
    """What the lab needs (PyTorch) is being installed beside the running server."""

    code = "lab_installing"
    title = "The lab is being installed"


class HubUnavailable(Unavailable):
    """The Hugging Face Hub cannot be reached."""

    code = "hub_unavailable"
    title = "Hugging Face Hub not reachable"


class NeedsServer(Unavailable):
    """The page computes in the browser, and this measures a machine, trains or looks something up."""

    code = "needs_server"
    title = "Needs a server"


class GatedModel(LoraLensError):
    """The Hub shows the files of this model only to people whom its publisher let in."""

    code = "gated_model"
    title = "Gated model"
    status = 403


class Overloaded(LoraLensError):
    """The server computes as much as it can; the same request may be sent again in some seconds."""

    code = "overloaded"
    title = "Too much to compute"
    status = 429

    def __init__(
        self, message: str, *, field: str | None = None, hint: str | None = None, retry_after_seconds: int = 1
    ) -> None:
        super().__init__(message, field=field, hint=hint or f"ask again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class TookTooLong(LoraLensError):
    """The answer would take longer than a request may be computed for."""

    code = "took_too_long"
    title = "Took too long"
    status = 503


class DeviceBusy(LoraLensError):
    """The device is running another job and queueing was refused."""

    code = "device_busy"
    title = "Device busy"
    status = 409


class JobFailed(LoraLensError):
    """A job ended with an error."""

    code = "job_failed"
    title = "Job failed"


class OutOfMemory(JobFailed):
    """The device ran out of memory while a job was working."""

    code = "out_of_memory"
    title = "Out of memory"
