"""The doctor, comparing, merging, making plain and converting over HTTP: the command line's answers, and nothing left behind."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from api.checks import problem
from safetensors.torch import save

from loralens.lab.adapters.adapter import Adapter, assemble
from loralens.lab.adapters.comparing import compare_adapters
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import read_adapter_bytes, weights_bytes
from loralens.lab.adapters.merging import merge_adapters
from loralens.settings import Settings

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def adapter(seed: int, width: int = 32) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(4, width, generator=generator) * 0.1
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(32, 4, generator=generator) * 0.1
    return assemble(config_from_mapping(CONFIG), tensors)


def form(*adapters: Adapter) -> dict[str, Any]:
    parts = {}
    for number, one in enumerate(adapters, 1):
        end = "" if number == 1 else f"_{number}"
        parts[f"config{end}"] = ("adapter_config.json", one.config.to_json())
        parts[f"weights{end}"] = ("adapter_model.safetensors", weights_bytes(one))
    return parts


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools-state")


@pytest.fixture(scope="module")
def client(state: Path) -> Iterator[httpx.Client]:
    from conftest import running

    chosen = Settings(state_dir=state, max_adapter_bytes=100_000)
    with running(chosen) as address, httpx.Client(base_url=f"{address}/api/adapters", timeout=120) as opened:
        yield opened
    assert not [path.name for path in state.iterdir() if path.name.startswith((".arriving", ".making"))]


def test_the_doctor_names_fault_and_repair(client: httpx.Client) -> None:
    one = adapter(1)
    healthy = client.post("/doctor", files=form(one)).json()
    assert (healthy["verdict"], healthy["modules"]) == ("healthy", 2)
    against = client.post("/doctor?base=llama-3.1-8b&engine=mlx", files=form(one)).json()
    assert against["verdict"] == "broken" and against["findings"][0]["stage"] == "fit"
    assert "convert FOLDER MLX" in next(f["repair"] for f in against["findings"] if f["stage"] == "engine")
    base = {**form(one), "base_config": ("config.json", json.dumps({"model_type": "nothing"}))}
    assert problem(client.post("/doctor", files=base), 422)
    alone = client.post("/doctor", files={"weights": ("style.safetensors", weights_bytes(one))}).json()
    assert alone["findings"][0]["code"] == "no_config"
    mlx = client.post("/doctor", files={"weights": ("adapters.safetensors", weights_bytes(one))}).json()
    assert "MLX" in mlx["findings"][0]["what"]
    assert ".arriving" not in json.dumps([healthy, against, alone, mlx])


def test_two_adapters_are_compared(client: httpx.Client) -> None:
    one, two = adapter(1), adapter(2)
    answer = client.post("/compare?energy=0.9", files=form(one, two)).json()
    assert answer == compare_adapters(one, two, 0.9).to_dict()
    assert problem(client.post("/compare", files=form(one)), 422)["detail"].startswith("1 adapters were sent")
    assert "different shapes" in problem(client.post("/compare", files=form(one, adapter(2, 48))), 422)["detail"]


def test_merging_answers_an_archive_with_its_report(client: httpx.Client) -> None:
    one, two = adapter(1), adapter(2)
    answer = client.post("/merge?combination=cat&weights=0.5,-1", files=form(one, two))
    assert answer.status_code == 200 and answer.headers["content-disposition"].endswith('"merged.zip"')
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    expected = merge_adapters([one, two], [0.5, -1.0], "cat")
    got = read_adapter_bytes(
        archive.read("adapter/adapter_config.json"), archive.read("adapter/adapter_model.safetensors")
    )
    assert got.config == expected.adapter.config
    assert all(torch.equal(got.tensors()[name], tensor) for name, tensor in expected.adapter.tensors().items())
    report = json.loads(archive.read("report.json"))
    assert report == json.loads(answer.headers["x-report"]) == expected.to_dict(report["file_bytes"])
    assert problem(client.post("/merge?weights=1,x", files=form(one, two)), 422)["field"] == "weights"
    assert problem(client.post("/merge?combination=sum", files=form(one, two)), 422)["field"] == "combination"


def test_pissa_becomes_plain_lora_by_the_adapter_from_before_training(client: httpx.Client) -> None:
    trained, initial = adapter(1), adapter(2)
    pissa = replace(trained, config=replace(trained.config, init="pissa"))
    answer = client.post("/plain", files=form(pissa, initial))
    assert answer.status_code == 200 and answer.headers["content-disposition"].endswith('"plain.zip"')
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    got = read_adapter_bytes(
        archive.read("adapter/adapter_config.json"), archive.read("adapter/adapter_model.safetensors")
    )
    assert (got.config.rank, got.config.alpha, got.config.init) == (8, 16, True)
    for module, factors in got.factors.items():
        first = initial.factors[module]
        change = trained.factors[module].lora_b @ trained.factors[module].lora_a - first.lora_b @ first.lora_a
        assert torch.allclose(factors.lora_b @ factors.lora_a, change, atol=1e-6)
    assert json.loads(answer.headers["x-report"])["began"] == "PiSSA"
    assert "plain LoRA already" in problem(client.post("/plain", files=form(trained, initial)), 422)["detail"]
    assert problem(client.post("/plain", files=form(pissa)), 422)["detail"].startswith("1 adapters were sent")


def test_converting_there_and_back(client: httpx.Client) -> None:
    one = adapter(1)
    there = client.post("/convert?to=mlx", files=form(one))
    archive = zipfile.ZipFile(io.BytesIO(there.content))
    assert json.loads(there.headers["x-report"])["exact"] is True
    mlx = {
        "config": ("adapter_config.json", archive.read("adapter/adapter_config.json")),
        "weights": ("adapters.safetensors", archive.read("adapter/adapters.safetensors")),
    }
    back = zipfile.ZipFile(io.BytesIO(client.post("/convert?to=peft", files=mlx).content))
    got = read_adapter_bytes(back.read("adapter/adapter_config.json"), back.read("adapter/adapter_model.safetensors"))
    assert all(torch.equal(got.factors[name].lora_b, factors.lora_b) for name, factors in one.factors.items())
    assert problem(client.post("/convert?to=peft", files=form(one)), 422)["detail"] == "it is in peft's format already"
    assert client.post("/convert?to=gguf", files=form(one)).status_code == 422


def test_a_kept_adapter_is_named_by_its_id(client: httpx.Client) -> None:
    one, two = adapter(1), adapter(2)
    id_ = client.post("/uploads", files=form(one)).json()["id"]
    second = {f"{kind}_2": part for kind, part in form(two).items()}
    answer = client.post("/compare", files=second, data={"id": id_}).json()
    assert answer == compare_adapters(one, two).to_dict()
    assert client.post("/compare", files=second, data={"id": "0" * 16}).status_code == 404
    assert client.post("/compare", files={**form(one), **second}, data={"id": id_}).status_code == 422
    client.delete(f"/kept/{id_}")


def test_an_adapter_without_a_spectrum_is_named_and_counted(client: httpx.Client) -> None:
    """VeRA's shared factors are frozen; two vectors of each layer were trained. It is looked at, and not kept."""
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    vectors = {f"{name}.vera_lambda_b": torch.ones(32), f"{name}.vera_lambda_d": torch.ones(4)}
    shared = {"base_model.vera_A": torch.ones(4, 32), "base_model.vera_B": torch.ones(32, 4)}
    config = json.dumps({"peft_type": "VERA", "r": 4, "target_modules": ["q_proj"]}).encode()
    files = {
        "config": ("adapter_config.json", config),
        "weights": ("adapter_model.safetensors", save(vectors | shared)),
    }
    answer = client.post("/inspect", files=files).json()
    assert (answer["peft_type"], answer["parameters"], answer["frozen_parameters"]) == ("VERA", 36, 256)
    assert answer["says"].startswith("VeRA: frozen random factors") and answer["counted"] is True
    assert "VERA" in problem(client.post("/uploads", files=files), 422)["detail"]


def test_forms_that_are_none(client: httpx.Client) -> None:
    one = adapter(1)
    for path in ("doctor", "compare", "merge", "plain", "convert?to=mlx"):
        for request, status in [
            ({"files": {**form(one), "note": ("x", b"?")}}, 422),
            ({"files": {"config_9": ("x", b"{}")}}, 422),
            ({"data": {"config": "{}"}, "files": {"weights": ("w", b"")}}, 422),
            ({"content": b"x", "headers": {"content-type": "application/json"}}, 415),
            ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
            ({"files": {"weights": ("w", bytes(3_000_000))}}, 413),
        ]:
            answer = client.post(f"/{path}", **request)
            assert answer.status_code == status, (path, request, answer.text)
    broken = client.post("/doctor", files={"weights": ("w", b"\x80\x04pickle"), "config": ("c", b"{")}).json()
    assert broken["verdict"] == "broken" and {f["stage"] for f in broken["findings"]} == {"files"}
