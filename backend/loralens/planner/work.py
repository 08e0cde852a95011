"""Floating-point operations of a training step, per token, and why LoRA saves a third of them and no more.

A multiply and an add are two operations. For a linear layer with n weights, per token:

- forward: 2n;
- gradient of its input: 2n, needed as soon as anything before it trains;
- gradient of its weight: 2n, only if the weight trains. A frozen weight has none: that is the third that LoRA saves.

Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1 (2n forward, twice that backward); the same accounting as
PaLM's appendix B (arXiv:2204.02311) for attention.
Leaves out: norms, activations, softmax, rotary embeddings, optimizer (each below 1% from 1B parameters up); that the
first layer of a frozen model needs no input gradient; flash attention's own recomputation; unpacking a 4-bit base;
that torch's checkpoint stops before the last product of a layer, which nothing needs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from loralens.core.texts import Both
from loralens.core.time.floats import added
from loralens.planner.texts import TEXTS


@dataclass(frozen=True, slots=True)
class Network:
    """What the count needs of a model, all per token.

    Attributes:
        matrix_parameters: weights that one token is multiplied with (head included, embedding table not;
            for a mixture of experts, the experts that one token visits).
        trained_matrix_parameters: those among them that train.
        adapter_parameters: LoRA's own, which all train.
        layer_matrix_parameters: the part of `matrix_parameters` inside the layers (not the head).
        attention_width: query heads × head width, summed over the layers.
        keys_per_token: how many keys a query meets on average (half the sequence under a causal kernel).
        mixing: operations of what else brings positions together in forward; of attention too, where layers differ.
    """

    matrix_parameters: int
    trained_matrix_parameters: int
    adapter_parameters: int
    layer_matrix_parameters: int
    attention_width: int
    keys_per_token: float
    mixing: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """Operations per token, by cause."""

    forward: float
    input_gradients: float
    weight_gradients: float
    adapter: float
    attention: float
    recomputation: float

    @property
    def total(self) -> float:
        """Operations per token of one training step."""
        return float(added(asdict(self).values()))

    def to_dict(self) -> dict[str, float]:
        """By cause, and their sum."""
        return {**asdict(self), "total": self.total}


def training_work(network: Network, *, gradient_checkpointing: bool = False) -> TrainingWork:
    """Operations per token of one step.

    >>> full = training_work(Network(1000, 1000, 0, 900, 0, 0.0))
    >>> lora = training_work(Network(1000, 0, 0, 900, 0, 0.0))
    >>> full.total, lora.total
    (6000.0, 4000.0)
    """
    # Scores q·k and the weighted sum of v: one multiply-add each per key and unit of width.
    attention = 4 * network.attention_width * network.keys_per_token + network.mixing
    return TrainingWork(
        forward=2 * network.matrix_parameters,
        input_gradients=2 * network.matrix_parameters,
        weight_gradients=2 * network.trained_matrix_parameters,
        adapter=6 * network.adapter_parameters,
        attention=3 * attention,
        # The layers run forward once more; the head does not.
        recomputation=2 * (network.layer_matrix_parameters + network.adapter_parameters) + attention
        if gradient_checkpointing
        else 0,
    )


def keys_per_token(sequence_length: int, window: int | None, *, causal: bool) -> float:
    """How many keys one query meets on average.

    A causal kernel skips what lies ahead; eager attention multiplies the whole square and masks afterwards.

    >>> keys_per_token(2048, None, causal=True), keys_per_token(2048, None, causal=False)
    (1024.5, 2048.0)
    """
    if not causal:
        return float(sequence_length)
    reach = min(sequence_length, window or sequence_length)
    # Queries 1..reach meet 1..reach keys; the others meet `reach`.
    return (reach * (reach + 1) / 2 + (sequence_length - reach) * reach) / sequence_length


def reasons(method: str, *, gradient_checkpointing: bool = False) -> Both:
    """Why a method costs what it costs, for people."""
    said = TEXTS("work.trained" if method == "full" else "work.frozen")
    if not gradient_checkpointing:
        return said
    again = TEXTS("work.again")
    return {"zh": said["zh"] + again["zh"], "en": said["en"] + again["en"]}


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a config that describes the language model (multimodal configs nest it)."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config
