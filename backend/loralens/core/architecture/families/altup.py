"""Gemma 3n's alternating updates: several copies of the residual stream, of which one is computed and all are predicted and corrected.

Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py (`Gemma3nTextAltUp`, `Gemma3nTextLaurelBlock`); torch 2.13
torch/csrc/autograd/functions/tensor.cpp (`CopySlices`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.module import Linear, Module
from loralens.core.question.precision import promote
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class Laurel(Module):
    """A learned low-rank residual."""

    def __init__(self, hidden: int, rank: int) -> None:
        self.linear_left = Linear(hidden, rank, name="laurel left")
        self.linear_right = Linear(rank, hidden, name="laurel right")
        self.post_laurel_norm = PowerNorm(hidden)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        low = self.linear_left(t, x)
        low = self.linear_right(t, low)
        normed = self.post_laurel_norm(t, low)
        return ops.add(t, x, normed, "laurel")


class AltUp(Module):
    """Predicts every copy from all of them before a layer, and corrects them by what the layer made of one.

    `clips`: the coefficients' weights are clamped. `scales`: the first copy is multiplied by a learned vector.
    """

    def __init__(self, hidden: int, copies: int, *, clips: bool, scales: bool) -> None:
        self.correct_output_scale = Parameter((hidden,))
        self.correction_coefs = Linear(copies, copies, name="altup correction")
        self.prediction_coefs = Linear(copies, copies**2, name="altup prediction")
        self.correction_coefs.packable = self.prediction_coefs.packable = not clips
        self.modality_router = Linear(hidden, copies, name="altup router")
        self.router_norm = PowerNorm(hidden)
        self._copies, self._clips, self._scales = copies, clips, scales

    def router(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (rows, copies)."""
        inputs = ops.scale(t, self.router_norm(t, x), "altup router: inputs")
        routed = self.modality_router(t, inputs)
        wide = ops.tanh(t, ops.cast(t, routed, "float32", "altup router: in float32"), "altup router: tanh")
        return ops.cast(t, wide, x.dtype, "altup router: modalities")

    def predict(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (copies * rows, hidden) to the same."""
        modalities = self.router(t, stream(t, hidden, "computed copy"))
        coefficients = self.prediction_coefs(t, modalities)
        predictions = ops.matmul(t, hidden, coefficients, hidden.numel, hidden.width, "altup: predictions")
        predictions = ops.add_in_place(t, predictions, hidden)
        laid = ops.copy(t, predictions, "altup: predictions, copy by copy")
        return ops.cast(t, laid, hidden.dtype, "altup: predictions")

    def correct(self, t: Tape, predictions: Tensor, activated: Tensor) -> Tensor:
        """Shapes: predictions (copies * rows, hidden), activated (rows, hidden) to (copies * rows, hidden)."""
        modalities = self.router(t, activated)
        innovation = ops.sub(t, activated, stream(t, predictions, "computed copy"), "altup: innovation")
        innovation = ops.copy(t, innovation, "altup: innovation for all copies", numel=predictions.numel)
        if self._clips:
            weight = ops.clamp(t, t.parameter(self.correction_coefs.weight), "altup correction: clamped weight")
            coefficients = ops.linear(t, modalities, None, "altup correction", weight=weight)
        else:
            coefficients = self.correction_coefs(t, modalities)
        coefficients = ops.shift(t, coefficients, "altup correction: 1 + coefficients")
        corrected = ops.mul(t, innovation, coefficients, "altup: corrections")
        corrected = ops.add_in_place(t, corrected, predictions)
        return ops.cast(t, corrected, activated.dtype, "altup: corrected")

    def scaled(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        if not self._scales:
            return x
        scale = t.parameter(self.correct_output_scale)
        given = ops.cast(t, x, scale.dtype, "first copy in the scale's dtype")
        return ops.cast(t, ops.mul(t, given, scale, "first copy, scaled"), x.dtype, "first copy")

    def unread(self) -> Iterator[Parameter]:
        """An adapter's parameters whose layer is never called."""
        adapter = self.correction_coefs.adapter
        if self._clips and adapter is not None:
            yield from adapter.parameters().values()


def stream(t: Tape, hidden: Tensor, label: str) -> Tensor:
    """One of the copies: a view, whose gradient fills a zeroed tensor of all."""
    assert isinstance(hidden.width, int)
    return ops.cut(t, hidden, label, numel=TOKENS * hidden.width)


def magnitude(t: Tape, x: Tensor, label: str) -> Tensor:
    """The root of the mean square of each row."""
    squared = ops.power(t, x, f"{label}: squares")
    mean = ops.mean(t, squared, f"{label}: mean square")
    t.end(squared)
    return ops.power(t, mean, f"{label}: magnitude")


def joined_streams(
    t: Tape, first: Tensor, others: Sequence[tuple[Linear, Tensor]], target: Tensor, dtype: str
) -> tuple[Tensor, list[Tensor]]:
    """The first copy and projections, each as long as the target, in one tensor; and what the caller's names hold."""
    held, projected, length = [first], first, first
    for layer, given in others:
        projected = layer(t, given)
        current = ops.cast(t, projected, dtype, "copy, cast back")
        squared = ops.power(t, current, "copy: squares")
        length = ops.mean(t, squared, "copy: mean square")
        t.end(squared)
        length = derivatives.sqrt(t, ops.clamp(t, length, "copy: clamped mean square"), "copy: magnitude")
        current = divide_by(
            t, ops.mul(t, current, target, "copy times the target"), length, "copy, as long as the first"
        )
        held.append(current)
    wide = first.dtype
    for each in held:
        wide = promote(wide, each.dtype)
    parts = [ops.cast(t, each, wide, "copy in the wider dtype") for each in held]
    return ops.cat(t, parts, first.width, "all copies"), [*held, projected, length]


def add_to_rest(t: Tape, x: Tensor, more: Tensor) -> Tensor:
    """`x[1:] += more`, in x's own storage: an addition to a view and a copy of the view onto itself, two nodes with a view between.

    Backward copies the whole gradient in each, and the view's part of it besides.
    """
    whole, part = (x.numel, x.dtype, x.width), (x.numel - more.numel, x.dtype, x.width)
    other = (more.numel, more.dtype, more.width)

    def added(g: Tensor) -> list[Tensor | None]:
        result = t.new(*whole, "gradient: copies", "temporaries")
        with t.temporary(*part, "gradient: other copies", "temporaries"):
            return [result, t.new(*other, "gradient: what is added to the other copies", "temporaries")]

    def copied(g: Tensor) -> list[Tensor | None]:
        result = t.new(*whole, "gradient: copies", "temporaries")
        own = t.new(*part, "gradient: other copies", "temporaries")
        t.end(t.new(*part, "gradient: other copies, zeros", "temporaries"))
        return [result, own]

    first = Tensor(x.storage, *whole)
    t.record("other copies, added to", [first], [x, more], [], added)
    view = ops.cut(t, first, "other copies", numel=part[0])
    out = Tensor(x.storage, *whole)
    t.record("other copies, put back", [out], [first, view], [], copied)
    return out
