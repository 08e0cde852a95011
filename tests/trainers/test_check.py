"""`check`: verdict, lines, what was not understood, and the smallest change as a patch that reads back."""

from __future__ import annotations

import json

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import ALL_WORDS
from loralens.trainers.check import check_answer
from loralens.trainers.export import export_answer
from loralens.trainers.patch import edited
from loralens.trainers.reader import read
from loralens.trainers.table import DATA, table
from loralens.trainers.writing import WRITERS

AXOLOTL = """# my run
base_model: Qwen/Qwen2.5-0.5B   # the base
adapter: qlora
load_in_4bit: true
lora_r: 32
lora_alpha: 16
lora_target_linear: true
sequence_len: 4096
sample_packing: true
micro_batch_size: 4   # rows
optimizer: adamw_torch_fused
bf16: auto
gradient_checkpointng: true
gradient_checkpointing: false # for speed
tiled_mlp: true
"""
SWIFT = """NPROC_PER_NODE=1 \\
swift sft \\
    --model Qwen/Qwen2.5-7B-Instruct \\
    --per_device_train_batch_size 2 \\
    --gradient_checkpointing false \\
    --max_length 2048 \\
    --torch_dtype bfloat16
"""
FACTORY = """model_name_or_path: Qwen/Qwen2.5-0.5B
stage: sft
finetuning_type: lora
cutoff_len: 4096
per_device_train_batch_size: 4
flash_attn: disabled  # no kernel
bf16: true
"""


def check(text, name="train.yaml", **own):
    return check_answer({"files": {name: text}, **own})


def test_the_verdict_is_that_of_the_recipe():
    answer = check(AXOLOTL, gpu="12GB")
    same = memory_answer({"model": "qwen2.5-0.5b", "method": "qlora", "recipe": answer["recipe"], "gpu": "12GB"})
    assert same["estimates"][0] == answer["estimate"]
    assert answer["verdict"] == same["estimates"][0]["fits"][0]["verdict"] == "does_not_fit"
    assert answer["trainer"]["name"] == answer["recipe"]["trainer"] == "axolotl"


def test_lines_are_named_and_what_is_not_understood_too():
    answer = check(AXOLOTL, gpu="12GB")
    keys = {row["from"][0]["key"]: row["from"][0]["line"] for row in answer["lines"] if row["from"]}
    assert keys["gradient_checkpointing"] == 14
    assert [(row["key"], row["line"], row["did_you_mean"]) for row in answer["unknown"]] == [
        ("gradient_checkpointng", 13, "gradient_checkpointing")
    ]
    assert [row["key"] for row in answer["approximate"]] == ["tiled_mlp"]
    plain = check("base_model: Qwen/Qwen2.5-7B\nadapter: lora\nlora_r: 8\n", gpu="12GB")
    said = {row["word"]: (row["by_default"], [one["key"] for one in row["from"]]) for row in plain["lines"]}
    assert said["method"] == (False, ["adapter"])
    assert [row["saves_bytes"] for row in answer["lines"]] == sorted(
        (row["saves_bytes"] for row in answer["lines"]), reverse=True
    )


@pytest.mark.parametrize(
    "text, name, gpu", [(AXOLOTL, "a.yaml", "12GB"), (SWIFT, "sft.sh", "24GB"), (FACTORY, "f.yaml", "8GB")]
)
def test_the_patch_makes_it_fit_and_keeps_the_rest(text, name, gpu):
    before = check(text, name, gpu=gpu)
    change = before["change"]
    assert before["verdict"] != "fits" and change["problem"] is None
    after = check(change["text"], name, gpu=gpu)
    assert (after["verdict"], after["change"]) == ("fits", None)
    lines, kept = text.splitlines(), change["text"].splitlines()
    gone = [line for line in lines if line not in kept]
    assert all(any(str(row["key"]).split(".")[0] in line for row in change["changes"]) for line in gone)
    for comment in ("# my run", "# the base", "# rows", "# for speed", "# no kernel"):
        assert (comment in text) == (comment in change["text"])
    assert change["diff"].startswith(f"--- a/{name}")


