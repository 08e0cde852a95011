"""The real optimizer of each of the recipe's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from loralens.core.errors import DependencyMissing, InvalidInput
from loralens.extras import how_to_install
from loralens.lab.trace.quantize import bitsandbytes_there

_RATE = 1e-4


class Steps(Protocol):
    """What a training loop asks of an optimizer."""

    def step(self) -> Any:
        """Update the parameters."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""


class TwoOptimizers:
    """Two optimizers that share the parameters between them."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def step(self) -> None:
        """Update one part after the other."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parts."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)


def make(name: str, parameters: Iterable[torch.nn.Parameter]) -> Any:
    """Build the optimizer over these parameters.

    Raises:
        InvalidInput: an optimizer that has no implementation to trace here.
        DependencyMissing: the package it comes from is not installed.
    """
    chosen: list[Any] = list(parameters)
    if name in ("adamw_fused", "adamw_foreach", "adamw_loop"):
        if name == "adamw_fused":
            return torch.optim.AdamW(chosen, lr=_RATE, fused=True)
        return torch.optim.AdamW(chosen, lr=_RATE, foreach=name == "adamw_foreach")
    if name in ("sgd", "sgd_momentum"):
        return torch.optim.SGD(chosen, lr=_RATE, momentum=0.9 if name == "sgd_momentum" else 0.0)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        # as transformers' Trainer sets it (optim="adafactor")
        return Adafactor(chosen, lr=_RATE, scale_parameter=False, relative_step=False)
    if name == "muon":
        return _muon(chosen)
    return _bitsandbytes(name, chosen)


def _muon(chosen: list[Any]) -> Any:
    """Muon for the matrices, AdamW for the rest, as its documentation asks."""
    matrices = [p for p in chosen if p.dim() == 2]
    others = [p for p in chosen if p.dim() != 2]
    if not matrices:
        raise InvalidInput("muon needs matrices to train", field="recipe.optimizer")
    muon = torch.optim.Muon(matrices, lr=_RATE)
    return TwoOptimizers(muon, torch.optim.AdamW(others, lr=_RATE, fused=True)) if others else muon


def _bitsandbytes(name: str, chosen: list[Any]) -> Any:
    if not bitsandbytes_there():
        raise DependencyMissing(f"tracing {name} needs bitsandbytes", hint=how_to_install("trace"))
    from bitsandbytes import optim

    makers = {
        "adamw_8bit": lambda: optim.AdamW8bit(chosen, lr=_RATE),
        "paged_adamw_8bit": lambda: optim.PagedAdamW8bit(chosen, lr=_RATE),
        "paged_adamw_32bit": lambda: optim.PagedAdamW32bit(chosen, lr=_RATE),
        "lion": lambda: optim.Lion(chosen, lr=_RATE),
        "lion_8bit": lambda: optim.Lion8bit(chosen, lr=_RATE),
        "ademamix": lambda: optim.AdEMAMix(chosen, lr=_RATE),
        "ademamix_8bit": lambda: optim.AdEMAMix8bit(chosen, lr=_RATE),
    }
    if name not in makers:
        raise InvalidInput(
            f"optimizer {name} cannot be traced", field="recipe.optimizer", hint="loralens memory computes it"
        )
    return makers[name]()


@contextmanager
def bitsandbytes_on_fakes() -> Iterator[None]:
    """Its questions to the driver answered: nothing to wait for, and paged memory lies outside torch's allocator."""
    if not bitsandbytes_there():
        yield
        return
    from bitsandbytes import functional
    from bitsandbytes.optim import optimizer

    # bitsandbytes keeps its table for good; a fake one must not stay behind
    functional.name2qmap.setdefault("dynamic", functional.create_dynamic_map())

    def get_paged(*shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> Any:
        paged: Any = torch.empty(shape, dtype=dtype, device="cpu")
        paged.is_paged, paged.page_deviceid = True, 0
        return paged

    answers: list[tuple[Any, str, Any]] = [
        (optimizer, "sync_gpu", lambda _tensor: None),
        (functional, "get_paged", get_paged),
        (functional, "fill", lambda *_values, **_options: None),
        (functional, "prefetch_tensor", lambda *_values, **_options: None),
    ]
    before = [(where, word, getattr(where, word)) for where, word, _ in answers]
    manager = functional.GlobalPageManager.get_instance()
    paged_before = list(manager.paged_tensors)
    for where, word, answer in answers:
        setattr(where, word, answer)
    try:
        yield
    finally:
        manager.paged_tensors[:] = paged_before
        for where, word, old in before:
            setattr(where, word, old)
