"""The hub over HTTP on a real server: state, switching, streams, and uploads that cannot do harm."""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from loralens.lab.adapters import service, training
from loralens.lab.adapters.adapter import assemble
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import read_adapter_bytes, weights_bytes
from loralens.settings import Settings

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def _files(rank: int = 4, width: int = 32, value: float | None = None) -> tuple[bytes, bytes]:
    """An adapter that fits the test hub's base (q_proj 32 × 32, v_proj 16 × 32)."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in range(2):
        for name, out in (("q_proj", 32), ("v_proj", 16)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, width, generator=generator)
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
    config = CONFIG | {"r": rank}
    weights = weights_bytes(assemble(config_from_mapping(config), tensors))
    return json.dumps(config).encode(), weights


def _form(config: bytes, weights: bytes, name: str = "adapter_model.safetensors") -> dict[str, Any]:
    return {"config": ("adapter_config.json", config), "weights": (name, weights)}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters-state")


@pytest.fixture(scope="module")
def client(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    from conftest import running

    registry = tmp_path_factory.mktemp("registry")
    config, weights = _files()
    (registry / "mine").mkdir()
    (registry / "mine" / "adapter_config.json").write_bytes(config)
    (registry / "mine" / "adapter_model.safetensors").write_bytes(weights)
    (registry / "link").symlink_to(registry / "mine")
    chosen = Settings(state_dir=state, adapters_dir=registry, max_adapter_bytes=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "PRESETS", ("test",))
        with running(chosen) as address, httpx.Client(base_url=f"{address}/api", timeout=60) as opened:
            yield opened


@pytest.fixture(scope="module")
def hub(client: httpx.Client, state: Path) -> dict[str, Any]:
    """The state of a hub that is trained; before that, it says that it is not."""
    before = client.get("/adapters").json()
    assert before["status"] == "not_trained" and len(before["tasks"]) == 6 and before["adapters"] == []
    refused = client.post("/adapters/switch", json={"adapter": None})
    assert refused.status_code == 503 and "train" in refused.json()["hint"]
    list(training.train(state / "hubs", training.PRESETS["test"]))
    after: dict[str, Any] = client.get("/adapters").json()
    assert after["status"] == "ready" and len(after["adapters"]) == 6
    return after


def test_storage_is_what_lies_on_disk(hub: dict[str, Any], state: Path) -> None:
    folder = training.hub_folder(state / "hubs", training.PRESETS["test"])
    sizes = [sum(p.stat().st_size for p in (folder / "adapters" / a["name"]).iterdir()) for a in hub["adapters"]]
    assert [a["file_bytes"] for a in hub["adapters"]] == sizes
    assert hub["storage"]["base_bytes"] == (folder / "model.safetensors").stat().st_size
    assert all(a["held_out"]["requests"] == 2 for a in hub["adapters"])
    assert hub["storage"]["separate_bytes"] == 6 * hub["storage"]["base_bytes"]


@pytest.mark.parametrize("way", ["index", "pointer", "file", "merge"])
def test_switch_and_state(client: httpx.Client, hub: dict[str, Any], way: str) -> None:
    answer = client.post("/adapters/switch", json={"adapter": "sql_query", "way": way}).json()
    assert answer["adapter"] == "sql_query" and answer["way"] == way and 0 < answer["seconds"] < 5
    now = client.get("/adapters").json()
    assert now["active"] == "sql_query" and now["way"] == way and now["last_switch"] == answer
    assert [a["name"] for a in now["adapters"] if a["active"]] == ["sql_query"]
    client.post("/adapters/switch", json={"adapter": None})


def _events(text: str) -> list[tuple[str, dict[str, Any]]]:
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def test_six_adapters_answer_one_prompt_in_one_stream(client: httpx.Client, hub: dict[str, Any]) -> None:
    names = [a["name"] for a in hub["adapters"]]
    query = {"prompt": hub["examples"][0]["prompt"], "adapters": ",".join([*names, "base"]), "tokens": 5}
    events = _events(client.get("/adapters/generate", params=query).text)
    tokens = [data for kind, data in events if kind == "token"]
    assert events[-1][0] == "done" and events[-1][1]["tokens"] == len(tokens)
    assert {token["adapter"] for token in tokens} == {*names, None}
    assert {token["row"] for token in tokens if token["last"]} == set(range(7))
    again = _events(client.get("/adapters/generate", params=query).text)
    assert [data for kind, data in again if kind == "token"] == tokens


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 422),
        ({"prompt": " "}, 422),
        ({"prompt": "x", "tokens": 0}, 422),
        ({"prompt": "x", "tokens": 1000}, 422),
        ({"prompt": "x", "temperature": -1}, 422),
        ({"prompt": "x", "adapters": "nobody"}, 404),
        ({"prompt": "x " * 600}, 422),
    ],
)
def test_streams_that_cannot_start_are_problems(
    client: httpx.Client, hub: dict[str, Any], query: dict[str, Any], status: int
) -> None:
    answer = client.get("/adapters/generate", params=query)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"


def test_measure_and_verify(client: httpx.Client, hub: dict[str, Any]) -> None:
    measured = client.post("/adapters/measure").json()
    assert {t["way"] for t in measured["timings"]} >= {"index", "pointer", "file", "reload base"}
    assert client.get("/adapters").json()["measured"] == measured
    seen = client.post("/adapters/verify", json={"prompt": hub["examples"][0]["prompt"]}).json()
    assert seen["returns_bit_for_bit"] and seen["base_unchanged"] and seen["distinct_outputs"] == 6
    assert seen["base_sha256"] == hub["base"]["sha256"]


def test_switching_over_http_under_load_leaves_the_base_alone(client: httpx.Client, hub: dict[str, Any]) -> None:
    prompt = hub["examples"][1]["prompt"]
    expected = _events(client.get("/adapters/generate", params={"prompt": prompt, "adapters": "translation"}).text)[:-1]
    got: list[list[Any]] = []

    def ask() -> None:
        for _ in range(3):
            answer = httpx.get(
                f"{client.base_url}adapters/generate", params={"prompt": prompt, "adapters": "translation"}, timeout=60
            )
            got.append(_events(answer.text)[:-1])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for index in range(40):
        name = hub["adapters"][index % 6]["name"]
        assert client.post("/adapters/switch", json={"adapter": name}).status_code == 200
    for thread in threads:
        thread.join()
    assert got == [expected] * 9
    assert client.post("/adapters/verify", json={"prompt": prompt}).json()["base_unchanged"]


def test_upload_inspect_resize_download_load_delete(client: httpx.Client, hub: dict[str, Any], state: Path) -> None:
    config, weights = _files()
    report = client.post("/adapters/inspect", files=_form(config, weights)).json()
    assert report["id"] is None and report["rank"] == 4 and len(report["modules"]) == 4
    more = client.post("/adapters/inspect", files={**_form(config, weights), "note": ("note.txt", b"?", "text/plain")})
    assert (more.status_code, more.json()["field"]) == (422, "note")
    assert not (state / "adapters").exists() or list((state / "adapters").iterdir()) == []

    kept = client.post("/adapters/uploads?label=mine", files=_form(config, weights, "../../etc/passwd.safetensors"))
    assert kept.status_code == 201
    id_ = kept.json()["id"]
    assert {p.name for p in (state / "adapters").iterdir()} == {id_, f"{id_}.json"}
    listed = {k["id"]: k for k in client.get("/adapters").json()["kept"]}
    assert listed[id_]["label"] == "mine" and listed["mine"]["source"] == "registry" and "link" not in listed

    resized = client.post(f"/adapters/kept/{id_}/resize", json={"rank": 2}).json()
    assert 0 < resized["relative_error"] < 1 and resized["parameters"] == resized["parameters_before"] // 2
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/adapters/kept/{resized['id']}/download").content))
    small = read_adapter_bytes(
        archive.read("adapter/adapter_config.json"), archive.read("adapter/adapter_model.safetensors")
    )
    assert small.config.rank == 2
    assert client.get(f"/adapters/kept/{id_}/files/weights").content == weights
    assert client.get("/adapters/kept/mine").json()["rank"] == 4

    assert client.post("/adapters/load", json={"id": id_, "name": "uploaded"}).json()["rank"] == 4
    assert client.post("/adapters/load", json={"id": id_, "name": "../x"}).status_code == 422
    assert client.get("/adapters/loaded/uploaded").json()["parameters"] == report["parameters"]
    assert client.post("/adapters/unload", json={"adapter": "uploaded"}).status_code == 200
    for key in (id_, resized["id"]):
        assert client.delete(f"/adapters/kept/{key}").status_code == 204
        assert client.get(f"/adapters/kept/{key}").status_code == 404
    assert client.delete("/adapters/kept/mine").status_code == 404
    assert list((state / "adapters").iterdir()) == []


def test_an_adapter_of_another_base_cannot_be_loaded(client: httpx.Client, hub: dict[str, Any]) -> None:
    config, weights = _files(width=48)
    id_ = client.post("/adapters/uploads", files=_form(config, weights)).json()["id"]
    refused = client.post("/adapters/load", json={"id": id_, "name": "odd"})
    assert refused.status_code == 422 and "another base" in refused.json()["hint"]
    client.delete(f"/adapters/kept/{id_}")


def test_bad_uploads_leave_nothing(client: httpx.Client, state: Path) -> None:
    config, weights = _files()
    nan = bytearray(weights)
    nan[-4:] = b"\x00\x00\xc0\x7f"
    cases: list[tuple[dict[str, Any], int]] = [
        ({"files": _form(config, weights[:-8])}, 422),
        ({"files": _form(config, bytes(nan))}, 422),
        ({"files": _form(config, b"\x80\x04\x95pickle")}, 422),
        ({"files": _form(b"{", weights)}, 422),
        ({"files": {"config": ("adapter_config.json", config)}}, 422),
        ({"files": {"weights": ("adapter_model.safetensors", weights)}}, 422),
        ({"files": [("weights", ("a.safetensors", weights)), ("weights", ("b.safetensors", weights))]}, 422),
        ({"files": [("config", ("c", b"x"))] * 9}, 400),
        ({"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": weights, "headers": {"content-type": "application/octet-stream"}}, 415),
        ({"files": _form(config, bytes(3_000_000))}, 413),
    ]
    for path in ("/adapters/inspect", "/adapters/uploads"):
        for request, status in cases:
            answer = client.post(path, **request)
            assert answer.status_code == status, (request, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"

    def endless() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="weights"; filename="w"\r\n\r\n'
        for _ in range(60):
            yield bytes(65_536)

    answer = client.post(
        "/adapters/uploads", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 413  # no length was announced: stopped while it arrived
    assert not (state / "adapters").exists() or list((state / "adapters").iterdir()) == []


@pytest.mark.parametrize("id_", ["%2e%2e", "%2e%2e%2fhubs", "link", "0" * 16, "x" * 500])
def test_ids_are_looked_up_never_joined(client: httpx.Client, id_: str) -> None:
    for path in (f"/adapters/kept/{id_}", f"/adapters/kept/{id_}/download", f"/adapters/kept/{id_}/files/config"):
        assert client.get(path).status_code == 404
    assert client.post("/adapters/load", json={"id": id_, "name": "x"}).status_code in (404, 422, 503)


def test_serving(client: httpx.Client) -> None:
    answer = client.post("/serving", json={"model": "7B"}).json()
    assert answer["total_bytes"] == sum(term["bytes"] for term in answer["terms"])
    assert client.post("/serving", json={"model": "7B", "x": 1}).status_code == 422


def test_train_request_is_checked(client: httpx.Client) -> None:
    assert client.post("/adapters/train", json={"preset": "huge"}).status_code == 422
    assert client.post("/adapters/bench", json={"layers": 99}).status_code == 422


def test_a_training_is_found_again_and_is_one(client: httpx.Client, state: Path) -> None:
    assert client.get("/adapters").json()["training"] is None
    first = client.post("/adapters/train", json={}).json()
    assert client.get("/adapters").json()["training"] == first["id"]
    assert client.post("/adapters/train", json={"preset": "quick"}).json()["id"] == first["id"]
    client.delete(f"/jobs/{first['id']}")
    deadline = time.monotonic() + 30
    while client.get("/adapters").json()["training"] and time.monotonic() < deadline:
        time.sleep(0.1)
    now = client.get("/adapters").json()
    assert (now["training"], now["measuring"]) == (None, None)
    assert client.get(f"/jobs/{first['id']}").json()["status"] == "cancelled"
