"""One real training step: transformers builds the model, PEFT adapts it, the device runs it."""

from __future__ import annotations

import datetime
import platform
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch

from loralens.core.answer.card import workspace_bytes
from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.trainer import trained
from loralens.core.architecture.heads import EMBEDDING
from loralens.core.errors import DeviceUnavailable, InvalidInput, OutOfMemory
from loralens.core.question.model import Model, resolve
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import WORD, Recipe
from loralens.extras import needing
from loralens.lab.measure.critic import Critic
from loralens.lab.measure.materialize import materialize
from loralens.lab.measure.meters import Meter, meter_for
from loralens.lab.measure.objectives import PAIRS, LearnersStep, Phase, refuse_unmeasured
from loralens.lab.trace.quantize import hush_bitsandbytes

CPU_LIMIT: Final = 8 * 2**30  # assumption: a step on the CPU is for small models; larger ones are traced instead
LIBRARIES: Final = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured step beside its computed one. Sizes in bytes, per phase and at the peak."""

    row: dict[str, Any]
    predicted_bytes: int
    predicted_phases: dict[str, int]

    @property
    def error(self) -> float:
        """(computed - measured) / measured."""
        return self.predicted_bytes / int(self.row["peak_bytes"]) - 1


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one, else the CPU; raises `DeviceUnavailable`."""
    wanted = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if wanted not in ("cpu", "cuda"):
        raise InvalidInput(f"device must be cpu or cuda, got {wanted!r:.40}", field="device")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "no CUDA device here", hint="loralens trace needs none; or --device cpu for a small model"
        )
    return torch.device(wanted)


def measure(model: Model, method: str, recipe: Recipe, device: str | None = None) -> Measured:
    """Run one steady-state step and read the device's own figures.

    Raises:
        DeviceUnavailable: the device is not in this machine.
        InvalidInput: a recipe that cannot be run as a single process, or too large for the CPU.
        OutOfMemory: the device ran out of memory.
        DependencyMissing: transformers, PEFT or bitsandbytes is not installed.
    """
    chosen = pick_device(device)
    recipe = trained(model, method, recipe)
    found = estimate_model(model, method, recipe)
    recipe = replace(recipe, objective=found.recipe.objective)  # with the reference that it chose
    if recipe.parallelism.gpus > 1:
        raise InvalidInput("measure runs one process on one device", field="parallelism.gpus", hint="try gpus=1")
    refuse_unmeasured(recipe)
    if recipe.loss != "full":
        raise InvalidInput(
            f"loss={recipe.loss} has no implementation to measure here", field="loss", hint="try loss=full"
        )
    if chosen.type == "cpu" and found.allocated_bytes > CPU_LIMIT:
        raise InvalidInput(
            f"{found.allocated_bytes / 2**30:.1f} GiB is too much for a step on the CPU (limit {CPU_LIMIT // 2**30} GiB)",
            field="device",
            hint="loralens trace measures without allocating; or take a smaller model, batch or length",
        )
    try:
        meter = _run(model.config, method, recipe, chosen)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory("the device ran out of memory", hint="loralens fit says what makes it smaller") from error
    row = _row(model, method, recipe, chosen, meter)
    extra = workspace_bytes(row["gpu"]) if chosen.type == "cuda" else 0
    # a pass before training is no part of the step
    phases = {name: size + extra for name, size in found.phases.items() if name in row["phases"]}
    return Measured(row, max(phases.values()), phases)


