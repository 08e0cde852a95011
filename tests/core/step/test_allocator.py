"""The simulated caching allocator against torch's own constants, sequences worked by hand, and a second, naive allocator."""

import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.step import allocator as module
from loralens.core.step.allocator import CachingAllocator, LimitReached, round_size, segment_size

KIB, MIB = 2**10, 2**20


def test_constants_are_those_of_the_installed_torch():
    header = Path(find_spec("torch").origin).parent / "include/c10/core/AllocatorConfig.h"
    text = header.read_text(encoding="utf-8")

    def constant(name):
        return int(re.search(rf"constexpr size_t {name} = (\d+);", text)[1])

    assert constant("kMinBlockSize") == module.MIN_BLOCK
    assert constant("kSmallSize") == module.SMALL_REQUEST
    assert constant("kSmallBuffer") == module.SMALL_SEGMENT
    assert constant("kMinLargeAlloc") == module.MIN_LARGE_REQUEST
    assert constant("kRoundLarge") == module.ROUND_LARGE
    assert int(re.search(r"large_segment_size_\{(\d+)\}", text)[1]) == module.LARGE_SEGMENT


@pytest.mark.parametrize(
    ("request_bytes", "block", "segment"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        (100 * MIB, 100 * MIB, 100 * MIB),
    ],
)
def test_sizes_of_blocks_and_segments(request_bytes, block, segment):
    assert round_size(request_bytes) == block
    assert segment_size(block) == segment


def test_small_requests_share_a_segment_and_join_again():
    memory = CachingAllocator()
    first, second, third = (memory.allocate(300 * KIB) for _ in range(3))
    assert (memory.allocated, memory.reserved) == (900 * KIB, 2 * MIB)
    memory.free(first)
    memory.free(third)  # joins the rest of the segment
    assert [size for size, _, _ in memory.pools[0].blocks] == [300 * KIB, 2 * MIB - 600 * KIB]
    memory.free(second)
    assert [size for size, _, _ in memory.pools[0].blocks] == [2 * MIB]


def test_the_smallest_block_that_holds_a_request_is_taken():
    memory = CachingAllocator()
    large, small = memory.allocate(60 * MIB), memory.allocate(40 * MIB)
    memory.free(large)
    memory.free(small)
    assert memory.allocate(30 * MIB).address == small.address
    assert memory.reserved == 100 * MIB


def test_a_large_block_keeps_a_rest_of_up_to_one_mib():
    memory = CachingAllocator()
    memory.allocate(11 * MIB)  # a segment of 12 MiB: the rest of 1 MiB is not split off, and counts as allocated
    assert (memory.allocated, memory.reserved) == (12 * MIB, 12 * MIB)
    memory.allocate(11 * MIB - 512)  # a rest of 1 MiB + 512 is
    assert (memory.allocated, memory.reserved) == (23 * MIB - 512, 24 * MIB)


def test_growing_lengths_leave_what_nobody_can_use():
    memory = CachingAllocator()
    for size in (20, 30, 40):  # each a little larger than any block there is
        memory.free(memory.allocate(size * MIB))
    assert (memory.peak_allocated, memory.reserved) == (40 * MIB, 90 * MIB)


def test_cached_segments_are_returned_before_memory_runs_out():
    memory = CachingAllocator(limit=60 * MIB)
    for size in (20, 30, 40):
        memory.free(memory.allocate(size * MIB))
    assert memory.reserved == 40 * MIB  # 20 and 30 went back when 40 more would have passed the limit
    with pytest.raises(LimitReached):
        memory.allocate(61 * MIB)


def test_a_segment_in_use_cannot_be_returned():
    memory = CachingAllocator(limit=60 * MIB)
    memory.free(memory.allocate(40 * MIB))
    memory.allocate(2 * MIB)  # the smallest block that holds it is the 40 MiB one
    with pytest.raises(LimitReached):
        memory.allocate(50 * MIB)


def test_a_limit_that_yields_tells_what_was_missing():
    memory = CachingAllocator(limit=60 * MIB, yields=True)
    kept = memory.allocate(40 * MIB)
    memory.allocate(30 * MIB)
    assert memory.limit == 70 * MIB
    memory.free(kept)
    memory.allocate(30 * MIB)
    assert memory.limit == 70 * MIB


def test_streams_do_not_share_blocks():
    memory = CachingAllocator()
    memory.free(memory.allocate(40 * MIB, 1))
    memory.allocate(40 * MIB)
    assert memory.reserved == 80 * MIB


def test_an_expandable_segment_grows_in_place():
    memory = CachingAllocator(expandable_segments=True)
    for size in (20, 30, 40):
        memory.free(memory.allocate(size * MIB))
    assert memory.reserved == 40 * MIB  # pages of 20 MiB under one block
    memory.allocate(50 * MIB)
    assert memory.reserved == 60 * MIB
    memory.allocate(512)
    assert memory.reserved == 62 * MIB  # the small pool's pages are 2 MiB


