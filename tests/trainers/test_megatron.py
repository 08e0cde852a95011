"""Megatron-LM's commands, whose facts and measured peaks are its own functional tests' (NVIDIA/Megatron-LM d98e8a64)."""

import pytest

from loralens.core.errors import InvalidInput
from loralens.trainers.check import check_answer
from loralens.trainers.reader import read

SCRIPT = """#!/bin/bash
GPUS=8
PRETRAIN="pretrain_gpt.py"
DISTRIBUTED_ARGS=(--nproc_per_node $GPUS --nnodes 1)
MODEL_ARGS=(
    --num-layers 32 --hidden-size 4096  # a comment
    --num-attention-heads 32 --group-query-attention --num-query-groups 8
    --untie-embeddings-and-output-weights
    --seq-length 8192 --max-position-embeddings 8192 --vocab-size 131073 --mock-data
)
TRAINING_ARGS=()
TRAINING_ARGS+=(
    "--micro-batch-size 2"
    --global-batch-size 8 --bf16 --use-distributed-optimizer --overlap-grad-reduce --attention-backend flash
)
if [ "$FP8" = 1 ]; then
    TRAINING_ARGS+=(--fp8-format hybrid)
fi
torchrun ${DISTRIBUTED_ARGS[@]} "$PRETRAIN" \\
    ${MODEL_ARGS[@]} ${TRAINING_ARGS[@]} \\
    --tensor-model-parallel-size 4 --transformer-engine-typo 1
"""
MIB = 2**20


def test_a_script_with_arrays_is_read_with_the_sizes_of_its_model():
    """gpt3_7b_tp4_pp1_memory_speed on A100: 55,493 MiB allocated, 68 of them workspaces."""
    r = read({"files": {"train.sh": SCRIPT}})
    assert [setting.key for setting in r.unknown] == ["transformer_engine_typo"]
    assert not r.blocks
    assert r.source.notes == ["what the script adds to its arguments under a condition is left out"]
    assert {name: r.words[name] for name in ("tp", "gpus", "strategy", "dp_replicate", "gradient_accumulation_steps")} == {
        "tp": 4, "gpus": 8, "strategy": "megatron", "dp_replicate": 1, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    assert r.config is not None
    assert (r.config["vocab_size"], r.config["num_key_value_heads"]) == (131_584, 8)
    answer = check_answer({"files": {"train.sh": SCRIPT}})
    assert answer["peak"]["allocated_bytes"] + 68 * MIB == pytest.approx(55_493 * MIB, rel=0.005)


SMALL = (
    "--num-layers 12 --hidden-size 512 --num-attention-heads 8 --seq-length 1024 --max-position-embeddings 1024 "
    "--micro-batch-size 4 --global-batch-size 32 --bf16 --vocab-size 50257"
)


@pytest.mark.parametrize(
    ("more", "measured", "workspaces"),
    [
        ("--tensor-model-parallel-size 1 --use-distributed-optimizer --attention-backend flash", 2586, 68),
        ("--tensor-model-parallel-size 1 --attention-backend flash --recompute-granularity full --recompute-method uniform "
         "--recompute-num-layers 1", 2419, 68),
        ("--tensor-model-parallel-size 2 --use-distributed-optimizer --num-distributed-optimizer-instances 2 "
         "--attention-backend unfused", 2535, 68),
        ("--tensor-model-parallel-size 4 --use-distributed-optimizer --attention-backend fused", 994, 96),
    ],
)  # fmt: skip
def test_a_command_gives_the_measured_peak(more, measured, workspaces):
    answer = check_answer({"files": {"run.sh": f"torchrun --nproc_per_node 8 pretrain_gpt.py {SMALL} {more}\n"}})
    assert answer["blockers"] == answer["unknown"] == []
    assert answer["peak"]["allocated_bytes"] + workspaces * MIB == pytest.approx(measured * MIB, rel=0.02)


def test_what_is_not_modelled_blocks_and_what_is_missing_is_asked():
    r = read({"files": {"a.sh": f"python pretrain_gpt.py {SMALL} --tensor-model-parallel-size 2 --num-experts 8\n"}})
    assert [says for _, says in r.blocks] == ["mixtures of experts are not modelled with Megatron's own model code"]
    assert any("how many GPUs" in question for question in r.questions)
    nameless = check_answer(
        {"files": {"a.sh": "python pretrain_gpt.py --tensor-model-parallel-size 2 --num-layers 2\n"}}
    )
    assert nameless["blockers"]
    with pytest.raises(InvalidInput, match="no training command"):
        read({"files": {"a.sh": "ARGS=(--num-layers 2\n"}})
