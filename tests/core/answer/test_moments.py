"""A run beside its step: an evaluation to the traced byte, a machine's memory, and pools that GPU and processor share.

`tests/oracles/traced-evaluations.jsonl`: transformers' own container fed by real forward passes (`lab.trace.evaluation`), and the
losses of TRL 1.10, 1.13 and 1.16 without gradients (`tests/trainers/trl_traces.py`).
"""

import json
import re
from pathlib import Path

import pytest

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate, estimate_model
from loralens.core.answer.host import PROCESS
from loralens.core.errors import InvalidInput
from loralens.core.question.flat import merged_recipe
from loralens.core.question.model import resolve
from loralens.core.question.objectives import OBJECTIVES
from loralens.core.question.recipe import Recipe

GIB = 2**30
CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "oracles" / "traced-evaluations.jsonl").read_text("utf-8").splitlines()
]
OFFLOADED = {"gradient_checkpointing": True, "sequence_length": 2048, "strategy": "zero3", "offload": "parameters"}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_evaluation_takes_what_the_traced_one_does(case):
    request = case["request"]
    own = estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))
    near = (
        2e-4 if "/trl-" in case["name"] else 1e-4
    )  # TRL takes rows by two numbers of each, and keeps a number per token
    assert own.evaluation.allocated_bytes == pytest.approx(case["expected"]["peak_allocated_bytes"], rel=near)


def test_one_evaluation_is_traced_again():
    from loralens.lab.trace.evaluation import traced_evaluation

    case = next(case for case in CASES if case["name"] == "gpt2/lora-logits-moved")
    request = case["request"]
    found = traced_evaluation(request["config"], request["method"], request["recipe"])
    assert found == case["expected"]["peak_allocated_bytes"]


def test_kept_logits_decide_whether_it_fits():
    words = {"gradient_checkpointing": True, "eval_samples": 500, "eval_batch_size": 1}
    verdicts = {
        kept: estimate("llama-3.1-8b", "lora", **words, eval_metrics=kept).fits(["rtx-4090"])[0]["verdict"]
        for kept in ("loss", "best", "logits")
    }
    assert verdicts == {"loss": "fits", "best": "fits", "logits": "does_not_fit"}


def test_predictions_that_move_to_the_host_are_the_machines():
    words = {"eval_samples": 500, "eval_metrics": "logits", "eval_accumulation_steps": 1, "host_memory": 64}
    found = estimate("llama-3.1-8b", "lora", gradient_checkpointing=True, **words)
    logits = 500 * 2048 * (128_256 * 4 + 8)
    assert found.evaluation.host_bytes == (logits, 2 * logits)
    assert found.fits(["h200-sxm"])[0]["verdict"] == "does_not_fit"


def test_deepspeed_holds_twenty_bytes_for_each_weight_on_the_host():
    """2 of the weight, 2 and 4 of gradients, 4 of the master and 8 of the moments; more with pinned buffers."""
    found = estimate("qwen2.5-32b", "full", **OFFLOADED)
    least, safe = found.host.moments["step"]
    assert least == pytest.approx(20 * found.total_parameters + PROCESS, rel=1e-3)
    assert safe > 1.15 * least


@pytest.mark.parametrize(
    ("memory", "verdict"), [(None, "tight"), (500, "does_not_fit"), (744e9 / GIB, "tight"), (1024, "fits")]
)
def test_the_machine_is_judged_beside_the_card(memory, verdict):
    words = OFFLOADED | ({} if memory is None else {"host_memory": memory})
    assert estimate("qwen2.5-32b", "full", **words).fits(["h100-nvl"])[0]["verdict"] == verdict


def test_a_machine_holds_all_its_processes():
    words = {"gpus": 16, "strategy": "ddp", "gradient_checkpointing": True}
    one, all_of_them = (estimate("llama-3.1-8b", "lora", **words, machine_gpus=number).host for number in (1, 16))
    assert (one.processes, all_of_them.processes) == (1, 16)
    assert all_of_them.moments["loading"][1] == 16 * one.moments["loading"][1]
    assert estimate("llama-3.1-8b", "lora", **words).host.processes == 8


def test_what_is_sharded_is_gathered_to_be_saved():
    shares = {"gpus": 8, "strategy": "fsdp2", "gradient_checkpointing": True}
    whole, adapter = (estimate("llama-3.1-8b", method, **shares) for method in ("full", "lora"))
    assert whole.host.moments["saving"][1] - whole.host.moments["step"][1] == whole.checkpoint_bytes
    assert adapter.host.moments["saving"][1] - adapter.host.moments["step"][1] == adapter.adapter_file_bytes


@pytest.mark.parametrize("card", ["gb10", "strix-halo", "m4-max", "mi300a"])
def test_one_pool_holds_both(card):
    device = catalogue.gpu(card)
    assert device.unified_memory_bytes >= device.memory_bytes
    recipe = {"gradient_checkpointing": True, "parallelism": {"strategy": "zero3", "offload": "parameters"}}
    body = {"model": "qwen2.5-7b", "method": "full", "gpu": card, "recipe": recipe}
    (found,) = memory_answer(body)["estimates"]
    step = next(row for row in found["moments"] if row["moment"] == "step")
    assert step["fits"] == [{"gpu": card, "verdict": "fits"}]
    assert step["host_bytes"][0] > device.unified_memory_bytes
    assert found["fits"][0]["verdict"] == "does_not_fit"
    assert any("one pool" in text for text in found["assumptions"])


