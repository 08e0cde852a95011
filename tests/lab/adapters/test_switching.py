"""Measured switching: every way is timed for real, the drift is that of the weights, nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters import shapes
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.job import switching
from loralens.lab.adapters.switching import measure_drift, measure_switching
from loralens.lab.adapters.tasks import held_out_facts, prompt_for

PROMPT = prompt_for(held_out_facts()[0].request)


def test_every_way_is_measured_and_the_hub_is_as_before(hub: Hub) -> None:
    hub.switch("sql_query", "pointer")
    before, sha256 = hub.logits(PROMPT), hub.base_sha256()
    events = list(measure_switching(hub, seconds=0.2))
    result = events[-1]
    ways = {timing["way"]: timing for timing in result["timings"]}
    assert set(ways) == {
        "reload base", "index", "pointer", "file", "merge from a kept base", "unmerge and merge in place",
    }  # fmt: skip
    for timing in ways.values():
        assert 0 < timing["best_seconds"] <= timing["low_seconds"] <= timing["median_seconds"] <= timing["high_seconds"]
        assert timing["samples"] >= 3
    assert ways["reload base"]["reload_ratio"] is None
    expected = ways["reload base"]["median_seconds"] / ways["index"]["median_seconds"]
    assert ways["index"]["reload_ratio"] == pytest.approx(expected)
    assert result["adapter_bytes"] == max(hub.storage().adapter_bytes.values())
    assert hub.active == "sql_query" and hub.way == "pointer"
    assert torch.equal(hub.logits(PROMPT), before) and hub.base_sha256() == sha256


def test_drift_is_rounding_and_sixteen_bits_round_more(hub: Hub) -> None:
    fine, coarse = measure_drift(hub, torch.float32), measure_drift(hub, torch.bfloat16)
    assert 0 < fine.in_place < 1e-5 and 0 < fine.from_copy < 1e-6
    assert 1e-4 < coarse.from_copy < 2**-8  # one rounding to 8 bits of mantissa
    assert coarse.in_place > coarse.from_copy and coarse.base_restored > 0


def test_one_adapter_alone_cannot_be_switched(hub: Hub) -> None:
    for loaded in hub.adapters[1:]:
        hub.unload(loaded.name)
    with pytest.raises(InvalidInput, match="two adapters"):
        list(measure_switching(hub))


def test_the_job_on_large_shapes_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same code on narrow layers: the real shapes take 0.4 GB for each layer.
    monkeypatch.setattr(shapes, "_LLAMA", {name: (64, 64) for name in shapes._LLAMA})
    monkeypatch.setattr(shapes, "WIDTH", 64)
    events = list(switching({"layers": 2, "folder": str(tmp_path), "seconds": 0.2}))
    result = events[-1]
    assert result["type"] == "result" and result["layers"] == 2 and result["modules"] == 4
    assert result["base_bytes"] > 2 * 7 * 64 * 64 * 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput, match="layers"):
        list(switching({"layers": 99, "folder": str(tmp_path)}))
    stopped = switching({"layers": 1, "folder": str(tmp_path), "seconds": 0.2})
    next(stopped)
    next(stopped)
    stopped.close()
    assert list(tmp_path.iterdir()) == []
