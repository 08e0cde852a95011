"""Every tensor of a training step with its name, bytes, place, birth and release: the plan's ledger, not summed up.

The walk is the one in which each layer is walked (`core.step.events`). Time is counted in events: an allocation or a release
is one. A place is a stretch of the model between two marks of the forward pass: the embeddings, each layer, head and loss.
What backward makes stands at the place whose operator it goes back through.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from loralens.core.answer.answers import model_object, read_body
from loralens.core.answer.cost import check_written
from loralens.core.answer.explain import formula
from loralens.core.answer.named_requests import NamedLedger
from loralens.core.answer.plan import plan_for
from loralens.core.answer.trainer import trained
from loralens.core.architecture.module import Embedding
from loralens.core.architecture.registry import label_parameters
from loralens.core.objectives.assembled import assemble, refuse_two
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.rank import refuse_cut
from loralens.core.step.held import held_parameters, named_parameters, placed_parameters, trained_tensors
from loralens.core.step.optimizer import OPTIMIZERS, Trained
from loralens.core.step.rows import in_rows
from loralens.core.step.static import book_beside, book_static
from loralens.core.step.step import run_micro_batch, step_temporaries
from loralens.core.tape.ledger import Entry, Ledger
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import Size, monomial_values
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.answer.lifetime_shapes import Lifetimes, LifetimesAnswer, TensorLives
    from loralens.core.answer.plan_shapes import Category
    from loralens.core.architecture.causal import Root
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Node, Tensor
    from loralens.core.tape.parameter import Parameter

FEWER: Final = (
    "ask for one method, for a shorter sequence or for a model of the same kind with fewer layers (num_hidden_layers); "
    "loralens.core.answer.lifetimes in Python has no limit"
)
ELSEWHERE: Final = "elsewhere"
"""The place of what belongs to no stretch of the model: buffers, shared parts, another model's weights."""


class _LivesLedger(NamedLedger):
    """Also keeps marks, new names, and which node of the graph ran backward at a birth (0: none, it is forward)."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: _Placed
        self.marks: list[tuple[str, str, int, int]] = []  # phase, label, events and nodes until then
        self.renamed: list[tuple[int, int, Entry]] = []  # events until then, storage, new name
        self.node = 0
        self.node_at_birth: list[int] = []

    def book(self, size: Size, category: str, label: str) -> int:
        """A storage is born."""
        self.node_at_birth.append(self.node)
        return super().book(size, category, label)

    def rename(self, size: Size, old: Entry, new: Entry, number: int = 0) -> None:
        """A storage has a new name."""
        self.renamed.append((len(self.events), number, new))

    def enter(self, phase: str) -> None:
        """A phase begins."""
        super().enter(phase)
        self.phase = phase

    def mark(self, label: str) -> None:
        """A stretch of the model is behind."""
        self.marks.append((self.phase, label, len(self.events), self.tape.nodes))


class _Placed(Tape):
    """Tells its ledger which node of the forward pass runs backward; what a second run of a region makes is not newer."""

    def __init__(self, ledger: _LivesLedger, **words: Any) -> None:
        super().__init__(ledger, **words)
        self._lives, self._forward = ledger, 0
        ledger.tape = self

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self._sequence

    def backward(self, loss: Tensor) -> None:
        """Run the graph behind a loss."""
        self._forward = self._sequence
        super().backward(loss)

    def _run(self, node: Node, arrived: list[Tensor | None]) -> list[Tensor | None]:
        if node.sequence <= self._forward:
            self._lives.node = node.sequence
        return super()._run(node, arrived)


@dataclass(slots=True)
class Lives:
    """What one step's tensors were; numbers of kinds and places are places in these lists."""

    places: list[str]
    kinds: dict[tuple[int, str, str], int] = field(default_factory=dict)  # bytes, category, name
    formulas: list[str] = field(default_factory=list)
    resting: list[tuple[int, int, bool]] = field(default_factory=list)  # kind, place, whether it trains
    tensors: list[tuple[int, int, int]] = field(default_factory=list)  # kind, place, birth
    deaths: dict[int, int] = field(default_factory=dict)  # tensor: event
    renames: list[tuple[int, int, int]] = field(default_factory=list)  # tensor, event, kind
    marks: list[tuple[str, str, int]] = field(default_factory=list)  # phase, label, event
    events: int = 0

    def kind(self, count: int, category: str, name: str, said: str) -> int:
        """The number of a kind, a new one if there is none yet."""
        if (count, category, name) not in self.kinds:
            self.formulas.append(said)
        return self.kinds.setdefault((count, category, name), len(self.kinds))

    def peak_bytes(self) -> int:
        """The largest sum that is alive at once."""
        sizes = [count for count, _, _ in self.kinds]
        change = [0] * (self.events + 1)
        change[0] = sum(sizes[kind] for kind, _, _ in self.resting)
        for number, (kind, _, birth) in enumerate(self.tensors):
            change[birth] += sizes[kind]
            if number in self.deaths:
                change[self.deaths[number]] -= sizes[kind]
        alive = highest = 0
        for step in change:
            alive += step
            highest = max(highest, alive)
        return highest

    def to_dict(self) -> TensorLives:
        """As the API serves it."""
        return {
            "places": self.places,
            "kinds": [
                {"name": name, "category": cast("Category", category), "bytes": count, "formula": said}
                for (count, category, name), said in zip(self.kinds, self.formulas, strict=True)
            ],
            "resting": {
                "kind": [kind for kind, _, _ in self.resting],
                "place": [place for _, place, _ in self.resting],
                "trains": [trains for _, _, trains in self.resting],
            },
            "tensors": {
                "kind": [kind for kind, _, _ in self.tensors],
                "place": [place for _, place, _ in self.tensors],
                "birth": [birth for _, _, birth in self.tensors],
                "death": [self.deaths.get(number) for number in range(len(self.tensors))],
            },
            "renames": [{"tensor": number, "event": event, "kind": kind} for number, event, kind in self.renames],
            "marks": [{"phase": phase, "label": label, "event": event} for phase, label, event in self.marks],
            "events": self.events,
            "peak_bytes": self.peak_bytes(),
        }


