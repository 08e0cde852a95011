"""CUDA graphs: the launches of a call recorded once and replayed as one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.factors import folded, transposed
from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.matmul.variants.base import Variant


class GraphDense(Variant):
    """The frozen layer, replayed; one graph per copy of W."""

    id = "graph_dense"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return None if problem.device.kind == "cuda" else "CUDA graphs need a CUDA device"

    def compute(self, index: int) -> Tensor:
        """What is recorded."""
        return linear(self.problem.x, self.problem.weight(index))

    def prepare(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries allocate their workspaces before recording
            for _ in range(3):
                self.compute(0)
        torch.cuda.current_stream().wait_stream(stream)
        self.graphs: list[tuple[torch.cuda.CUDAGraph, Tensor]] = []
        for index in range(self.problem.copies):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = self.compute(index)
            self.graphs.append((graph, output))

    def __call__(self, index: int) -> Tensor:
        graph, output = self.graphs[index % self.problem.copies]
        graph.replay()
        return output

    def work(self) -> LeastWork:
        return self.problem.base_work()


class GraphAddmm(GraphDense):
    """LoRA addmm, replayed."""

    id = "graph_addmm"

    def prepare(self) -> None:
        self.lora_bt, self.left = folded(transposed(self.problem.lora_b), self.problem.scaling)
        super().prepare()

    def compute(self, index: int) -> Tensor:
        p = self.problem
        return linear(p.x, p.weight(index)).addmm_(linear(p.x, p.lora_a), self.lora_bt, alpha=self.left)

    def work(self) -> LeastWork:
        return self.problem.base_work() + self.problem.adapter_work()
