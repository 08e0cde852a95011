"""The Chinese page has a word for every term that a ledger names: one model of every family, each method, at its peak."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from loralens.core import catalogue
from loralens.core.answer import explain
from loralens.core.answer.answers import memory_answer
from loralens.core.architecture.heads import EMBEDDING, LM, QUESTION_ANSWERING, REWARD, without_classes
from loralens.core.architecture.multimodal import left_out_note
from loralens.core.catalogue import _resolution
from loralens.core.errors import LoraLensError
from loralens.core.question import needs, objectives
from loralens.core.question.recipe import TRAINERS
from loralens.planner.fit import fit_answer

TABLE = json.loads(Path("frontend/src/shared/ui/ledger.zh-CN.json").read_text("utf-8"))
RECIPES = ({}, {"gradient_checkpointing": True, "optimizer": "adamw_8bit"})


def _is_name(label: str) -> bool:
    """A parameter's name, which is no word of a language."""
    return re.fullmatch(r"[\w.*\[\]]+", label) is not None and "." in label


def _unknown(pieces: list[str]) -> set[str]:
    labels = TABLE["labels"]
    rest = [part for piece in pieces if piece not in labels for part in piece.split(", ")]
    return {part for part in rest if part not in labels and not _is_name(part)}


def test_every_term_regime_and_assumption_is_translated() -> None:
    families = {model.config["model_type"]: model.id for model in catalogue.models()}
    assert len(families) > 30
    unknown: set[str] = set()
    for model in families.values():
        for recipe in RECIPES:
            for method in ("full", "lora", "qlora"):
                try:
                    answer = memory_answer({"model": model, "method": method, "recipe": recipe}, verdicts=False)
                except LoraLensError:  # only counted
                    continue
                for estimate in answer["estimates"]:
                    unknown |= _unknown([part for term in estimate["terms"] for part in term["name"].split(": ")])
                    unknown |= _unknown([estimate["regime"]])
                    unknown |= {
                        line
                        for line in estimate["assumptions"]
                        if not any(re.fullmatch(pattern, line) for pattern, _ in TABLE["assumptions"])
                    }
    assert unknown == set()


def test_every_term_of_a_tower_is_translated() -> None:
    cases = [json.loads(line) for line in Path("tests/oracles/traced-media.jsonl").read_text("utf-8").splitlines()]
    unknown: set[str] = set()
    for case in cases:
        if not case["name"].endswith(("/full", "/lora-everywhere-checkpointing")):
            continue
        answer = memory_answer({**case["request"], "method": case["request"]["method"]}, verdicts=False)
        for estimate in answer["estimates"]:
            unknown |= _unknown([part for term in estimate["terms"] for part in term["name"].split(": ")])
    assert unknown == set()


def test_every_term_and_assumption_of_an_objective_is_translated() -> None:
    unknown: set[str] = set()
    for name in objectives.OBJECTIVES:
        for words in ({"loss": "fused_head", "gradient_checkpointing": True}, {"loss": "full"}):
            recipe = {"objective": name, "micro_batch_size": 2, **words}
            recipe |= {"teacher": "qwen2.5-0.5b"} if name == "distillation" else {}
            if name == "contrastive" and "gradient_checkpointing" in words:
                recipe["objective"] = {"type": name, "mini_batch_size": 1}
            if name == "ppo":
                recipe |= {"reward_model": "qwen2.5-0.5b", "value": {"together": words["loss"] == "full"}}
                recipe |= (
                    {"gradient_accumulation_steps": 2, "weights_dtype": "bfloat16", "autocast": None}
                    if words["loss"] == "full"
                    else {}
                )
            recipe |= (
                {"rollout": "vllm" if "gradient_checkpointing" in words else "transformers"}
                if name in objectives.GENERATED
                else {}
            )
            answer = memory_answer(
                {"model": "qwen2.5-0.5b", "methods": ["full", "lora"], "recipe": recipe}, verdicts=False
            )
            for estimate in answer["estimates"]:
                unknown |= _unknown([part for term in estimate["terms"] for part in term["name"].split(": ")])
                lines = [line for line in estimate["assumptions"] if not line.startswith("without effect")]
                patterns = [pattern for pattern, _ in TABLE["assumptions"]]
                unknown |= {line for line in lines if not any(re.fullmatch(pattern, line) for pattern in patterns)}
    assert unknown == set()


