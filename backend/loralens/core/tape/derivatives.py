"""What every operator keeps for backward, row by row as in PyTorch's own table, to be read beside it.

A plain operator is whole in its row. The others have code of their own, in `ops` and in the modules that use them, where
lifetimes are odd; what they keep stands here all the same, and they keep it because it stands here.

Source: PyTorch 2.13 tools/autograd/derivatives.yaml; a wheel has it as torchgen/packaged/autograd/derivatives.yaml.
"""

from __future__ import annotations

from typing import Final

from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import RESULT, Derivative, Plain
from loralens.core.tape.tape import Tape

# one tensor, and nothing kept
scale: Final = Plain("mul.Scalar")
shift: Final = Plain("add.Scalar", passes=True)
converted: Final = Plain("_to_copy")
mean_of: Final = Plain("mean.dim")
total: Final = Plain("sum.dim_IntList")  # the gradient is expanded, and laid out where it is used
clone: Final = Plain("clone", passes=True)
repeat: Final = Plain("repeat")
expanded: Final = Plain("expand", view=True)  # the gradient is summed
padded: Final = Plain("constant_pad_nd")
cut: Final = Plain("slice.Tensor", view=True)  # the gradient fills a zeroed tensor

# ... the result kept
tanh: Final = Plain("tanh", RESULT)
sigmoid: Final = Plain("sigmoid", RESULT)
relu: Final = Plain("relu", RESULT)
rsqrt: Final = Plain("rsqrt", RESULT)
sqrt: Final = Plain("sqrt", RESULT)
exp: Final = Plain("exp", RESULT)
expm1: Final = Plain("expm1", RESULT)
softmax_of: Final = Plain("_softmax", RESULT)
log_softmax: Final = Plain("_log_softmax", RESULT)

# ... the input kept
silu: Final = Plain("silu", "self")
gelu: Final = Plain("gelu", "self")
mish: Final = Plain("mish", "self")
hardswish: Final = Plain("hardswish", "self")
softplus: Final = Plain("softplus", "self")
log: Final = Plain("log", "self")
leaky_relu: Final = Plain("leaky_relu", "self")
clamp: Final = Plain("clamp", "self")

# with code of their own
POWER: Final = Derivative("pow.Tensor_Scalar", {"self": "self"})
CLAMP_TENSOR: Final = Derivative("clamp.Tensor", {"self": "self"}, left_out="min max")  # one value each
MINIMUM: Final = Derivative("minimum", {"self": "self"}, left_out="other")  # one value
MAXIMUM: Final = Derivative("maximum", dict.fromkeys(("self", "other"), "self other"))
STD: Final = Derivative("std.correction", {"self": "self result"})
CUMSUM: Final = Derivative("cumsum", {"self": ""})
MASKED_FILL: Final = Derivative("masked_fill.Scalar", {"self": "mask"})
SOLVE_TRIANGULAR: Final = Derivative("linalg_solve_triangular", {"self": "self result", "B": "self result"})
MUL: Final = Derivative("mul.Tensor", {"self": "other", "other": "self"})
ADD: Final = Derivative("add.Tensor", {"self": "", "other": ""})
SUB: Final = Derivative("sub.Tensor", {"self": "", "other": ""})
LOGSUMEXP: Final = Derivative("logsumexp", {"self": "self result"})
CAT: Final = Derivative("cat", {"tensors": ""})
SPLIT: Final = Derivative("split_with_sizes", {"self": ""})
DROPOUT: Final = Derivative("native_dropout", {"input": "result1"})
WHERE: Final = Derivative("where.self", {"self": "condition", "other": "condition"})
BMM: Final = Derivative("bmm", {"self": "mat2", "mat2": "self"})
ADDMM: Final = Derivative("addmm", {"self": "", "mat1": "mat2", "mat2": "mat1"})
GROUPED_MM: Final = Derivative(
    "_grouped_mm", {"self": "mat2", "mat2": "self"}, left_out="offs"
)  # one number per expert
INDEX: Final = Derivative("index.Tensor", {"self": "indices"})
EMBEDDING: Final = Derivative("embedding", {"weight": "indices"})
EMBEDDING_BAG: Final = Derivative(
    "_embedding_bag", {"weight": "indices offsets result1 result2 per_sample_weights"}, left_out="result3"
)  # empty: of a maximum alone
GATHER: Final = Derivative("gather", {"self": "self index"})
DIV: Final = Derivative("div.Tensor", {"self": "other", "other": "self other"})
LARGEST: Final = Derivative("max.dim", {"self": "indices"})
TOPK: Final = Derivative("topk", {"self": "indices"})
SCATTER: Final = Derivative("scatter.src", {"self": "index", "src": "index"})
INDEX_PUT: Final = Derivative("index_put", {"self": "indices", "values": "indices"})
INDEX_ADD: Final = Derivative("index_add", {"self": "", "source": "index source"})
INDEX_COPY: Final = Derivative("index_copy", {"self": "index", "source": "index source"})
AVERAGE: Final = Derivative("avg_pool2d", {"self": "self"})
GRID_SAMPLE: Final = Derivative("grid_sampler_2d", dict.fromkeys(("input", "grid"), "input grid"))
UPSAMPLE: Final = Derivative("upsample_bilinear2d", {"self": ""})
MASKED_SCATTER: Final = Derivative("masked_scatter", {"self": "mask", "source": "mask"})
LAYER_NORM: Final = Derivative(
    "native_layer_norm", dict.fromkeys(("input", "weight", "bias"), "input result1 result2 weight bias")
)
CONVOLUTION: Final = Derivative("convolution", dict.fromkeys(("input", "weight", "bias"), "input weight"))
NLL_LOSS: Final = Derivative(
    "nll_loss_forward", {"self": "self target total_weight"}, left_out="weight"
)  # all classes alike
FLASH: Final = Derivative(
    "_scaled_dot_product_flash_attention",
    dict.fromkeys(("query", "key", "value"), "query key value output logsumexp rng_state"),
    left_out="cum_seq_q cum_seq_k unused",  # empty: all sequences have one length
)
EFFICIENT: Final = Derivative(
    "_scaled_dot_product_efficient_attention",
    dict.fromkeys(
        ("query", "key", "value", "attn_bias"),
        "query key value output log_sumexp attn_bias philox_seed",
    ),
    left_out="philox_offset",  # in one storage with the seed
)


def cast(t: Tape, x: Tensor, dtype: str, label: str) -> Tensor:
    """`x.to(dtype)`: a copy, or x itself when the dtype is right already."""
    return x if x.dtype == dtype else converted(t, x, label, dtype=dtype)
