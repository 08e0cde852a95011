"""The plan search: its best plans are never beaten by another of its space, and what it says can be pasted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from loralens.core import catalogue
from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput
from loralens.planner.fit import fit_answer
from loralens.planner.meshes import meshes
from loralens.planner.pasted import configs
from loralens.planner.plans import _distance, front, plans_answer, search
from loralens.planner.question import read_question
from loralens.trainers.check import check_answer

SMALL = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = SMALL | {
    "model_type": "qwen3_moe", "moe_intermediate_size": 512, "num_experts": 16, "num_experts_per_tok": 2, "head_dim": 64
}  # fmt: skip
BODY = {"config": SMALL, "method": "full", "gpu": "custom:4GiB,165TFLOP/s", "gpus": 8, "nodes": 2}


@pytest.mark.parametrize(("gpus", "nodes", "length"), [(2, 1, 512), (8, 2, 512), (16, 2, 8192)])
def test_no_plan_of_the_space_beats_one_of_the_front(gpus, nodes, length):
    question, _ = read_question({"config": SMALL, "method": "full", "recipe": {"sequence_length": length}})
    rows = [row for row in search(question, catalogue.gpu("h100-sxm"), gpus, nodes) if row["fits"]]
    kept = front(rows)
    assert kept
    for row in rows:
        for best in kept:
            faster = row["tokens_per_second_per_gpu"] > best["tokens_per_second_per_gpu"]
            assert not (faster and row["needed_bytes"] <= best["needed_bytes"])
    speeds = [row["tokens_per_second_per_gpu"] for row in kept]
    assert speeds == sorted(speeds, reverse=True)


def test_memory_that_reads_as_equal_is_no_reason_to_wait_longer():
    quick, alike, smaller = (
        {"tokens_per_second_per_gpu": speed, "needed_bytes": size, "level": 0}
        for speed, size in ((6712.0, 10_676_600_832), (2849.0, 10_605_297_664), (2700.0, 10_500_000_000))
    )
    assert front([smaller, alike, quick]) == [quick, smaller]


def test_a_plan_is_what_its_words_make_of_the_question():
    answer = plans_answer(BODY | {"gpu": "h100-sxm"})
    for row in answer["plans"]:
        own = {
            name: row[name] for name in ("micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
        }
        assert estimate(SMALL, "full", **row["words"], **own).allocated_bytes == row["allocated_bytes"]
        mesh = row["mesh"]
        assert mesh["dp_replicate"] * mesh["dp_shard"] * mesh["cp"] * mesh["tp"] * mesh["pp"] == 8


@pytest.mark.parametrize("asked", [{"tp": 2}, {"strategy": "ddp", "gpus": 8}, {"strategy": "fsdp2", "mesh": {"tp": 4}}])
def test_what_was_asked_for_is_kept(asked):
    answer = plans_answer(BODY | {"gpu": "h100-sxm", "recipe": {"parallelism": asked}})
    assert answer["plans"]
    for row in answer["plans"]:
        wanted = {name: value for name, value in asked.items() if name != "mesh"} | asked.get("mesh", {})
        kept = row["recipe"]["parallelism"]
        assert {name: kept[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("asked", "word"),
    [({"tp": 3}, "tp"), ({"gpus": 4, "strategy": "ddp"}, "gpus"), ({"tp": 2, "schedule": "gpipe"}, "schedule")],
)
def test_what_no_plan_has_is_refused_by_name(asked, word):
    with pytest.raises(InvalidInput, match=f"has {word}=") as caught:
        plans_answer(BODY | {"recipe": {"parallelism": asked}})
    assert caught.value.field == f"parallelism.{word}"


def test_experts_are_divided_where_a_model_has_some_and_the_words_are_taken():
    question, _ = read_question({"config": EXPERTS, "method": "full", "recipe": {"sequence_length": 512}})
    rows = [row for row in search(question, catalogue.gpu("h100-sxm"), 8, 1) if row["mesh"]["ep"] > 1]
    assert {row["mesh"]["ep"] for row in rows} == {2, 4, 8}
    assert all("accelerate" not in row["configs"] for row in rows)
    assert "expert_parallel_degree = " in rows[0]["configs"]["torchtitan"]
    assert "--expert-model-parallel-size" in rows[0]["configs"]["megatron"]
    configuration = pytest.importorskip("transformers.distributed.configuration_utils")
    for row in rows:
        words = row["configs"]["transformers"].split("DistributedConfig(")[1].rstrip(")\n")
        read = configuration.DistributedConfig(
            **{name: int(size) for name, size in (w.split("=") for w in words.split(", "))}
        )
        assert (read.ep_size, read.fsdp_size, read.dp_replicate_size) == (row["mesh"]["ep"], 8, 1)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_only_programs_that_train_so_have_configs(method):
    answer = plans_answer(BODY | {"gpu": "h100-sxm", "method": method, "nodes": 1, "recipe": {"sequence_length": 512}})
    programs = {name for row in answer["plans"] for name in row["configs"]}
    assert "accelerate" in programs
    assert ("torchtitan" in programs) == (method == "full")
    assert [row["key"] for row in answer["configs_left_out"]] == ([] if method == "full" else ["whole"])


def test_where_nothing_fits_the_nearest_is_named():
    answer = plans_answer(BODY | {"gpu": "custom:0.5GiB"})
    assert answer["plans"] == []
    assert answer["nearest"]["fits"] is False


def test_without_a_rate_plans_are_ordered_by_level():
    answer = plans_answer(BODY | {"gpu": "custom:80GiB"})
    assert all(row["seconds_per_step"] is None for row in answer["plans"])
    assert [row["level"] for row in answer["plans"]] == sorted(row["level"] for row in answer["plans"])


@pytest.mark.parametrize(
    ("wrong", "field"), [({"gpus": 6, "nodes": 4}, "nodes"), ({"gpus": 0}, "gpus"), ({"gpu": None}, "gpu")]
)
def test_bad_words_are_refused_by_name(wrong, field):
    with pytest.raises(InvalidInput) as caught:
        plans_answer(BODY | wrong)
    assert caught.value.field == field


def test_plans_are_ranked_by_what_each_costs_alone():
    body = BODY | {"gpu": "h100-sxm", "recipe": {"sequence_length": 512}}
    row = plans_answer(body)["plans"][0]
    own = {name: row[name] for name in ("micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")}
    found = fit_answer(
        {"config": SMALL, "method": "full", "gpu": "h100-sxm", "tokens": 1_000_000,
         "recipe": {"sequence_length": 512, **own, "parallelism": row["recipe"]["parallelism"]}}
    )  # fmt: skip
    assert found["time"]["step_seconds"] == row["step_seconds"]
    assert row["step_seconds"]["low"] <= row["seconds_per_step"] <= row["step_seconds"]["high"]


def test_machines_apart_take_longer():
    question, _ = read_question({"config": SMALL, "method": "full"})
    device = catalogue.gpu("h100-sxm")
    together, apart = ({key(row): row for row in search(question, device, 8, nodes)} for nodes in (1, 4))
    both = together.keys() & apart.keys()
    assert len(both) > 4
    assert all(together[name]["seconds_per_step"] <= apart[name]["seconds_per_step"] for name in both)


def key(row):
    kept = row["words"].get("reshard_after_forward"), row["gradient_checkpointing"], row["micro_batch_size"]
    return (*row["mesh"].values(), *kept)


def test_accelerate_takes_the_config(tmp_path):
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    question, _ = read_question({"config": SMALL, "method": "full"})
    seen = set()
    for mesh in meshes(question.recipe, 8, 2):
        text = configs(mesh.recipe, 2, "full").get("accelerate")
        if text is None:
            continue
        file = tmp_path / "config.yaml"
        file.write_text(text)
        read = config_args.load_config_from_file(str(file))
        assert read.num_processes == 8 and read.num_machines == 2
        seen.add(str(read.distributed_type))
        if "parallelism_config:" in text:
            sizes = [size for name, size in read.parallelism_config.items() if name.endswith("_size")]
            assert sizes[0] * sizes[1] * sizes[2] * sizes[3] == 8
    assert len(seen) == 2


def test_a_plan_beside_whose_step_an_engine_cannot_start_does_not_fit_and_has_no_speed():
    asked = {"config": SMALL, "method": "full", "gpu": "rtx-4090", "gpus": 2, "recipe": {"objective": {"type": "grpo"}}}
    low, enough = (
        plans_answer(asked | {"recipe": asked["recipe"] | {"rollout": {"engine": "vllm", "utilization": share}}})
        for share in (0.01, 0.3)
    )
    assert low["plans"] == []
    assert low["nearest"]["seconds_per_step"] is None
    assert enough["plans"]


def test_a_plan_needs_the_memory_that_its_machines_are_said_to_have():
    asked = {"config": SMALL, "method": "full", "gpu": "h100-sxm", "gpus": 8}
    little, enough = (
        plans_answer(asked | {"recipe": {"parallelism": {"offload": "optimizer", "host_memory": size}}})
        for size in (8, 256)
    )
    assert little["plans"] == []
    assert little["nearest"]["decided_by"] == "host_memory"
    assert enough["plans"]


def test_where_the_gpus_hold_a_plan_that_one_is_nearest_and_says_what_decides():
    """Eight cards of 80 GB hold the sharded ones, of which nobody says what host memory their machine has; copies are too large."""
    question = {"model": "llama-3.1-70b", "method": "full", "gpu": "h100-sxm", "gpus": 8}
    nearest = plans_answer(question | {"recipe": {"parallelism": {"offload": "optimizer"}}})["nearest"]
    assert (nearest["fits"], nearest["verdict"], nearest["decided_by"]) == (False, "tight", "host_memory_unsaid")
    assert nearest["needed_bytes"] < 85_520_809_984
    assert nearest["host_needed_bytes"][1] > 128 * 2**30
    row = {"verdict": "tight", "needed_bytes": 70}
    assert min([{"verdict": "does_not_fit", "needed_bytes": 60}, row], key=_distance) == row


def test_what_waits_on_a_drive_is_searched_among_what_swaps_to_one():
    """ZeRO-3 alone does; its config says the drive, and is read back as the plan."""
    asked = {"strategy": "zero3", "offload": "optimizer", "offload_device": "nvme", "host_memory": 2000}
    sizes = {"sub_group_size": 5_000_000, "optimizer_buffer_count": 5}
    answer = plans_answer(BODY | {"gpu": "h100-sxm", "recipe": {"parallelism": asked | sizes}})
    assert answer["configs_left_out"] == []
    assert answer["plans"]
    for row in answer["plans"]:
        assert row["mesh"]["dp_shard"] == 8
        kept = row["recipe"]["parallelism"]
        assert {name: kept[name] for name in (*asked, *sizes)} == asked | sizes
        assert list(row["configs"]) == ["deepspeed"]
        assert row["step_seconds"] is row["tokens_per_second_per_gpu"] is None  # the drive decides
        script = "model_name_or_path: x\nstage: sft\nfinetuning_type: full\ndeepspeed: ds.json\n"
        files = {"run.yaml": script, "ds.json": row["configs"]["deepspeed"]}
        again = check_answer({"files": files, "config": SMALL, "gpus": 8})["recipe"]["parallelism"]
        read = {name: again[name] for name in asked | sizes}
        assert read == asked | sizes | {"host_memory": None}


@pytest.mark.parametrize(
    ("offload", "strategy", "programs", "reason"),
    [
        ("none", "fsdp2", {"accelerate", "torchtitan", "megatron"}, []),
        ("parameters", "fsdp2", {"accelerate", "torchtitan"}, ["weights"]),
        ("activations", "fsdp2", {"accelerate"}, ["activations"]),
        ("optimizer", "fsdp2", set(), ["states"]),
    ],
)
def test_a_config_offloads_what_its_plan_does_or_is_left_out(offload, strategy, programs, reason):
    asked = {"strategy": strategy, "offload": offload, "host_memory": 2000}
    answer = plans_answer(BODY | {"gpu": "h100-sxm", "recipe": {"parallelism": asked}})
    assert {name for row in answer["plans"] for name in row["configs"]} <= programs
    assert [row["key"] for row in answer["configs_left_out"]] == reason
    question, _ = read_question({"config": SMALL, "method": "full", "recipe": {"parallelism": {"gpus": 8} | asked}})
    cut = replace(question.recipe, parallelism=replace(question.recipe.parallelism, tp=2))
    texts = configs(cut, 1, "full")
    assert set(texts) == programs
    whole = offload == "parameters"
    if programs:
        assert f"fsdp_offload_params: {str(whole).lower()}" in texts["accelerate"]
    if "torchtitan" in programs:
        assert ("enable_cpu_offload = true" in texts["torchtitan"]) == whole


@pytest.mark.parametrize(
    ("words", "shares"),
    [
        ({"strategy": "fsdp2", "tp": 2}, "--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads_params"),
        ({"strategy": "megatron", "tp": 2}, "--use-distributed-optimizer"),
        ({"strategy": "none", "tp": 8}, ""),
        ({"strategy": "fsdp2", "pp": 2}, None),
        ({"strategy": "fsdp2", "tp": 2, "dp_replicate": 2}, None),
    ],
)
def test_megatron_shares_out_what_the_plan_does_or_is_left_out(words, shares):
    """Its own optimizer leaves whole weights on every GPU; what Megatron-FSDP does not go with has no text."""
    question, _ = read_question({"config": SMALL, "method": "full", "recipe": {"parallelism": {"gpus": 8} | words}})
    text = configs(question.recipe, 1, "full").get("megatron")
    assert (text is None) == (shares is None)
    if text is not None:
        flat = " ".join(text.replace("\\", "").split())
        assert shares in flat
        assert ("--use-megatron-fsdp" in flat) == (words["strategy"] == "fsdp2")
        assert ("--use-distributed-optimizer" in flat) == (words["strategy"] != "none")


def test_several_machines_are_told_where_the_first_one_is():
    question, _ = read_question(
        {"config": SMALL, "method": "full", "recipe": {"parallelism": {"gpus": 16, "strategy": "fsdp2"}}}
    )
    one, two = (yaml.safe_load(configs(question.recipe, nodes, "full")["accelerate"]) for nodes in (1, 2))
    asked = {"machine_rank", "main_process_ip", "main_process_port"}
    assert asked & set(one) == set()
    assert asked <= set(two)
    assert two["machine_rank"] == 0


def test_transformers_own_words_offload_too():
    question, _ = read_question({"config": EXPERTS, "method": "full"})
    mesh = next(mesh for mesh in meshes(question.recipe, 8, 1, 16) if mesh.recipe.parallelism.ep > 1).recipe
    kept, moved = (
        configs(replace(mesh, parallelism=replace(mesh.parallelism, offload=what)), 1, "full")["transformers"]
        for what in ("none", "parameters")
    )
    assert "fsdp_cpu_offload" not in kept
    assert "fsdp_cpu_offload=True" in moved
