"""The answers of one revision: cases on standard input, one line of JSON each on standard output.

Run by file with that revision's `backend` on PYTHONPATH and its root as working folder. It must answer for revisions whose
modules lie elsewhere, so it imports nothing but `loralens` itself, its command line and its server.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loralens

PUBLISHED = Path("docs/accuracy/published-runs.jsonl")
# No verdict is compared, and those of older cards take a walk of their own; earlier revisions know no such word.
WITHOUT_VERDICTS = {"verdicts": False} if "verdicts" in inspect.signature(loralens.memory_answer).parameters else {}


def memory(body: Any) -> dict[str, Any]:
    """Every number of one estimate; terms and texts as digests."""
    (found,) = loralens.memory_answer(body, **WITHOUT_VERDICTS)["estimates"]
    peak = found["peak"]
    bands = {name: value for name, value in peak.items() if name.endswith(("_bytes",)) and name != "allocated_bytes"}
    return {
        "phase": peak["phase"],
        "allocated": peak["allocated_bytes"],
        **{row["phase"]: row["peak_bytes"] for row in found["phases"]},
        "total": found["parameters"]["total"],
        "trainable": found["parameters"]["trainable"],
        **{name.removesuffix("_bytes"): size for name, size in found["breakdown"].items()},
        **_numbers(bands, "peak"),
        **_numbers(found["storage"], "storage"),
        "terms": digest(sorted(term["bytes"] for term in found["terms"])),
    }


def plan(body: Any) -> dict[str, Any]:
    """Digests: a plan is hundreds of coefficients."""
    return {one["method"]: digest(_without_texts(one)) for one in loralens.plan_answer(body)["plans"]}


def parameters(body: Any) -> dict[str, Any]:
    """The counts, and digests of the rows."""
    found = loralens.parameters_answer(body)
    tensors = [[row["shape"], row["count"], row["bytes"], row["trainable"]] for row in found["tensors"]]
    return {
        "total": found["parameters"]["total"],
        "trainable": found["parameters"]["trainable"],
        "tensors": digest(tensors),
        "by_rank": digest(found["by_rank"]),
    }


def over_http(path: str, keep: tuple[str, ...]) -> Any:
    """A route of the API, asked in this process; of its answer the named fields' numbers."""

    def answer(body: Any) -> dict[str, Any]:
        response = _client().post(f"/api/{path}", json=body)
        found = response.json()
        if response.status_code != 200:
            return {"refused": f"{found['code']} {found.get('field') or ''}".strip()}
        return _numbers({name: found[name] for name in keep if name in found}, "")

    return answer


def _client() -> Any:
    global _CLIENT
    if _CLIENT is None:
        from starlette.testclient import TestClient

        from loralens.api.app import create_app

        _CLIENT = _OPEN.enter_context(TestClient(create_app(), base_url="http://127.0.0.1:5173"))
    return _CLIENT


_CLIENT: Any = None
_OPEN = contextlib.ExitStack()  # a server starts what it computes with, and stops it at the end
ASK = {
    "memory": memory,
    "plan": plan,
    "parameters": parameters,
    "fit": over_http("fit", ("verdict", "needed_bytes", "headroom_bytes", "largest", "advice", "time")),
    "sweep": over_http("sweep", ("sweeps",)),
    "serving": over_http(
        "serving", ("base_bytes", "adapters", "kv_cache_bytes", "logits_bytes", "total_bytes", "gpus")
    ),
}


def published() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every published run as this revision's own file and reading have it."""
    for row in asked("validate", str(PUBLISHED))["rows"]:
        band = row["band_bytes"] or (None, None)
        found = {
            "predicted": row["predicted_bytes"],
            "low": band[0],
            "high": band[1],
            "measured": row["measured_bytes"],
        }
        yield f"published/{row['id']}", found if row["refused"] is None else {"refused": "no estimate"}


def asked(*arguments: str) -> Any:
    """What a verb prints with --json."""
    command = [sys.executable, "-P", "-m", "loralens", *arguments, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def digest(value: Any) -> str:
    """Eight hexadecimal digits of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:8]


def _numbers(value: Any, path: str) -> dict[str, Any]:
    """The numbers (and verdicts) below a value, by their path."""
    if isinstance(value, dict):
        rows = value.items()
    elif isinstance(value, list):
        rows = enumerate(value)
    else:
        kept = isinstance(value, (int, float)) or value is None or path.endswith("verdict")
        return {path: value} if kept else {}
    return {name: size for key, inner in rows for name, size in _numbers(inner, f"{path}.{key}".strip(".")).items()}


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_texts(inner) for key, inner in value.items() if key not in ("recipe", "model", "assumptions")
        }
    if isinstance(value, list):
        return [_without_texts(inner) for inner in value]
    return "" if isinstance(value, str) else value


def answer(case: dict[str, Any]) -> dict[str, Any]:
    """The answer to a case; what is refused is an answer too."""
    try:
        return ASK[case["ask"]](case["body"])
    except Exception as error:  # a revision that breaks on a case is what the table must show
        code, field = getattr(error, "code", type(error).__name__), getattr(error, "field", None) or ""
        return {"refused": f"{code} {field}".strip()}


def main() -> None:
    """Answer everything on standard input: a case a line, or `{"published": true}` for all published runs."""
    home = Path.cwd() / "backend" / "loralens"
    if Path(loralens.__file__).resolve().parent != home.resolve():
        raise SystemExit(f"loralens comes from {loralens.__file__}, not from {home}")
    with _OPEN:
        for line in sys.stdin:
            case = json.loads(line)
            rows = published() if "published" in case else [(case["name"], answer(case))]
            for name, found in rows:
                print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main()
