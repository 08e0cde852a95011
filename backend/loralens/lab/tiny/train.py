"""Deterministic training: tokens in, one `Step` per optimizer step out.

    tokens = encode_text(corpus.text("train"))                       # (count,) int64
    trainer = Trainer(model, tokens, TrainConfig(steps=300, seed=0))
    for step in trainer.steps():                                     # Step(step=1, loss=..., tokens=..., seconds=...)
        ...
    state = trainer.state(); trainer.load_state(state)               # weights, moments, generator, step: all tensors
    evaluate(model, windows)                                         # Evaluation(loss, accuracy, tokens)
    windows = held_out_windows(text, count=24, length=128)           # fixed windows spread over held-out text

Batches are drawn by a generator of the trainer's own, so nothing else that draws random numbers changes a run; the
same seed, thread count and machine give the same bits. After a short warm-up the learning rate is constant (unless
`decay`), so a longer run starts as the shorter one did.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from loralens.core.errors import InvalidInput
from loralens.lab.tiny.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class TrainConfig:
    """How to train; `mix` is the share of each batch drawn from the second token source, if there is one."""

    steps: int = 300
    batch_size: int = 16
    sequence_length: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    warmup_steps: int = 10
    decay: bool = False
    max_gradient_norm: float = 1.0
    seed: int = 0
    mix: float = 0.0


@dataclass(frozen=True)
class FinishedStep:
    """One finished optimizer step: its training loss in nats per token, tokens seen and wall time."""

    step: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class HeldOutScore:
    """Held-out loss in nats per token and share of next tokens that were the model's first choice."""

    loss: float
    accuracy: float
    tokens: int


def encode_text(text: str, tokenizer: Tokenizer | None = None) -> Tensor:
    """Token ids of a text, (count,) int64."""
    return torch.tensor((tokenizer or load_tokenizer()).encode(text), dtype=torch.int64)


def draw_batch(tokens: Tensor, batch_size: int, length: int, generator: torch.Generator) -> Tensor:
    """Random windows of `length` + 1 tokens, (batch_size, length + 1): inputs and, shifted by one, targets."""
    if len(tokens) <= length + 1:
        raise InvalidInput(
            f"{len(tokens)} tokens are too few for windows of {length + 1}", field="sequence_length", hint="shorten it"
        )
    starts = torch.randint(len(tokens) - length, (batch_size,), generator=generator)
    return tokens[starts[:, None] + torch.arange(length + 1)]


def held_out_windows(tokens: Tensor, *, count: int, length: int) -> Tensor:
    """Up to `count` non-overlapping windows spread evenly over the tokens, (count, length + 1)."""
    fitting = len(tokens) // (length + 1)
    if fitting < 1:
        raise InvalidInput(f"{len(tokens)} held-out tokens are too few for one window of {length + 1}", field="text")
    count = min(count, fitting)
    starts = torch.div(torch.arange(count) * fitting, count, rounding_mode="floor") * (length + 1)
    return tokens[starts[:, None] + torch.arange(length + 1)]


def language_loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean next-token cross entropy in nats. Shapes: windows (batch, length + 1)."""
    logits = model(windows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: nn.Module, windows: Tensor, *, batch_size: int = 32) -> HeldOutScore:
    """Mean loss and accuracy over all windows; no randomness, no change to the model."""
    loss, hits, count = 0.0, 0, 0
    for part in torch.split(windows, batch_size):
        logits = model(part[:, :-1]).flatten(0, 1)
        targets = part[:, 1:].flatten()
        loss += functional.cross_entropy(logits, targets, reduction="sum").item()
        hits += int((logits.argmax(-1) == targets).sum().item())
        count += targets.numel()
    return HeldOutScore(loss / count, hits / count, count)


class Trainer:
    """AdamW over the model's trainable parameters; stops, saves and goes on at any step boundary."""

    def __init__(self, model: nn.Module, tokens: Tensor, config: TrainConfig, *, second: Tensor | None = None) -> None:
        self.model = model
        self.config = config
        self.step = 0
        self._sources = (tokens, second)
        self._generator = torch.Generator().manual_seed(config.seed)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def learning_rate(self, step: int) -> float:
        """Rate of the optimizer step numbered from 1."""
        config = self.config
        rate = config.learning_rate * min(1.0, step / max(1, config.warmup_steps))
        if config.decay:
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, config.steps)))) * 0.95 + 0.05
        return rate

    def batch(self) -> Tensor:
        """The next batch, (batch_size, sequence_length + 1); advances the generator."""
        config = self.config
        first, second = self._sources
        others = round(config.batch_size * config.mix) if second is not None else 0
        parts = [draw_batch(first, config.batch_size - others, config.sequence_length, self._generator)]
        if second is not None and others:
            parts.append(draw_batch(second, others, config.sequence_length, self._generator))
        return torch.cat(parts)

    def advance(self) -> FinishedStep:
        """One optimizer step."""
        started = time.perf_counter()
        windows = self.batch()
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        loss = language_loss(self.model, windows)
        if any(p.numel() for p in self.parameters.values()):
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        return FinishedStep(self.step, value, windows[:, 1:].numel(), time.perf_counter() - started)

    def steps(self, until: int | None = None) -> Iterator[FinishedStep]:
        """Steps up to number `until` (default: the config's)."""
        last = self.config.steps if until is None else until
        while self.step < last:
            yield self.advance()

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, as tensors for a safetensors file."""
        state = {f"parameter.{name}": p.detach().clone() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{key}.{name}"] = value.detach().clone()
        state["generator"] = self._generator.get_state()
        state["step"] = torch.tensor(self.step)
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken; the next step is then the same to the bit.

        Raises: InvalidInput when the state belongs to other parameters.
        """
        names = {key.removeprefix("parameter.") for key in state if key.startswith("parameter.")}
        if names != self.parameters.keys():
            raise InvalidInput("the saved training state belongs to another model", field="checkpoint")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"parameter.{name}"])
        self.optimizer.state.clear()
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                entry, _, name = rest.partition(".")
                parameter = self.parameters[name]
                self.optimizer.state[parameter][entry] = value.to(parameter.device, copy=True)
        self._generator.set_state(state["generator"])
        self.step = int(state["step"].item())


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operations on one thread inside the block.

    A model this small is not faster on two threads, and its sums then do not depend on the number of cores. The
    setting is the process's, so no caller is left with it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generate(
    model: nn.Module, ids: Sequence[int], *, tokens: int, temperature: float = 0.0, seed: int = 0
) -> Iterator[int]:
    """Token ids that continue `ids`, one at a time; temperature 0 takes the most likely one.

    `model` is a TinyLM (with or without adapters): its `step` keeps the keys and values of the past.
    """
    generator = torch.Generator().manual_seed(seed)
    cache = None
    block = torch.tensor([list(ids)], dtype=torch.int64)
    if block.numel() == 0:
        raise InvalidInput("the prompt is empty", field="prompt", hint="type a few words")
    for _ in range(tokens):
        with torch.no_grad():
            logits, cache = model.step(block, cache)  # type: ignore[operator]
        if temperature > 0:
            share = torch.softmax(logits[0] / temperature, dim=-1)
            chosen = int(torch.multinomial(share, 1, generator=generator).item())
        else:
            chosen = int(logits[0].argmax().item())
        yield chosen
        block = torch.tensor([[chosen]])
