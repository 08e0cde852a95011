"""Traced beside computed: the answer, the job, the debugging table."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.core.errors import InvalidInput
from loralens.lab.trace import __main__ as command
from loralens.lab.trace import job

CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
BODY = {"config": CONFIG, "methods": ["full", "lora"], "recipe": {"sequence_length": 64}}


def test_the_job_tells_each_method_and_then_everything():
    *progress, result = job.run(BODY)
    assert [(event["type"], event["method"]) for event in progress] == [("progress", "full"), ("progress", "lora")]
    json.dumps(result)
    assert result["type"] == "result" and result["versions"]["torch"].startswith("2.13")
    for traced in result["traces"]:
        assert sum(traced["breakdown"].values()) == traced["peak"]["allocated_bytes"]
        assert max(phase["peak_bytes"] for phase in traced["phases"]) == traced["peak"]["allocated_bytes"]
        assert traced["peak"]["allocated_in_blocks_bytes"] % 512 == 0
        computed = traced["computed"]
        assert computed["allocated_bytes"] - traced["peak"]["allocated_bytes"] == computed["difference_bytes"]
        assert abs(computed["difference_percent"]) < 0.05
        assert computed["phase"] == traced["peak"]["phase"]


def test_bad_requests_are_refused_before_anything_is_built():
    with pytest.raises(InvalidInput):
        next(job.run({**BODY, "recipe": {"loss": "chunked"}}))
    with pytest.raises(InvalidInput):
        next(job.run({**BODY, "rceipe": {}}))


def test_the_table_names_every_byte(tmp_path, capsys):
    path = tmp_path / "case.json"
    path.write_text(json.dumps({"config": CONFIG, "method": "lora", "recipe": {"sequence_length": 64}}))
    assert command.main([str(path), "--live", "--events", "--phase", "backward"]) == 0
    printed = capsys.readouterr().out
    answer, _, rest = printed.partition("# alive")
    peak = json.loads(answer)["phase_peaks"]["backward"]
    table, _, events = rest.partition("# events")
    sizes = [int(line.split()[0].replace(",", "")) for line in table.splitlines()[1:]]
    assert sum(sizes) == peak
    assert "model.layers.*.mlp.gate_proj" in table and "<- peak" in events
