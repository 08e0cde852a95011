"""`--json` is what the API answers, byte for byte."""

from __future__ import annotations

import json

import pytest

CASES = [
    (["memory", "7B"], "memory?model=7B"),
    (["memory", "llama-3.1-8b", "-m", "lora", "-m", "qlora"], "memory?model=llama-3.1-8b&method=lora,qlora"),
    (
        [
            "memory",
            "7B",
            "--rank",
            "16",
            "--target-modules",
            "all-linear",
            "--gradient-checkpointing",
            "--gpu",
            "rtx-4090",
        ],
        "memory?model=7B&rank=16&target_modules=all-linear&gradient_checkpointing=true&gpu=rtx-4090",
    ),
    (["memory", "7B", "--no-padded", "--autocast", "none"], "memory?model=7B&padded=false&autocast=none"),
    (["memory", "gpt2", "--allocator", "simulated"], "memory?model=gpt2&allocator=simulated"),
    (["params", "7B", "--rank", "4"], "parameters?model=7B&rank=4"),
    (["plan", "7B", "-m", "lora"], "plan?model=7B&method=lora"),
    (["models"], "models"),
    (["models", "--family", "llama"], "models?family=llama"),
    (["models", "7B"], "models/7B"),
    (["models", "--families"], "families"),
    (["gpus"], "gpus"),
    (["gpus", "rtx-4090"], "gpus/rtx-4090"),
    (["gpus", "custom:24GiB,1008GB/s,name=Lab card"], "gpus/custom:24GiB,1008GB/s,name=Lab card"),
    (["memory", "7B", "--gpu", "custom:24.5GiB"], "memory?model=7B&gpu=custom:24.5GiB"),
]


@pytest.fixture(scope="module")
def fetch(server):
    import httpx

    return lambda path: httpx.get(f"{server}/api/{path}").text


@pytest.mark.parametrize(("words", "path"), CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_same_bytes_as_the_api(run, fetch, words, path):
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    assert out == fetch(path) + "\n"


BODY = {"model": "7B", "methods": ["lora"], "recipe": {"lora": {"rank": 16, "alpha": 32}, "sequence_length": 4096}}


def test_a_request_file_is_the_body_of_the_post(run, server, tmp_path):
    import httpx

    file = tmp_path / "request.json"
    file.write_text(json.dumps(BODY))
    code, out, _ = run("memory", "--request", str(file), "--json")
    assert code == 0
    assert out == httpx.post(f"{server}/api/memory", json=BODY).text + "\n"


def test_a_request_from_stdin(loralens_command):
    done = loralens_command("memory", "--request", "-", "--json", stdin=json.dumps(BODY))
    assert done.returncode == 0
    assert json.loads(done.stdout)["estimates"][0]["recipe"]["lora"]["rank"] == 16


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"7B"', "[" * 100_000, "{}", '{"model": "7B", "extra": 1}', '{"model": 7}']
)
def test_a_broken_request_is_one_line(loralens_command, text):
    done = loralens_command("memory", "--request", "-", stdin=text)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_config_file_of_your_own(run, tmp_path):
    _, known, _ = run("models", "7B", "--json")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(known)["config"]))
    code, out, _ = run("params", "--config", str(file), "--json")
    assert code == 0
    assert json.loads(out)["model"]["parameters"] == 6_738_415_616
