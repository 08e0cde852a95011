"""`loralens measure` as a user starts it; and `trace`, where the libraries that both need are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import loralens

SMALL = {
    "model_type": "llama", "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "vocab_size": 1000,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
HIDE = """
import os, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in os.environ["HIDE"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize(
    ("verb", "hidden"),
    [
        ("measure", "huggingface_hub"),
        ("measure", "peft"),
        ("measure", "torch"),
        ("trace", "huggingface_hub"),
        ("trace", "transformers"),
        ("trace", "torch"),
    ],
)
def test_a_missing_package_is_one_line_and_the_way_to_it(tmp_path: Path, verb: str, hidden: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    backend = Path(loralens.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{backend}", "HIDE": hidden, "COLUMNS": "300"}
    done = subprocess.run(
        [sys.executable, "-m", "loralens", verb, "smollm2-135m", "--method", "lora"],
        capture_output=True, text=True, env=environment, timeout=180, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    said = [line for line in done.stderr.splitlines() if not line.startswith("tracing lora (1 of 1)")]
    assert hidden in said[0] and "not installed" in said[0]
    assert "loralens[" not in done.stderr and "Traceback" not in done.stderr and "internal" not in done.stderr
    assert any("trace ./start.sh" in line or "pip install" in line for line in said)
    assert len(said) <= 2


def test_a_measured_step_says_nothing_but_the_answer(loralens_command, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL))
    done = loralens_command(
        "measure", "--config", str(path), "--method", "lora", "--sequence-length", "64", "--device", "cpu", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    (measured,) = json.loads(done.stdout)["measured"]
    assert measured["peak_bytes"] == pytest.approx(measured["computed_bytes"], rel=0.01)
