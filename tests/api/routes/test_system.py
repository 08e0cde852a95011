from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import loralens
from loralens.api.schemas import SystemAnswer


def test_this_machine(client):
    answer = SystemAnswer.model_validate(client.get("/api/system").json())
    assert "cpu" in [device.id for device in answer.devices]
    assert answer.cpu_cores >= 1
    assert answer.packages["torch"]


def test_the_answer_needs_no_torch():
    code = "import sys; from loralens.host import system_answer; system_answer(); print('torch' in sys.modules)"
    source = str(Path(loralens.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "False"
