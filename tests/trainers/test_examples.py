"""Public example files of seven trainers: every fact that a right reader extracts is in the recipe.

`examples.jsonl` names each file by repository, commit and path, with the keys of it that matter and the facts, which were
extracted by another reader. Where a shell variable had to be resolved, `note` says what it is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loralens.core.question.presets import as_trained
from loralens.trainers.reader import read, recipe_of
from loralens.trainers.writing import render

ROWS = [json.loads(line) for line in (Path(__file__).parent / "examples.jsonl").read_text("utf-8").splitlines()]
OPTIMIZERS = {
    "adamw_torch": "adamw_foreach", "adamw_torch_fused": "adamw_fused", "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "adamw_torch_8bit": "adamw_8bit",
    "adamw (v1 default)": "adamw_fused",
}  # fmt: skip
FLASH = ("flash_attention_2", "flash_attn", "kernels-community/vllm-flash-attn3")
CALLS = {"load": "from_pretrained", "lora": "get_peft_model", "args": "SFTConfig"}
STOPS = ("qat", "head", "objective", "multimodal", "use_galore", "unfrozen")


def text_of(row):
    """The file's keys in its own form: YAML, a command line, a notebook's code."""
    keys = row["keys"]
    if row["kind"] == "yaml":
        return "train.yaml", render(keys)
    if row["kind"] == "shell":
        before = " ".join(f"{key[4:]}={value}" for key, value in keys.items() if key.startswith("env."))
        words = [f"--{key} {value}" for key, value in keys.items() if not key.startswith("env.")]
        return "train.sh", " \\\n".join([f"{before} {row['program']}".strip(), *words])
    loader = keys["call.from_pretrained"]
    lines = []
    for group, call in CALLS.items():
        given = ", ".join(
            f"{key.partition('.')[2]}={value!r}" for key, value in keys.items() if key.startswith(f"{group}.")
        )
        owner = "" if group == "args" else f"{loader}."
        lines.append(f"x = {owner}{call}({given})\n")
    return "train.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": lines}]})


def number(value):
    return None if value is None else float(value)


def wrong(row):
    """Facts that the recipe does not have, as (name, fact, found)."""
    name, text = text_of(row)
    if "single_device" in row["file"]:
        name = row["file"].rsplit("/", 1)[-1]
    r = read({"files": {name: text}})
    recipe = as_trained(recipe_of(r), r.method)
    facts, lora, p = row["facts"], recipe.lora, recipe.parallelism
    tune, packed = "torchtune" in row["repo"], str(facts.get("packing")).lower() == "true"
    packed = (packed and "LLaMA" not in row["repo"]) or row["keys"].get("padding_free") is True
    batch = int(facts.get("micro_batch") or facts.get("batch") or 8)
    found = {"method": r.method, "rank": lora.rank, "alpha": float(lora.alpha), "dropout": lora.dropout}
    expected = {key: number(facts[key]) if key in ("alpha", "dropout") else facts[key] for key in found if key in facts}

    def fact(key, want, got):
        if key in facts:
            expected[key], found[key] = want, got

    fact("model", facts.get("model"), row["keys"]["model._component_"].rsplit(".", 1)[-1] if tune else r.model)
    fact("bits", {4: "nf4", 8: "int8"}.get(facts.get("bits")), recipe.quantization and recipe.quantization.type)
    fact(
        "targets",
        targets(facts),
        lora.target_modules if isinstance(lora.target_modules, str) else sorted(lora.target_modules or ()),
    )
    fact("modules_to_save", facts.get("modules_to_save"), list(lora.modules_to_save))
    for key in ("micro_batch", "batch"):
        fact(key, 1 if packed else batch, recipe.micro_batch_size)
    fact("seq", int(facts.get("seq") or 0) * (batch if packed else 1), recipe.sequence_length)
    fact("ga", int(facts.get("ga") or 0), recipe.gradient_accumulation_steps)
    fact("packing", str(facts.get("packing")).lower() == "true", not recipe.padded)
    fact("ckpt", str(facts.get("ckpt")).lower() in ("true", "unsloth"), recipe.gradient_checkpointing)
    fact("ckpt_kwargs", (facts.get("ckpt_kwargs") or {}).get("use_reentrant"), recipe.checkpoint_reentrant)
    fact("ckpt_reentrant", facts.get("ckpt_reentrant"), recipe.checkpoint_reentrant)
    optimizer = facts.get("optimizer_word") or OPTIMIZERS.get(facts.get("optimizer"))
    if "optimizer" in row["keys"] or "optim" in row["keys"] or "args.optim" in row["keys"] or tune:
        fact("optimizer", optimizer, recipe.optimizer)
    fact("in_bwd", facts.get("in_bwd"), recipe.optimizer_in_backward)
    fact("precision", ("bfloat16", "bfloat16"), (recipe.weights_dtype, recipe.autocast))
    fact("bf16", "bfloat16", recipe.autocast)
    fact("pure_bf16", facts.get("pure_bf16"), r.words.get("autocast", "") is None)
    fact("torch_dtype", facts.get("torch_dtype"), recipe.weights_dtype)
    fact("dtype", {"bf16": ("bfloat16", None)}.get(facts.get("dtype")), (recipe.weights_dtype, recipe.autocast))
    fact("attn", "flash" if facts.get("attn") in FLASH else "sdpa", recipe.attention)
    fact("max_grad_norm", facts.get("max_grad_norm"), recipe.max_grad_norm)
    fact(
        "parallel",
        "fsdp" if "fsdp" in str(facts.get("parallel")) else facts.get("parallel"),
        p.strategy.replace("fsdp2", "fsdp"),
    )
    fact("deepspeed", facts.get("deepspeed"), p.strategy)
    fact("gpus", facts.get("gpus"), p.gpus)
    plugins = str(facts.get("plugins"))
    fact("plugins", "cut" if "CutCrossEntropy" in plugins else "fused" if "Liger" in plugins else "full", recipe.loss)
    if facts.get("liger"):
        fact("liger", ("fused", "yes"), (recipe.loss, recipe.fused_kernels))
    fact("loss", "linear", recipe.loss)
    fact("offload", "none", p.offload)
    return [(key, want, found[key]) for key, want in expected.items() if found[key] != want], len(expected), r


def targets(facts):
    named = facts.get("targets")
    if named in ("all", "all-linear") or (isinstance(named, list) and "all-linear" in named):
        return "all-linear"
    names = [{"output_proj": "o_proj"}.get(name, name) for name in named or ()]
    return sorted(names + (["gate_proj", "up_proj", "down_proj"] if facts.get("mlp") else []))


@pytest.mark.parametrize("row", ROWS, ids=[row["file"].rsplit("/", 1)[-1] for row in ROWS])
def test_every_fact_is_read(row):
    missed, count, r = wrong(row)
    assert missed == []
    assert count >= 4
    assert r.unknown == []
    if any(blocker.startswith(STOPS) for blocker in row.get("blockers", ())):
        assert r.blocks


def test_there_are_files_of_every_trainer():
    assert {read({"files": dict([text_of(row)])}).table.trainer for row in ROWS} == {
        "axolotl", "llama-factory", "ms-swift", "torchtune", "trl", "unsloth", "litgpt",
    }  # fmt: skip
