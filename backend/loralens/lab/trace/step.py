"""One steady-state training step on the fake GPU, every storage followed."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.parallelism import Parallelism
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import (
    build,
    cuda_on_cpu,
    families,
    kernels,
    limits,
    loops,
    media,
    media_batch,
    optimizers,
    quantize,
    shares,
)
from loralens.lab.trace.foreign import Foreign
from loralens.lab.trace.ledger import TraceLedger

Loss = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Releases must come from reference counts alone, else the trace depends on when the collector runs.

    What exists already (the libraries' hundreds of thousands of objects) is set aside, so that collecting is quick.
    """
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


@contextmanager
def _transformers_as_eager(config: Any) -> Iterator[None]:
    """transformers takes other paths when it sees fake tensors; a real step takes the eager ones.

    A decoder behind an encoder makes a mask of ones for its own tokens, which transformers leaves out when it has read it.
    """
    from transformers import masking_utils
    from transformers.utils import import_utils

    names = ("find_packed_sequence_indices", "_ignore_causal_mask_sdpa")
    before = (import_utils.is_fake_tensor, *(getattr(masking_utils, name) for name in names))
    import_utils.is_fake_tensor = lambda _tensor: False
    masking_utils.find_packed_sequence_indices = lambda _position_ids: None  # the batch is not packed by positions
    ignores = masking_utils._ignore_causal_mask_sdpa
    if config.is_encoder_decoder:
        masking_utils._ignore_causal_mask_sdpa = lambda _mask, *rest: ignores(None, *rest)
    if (
        config.model_type == "deberta"
    ):  # a number that its code puts into a tensor to cut with, where a fake one is lost
        from transformers.models.deberta import modeling_deberta

        modeling_deberta.compute_attention_span = lambda q, k, most: min(max(q.size(-2), k.size(-2)), most)
    try:
        yield
    finally:
        import_utils.is_fake_tensor = before[0]
        for name, original in zip(names, before[1:], strict=True):
            setattr(masking_utils, name, original)


def run(
    config: Any,
    method: str,
    recipe: Recipe,
    loss_of: Loss | None = None,
    act: Callable[[Any], None] | None = None,
    *,
    ledger: TraceLedger | None = None,
    shared: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
    stepping: type[TracedStep] | None = None,
) -> tuple[TraceLedger, dict[str, int]]:
    """Build, warm the optimizer up, run one step; the ledger holds all that happened.

    `config`: a transformers config, or a `Foreign` model.

    `loss_of`: the training loop's own way from model and batch to the loss (`loops`). `act`: what is done in place of a step.
    `ledger`, `shared` and `stepping`: where to book, what several GPUs do to the model, and how the loop goes then (`ranks`).
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    limits.check(method, recipe if shared is None else replace(recipe, parallelism=Parallelism()))
    pictures = media.media_of(config, recipe)
    cuda_on_cpu.install()
    kernels.install()
    kernels.trace_on(recipe.accelerator)
    ledger = TraceLedger() if ledger is None else ledger
    kernels.equip(ledger)
    quantize.equip(ledger)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_quiet_collector())
        stack.enter_context(quantize.dequantized_for_peft())
        with _said_plainly("the real libraries cannot build this model"):
            if isinstance(config, Foreign):
                model = config.adapted(method, recipe)
            else:
                model = build.adapt(build.build_on_meta(config, recipe), method, recipe)
        model.train()
        counts = count(model)
        ledger.parameters = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
        stack.enter_context(cuda_on_cpu.cuda_words())
        stack.enter_context(_transformers_as_eager(config))
        stack.enter_context(shares.equal_shares(config))
        stack.enter_context(optimizers.bitsandbytes_on_fakes())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        # in this thread: autograd's own still holds Python objects when its work is done, and a process that ends
        # just then is aborted
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(ledger)
        build.to_fake_gpu(model, ledger, adapted=method != "full", dtype=build.DTYPES[recipe.weights_dtype])
        ledger.owners.follow(model)
        model = model if shared is None else shared(model)
        stack.enter_context(media.told(model, pictures))
        try:
            with _said_plainly("the real model refuses this step"):
                made = (stepping or TracedStep)(model, config, recipe, ledger, loss_of, pictures)
                (act or type(made).run)(made)
        finally:
            ledger.owners.stop()
    classify(ledger, model)
    return ledger, counts


@contextmanager
def _said_plainly(what: str) -> Iterator[None]:
    """What other people's model code raises on a config that does not fit together, as an error of ours."""
    try:
        yield
    except LoraLensError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, ImportError) as problem:
        text = (str(problem).strip() or "no message").splitlines()[0]
        raise InvalidInput(
            f"{what}: {type(problem).__name__}: {text:.200}",
            field="config",
            hint="loralens memory may still compute it",
        ) from problem


