"""Which attention kernel runs on which card. The table is torch 2.13's sdp_utils.cpp with transformers 5.23 above it."""

import pytest

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer
from loralens.core.question.accelerator import ACCELERATORS, accelerator_of
from loralens.core.tape.kernels import Asked, choose

OLD, NEW = "cuda-before-8", "cuda"
TABLE = [  # accelerator, dtype, masked, grouped keys are passed on, torch, kernel
    (NEW, "bfloat16", False, True, (2, 13), "flash"), (NEW, "float16", True, False, (2, 13), "efficient"),
    (NEW, "float32", False, True, (2, 13), "math"), (NEW, "float32", False, False, (2, 13), "efficient"),
    (NEW, "float32", False, True, (2, 14), "efficient"), (OLD, "bfloat16", False, True, (2, 13), "math"),
    (OLD, "bfloat16", True, False, (2, 13), "math"), (OLD, "float16", False, True, (2, 13), "math"),
    (OLD, "float16", False, True, (2, 14), "efficient"), (OLD, "float16", False, False, (2, 13), "efficient"),
    (OLD, "float16", True, False, (2, 13), "efficient"), (OLD, "bfloat16", False, True, (2, 14), "math"),
    ("rocm", "bfloat16", False, True, (2, 14), "flash"), ("rocm", "float32", False, True, (2, 14), "math"),
    ("rocm-other", "float16", False, False, (2, 13), "math"), ("mps", "float16", False, False, (2, 13), "math"),
    ("cpu", "float32", True, True, (2, 13), "flash"),
]  # fmt: skip


@pytest.mark.parametrize(("accelerator", "dtype", "masked", "grouped", "torch", "kernel"), TABLE)
def test_the_table(accelerator, dtype, masked, grouped, torch, kernel):
    chosen = choose(Asked(accelerator, dtype, masked, grouped, 128, 128, torch))
    assert chosen.kernel == kernel
    assert chosen.because or kernel == "flash"


def test_every_card_has_an_accelerator_or_none_is_known():
    found = {gpu.id: accelerator_of(gpu.compute_capability) for gpu in catalogue.gpus()}
    assert set(found.values()) <= {*ACCELERATORS, None}
    assert {found[name] for name in ("t4", "v100-sxm2-32", "rtx-2080-ti", "p100-16")} == {OLD}
    assert {gpu.vendor for gpu in catalogue.gpus() if gpu.compute_capability is None} == {"Intel", "Google", "AWS"}


def asked(gpu, **recipe):
    body = {
        "model": "llama-3.2-1b",
        "method": "lora",
        "recipe": {"sequence_length": 1024, "gradient_checkpointing": False, **recipe},
    }
    (found,) = memory_answer({**body, **({"gpu": gpu} if gpu else {})})["estimates"]
    return found


def test_a_t4_is_no_a100():
    old, new = asked("t4"), asked("a100-80")
    assert [one["kernel"] for one in old["attention"]] == ["math"]
    assert [one["kernel"] for one in new["attention"]] == ["flash"]
    assert old["peak"]["allocated_bytes"] > new["peak"]["allocated_bytes"]
    assert old["recipe"]["accelerator"] == OLD
    assert any("no flash kernel below compute capability 8.0" in line for line in old["assumptions"])
    assert any("emulated" in line for line in old["assumptions"])
    sent_back = memory_answer({"model": "llama-3.2-1b", "method": "lora", "recipe": old["recipe"]})["estimates"][0]
    assert sent_back["peak"] == old["peak"]


@pytest.mark.parametrize("attention", ["sdpa", "flash", "eager"])
def test_without_a_card_an_attention_is_what_it_was(attention):
    assert asked(None, attention=attention)["recipe"]["accelerator"] == NEW
    assert asked(None, attention=attention)["peak"] == asked("a100-80", attention=attention)["peak"]


def test_what_is_said_overrides_the_card():
    flash = asked("t4", attention="flash")
    assert flash["peak"]["allocated_bytes"] == asked(None, attention="flash")["peak"]["allocated_bytes"]
    assert any("counted as said" in line for line in flash["assumptions"])
    assert asked("t4", accelerator="cuda")["peak"] == asked(None)["peak"]


def test_in_a_list_of_cards_an_older_one_is_judged_by_its_own_kernel():
    alone = asked("t4")["fits"][0]
    (row,) = (row for row in asked(None)["fits"] if row["gpu"] == "t4")
    assert row == alone
