"""DeepSeek-MoE, the first: Llama's attention, experts one after the other beside shared ones, and a loss that balances them.

Under autocast the router's weights are float32, and with them everything behind the first sparse layer: nothing is cast back.

Source: deepseek-ai/deepseek-moe-16b-base on the Hub, modeling_deepseek.py, read in zhexiangzhang/ServerlessMOE 7e49d53
(bcmrk_transfomers/modeling_deepseek.py, with clocks added).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import DecoderLayer
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import Router, best
from loralens.core.architecture.moe_looped import EQUAL_SHARES
from loralens.core.architecture.moe_picked import PickedExperts, PickedMLP
from loralens.core.architecture.remote_decoder import GrownAttention, RemoteDecoder
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import divide_by
from loralens.core.tape.size import BATCH, ONE, TOKENS
from loralens.core.tape.tape import Tape


class BalancedGate(Router):
    """Softmax of all experts; `balances`: with a loss that spreads the choices, sample by sample."""

    normed = balances = False
    balance: Tensor | None = None

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        logits = ops.linear(t, x, self.weight, "router: logits")
        scores = ops.softmax(t, logits, "float32" if t.autocast else None, "router: scores")
        values, numbers = best(t, scores, self.chosen)
        if self.normed:
            total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1)
            values = divide_by(t, values, ops.shift(t, total, "router: sum + eps"), "router: normed scores")
        self.balance = self.balanced(t, scores) if self.balances else None
        return values, numbers

    def balanced(self, t: Tape, scores: Tensor) -> Tensor:
        """The mean scores of each sample against how often each expert was chosen."""
        counts = t.new(BATCH * self.out_features, "float32", self.out_features, "router: how often chosen")
        with t.temporary(TOKENS * self.chosen, "float32", 1, "router: ones to count"):
            means = t.new(BATCH * self.out_features, scores.dtype, self.out_features, "router: mean scores")
        t.end(means)
        loss, size = t.new(ONE, "float32", 1, "router: balance"), (scores.numel, scores.dtype, scores.width)
        gradient = "gradient: router: mean scores"
        t.record("router: balance", [loss], [scores], [counts], lambda g: t.new(*size, gradient, "temporaries"))
        return loss


class DeepSeekMoEMLP(PickedMLP):
    """The experts' sum stays as it is, and takes the balance's gradient with it."""

    def joined(self, t: Tape, x: Tensor, y: Tensor) -> Tensor:
        """The sum itself, behind a function that passes a one to the balance."""
        balance, self.gate.balance = self.gate.balance, None
        if balance is None:
            return y
        out = Tensor(y.storage, y.numel, y.dtype, y.width)
        one = "gradient: router: balance"
        t.record(
            "experts: balance",
            [out],
            [y, balance],
            [],
            lambda g: [g.view(), t.new(ONE, "float32", 1, one, "temporaries")],
        )
        return out


class DeepSeekMoE(RemoteDecoder):
    """The causal language model."""

    grown_tables = True

    def __init__(self, config: Config) -> None:
        s, bias = Shape.read(config), config.flag("attention_bias", False)
        experts = config.integer("n_routed_experts", high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", high=experts)
        width = config.integer("moe_intermediate_size", default=1407)
        shared = config.integer("n_shared_experts", default=0, low=0, high=MAX_HEADS)
        dense = config.integer("first_k_dense_replace", default=0, low=0, high=100_000)
        every = config.integer("moe_layer_freq", default=1, high=100_000)
        balances, normed = config.number("aux_loss_alpha", 0.001, 0, 1e9) > 0, config.flag("norm_topk_prob", False)

        def layer(sparse: bool) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if sparse:
                gate = BalancedGate(s.hidden, experts, chosen)
                gate.normed, gate.balances = normed, balances
                beside = GatedMLP(s.hidden, width * shared, act=s.act) if shared else None
                mlp = DeepSeekMoEMLP(gate, PickedExperts(s.hidden, width, experts, s.act), beside)
            return DecoderLayer(s, GrownAttention(s, bias=bias, output_bias=bias), mlp)

        kinds = [index >= dense and index % every == 0 for index in range(s.layers)]
        self.assemble(s, layer, kinds)
        self.buffer_bytes = s.layers * (s.rotated // 2 * 4)

    def wide_tables(self, recipe: Recipe) -> int:
        """Behind the first sparse layer too, where autocast has made the stream float32."""
        if (wide := super().wide_tables(recipe)) or not (self.packed and recipe.autocast):
            return wide
        kinds = self.stack.kinds
        return len(kinds) - 1 - kinds.index(True) if True in kinds else 0

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), EQUAL_SHARES.replace("transformers before 5", "this family's code")]