def count(model: torch.nn.Module) -> dict[str, int]:
    """Parameters as PEFT counts them: ties once, packed weights as what they stand for (still unpacked here)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"trainable": sum(n for n, trained in sizes if trained), "total": sum(n for n, _ in sizes)}


class TracedStep:
    """The training loop of one step, with the recipe's switches."""

    def __init__(
        self,
        model: Any,
        config: Any,
        recipe: Recipe,
        ledger: TraceLedger,
        loss_of: Loss | None,
        pictures: media_batch.MediaInputs | None,
    ) -> None:
        self.model = model
        own = config.loss if isinstance(config, Foreign) else loops.PlainLoop(keeps=recipe.keep_outputs)
        self.loss_of: Loss = loss_of or own
        self.recipe = recipe
        self.ledger = ledger
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.scaler: Any = None
        if recipe.autocast == "float16" and all(p.dtype == torch.float32 for p in self.trained):
            with ledger.naming("optimizer_state", "scaler"):
                self.scaler = torch.amp.GradScaler("cuda")
                self.scaler._lazy_init_scale_growth_tracker(torch.device("cuda"))
        self.optimizers: list[Any] = []
        if recipe.optimizer_in_backward:
            for parameter in self.trained:
                self.optimizers.append(optimizers.make(recipe.optimizer, [parameter]))
        else:
            self.optimizers.append(self._optimizer())
        with ledger.naming("input", "batch"):
            # autocast takes float32 pictures as a collator makes them; without it they must have the weights' dtype
            dtype = torch.float32 if recipe.autocast else build.DTYPES[recipe.weights_dtype]
            self.batch = config.batch(recipe, dtype) if isinstance(config, Foreign) else _tokens(config, recipe, dtype)
            if pictures is not None:
                self.batch |= pictures.tensors(dtype)
        self._warm_up(self.trained if families.reaches_all(config) else self._reached())
        if recipe.optimizer_in_backward:
            self._step_in_backward()

    def _optimizer(self) -> Any:
        return optimizers.make(self.recipe.optimizer, self.trained)

    def _reached(self) -> list[torch.Tensor]:
        """The parameters that get a gradient: a tower has none where no sample holds a picture, nor layers that nobody reads."""
        self._loss().backward()
        reached = [parameter for parameter in self.trained if parameter.grad is not None]
        for parameter in reached:
            parameter.grad = None
        return reached

    def _warm_up(self, reached: list[torch.Tensor]) -> None:
        """One update with made-up gradients, so that the optimizer's states exist before the step that counts."""
        with self.ledger.naming("optimizer_state", "optimizer"):
            for parameter in reached:
                parameter.grad = torch.empty_like(parameter)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        gc.collect()

    def _step_in_backward(self) -> None:
        for parameter, optimizer in zip(self.trained, self.optimizers, strict=True):

            def update(parameter: torch.Tensor, optimizer: Any = optimizer) -> None:
                self._mark_gradient(parameter)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            parameter.register_post_accumulate_grad_hook(update)

    def run(self) -> None:
        """One step; a loop that keeps its output takes a second one, in whose forward pass the first one's output is alive."""
        for _ in range(2 if self.recipe.keep_outputs else 1):
            self._once()

    def _once(self) -> None:
        """Forward, backward (twice when gradients accumulate: every later micro-step is like the second), update."""
        count = min(self.recipe.gradient_accumulation_steps, 2)
        for number in range(count):
            self._micro_batch(last=number == count - 1)
        self.ledger.begin("optimizer")
        if not self.recipe.optimizer_in_backward:
            self._update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _micro_batch(self, *, last: bool) -> None:
        self.ledger.begin("forward")
        loss = self._loss()
        self.ledger.begin("backward")
        loss.backward()
        del loss
        for parameter in self.trained:
            self._mark_gradient(parameter)

    def _loss(self) -> torch.Tensor:
        with ExitStack() as stack:
            if self.recipe.autocast is not None:
                stack.enter_context(torch.autocast("cuda", dtype=build.DTYPES[self.recipe.autocast]))
            loss = self.loss_of(self.model, self.batch)
        if self.recipe.gradient_accumulation_steps > 1:
            loss = loss / self.recipe.gradient_accumulation_steps
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _update(self) -> None:
        (optimizer,) = self.optimizers
        if self.scaler is not None and self.recipe.max_grad_norm is not None:
            self.scaler.unscale_(optimizer)
        if self.recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.max_grad_norm)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def _mark_gradient(self, parameter: torch.Tensor) -> None:
        if parameter.grad is None:
            return
        index = self.ledger.live_index(parameter.grad)
        if index is not None and not self.ledger.storages[index].kind:
            self.ledger.storages[index].kind = "gradient"


def _tokens(config: Any, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    return families.inputs(
        config,
        recipe.micro_batch_size,
        recipe.sequence_length,
        padded=recipe.padded,
        dtype=dtype,
        head=build.head_for(config, recipe),
    )


def classify(ledger: TraceLedger, model: torch.nn.Module) -> None:
    """Name the kind of every storage that the step itself made."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    head = getattr(head, "original_module", head)  # what PEFT wrapped: the wrapper's `weight` would be computed
    vocabulary = head.weight.shape[0] if head is not None and hasattr(head, "weight") else -1
    shapes = {tuple(p.shape) for p in model.parameters()}
    for storage in ledger.storages:
        if storage.kind:
            continue
        copied = storage.op.startswith("aten._to_copy") and storage.shape in shapes
        if storage.phase == "optimizer":
            storage.kind = "optimizer_temporary"
        elif len(storage.shape) > 1 and storage.shape[-1] == vocabulary and storage.shape not in shapes:
            storage.kind = "logits"
        elif storage.phase == "forward":
            storage.kind = "weight_copy" if copied else "activation"
        elif storage.phase == "backward" and storage.recomputed:
            storage.kind = "weight_copy" if copied else "recomputed"
        else:
            storage.kind = "backward_temporary"
