"""RWKV (4): receptance, keys and values mixed over time, one position after the other, as transformers' own PyTorch code runs it.

Source: transformers 5.23, models/rwkv/modeling_rwkv.py.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import end_positions
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, ops
from loralens.core.tape.folding import assign
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by, exp, larger
from loralens.core.tape.size import BATCH, TOKENS
from loralens.core.tape.tape import Tape
from loralens.core.tape.turns import run_turns

KERNEL: Final = (
    "RWKV's recurrence runs as transformers' own PyTorch code, as without the kernel that the package kernels fetches; that kernel "
    "keeps key, value and output alone"
)


def shifted(t: Tape, x: Tensor) -> Tensor:
    """Every position's predecessor, zeros before the first."""
    return derivatives.padded(t, x, "time shift")


def mixed(t: Tape, x: Tensor, before: Tensor, parameter: Parameter, label: str) -> Tensor:
    """Position and predecessor, each with its share."""
    own = ops.mul(t, x, t.parameter(parameter), f"{label}: own share")
    other = ops.shift(t, t.parameter(parameter), f"{label}: the rest")
    of_other = ops.mul(t, before, other, f"{label}: share of the position before")
    t.end(other)
    out = ops.add(t, own, of_other, label)
    t.end(own, of_other)
    return out


class TimeMixing(Module):
    """`attention`. Shapes: time_decay, time_first (width), time_mix_* (1, 1, hidden)."""

    multiplies = False  # its own parameters weigh element by element

    def __init__(self, hidden: int, width: int) -> None:
        self.time_decay = Parameter((width,))
        self.time_first = Parameter((width,))
        for name in ("key", "value", "receptance"):
            setattr(self, f"time_mix_{name}", Parameter((1, 1, hidden)))
            setattr(self, name, Linear(hidden, width, name=f"time mixing: {name}"))
        self.output = Linear(width, hidden, name="time mixing: output")

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        before = shifted(t, x)
        key, value, receptance = (
            mixed(t, x, before, getattr(self, f"time_mix_{name}"), f"time mixing: input of {name}")
            for name in ("key", "value", "receptance")
        )
        key = t.replace(key, self.key(t, key))
        value = t.replace(value, self.value(t, value))
        given = self.receptance(t, receptance)
        receptance = t.replace(receptance, ops.sigmoid(t, given, "time mixing: receptance, squashed"))
        t.end(given, before)
        states = _Recurrence(t, t.parameter(self.time_decay), t.parameter(self.time_first), key, value).run()
        product = ops.mul(t, receptance, states, "time mixing: gated output")
        out: Tensor = self.output(t, product)
        return out


class _Recurrence:
    """Weighted means of the values so far: numerator, denominator and the largest exponent go from position to position."""

    def __init__(self, t: Tape, decay: Tensor, first: Tensor, key: Tensor, value: Tensor) -> None:
        assert isinstance(key.width, int)
        self._t, self._first, self._key, self._value = t, first, key, value
        self._width, self._one = key.width, BATCH * key.width
        self._output = t.new(TOKENS * key.width, key.dtype, key.width, "recurrence: output")
        self._num, self._den, zeros = (
            t.new(self._one, "float32", key.width, f"recurrence: {name} before the first")
            for name in ("numerator", "denominator", "exponent")
        )
        self._largest = t.replace(zeros, ops.shift(t, zeros, "recurrence: largest exponent"))
        self._decay = self._decayed(decay)

    def _decayed(self, decay: Tensor) -> Tensor:
        t = self._t
        powers = exp(t, decay, "recurrence: decay")
        return t.replace(powers, ops.scale(t, powers, "recurrence: negative decay"))

    def run(self) -> Tensor:
        """The output of all positions. Shapes: (rows, width)."""
        t = self._t
        last = run_turns(t, 1, self._largest, self._turn)
        t.end(last, self._num, self._den)
        return self._output

    def _turn(self, largest: Tensor, _: int) -> Tensor:
        """One position: its output, then the state for the next one."""
        t = self._t
        key = ops.cut(t, self._key, "recurrence: key of a position", numel=self._one)
        key = ops.cast(t, key, "float32", "recurrence: key of a position in float32")
        value = ops.cut(t, self._value, "recurrence: value of a position", numel=self._one)
        boosted = ops.add(t, key, self._first, "recurrence: key with the first's boost")
        top = larger(t, largest, boosted, "recurrence: largest exponent of the output")
        t.end(boosted)
        kept = self._power(largest, top)
        boosted = ops.add(t, key, self._first, "recurrence: key with the first's boost")
        new = self._power(boosted, top)
        t.end(boosted)
        numerator = self._weighted(kept, self._num, ops.mul(t, new, value, "recurrence: value, weighted"))
        denominator = self._weighted(kept, self._den, new)
        quotient = divide_by(t, numerator, denominator, "recurrence: quotient")
        given = ops.cast(t, quotient, self._output.dtype, "recurrence: output of a position")
        self._output = assign(t, self._output, given, "recurrence: output")
        t.end(*({id(each): each for each in (quotient, given)}.values()))
        decayed = ops.add(t, largest, self._decay, "recurrence: exponent, decayed")
        following = larger(t, decayed, key, "recurrence: largest exponent")
        t.end(decayed)
        decayed = ops.add(t, largest, self._decay, "recurrence: exponent, decayed")
        kept = t.replace(kept, self._power(decayed, following))
        t.end(decayed)
        new = t.replace(new, self._power(key, following))
        value = t.replace(value, ops.mul(t, new, value, "recurrence: value, weighted"))
        self._num = t.replace(self._num, self._weighted(kept, self._num, value))
        self._den = t.replace(self._den, self._weighted(kept, self._den, new))
        return following

    def _power(self, exponent: Tensor, top: Tensor) -> Tensor:
        t = self._t
        difference = ops.sub(t, exponent, top, "recurrence: exponent below the largest")
        found = exp(t, difference, "recurrence: weight")
        t.end(difference)
        return found

    def _weighted(self, kept: Tensor, state: Tensor, added: Tensor) -> Tensor:
        t = self._t
        before = ops.mul(t, kept, state, "recurrence: state, weighted")
        out = ops.add(t, before, added, "recurrence: state")
        t.end(before)
        return out


