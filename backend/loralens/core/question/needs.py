"""When a recipe's word means something: conditions on the method and on the other words, named in the word's row.

A word whose condition does not hold changes nothing, and the answer says so (`core.answer.remarks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.packings import BY_GROUPS
from loralens.core.question.versions import framework, names_library

FOUR_BITS: Final = ("nf4", "fp4")
INTERLEAVING: Final = ("interleaved", "zero_bubble")
SHARDED: Final = ("fsdp", "fsdp2", "zero1", "zero2", "zero3")


@dataclass(frozen=True, slots=True)
class Need:
    """`holds(method, recipe)`: does the word mean something there? `otherwise` says why it does not.

    The recipe is untyped here: its own rows name these conditions.
    """

    otherwise: str
    holds: Callable[[str, Any], bool]


ADAPTER: Final = Need("full fine-tuning has no adapter", lambda method, _: method != "full")
FROZEN_BASE: Final = Need("weights that train are not packed", lambda method, _: method != "full")
NAMED: Final = Need(
    "no quantization is named, and only qlora packs by itself",
    lambda _, r: r.quantization is not None or r.idle_packing is None,
)
FULL: Final = Need("only full fine-tuning trains layers of the model itself", lambda method, _: method == "full")
CHECKPOINTS: Final = Need(
    "nothing is checkpointed without gradient_checkpointing", lambda _, r: r.gradient_checkpointing
)
CHECKPOINTS_TO_OFFLOAD: Final = Need(
    "activations are offloaded where they are checkpointed, which needs gradient_checkpointing",
    lambda _, r: r.parallelism.offload != "activations" or r.gradient_checkpointing,
)
FOUR_BIT_PACKING: Final = Need(
    "only nf4 and fp4 have it", lambda _, r: r.quantization is not None and r.quantization.type in FOUR_BITS
)
GPTQ: Final = Need(
    "only GPTQ, AWQ and HQQ pack by groups of this size",
    lambda _, r: r.quantization is not None and r.quantization.type in BY_GROUPS,
)
BITSANDBYTES: Final = Need(
    "only bitsandbytes in transformers asks which layers to skip",
    lambda _, r: r.quantization is not None and r.quantization.type in (*FOUR_BITS, "int8") and not framework(r),
)
WHOLE_BASE: Final = Need(
    "k-bit preparation is left out, or undone, where weights are sharded",
    lambda _, r: r.parallelism.strategy not in SHARDED,
)
RAISED: Final = Need(
    "PEFT's k-bit preparation raises nothing on a GPTQ, AWQ or HQQ base",
    lambda _, r: r.quantization is None or r.quantization.type not in BY_GROUPS,
)
OWN_DTYPE: Final = Need(
    "DeepSpeed holds adapters in the 16-bit dtype of the weights",
    lambda _, r: r.weights_dtype == "float32" or not r.parallelism.strategy.startswith("zero"),
)
OUTPUTS: Final = Need("this loss makes no logits to return", lambda _, r: LOSS_TABLE[r.loss].returns or r.use_cache)
LABELLED: Final = Need(
    "this loss works on every position, with a label or without",
    lambda _, r: LOSS_TABLE[r.loss].labelled_only or r.objective.type in ("grpo", "rloo", "ppo"),
)
LANGUAGE_HEAD: Final = Need("only the language model's head predicts tokens", lambda _, r: r.head in (None, "lm"))
CROSS_ENTROPY: Final = Need(
    "this objective's trainer takes log-probabilities itself, and only verl has a kernel for them",
    lambda _, r: r.loss != "kernel" or r.objective.type in ("sft", "reward", "contrastive") or names_library(r, "verl"),
)
PICKED: Final = Need("only PyTorch's own attention asks what runs it", lambda _, r: r.attention == "sdpa")
CACHE: Final = Need(
    "transformers turns the cache off under gradient checkpointing", lambda _, r: not r.gradient_checkpointing
)
TRANSFORMERS_LOOP: Final = Need("the loop is the framework's own", lambda _, r: not framework(r))
TRANSFORMERS_MODEL: Final = Need(
    "the framework's model code has the language model's head alone", lambda _, r: not framework(r)
)
TRANSFORMERS_MIXERS: Final = Need(
    "the framework's model code has no state-space or linear-attention layers", lambda _, r: not framework(r)
)
PICTURES: Final = Need("a sample holds no picture", lambda _, r: r.images > 0 or r.video_frames > 0)
NO_MEMORY: Final = Need("it sets the update's scaling, which takes no memory", lambda *_: False)
IN_PLACE: Final = Need(
    "gradients are clipped in place; the norms, some bytes per tensor, are not counted", lambda *_: False
)


def _shares(_: str, recipe: Any) -> bool:
    """One GPU, or one for each part of a cut model, holds all under DDP or FSDP; FSDP still brings offloaded weights back, and leaves k-bit preparation out."""
    p = recipe.parallelism
    sharded = p.strategy in ("fsdp", "fsdp2")
    packed = recipe.quantization is not None and RAISED.holds("", recipe) and sharded
    return p.data_parallel > 1 or not (p.strategy == "ddp" or sharded) or p.offload == "parameters" or packed


SHARES: Final = Need("one GPU, or one for each part of the model, shares nothing", _shares)
FSDP2: Final = Need("only strategy=fsdp2 has it", lambda _, r: r.parallelism.strategy == "fsdp2")
COPIES: Final = Need(
    "only strategy=fsdp2 and megatron have it", lambda _, r: r.parallelism.strategy in ("fsdp2", "megatron")
)
ZERO: Final = Need("only DeepSpeed's strategies have it", lambda _, r: r.parallelism.strategy.startswith("zero"))
ZERO3: Final = Need("only strategy=zero3 has it", lambda _, r: r.parallelism.strategy == "zero3")
NVME: Final = Need(
    "only offload_device=nvme has buffers of DeepSpeed's own", lambda _, r: r.parallelism.offload_device == "nvme"
)
NVME_WEIGHTS: Final = Need(
    "only weights that wait on NVMe go through them: offload=parameters with offload_device=nvme",
    lambda _, r: r.parallelism.offload_device == "nvme" and r.parallelism.offload == "parameters",
)
TENSOR: Final = Need("nothing is cut by width without tp above 1", lambda _, r: r.parallelism.tp > 1)
CONTEXT: Final = Need("the sequence is whole without cp above 1", lambda _, r: r.parallelism.cp > 1)
CUT_AT_WILL: Final = Need(
    "Megatron cuts the vocabulary, and its loss with it, whenever tp is above 1",
    lambda _, r: framework(r) != "megatron",
)
PIPELINE: Final = Need("there is one stage without pp above 1", lambda _, r: r.parallelism.pp > 1)
INTERLEAVED: Final = Need(
    "only the interleaved and zero_bubble schedules have so many stages on a GPU",
    lambda _, r: r.parallelism.schedule in INTERLEAVING,
)
UNSYNCHRONIZED: Final = Need(
    "one micro-batch makes the gradients at once", lambda _, r: r.gradient_accumulation_steps > 1
)
BUCKETS: Final = Need(
    "only DDP on several GPUs has buckets",
    lambda _, r: r.parallelism.strategy == "ddp" and r.parallelism.data_parallel > 1,
)
