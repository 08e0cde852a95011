"""A word that changes nothing is remarked upon, and what is remarked upon changes nothing: every word by method and family."""

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate
from loralens.core.errors import LoraLensError
from loralens.core.question.flat import nested
from loralens.core.question.media import MEDIA_WORDS
from loralens.core.question.recipe import ALL_WORDS

SAMPLES = {
    "micro_batch_size": [2],
    "sequence_length": [256],
    "gradient_accumulation_steps": [4],
    "checkpoint_every": [2],
    "checkpoint_segment": [2],
    "num_labels": [3],
    "max_grad_norm": [1.0],
    "trainable_layers": [2],
    "rank": [16],
    "alpha": [7],
    "dropout": [0.1],
    "target_modules": ["all-linear"],
    "modules_to_save": [],  # a model's own names; a name that is not there is refused
    "target_parameters": [],
    "machine_gpus": [],  # of the machine around the step, whose own figures they change
    "host_memory": [],
    "eval_samples": [8],
    "eval_batch_size": [4],
    "eval_accumulation_steps": [2],
    "trainable_token_indices": ["1,2"],
    "gpus": [2],
    "images": [1],
    "image_size": ["56,56"],
    "video_frames": [2],
    "audio_seconds": [1.0],
    "group_size": [64],
    "skip_modules": ["lm_head,down_proj"],
    "labelled_tokens": [100],
    "exclude_modules": ["q_proj"],
    "layers_to_transform": ["0,1"],
    "dp_replicate": [2],
    "reshard_after_forward": [False],
    "reduce_bucket_size": [1_000_000],
    "prefetch_bucket_size": [1_000_000],
    "persistence_threshold": [1_000],
    "hpz_partition": [2],
    "sub_group_size": [10_000_000],
    "param_buffer_count": [7],
    "param_buffer_size": [200_000_000],
    "max_in_cpu": [0],
    "optimizer_buffer_count": [5],
    "tp": [2],
    "cp": [2],
    "ep": [2],
    "pp": [2],
    "virtual_stages": [2],
    "pipeline_rank": [1],
    "teacher": ["qwen2.5-1.5b"],
    "value_model": ["qwen2.5-1.5b"],
    "reward_model": ["qwen2.5-1.5b"],
    "mini_batch_size": [1],
    "gather_across_devices": [True],
    "precompute_batch_size": [64],
    "rollout_rows": [4],
    "gpu_memory_utilization": [0.5],
    "sleep_level": [1],
    "mem_fraction_static": [0.7],
    "rollout_tp": [2],
}
ALIKE = {
    "autocast": "without it, 16-bit weights compute in 16 bits too",
    "attention": "flash is the kernel that sdpa chooses; where a family has but one kind, the answer says so",
    "weights_dtype": "two kinds of 16 bits",
    "adapter_dtype": "two kinds of 16 bits",
    "compute_dtype": "two kinds of 16 bits",
    "quantization": "two codes of 4 bits",
    "checkpoint_reentrant": "what decides the peak may be the same in both forms",
    "dropout": "what it keeps while a segment is recomputed may lie below the peak",
    "head": "lm names what a language model has already",
    "use_cache": "copies of keys and values may lie below the peak, and end with the output where no loop keeps it",
    "value_dtype": "two kinds of 16 bits",
    "reward_dtype": "two kinds of 16 bits",
    "old_logprobs": "with an engine beside the trainer it is what none means",
    "memory_release": "on a card with room for both, the engine's weights need not go",
    "sleep_level": "1 and 2 leave the same on the card: level 1 keeps the weights on the host",
    "reduce_dtype": "two kinds of 16 bits",
    "max_in_cpu": "what has no place there goes back through a buffer, which may be as large",
    "vocabulary_parallel": "an embedding that is tied to the head is always cut",
    "pipeline_rank": "none is the fullest rank, which may be this one",
    "padded": "a mask may lie below the peak, and flash attention takes none",
}
"""Words that mean something though the bytes may be equal, and why they may be."""
ROWS = [row for row in ALL_WORDS if row.kind.flat]
SPREAD = [
    ("qwen2.5-0.5b", "full", {}),
    ("qwen2.5-0.5b", "lora", {}),
    ("qwen2.5-0.5b", "qlora", {}),
    ("qwen2.5-0.5b", "lora", {"gradient_checkpointing": True}),
    ("qwen2.5-0.5b", "qlora", {"quantization": "int8"}),
    ("qwen2.5-0.5b", "qlora", {"quantization": "gptq4"}),
    ("qwen2.5-0.5b", "qlora", {"gpus": 4, "strategy": "fsdp"}),
    ("qwen2.5-0.5b", "lora", {"gpus": 4, "strategy": "zero2"}),
    ("gpt2", "lora", {}),
    ("vit-large-patch16-224", "full", {}),
    ("bert-base-uncased", "lora", {}),
]
APART = [
    ("qwen2.5-0.5b", "lora", {"objective": "dpo"}, ("objective",)),
    ("qwen2.5-0.5b", "lora", {"objective": "dpo", "reference": "precomputed"}, ("precompute_batch_size",)),
    ("qwen2.5-0.5b", "lora", {"objective": "contrastive", "micro_batch_size": 4}, ("objective",)),
    (
        "qwen2.5-0.5b",
        "lora",
        {
            "objective": "contrastive",
            "mini_batch_size": 64,
            "sequence_length": 2,
            "micro_batch_size": 4096,
            "gpus": 4,
            "strategy": "ddp",
        },
        ("gather_across_devices",),
    ),
    ("qwen2.5-0.5b", "lora", {"objective": "distillation", "teacher": "qwen2.5-1.5b"}, ("objective", "teacher")),
    ("qwen2.5-0.5b", "lora", {"objective": "grpo", "rollout": "vllm"}, ("objective", "rollout", "labelled_tokens")),
    ("qwen2.5-0.5b", "lora", {"objective": "grpo", "rollout": "sglang"}, ("rollout",)),
    (
        "qwen2.5-0.5b",
        "lora",
        {"objective": "ppo", "reward_model": "qwen2.5-0.5b"},
        ("objective", "value", "reward_model"),
    ),
    ("qwen2.5-0.5b", "full", {"gpus": 4, "strategy": "fsdp2"}, ("parallelism",)),
    ("qwen2.5-0.5b", "full", {"gpus": 4, "strategy": "zero3"}, ("hpz_partition",)),
    (
        "qwen2.5-0.5b",
        "full",
        {"gpus": 4, "strategy": "zero3", "offload": "parameters", "offload_device": "nvme"},
        ("sub_group_size", "param_buffer_count", "param_buffer_size", "max_in_cpu", "optimizer_buffer_count"),
    ),
    (
        "qwen2.5-0.5b",
        "full",
        {"gpus": 4, "strategy": "zero3", "offload": "optimizer"},
        ("param_buffer_size", "offload_device"),
    ),
    ("olmoe-1b-7b", "full", {"gpus": 4, "strategy": "fsdp2"}, ("ep",)),
    ("qwen2.5-0.5b", "full", {"tp": 2}, ("parallelism",)),
    ("7B", "full", {"gpus": 4, "strategy": "fsdp2", "pp": 2}, ("parallelism", "head")),
    ("qwen2.5-vl-3b", "lora", {"images": 1, "image_size": "448,448"}, MEDIA_WORDS),
]
"""Where the words of objectives, engines, teachers, cut models and pictures mean something: these groups and words are tried."""


