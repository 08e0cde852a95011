"""One rank's bytes and collectives on a process group that sends nothing, beside those of real gloo processes.

    python benchmarks/real_processes.py [experts | ulysses | ring] [GPUs]

A small model on the CPU, two steps, of which the second counts; every storage is followed and every collective counted, in the
fake group on fake tensors and in the processes on real ones. Experts are divided by transformers' own plan, all else by FSDP2,
and a router that spreads evenly stands in for the real one. torch's ring has no CPU kernel: here keys and values go around by
one all-gather, and their gradients by rounds of all-to-all in float32. Prints a line for each rank.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "backend"))

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed import _functional_collectives as collectives
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from loralens.core.question.parallelism import Parallelism
from loralens.lab.trace import peaks
from loralens.lab.trace.ledger import TraceLedger
from loralens.lab.trace.ranks import shared, world
from loralens.lab.trace.ranks.spread import equal_rows
from loralens.lab.trace.step import _transformers_as_eager

BATCH, LENGTH, HEADS, WIDTH = 2, 256, 8, 32
HIDDEN, VOCABULARY, LAYERS, EXPERTS = HEADS * WIDTH, 1024, 3, 8


class CpuLedger(world.RankLedger):
    """Books storages of the CPU, of real tensors too."""

    def __init__(self, *, real: bool) -> None:
        super().__init__()
        self.real = real
        if real:  # what fake tensors do otherwise than real ones
            self.overrides.clear()

    def _book(self, tensor: torch.Tensor, op: Any) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._live and tensor.device.type == "cpu":
            index = self._append(storage.nbytes(), str(op), tuple(tensor.shape), str(tensor.dtype)[6:])
            self._follow(storage._cdata, index, storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.real:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if any(issubclass(kind, (DTensor, collectives.AsyncCollectiveTensor)) for kind in types):
            return NotImplemented
        result = TraceLedger.__torch_dispatch__(self, func, types, args, kwargs)
        kind = world.KINDS.get(func._schema.name.rpartition("::")[2])
        if kind is not None and "c10d" in func.namespace:
            sums = self.sent.setdefault(f"{self.phase}.{kind}", [0, 0])
            sums[0] += 1
            sums[1] += max(world._sizes((args, result)), default=0)
        return result


def done(tensor: torch.Tensor) -> torch.Tensor:
    """What a collective has made."""
    return tensor.wait() if isinstance(tensor, collectives.AsyncCollectiveTensor) else tensor


def traded(x: torch.Tensor) -> torch.Tensor:
    """As much from every rank."""
    return done(collectives.all_to_all_single(x.contiguous().view(-1), None, None, dist.group.WORLD)).view(x.shape)


class Trade(torch.autograd.Function):
    """Sequence for heads, or back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return traded(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return traded(g)


class Ring(torch.autograd.Function):
    """Keys and values of all ranks; each rank's gradients go back to it."""

    @staticmethod
    def forward(ctx: Any, k: torch.Tensor, v: torch.Tensor, ranks: int) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.ranks = ranks
        both = done(collectives.all_gather_tensor(torch.cat([k.flatten(), v.flatten()]), 0, dist.group.WORLD))
        keys, values = both.view(ranks, 2, *k.shape).unbind(1)
        return torch.cat(list(keys), 2), torch.cat(list(values), 2)

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        own: torch.Tensor | None = None
        for part in torch.stack(g).float().chunk(ctx.ranks, 3):
            came = traded(part)
            own = came if own is None else own.add_(came)
        assert own is not None
        return own[0].to(g[0].dtype), own[1].to(g[1].dtype), None


class Block(torch.nn.Module):
    """A layer on a rank's part of the sequence."""

    def __init__(self, kind: str, ranks: int) -> None:
        super().__init__()
        self.kind, self.ranks = kind, ranks
        sizes = [(HIDDEN, HIDDEN)] * 4 + [(HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN)]
        self.q, self.k, self.v, self.o, self.up, self.down = (
            torch.nn.Linear(*size, bias=False, dtype=torch.bfloat16) for size in sizes
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            m(x).view(BATCH, LENGTH // self.ranks, HEADS, WIDTH).transpose(1, 2) for m in (self.q, self.k, self.v)
        )
        if self.kind == "ulysses":
            q, k, v = (Trade.apply(t).reshape(BATCH, HEADS // self.ranks, LENGTH, WIDTH) for t in (q, k, v))
        else:
            k, v = Ring.apply(k, v, self.ranks)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        if self.kind == "ulysses":
            attended = Trade.apply(attended)
        x = x + self.o(attended.reshape(BATCH, LENGTH // self.ranks, HIDDEN))
        return x + self.down(torch.nn.functional.silu(self.up(x)))


def made(kind: str, ranks: int, stack: ExitStack, *, real: bool) -> torch.nn.Module:
    """The model of one rank."""
    if kind != "experts":
        head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False, dtype=torch.bfloat16)
        return torch.nn.Sequential(*(Block(kind, ranks) for _ in range(LAYERS)), head)
    from transformers import AutoConfig, AutoModelForCausalLM

    p = Parallelism(gpus=ranks, strategy="fsdp2", ep=ranks)
    config = AutoConfig.for_model(
        "qwen3_moe", hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, moe_intermediate_size=HIDDEN // 2,
        num_hidden_layers=LAYERS, num_experts=EXPERTS, num_experts_per_tok=2, num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2, head_dim=WIDTH, vocab_size=VOCABULARY, tie_word_embeddings=False, use_cache=False,
    )  # fmt: skip
    stack.enter_context(_transformers_as_eager(config))
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for module in model.modules():
        if real and type(module).__name__.endswith("TopKRouter"):
            module.register_forward_hook(evenly)
    return shared.share_out(model, p, MESHES[ranks])


MESHES: dict[int, shared.Meshes] = {}  # made outside of the fake mode


def evenly(_module: Any, _given: Any, out: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A router's result with as many rows for every expert."""
    *rest, numbers = out
    return *rest, (torch.arange(numbers.numel()).view(numbers.shape) % EXPERTS).to(numbers.dtype)


def loss_of(kind: str, ranks: int, model: torch.nn.Module) -> torch.Tensor:
    """Of a batch that is always the same."""
    if kind == "experts":
        ids = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) % VOCABULARY
        return model(input_ids=ids, labels=ids, use_cache=False).loss
    logits = model(torch.ones(BATCH, LENGTH // ranks, HIDDEN, dtype=torch.bfloat16)).float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def run(kind: str, ranks: int, rank: int, path: str | None = None) -> dict[str, object]:
    """Peaks and what was sent. `path`: of the file by which real processes find each other; None: a fake group."""
    ledger, real = CpuLedger(real=path is not None), path is not None
    with ExitStack() as stack:
        if path is None:
            stack.enter_context(world.world(ranks, rank, ledger))
        else:
            dist.init_process_group("gloo", store=dist.FileStore(path, ranks), rank=rank, world_size=ranks)
            for where, name, answer in world._answers(ledger):
                if "_fsdp_param" in getattr(where, "__name__", ""):  # which resize storages
                    stack.enter_context(world._replaced(where, name, answer))
        if kind == "experts":
            dense = init_device_mesh("cpu", (1, ranks, 1), mesh_dim_names=("replicate", "shard", "tp"))
            apart = init_device_mesh("cpu", (1, 1, ranks), mesh_dim_names=("replicate", "shard", "ep"))
            MESHES[ranks] = shared.Meshes(dense, apart)
        if not real:
            stack.enter_context(equal_rows())
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        gc.collect()
        gc.disable()
        stack.enter_context(ledger)
        model = made(kind, ranks, stack, real=real)
        for _ in range(2):
            ledger.sent.clear()
            ledger.marks.clear()
            ledger.begin("forward")
            loss = loss_of(kind, ranks, model)
            ledger.begin("backward")
            loss.backward()
            del loss
            ledger.begin("end")
            for parameter in model.parameters():
                parameter.grad = None
    if real:
        dist.barrier()
        dist.destroy_process_group()
    found = {phase: peak.live_bytes for phase, peak in peaks.phase_peaks(ledger).items()}
    return {"rank": rank, "real": real, "peaks": found, "sent": ledger.sent}


def main(kind: str = "experts", ranks: str = "2", rank: str = "", path: str = "") -> None:
    """Of one rank, or of all of them in both ways."""
    if rank:
        print(json.dumps(run(kind, int(ranks), int(rank), path)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, kind, ranks]
        meeting = str(Path(folder) / "store")
        processes = [subprocess.Popen([*words, str(one), meeting]) for one in range(int(ranks))]
        for one in range(int(ranks)):
            print(json.dumps(run(kind, int(ranks), one)), flush=True)
        for process in processes:
            process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
