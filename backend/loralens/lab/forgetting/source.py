"""The base model and the texts that every run starts from.

`tiny_source` is our own small model; `real.real_source` any causal language model of transformers. A run never copies
weights that it does not train: the runs share the base's frozen tensors, as adapters on one base do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loralens.lab.forgetting.plan import Arm, Design
from loralens.lab.tiny.corpus import Corpus
from loralens.lab.tiny.lora import inject_lora
from loralens.lab.tiny.model import TinyLM
from loralens.lab.tiny.train import TrainConfig, Trainer, encode_text, held_out_windows


@dataclass(frozen=True)
class TokenTexts:
    """Tokens to train on and windows to measure on; validation chooses rates, test gives the figures."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True)
class ExperimentSource:
    """A frozen base model, its linear layers' names, the old text and the new one."""

    base: nn.Module
    linear_names: tuple[str, ...]
    config: Mapping[str, object]
    old: TokenTexts
    new: TokenTexts
    device: str = "cpu"

    def trainer(self, arm: Arm, *, learning_rate: float, seed: int, plan: Design) -> Trainer:
        """A fresh run of `arm`: same base, same seed, same batches of new text for every arm."""
        config = TrainConfig(
            steps=plan.steps,
            batch_size=plan.batch_size,
            sequence_length=plan.sequence_length,
            learning_rate=learning_rate,
            warmup_steps=min(8, plan.steps),
            seed=seed,
            mix=arm.mix,
        )
        return Trainer(self.adapted(arm, seed), self.new.train, config, second=self.old.train)

    def adapted(self, arm: Arm, seed: int) -> nn.Module:
        """The base with the arm's trainable weights: own copies of these, the rest shared."""
        trains = _trains(arm, self.linear_names)
        memo: dict[int, Tensor] = {id(p): p for name, p in self.base.named_parameters() if not trains(name)}
        memo.update({id(buffer): buffer for buffer in self.base.buffers()})
        model = copy.deepcopy(self.base, memo)
        if arm.rank is not None:
            inject_lora(model, rank=arm.rank, targets=arm.targets or self.linear_names, seed=seed)
        for name, parameter in model.named_parameters():
            if ".lora_" not in name and trains(name):
                parameter.requires_grad_(True)
        return model


def _trains(arm: Arm, linear_names: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a weight of the base, by name, trains itself in this arm."""

    def linear(name: str) -> bool:
        return any(f".{target}." in name for target in linear_names)

    if arm.rank is not None:
        return lambda name: arm.train_rest and not linear(name)
    if arm.targets is None:
        return lambda name: True
    targets = arm.targets
    return lambda name: any(f".{target}." in name for target in targets)


def make_texts(corpus: Corpus, encode: Callable[[str], Tensor], plan: Design) -> TokenTexts:
    """Encode a corpus and cut its held-out windows."""

    def windows(part: str) -> Tensor:
        return held_out_windows(encode(corpus.text(part)), count=plan.windows, length=plan.sequence_length)

    return TokenTexts(encode(corpus.text("train")), windows("validation"), windows("test"))


def tiny_source(base: TinyLM, old: Corpus, new: Corpus, plan: Design) -> ExperimentSource:
    """Our small model, frozen, with both texts."""
    base.requires_grad_(False)
    from loralens.lab.tiny.model import LINEAR_NAMES

    return ExperimentSource(
        base=base,
        linear_names=LINEAR_NAMES,
        config=base.config.to_hf(),
        old=make_texts(old, encode_text, plan),
        new=make_texts(new, encode_text, plan),
    )


@torch.no_grad()
def delta(base: nn.Module, trained: Mapping[str, Tensor], linear_names: tuple[str, ...]) -> dict[str, Tensor]:
    """What training added to each linear layer, by module path; (out_features, in_features) each."""
    result: dict[str, Tensor] = {}
    for name, weight in base.named_parameters():
        path = name.removesuffix(".weight")
        if path.rpartition(".")[2] in linear_names and name in trained:
            result[path] = trained[name].to(weight.device, weight.dtype) - weight
    return result
