"""`loralens check` and `loralens export` as a user types them."""

from __future__ import annotations

import json

import pytest

from loralens.core.jsontext import to_json
from loralens.trainers.check import check_answer

CONFIG = """base_model: Qwen/Qwen2.5-0.5B  # small
adapter: lora
lora_r: 8
lora_target_linear: true
sequence_len: 2048
micro_batch_size: 8
datasets: x
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_verdicts_are_exit_codes(run, config):
    assert run("check", str(config), "--gpu", "h200-sxm")[0] == 0
    code, out, err = run("check", str(config), "--gpu", "12GB")
    assert (code, err) == (5, "")
    assert "does not fit" in out and "micro_batch_size, line 6" in out and "+gradient_checkpointing: true" in out


def test_json_is_the_apis(run, config):
    code, out, _ = run("check", str(config), "--gpu", "12GB", "--json")
    body = {"files": {"train.yaml": CONFIG}, "gpu": "12GB"}
    assert code == 5
    assert json.loads(out) == json.loads(to_json(check_answer(body)))


def test_write_changes_the_file_and_keeps_its_comments(run, config):
    assert run("check", str(config), "--gpu", "12GB", "--write")[0] == 5
    assert "# small" in config.read_text(encoding="utf-8")
    assert run("check", str(config), "--gpu", "12GB")[0] == 0


def test_several_files_go_together(run, config, tmp_path):
    beside = tmp_path / "accelerate.yaml"
    beside.write_text("distributed_type: FSDP\nnum_processes: 8\n", encoding="utf-8")
    code, out, _ = run("check", str(config), str(beside), "--gpu", "24GB", "--json")
    assert json.loads(out)["recipe"]["parallelism"]["gpus"] == 8
    assert code in (0, 4, 5)


def test_what_cannot_be_judged_is_exit_2(run, config):
    config.write_text(CONFIG + "rl: dpo\n", encoding="utf-8")
    code, out, _ = run("check", str(config), "--gpu", "24GB")
    assert code == 2 and "no figure: rl, line 8" in out
    code, _, err = run("check", str(config.with_name("none.yaml")))
    assert code == 2 and "cannot read" in err
    code, _, err = run("check")
    assert code == 2 and "no file was named" in err


def test_export_reads_back(run, tmp_path):
    path = tmp_path / "out.yaml"
    code, out, _ = run("export", "qwen2.5-0.5b", "-m", "lora", "--rank", "32", "--to", "llama-factory", "-o", str(path))
    assert code == 0 and "llamafactory-cli train" in out
    code, out, _ = run("check", str(path), "--gpu", "80GB", "--json")
    assert (code, json.loads(out)["recipe"]["lora"]["rank"]) == (0, 32)
    code, _, err = run("export", "qwen2.5-0.5b", "-m", "lora", "--to", "trl", "-o", str(path))
    assert code == 2 and "cannot write" in err


def test_explain_names_the_tensor(run, config, tmp_path):
    log = tmp_path / "crash.log"
    text = "CUDA out of memory. Tried to allocate 9.27 GiB. GPU 0 has a total capacity of 24.00 GiB"
    log.write_text(text, encoding="utf-8")
    code, out, _ = run("explain", str(log), "--training", str(config))
    assert code == 0 and "logits" in out and "+gradient_checkpointing: true" in out
    code, out, _ = run("explain", str(log), "--training", str(config), "--json")
    assert json.loads(out)["tensors"][0]["bytes"] == 8 * 2048 * 151936 * 4
    assert run("explain", text, "--training", str(config), "--json")[:2] == (0, out)  # the message itself
    code, _, err = run("explain", str(config))
    assert code == 2 and "no out-of-memory message" in err
    code, _, err = run("explain", "no/such.log")
    assert code == 2 and "the message in quotes" in err
    log.write_text(text.replace("24.00", "4.00"), encoding="utf-8")
    code, out, _ = run("explain", str(log), "--model", "qwen2.5-0.5b", "--method", "lora")
    assert code == 0 and "To make it fit:" in out


def test_explain_writes_the_change(run, config, tmp_path):
    log = tmp_path / "crash.log"
    log.write_text("CUDA out of memory. Tried to allocate 9.27 GiB. GPU 0 has a total capacity of 12.00 GiB")
    assert run("explain", str(log), "--training", str(config), "--write")[0] == 0
    assert "# small" in config.read_text(encoding="utf-8")
    assert run("check", str(config), "--gpu", "12GB")[0] == 0
    code, _, err = run("explain", str(log), "--model", "qwen2.5-0.5b", "--write")
    assert code == 2 and "--training" in err


GRPO = """from trl import GRPOConfig, GRPOTrainer
args = GRPOConfig(use_vllm=True, vllm_mode="colocate", vllm_gpu_memory_utilization={share}, max_completion_length=512,
    per_device_train_batch_size=8, num_generations=8)
GRPOTrainer(model="Qwen/Qwen2.5-0.5B", args=args, reward_funcs=f, train_dataset=d)
"""


@pytest.mark.parametrize(("share", "starts"), [(0.3, True), (0.02, False)])
def test_a_file_with_an_engine_is_told_its_share_and_what_fits(run, tmp_path, share, starts):
    path = tmp_path / "grpo.py"
    path.write_text(GRPO.format(share=share), encoding="utf-8")
    _, out, _ = run("check", str(path), "--gpu", "24GB", "--json")
    (card,) = json.loads(out)["estimate"]["iteration"]["cards"]
    least, most = card["utilization"]["least"], card["utilization"]["most"]
    text = " ".join(run("check", str(path), "--gpu", "24GB")[1].split())
    assert f"vLLM's share of the card: {share} asked, {least} to {most} fits beside the model that learns" in text
    assert ("it cannot start" in text) is not starts
    assert text.count("rows that it holds") == 1


def test_without_a_card_or_an_engine_no_share_is_said(run, tmp_path, config):
    path = tmp_path / "grpo.py"
    path.write_text(GRPO.format(share=0.3), encoding="utf-8")
    assert "share" not in run("check", str(path))[1]
    assert "share" not in run("check", str(config), "--gpu", "24GB")[1]
