"""What is handed back beside a result, and who holds it: the training loop, the model's cache, the layer around attention."""

from __future__ import annotations

from dataclasses import dataclass, field

from loralens.core.tape.graph import Tensor
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ZERO, Size


@dataclass(slots=True)
class HandedBack:
    """Results beside the one that the next operator takes."""

    outputs: list[Tensor] | None = None  # what the model returns, if the loop keeps it
    cache: list[tuple[Tensor, int]] | None = None  # keys and values with their layer, if the model caches
    variables: list[Storage] = field(default_factory=list)  # of the training loop, until backward is over
    until_step: list[Storage] = field(default_factory=list)  # of the training loop, until the step has been taken
    logged: Size = (
        ZERO  # bytes of what the loop makes for its log, when the step has been taken and the gradients are gone
    )
    weights: Tensor | None = None  # what eager attention returns beside its result

    def take_weights(self) -> Tensor | None:
        """What attention returned beside its result, for a local variable of the layer."""
        taken, self.weights = self.weights, None
        return taken

    def returned(self, *tensors: Tensor) -> None:
        """The model returns these beside the loss: a loop that keeps its output holds them until the next one is there."""
        if self.outputs is not None:
            self.outputs += [Tensor(x.storage, x.numel, x.dtype, x.width) for x in tensors]

    def bind(self, tensor: Tensor) -> None:
        """The loop's name for what the model returns is bound anew, and what it named before ends."""
        if self.outputs is not None:
            for before in self.outputs:
                before.end()
            self.outputs = []
            self.returned(tensor)

    def cached(self, layer: int, *tensors: Tensor) -> None:
        """The model's cache holds these until it is dropped with the model's output."""
        if self.cache is not None:
            self.cache += [(Tensor(x.storage, x.numel, x.dtype, x.width), layer) for x in tensors]

    def hold(self, tensor: Tensor) -> None:
        """The training loop has this in a local variable while backward runs."""
        if tensor.storage is not None:
            self.variables.append(tensor.storage)

    def end_backward(self) -> None:
        """Backward is over: the training loop's variables of it end."""
        self.variables.clear()
