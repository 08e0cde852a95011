from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.forgetting.small import SMALL

from loralens.lab.forgetting.job import run_plan
from loralens.lab.forgetting.source import ExperimentSource, tiny_source
from loralens.lab.tiny.checkpoints import ensure_base
from loralens.lab.tiny.corpus import code_corpus, prose_corpus
from loralens.lab.tiny.train import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models of a few thousand parameters only wait for each other on two threads."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forgetting")


@pytest.fixture(scope="session")
def events(state_dir: Path) -> list[dict[str, Any]]:
    """One whole run, the base trained on the way."""
    return list(run_plan(SMALL, prose_corpus(), code_corpus(), state_dir))


@pytest.fixture
def source(events: list[dict[str, Any]], state_dir: Path) -> ExperimentSource:
    """The base that the run was made with, and its texts."""
    return tiny_source(ensure_base(SMALL.preset, prose_corpus(), state_dir), prose_corpus(), code_corpus(), SMALL)
