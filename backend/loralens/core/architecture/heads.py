"""Heads other than the language model's: what transformers' classes of those names put on the model, and their losses.

Source: transformers 5.23 modeling_layers.py (`GenericForSequenceClassification` and its siblings), the encoders' own classes in
models/{bert,roberta,distilbert,modernbert}/modeling_*.py, loss/loss_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.loss import cross_entropy, plain_cross_entropy
from loralens.core.architecture.module import Linear, Module
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, SEQUENCE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.tape.tape import Tape

LM: Final = "lm"
SEQUENCE_CLASSIFICATION: Final = "sequence_classification"
REWARD: Final = "reward"
TOKEN_CLASSIFICATION: Final = "token_classification"
QUESTION_ANSWERING: Final = "question_answering"
EMBEDDING: Final = "embedding"
_CLASSES: Final = {
    "ForSequenceClassification": SEQUENCE_CLASSIFICATION,
    "ForTokenClassification": TOKEN_CLASSIFICATION,
    "ForQuestionAnswering": QUESTION_ANSWERING,
}
_WHOLE: Final = ("ChatGLMModel",)  # named by configs whose weights are the language model's
# a reward model has one number (TRL 1.16 trainer/reward_trainer.py), and an answer a start and an end (the models' losses split two)
OUTPUTS: Final = {REWARD: 1, QUESTION_ANSWERING: 2}
_SINGLE: Final = (SEQUENCE_CLASSIFICATION, REWARD)
# PEFT 0.21.2 utils/constants.py, `SEQ_CLS_HEAD_NAMES`; peft_model.py, the classes of the other task types
SAVED_BY_PEFT: Final = {
    SEQUENCE_CLASSIFICATION: ("classifier", "score"),
    REWARD: ("classifier", "score"),
    TOKEN_CLASSIFICATION: ("classifier", "score"),
    QUESTION_ANSWERING: ("qa_outputs",),
}


def head_of(config: Mapping[str, object], asked: str | None) -> str:
    """The head asked for, or the one that the config's `architectures` name; the language model's where they say nothing else."""
    if asked is not None:
        return asked
    names = config.get("architectures")
    name = names[0] if isinstance(names, (list, tuple)) and names else ""
    if not isinstance(name, str):
        return LM
    for ending, head in _CLASSES.items():
        if name.endswith(ending):
            return head
    if name in _WHOLE:
        return LM
    return EMBEDDING if name.endswith("Model") and not name.endswith("LMHeadModel") else LM


def without_classes(kind: str, asked: int | None) -> str:
    """Why a number of classes changes nothing with a head of this kind; empty where it does."""
    if asked is None or asked == OUTPUTS.get(kind):
        return ""
    return {
        LM: "this head is the language model's (head=sequence_classification)",
        EMBEDDING: "an embedding has no classes",
        REWARD: "a reward is one number",
        QUESTION_ANSWERING: "an answer is a start and an end",
    }.get(kind, "")


def labels_of(config: Config, head: str, asked: int | None) -> int:
    """Classes that a head tells apart: as asked, else as the config says, else two; some heads have no choice."""
    if head in OUTPUTS:
        return OUTPUTS[head]
    if asked is not None:
        return asked
    named = config.entries.get("id2label")
    return len(named) if isinstance(named, Mapping) and named else config.integer("num_labels", default=2)


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in the place of the language model's head, and how its loss is computed.

    `dropout` acts before `output` (None: an embedding has none), on what `pooled` makes of the positions: a module of the
    model's tree, (rows, hidden) to (samples, hidden), or to (rows, hidden) for tokens. Without it a single label is read at
    the last token after `output` has run on all. `upcasts`: the loss takes token logits in float32.
    """

    kind: str
    output: Linear | None
    dropout: float = 0.0
    pooled: Module | None = None
    upcasts: bool = False

    @property
    def single(self) -> bool:
        """One label per sample, not one per token."""
        return self.kind in (*_SINGLE, EMBEDDING)

    def labels(self) -> list[tuple[str, Size]]:
        """What a micro batch holds as labels: name and bytes."""
        if self.kind == EMBEDDING:
            return []
        if self.kind == QUESTION_ANSWERING:
            return [("start positions", BATCH * 8), ("end positions", BATCH * 8)]
        one = self.output is not None and self.output.out_features == 1
        return [("labels", (BATCH if self.single else TOKENS) * (4 if self.single and one else 8))]

    def loss(self, t: Tape, hidden: Tensor) -> Tensor:
        """Head and loss. Shapes: hidden (rows, hidden) of the last layer, normed."""
        mark = len(t.locals)
        try:
            return self._loss(t, hidden)
        finally:
            t.leave(mark)

    def _loss(self, t: Tape, hidden: Tensor) -> Tensor:
        if self.pooled is not None:
            hidden = self.pooled(t, hidden)
        if self.output is None:
            return _of_vectors(t, hidden if self.pooled is not None else first_token(t, hidden))
        hidden = ops.dropout(t, hidden, self.dropout, "head: dropout")
        logits: Tensor = self.output(t, hidden)
        if self.kind == QUESTION_ANSWERING:
            return _of_spans(t, logits)
        if self.single and self.pooled is None:
            logits = _at_last_token(t, logits)
        t.handed.returned(logits)
        if not self.single and not self.upcasts:
            return plain_cross_entropy(t, logits)
        if logits.width == 1:
            return _mean_square(t, ops.cast(t, logits, "float32" if t.autocast else logits.dtype, "score in float32"))
        if self.upcasts:
            logits = ops.cast(t, logits, "float32", "logits in float32")
        labels = t.new(ONE, "int64", 1, "labels")  # the batch's own; a view
        return cross_entropy(t, logits, labels)


