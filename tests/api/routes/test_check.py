"""`/api/check` and `/api/export` on the real server."""

from __future__ import annotations

CONFIG = "base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_r: 8\nlora_target_linear: true\nmicro_batch_size: 8\ndatasets: x\n"


def test_a_file_is_judged(client):
    answer = client.post("/api/check", json={"files": {"train.yaml": CONFIG}, "gpu": "8GB"}).json()
    assert (answer["trainer"]["title"], answer["method"], answer["verdict"]) == ("Axolotl", "lora", "does_not_fit")
    same = {"model": answer["model"]["id"], "method": "lora", "recipe": answer["recipe"], "gpu": "8GB"}
    assert client.post("/api/memory", json=same).json()["estimates"][0] == answer["estimate"]


def test_bad_files_are_problems(client):
    for content, status in (
        ("a: !!python/object:os.x 1", 422),
        ("\tx: 1", 422),
        ("foo: 1", 422),
        ("x" * 1_048_000 + ": 1", 422),
    ):
        problem = client.post("/api/check", json={"files": {"train.yaml": content}}).json()
        assert (problem["status"], problem["code"]) == (status, "invalid_input")
        assert "train.yaml" in problem["detail"]
    assert client.post("/api/check", json={}).status_code == 422


def test_an_export_is_checked_back(client):
    body = {"model": "Qwen/Qwen2.5-0.5B", "method": "qlora", "to": "axolotl"}
    answer = client.post("/api/export", json=body).json()
    back = client.post("/api/check", json={"files": {"train.yaml": answer["text"]}}).json()
    assert (back["method"], back["recipe"]) == ("qlora", answer["recipe"])
    assert client.post("/api/export", json={**body, "to": "keras"}).json()["field"] == "to"
