"""One steady-state training step on the fake GPU, every storage followed."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from loralens.core.recipe import Recipe
from loralens.lab.trace import build, cuda_on_cpu, families, kernels, optimizers, quantize
from loralens.lab.trace.ledger import Ledger


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Releases must come from reference counts alone, else the trace depends on when the collector runs."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _transformers_as_eager() -> Iterator[None]:
    """transformers takes other paths when it sees fake tensors; a real step takes the eager ones."""
    from transformers import masking_utils
    from transformers.utils import import_utils

    before = (import_utils.is_fake_tensor, masking_utils.find_packed_sequence_indices)
    import_utils.is_fake_tensor = lambda _tensor: False
    masking_utils.find_packed_sequence_indices = lambda _position_ids: None  # the batch is not packed by positions
    try:
        yield
    finally:
        import_utils.is_fake_tensor, masking_utils.find_packed_sequence_indices = before


def run(config: Any, method: str, recipe: Recipe) -> tuple[Ledger, torch.nn.Module, dict[str, int]]:
    """Build, warm the optimizer up, run one step; the ledger holds all that happened."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    cuda_on_cpu.install()
    kernels.install()
    meta = build.build_on_meta(config, recipe)
    model = build.adapt(meta, method, recipe)
    model.train()
    counts = count(model)
    ledger = Ledger()
    kernels.equip(ledger)
    quantize.equip(ledger)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(cuda_on_cpu.cuda_words())
        stack.enter_context(_transformers_as_eager())
        stack.enter_context(_quiet_collector())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(ledger)
        build.to_fake_gpu(model, ledger, adapted=method != "full", dtype=build.DTYPES[recipe.weights_dtype])
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = optimizers.make(recipe.optimizer, trained)
        _warm_up(optimizer, trained, ledger)
        ledger.owners.follow(model)
        try:
            _step(model, config, optimizer, trained, recipe, ledger)
        finally:
            ledger.owners.stop()
    classify(ledger, model)
    return ledger, model, counts


def count(model: torch.nn.Module) -> dict[str, int]:
    """Parameter counts as PEFT's `get_nb_trainable_parameters` reports them (packed weights unpacked, ties once)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"trainable": sum(n for n, trained in sizes if trained), "total": sum(n for n, _ in sizes)}


def _warm_up(optimizer: Any, trained: list[torch.nn.Parameter], ledger: Ledger) -> None:
    """One update with made-up gradients, so that the optimizer's states exist before the step that counts."""
    with ledger.naming("optimizer_state", "optimizer"):
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    gc.collect()


def _step(model: Any, config: Any, optimizer: Any, trained: list[Any], recipe: Recipe, ledger: Ledger) -> None:
    with ledger.naming("input", "batch"):
        batch = families.inputs(config, recipe.micro_batch_size, recipe.sequence_length, padded=recipe.padded)
    for _ in range(min(recipe.gradient_accumulation_steps, 2)):  # every micro-step after the first is alike
        ledger.begin("forward")
        loss = _loss(model, batch, recipe)
        ledger.begin("backward")
        loss.backward()
        del loss
        for parameter in trained:
            if parameter.grad is not None:
                index = ledger.live_index(parameter.grad)
                if index is not None and not ledger.storages[index].kind:
                    ledger.storages[index].kind = "gradient"
    ledger.begin("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _loss(model: Any, batch: dict[str, torch.Tensor], recipe: Recipe) -> torch.Tensor:
    with ExitStack() as stack:
        if recipe.autocast is not None:
            stack.enter_context(torch.autocast("cuda", dtype=build.DTYPES[recipe.autocast]))
        return model(**batch).loss


def classify(ledger: Ledger, model: torch.nn.Module) -> None:
    """Name the kind of every storage that the step itself made."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    vocabulary = head.weight.shape[0] if head is not None and hasattr(head, "weight") else -1
    shapes = {tuple(p.shape) for p in model.parameters()}
    for storage in ledger.storages:
        if storage.kind:
            continue
        copied = storage.op.startswith("aten._to_copy") and storage.shape in shapes
        if len(storage.shape) > 1 and storage.shape[-1] == vocabulary and storage.shape not in shapes:
            storage.kind = "logits"
        elif storage.phase == "forward":
            storage.kind = "weight_copy" if copied else "activation"
        elif storage.phase == "backward" and storage.recomputed:
            storage.kind = "weight_copy" if copied else "recomputed"
        else:
            storage.kind = "optimizer_temporary" if storage.phase == "optimizer" else "backward_temporary"