def test_what_is_said_of_a_head_is_translated() -> None:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    tower = {"vision_config": {**sizes, "image_size": 56, "patch_size": 14}}
    mistral, llama = (
        {**sizes, "model_type": name, "tie_word_embeddings": tied}
        for name, tied in (("mistral", False), ("llama", True))
    )
    configs = [
        {
            "model_type": "mistral3",
            "text_config": mistral,
            "vision_config": {**tower["vision_config"], "model_type": "pixtral"},
        },
        {"model_type": "idefics3", "text_config": llama, **tower},
        {"model_type": "got_ocr2", "num_hidden_layers": 3, "vision_config": {}},
    ]
    said = {note for config in configs for note in left_out_note(config) if "text_config leaves" not in note}
    assert len(said) == 3
    for kind in (LM, EMBEDDING, REWARD, QUESTION_ANSWERING):
        said.add(f"num_labels changes nothing: {without_classes(kind, 3)}")
    patterns = [pattern for pattern, _ in TABLE["assumptions"]]
    assert {line for line in said if not any(re.fullmatch(pattern, line) for pattern in patterns)} == set()


def test_every_reason_why_a_word_changes_nothing_is_translated() -> None:
    named = [*vars(needs).values(), *vars(objectives).values()]
    reasons = {need.otherwise for need in named if isinstance(need, needs.Need)}
    assert len(reasons) > 10
    assert reasons - TABLE["reasons"].keys() == set()


def test_what_is_said_of_a_trainer_is_translated() -> None:
    said = set()
    for name in TRAINERS:
        for method in ("full", "qlora"):
            for stack in ({}, {"trl": "1.10"}):
                recipe = {"trainer": name, "stack": stack}
                answer = memory_answer({"model": "qwen2.5-0.5b", "method": method, "recipe": recipe}, verdicts=False)
                said |= {
                    line for line in answer["estimates"][0]["assumptions"] if not line.startswith("without effect")
                }
    patterns = [pattern for pattern, _ in TABLE["assumptions"]]
    assert {line for line in said if not any(re.fullmatch(pattern, line) for pattern in patterns)} == set()


def test_every_way_to_read_a_name_is_translated() -> None:
    rules = json.loads(Path("frontend/src/shared/ui/readAs.zh-CN.json").read_text("utf-8"))
    names = (
        "8B",
        "llama3",
        "someone/Qwen3-8B",
        "Hermes-3-Llama-3.1-8B",
        "Llama-3.1-8B-Instruct",
        "unsloth/Qwen3-8B-bnb-4bit",
        "Qwen3-8B-AWQ",
        "Qwen3-8B-GGUF",
    )
    notes = [note for name in names for note in catalogue.read(name).notes]
    reasons = [f"x is read as Y: {because}" for _, because in _resolution._same().values()]
    pieces = {
        piece.split(": ", 1)[1] if " is read as " in piece else piece
        for note in (*notes, *reasons)
        for piece in note.split("; ")
    }
    assert len(pieces) > 40
    assert {piece for piece in pieces if not any(re.fullmatch(rule, piece) for rule, _ in rules)} == set()


def test_every_price_source_is_translated() -> None:
    rules = json.loads(Path("frontend/src/features/fit/priceSource.zh-CN.json").read_text("utf-8"))
    sources = {price.source for gpu in catalogue.gpus() for price in gpu.prices}
    assert len(sources) > 5
    for source in sources:
        text = re.sub(r"\S*/[^\s,)]+|@\w+", "", source)
        for pattern, said in rules:
            text = re.sub(pattern, re.sub(r"\$(\d)", r"\\\1", said), text)
        names = r"SkyPilot|v8|Lambda|Crusoe|primeintellect|RunPod|RTX|Hugging Face|Cloud Billing|DigitalOcean API"
        names += r"|a3-\w+-8?1?g|p\d\w*\.\d+xlarge|Standard_\w+|us-\w+|eastus"
        assert not re.search(r"[A-Za-z]", re.sub(names, "", text)), text


def test_every_source_of_a_term_is_translated() -> None:
    assert {source for _, _, source in explain._SOURCES} | {"assumption"} == set(TABLE["sources"])


