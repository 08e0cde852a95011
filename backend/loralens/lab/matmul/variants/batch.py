"""A batch whose requests want different adapters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul import packed
from loralens.lab.matmul.factors import folded
from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.matmul.variants.base import Variant, half_on_cpu


class BatchForm(Variant):
    """Shared by the batch forms."""

    mode = "adapters"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return half_on_cpu(problem)

    def prepare(self) -> None:
        self.all_bt = self.problem.all_b.transpose(1, 2).contiguous()  # (adapters, rank, out)

    def work(self) -> LeastWork:
        # Every adapter in use is read once; rows without pattern use nearly all of them.
        p = self.problem
        return p.base_work() + p.adapter_work(len(set(p.request_ids)))


class LoopRequests(BatchForm):
    """Each request by itself."""

    id = "loop_requests"

    def __call__(self, index: int) -> Tensor:
        p, tokens = self.problem, self.problem.request.tokens
        y = linear(p.x, p.weight(index))
        for number, adapter in enumerate(p.request_ids):
            rows = slice(number * tokens, (number + 1) * tokens)
            y[rows].addmm_(linear(p.x[rows], p.all_a[adapter]), self.all_bt[adapter], alpha=p.scaling)
        return y


class LoopAdapters(BatchForm):
    """Rows gathered by adapter. Source: peft 0.21, tuners/lora/layer.py, _mixed_batch_forward."""

    id = "loop_adapters"

    def prepare(self) -> None:
        p = self.problem
        self.rows = [(adapter, (p.ids == adapter).nonzero()[:, 0]) for adapter in sorted(set(p.request_ids))]

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        y = linear(p.x, p.weight(index))
        for adapter, rows in self.rows:
            y[rows] += linear(linear(p.x[rows], p.all_a[adapter]), p.all_b[adapter]) * p.scaling
        return y


class GatherBmm(BatchForm):
    """Factors copied side by side. Source: Chen et al. 2023 (Punica), arXiv:2310.18547, section 4 (BGMV)."""

    id = "gather_bmm"

    def prepare(self) -> None:
        super().prepare()
        p = self.problem
        self.ids = torch.tensor(p.request_ids, device=p.x.device)

    def __call__(self, index: int) -> Tensor:
        p, count = self.problem, self.problem.request.requests
        y = linear(p.x, p.weight(index))
        h = torch.bmm(p.x.view(count, -1, p.in_features), p.all_a[self.ids].transpose(1, 2))
        y.view(count, -1, p.out_features).baddbmm_(h, self.all_bt[self.ids], alpha=p.scaling)
        return y


class GroupedMm(BatchForm):
    """torch.nn.functional.grouped_mm over sorted rows."""

    id = "grouped_mm"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        if not hasattr(torch.nn.functional, "grouped_mm"):
            return "this PyTorch has no grouped_mm"
        if problem.rank * problem.element_bytes % 16:
            rank = 16 // problem.element_bytes
            return f"grouped_mm needs rows of a multiple of 16 bytes: a rank that is a multiple of {rank}"
        if problem.device.kind == "cuda" and problem.dtype is not torch.bfloat16:
            return "grouped_mm is for bfloat16 on CUDA"
        return half_on_cpu(problem)

    def prepare(self) -> None:
        super().prepare()
        p = self.problem
        self.order = torch.argsort(p.ids, stable=True)
        counts = torch.bincount(p.ids, minlength=p.request.adapters)
        self.ends = counts.cumsum(0).to(torch.int32)
        self.all_at = p.all_a.transpose(1, 2)

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        grouped_mm = torch.nn.functional.grouped_mm
        h = grouped_mm(p.x[self.order], self.all_at, offs=self.ends)
        delta = grouped_mm(h, self.all_bt, offs=self.ends)
        return linear(p.x, p.weight(index)).index_add_(0, self.order, delta, alpha=p.scaling)


class StackedMask(BatchForm):
    """All adapters' A as one matrix; a mask leaves each row its own columns."""

    id = "stacked_mask"

    def prepare(self) -> None:
        p = self.problem
        self.stacked_a = p.all_a.reshape(-1, p.in_features)
        stacked_bt = p.all_b.transpose(1, 2).reshape(-1, p.out_features).clone()
        self.stacked_bt, self.left = folded(stacked_bt, p.scaling)
        own = torch.nn.functional.one_hot(p.ids, p.request.adapters).repeat_interleave(p.rank, dim=1)
        self.mask = own.to(p.dtype)

    def hidden(self) -> Tensor:
        """(rows, adapters × rank), foreign columns 0."""
        return linear(self.problem.x, self.stacked_a).mul_(self.mask)

    def __call__(self, index: int) -> Tensor:
        y = linear(self.problem.x, self.problem.weight(index))
        return y.addmm_(self.hidden(), self.stacked_bt, alpha=self.left)

    def work(self) -> LeastWork:
        p = self.problem
        adapter = p.adapter_work(p.request.adapters)
        return p.base_work() + LeastWork(adapter.flops * p.request.adapters, adapter.bytes)


class PackedStacked(StackedMask):
    """The same on a prepacked base."""

    id = "packed_stacked"
    copies_of_weight = 1.0

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return half_on_cpu(problem) or packed.why_not(problem.dtype, problem.device.kind)

    def prepare(self) -> None:
        super().prepare()
        self.packed = self.packed_weights(packed.DEFAULT_HINT)

    def __call__(self, index: int) -> Tensor:
        y = self.packed[index % self.problem.copies](self.problem.x)
        return y.addmm_(self.hidden(), self.stacked_bt, alpha=self.left)


class PackedStackedEpilogue(PackedStacked):
    """The base's product adds the adapters' part."""

    id = "packed_stacked_epilogue"

    def __call__(self, index: int) -> Tensor:
        h = self.hidden()
        if self.left != 1.0:
            h.mul_(self.left)
        return self.packed[index % self.problem.copies](self.problem.x, add=h @ self.stacked_bt)


class MergeSwitch(BatchForm):
    """W rewritten for each adapter and back. In half precision W wears out: the note says by how much."""

    id = "merge_switch"
    copies_of_weight = 1.0

    def prepare(self) -> None:
        p = self.problem
        self.weights = [weight.clone() for weight in p.weights]
        self.rows = [(adapter, (p.ids == adapter).nonzero()[:, 0]) for adapter in sorted(set(p.request_ids))]
        self.calls = 0

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        weight = self.weights[index % p.copies]
        y = p.x.new_empty(p.rows, p.out_features)
        for adapter, rows in self.rows:
            weight.addmm_(p.all_b[adapter], p.all_a[adapter], alpha=p.scaling)
            y[rows] = linear(p.x[rows], weight)
            weight.addmm_(p.all_b[adapter], p.all_a[adapter], alpha=-p.scaling)
        self.calls += 1
        return y

    def finish(self) -> None:
        # Double only one matrix at a time: this is for all sizes.
        drift = max(
            float((worn.cpu().double() - weight.cpu().double()).norm() / weight.cpu().double().norm())
            for worn, weight in zip(self.weights[:1], self.problem.weights[:1], strict=True)
        )
        switches = max(1, self.calls // self.problem.copies) * len(self.rows)
        self.notes.append(f"after about {switches} merges and unmerges W is off by {drift:.1e}, relative")

    def work(self) -> LeastWork:
        p = self.problem
        size, times = p.in_features * p.out_features, len(self.rows)
        merge = LeastWork(4 * times * p.rank * size, 4 * times * size * p.element_bytes)
        return p.base_work() + merge
