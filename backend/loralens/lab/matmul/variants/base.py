"""What every variant is: a class with an id that says whether it can run, prepares itself, and is called."""

from __future__ import annotations

import time
from typing import ClassVar

import torch
from torch import Tensor

from loralens.lab.matmul.packed import PackedWeight
from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.words import Mode

REGISTRY: dict[tuple[Mode, str], type[Variant]] = {}


class Variant:
    """One way to compute a point's product. Subclasses register by naming their `mode` and `id`.

    Args:
        problem: the tensors; a variant copies what it must derive from them, and nothing else.
    """

    id: ClassVar[str]
    mode: ClassVar[Mode] = "forward"
    copies_of_weight: ClassVar[float] = 0.0
    """Size of what it derives from the weights, in copies of all of them: to refuse what would not fit."""
    warm: ClassVar[bool] = False
    """Whether its first call does more than the others (compiling): that is then part of setup_seconds."""

    setup_seconds: ClassVar[float] = 0.0
    """Assumption: what preparing takes before anything is cached. A run whose budget is not three times as long leaves
    the variant out, unless it was asked for by name."""

    def __init_subclass__(cls) -> None:
        if "id" in cls.__dict__:
            REGISTRY[cls.mode, cls.id] = cls

    def __init__(self, problem: ProductTensors) -> None:
        self.problem = problem
        self.notes: list[str] = []
        self.shared_seconds = 0.0
        """What preparing would have taken longer, had another variant not done it before."""

    def packed_weights(self, hint: int) -> list[PackedWeight]:
        """The problem's copies of W, prepacked."""
        begin = time.perf_counter()
        copies, seconds = self.problem.packed(hint)
        self.shared_seconds = max(0.0, seconds - (time.perf_counter() - begin))
        return copies

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        """None if it can run at this point, else the reason in words."""
        return None

    def prepare(self) -> None:
        """Everything that is done once before use; timed apart."""

    def __call__(self, index: int) -> Tensor:
        """One call on the copy of the weights with that index; the output (rows, out_features)."""
        raise NotImplementedError

    def work(self) -> LeastWork:
        """Operations and bytes that this way needs."""
        return self.problem.base_work() + self.problem.adapter_work()

    def gradients(self) -> dict[str, Tensor]:
        """Training variants: dx, da, db of the last call."""
        return {}

    def finish(self) -> None:
        """After the last call: notes about what it did to the weights."""


def half_on_cpu(problem: ProductTensors) -> str | None:
    """Whether float16 products exist on this processor; PyTorch emulates them where they do not, slowly."""
    if problem.device.kind != "cpu" or problem.dtype is not torch.float16:
        return None
    if not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return "this processor has no float16 arithmetic; PyTorch would emulate it"
    return None
