"""LitGPT's and torchtune's steps as the engine walks them, against small models of the same structure run by real torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack

import pytest

torch = pytest.importorskip("torch")

from lab.trace.framework_models import LitModel, TuneLayer, TuneModel, adapted, lit_step, old_tune_step, tune_step  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from loralens.core.answer.estimate import estimate_model  # noqa: E402
from loralens.core.question.model import resolve  # noqa: E402
from loralens.core.question.recipe import Recipe  # noqa: E402
from loralens.lab.trace import build, cuda_on_cpu, kernels, peaks  # noqa: E402
from loralens.lab.trace.ledger import TraceLedger  # noqa: E402
from loralens.lab.trace.step import _quiet_collector  # noqa: E402

SHAPE = {"hidden": 512, "heads": 8, "kv_heads": 8, "inner": 1376, "layers": 5, "vocabulary": 3000}
BATCH, LENGTH = 2, 384


def config(**changes: int) -> dict[str, object]:
    shape = {**SHAPE, **changes}
    return {
        "model_type": "llama",
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["inner"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "vocab_size": shape["vocabulary"],
        "tie_word_embeddings": False,
    }


def estimated(method: str, framework: str, config_: dict[str, object], **words: object):
    recipe = {
        "micro_batch_size": BATCH,
        "sequence_length": LENGTH,
        "autocast": None,
        "optimizer": "sgd",
        "gradient_checkpointing": False,
        "stack": {"framework": framework},
        **words,
    }
    return estimate_model(resolve(config=config_), method, Recipe.from_mapping(recipe))


def traced(make: Callable[[], torch.nn.Module], step: Callable[..., None]) -> dict[str, int]:
    """Phase peaks of one step of a model whose trained weights are the only ones with a gradient."""
    kernels.install()
    ledger = TraceLedger()
    kernels.equip(ledger)
    with torch.device("meta"):
        model = make().train()
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
        if isinstance(model, LitModel):
            parameter.requires_grad_("lora" in name)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_quiet_collector())
        stack.enter_context(cuda_on_cpu.cuda_words())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(ledger)
        build.to_fake_gpu(model, ledger, adapted=False, dtype=torch.bfloat16)
        tokens, labels = (torch.empty(BATCH, LENGTH, dtype=torch.int64, device="cuda") for _ in range(2))
        ledger.begin("backward")
        step(model, tokens, labels)
    return {phase: moment.live_bytes for phase, moment in peaks.phase_peaks(ledger).items()}


def test_litgpt_lora():
    own = estimated(
        "lora",
        "litgpt",
        config(),
        lora={"rank": 8, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"], "adapter_dtype": "bfloat16"},
    )
    found = traced(lambda: LitModel(SHAPE, LENGTH, 8, 0.05), lit_step)
    assert own.allocated_bytes == pytest.approx(found["backward"], rel=0.001)


@pytest.mark.parametrize(("loss", "chunks"), [("full", 1), ("chunked", 8)])
def test_torchtune_full(loss, chunks):
    own = estimated("full", "torchtune", config(kv_heads=2), loss=loss)
    found = traced(lambda: TuneModel({**SHAPE, "kv_heads": 2}, LENGTH), lambda *args: tune_step(*args, chunks))
    assert own.allocated_bytes == pytest.approx(found["backward"], rel=0.001)


def test_torchtune_before_it_deleted_logits():
    own = estimated("full", "torchtune", config(kv_heads=2), stack={"torchtune": "0.2"})
    found = traced(lambda: TuneModel({**SHAPE, "kv_heads": 2}, LENGTH), old_tune_step)
    assert own.allocated_bytes == pytest.approx(found["backward"], rel=0.005)


def kept_by_partitioner(layer: TuneLayer, x: torch.Tensor, cache: torch.Tensor) -> int:
    """Bytes that a compiled layer keeps beside its inputs: torch's own partitioner decides, on a real CPU."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), x, cache)}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    compiled = torch.compile(layer, backend="aot_eager_decomp_partition")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = compiled(x, cache)
    del result
    return sum(kept.values())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_compiled_layer_keeps_what_the_partitioner_keeps(method):
    shape = {"hidden": 64, "heads": 4, "kv_heads": 2, "inner": 160, "vocabulary": 500}
    batch, length, rank = 2, 96, 4
    x = torch.randn(batch, length, shape["hidden"], dtype=torch.bfloat16, requires_grad=True)
    cache = torch.randn(length, shape["hidden"] // shape["heads"] // 2, 2)
    layer = TuneLayer(64, 4, 2, 160)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = kept_by_partitioner((layer if method == "full" else adapted(layer, rank)).bfloat16(), x, cache)
    forward = []
    for layers in (6, 7):
        found = estimated(
            method,
            "torchtune",
            config(**shape, layers=layers),
            micro_batch_size=batch,
            sequence_length=length,
            compile=True,
            lora={
                "rank": rank,
                "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                "adapter_dtype": "bfloat16",
            },
        )
        forward.append(found.phases["forward"] - 2 * found.total_parameters)
    layer_input, random_state = x.numel() * 2, 24
    assert forward[1] - forward[0] == kept + layer_input + random_state
