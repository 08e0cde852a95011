"""Adapters for real: one base model, many adapters, switched in a microsecond.

    from loralens.lab.adapters import TASKS, example_requests, open_hub, prompt_for

    hub = open_hub("quick")                          # trains base and six adapters once (a minute), then reads them
    prompt = prompt_for(example_requests()[0])
    hub.switch("sql_query")                          # one write; also way="pointer", "file" or "merge"
    print(hub.generate(prompt))                      # by the active adapter
    for token in hub.stream(prompt, [task.name for task in TASKS]):   # six adapters in one batch, token by token
        print(token.adapter, token.text)
    hub.save("sql_query", "my-adapter")              # PEFT's format, two files
    hub.load("copy", "my-adapter")                   # or any PEFT adapter that fits the base
    print(hub.storage())                             # bytes on disk: base + adapters, against a full model per task
    print(hub.verify(prompt))                        # outputs differ, return bit for bit, base bytes unchanged
    for event in measure_switching(hub):             # every way timed against reloading the base, and merge drift
        print(event)

`read_adapter`, `inspect_adapter`, `resize_adapter` and `write_adapter` work on any PEFT LoRA adapter without a base.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loralens.lab.adapters.adapter import Adapter
    from loralens.lab.adapters.base import LocalBase, TinyBase
    from loralens.lab.adapters.files import read_adapter, write_adapter
    from loralens.lab.adapters.hub import Hub
    from loralens.lab.adapters.hub_answers import DiskUse, Loaded, Switched, Verification
    from loralens.lab.adapters.inspect import AdapterReport, inspect_adapter
    from loralens.lab.adapters.resize import Resized, resize_adapter
    from loralens.lab.adapters.switching import measure_switching
    from loralens.lab.adapters.tasks import TASKS, Task, prompt_for
    from loralens.lab.factors import Factors

__all__ = [
    "TASKS",
    "Adapter",
    "AdapterReport",
    "DiskUse",
    "Factors",
    "Hub",
    "Loaded",
    "LocalBase",
    "Resized",
    "Switched",
    "Task",
    "TinyBase",
    "Verification",
    "example_requests",
    "inspect_adapter",
    "measure_switching",
    "open_hub",
    "prompt_for",
    "read_adapter",
    "resize_adapter",
    "write_adapter",
]


_HOMES = {
    "Adapter": "adapter",
    "Factors": "adapter",
    "LocalBase": "base",
    "TinyBase": "base",
    "read_adapter": "files",
    "write_adapter": "files",
    "Hub": "hub",
    "Loaded": "hub_answers",
    "DiskUse": "hub_answers",
    "Switched": "hub_answers",
    "Verification": "hub_answers",
    "AdapterReport": "inspect",
    "inspect_adapter": "inspect",
    "Resized": "resize",
    "resize_adapter": "resize",
    "measure_switching": "switching",
    "TASKS": "tasks",
    "Task": "tasks",
    "prompt_for": "tasks",
}
"""Names of this package and the modules that they are in: torch is imported with the first that needs it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def open_hub(
    preset: str = "standard",
    folder: str | Path | None = None,
    *,
    progress: Callable[[dict[str, object]], None] | None = None,
) -> Hub:
    """A hub with the six adapters, trained now or read from where they were kept.

    Args:
        preset: standard (minutes, answers right), quick (about a minute, learns the form of the answers) or
            test (seconds, learns nothing).
        folder: where trained hubs are kept, default `hubs` in the state folder.
        progress: called with each training event, {"type": "progress", "stage", "step", "steps", "loss"}.
    """
    from loralens.lab.adapters.training import hub_folder, recipe_named, train

    recipe = recipe_named(preset)
    root = Path(folder) if folder is not None else default_folder()
    for event in train(root, recipe):
        if progress is not None:
            progress(event)
    return load_hub(hub_folder(root, recipe))


def load_hub(folder: Path) -> Hub:
    """The hub in the folder of a finished training."""
    from loralens.lab.adapters.base import TinyBase
    from loralens.lab.adapters.hub import Hub
    from loralens.lab.adapters.tasks import TASKS
    from loralens.lab.adapters.training import is_trained

    if not is_trained(folder):
        raise FileNotFoundError(f"no trained hub in {folder}")
    hub = Hub(TinyBase(folder))
    for task in TASKS:
        hub.load(task.name, folder / "adapters" / task.name)
    return hub


def default_folder() -> Path:
    """Where trained hubs are kept: `hubs` below the state folder of the settings."""
    from loralens.settings import Settings

    return Settings().state_directory() / "hubs"


def example_requests(count: int = 6) -> list[str]:
    """Requests that no adapter was trained on."""
    from loralens.lab.adapters.tasks import held_out_facts

    return [facts.request for facts in held_out_facts()[:count]]
