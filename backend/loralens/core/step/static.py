"""What a step finds when it begins: weights, states, and gradients of earlier micro batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.held import held_parameters, trained_tensors
from loralens.core.step.optimizer import OPTIMIZERS
from loralens.core.tape.size import ONE, ZERO, share

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.parallel.strategy import Strategy
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.held import Held
    from loralens.core.step.optimizer import Trained
    from loralens.core.tape.ledger import Ledger
    from loralens.core.tape.size import Size
    from loralens.core.tape.validity import Validity


def book_beside(ledger: Ledger, root: Root, strategy: Strategy) -> Size:
    """Book the weights of a model that does not learn; returns what lives in host memory instead."""
    host, held = ZERO, held_parameters(root)
    for item in held:
        size = share(item.parameter.bytes * item.count, strategy.parts(item.parameter))
        if strategy.host.weights:
            host = host + size
        else:
            ledger.book(size, "weights", item.parameter.label)
    buffers = root.buffers(held[0].parameter.dtype)
    if buffers:
        ledger.book(ONE * buffers, "weights", "buffers")
    return host


def book_static(
    ledger: Ledger,
    root: Root,
    held: list[Held],
    recipe: Recipe,
    validity: Validity,
    strategy: Strategy,
    whose: str = "",
    *,
    learning: bool = True,
) -> Size:
    """Book what exists before the step begins; returns what lives in host memory instead.

    `learning`: with the gradients of earlier micro batches (`book_kept`). `whose`: a second learner's name.
    """
    host = gradients = ZERO
    for item in held:
        parameter = item.parameter
        size = share(parameter.bytes * item.count, strategy.parts(parameter))
        if strategy.host.weights:
            host = host + size
        else:
            ledger.book(size, "adapter" if parameter.role == "adapter" else "weights", parameter.label)
        if parameter.trainable and not parameter.idle:
            gradients = gradients + parameter.bytes * item.count
    if learning:
        book_kept(ledger, root, held, recipe, validity, strategy)
    layers = (layer.all_parameters() for _, stack in root.stacks() for layer in stack.layers)
    strategy.book_gradients(ledger, gradients, layers)
    host = host + strategy.waiting(gradients)
    buffers = root.buffers(recipe.weights_dtype)
    if buffers:
        ledger.book(ONE * buffers, "weights", "buffers")
    return host + _book_states(ledger, held, recipe, validity, strategy, f"{whose}: " if whose else "")


def book_kept(
    ledger: Ledger, root: Root, held: list[Held], recipe: Recipe, validity: Validity, strategy: Strategy
) -> None:
    """Book the gradients of earlier micro batches, where they accumulate; later ones are added in place."""
    if recipe.gradient_accumulation_steps == 1 or recipe.optimizer_in_backward:
        return
    for item in held:
        parameter = item.parameter
        if parameter.trainable and not parameter.idle:
            parameter.gradient_kept = strategy.adds_in_place
            kept = strategy.accumulated(parameter.bytes * item.count, parameter)
            if any(kept):
                ledger.book(kept, "gradients", "gradients: " + parameter.label)
    beside = share(root.kept_beside(validity), strategy.gradients)
    if any(beside):
        ledger.book(beside, "gradients", "what gradients that are views hold beside themselves")


def _book_states(
    ledger: Ledger, held: list[Held], recipe: Recipe, validity: Validity, strategy: Strategy, whose: str
) -> Size:
    trained = trained_tensors(held, recipe)
    alike = dict.fromkeys(tensor.shared_by for tensor in trained)
    state = master = paged = ZERO
    for parts in alike:
        own = [tensor for tensor in trained if tensor.shared_by == parts]
        held_here = _states(own, recipe, validity, strategy, parts)
        state, master, paged = state + held_here[0], master + held_here[1], paged + held_here[2]
    optimizer = OPTIMIZERS[recipe.optimizer]
    if strategy.host.states:
        return state + master + paged
    if any(state) and optimizer.tables_bytes:
        state = state + ONE * (optimizer.tables_bytes * _optimizers(held, recipe, optimizer.thresholds[0]))
    if recipe.autocast == "float16":
        ledger.book(ONE * 8, "optimizer_state", "gradient scaler")
    if any(state):
        ledger.book(state, "optimizer_state", f"{whose}{recipe.optimizer}: {optimizer.formula}")
    if any(master):
        ledger.book(master, "optimizer_state", f"{whose}float32 master weights")
    return paged


def _states(
    trained: list[Trained], recipe: Recipe, validity: Validity, strategy: Strategy, parts: int | None
) -> tuple[Size, Size, Size]:
    """This GPU's part of states, master weights and paged states of tensors that are divided alike."""
    optimizer = OPTIMIZERS[recipe.optimizer]
    state = master = paged = counters = ZERO
    for tensor in trained:
        if copied := strategy.master_dtype(tensor.dtype):
            master = master + tensor.numel * (ITEM_BYTES[copied] * tensor.count)
            tensor = replace(tensor, dtype=copied)  # the optimizer sees the master weights
        state = state + optimizer.state(tensor) * tensor.count
        counters = counters + ONE * (optimizer.counter_bytes * tensor.count)
        if optimizer.paged is not None:
            paged = paged + optimizer.paged(tensor) * tensor.count
        for elements in optimizer.thresholds if tensor.numel[1] else ():  # where a growing tensor changes its rule
            validity.exceeds("rank", (elements - 1) // tensor.numel[1])
    among = parts or strategy.states
    return strategy.states_held(state, counters, parts), share(master, among), share(paged, among)


def _optimizers(held: list[Held], recipe: Recipe, smallest: int) -> int:
    """How many optimizers have code tables of their own: with a step in backward one for each tensor that needs them."""
    if not recipe.optimizer_in_backward:
        return 1
    return sum(tensor.count for tensor in trained_tensors(held, recipe) if tensor.elements >= smallest) or 1