def values(row):
    if row.name in SAMPLES:
        return SAMPLES[row.name]
    if row.kind.text == "boolean":
        return [not row.default]
    return [one for one in row.kind.choices if one not in (str(row.default).lower(), "none", "false")]


def numbers(answer):
    (found,) = answer["estimates"]
    names = ("parameters", "peak", "breakdown", "communication", "phases", "storage", "iteration")
    return [found.get(name) for name in names]


def remarked(answer):
    (found,) = answer["estimates"]
    lines = [line for line in found["assumptions"] if line.startswith("without effect on memory: ")]
    names = [line.removeprefix("without effect on memory: ").split(" (")[0].split(", ") for line in lines]
    return {name for group in names for name in group}


def test_every_word_has_a_value_to_try():
    assert [row.name for row in ROWS if not values(row)] == [
        "modules_to_save", "target_parameters", "machine_gpus", "host_memory",
    ]  # fmt: skip


@pytest.mark.parametrize(("model", "method", "beside"), SPREAD)
def test_a_word_changes_the_answer_or_is_remarked_upon(model, method, beside):
    said_or_changed(model, method, beside, ROWS)


@pytest.mark.parametrize(("model", "method", "beside", "tried"), APART)
def test_so_do_the_words_of_objectives_of_cut_models_and_of_pictures(model, method, beside, tried):
    said_or_changed(model, method, beside, [row for row in ROWS if row.group in tried or row.name in tried])


