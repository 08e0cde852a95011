"""The divergence of two whole distributions, as TRL's GKD writes it out: every step of the formula is a tensor of logits' size.

Source: TRL 1.16.0 experimental/gkd/gkd_trainer.py, `generalized_jsd_loss`; aten/src/ATen/native/Loss.cpp, `kl_div` (log targets:
`exp(target) * (target - input)`), ReduceOps.cpp, `logsumexp`; FunctionsManual.cpp, `logsumexp_backward`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.losses.rows import labelled
from loralens.core.architecture.tiled import reduced
from loralens.core.tape import derivatives, ops
from loralens.core.tape.rows import like
from loralens.core.tape.size import BATCH, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape


def of_whole(t: Tape, student: Tensor, teacher: Tensor, call: Call) -> Tensor:
    """The loss. Shapes: student and teacher (rows, vocabulary), in float32 where accelerate wraps the models, which the training loop holds to the end."""
    t.ledger.where = "divergence"
    student_scaled, teacher_scaled = (
        _scaled(t, x, name) for x, name in ((student, "student's"), (teacher, "teacher's"))
    )
    of_student = ops.log_softmax(t, student_scaled, "log-probabilities, student's")
    of_teacher = ops.log_softmax(t, teacher_scaled, "log-probabilities, teacher's")
    match call.recipe.objective.divergence:
        case "forward_kl":
            found = _kl(t, of_student, of_teacher, "teacher")
        case "reverse_kl":
            found = _kl(t, of_teacher, of_student, "student")
        case _:
            mixture = _mixture(t, of_student, of_teacher)
            first, second = _kl(t, mixture, of_teacher, "teacher"), _kl(t, mixture, of_student, "student")
            first_weighed, second_weighed = (
                ops.scale(t, x, "divergence to the mixture, weighed") for x in (first, second)
            )
            found = ops.add(t, first_weighed, second_weighed, "divergence")
            t.end(first_weighed, second_weighed)
    rows = labelled(call)
    positions = t.new(rows * 2, "int64", 1, "counted positions")
    assert isinstance(found.width, int)
    found = ops.indexed(t, found, positions, rows * found.width, found.width, "divergence of the counted positions")
    return reduced(t, found, "loss")


def _scaled(t: Tape, logits: Tensor, whose: str) -> Tensor:
    assert isinstance(logits.width, int)
    shifted = ops.cut(t, logits, f"logits before the last, {whose}", numel=(TOKENS - BATCH) * logits.width)
    return ops.scale(t, shifted, f"logits by temperature, {whose}")


def _mixture(t: Tape, student: Tensor, teacher: Tensor) -> Tensor:
    shares = [ops.shift(t, x, "log-probabilities, weighed") for x in (student, teacher)]
    both = ops.cat(t, shares, student.width, "log-probabilities, stacked")
    shares.clear()
    return log_of_sum(t, both)


def log_of_sum(t: Tape, both: Tensor) -> Tensor:
    """`logsumexp` of two stacked tensors. Shapes: both (2, rows, vocabulary); result (rows, vocabulary)."""
    half = both.numel // 2
    largest = t.new(half, both.dtype, both.width, "log-probabilities, the larger")
    with t.temporary(both.numel, both.dtype, both.width, "log-probabilities, exponents"):
        out = t.new(half, both.dtype, both.width, "log-probabilities of the mixture")
        t.ledger.settle()
    t.end(largest)
    numel, dtype, width = both.numel, both.dtype, both.width

    def apply(g: Tensor) -> Tensor:
        # `grad * (self - result).exp()`: both temporaries of the expression end with it
        both = [like(t, numel, dtype, width, "gradient: mixture, exponents") for _ in range(2)]
        product = like(t, numel, dtype, width, "gradient: log-probabilities, stacked")
        t.end(*both)
        return product

    t.record("mixture", [out], [both], derivatives.LOGSUMEXP.kept(self=both, result=out), apply)
    return out


def _kl(t: Tape, given: Tensor, target: Tensor, name: str) -> Tensor:
    weights = ops.exp(t, target, f"probabilities, {name}'s")
    difference = ops.sub(t, target, given, f"log-probabilities less the mixture's, {name}'s")
    return ops.mul(t, weights, difference, f"divergence to the {name}")
