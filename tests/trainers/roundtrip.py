"""Random recipes, exported and read again: `python tests/trainers/roundtrip.py 500` prints a row for each trainer
(`roundtrip.py 500 litgpt trl`: for these).

A recipe that a trainer can say must come back as it was: the same peak, the same trainable parameters, and the same text when
it is exported once more. One that it cannot say must be refused by a word's name.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import WORD
from loralens.planner.question import read_question
from loralens.trainers.check import check_answer
from loralens.trainers.export import export_answer
from loralens.trainers.targets import TARGETS

MODEL = "Qwen/Qwen2.5-0.5B"
OWN: dict[str, list[Any]] = {
    "micro_batch_size": [1, 2, 4], "sequence_length": [512, 1024, 4096], "gradient_accumulation_steps": [1, 4],
    "padded": [True, False], "weights_dtype": ["bfloat16", "float32", "float16"], "autocast": ["bfloat16", None],
    "optimizer": ["adamw_fused", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit", "lion", "sgd", "adafactor"],
    "gradient_checkpointing": [True, False], "checkpoint_offload": ["none", "cpu"], "checkpoint_reentrant": [True, False],
    "attention": ["sdpa", "flash", "eager"], "max_grad_norm": [None, 1.0, 0.5], "loss": ["full", "fused", "kernel", "cut"],
    "fused_kernels": [False, True, "+lora"], "compile": [False, True], "optimizer_in_backward": [False, True],
}  # fmt: skip
ADAPTER: dict[str, list[Any]] = {
    "rank": [8, 64], "alpha": [16, 7], "dropout": [0.0, 0.1], "target_modules": ["all-linear", ["q_proj", "v_proj"], ["o_proj"]],
    "adapter_dtype": ["float32", "bfloat16"], "use_dora": [False, True], "use_rslora": [False, True],
    "modules_to_save": [[], ["lm_head"]], "bias": ["none", "all"],
}  # fmt: skip
PACKED: dict[str, list[Any]] = {
    "type": ["nf4", "fp4", "int8"], "double_quant": [True, False], "compute_dtype": ["bfloat16", "float32"],
    "prepare_kbit": [True, False],
}  # fmt: skip
SHARED = [{"gpus": 2, "strategy": "ddp"}, {"gpus": 4, "strategy": "zero2"}, {"gpus": 4, "strategy": "zero3", "offload": "parameters"},
          {"gpus": 8, "strategy": "fsdp"}, {"gpus": 2, "strategy": "fsdp2"}]  # fmt: skip


def some(chance: random.Random, words: dict[str, list[Any]], share: float) -> dict[str, Any]:
    """Each word with this probability, at a random value."""
    return {name: chance.choice(values) for name, values in words.items() if chance.random() < share}


OTHER: dict[str, dict[str, list[Any]]] = {
    "dpo": {"reference": ["copy", "precomputed", None]}, "kto": {"reference": ["precomputed", None]}, "orpo": {},
    "grpo": {"reference": [None, "adapter"]},
}  # fmt: skip
ROLLOUTS: list[dict[str, Any]] = [
    {"engine": "transformers"}, {"engine": "server"}, {"engine": "vllm", "utilization": 0.4, "sleep_level": 0},
    {"engine": "vllm", "sleep_level": 2}, {"engine": "transformers", "rows": 16}, {"engine": "vllm", "sleep_level": 1},
]  # fmt: skip
OTHERS = {"trl": 0.4, "trl-script": 0.5}
"""Share of other objectives than supervised fine-tuning, for trainers that have some."""


def another(chance: random.Random) -> dict[str, Any]:
    """Words of another objective than supervised fine-tuning."""
    kind = chance.choice(list(OTHER))
    words: dict[str, Any] = {"objective": {"type": kind, **some(chance, OTHER[kind], 0.5)}}
    if kind == "grpo":
        words |= {"sequence_length": 768, "labelled_tokens": chance.choice([256, 512])}
        words |= {"rollout": chance.choice(ROLLOUTS), "micro_batch_size": chance.choice([2, 8, 16])}
    return words


def bodies(chance: random.Random, others: float = 0.0) -> Iterator[dict[str, Any]]:
    """Questions without end, a few words each, so that every trainer can say a part of them.

    `others`: the share of other objectives.
    """
    while True:
        method = chance.choice(["full", "lora", "lora", "qlora"])
        recipe = some(chance, OWN, 0.2)
        if method != "full":
            recipe["lora"] = some(chance, ADAPTER, 0.25)
            if chance.random() < 0.3:
                recipe["quantization"] = some(chance, PACKED, 0.4) | {"type": "nf4" if method == "qlora" else "int8"}
        if chance.random() < 0.2:
            recipe["parallelism"] = chance.choice(SHARED)
        if chance.random() < others:
            recipe |= another(chance)
        yield {"model": MODEL, "method": method, "recipe": recipe}


COMPLETIONS: dict[str, list[Any]] = {
    "micro_batch_size": [4, 8], "gradient_accumulation_steps": [2, 8], "sequence_length": [1024, 3000], "labelled_tokens": [256, 500],
    "padded": [True, False], "weights_dtype": ["bfloat16", "float32"], "gradient_checkpointing": [True, False],
    "checkpoint_offload": ["none", "cpu"], "max_grad_norm": [1.0, 0.5, None], "loss": ["kernel", "fused_head"],
}  # fmt: skip
BESIDE: list[dict[str, Any]] = [
    {"engine": "vllm", "utilization": 0.4, "sleep_level": 0}, {"engine": "vllm", "sleep_level": 1, "rows": 128},
    {"engine": "sglang", "mem_fraction_static": 0.7}, {"engine": "sglang", "memory_release": "nothing"},
    {"engine": "vllm", "sleep_level": 1, "tensor_parallel": 2}, {"engine": "transformers"}, {"engine": "vllm", "trainer_offload": "optimizer"},
]  # fmt: skip
JUDGES: dict[str, list[Any]] = {
    "model": ["Qwen/Qwen2.5-1.5B"], "trains": ["full", "lora"], "weights_dtype": ["bfloat16"], "together": [True, False],
}  # fmt: skip
CARDS = [{"gpus": 8, "strategy": "fsdp"}, {"gpus": 4, "strategy": "fsdp2"}, {"gpus": 2, "strategy": "zero3"},
         {"gpus": 16, "strategy": "fsdp2", "offload": "parameters"}]  # fmt: skip


def reinforced(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Questions for a trainer that has reinforcement learning alone."""
    while True:
        method, kind = chance.choice(["full", "lora", "lora", "lora"]), chance.choice(["grpo", "rloo", "ppo"])
        recipe = {"micro_batch_size": 8, **some(chance, COMPLETIONS, 0.3)}
        recipe["objective"] = {"type": kind, **some(chance, {"reference": ["adapter", "copy", None]}, 0.5)}
        if method != "full":
            recipe["lora"] = some(chance, ADAPTER, 0.15)
        if chance.random() < 0.6:
            recipe["rollout"] = chance.choice(BESIDE)
        if chance.random() < 0.6:
            recipe["parallelism"] = chance.choice(CARDS)
        if kind == "ppo":
            recipe["value"] = some(chance, JUDGES, 0.3)
        if chance.random() < 0.2:
            recipe["reward_model"] = "Qwen/Qwen2.5-0.5B"
        yield {"model": MODEL, "method": method, "recipe": recipe}