def test_no_gpu_no_verdict():
    answer = check(AXOLOTL)
    assert (answer["verdict"], answer["change"], answer["lines"]) == (None, None, [])
    assert answer["peak"]["allocated_bytes"] > 0


@pytest.mark.parametrize(
    "line, key",
    [
        ("rl: dpo\n", "rl"),
        ("optimizer: dion\n", "optimizer"),
        ("base_model: nobody/nothing\n", "base_model"),
        ("adapter: hydra\n", "adapter"),
    ],
)
def test_what_cannot_be_answered_is_said_by_its_key(line, key):
    own = AXOLOTL.replace("base_model: Qwen/Qwen2.5-0.5B   # the base\n", "") if key == "base_model" else AXOLOTL
    answer = check(own + line, gpu="12GB")
    assert (answer["verdict"], answer["peak"]) == (None, None)
    assert [row["key"] for row in answer["blockers"]] == [key]


def test_a_config_json_beside_it_names_the_model():
    config = json.dumps(
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
         "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128}
    )  # fmt: skip
    text = AXOLOTL.replace("Qwen/Qwen2.5-0.5B", "nobody/nothing")
    assert check_answer({"files": {"a.yaml": text, "config.json": config}})["model"]["family"] == "llama"


def test_deepspeed_and_accelerate_files_are_followed():
    zero = '{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}}'
    text = FACTORY + "deepspeed: configs/mine.json\n"
    asked = check_answer({"files": {"f.yaml": text, "mine.json": zero}, "gpus": 4})["recipe"]["parallelism"]
    assert asked.items() >= {"gpus": 4, "strategy": "zero3", "offload": "parameters"}.items()
    accelerate = "distributed_type: FSDP\nnum_processes: 8\nfsdp_config:\n  fsdp_offload_params: false\n"
    asked = check_answer({"files": {"f.yaml": FACTORY, "fsdp.yaml": accelerate}})["recipe"]["parallelism"]
    assert asked.items() >= {"gpus": 8, "strategy": "fsdp", "offload": "none"}.items()
    again = "fsdp_version: 2\n  fsdp_reshard_after_forward: false\n  fsdp_offload_params: false"
    second = accelerate.replace("fsdp_offload_params: false", again)
    asked = check_answer({"files": {"f.yaml": FACTORY, "fsdp.yaml": second}})["recipe"]["parallelism"]
    assert asked.items() >= {"gpus": 8, "strategy": "fsdp2"}.items()


def test_what_deepspeeds_file_says_of_buckets_zero_plus_plus_and_nvme():
    zero = {
        "stage": 3, "reduce_bucket_size": 5e7, "stage3_prefetch_bucket_size": "auto", "stage3_param_persistence_threshold": 10_000,
        "zero_hpz_partition_size": 4, "zero_quantized_weights": True, "offload_optimizer": {"device": "nvme", "nvme_path": "/n"},
        "offload_param": {"device": "cpu"},
    }  # fmt: skip
    files = {
        "f.yaml": FACTORY + "deepspeed: mine.json\n",
        "mine.json": json.dumps({"zero_optimization": zero, "expert_parallel": {"enabled": True}}),
    }
    answer = check_answer({"files": files, "gpus": 8})
    said = {"reduce_bucket_size": 50_000_000, "prefetch_bucket_size": "auto", "persistence_threshold": 10_000}
    asked = answer["recipe"]["parallelism"]
    assert asked.items() >= (said | {"hpz_partition": 4, "offload": "parameters", "offload_device": "cpu"}).items()
    notes = " ".join(row["says"] for row in answer["approximate"])
    assert all(word in notes for word in ("zero_quantized_weights", "NVMe", "AutoEP"))


