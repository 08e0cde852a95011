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


BERT = {"model_type": "bert", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 128, "attention_probs_dropout_prob": 0.1}  # fmt: skip
WHISPER = {"model_type": "whisper", "vocab_size": 512, "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 256,
           "decoder_ffn_dim": 256, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_mel_bins": 16,
           "max_source_positions": 96, "max_target_positions": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
           "decoder_start_token_id": 1}  # fmt: skip


@pytest.mark.parametrize("config", [BERT, WHISPER], ids=lambda config: config["model_type"])
def test_the_math_kernel_drops_and_makes_a_mask_only_where_something_is_hidden(config):
    recipe = {"sequence_length": 48, "gradient_checkpointing": False, "accelerator": "cuda-before-8"}
    *_, result = job.run({"config": config, "methods": ["full"], "recipe": recipe})
    assert [traced["computed"]["difference_bytes"] for traced in result["traces"]] == [0]


def test_open_targets_are_traced_as_they_are_computed():
    recipe = {"sequence_length": 48}
    *_, result = job.run({"config": WHISPER, "methods": ["lora"], "recipe": recipe})  # PEFT has no default for it
    assert result["traces"][0]["parameters"]["trainable"] == 6 * 2 * (
        2 * 8 * 128
    )  # q_proj and v_proj of six attentions
    assert result["traces"][0]["computed"]["difference_bytes"] == 0
