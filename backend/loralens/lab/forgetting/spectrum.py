"""Why low rank works: singular values of the real update, and what is left of its effect when it is cut short.

`spectrum(deltas)` looks at the updates themselves; `truncated_losses(...)` puts the best rank-r approximation of each
update back into the base and measures it. The truncation is the best any rank-r update can do in the Frobenius norm
(Eckart & Young 1936); LoRA at rank r has to find its own, so the difference between the two is what LoRA loses beyond
the rank itself. A matrix of independent normal numbers of the same shapes and norms stands beside it: that is what "not
low-rank at all" looks like.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from loralens.lab.forgetting.runs import measure
from loralens.lab.forgetting.shapes import ModuleSpectrum, RunSpectrum, RunTruncated
from loralens.lab.forgetting.source import ExperimentSource

RANDOM_SEED = 0


def rank_for(values: Tensor, share: float) -> int:
    """Smallest rank that keeps `share` of the energy."""
    squares = values.double().square()
    if squares.sum().item() == 0:
        return 0
    kept = torch.cumsum(squares, 0) / squares.sum()
    return min(int((kept < share - 1e-12).sum().item()) + 1, len(values))


def effective_rank(values: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values.

    Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    total = values.double().sum()
    if total.item() == 0:
        return 0.0
    share = values.double() / total
    return float(torch.exp(-(share * torch.log(share.clamp_min(1e-300))).sum()).item())


@torch.no_grad()
def spectrum(deltas: Mapping[str, Tensor], weights: Mapping[str, Tensor], ranks: Sequence[int]) -> RunSpectrum:
    """Singular values per module and the energy that each rank keeps, over all modules together and for random ones.

    Shapes: deltas and weights map a module path to (out_features, in_features).
    """
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    modules: list[ModuleSpectrum] = []
    real: list[Tensor] = []
    random: list[Tensor] = []
    for path, change in deltas.items():
        values = torch.linalg.svdvals(change.float()).cpu()
        norm = values.norm()
        noise = torch.linalg.svdvals(torch.randn(change.shape, generator=generator))
        real.append(values)
        random.append(noise * (norm / noise.norm()))
        modules.append(
            {
                "module": path,
                "shape": list(change.shape),
                "norm": _short(norm.item()),
                "relative_norm": _short((norm / weights[path].float().norm().cpu()).item()),
                "singular_values": [_short(value) for value in values.tolist()],
                "effective_rank": _short(effective_rank(values)),
                "rank_90": rank_for(values, 0.9),
                "rank_99": rank_for(values, 0.99),
            }
        )
    return {
        "modules": modules,
        "energy": [
            {"rank": rank, "share": _together(real, rank), "random_share": _together(random, rank)} for rank in ranks
        ],
    }


def _together(spectra: Sequence[Tensor], rank: int) -> float:
    total = sum(v.double().square().sum().item() for v in spectra)
    kept = sum(v[:rank].double().square().sum().item() for v in spectra)
    return kept / total if total else 1.0


@torch.no_grad()
def truncated_losses(
    source: ExperimentSource, trained: Mapping[str, Tensor], deltas: Mapping[str, Tensor], ranks: Sequence[int]
) -> list[RunTruncated]:
    """Held-out figures of the base plus each update cut to each rank; other trained weights keep their change.

    Rank 0 is the base with only these other changes; the largest rank is the trained model up to rounding.
    """
    own = [name for name, _ in source.base.named_parameters() if name in trained]
    memo: dict[int, Tensor] = {id(p): p for name, p in source.base.named_parameters() if name not in trained}
    memo.update({id(buffer): buffer for buffer in source.base.buffers()})
    model: nn.Module = copy.deepcopy(source.base, memo)
    parameters = dict(model.named_parameters())
    base = dict(source.base.named_parameters())
    for name in own:
        parameters[name].copy_(trained[name])
    factors = {path: torch.linalg.svd(change.float(), full_matrices=False) for path, change in deltas.items()}
    result: list[RunTruncated] = []
    for rank in ranks:
        for path, (u, s, vh) in factors.items():
            weight = base[f"{path}.weight"]
            parameters[f"{path}.weight"].copy_(weight + ((u[:, :rank] * s[:rank]) @ vh[:rank]).to(weight.dtype))
        result.append({"rank": rank, **measure(model, source, "test")})
    return result


def _short(value: float) -> float:
    """Four significant digits: what a chart can show, and a recorded run stays small."""
    return float(f"{value:.4g}")
