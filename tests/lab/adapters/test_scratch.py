"""Work in progress leaves nothing behind, even where a process was killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loralens.lab.adapters.scratch import scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from loralens.lab.adapters.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "hub") as folder:
    (folder / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == -9
    assert [path.name.startswith(".hub-") for path in tmp_path.iterdir()] == [True]
    with scratch_folder(tmp_path, "other"):
        assert len(list(tmp_path.glob(".hub-*"))) == 1  # another kind is not its business
    with scratch_folder(tmp_path, "hub") as mine:
        assert list(tmp_path.iterdir()) == [mine]
        with scratch_folder(tmp_path, "hub"):
            assert mine.is_dir()  # of a process that runs
    assert list(tmp_path.iterdir()) == []