def test_every_moment_is_answered():
    (found,) = memory_answer(
        {"model": "qwen2.5-0.5b", "method": "lora", "gpu": "t4", "recipe": {"evaluation": {"samples": 10}}}
    )["estimates"]
    assert [row["moment"] for row in found["moments"]] == ["loading", "step", "evaluation", "saving"]
    assert all(row["host_verdict"] is None and len(row["fits"]) == 1 for row in found["moments"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"eval_samples": 4}, r"while it evaluates a GPU needs at least \S+ GiB, to be safe \S+ GiB"),
        (
            {"host_memory": 64},
            r"a machine needs at least [\d.]+ GiB of host memory, to be safe [\d.]+ GiB, of its 64.0 GiB",
        ),
        (
            {"strategy": "zero3", "offload": "parameters", "model": "qwen2.5-32b"},
            r"a machine needs at least .* not said \(host_memory\).*",
        ),
    ],
)
def test_what_decides_beside_the_step_is_said_in_both_languages(words, says):
    model = words.pop("model", "qwen2.5-0.5b")
    (line,) = (text for text in estimate(model, "full", **words).assumptions() if re.fullmatch(says, text))
    table = json.loads(Path("frontend/src/shared/ui/ledger.zh-CN.json").read_text("utf-8"))
    assert any(re.fullmatch(pattern, line) for pattern, _ in table["assumptions"])


@pytest.mark.parametrize("kind", [kind for kind in OBJECTIVES if kind != "sft"])
def test_every_objective_is_evaluated(kind):
    """Its own passes without gradients: a batch of the step's size takes less than the step, a reference or teacher included."""
    words = {"objective": kind, "loss": "fused_head", "micro_batch_size": 4, "sequence_length": 512}
    words |= {"teacher": "llama-3.2-1b"} if kind == "distillation" else {}
    found = estimate("llama-3.2-1b", "full", **words, eval_samples=16, eval_batch_size=4)
    resident = found.moments.allocated()["saving"]
    assert resident < found.evaluation.allocated_bytes < found.allocated_bytes
    assert any(text.startswith(f"evaluation as TRL 1.16 runs it: {kind} again") for text in found.assumptions())
    with pytest.raises(InvalidInput, match=f"for supervised fine-tuning alone, not for {kind}"):
        estimate("llama-3.2-1b", "full", **words, eval_samples=16, eval_metrics="logits").assumptions()


def test_generation_is_a_moment_where_an_engine_generates_on_this_card():
    body = {"model": "qwen3-8b", "method": "lora", "gpu": "h100-80gb"}
    grpo = {"objective": {"type": "grpo"}, "rollout": {"engine": "vllm"}, "micro_batch_size": 4}
    (found,) = memory_answer(body | {"recipe": grpo})["estimates"]
    rows = {row["moment"]: row for row in found["moments"]}
    assert list(rows) == ["loading", "step", "rollout", "saving"]
    engine, trainer = found["iteration"]["engine"], found["iteration"]["phases"][1]["trainer_bytes"]
    least = engine["weights_bytes"] + engine["profile_bytes"] + engine["kv_bytes_per_sequence"]
    assert rows["rollout"]["allocated_bytes"] == trainer + least > rows["step"]["allocated_bytes"]
    assert rows["rollout"]["needed_bytes"][1] - rows["rollout"]["needed_bytes"][0] == 2 * 2**30  # CUDA graphs
    (elsewhere,) = memory_answer(body | {"recipe": grpo | {"rollout": {"engine": "server"}}})["estimates"]
    assert "rollout" not in [row["moment"] for row in elsewhere["moments"]]


def test_an_engine_has_to_fit_beside_every_moment():
    words = {
        "objective": "grpo",
        "rollout": "vllm",
        "gpu_memory_utilization": 0.95,
        "sleep_level": 0,
        "loss": "fused_head",
    }
    (found,) = memory_answer(
        {
            "model": "llama-3.2-1b",
            "method": "lora",
            "gpu": "rtx-4090",
            "recipe": merged_recipe({**words, "eval_samples": 8}),
        }
    )["estimates"]
    assert {row["fits"][0]["verdict"] for row in found["moments"]} == {"does_not_fit"} == {found["fits"][0]["verdict"]}
    assert found["iteration"]["phases"][-1]["phase"] == "evaluation"


def test_a_fused_head_makes_no_logits_in_an_evaluation_either():
    words = {"eval_samples": 64, "eval_batch_size": 8}
    whole, fused, liger = (estimate("llama-3.1-8b", "lora", loss=loss, **words).evaluation.allocated_bytes
                           for loss in ("full", "fused_head", "fused"))  # fmt: skip
    assert fused < whole / 1.5 and liger == whole  # Liger makes logits where it does not learn
    assert (
        estimate("llama-3.1-8b", "lora", loss="fused", stack={"trl": "1.10"}, **words).evaluation.allocated_bytes
        < whole / 1.5
    )
