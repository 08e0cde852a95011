"""Parts of state-space and linear-attention layers: shapes alone, for the families that are counted and not walked.

Source: transformers 5.23, models/{mamba,mamba2,qwen3_next,lfm2}/modeling_*.py, whose parts the hybrids repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.module import Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.tape.parameter import Parameter

# PEFT refuses adapters on these where a fused kernel takes the weight itself (tuners_utils.py)
REFUSED: Final = frozenset({"out_proj", "conv1d"})
# older names of kinds of layers (configuration_utils.py, `_LEGACY_LAYER_TYPE_REMAP`)
_OLDER: Final = {"mamba": "linear_attention", "attention": "full_attention"}
MAX_KERNEL: Final = 65_536
MAX_GROUPS: Final = 65_536


class Convolution(Module):
    """A depthwise convolution over time. Shapes: weight (channels, 1, kernel)."""

    def __init__(self, channels: int, kernel: int, bias: bool) -> None:
        self.weight = Parameter((channels, 1, kernel))
        self.bias = Parameter((channels,)) if bias else None


class SelectiveMixer(Module):
    """Mamba's selective state space. Shapes: A_log (inner, state), D (inner)."""

    def __init__(
        self, hidden: int, inner: int, state: int, rank: int, kernel: int, bias: bool, conv_bias: bool
    ) -> None:
        self.conv1d = Convolution(inner, kernel, conv_bias)
        self.in_proj = Linear(hidden, 2 * inner, bias, name="state space in")
        self.x_proj = Linear(inner, rank + 2 * state, name="state space parameters")
        self.dt_proj = Linear(rank, inner, True, name="state space step")
        self.A_log = Parameter((inner, state))
        self.D = Parameter((inner,))
        self.out_proj = Linear(inner, hidden, bias, name="state space out")


class HeadedMixer(Module):
    """Mamba 2: a scalar state matrix for each head. Shapes: A_log, D, dt_bias (heads)."""

    def __init__(
        self,
        hidden: int,
        inner: int,
        heads: int,
        state: int,
        groups: int,
        kernel: int,
        *,
        bias: bool = False,
        conv_bias: bool = True,
        output_bias: bool | None = None,
        norm: bool = True,
    ) -> None:
        convolved = inner + 2 * groups * state
        self.conv1d = Convolution(convolved, kernel, conv_bias)
        self.in_proj = Linear(hidden, inner + convolved + heads, bias, name="state space in")
        self.dt_bias = Parameter((heads,))
        self.A_log = Parameter((heads,))
        self.D = Parameter((heads,))
        if norm:
            self.norm = RMSNorm(inner)
        self.out_proj = Linear(inner, hidden, bias if output_bias is None else output_bias, name="state space out")


def headed_mixer(config: Config, hidden: int, *, conv_bias: bool | None = None) -> HeadedMixer:
    """The mixer of a hybrid whose config names it `mamba_*` (Bamba and its successors)."""
    heads = config.integer("mamba_n_heads", default=128, high=MAX_GROUPS)
    inner = config.integer("mamba_expand", default=2, high=1_024) * hidden
    given = config.entries.get("mamba_d_head", "auto")
    width = inner // heads if given == "auto" else config.integer("mamba_d_head")
    if width * heads != inner:
        raise InvalidInput(
            f"config.mamba_n_heads {heads} times mamba_d_head {width} must be mamba_expand * hidden_size, {inner}",
            field="config.mamba_n_heads",
            hint="compare with the model's config.json on the Hub",
        )
    return HeadedMixer(
        hidden,
        inner,
        heads,
        config.integer("mamba_d_state", default=256),
        config.integer("mamba_n_groups", default=1, high=MAX_GROUPS),
        config.integer("mamba_d_conv", default=4, high=MAX_KERNEL),
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True) if conv_bias is None else conv_bias,
    )


class ShortConvolution(Module):
    """LFM2's gated short convolution."""

    def __init__(self, hidden: int, kernel: int, bias: bool) -> None:
        self.conv = Convolution(hidden, kernel, bias)
        self.in_proj = Linear(hidden, 3 * hidden, bias, name="convolution in")
        self.out_proj = Linear(hidden, hidden, bias, name="convolution out")


def layer_kinds(
    config: Config, names: Sequence[str], default: Sequence[str], allowed: Sequence[str], *, own_length: bool = False
) -> list[str]:
    """What every layer is, under the first of `names` that is present, older words translated.

    Raises:
        InvalidInput: a list of the wrong length, or a kind that the family does not have.
    """
    for name in names:
        if not config.has(name):
            continue
        value = config.entries[name]
        length = len(value) if own_length and isinstance(value, (list, tuple)) else len(default)
        if length > MAX_LAYERS:
            raise InvalidInput(f"config.{name} has {length} layers, at most {MAX_LAYERS}", field=f"config.{name}")
        kinds = [_OLDER.get(kind, kind) for kind in config.words(name, length) or ()]
        for kind in kinds:
            if kind not in allowed:
                raise InvalidInput(
                    f"config.{name} names a layer {kind[:40]!r}; allowed are {', '.join(allowed)}",
                    field=f"config.{name}",
                    hint="compare with the model's config.json on the Hub",
                )
        return kinds
    return list(default)
