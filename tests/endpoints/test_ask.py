"""Asked without a server, a question has the server's answer: the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from loralens.endpoints.ask import LISTS, ask
from loralens.endpoints.table import COMPUTED

ROOT = Path(__file__).resolve().parents[2]
BACKEND = ROOT / "backend"
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
          "num_attention_heads": 4, "vocab_size": 128}  # fmt: skip
FIT = {"model": "qwen2.5-0.5b", "method": "qlora", "gpu": "rtx-4090", "tokens": 1_000_000}
CHECKED = "base_model: Qwen/Qwen2.5-7B  # ours\nadapter: qlora\nlora_r: 16\nmicro_batch_size: 4\nsequence_len: 8192\n"
QUESTIONS = [
    ("GET", "/api/health", None),
    ("GET", "/api/models", None),
    ("GET", "/api/models?family=llama", None),
    ("GET", "/api/models/7B", None),
    ("GET", "/api/models/no%20such", None),
    ("GET", "/api/families", None),
    ("GET", "/api/gpus", None),
    ("GET", "/api/gpus/custom:24GiB,name=My%20card", None),
    ("GET", "/api/course-numbers", None),
    ("GET", "/api/forgetting/recorded", None),
    ("GET", "/api/memory?model=7B&method=lora,full&rank=16&target_modules=q_proj%2Cv_proj", None),
    ("GET", "/api/plan?model=7B&rank=4&rank=8", None),
    ("GET", "/api/parameters", None),
    ("POST", "/api/memory", {"model": "7B", "gpu": "rtx-4090"}),
    ("POST", "/api/memory", {"config": CONFIG, "method": "dora", "recipe": {"sequence_length": 128}}),
    ("POST", "/api/memory", {"model": "7B", "recipe": {"trainer": "unsloth", "nonsense\ud800": 1}}),
    ("POST", "/api/plan", {"config": CONFIG, "methods": ["full", "qlora"]}),
    ("POST", "/api/parameters", {"config": CONFIG | {"hidden_size": 65}}),
    ("POST", "/api/fit", FIT),
    ("POST", "/api/ranks", {"model": "llama-3.2-3b", "recipe": {"lora": {"rank": 32}}}),
    ("POST", "/api/sweep", {"config": CONFIG, "sweep": {"rank": [1, 8], "sequence_length": [64, 128]}}),
    ("POST", "/api/serving", {"model": "7B", "adapters": [{"rank": 8, "count": 6}]}),
    ("POST", "/api/check", {"files": {"train.yaml": CHECKED}, "gpu": "rtx-4090"}),
    ("POST", "/api/export", {"model": "qwen2.5-0.5b", "method": "lora", "to": "axolotl"}),
    ("POST", "/api/explain", {"text": "CUDA out of memory. Tried to allocate 1.16 GiB.", "model": "qwen2.5-0.5b"}),
    ("POST", "/api/models/resolve", {"model": "Qwen/Qwen2.5-7B"}),
    ("POST", "/api/models/resolve", {"model": "qwen 2.5 7b"}),
    ("POST", "/api/models/resolve", {"model": "nobody/no-such-model"}),
    ("POST", "/api/models/resolve", {"model": "llama-2-7b", "hub": True}),
    ("POST", "/api/memory", "{"),
    ("POST", "/api/memory", "[1]"),
    ("POST", "/api/memory", '{"model": "7B", "model": "13B"}'),
    ("POST", "/api/memory", '{"a":' * 40 + "1" + "}" * 40),
]  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: f"{question[1]} {str(question[2])[:40]}")
def test_the_same_bytes_as_the_server(server: str, question: tuple[str, str, object]) -> None:
    method, target, body = question
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    headers = {"content-type": "application/json"} if method == "POST" else {}
    answer = httpx.request(method, server + target, content=text.encode(), headers=headers, timeout=30)
    status, own = ask(method, target, text)
    assert (status, own.encode()) == (answer.status_code, answer.content)


@pytest.mark.parametrize("target", ["/api/benchmarks", "/api/adapters/train"])
def test_what_is_not_computed_here_needs_a_server(target: str) -> None:
    status, text = ask("POST", target, '{"files": {}}')
    assert (status, json.loads(text)["code"]) == (503, "needs_server")


def test_the_page_knows_what_is_computed_here() -> None:
    """It asks its own worker for these paths."""
    known = json.loads((ROOT / "frontend/src/shared/api/computed.json").read_text("utf-8"))
    named = {name.removesuffix("/") for name in known}
    assert named >= {*COMPUTED, *LISTS, "models", "gpus", "health"}


def test_the_hub_is_not_asked_without_a_server() -> None:
    status, text = ask("POST", "/api/models/resolve", '{"model": "nobody/no-such-model", "from_hub": true}')
    assert (status, json.loads(text)["code"]) == (503, "hub_unavailable")


def test_nothing_but_the_standard_library_and_the_wheels_are_needed() -> None:
    """The worker in the browser has no other package."""
    wheels = sorted((ROOT / "frontend/vite/engine/wheels").glob("*.whl"))
    code = """import sys
sys.path[:0] = sys.argv[4:]
from loralens.endpoints import ask
import yaml
names = {1: 'fit', 2: 'check', 3: 'explain'}
print(*(ask.ask('POST', '/api/' + name, sys.argv[at])[0] for at, name in names.items()), yaml.__with_libyaml__)
"""
    bodies = (FIT, {"files": {"train.yaml": CHECKED}}, {"text": "CUDA out of memory. Tried to allocate 1.16 GiB."})
    command = [sys.executable, "-I", "-S", "-c", code, *map(json.dumps, bodies), str(BACKEND), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    # An error whose set-up is not said is compared with hundreds of walks: that takes NumPy, and a server.
    assert done.stdout.strip() == "200 200 503 False", done.stderr


def test_the_wheel_is_the_version_that_the_server_has() -> None:
    (wheel,) = (ROOT / "frontend/vite/engine/wheels").glob("*.whl")
    assert wheel.name.startswith(f"pyyaml-{yaml.__version__}-")
