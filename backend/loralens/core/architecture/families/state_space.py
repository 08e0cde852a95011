"""Parts of state-space and linear-attention layers.

Fused kernels (flash-linear-attention, mamba-ssm, causal-conv1d) keep other tensors than transformers' own PyTorch code, which runs
where those packages are not installed; the word `mixer_kernels` says which is walked (`fused_mixers`).

Source: transformers 5.23, models/{mamba,mamba2,qwen3_next,lfm2}/modeling_*.py, whose parts the hybrids repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.chunk_scan import Scan
from loralens.core.architecture.families.fused_mixers import FUSED, convolved, not_modelled, scan_combined
from loralens.core.architecture.families.selective_scan import selective_scan
from loralens.core.architecture.module import Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, ops
from loralens.core.tape.autocast import cast_weight
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import exp
from loralens.core.tape.size import BATCH, TOKENS
from loralens.core.tape.tape import Tape

# PEFT refuses adapters on these where a fused kernel takes the weight itself (tuners_utils.py)
REFUSED: Final = frozenset({"out_proj", "conv1d"})
# older names of kinds of layers (configuration_utils.py, `_LEGACY_LAYER_TYPE_REMAP`)
_OLDER: Final = {"mamba": "linear_attention", "attention": "full_attention"}
MAX_KERNEL: Final = 65_536
MAX_GROUPS: Final = 65_536


FALLBACK: Final = (
    "state-space and linear-attention layers run as transformers' own PyTorch code, as without flash-linear-attention, "
    "mamba-ssm and causal-conv1d; their fused kernels keep less (mixer_kernels=fused)"
)


def mixers_as(recipe: Recipe) -> str:
    """Which code runs those layers."""
    return FUSED if recipe.mixer_kernels == "fused" else FALLBACK


class DepthwiseConvolution(Module):
    """A depthwise convolution over time. Shapes: weight (channels, 1, kernel).

    Source: transformers 5.23, `causal_conv1d_fn` (its fallback) of models/lfm2/modeling_lfm2.py and others: padded on both
    sides, then cut to the sequence.
    """

    multiplies = True

    def __init__(self, channels: int, kernel: int, bias: bool) -> None:
        self.weight = Parameter((channels, 1, kernel))
        self.bias = Parameter((channels,)) if bias else None
        self._channels, self._kernel = channels, kernel

    def forward(self, t: Tape, x: Tensor, act: str | None = None) -> Tensor:
        """Shapes: (rows, channels) to the same."""
        dtype, label = x.dtype, "convolution"
        weight, bias = t.parameter(self.weight), None if self.bias is None else t.parameter(self.bias)
        if t.kernels.fused_mixers:
            return convolved(t, x, weight, bias)
        x = ops.cast(t, x, weight.dtype, f"{label}: input in the weight's dtype")
        if t.autocast is not None:  # the weight is a view, whose copy is not cached
            bias = None if bias is None else cast_weight(t, bias, self.bias, t.autocast)
            weight = ops.cast(t, weight, t.autocast, "autocast copies of frozen weights")
            x = ops.cast(t, x, t.autocast, f"{label}: input cast by autocast")
        longer = (TOKENS + BATCH * (self._kernel - 1)) * self._channels
        out = t.new(longer, x.dtype, self._channels, label)
        sizes = [None if p is None else (p.numel, p.dtype, p.width) for p in (x, weight, bias)]
        wants = [p is not None and p.node is not None for p in (x, weight, bias)]

        def apply(g: Tensor) -> list[Tensor | None]:
            return [
                t.new(*size, f"gradient: {label}", "temporaries") if wanted and size else None
                for size, wanted in zip(sizes, wants, strict=True)
            ]

        t.record(label, [out], [x, weight, bias], derivatives.CONVOLUTION.kept(input=x, weight=weight), apply)
        out = ops.cut(t, out, f"{label}: cut to the sequence", numel=TOKENS * self._channels)
        if act is not None:
            out = activation(t, out, act, f"{label}: activated")
        return ops.cast(t, out, dtype, f"{label}: cast back")


def hide_padding(t: Tape, x: Tensor, call: Call) -> Tensor:
    """Padded positions are multiplied by the batch's own mask (`apply_mask_to_padding_states`)."""
    if not call.recipe.padded:
        return x
    return ops.mul(t, x, Tensor(None, TOKENS, x.dtype, 1), "padding set to zero")  # whole numbers promote nothing