def lifetimes(model: Model, method: str, recipe: Recipe) -> Lives:
    """Walk a step and write down every tensor.

    Raises:
        InvalidInput: a step of too many tensors, or a model that is cut among GPUs.
        UnsupportedArchitecture: the step of this family is not modelled.
    """
    refuse_cut(recipe)
    refuse_two(recipe)
    assembled = assemble(model.config, method, recipe)
    root, recipe = assembled.root, in_rows(assembled.recipe)
    label_parameters(root)
    validity = Validity(recipe)
    held, placed = held_parameters(root), placed_parameters(root)
    strategy = strategy_of(recipe, adapters=any(parameter.role == "adapter" for parameter in placed))
    static = Ledger()
    book_static(static, root, held, recipe, validity, strategy)
    for other in assembled.beside.frozen.values():
        book_beside(static, other, strategy)
    ledger = _LivesLedger()
    tape = _Placed(
        ledger,
        validity=validity,
        hooks=strategy,
        every_layer=True,
        autocast=recipe.autocast,
        kernels=Kernels.of(recipe),
    )
    with strategy.in_use(placed):
        batch = run_micro_batch(tape, root, assembled.prepared, recipe, validity, assembled.beside)
    values = monomial_values(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)

    def at(size: Size) -> int:
        return sum(c * v for c, v in zip(size, values, strict=True) if c)

    forward = [mark for mark in ledger.marks if mark[2] <= ledger.begins["backward"]]
    lives = Lives(places=list(dict.fromkeys(label for _, label, _, _ in forward)))
    _book_tensors(lives, ledger, forward, at)
    tape.end(*batch)  # alive until the step's end
    temporary = step_temporaries(trained_tensors(held, recipe), recipe, strategy)
    if any(temporary):
        kind = lives.kind(at(temporary), "temporaries", "optimizer step", formula(temporary))
        lives.tensors.append((kind, len(lives.places) - 1, lives.events))
        lives.deaths[len(lives.tensors) - 1] = lives.events + 1
        lives.events += 2
    lives.marks.append(("optimizer", "end of the step", lives.events))
    _book_resting(lives, root, recipe, static, at)
    return lives


