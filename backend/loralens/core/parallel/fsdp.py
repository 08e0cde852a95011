"""PyTorch's FSDP: weights, gradients and states divided, unit by unit; and the two forms it takes where adapters train.

Sources: torch 2.13 distributed/fsdp; FMS acceleration; Lightning-AI/litgpt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from loralens.core.parallel.sharded import Sharded, bytes_of
from loralens.core.parallel.strategy import Setting, Strategy
from loralens.core.question.versions import framework
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ZERO, Size, share

if TYPE_CHECKING:
    from loralens.core.tape.graph import Weight
    from loralens.core.tape.ledger import Ledger
    from loralens.core.tape.tape import Tape

KEPT_BY_HOOKS: Final = "FSDP hooks: layer inputs and their gradients"
UNIT_GRADIENTS: Final = "gradients of whole units, frozen weights included"


class Fsdp(Sharded):
    """Everything is divided; hooks on units with frozen weights keep their inputs."""

    prepares_k_bit = False  # TRL and transformers leave it out (`is_sharded_qlora`)
    wraps_apart = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.weights = self.gradients = self.states = setting.gpus
        self._kept: list[Storage] = []

    @classmethod
    def chosen(cls, setting: Setting) -> Strategy:
        """Adapters on several GPUs: whole where kernels are fused, in one unit with their block under LitGPT."""
        if setting.gpus > 1 and setting.adapters:
            if "lora" in setting.recipe.fused_kernels:
                return WholeAdapters(setting)
            if framework(setting.recipe) == "litgpt":
                return MixedUnits(setting)
        return cls(setting)

    def after_recomputed(self, t: Tape, weights: Sequence[Weight], held: list[Storage]) -> None:
        """Frozen units are resharded by a hook on their inputs.

        It holds the detached input's AccumulateGrad node, hence the input and its .grad, until backward is over (torch
        fsdp/_runtime_utils.py, `_register_post_backward_reshard_only_hook`; autograd/graph.py, `register_multi_grad_hook`).
        """
        if self.setting.gpus == 1 or all(weight.trainable for weight in weights):
            return
        for storage in held:
            storage.rename("activations", KEPT_BY_HOOKS)
            storage.hold()
        self._kept += held

    def done(self, t: Tape) -> None:
        """The hooks let go of what they held, for the layers that were not simulated too."""
        left = t.ledger.entries.get(("activations", KEPT_BY_HOOKS))
        if left is not None:
            for storage in {id(storage): storage for storage in self._kept}.values():
                left = left - storage.size
            t.ledger.release(left, "activations", KEPT_BY_HOOKS)
        for storage in self._kept:
            storage.hand_over()
        self._kept.clear()
        super().done(t)


class WholeAdapters(Fsdp):
    """Fused LoRA reads the adapters outside of their modules, so FSDP leaves them whole; hooks average their gradients.

    Source: fms_acceleration_foak/utils.py, `lora_adapters_switch_ddp_from_fsdp`.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gradients = self.states = 1

    def parts(self, weight: Weight) -> int:
        """Adapters are not divided."""
        return 1 if weight.role == "adapter" else self.weights

    def assumptions(self) -> list[str]:
        """What is whole."""
        return [
            *super().assumptions(),
            "fused LoRA under FSDP: every GPU holds whole adapters, their gradients and states (FMS acceleration)",
        ]


class MixedUnits(Fsdp):
    """A unit that mixes frozen and trained weights has a gradient as large as all of them.

    Source: torch distributed/fsdp/fully_sharded_data_parallel.py, `use_orig_params`; lightning's FSDPStrategy allows it,
    and LitGPT wraps whole blocks (finetune/lora.py, `auto_wrap_policy={Block}`; Lightning-AI/litgpt issue 1417). Under
    `no_sync` the gradients that accumulate are not sharded.
    """

    @property
    def _unsharded(self) -> bool:
        return self.setting.recipe.gradient_accumulation_steps > 1

    def accumulated(self, gradient: Size, weight: Weight) -> Size:
        """The units' flat gradients stand for those of their weights."""
        return ZERO

    def book_gradients(self, ledger: Ledger, gradients: Size, layers: Iterable[Sequence[Weight]]) -> None:
        """Whole flat gradients, where micro batches accumulate."""
        if self._unsharded:
            for weights in layers:
                ledger.book(bytes_of(weights), "gradients", UNIT_GRADIENTS)

    def after_recomputed(self, t: Tape, weights: Sequence[Weight], held: list[Storage]) -> None:
        """Units that train need no hook on their inputs."""

    def after_layer(self, t: Tape, weights: Sequence[Weight], number: int) -> None:
        """Its views' gradients become one flat gradient, added to the one that accumulates, or reduced to a share."""
        size = bytes_of(weights)
        flat = Storage(t.ledger, size, "temporaries", "flat gradient of a unit")
        t.ledger.settle()
        flat.release()
        if not self._unsharded:
            t.ledger.book(share(size, self.gradients), "gradients", UNIT_GRADIENTS)
        super().after_layer(t, weights, number)

    def assumptions(self) -> list[str]:
        """How large a block's gradient is."""
        return [
            *super().assumptions(),
            "a block's flat gradient spans its frozen weights too (FSDP with use_orig_params, blocks wrapped whole)",
        ]