REFUSED = (
    {"lora": {"rank": 0}}, {"micro_batch_size": 0}, {"sequence_length": 10**9}, {"optimizer": "adamm"}, {"padded": 3},
    {"lora": {"dropout": 2}}, {"lora": {"alpha": -1}}, {"fused_kernels": 7}, {"lora": {"rank_pattern": 3}}, {"stack": 3},
    {"lora": {"target_modules": ["nothing"]}}, {"parallelism": {"gpus": 4}}, {"parallelism": {"gpus": 6, "tp": 4}},
    {"trainable_layers": -1}, {"image_size": "a"}, {"wat": 1}, {"parallelism": {"gpus": 3, "strategy": "ddp", "pp": 3, "pipeline_rank": 7}},
    {"lora": {"layers_to_transform": [0], "target_modules": "all"}}, {"sequence_length": 101, "parallelism": {"gpus": 4, "cp": 4}},
)  # fmt: skip


EXPERTS_REFUSED = tuple(
    {"parallelism": {"gpus": 8, "strategy": "fsdp2", **words}, **beside}
    for words, beside in (
        ({"ep": 3}, {}), ({"gpus": 16, "ep": 16}, {}), ({"ep": 8, "strategy": "ddp"}, {}), ({"ep": 8, "units": "layers"}, {}),
        ({"ep": 8}, {"checkpoint_reentrant": True}), ({"ep": 8}, {"lora": {"target_parameters": ["gate_up_proj"]}}),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "recipe"),
    [*(("7B", recipe) for recipe in REFUSED), *(("mixtral-8x7b", recipe) for recipe in EXPERTS_REFUSED),
     ("7B", {"parallelism": {"gpus": 8, "ep": 8, "strategy": "fsdp2"}}), ("deepseek-v4-flash", {"head": "sequence_classification"})],
    ids=str,
)  # fmt: skip
def test_what_is_refused_on_the_page_is_said_in_chinese(model: str, recipe: dict[str, object]) -> None:
    rules = json.loads(Path("frontend/src/shared/i18n/problem.zh-CN.json").read_text("utf-8"))
    with pytest.raises(LoraLensError) as refused:
        memory_answer({"model": model, "method": "lora", "recipe": recipe}, verdicts=False)
    detail = refused.value.message
    found = re.fullmatch(r"(\S+) must be (.+), got (.+)", detail, re.DOTALL)
    assert any(re.fullmatch(pattern, detail) for pattern, _ in rules["details"]) or (
        found is not None and any(re.fullmatch(pattern, found[2]) for pattern, _ in rules["allowed"])
    ), detail


SHARED = [
    *({"strategy": name, "offload": offload} for name in ("zero1", "zero2", "zero3") for offload in ("none", "optimizer")),
    *({"strategy": name} for name in ("ddp", "fsdp", "fsdp2")),
    {"strategy": "zero3", "offload": "optimizer", "offload_device": "nvme"}, {"strategy": "zero3", "reduce_bucket_size": 10**7},
    {"strategy": "fsdp2", "offload": "parameters", "host_memory": 8}, {"strategy": "fsdp2", "tp": 2}, {"strategy": "fsdp2", "cp": 2},
    {"strategy": "fsdp2", "units": "layers"}, {"strategy": "fsdp2", "pp": 2}, {"strategy": "ddp", "pp": 2, "schedule": "gpipe"},
    {"strategy": "none", "cp": 4}, {"strategy": "zero3", "machine_gpus": 3}, {"strategy": "zero3", "machine_gpus": 8},
]  # fmt: skip


@pytest.mark.parametrize("words", [{}, {"compile": True}, {"trainer": "trl"}], ids=str)
def test_what_is_said_of_several_gpus_is_translated(words: dict[str, object]) -> None:
    patterns = [pattern for pattern, _ in TABLE["assumptions"]]
    unknown: set[str] = set()
    for shared in SHARED:
        body = {"model": "qwen2.5-0.5b", "method": "full", "recipe": {**words, "parallelism": {"gpus": 4, **shared}}}
        try:
            said = fit_answer(body | {"gpu": "rtx-4090"})["remarks"]
        except LoraLensError:  # the trainer or the compiler has no such run
            continue
        unknown |= {line for line in said if not any(re.fullmatch(pattern, line) for pattern in patterns)}
    assert unknown == set()