def _run(config: Mapping[str, Any], method: str, recipe: Recipe, device: torch.device) -> Meter:
    hush_bitsandbytes()
    with needing("trace", "measuring"):
        import peft  # noqa: F401
        import transformers  # noqa: F401

    meter = meter_for(device)
    with ExitStack() as stack:
        stack.enter_context(meter.watching())
        prepared = prepare(config, method, recipe, device)
        for counted in (False, True):  # the first step makes the optimizer's states and the workspaces
            prepared.step(meter if counted else None)
    return meter


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A model with its optimizer and its batch, ready to step."""

    network: Any
    optimizer: Any
    trained: list[Any]
    batch: Any
    recipe: Recipe
    device: torch.device
    loss_of: Any
    learner: LearnersStep | None = None  # of another objective than supervised fine-tuning

    def step(self, meter: Meter | None = None) -> None:
        """Forward, backward, optimizer."""
        with warnings.catch_warnings():  # the libraries' words to each other, about what they will rename
            warnings.simplefilter("ignore")
            if self.learner is not None:
                _learn(self.learner, self.optimizer, self.trained, self.batch, meter)
            else:
                _step(
                    self.network,
                    self.optimizer,
                    self.trained,
                    self.batch,
                    self.recipe,
                    self.device,
                    meter,
                    self.loss_of,
                )


def prepare(config: Mapping[str, Any], method: str, recipe: Recipe, device: torch.device) -> PreparedStep:
    """Build a model with random weights on a device."""
    with needing("trace", "measuring"):
        from loralens.lab.trace import build, loops, optimizers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = build.read_config(config)
        rows = 2 if recipe.objective.type in PAIRS else 1
        asked = recipe
        recipe = replace(recipe, micro_batch_size=recipe.micro_batch_size * rows)
        recipe = replace(recipe, head="reward", num_labels=1) if recipe.objective.type == "reward" else recipe
        recipe = replace(recipe, head=EMBEDDING) if recipe.objective.type == "contrastive" else recipe
        network = materialize(build.adapt(build.build_on_meta(settings, recipe), method, recipe), device, recipe)
        network.train()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = optimizers.make(recipe.optimizer, trained)
        batch = _batch(settings, recipe, device)
        learner = None
        if recipe.objective.type != "sft":
            batch.pop("labels")
            critic = Critic.made(config, asked, device) if asked.objective.type == "ppo" else None
            learner = LearnersStep(network, _beside(config, asked, device), asked, device, critic)
    loop = loops.PlainLoop(keeps=recipe.keep_outputs)
    return PreparedStep(network, optimizer, trained, batch, recipe, device, loop, learner)


def _beside(config: Mapping[str, Any], recipe: Recipe, device: torch.device) -> Any:
    """The model that does not learn: a reference's copy, or a teacher."""
    from loralens.lab.trace import build, quantize

    if recipe.objective.type == "distillation":
        teacher = recipe.teacher
        config = resolve(WORD["teacher"].kind.shown(teacher.model)).config
        words = replace(recipe, weights_dtype=teacher.weights_dtype)
        packing = None if teacher.quantization is None else Quantization(type=teacher.quantization)
    elif recipe.objective.reference == "copy":
        words, packing = recipe, recipe.quantization
    else:
        return None
    made = build.build_on_meta(build.read_config(config), words)
    if packing is not None:
        quantize.quantize(made, packing)
    return materialize(made, device, words).requires_grad_(False)


def _learn(learner: LearnersStep, optimizer: Any, trained: list[Any], batch: Any, meter: Any) -> None:
    def phase(name: str) -> Any:
        return meter.phase(name) if meter is not None else ExitStack()

    loss = learner.loss(batch, phase)
    with phase("backward"):
        loss.backward()
    del loss
    _update(optimizer, trained, learner.recipe, phase)


def _step(
    network: Any,
    optimizer: Any,
    trained: list[Any],
    batch: Any,
    recipe: Recipe,
    device: torch.device,
    meter: Any,
    loss_of: Any,
) -> None:
    def phase(name: str) -> Any:
        return meter.phase(name) if meter is not None else ExitStack()

    with phase("forward"), ExitStack() as stack:
        if recipe.autocast is not None:
            stack.enter_context(torch.autocast(device.type, dtype=getattr(torch, recipe.autocast)))
        loss = loss_of(network, batch)
    with phase("backward"):
        loss.backward()
    del loss
    _update(optimizer, trained, recipe, phase)


def _update(optimizer: Any, trained: list[Any], recipe: Recipe, phase: Phase) -> None:
    with phase("optimizer"):
        if recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _batch(settings: Any, recipe: Recipe, device: torch.device) -> dict[str, torch.Tensor]:
    shape = (recipe.micro_batch_size, recipe.sequence_length)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, settings.vocab_size, shape, generator=generator).to(device)
    batch = {"input_ids": tokens, "labels": tokens.clone()}
    if recipe.padded:
        mask = torch.ones(shape, dtype=torch.int64, device=device)
        mask[:, -1] = 0
        batch["attention_mask"] = mask
    return batch


def _row(model: Model, method: str, recipe: Recipe, device: torch.device, meter: Meter) -> dict[str, Any]:
    peaks = meter.peaks()
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return {
        "id": f"own-{model.id}-{method}-{recipe.micro_batch_size}x{recipe.sequence_length}",
        "model": model.id if model.id != "custom" else None,
        "config": dict(model.config),
        "method": method,
        "recipe": recipe.to_dict(),
        "gpu": card,
        "metric": "allocated",
        "peak_bytes": max(peaks.values()),
        "phases": peaks,
        "scratch_bytes": meter.scratch_bytes(),
        "reserved_bytes": meter.reserved_bytes(),
        "confidence": "own",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "software": versions,
        "source": "own measurement",
    }