class ChannelMixing(Module):
    """`feed_forward`."""

    multiplies = False  # its own parameters weigh element by element

    def __init__(self, hidden: int, intermediate: int) -> None:
        self.time_mix_key = Parameter((1, 1, hidden))
        self.time_mix_receptance = Parameter((1, 1, hidden))
        self.key = Linear(hidden, intermediate, name="channel mixing: key")
        self.receptance = Linear(hidden, hidden, name="channel mixing: receptance")
        self.value = Linear(intermediate, hidden, name="channel mixing: value")

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        before = t.local(shifted(t, x))
        key, receptance = (
            mixed(t, x, before, getattr(self, f"time_mix_{name}"), f"channel mixing: input of {name}")
            for name in ("key", "receptance")
        )
        raw = self.key(t, key)
        rectified = ops.relu(t, raw, "channel mixing: rectified")
        t.end(raw)
        key = t.replace(key, ops.power(t, rectified, "channel mixing: squared"))
        t.end(rectified)
        value = t.local(self.value(t, key))
        given = self.receptance(t, receptance)
        receptance = t.replace(receptance, ops.sigmoid(t, given, "channel mixing: receptance, squashed"))
        t.end(given)
        return ops.mul(t, receptance, value, "channel mixing: gated output")


class RwkvBlock(Module):
    """The first block has a norm before everything else."""

    def __init__(self, hidden: int, width: int, intermediate: int, *, first: bool) -> None:
        if first:
            self.pre_ln = LayerNorm(hidden)
        self.ln1 = LayerNorm(hidden)
        self.ln2 = LayerNorm(hidden)
        self.attention = TimeMixing(hidden, width)
        self.feed_forward = ChannelMixing(hidden, intermediate)
        self._first = first

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        if self._first:
            hidden = self.pre_ln(t, hidden)
        attention = t.local(self.attention(t, self.ln1(t, hidden), call))
        hidden = ops.add(t, hidden, attention, "residual stream after time mixing")
        fed = t.local(self.feed_forward(t, self.ln2(t, hidden), call))
        return ops.add(t, hidden, fed, "residual stream after the layer")


class Rwkv(CausalDecoder):
    """The causal language model."""

    mixes = True
    caches = False
    turn = 1
    default_targets = ("key", "value", "receptance", "output")
    float32_modules = frozenset({"time_decay", "time_first"})

    def __init__(self, config: Config) -> None:
        own = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 1}
        hidden = config.integer("hidden_size")
        s = Shape.read(config.over(own, {"intermediate_size": 4 * hidden})).with_rotated(0)
        width = config.integer("attention_hidden_size", default=hidden)

        def block(first: object) -> RwkvBlock:
            return RwkvBlock(hidden, width, s.intermediate, first=bool(first))

        kinds = [index == 0 for index in range(s.layers)]
        self.assemble(s, block, kinds, norm=LayerNorm, names=PartNames("rwkv", "embeddings", "blocks", "ln_out"))
        del self.lm_head

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """None: no layer attends."""
        return []

    def masks(self, t: Tape, call: Call) -> None:
        """None, and no positions."""
        end_positions(t, call)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernel runs."""
        return [*super().assumptions(recipe), KERNEL]
