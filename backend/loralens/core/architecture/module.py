"""The module tree: PyTorch's names and shapes, without tensors.

A family is written like its Hugging Face model: modules own parameters and submodules as attributes (so names come out
as `model.layers.0.self_attn.q_proj.weight`) and `forward` runs symbolic operations on a tape. Layers of one kind share
one module object; `Stack` knows how often each stands where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from loralens.core.tape import derivatives, ops
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import Size
from loralens.core.tape.work import looked_up

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape


class LayerAdapter(Protocol):
    """What a method adds to one linear layer: parameters, and ops around the layer's own product."""

    def parameters(self) -> dict[str, Parameter]:
        """The added parameters by name (relative to the layer)."""

    def forward(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """The layer's result with the adapter in place."""


class Module:
    """A node of the tree; parameters and submodules are found among its attributes, in order of definition."""

    path: str = ""
    wraps: str | None = (
        None  # the class of transformers around a linear layer, which PEFT refuses under this module's name
    )
    stacked = False  # one tensor holds the weights of many experts, which quantizers of linear layers pass over
    multiplies: bool | None = None  # do its own matrices meet every position? None: linear layers and experts tell
    adapter: Any = None  # what a method adds to it: a `LayerAdapter` on a linear layer, others on tables and experts

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Submodules may be set under a family's own names."""

        def __setattr__(self, name: str, value: Any) -> None: ...

    around: Callable[..., Any] | None = None  # what runs in place of `forward`, which it is given (`core.partition`)
    saved: Module | None = None  # a trainable copy that runs in place of the frozen original (`modules_to_save`)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules by name; a second name for one of them (`head` for `lm_head`) does not count."""
        found: dict[int, tuple[str, Module]] = {}
        for name, value in vars(self).items():
            if isinstance(value, Module):
                found.setdefault(id(value), (name, value))
        return iter(found.values())

    def own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters held by this module itself."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def owned(self) -> list[tuple[str, Parameter]]:
        """Its own parameters, then its adapter's, by their names in it."""
        added = () if self.adapter is None else self.adapter.parameters().items()
        return [*self.own_parameters(), *added]

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and everything under it with full names; a stack's layers appear once per index."""
        yield prefix, self
        for name, child in self.children():
            yield from child.walk(f"{prefix}.{name}" if prefix else name)

    def distinct(self) -> list[tuple[str, Module, int]]:
        """Like `walk`, but layers that share one object appear once, with the number of places they stand in."""
        found: list[tuple[str, Module, int]] = []
        self.list_into(found, "", 1)
        return found

    def list_into(self, found: list[tuple[str, Module, int]], prefix: str, places: int) -> None:
        """Add this module and everything under it."""
        found.append((prefix, self, places))
        for name, child in self.children():
            child.list_into(found, f"{prefix}.{name}" if prefix else name, places)

    def all_parameters(self) -> list[Parameter]:
        """Every parameter of this module and of what is under it once, adapters included."""
        found = {id(parameter): parameter for _, module in self.walk() for _, parameter in module.owned()}
        return list(found.values())

    def arguments(self, call: Call) -> Call:
        """What a layer is called with: all that the model has made, unless its kind of layer takes less."""
        return call

    def forward(self, t: Tape, *args: Any) -> Any:
        """Run the module symbolically."""
        raise TypeError(f"{type(self).__name__} cannot be called")

    def __call__(self, t: Tape, *args: Any) -> Any:
        mark = len(t.locals)
        run = (self.saved if self.saved and t.adapters else self).forward
        out = run(t, *args) if self.around is None else self.around(t, run, *args)
        t.leave(mark)
        return out


class Linear(Module):
    """A linear layer. Shapes: weight (out_features, in_features); Conv1D (GPT-2) holds it transposed."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = False, *, name: str = "", transposed: bool = False
    ) -> None:
        self.in_features = in_features
        self.out_features = out_features
        self.transposed = transposed
        self.weight = Parameter((in_features, out_features) if transposed else (out_features, in_features))
        self.bias = Parameter((out_features,)) if bias else None
        self.adapter: LayerAdapter | None = None
        self.label = name
        self.packable = True  # quantizers replace plain linear layers, not subclasses of them

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: x (rows, in_features) to (rows, out_features)."""
        return self.adapter.forward(t, self, x) if self.adapter and t.adapters else self.base(t, x)

    def base(self, t: Tape, x: Tensor) -> Tensor:
        """The layer's own product, without its adapter."""
        if self.weight.packing:
            return self.weight.packing.linear(t, self, x)
        return ops.linear(t, x, self.weight, self.label, self.bias)


class FusedLinear(Linear):
    """One matrix whose output is cut into parts that adapters know by names of their own (`parts`: name to width)."""

    def __init__(self, in_features: int, parts: Mapping[str, int], bias: bool = False, *, name: str = "") -> None:
        super().__init__(in_features, sum(parts.values()), bias, name=name)
        self.parts = dict(parts)


class Embedding(Module):
    """A table of vectors. Shapes: weight (entries, width)."""

    def __init__(self, entries: int, width: int) -> None:
        self.weight = Parameter((entries, width))
        self.width = width
        self.parts = 1  # of how many the weight is one, where its gradient is made whole

    def forward(self, t: Tape, rows: Size, label: str = "embeddings", indices: Tensor | None = None) -> Tensor:
        """Rows of the table for `rows` indices, with what an adapter does to them."""
        if self.adapter and t.adapters:
            out: Tensor = self.adapter.looked_up(t, self, rows, label, indices)
            return out
        return self.base(t, rows, label, indices)

    def base(self, t: Tape, rows: Size, label: str, indices: Tensor | None, weight: Tensor | None = None) -> Tensor:
        """The table's own rows; `weight`: of a table that stands in its place."""
        category = "temporaries" if weight is not None or self.weight.gradient_kept else "gradients"
        w = t.parameter(self.weight) if weight is None else weight
        return look_up(t, w, rows * self.width, label, indices, category, self.parts)


def look_up(
    t: Tape,
    weight: Tensor,
    numel: Size,
    label: str,
    indices: Tensor | None = None,
    category: str = "temporaries",
    parts: int = 1,
) -> Tensor:
    """Rows of a table for indices that backward needs; the table's gradient is dense, `parts` times as large.

    Shapes: weight (entries, width), result (rows, width) of `numel` elements.
    Source: aten/src/ATen/native/cuda/Embedding.cu, `embedding_dense_backward`: sorts the indices, four int64 arrays.
    """
    out = t.new(numel, weight.dtype, weight.width, label)
    size, rows = (weight.numel * parts, weight.dtype, weight.width), ops.divide(numel, weight.width)

    def apply(g: Tensor) -> Tensor:
        with t.temporary(rows * 4, "int64", 1, "embedding backward: sorted indices", "temporaries"):
            return t.new(*size, "gradient: embedding weight", category)

    saved = derivatives.EMBEDDING.kept(weight=weight, indices=indices)
    t.record(label, [out], [weight], saved, apply, lambda: looked_up(out))
    return out


class Stack(Module):
    """Repeated layers. `kinds[i]` says what layer i is; `make(kind)` builds one; equal layers share one object."""

    def __init__(self, make: Callable[[Any], Module], kinds: Sequence[Hashable]) -> None:
        self._make = make
        self.kinds = list(kinds)
        self.layers = self._built()

    def _built(self) -> list[Module]:
        built: dict[Hashable, Module] = {}
        for kind in self.kinds:
            if kind not in built:
                built[kind] = self._make(kind)
        return [built[kind] for kind in self.kinds]

    def changed(self, change: Callable[[Module], None]) -> None:
        """Every layer, those too that are made later, has been changed after it was made."""
        make = self._make

        def made(kind: Any) -> Module:
            layer = make(kind)
            change(layer)
            return layer

        self._make = made
        self.layers = self._built()

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def make(self) -> Callable[[Any], Module]:
        """What builds a layer of a kind."""
        return self._make

    def remake(self, make: Callable[[Any], Module], kinds: Sequence[Hashable] | None = None) -> None:
        """Build all layers anew, by another function or of other kinds."""
        Stack.__init__(self, make, self.kinds if kinds is None else kinds)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Every layer with its index."""
        yield prefix, self
        for index, layer in enumerate(self.layers):
            yield from layer.walk(f"{prefix}.{index}")

    def list_into(self, found: list[tuple[str, Module, int]], prefix: str, places: int) -> None:
        """Every kind of layer under the index where it stands first."""
        found.append((prefix, self, places))
        repeats = Counter(map(id, self.layers))
        for index, layer in enumerate(self.layers):
            count = repeats.pop(id(layer), 0)
            if count:
                layer.list_into(found, f"{prefix}.{index}", places * count)

    def specialise(
        self,
        prefix: str,
        signature: Callable[[str, Module], Hashable],
        apply: Callable[[str, Module, Any], None],
        *,
        everywhere: bool = False,
    ) -> None:
        """Give layers that a method treats differently objects of their own, and apply the method to each.

        `signature(name, module)` says what a method does to a module of that full name; layers with equal kinds and equal
        signatures stay one object. `everywhere`: a signature does not depend on the layer's index, so it is asked once.
        """
        built: dict[Hashable, Module] = {}
        known: dict[int, tuple[Hashable, ...]] = {}
        inside = {id(layer): list(layer.walk()) for layer in {id(layer): layer for layer in self.layers}.values()}
        for index, kind in enumerate(self.kinds):
            original = id(self.layers[index])
            if original not in known or not everywhere:
                known[original] = tuple(
                    signature(f"{prefix}.{index}.{path}" if path else f"{prefix}.{index}", module)
                    for path, module in inside[original]
                )
            signs = known[original]
            key = (kind, signs)
            if key not in built:
                layer = self._make(kind)
                # listed first: a method that adds a copy to a module adds to the walk
                for (path, module), sign in zip(list(layer.walk()), signs, strict=True):
                    apply(f"{prefix}.{index}.{path}", module, sign)
                built[key] = layer
            self.layers[index] = built[key]