class SelectiveMixer(Module):
    """Mamba's selective state space. Shapes: A_log (inner, state), D (inner)."""

    multiplies = False  # its own matrix is weighed element by element
    packs_step = False  # its weight is multiplied as it is, which a packed one does not allow

    def __init__(
        self, hidden: int, inner: int, state: int, rank: int, kernel: int, bias: bool, conv_bias: bool
    ) -> None:
        self.conv1d = DepthwiseConvolution(inner, kernel, conv_bias)
        self.in_proj = Linear(hidden, 2 * inner, bias, name="state space in")
        self.x_proj = Linear(inner, rank + 2 * state, name="state space parameters")
        self.dt_proj = Linear(rank, inner, True, name="state space step")
        self.dt_proj.packable = self.packs_step
        self.A_log = Parameter((inner, state))
        self.D = Parameter((inner,))
        self.out_proj = Linear(inner, hidden, bias, name="state space out")
        self._parts = [rank, state, state]

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        dtype, inner = x.dtype, self.out_proj.in_features
        if t.kernels.fused_mixers:
            not_modelled("mamba_inner_fn")
        x = hide_padding(t, x, call)
        projected = self.in_proj(t, x)
        a = exp(t, ops.cast(t, t.parameter(self.A_log), "float32", "scan: A in float32"), "scan: exp(A)")
        a = ops.scale(t, a, "scan: A")
        x, gate = ops.split(t, projected, [inner, inner], "state space: input and gate")
        x = hide_padding(t, self.conv1d(t, x, "silu"), call)
        dt, b, c = ops.split(t, self.x_proj(t, x), self._parts, "state space: step, B and C")
        dt, b, c = self.normed(t, dt, b, c)
        dt = self.step(t, dt)
        bias = ops.cast(t, self.step_bias(t), "float32", "scan: bias in float32")
        d = ops.cast(t, t.parameter(self.D), "float32", "scan: D in float32")
        out = selective_scan(t, x, dt, a, b, c, d, bias, gate)
        return self.out_proj(t, ops.cast(t, out, dtype, "state space: result"))

    def normed(self, t: Tape, dt: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step, B and C as they are."""
        return dt, b, c

    def step(self, t: Tape, dt: Tensor) -> Tensor:
        """`dt_proj`'s weight itself, times the step: what an adapter would add is not asked."""
        dt = ops.linear(t, dt, self.dt_proj.weight, "state space step")
        return ops.copy(t, dt, "state space step by channel")

    def step_bias(self, t: Tape) -> Tensor:
        """Its bias. Shapes: (inner)."""
        assert self.dt_proj.bias is not None
        return t.parameter(self.dt_proj.bias)

    def unreached(self) -> list[Parameter]:
        """What an adapter of `dt_proj` trains in name only."""
        adapter = self.dt_proj.adapter
        return list(adapter.parameters().values()) if adapter and not self.dt_proj.weight.packing else []


def unread_adapters(root: Module) -> list[Parameter]:
    """The parameters of adapters that train in name only, of all mixers."""
    mixers = [module for _, module in root.walk() if isinstance(module, SelectiveMixer)]
    return [parameter for mixer in mixers for parameter in mixer.unreached()]


class CarefulMixer(SelectiveMixer):
    """A packed base's `dt_proj` runs as a layer, from whose result its bias is taken off again (Jamba, Falcon-Mamba)."""

    packs_step = True

    def step(self, t: Tape, dt: Tensor) -> Tensor:
        """By the layer where the base is packed."""
        if not self.dt_proj.weight.packing:
            return super().step(t, dt)
        return ops.sub(t, self.dt_proj(t, dt), self.step_bias(t), "state space step without its bias")


class NormedMixer(CarefulMixer):
    """Step, B and C are normed (Jamba)."""

    def __init__(
        self, hidden: int, inner: int, state: int, rank: int, kernel: int, bias: bool, conv_bias: bool
    ) -> None:
        super().__init__(hidden, inner, state, rank, kernel, bias, conv_bias)
        for name, width in (("dt", rank), ("b", state), ("c", state)):
            setattr(self, f"{name}_layernorm", RMSNorm(width))

    def normed(self, t: Tape, dt: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One after the other."""
        return self.dt_layernorm(t, dt), self.b_layernorm(t, b), self.c_layernorm(t, c)


class WeightlessMixer(CarefulMixer):
    """Step, B and C are normed, without weights (Falcon-Mamba)."""

    def normed(self, t: Tape, dt: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One after the other."""
        return self._without_weight(t, dt), self._without_weight(t, b), self._without_weight(t, c)

    @staticmethod
    def _without_weight(t: Tape, x: Tensor) -> Tensor:
        wide = RMSNorm.normalize(t, ops.cast(t, x, "float32", "norm: input in float32"))
        return ops.cast(t, wide, x.dtype, "norm: normalized")


class GatedGroupNorm(RMSNorm):
    """Times the activated gate in float32, then normed in groups (`MambaRMSNormGated`)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width)
        self._group = width // groups

    def forward(self, t: Tape, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Shapes: x and gate (rows, width) to the same."""
        assert gate is not None
        dtype, width = x.dtype, x.width
        x = ops.cast(t, x, "float32", "norm: input in float32")
        gate = ops.silu(t, ops.cast(t, gate, "float32", "norm: gate in float32"), "norm: activated gate")
        x = ops.mul(t, x, gate, "norm: gated input")
        t.end(gate)
        x = self.normalize(t, x.view(self._group)).view(width)
        return self._weighted(t, x, dtype)


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
        chunk: int = 256,
        norm_groups: int = 1,
    ) -> None:
        convolved = inner + 2 * groups * state
        self.conv1d = DepthwiseConvolution(convolved, kernel, conv_bias)
        self.in_proj = Linear(hidden, inner + convolved + heads, bias, name="state space in")
        self.dt_bias = Parameter((heads,))
        self.A_log = Parameter((heads,))
        self.D = Parameter((heads,))
        if norm:
            self.norm = GatedGroupNorm(inner, norm_groups)
        self.out_proj = Linear(inner, hidden, bias if output_bias is None else output_bias, name="state space out")
        self._scan = Scan(heads, inner, state, groups, chunk)
        self._parts = [inner, convolved, heads]

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        dtype, s = x.dtype, self._scan
        x = hide_padding(t, x, call)
        projected = self.into(t, x, call)
        a = exp(t, ops.cast(t, t.parameter(self.A_log), "float32", "scan: A in float32"), "scan: exp(A)")
        a = ops.scale(t, a, "scan: A")
        if t.kernels.fused_mixers:
            return scan_combined(t, s, projected, a, self._own(t), self.out_proj, normed="norm" in vars(self))
        gate, mixed, dt = ops.split(t, projected, self._parts, "state space: parts")
        mixed = hide_padding(t, self.conv1d(t, mixed, "silu"), call)
        wide = s.groups * s.state
        x, b, c = ops.split(t, mixed, [s.inner, wide, wide], "state space: input, B and C")
        out = s(t, x, dt, a, b, c, t.parameter(self.D), t.parameter(self.dt_bias))
        out = self.normed(t, out, gate)
        return self.out_proj(t, ops.cast(t, out, dtype, "state space: result"))

    def _own(self, t: Tape) -> list[Tensor]:
        """What a fused scan is handed beside the projections' weights."""
        norm = [self.norm.weight] if "norm" in vars(self) else []
        found = [self.conv1d.weight, self.conv1d.bias, self.dt_bias, self.D, *norm]
        return [t.parameter(each) for each in found if each is not None]

    def into(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """The projection."""
        return self.in_proj(t, x)

    def normed(self, t: Tape, x: Tensor, gate: Tensor) -> Tensor:
        """The gated norm."""
        return self.norm(t, x, gate)


def headed_mixer(config: Config, hidden: int, *, conv_bias: bool | None = None, norm_groups: int = 1) -> HeadedMixer:
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
        chunk=config.integer("mamba_chunk_size", default=256, high=MAX_GROUPS),
        norm_groups=norm_groups,
    )


class ShortConvolution(Module):
    """LFM2's gated short convolution."""

    def __init__(self, hidden: int, kernel: int, bias: bool) -> None:
        self.conv = DepthwiseConvolution(hidden, kernel, bias)
        self.in_proj = Linear(hidden, 3 * hidden, bias, name="convolution in")
        self.out_proj = Linear(hidden, hidden, bias, name="convolution out")
        self._hidden = hidden

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        x = hide_padding(t, x, call)
        before, behind, x = ops.split(t, self.in_proj(t, x), [self._hidden] * 3, "convolution: gates and input")
        x = ops.mul(t, before, x, "convolution: gated input")
        x = self.conv(t, x)
        y = ops.mul(t, behind, x, "convolution: gated result")
        return self.out_proj(t, y)


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