def test_what_waits_on_a_drive_is_read_and_what_stage_2_puts_there_is_in_host_memory():
    param = {"device": "nvme", "nvme_path": "/n", "buffer_count": 6, "buffer_size": 2e8, "max_in_cpu": 0}
    states = {"device": "nvme", "nvme_path": "/n", "buffer_count": 5}

    def asked(stage, **offloads):
        zero = {"stage": stage, "sub_group_size": 1e8, **offloads}
        files = {"f.yaml": FACTORY + "deepspeed: mine.json\n", "mine.json": json.dumps({"zero_optimization": zero})}
        answer = check_answer({"files": files, "gpus": 8})
        notes = " ".join(row["says"] for row in answer["approximate"])
        return answer["recipe"]["parallelism"], "NVMe" in notes

    found, noted = asked(3, offload_param=param, offload_optimizer=states)
    said = {"param_buffer_count": 6, "param_buffer_size": 200_000_000, "max_in_cpu": 0, "sub_group_size": 100_000_000}
    assert found.items() >= (said | {"offload_device": "nvme", "optimizer_buffer_count": 5}).items()
    assert not noted
    for stage, offloads in ((2, {"offload_optimizer": states}), (3, {"offload_param": param})):
        found, noted = asked(stage, **offloads)
        assert (found["offload_device"], noted) == ("cpu", True)


def test_an_unsaid_number_of_gpus_is_asked_for():
    answer = check(FACTORY + "deepspeed: ds_z3_config.json\n")
    assert answer["recipe"]["parallelism"]["strategy"] == "zero3"
    assert any("how many GPUs" in question for question in answer["questions"])


def test_a_value_of_the_wrong_type_names_its_line():
    with pytest.raises(InvalidInput, match=r"train.yaml:10: micro_batch_size"):
        check(AXOLOTL.replace("micro_batch_size: 4", "micro_batch_size: four"))


def test_defaults_follow_the_version():
    text = "model_name_or_path: Qwen/Qwen2.5-0.5B\ndataset_name: x\nmax_length: 512\n"
    new, old = check(text), check(text, stack={"trl": "0.20"})
    assert (new["recipe"]["gradient_checkpointing"], old["recipe"]["gradient_checkpointing"]) == (True, False)
    assert old["trainer"]["version"] == "0.20"


def test_a_python_script_is_read():
    code = """
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B", dtype=torch.bfloat16)
peft_config = LoraConfig(r=64, lora_alpha=16, target_modules="all-linear")
args = SFTConfig(per_device_train_batch_size=2, max_length=512, gradient_checkpointing=False, optim="adamw_torch")
SFTTrainer(model=model, args=args, peft_config=peft_config)
"""
    answer = check(code, "train.py", gpu="8GB")
    recipe = answer["recipe"]
    assert (answer["method"], recipe["lora"]["rank"], recipe["lora"]["alpha"]) == ("lora", 64, 16)
    assert (recipe["micro_batch_size"], recipe["sequence_length"], recipe["optimizer"]) == (2, 512, "adamw_foreach")
    assert (recipe["weights_dtype"], recipe["gradient_checkpointing"]) == ("bfloat16", False)


def test_every_table_is_read_and_every_key_is_one_thing():
    for path in DATA.glob("*.json"):
        if path.stem in ("optimizers", "huggingface", "torchtune-models"):
            continue
        found = table(path.stem)
        assert found.source and found.marks
        assert found.row("no_such_key_anywhere") == ("unknown", "")
    known = {row.name for row in ALL_WORDS}
    answer = check(AXOLOTL)
    assert {row["word"] for row in answer["words"]} <= known
    assert set(WRITERS) <= {path.stem for path in DATA.glob("*.json")}


def test_a_block_list_is_not_rewritten_as_text():
    source = read({"files": {"a.yaml": AXOLOTL + "plugins:\n  - x\n"}}).source
    assert edited(source, {"plugins": ["y"]}) is None
    assert edited(source, {"lora_r": 4}) == source.text.replace("lora_r: 32", "lora_r: 4")


TRANSFORMERS = """
LENGTH = 256
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B", dtype=torch.bfloat16)
model = get_peft_model(model, LoraConfig(r=4, bias="all", target_modules="all-linear"))
args = TrainingArguments(per_device_train_batch_size=2, bf16=True, deepspeed={"zero_optimization": {"stage": 2}})
Trainer(model=model, args=args)
"""


