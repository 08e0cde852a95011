"""Routes of collectives: who takes part, where, and how many bytes go over the wire."""

import pytest

from loralens.core import catalogue
from loralens.core.question.recipe import Recipe
from loralens.core.time.links import Route, group, link_of, network_of, rate_of, route
from loralens.core.time.rates import known

H100 = catalogue.gpu("h100-sxm")


def mesh(**words):
    return Recipe.from_mapping({"parallelism": words}).parallelism


def test_dimensions_lie_inside_each_other():
    p = mesh(gpus=32, strategy="fsdp2", tp=2, pp=2, dp_replicate=2)
    found = {over: group(p, over) for over in ("tp", "dp_shard", "dp_replicate", "pp")}
    assert found == {"tp": (2, 1), "dp_shard": (4, 2), "dp_replicate": (2, 8), "pp": (2, 16)}


@pytest.mark.parametrize(
    ("words", "over", "members", "inside"),
    [
        ({"gpus": 8, "strategy": "fsdp2"}, "dp_shard", 8, 8),
        ({"gpus": 32, "strategy": "fsdp2"}, "dp_shard", 32, 8),
        ({"gpus": 32, "strategy": "fsdp2", "machine_gpus": 4}, "dp_shard", 32, 4),
        ({"gpus": 32, "strategy": "fsdp2", "tp": 8}, "dp_shard", 4, 1),
        ({"gpus": 32, "strategy": "fsdp2", "tp": 4}, "dp_shard", 8, 2),
        ({"gpus": 32, "strategy": "fsdp2", "tp": 8}, "tp", 8, 8),
        ({"gpus": 16, "tp": 16}, "tp", 16, 8),
        ({"gpus": 32, "strategy": "fsdp2", "pp": 4}, "pp", 4, 1),
        ({"gpus": 8, "strategy": "fsdp2", "pp": 4}, "pp", 4, 4),
        ({"gpus": 32, "strategy": "fsdp2", "dp_replicate": 4}, "dp_replicate", 4, 1),
    ],
)
def test_a_group_is_as_much_in_a_machine_as_its_neighbours_are_near(words, over, members, inside):
    assert route(mesh(**words), over) == Route(members, inside)


@pytest.mark.parametrize(
    ("kind", "bytes_sent"),
    [("all_reduce", 150), ("all_gather", 75), ("reduce_scatter", 75), ("all_to_all", 75), ("receive", 100)],
)
def test_bytes_on_the_wire_are_as_nccls_tests_count_them(kind, bytes_sent):
    """NCCL's tests, doc/PERFORMANCE.md: 2 (n - 1) / n of a sum, (n - 1) / n of a gather, a scatter and an exchange."""
    assert Route(4, 4).wire(kind, 100) == bytes_sent


def test_an_exchange_between_machines_leaves_with_what_goes_to_other_machines():
    assert Route(16, 8).wire("all_to_all", 100) == 50


def test_a_group_that_fills_machines_has_all_their_network_cards():
    k = known().constants
    link, network = link_of(H100, k)[0], network_of(H100, k)
    assert rate_of(Route(8, 8), "all_gather", link, network) == link
    assert rate_of(Route(4, 1), "all_gather", link, network) == network
    assert rate_of(Route(8, 2), "all_gather", link, network) == 2 * network
    assert rate_of(Route(64, 8), "all_gather", link, network) == min(link, 8 * network)
    assert rate_of(Route(16, 8), "all_to_all", link, network) == network