def first_token(t: Tape, hidden: Tensor) -> Tensor:
    """`hidden[:, 0]`, a view whose gradient is scattered into zeros of the whole size. Shapes: (rows, h) to (samples, h)."""
    assert isinstance(hidden.width, int)
    out = Tensor(hidden.storage, BATCH * hidden.width, hidden.dtype, hidden.width)
    numel, dtype, width = hidden.numel, hidden.dtype, hidden.width
    t.record(
        "head: first token",
        [out],
        [hidden],
        [],
        lambda g: t.new(numel, dtype, width, "gradient: head input", "temporaries"),
    )
    return out


def mean_of_tokens(t: Tape, hidden: Tensor) -> Tensor:
    """The mean over the tokens that are no padding: a product with the mask, then a sum. Shapes: (rows, h) to (samples, h)."""
    assert isinstance(hidden.width, int)
    product = t.new(hidden.numel, hidden.dtype, hidden.width, "head: tokens that are no padding")
    out = t.new(BATCH * hidden.width, hidden.dtype, hidden.width, "head: mean of the tokens")
    t.end(product)
    numel, dtype, width = hidden.numel, hidden.dtype, hidden.width
    t.record(
        "head: mean of the tokens",
        [out],
        [hidden],
        [],
        lambda g: t.new(numel, dtype, width, "gradient: head input", "temporaries"),
    )
    return out


def _at_last_token(t: Tape, logits: Tensor) -> Tensor:
    """`logits[arange, last token that is no padding]`; backward scatters into zeros of the whole size."""
    assert isinstance(logits.width, int)
    t.local(t.new(TOKENS, "int32", 1, "which tokens are no padding"))
    t.local(t.new(SEQUENCE, "int32", 1, "places of tokens"))
    t.end(t.new(TOKENS, "int32", 1, "places of tokens that are no padding"))
    last = t.new(BATCH, "int64", 1, "last tokens")
    rows = t.new(BATCH, "int64", 1, "samples")
    out = t.new(BATCH * logits.width, logits.dtype, logits.width, "logits at the last token")
    numel, dtype, width = logits.numel, logits.dtype, logits.width
    t.record(
        "logits at the last token",
        [out],
        [logits],
        [rows, last],
        lambda g: t.new(numel, dtype, width, "gradient: logits at the last token", "logits"),
    )
    t.local(logits)
    return out


def _mean_square(t: Tape, scores: Tensor) -> Tensor:
    loss = t.new(ONE, scores.dtype, 1, "loss")
    numel, dtype = scores.numel, scores.dtype
    t.record("loss", [loss], [scores], [scores], lambda g: t.new(numel, dtype, 1, "gradient: scores", "logits"))
    return loss


def _of_spans(t: Tape, logits: Tensor) -> Tensor:
    """Where an answer begins and where it ends: the two columns apart, a cross entropy over the positions for each."""
    begins, ends = (ops.copy(t, part, "logits of one end") for part in ops.split(t, logits, [1, 1], "logits, apart"))
    t.local(logits)
    t.handed.returned(begins, ends)
    first, second = (plain_cross_entropy(t, Tensor(x.storage, x.numel, x.dtype, 1, x.node)) for x in (begins, ends))
    total = ops.scale(t, ops.add(t, first, second, "loss, both"), "loss")
    return total


