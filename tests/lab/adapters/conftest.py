"""One trained hub for all tests of this folder: tiny, trained once per session in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from loralens.lab.adapters import training
from loralens.lab.adapters.base import TinyBase
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.tasks import TASKS


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are too small to share, and one thread gives the same bits everywhere
    root = tmp_path_factory.mktemp("hubs")
    list(training.train(root, training.PRESETS["test"]))
    yield training.hub_folder(root, training.PRESETS["test"])
    torch.set_num_threads(threads)


@pytest.fixture
def hub(hub_folder: Path) -> Hub:
    loaded = Hub(TinyBase(hub_folder))
    for task in TASKS:
        loaded.load(task.name, hub_folder / "adapters" / task.name)
    return loaded
