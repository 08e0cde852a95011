"""Run by test_split.py in a process of its own: the interpreter must be chosen before Triton's functions are made."""

import json
import sys

import torch

from loralens.lab.matmul.kernels.split import split_linear

torch.set_num_threads(1)
found = []
for dtype in ("float32", "float16", "bfloat16"):
    for rows, depth, out, rank in (
        (1, 64, 96, 8),
        (33, 70, 65, 3),
        (64, 128, 128, 16),
        (5, 17, 130, 20),
        (3, 40, 70, 70),
    ):
        generator = torch.Generator().manual_seed(rows)
        kind = getattr(torch, dtype)
        x = torch.randn(rows, depth, generator=generator).to(kind)
        weight = torch.randn(out, depth, generator=generator).div(depth**0.5).to(kind)
        h = torch.randn(rows, rank, generator=generator).to(kind)
        b = torch.randn(out, rank, generator=generator).to(kind)
        exact = x.double() @ weight.double().t() + 2.0 * h.double() @ b.double().t()
        error = (split_linear(x, weight, h, b, 2.0).double() - exact).norm() / exact.norm()
        found.append({"dtype": dtype, "case": [rows, depth, out, rank], "error": float(error)})
json.dump(found, sys.stdout)