def _of_vectors(t: Tape, vectors: Tensor) -> Tensor:
    """A loss on one vector per sample, whose own tensors are a few bytes each (assumption: which loss it is is not asked)."""
    t.handed.returned(vectors)
    loss = t.new(ONE, vectors.dtype, 1, "loss")
    numel, dtype, width = vectors.numel, vectors.dtype, vectors.width
    t.record("loss", [loss], [vectors], [], lambda g: t.new(numel, dtype, width, "gradient: vectors", "temporaries"))
    return loss


def attach(root: Module, name: str, head: Head) -> None:
    """Put a head's output layer into the model's tree and let the model's loss be the head's."""
    root.task = head
    root.own_loss = True
    root.tied = False
    vars(root).pop("head", None)  # a second name of what was there
    if head.output is not None:
        setattr(root, name, head.output)
    if not isinstance(getattr(type(root), "head", None), property):
        root.head = head.output


def output_layer(width: int, labels: int, *, bias: bool) -> Linear:
    """The last layer of a head."""
    return Linear(width, labels, bias, name="head")


def no_such_head(model_type: str, kind: str) -> UnsupportedArchitecture:
    """The refusal of a head that the family does not have."""
    return UnsupportedArchitecture(
        f"{model_type} with a head for {kind.replace('_', ' ')} is not modelled, or transformers has none",
        field="head",
        hint="head=lm computes the model with its own head",
    )


def owned(root: Module, head: str) -> tuple[str, ...]:
    """Which modules PEFT trains in full beside the adapter because of the head's task type."""
    return tuple(name for name in SAVED_BY_PEFT.get(head, ()) if isinstance(vars(root).get(name), Module))


_BOTH: Final = frozenset(_SINGLE)
_TOKENS: Final = _BOTH | {TOKEN_CLASSIFICATION}
_SPANS: Final = _BOTH | {QUESTION_ANSWERING}
_ALL: Final = _TOKENS | _SPANS
# which classes transformers 5.23 has beside the causal language model (models/auto/modeling_auto.py); every family has its base model
DECODERS: Final = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gpt2", "smollm3", "gpt_neox", "falcon", "bloom", "mixtral", "qwen3_moe",
         "qwen2_moe", "seed_oss", "arcee", "nemotron", "exaone4", "ministral", "ministral3", "qwen3_next", "minimax"),
        _ALL,
    ),
    **dict.fromkeys(
        ("phi3", "phi", "gemma", "gemma2", "starcoder2", "glm", "glm4", "gpt_bigcode", "stablelm", "gpt_oss", "deepseek_v3",
         "helium"),
        _TOKENS,
    ),
    **dict.fromkeys(("gptj", "opt"), _SPANS),
    **dict.fromkeys(
        ("gemma3_text", "olmo2", "deepseek_v2", "olmo", "olmo3", "hunyuan_v1_dense", "jamba", "zamba", "zamba2",
         "qwen3_5_text"),
        _BOTH,
    ),
}  # fmt: skip
# older classes: a layer `classifier` for tokens, and a cross entropy on the logits as they are
_CLASSIFIER: Final = frozenset({"gpt2", "gpt_neox", "falcon", "bloom", "gpt_bigcode"})


def attach_to_decoder(root: Module, model_type: str, kind: str, labels: int, width: int, config: Config) -> None:
    """`score` on every position (for tokens: behind a dropout), `qa_outputs`, or nothing, in the place of `lm_head`."""
    if kind == EMBEDDING:
        return attach(root, "", Head(kind, None))
    if kind in _SINGLE:
        return attach(root, "score", Head(kind, output_layer(width, labels, bias=False)))
    output = output_layer(width, labels, bias=True)
    if kind == QUESTION_ANSWERING:
        return attach(root, "qa_outputs", Head(kind, output))
    older = model_type in _CLASSIFIER
    chosen = next((name for name in ("classifier_dropout", "hidden_dropout") if config.has(name)), "classifier_dropout")
    head = Head(kind, output, dropout=config.number(chosen, 0.1, 0, 1), upcasts=not older)
    return attach(root, "classifier" if older else "score", head)
