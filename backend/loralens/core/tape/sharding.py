"""Several GPUs: how a parameter's bytes, gradients and optimizer states are divided. Bytes are per GPU."""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.question.recipe import Recipe
from loralens.core.question.versions import framework
from loralens.core.tape.size import Size


@dataclass(frozen=True, slots=True)
class Sharding:
    """How many GPUs hold one copy of the weights, the gradients and the optimizer states."""

    gpus: int = 1
    weights: int = 1
    gradients: int = 1
    states: int = 1
    buckets: bool = False  # DDP: gradients stand beside their communication buckets
    master_weights: bool = False  # DeepSpeed: float32 copy of every trainable weight
    whole_adapters: bool = False  # FSDP leaves the adapters out; hooks average their gradients
    fetches: bool = False  # ZeRO-3: weights come module by module, not unit by unit
    keeps_inputs: bool = False  # FSDP's hooks on frozen units
    whole_gradients: bool = False  # FSDP units of frozen and trained weights in one flat parameter
    unsharded_gradients: bool = False  # and gradients that accumulate without synchronization
    host_states: bool = False
    host_weights: bool = False

    @staticmethod
    def of(recipe: Recipe, *, adapters: bool = False) -> Sharding:
        """The sharding of a recipe; `adapters`: the base is frozen.

        A unit that mixes frozen and trained weights has a gradient as large as all of them (torch
        distributed/fsdp/fully_sharded_data_parallel.py, `use_orig_params`); lightning's FSDPStrategy allows it, and LitGPT
        wraps whole blocks (finetune/lora.py, `auto_wrap_policy={Block}`; Lightning-AI/litgpt issue 1417). Under `no_sync`
        the gradients that accumulate are not sharded.

        Fused LoRA reads the adapters outside of their modules, so FSDP has to leave them whole: FMS acceleration,
        fms_acceleration_foak/utils.py, `lora_adapters_switch_ddp_from_fsdp`.
        """
        p = recipe.parallelism
        g = p.gpus
        offload = p.offload
        host = {"host_states": offload in ("optimizer", "parameters"), "host_weights": offload == "parameters"}
        match p.strategy:
            case "ddp":
                return Sharding(g, buckets=g > 1, **host)
            case "zero1":
                return Sharding(g, states=g, master_weights=True, **host)
            case "zero2":
                return Sharding(g, gradients=g, states=g, master_weights=True, **host)
            case "zero3":
                return Sharding(g, weights=g, gradients=g, states=g, master_weights=True, fetches=True, **host)
            case "fsdp":
                if g > 1 and adapters and "lora" in recipe.fused_kernels:
                    return Sharding(g, weights=g, keeps_inputs=True, whole_adapters=True, **host)
                whole = g > 1 and adapters and framework(recipe) == "litgpt"
                return Sharding(
                    g,
                    weights=g,
                    gradients=g,
                    states=g,
                    keeps_inputs=g > 1 and not whole,
                    whole_gradients=whole,
                    unsharded_gradients=whole and recipe.gradient_accumulation_steps > 1,
                    **host,
                )
        return Sharding(**host)

    @property
    def gathers(self) -> bool:
        """Must a layer's weights be brought together before it runs?"""
        return self.weights > 1 or self.host_weights

    def assumptions(self) -> list[str]:
        """What the figures above one GPU rest on."""
        found = []
        if self.fetches:
            found.append(
                "ZeRO-3 with DeepSpeed's defaults: prefetch of 5e7 and reuse within 1e9 elements; the running module's weights are gathered"
            )
        elif self.gathers:
            found.append(
                "a layer's weights and those of the next are gathered while it runs, the root's stay (assumption: one unit per layer)"
            )
        if self.whole_adapters:
            found.append(
                "fused LoRA under FSDP: every GPU holds whole adapters, their gradients and states (FMS acceleration)"
            )
        if self.whole_gradients:
            found.append(
                "a block's flat gradient spans its frozen weights too (FSDP with use_orig_params, blocks wrapped whole)"
            )
        if self.buckets:
            found.append("DDP keeps communication buckets as large as the gradients (gradient_as_bucket_view=False)")
        if self.master_weights:
            found.append(
                "DeepSpeed keeps float32 master weights beside 16-bit ones, and a reduce bucket of 5e8 elements (its default; "
                'transformers\' "auto" makes it the hidden size squared, some tens of MB)'
            )
        return found


def share(size: Size, parts: int) -> Size:
    """One GPU's part, rounded up coefficient by coefficient."""
    return size if parts == 1 else Size([-(-coefficient // parts) for coefficient in size])