def test_a_script_with_transformers_own_trainer_has_its_defaults_and_not_trls():
    answer = check(TRANSFORMERS, "train.py", gpus=2)
    recipe = answer["recipe"]
    assert (answer["trainer"]["name"], recipe["loss"], recipe["gradient_checkpointing"]) == (
        "transformers",
        "full",
        False,
    )
    assert (recipe["lora"]["bias"], recipe["sequence_length"], recipe["parallelism"]["strategy"]) == (
        "all",
        256,
        "zero2",
    )
    assert answer["unknown"] == []


def test_torchtunes_own_model_code_is_judged():
    text = export_answer({"model": "qwen2.5-0.5b", "method": "lora", "to": "torchtune"})["text"]
    assert check(text)["recipe"]["stack"] == {"torchtune": "0.7"}


@pytest.mark.parametrize(
    "keys, word",
    [("", None), ("freeze_vision_tower: true\n", "tower+projector"), ("freeze_vision_tower: false\nfreeze_multi_modal_projector: false\n", "none"),
     ("freeze_multi_modal_projector: false\n", "tower")],
)  # fmt: skip
def test_what_stays_frozen_of_a_tower_is_a_word(keys, word):
    r = read({"files": {"t.yaml": FACTORY + keys}})
    assert r.words.get("freeze_tower") == word
    assert [says for _, says in r.blocks] == (
        ["no key says how many pictures a sample has: `loralens memory --images` counts them"] if word else []
    )
    assert r.unknown == []


def test_transformers_decides_which_fsdp_where_nothing_says_it():
    config = (
        "model_name_or_path: Qwen/Qwen2.5-0.5B\nuse_peft: true\nmax_length: 64\nfsdp: full_shard auto_wrap offload\n"
    )
    for stack, strategy in (({}, "fsdp2"), ({"transformers": "5.6"}, "fsdp")):
        asked = check_answer({"files": {"sft.yaml": config}, "gpus": 2, "stack": stack})["recipe"]["parallelism"]
        assert (asked["strategy"], asked["offload"]) == (strategy, "parameters")
    first = check_answer({"files": {"sft.yaml": config + "fsdp_config:\n  version: 1\n"}, "gpus": 2})
    assert first["recipe"]["parallelism"]["strategy"] == "fsdp"
    swift = "model: Qwen/Qwen2.5-0.5B\ntuner_type: lora\nmax_length: 64\nfsdp: full_shard auto_wrap\n"
    assert check_answer({"files": {"swift.yaml": swift}, "gpus": 2})["recipe"]["parallelism"]["strategy"] == "fsdp2"
    axolotl = "base_model: Qwen/Qwen2.5-0.5B\ndatasets: x\nsequence_len: 64\nfsdp: [full_shard, auto_wrap]\n"
    assert check_answer({"files": {"a.yaml": axolotl}, "gpus": 2})["recipe"]["parallelism"]["strategy"] == "fsdp"


def test_axolotl_packs_experts():
    config = (
        "base_model: Qwen/Qwen3-30B-A3B\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\n"
        "lora_target_modules: [q_proj, o_proj]\ngradient_checkpointing: true\nsequence_len: 512\ndatasets: x\n"
    )
    answers = [check_answer({"files": {"a.yaml": config + own}}) for own in ("", "quantize_moe_experts: true\n")]
    assert [answer["recipe"]["quantization"]["pack_experts"] for answer in answers] == [False, True]
    assert answers[1]["peak"]["allocated_bytes"] < answers[0]["peak"]["allocated_bytes"]
    assert answers[1]["approximate"] == []
    linear = config.replace("lora_target_modules: [q_proj, o_proj]", "lora_target_linear: true")
    found = check_answer({"files": {"a.yaml": linear + "quantize_moe_experts: true\n"}})
    (counted,) = memory_answer({"model": "qwen3-30b-a3b", "method": "qlora", "recipe": found["recipe"]})["estimates"]
    assert counted["parameters"]["trainable"] == 8 * 48 * (
        2 * (2048 + 4096) + 2 * (2048 + 512)
    )  # q, o, k, v of 48 layers