def test_an_expandable_segment_returns_whole_pages_and_fills_the_gap_again():
    memory = CachingAllocator(expandable_segments=True)
    first, second, third = (memory.allocate(size * MIB) for size in (50, 20, 30))
    assert memory.reserved == 100 * MIB
    memory.free(first)
    memory.release_cached()
    assert memory.reserved == 60 * MIB  # 50 MiB hold two whole pages; the rest of the third stays
    again = memory.allocate(45 * MIB)
    assert again.address == first.address
    assert memory.reserved == 100 * MIB
    for block in (second, third, again):
        memory.free(block)
    memory.release_cached()
    assert memory.reserved == 0


class Naive:
    """The same rules again, by looking at every block of every segment each time."""

    def __init__(self):
        self.segments = []  # [small?, [[size, owner or None], ...]]

    def allocate(self, size, owner):
        size = max(512, (size + 511) // 512 * 512)
        small = size <= MIB
        fitting = [
            (block[0], number, place)
            for number, (kind, blocks) in enumerate(self.segments)
            for place, block in enumerate(blocks)
            if kind == small and block[1] is None and block[0] >= size
        ]
        if not fitting:
            whole = 2 * MIB if small else 20 * MIB if size < 10 * MIB else (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB
            self.segments.append([small, [[whole, None]]])
            fitting = [(whole, len(self.segments) - 1, 0)]
        found, number, place = min(fitting)
        blocks = self.segments[number][1]
        rest = found - size
        if rest >= 512 if small else rest > MIB:
            blocks[place : place + 1] = [[size, owner], [rest, None]]
        else:
            blocks[place][1] = owner

    def free(self, owner):
        for _, blocks in self.segments:
            for block in blocks:
                if block[1] == owner:
                    block[1] = None
            place = 0
            while place + 1 < len(blocks):
                if blocks[place][1] is None and blocks[place + 1][1] is None:
                    blocks[place][0] += blocks.pop(place + 1)[0]
                else:
                    place += 1

    @property
    def reserved(self):
        return sum(size for _, blocks in self.segments for size, _ in blocks)

    @property
    def allocated(self):
        return sum(size for _, blocks in self.segments for size, owner in blocks if owner is not None)


SIZES = st.one_of(
    st.integers(1, 4 * KIB), st.integers(1, 2 * MIB), st.integers(MIB, 40 * MIB), st.integers(1, 40).map(MIB.__mul__)
)
PROGRAMS = st.lists(st.tuples(st.booleans(), SIZES, st.integers(0, 10**6)), max_size=60)


def played(program, memory):
    """Run a program of (allocate?, size, which one to free), yielding the living blocks after each request."""
    living = []
    for number, (allocates, size, which) in enumerate(program):
        if allocates or not living:
            living.append((number, size, memory.allocate(size)))
            yield "allocate", number, size, living
        else:
            gone, size, block = living.pop(which % len(living))
            memory.free(block)
            yield "free", gone, size, living


@given(program=PROGRAMS)
@settings(max_examples=150, deadline=None)
def test_equals_the_naive_allocator(program):
    memory, naive = CachingAllocator(), Naive()
    for act, number, size, _ in played(program, memory):
        naive.allocate(size, number) if act == "allocate" else naive.free(number)
        assert (memory.allocated, memory.reserved) == (naive.allocated, naive.reserved)


@given(program=PROGRAMS, expandable=st.booleans(), release=st.booleans())
@settings(max_examples=150, deadline=None)
def test_invariants(program, expandable, release):
    memory = CachingAllocator(expandable_segments=expandable)
    living = []
    for _, _, _, living in played(program, memory):
        spans = sorted((block.address, block.address + block.size) for _, _, block in living)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert all(block.size >= size for _, size, block in living)
        assert memory.allocated == sum(block.size for _, _, block in living)
        assert memory.peak_reserved >= memory.reserved >= memory.allocated
        cached = sum(size for pool in memory.pools for size, _, _ in pool.blocks)
        assert memory.reserved == memory.allocated + cached
        if release:
            memory.release_cached()
    for _, _, block in living:
        memory.free(block)
    free = [block for pool in memory.pools for _, _, block in pool.blocks]
    assert all(block.before is None or not block.before.mapped for block in free)
    assert all(block.after is None or not block.after.mapped for block in free)  # one block a segment
    memory.release_cached()
    assert (memory.allocated, memory.reserved) == (0, 0)


@given(program=PROGRAMS, expandable=st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_limit_is_kept_or_refused(program, expandable):
    free = CachingAllocator(expandable_segments=expandable)
    for _ in played(program, free):
        pass
    bound = CachingAllocator(expandable_segments=expandable, limit=free.peak_allocated, yields=True)
    for _ in played(program, bound):
        pass
    assert bound.peak_reserved <= bound.limit
