"""Print what the engine computes for the traced cases, one JSON line per case; needs nothing but an interpreter.

`python grid.py [EVERY] [PART]`: the cases of tests/oracles/traced-*.jsonl, or each EVERYth of those whose name holds
PART. The first line names the interpreter. `compare.py` runs this with several and sets their lines side by side.
"""

import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "backend"))

from loralens.core.answer.estimate import estimate_model  # noqa: E402
from loralens.core.question.model import resolve  # noqa: E402
from loralens.core.question.recipe import Recipe  # noqa: E402

FILES = ("traced-grid.jsonl", "traced-more.jsonl")


def cases():
    """Every recorded case: its name and the request."""
    for name in FILES:
        for text in (ROOT / "tests" / "oracles" / name).read_text(encoding="utf-8").splitlines():
            case = json.loads(text)
            yield f"{name.partition('.')[0]}/{case['name']}", case["request"]


def computed(request):
    """All numbers of one answer: parameters, the peak, each phase and each part, in bytes."""
    found = estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))
    return {
        "total": found.total_parameters,
        "trainable": found.trainable_parameters,
        "phase": found.phase,
        "bytes": found.allocated_bytes,
        "phases": found.phases,
        "parts": found.breakdown,
    }


def main(every="1", part=""):
    """Print the lines."""
    print(
        json.dumps({"interpreter": f"{platform.python_implementation()} {platform.python_version()}, {sys.platform}"})
    )
    wanted = [(name, request) for name, request in cases() if part in name]
    for name, request in wanted[:: int(every)]:
        print(json.dumps({"case": name, **computed(request)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
