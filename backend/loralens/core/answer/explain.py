"""Every byte explains itself: formulas with values filled in, and where the rule comes from."""

from __future__ import annotations

from operator import mul
from typing import TYPE_CHECKING, Final

from loralens.core.tape.ledger import Moment
from loralens.core.tape.size import MONOMIALS, Size, monomial_values

if TYPE_CHECKING:
    from loralens.core.answer.shapes import Term


_SYMBOLS: Final = ("B", "S", "r")
_POWERS: Final = tuple(
    "".join(f"·{symbol}{'²' * (power == 2)}" for symbol, power in zip(_SYMBOLS, powers, strict=True) if power)
    for powers in MONOMIALS
)

_SOURCES: Final = (
    ("weights", "", "shapes of the config.json; bytes per value of the dtype (torch.dtype.itemsize) or packing (bitsandbytes 0.50)"),
    ("adapter", "", "Hu et al. 2021, arXiv:2106.09685, section 4.1: A is (r, in), B is (out, r); dtype as PEFT 0.21 casts it"),
    ("gradients", "", "torch 2.13 autograd/functions/accumulate_grad.h: one gradient per trainable tensor, in its dtype"),
    ("optimizer_state", "", "torch 2.13 torch/optim; bitsandbytes 0.50 optim/optimizer.py"),
    ("activations", "norm", "transformers 5.23 RMSNorm in float32; torch derivatives.yaml: pow, rsqrt, mul keep their operands"),
    ("activations", "attention (flash)", "torch derivatives.yaml: _scaled_dot_product_flash_attention keeps q, k, v, output and logsumexp"),
    ("activations", "attention (memory", "torch derivatives.yaml: _scaled_dot_product_efficient_attention keeps q, k, v, mask, output, logsumexp"),
    ("activations", "LoRA", "PEFT 0.21 tuners/lora/layer.py; torch derivatives.yaml: mm keeps its input when the weight trains"),
    ("activations", "autocast", "torch 2.13 autocast_mode.cpp cached_cast: 16-bit copies live while autograd or the cache holds them"),
    ("activations", "", "torch 2.13 tools/autograd/derivatives.yaml: what backward's formula refers to is kept"),
    ("logits", "", "transformers 5.23 loss/loss_utils.py ForCausalLMLoss (float32 logits); torch log_softmax and nll_loss backward"),
    ("temporaries", "optimizer", "torch 2.13 torch/optim: what one step allocates beside its states"),
    ("temporaries", "", "torch 2.13 autograd engine: results of the backward function that is running"),
)  # fmt: skip


def source_of(category: str, label: str) -> str:
    """Where the rule behind an entry comes from."""
    for own, prefix, source in _SOURCES:
        if own == category and label.startswith(prefix):
            return source
    return "assumption"


def formula(size: Size) -> str:
    """`16384·B·S + 524288·r`."""
    return " + ".join([f"{each:,}{powers}" for each, powers in zip(size, _POWERS, strict=True) if each]) or "0"


def _numbers(batch: int, sequence: int, rank: int) -> list[str]:
    """What stands behind a coefficient in place of the symbols of each monomial."""
    values = f" × {batch:,}", f" × {sequence:,}", f" × {rank:,}"
    return ["".join(text * power for text, power in zip(values, powers, strict=True)) for powers in MONOMIALS]


def _substituted(size: Size, numbers: list[str], count: int) -> str:
    """The formula with numbers in place of the symbols, and the result."""
    parts = [f"{each:,}{factors}" for each, factors in zip(size, numbers, strict=True) if each]
    return f"{' + '.join(parts) or '0'} = {count:,}"


def terms(moment: Moment, batch: int, sequence: int, rank: int, *, traced_with: str = "") -> list[Term]:
    """The entries held at a moment, largest first; their bytes add up to the moment's. `traced_with`: of a traced plan."""
    values, numbers = monomial_values(batch, sequence, rank), _numbers(batch, sequence, rank)
    rows: list[Term] = []
    for (category, label), size in moment.entries.items():
        count = sum(map(mul, size, values))
        if count:
            rows.append(
                {
                    "name": label,
                    "category": category,
                    "bytes": count,
                    "formula": formula(size),
                    "substituted": _substituted(size, numbers, count),
                    "source": f"traced: {traced_with}" if traced_with else source_of(category, label),
                }
            )
    rows.sort(key=lambda row: -row["bytes"])
    return rows