def said_or_changed(model, method, beside, rows):
    def answer(words):
        # a verdict per card walks the step for older ones too; only an engine's words show nowhere else
        asked = {"model": model, "method": method, "recipe": nested(words)}
        return memory_answer(asked, verdicts="rollout" in beside)

    plain = answer(beside)
    packed = answer({**beside, "quantization": "nf4"}) if method == "lora" else plain
    for row in rows:
        # a packing's word in a recipe means that the base is packed
        words, before = beside, plain
        if method == "lora" and row.group == "quantization" and row.name != "quantization":
            words, before = {**beside, "quantization": "nf4"}, packed
        for value in [] if row.name in beside else values(row):
            try:
                after = answer({**words, row.name: value})
            except LoraLensError as refused:
                assert refused.hint, (row.name, value)
                continue
            said = set(after["estimates"][0]["assumptions"]) - set(before["estimates"][0]["assumptions"])
            if row.name in remarked(after):
                assert numbers(after) == numbers(before), (row.name, value)
            elif numbers(after) == numbers(before) and row.name not in ALIKE:
                same = after["estimates"][0]["recipe"] == before["estimates"][0]["recipe"]
                assert same or said, (row.name, value)


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "dora"])
def test_a_recipe_of_defaults_is_not_remarked_upon(method):
    assert not remarked(memory_answer({"model": "7B", "method": method}))


def test_several_words_of_one_reason_share_a_sentence():
    recipe = {"lora": {"rank": 4, "dropout": 0.1}, "quantization": "nf4", "parallelism": {"strategy": "fsdp"}}
    (full,) = memory_answer({"model": "7B", "method": "full", "recipe": recipe})["estimates"]
    assert "without effect on memory: rank, dropout (full fine-tuning has no adapter)" in full["assumptions"]
    assert "without effect on memory: quantization (weights that train are not packed)" in full["assumptions"]
    assert (
        "without effect on memory: bias (no layer that it means has a bias)"
        in (
            memory_answer({"model": "7B", "method": "lora", "recipe": {"lora": {"bias": "all"}}})["estimates"][0][
                "assumptions"
            ]
        )
    )


@pytest.mark.parametrize(
    ("model", "positions"), [("gpt2", 1024), ("opt-125m", 2048), ("bert-base-uncased", 512), ("roberta-base", 512)]
)
def test_lengths_above_the_learned_positions_are_remarked_upon(model, positions):
    def said(length):
        (found,) = memory_answer({"model": model, "method": "lora", "recipe": {"sequence_length": length}})["estimates"]
        return any(f"above the {positions:,} positions" in line for line in found["assumptions"])

    assert said(positions + 1)
    assert not said(positions)


def test_more_labels_than_tokens_are_remarked_upon():
    def said(labelled):
        recipe = {"sequence_length": 1024, "labelled_tokens": labelled, "loss": "kept_positions"}
        return memory_answer({"model": "0.5B", "method": "lora", "recipe": recipe})["estimates"][0]["assumptions"]

    assert "labelled_tokens 4,096 is above sequence_length 1,024: every token counts as labelled" in said(4096)
    assert not any("labelled_tokens" in text for text in said(1024))


@pytest.mark.parametrize(
    ("gpus", "machine", "said"),
    [(8, 3, "does not divide gpus 8"), (4, 8, "is above gpus 4"), (8, 4, None), (8, 8, None)],
)
def test_machines_that_the_gpus_do_not_fill_are_remarked_upon(gpus, machine, said):
    words = {"gpus": gpus, "strategy": "ddp", "machine_gpus": machine}
    found = estimate("qwen2.5-0.5b", "lora", **words)
    remarked = [line for line in found.assumptions() if line.startswith("machine_gpus")]
    assert len(remarked) == (said is not None)
    assert said is None or said in remarked[0]
    if machine > gpus:  # the same as a machine that holds just these
        assert found.host == estimate("qwen2.5-0.5b", "lora", **(words | {"machine_gpus": gpus})).host


def test_context_parallel_without_a_strategy_is_remarked_upon():
    alone, summed = (estimate("qwen2.5-0.5b", "lora", cp=2, gpus=2, strategy=name) for name in ("none", "ddp"))
    assert any("nothing sums them" in line for line in alone.assumptions())
    assert not any("nothing sums them" in line for line in summed.assumptions())


@pytest.mark.parametrize("accelerator", ["cuda", "cuda-before-8"])
def test_what_a_length_is_cut_to_decides_on_every_card(accelerator: str) -> None:
    def asked(length: int):
        recipe = {"sequence_length": length, "accelerator": accelerator, "gradient_checkpointing": False}
        return memory_answer({"model": "whisper-tiny", "method": "full", "recipe": recipe}, verdicts=False)[
            "estimates"
        ][0]

    cut, longest = asked(4096), asked(448)
    assert cut["peak"] == longest["peak"]
    assert cut["without_effect"] == [{"words": ["sequence_length"], "reason": "it is cut to what this model takes"}]
    assert longest["without_effect"] == []
