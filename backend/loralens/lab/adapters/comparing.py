"""Compare two adapters of one base: how far their updates lie apart, in which modules, and whether they use the same directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.answers import ComparisonAnswer, ModuleComparisonAnswer
from loralens.lab.adapters.spectrum import ENERGY_SHARE, Decomposition, decompose, rank_for_energy
from loralens.lab.factors import Factors


@dataclass(frozen=True, slots=True)
class ModuleComparison:
    """One module that both have.

    Angles are principal angles in degrees, smallest first, between the spaces that carry the asked share of each
    update's energy: `input_angles` of what is read, `output_angles` of what is written.
    """

    module: str
    norms: tuple[float, float]
    cosine: float
    relative_difference: float
    input_angles: list[float]
    output_angles: list[float]
    similarity: float

    def to_dict(self) -> ModuleComparisonAnswer:
        """As it is printed and sent."""
        return {
            "module": self.module,
            "norms": list(self.norms),
            "cosine": self.cosine,
            "relative_difference": self.relative_difference,
            "input_angles": self.input_angles,
            "output_angles": self.output_angles,
            "similarity": self.similarity,
        }


@dataclass(frozen=True, slots=True)
class AdapterComparison:
    """Two adapters beside each other; modules that differ most come first.

    `cosine` is that of all updates together as one vector, `relative_difference` the norm of the difference over the
    root of the product of the norms.
    """

    cosine: float
    relative_difference: float
    only_first: list[str]
    only_second: list[str]
    modules: list[ModuleComparison]

    def to_dict(self) -> ComparisonAnswer:
        """The comparison as it is printed and sent."""
        return {
            "cosine": self.cosine,
            "relative_difference": self.relative_difference,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "modules": [module.to_dict() for module in self.modules],
        }


def compare_adapters(first: Adapter, second: Adapter, energy: float = ENERGY_SHARE) -> AdapterComparison:
    """Compare two adapters; `energy` is the share of squared norm that the compared directions carry.

    `similarity` is the subspace similarity of the written directions, from 0 to 1.
    Source: Hu et al. 2021, arXiv:2106.09685, section 7.2, equation 4; Björck and Golub 1973 for principal angles.

    Raises: `InvalidInput` where a module has different shapes, or none is in both.
    """
    one_by_one, others = _apart(first), _apart(second)
    common = [module for module in one_by_one if module in others]
    if not common:
        raise InvalidInput("the adapters have no module in common: they are of different bases", field="adapters")
    modules, products, squares = [], 0.0, [0.0, 0.0]
    for module in common:
        a, b = one_by_one[module], others[module]
        if (a.lora_a.shape[1], a.lora_b.shape[0]) != (b.lora_a.shape[1], b.lora_b.shape[0]):
            raise InvalidInput(f"{module} has different shapes: the adapters are of different bases", field="adapters")
        one, two = decompose(a), decompose(b)
        product = _product(one, two)
        own = (float(one.values.square().sum()), float(two.values.square().sum()))
        modules.append(_module(module, one, two, product, own, energy))
        products += product
        squares = [total + square for total, square in zip(squares, own, strict=True)]
    for place, (mine, theirs) in enumerate(((one_by_one, others), (others, one_by_one))):
        alone = (f for name, f in mine.items() if name not in theirs)
        squares[place] += sum(float(decompose(factors).values.square().sum()) for factors in alone)
    return AdapterComparison(
        _cosine(products, *squares),
        _difference(products, *squares),
        [module for module in one_by_one if module not in others],
        [module for module in others if module not in one_by_one],
        sorted(modules, key=lambda one: one.relative_difference, reverse=True),
    )


def _apart(adapter: Adapter) -> dict[str, Factors]:
    """The pairs by name, each stacked expert's as one of its own."""
    found: dict[str, Factors] = {}
    for module, factors in adapter.factors.items():
        found |= {module: factors} if factors.experts == 1 else {one.module: one for one in factors.apart()}
    return found


def _module(
    module: str, one: Decomposition, two: Decomposition, product: float, squares: tuple[float, float], energy: float
) -> ModuleComparison:
    kept = [rank_for_energy(part.values, energy) if part.values[0] > 0 else 0 for part in (one, two)]
    written = torch.linalg.svdvals(one.left[:, : kept[0]].T @ two.left[:, : kept[1]]) if all(kept) else one.values[:0]
    read = torch.linalg.svdvals(one.right[: kept[0]] @ two.right[: kept[1]].T) if all(kept) else one.values[:0]
    return ModuleComparison(
        module,
        (math.sqrt(squares[0]), math.sqrt(squares[1])),
        _cosine(product, *squares),
        _difference(product, *squares),
        _angles(read),
        _angles(written),
        float(written.square().sum()) / min(kept) if all(kept) else 0.0,
    )


def _product(one: Decomposition, two: Decomposition) -> float:
    """Inner product of two updates, from their small parts."""
    written = one.left.T @ two.left
    read = one.right @ two.right.T
    return float((one.values[:, None] * written * read * two.values).sum())


def _cosine(product: float, first: float, second: float) -> float:
    return product / (math.sqrt(first) * math.sqrt(second)) if first and second else 0.0


def _difference(product: float, first: float, second: float) -> float:
    squared = max(0.0, first + second - 2 * product)
    return math.sqrt(squared / math.sqrt(first) / math.sqrt(second)) if first and second else float(squared > 0)


def _angles(cosines: torch.Tensor) -> list[float]:
    return [math.degrees(math.acos(min(1.0, max(-1.0, float(cosine))))) for cosine in cosines]
