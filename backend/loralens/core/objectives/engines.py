"""What a vLLM engine holds beside its cache: weights in 16 bits or packed, and what its profiling run takes.

Source: TRL 1.16.0 generation/vllm_generation.py (`max_num_batched_tokens=4096`, bitsandbytes for a 4-bit base); vLLM
v1/worker/gpu_worker.py (`determine_available_memory`: a forward pass of so many tokens, then the sampler).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.registry import build
from loralens.core.methods.frozen import hold_frozen
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.size import BATCH
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.losses.cross_entropy import Headed
    from loralens.core.tape.graph import Tensor

PROFILED_TOKENS: Final = 4096
SEQUENCES: Final = 256  # vLLM's max_num_seqs, whose logits the sampler is tried with


def engine_bytes(config: Mapping[str, Any], recipe: Recipe) -> tuple[int, int]:
    """Weights of the engine, and the peak of its profiling run beside them (assumption: it keeps what this model's pass keeps)."""
    plain = replace(engine_words(recipe), micro_batch_size=1, sequence_length=PROFILED_TOKENS)
    root = build(config)
    hold_frozen(root, plain)
    seen: dict[int, int] = {}
    for name, module, places in root.distinct():
        inside = any(part.isdigit() for part in name.split("."))
        for _, parameter in module.own_parameters():
            if inside or id(parameter) not in seen:
                seen[id(parameter)] = seen.get(id(parameter), 0) + parameter.bytes[0] * places
    ledger, validity = Ledger(), Validity(plain)
    tape = Tape(ledger, validity=validity)
    tape.grad_enabled = False
    ledger.enter("profile")
    root.run(tape, Call(plain, validity, read=_sampled), checkpointing=False)
    ledger.settle()
    peak = max(moment.total.at(1, PROFILED_TOKENS, 1) for moment in ledger.moments)
    return sum(seen.values()), peak + SEQUENCES * root.head.out_features * 4


def engine_words(recipe: Recipe) -> Recipe:
    """How an engine of its own holds and runs the model: in 16 bits or packed, without adapters and autocast."""
    return Recipe(
        autocast=None,
        weights_dtype="float16" if recipe.weights_dtype == "float16" else "bfloat16",
        attention="flash",
        quantization=recipe.quantization,
    )


def _sampled(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    last = ops.cut(t, hidden, "last positions", numel=BATCH * root.head.in_features)
    return root.logits(t, last)