def drawn(name: str, chance: random.Random, others: float = 0.0) -> Iterator[dict[str, Any]]:
    """Questions for this trainer; see `bodies`."""
    return reinforced(chance) if name == "verl" else bodies(chance, others)


def refused_word(body: dict[str, Any], name: str) -> str | None:
    """Export, read, and export again; None where everything came back, else the word that was refused by name.

    Raises:
        AssertionError: something came back as something else.
    """
    try:
        answer = export_answer({**body, "to": name})
    except InvalidInput as refused:
        assert refused.field is not None
        assert refused.field.rsplit(".", 1)[-1] in (*WORD, "method", "loss", "optimizer"), refused.message
        return refused.field
    recipe = {"trainer": TARGETS[name].trainer, **body["recipe"]}
    if (
        body["recipe"].get("parallelism", {}).get("strategy") == "fsdp2"
    ):  # what accelerate gathers in is said by the answer
        own = {word: answer["recipe"]["parallelism"][word] for word in ("gather_dtype", "reduce_dtype")}
        recipe["parallelism"] = {**own, **recipe["parallelism"]}
    if name == "verl":  # which has an engine and FSDP always
        recipe = answer["recipe"]
    question, _ = read_question({**body, "recipe": recipe})
    gpus = answer["recipe"]["parallelism"]["gpus"]
    back = check_answer({"files": {answer["file"]: answer["text"]}} | ({"gpus": gpus} if gpus > 1 else {}))
    assert (back["blockers"], back["unknown"], back["approximate"]) == ([], [], []), back
    asked = question.estimate()
    assert back["peak"]["allocated_bytes"] == asked.allocated_bytes
    assert back["estimate"]["parameters"]["trainable"] == asked.trainable_parameters
    again = export_answer({"model": MODEL, "method": back["method"], "recipe": back["recipe"], "to": name})
    assert again["text"] == answer["text"]
    return None


def main(count: int, names: list[str]) -> None:
    """Until so many have come back, for each trainer."""
    print("| trainer | came back | refused by name | words refused most |\n| --- | ---: | ---: | --- |")
    for name in names or TARGETS:
        chance, refused, back = random.Random(7), Counter[str](), 0
        for body in drawn(name, chance, OTHERS.get(name, 0.0)):
            word = refused_word(body, name)
            if word is None:
                back += 1
            else:
                refused[word] += 1
            if back == count:
                break
        most = ", ".join(f"{word} {times}" for word, times in refused.most_common(4))
        print(f"| {name} | {back} | {sum(refused.values())} | {most} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, sys.argv[2:])
