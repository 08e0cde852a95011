import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
LIMITS = {"float32": 1e-6, "float16": 6e-4, "bfloat16": 5e-3}


@pytest.fixture(scope="module")
def errors():
    script = Path(__file__).with_name("split_in_interpreter.py")
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", LIMITS)
def test_the_split_kernel_agrees_with_float64_at_even_and_ragged_sizes(errors, dtype):
    of_dtype = [row for row in errors if row["dtype"] == dtype]
    assert len(of_dtype) == 5
    for row in of_dtype:
        assert row["error"] < LIMITS[dtype], row
