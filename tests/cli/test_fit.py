"""One command answers: verdict, largest step, how long, what to change; and scripts read its exit code."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from loralens.calibrations import keep_calibration
from loralens.cli.here import described, gpu_of_this_machine
from loralens.core.catalogue import gpu, gpus
from loralens.core.errors import InvalidInput
from loralens.core.time.calibration import Calibration
from loralens.core.time.measured_links import LinkRate, MeasuredLinks
from loralens.planner.fit import fit_answer


def test_the_first_line_states_method_and_what_was_assumed(run):
    code, out, _ = run("fit", "8B", "--gpu", "24GB")
    assert code == 0
    first = out.splitlines()[0]
    for word in ("Llama-3.1-8B", "qlora", "gradient checkpointing", "rank 16", "all-linear", "not asked"):
        assert word in first
    assert "to be safe" in out
    assert "largest batch" in out
    assert "tokens take" in out
    assert "What to change:" in out


def test_what_is_asked_is_not_assumed(run):
    _, out, _ = run("fit", "8B", "--gpu", "24GB", "-m", "LoRA", "--no-gradient-checkpointing", "--rank", "8",
                    "--target-modules", "q_proj,v_proj")  # fmt: skip
    assert out.splitlines()[0] == "Llama-3.1-8B, lora"
    _, full, _ = run("fit", "0.5B", "--gpu", "24GB", "-m", "full")
    assert full.splitlines()[0].endswith("not asked: gradient checkpointing")


def test_the_json_is_the_apis_for_the_same_words(run):
    code, out, _ = run("fit", "0.5B", "--gpu", "24GB", "--json")
    body = {"model": "0.5B", "gpu": "24GB", "method": "qlora", "recipe": {
        "gradient_checkpointing": True, "lora": {"rank": 16, "target_modules": "all-linear"}}}  # fmt: skip
    assert json.loads(out) == json.loads(json.dumps(fit_answer(body)))
    assert code == 0


def test_a_request_is_the_whole_input(run, tmp_path):
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"model": "0.5B", "gpu": "24GB"}))
    _, out, _ = run("fit", "--request", str(file), "--json")
    assert json.loads(out)["method"] == "lora"
    assert json.loads(out)["recipe"]["gradient_checkpointing"] is True


def test_the_changes_are_options_that_make_it_fit(run):
    words = ("fit", "qwen3-32b", "--gpu", "4090", "-m", "qlora")
    code, out, _ = run(*words)
    assert code == 5
    options = next(line for line in out.splitlines() if line.startswith("as options: ")).removeprefix("as options: ")
    assert "--no-prepare-kbit" in options
    assert run(*words, *options.split())[0] == 0


def test_a_search_that_ends_says_what_it_tried_and_several_cards_are_options(run):
    _, out, _ = run("fit", "llama-3.1-405b", "--gpu", "a100", "--seq-len", "512")
    assert "No combination" not in out
    assert "The changes tried (" in out
    several = next(line for line in out.splitlines() if line.startswith("Or "))
    assert "--gpus 8 --strategy fsdp" in several or "--gpus 4 --strategy fsdp" in several


def test_hours_by_the_clock_are_gpu_hours_over_gpus(run):
    words = ("fit", "8B", "--gpu", "h100", "--gpus", "8", "--strategy", "fsdp", "--tokens", "1000000000")
    _, out, _ = run(*words)
    assert "on 8 GPUs: at least" in out
    whole = json.loads(run(*words, "--json")[1])["time"]["gpu_hours"]["expected"]
    assert f"expected {whole / 8:.2f} h by the clock" in out


def test_tight_is_a_code_of_its_own(run):
    asked = {"model": "0.5B", "gpu": "24GB", "recipe": {"gradient_checkpointing": False}}
    least, safe = fit_answer(asked)["peak"]["needed_bytes"]
    code, out, _ = run("fit", "0.5B", "-m", "lora", "--no-gradient-checkpointing", "--rank", "8", "--target-modules",
                       "q_proj,v_proj", "--gpu", f"custom:{(least + safe) // 2 // 2**20}MiB")  # fmt: skip
    assert code == 4
    assert "tight" in out


def test_without_a_gpu_it_asks_in_words_of_the_command_line(run, monkeypatch):
    import loralens.host

    monkeypatch.setattr(loralens.host, "_nvidia_gpus", list)
    monkeypatch.setattr(loralens.host, "_apple_gpu", lambda _: [])
    code, _, err = run("fit", "8B")
    assert code == 2
    assert "--gpu 24GB" in err
    assert "GET" not in err
    with pytest.raises(InvalidInput):
        gpu_of_this_machine()


@pytest.mark.parametrize("row", [row for row in gpus() if row.vendor == "NVIDIA"], ids=lambda row: row.id)
def test_a_driver_names_a_card_that_has_its_memory(row):
    found = gpu(described(f"NVIDIA {row.name}", row.memory_bytes))
    assert abs(found.memory_bytes - row.memory_bytes) <= 0.03 * row.memory_bytes


def test_a_laptop_card_is_not_the_desktop_one():
    assert described("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376 * 2**20).startswith("custom:16376MiB")
    assert described("NVIDIA GeForce RTX 4090", 49_140 * 2**20).startswith("custom:49140MiB")


def test_an_iteration_is_said_phase_by_phase(run):
    words = (
        "fit",
        "0.5B",
        "--gpu",
        "a100",
        "-m",
        "lora",
        "--objective",
        "grpo",
        "--rollout",
        "vllm",
        "--gpu-memory-utilization",
        "0.4",
    )
    _, out, _ = run(
        *words, "--sequence-length", "1024", "--micro-batch-size", "8", "--prompts", "1000", "--market", "reserved"
    )
    for text in (
        "an iteration of 8 samples",
        "8,000 samples in 1,000 iterations, 1,000 steps",
        "rollout decode",
        "old logprobs",
        "reserved at $1.36/h",
    ):
        assert text in out
    _, plain, _ = run("fit", "0.5B", "--gpu", "a100", "--tokens", "1000000")
    assert "an iteration" not in plain


def test_measured_links_take_the_place_of_the_catalogues(run, tmp_path, monkeypatch):
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))
    words = ("fit", "0.5B", "--gpu", "4090", "-m", "full", "--gpus", "2", "--strategy", "ddp", "--tokens", "1000000")
    code, _, error = run(*words, "--link", "measured")
    assert code == 2 and "no links were measured here" in error
    rate = LinkRate(2.5e9, 1e-5)
    links = MeasuredLinks("NVIDIA GeForce RTX 4090", "nccl", 2, rate, rate, "2026-11-30", "torch")
    card = Calibration(
        "NVIDIA GeForce RTX 4090", "bfloat16", 1, False, 1e14, 1e14, 1e12, 1e11, 1e-5, 20, 0.05, "2026-11-30", "torch"
    )
    keep_calibration(tmp_path, replace(card, links=links))
    outputs = [run(*words, "--link", link)[1] for link in ("measured", "2.5")]
    assert outputs[0] == outputs[1]
    assert "2.5 GB/s between two cards of a machine, as given or measured for this machine" in outputs[0]
    assert run(*words, "--link", "fast")[0] == 2
    assert run("fit", "0.5B", "--gpu", "4090", "--tokens", "1000", "--link", "5")[0] == 2


ENGINE = ("fit", "7B", "-m", "lora", "--gpu", "4090", "--objective", "grpo", "--rollout", "vllm", "--gpu-memory-utilization", "0.1")  # fmt: skip


@pytest.mark.parametrize("own", [(), ("--tokens", "1000000")])
def test_a_run_whose_engine_cannot_start_has_no_hours(run, own):
    code, out, _ = run(*ENGINE, *own)
    assert code == 5
    assert "The engine cannot start" in out
    assert "expected" not in out
    assert "GPU hours" not in out


def test_remarks_stand_once_beside_words_without_effect(run):
    words = ("--sequence-length", "2048", "--labelled-tokens", "4096", "--loss", "fused_head", "--hpz-partition", "2")
    _, out, _ = run("fit", "8B", "--gpu", "24GB", "--trainer", "trl", *words)
    text = " ".join(out.split())
    for once in ("labelled_tokens 4,096 is above", "hpz_partition (only", "note: as TRL", "8B is read as"):
        assert text.count(once) == 1
    _, plain, _ = run("fit", "0.5B", "--gpu", "24GB")
    assert "note: " not in plain and "without effect" not in plain