def _book_tensors(lives: Lives, ledger: _LivesLedger, forward: list[tuple[str, str, int, int]], at: Any) -> None:
    by_event, by_node = [event for _, _, event, _ in forward], [nodes for _, _, _, nodes in forward]
    numbers = {label: number for number, label in enumerate(lives.places)}
    births = {event: place for place, event in enumerate(ledger.events) if event > 0}
    last = len(lives.places) - 1
    for number, (size, category, label) in enumerate(ledger.names, 1):
        node = ledger.node_at_birth[number - 1]
        birth = births[number]
        index = bisect_left(by_node, node) if node else bisect_left(by_event, birth + 1)
        place = last if category == "logits" or index >= len(forward) else numbers[forward[index][1]]
        lives.tensors.append((lives.kind(at(size), category, label, formula(size)), place, birth))
    for place, event in enumerate(ledger.events):
        if event < 0:
            lives.deaths[-event - 1] = place
    for event, number, (category, label) in ledger.renamed:
        size = ledger.names[number - 1][0]
        lives.renames.append((number - 1, event, lives.kind(at(size), category, label, formula(size))))
    lives.marks = [(phase, label, event) for phase, label, event, _ in ledger.marks]
    lives.events = len(ledger.events)
    lives.marks.append(("backward", "graph released", lives.events))  # what it holds to the last, before the optimizer


def _book_resting(lives: Lives, root: Root, recipe: Recipe, static: Ledger, at: Any) -> None:
    """Weights, adapter and states by place; what is shared out otherwise than tensor by tensor stands elsewhere."""
    left = {entry: at(size) for entry, size in static.entries.items()}
    found: list[tuple[Entry, int, int, bool, str]] = []
    spent: dict[Entry, int] = {}
    states = OPTIMIZERS[recipe.optimizer]
    state_entry = next((entry for entry in left if entry[0] == "optimizer_state" and entry[1].startswith(recipe.optimizer)), None)  # fmt: skip
    for place, parameter in _by_place(root, lives.places):
        trains = parameter.trainable and not parameter.idle
        entry = ("adapter" if parameter.role == "adapter" else "weights", parameter.label)
        found.append((entry, at(parameter.bytes), place, trains, formula(parameter.bytes)))
        if trains and state_entry is not None:
            rank = recipe.lora.rank
            tensor = Trained(parameter.numel, parameter.shape, parameter.dtype, 1, parameter.numel.at(1, 1, rank))
            size = states.state(tensor)
            found.append((state_entry, at(size), place, True, formula(size)))
    for entry, count, _, _, _ in found:
        spent[entry] = spent.get(entry, 0) + count
    for entry, count, place, trains, said in found:
        if count and spent[entry] <= left.get(entry, 0):
            lives.resting.append((lives.kind(count, *entry, said), place, trains))
    elsewhere = [(entry, count - (spent.get(entry, 0) if spent.get(entry, 0) <= count else 0)) for entry, count in left.items()]  # fmt: skip
    if any(count for _, count in elsewhere):
        lives.places.append(ELSEWHERE)
    for entry, count in elsewhere:
        if count:
            kind = lives.kind(count, *entry, f"{count:,}")
            lives.resting.append((kind, len(lives.places) - 1, entry[0] == "optimizer_state"))


def _by_place(root: Root, places: list[str]) -> Iterable[tuple[int, Parameter]]:
    """Every parameter once for each place of its own; tied ones once, where they stand first."""
    last = len(places) - 1
    for name, module, parameter in named_parameters(root):
        for number, place in enumerate(places):
            if name == place or name.startswith(f"{place}."):
                yield number, parameter
                break
        else:
            yield 0 if isinstance(module, Embedding) else last, parameter


def lifetimes_answer(body: Mapping[str, Any], *, most_passes: int | None = None) -> LifetimesAnswer:
    """`POST /api/lifetimes`: one list of tensors per method. `most_passes` bounds what it may cost, see `core.answer.cost`.

    Raises:
        InvalidInput: the body, or a step of too many tensors.
        InputTooLarge: it would cost more.
        UnknownModel, UnknownGpu: nothing has that name.
        UnsupportedArchitecture: the step of this family is not modelled.
    """
    model, names, recipe, _ = read_body(body)
    if most_passes is not None:
        check_written(model, len(names), recipe, most_passes, FEWER)
    found: list[Lifetimes] = []
    for name in names:
        asked = trained(model, name, recipe)
        plan = plan_for(model, name, asked)
        found.append({"method": name, "recipe": plan.used(asked).to_dict(), **lifetimes(model, name, asked).to_dict()})
    return {"model": model_object(model), "lifetimes": found}
