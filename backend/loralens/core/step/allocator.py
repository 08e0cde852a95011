"""PyTorch's CUDA caching allocator, simulated: which blocks and segments a sequence of requests ends up in.

`allocated` in this package is exact; what the allocator *reserves* for it depends on the order of requests and releases.
This is that allocator with addresses in place of memory, so the ledger's events can be run through it.

Source of every rule and constant: torch 2.13, c10/cuda/CUDACachingAllocator.cpp (`round_size`, `get_allocation_size`,
`get_free_block`, `should_split`, `free_block`, `try_merge_blocks`, `release_cached_blocks`, and for expandable segments
`find_expandable_block`, `map_block`, `unmap_block`) and c10/core/AllocatorConfig.h (the constants and the defaults:
nothing limits splitting, nothing rounds to powers of two, no garbage collection).
Leaves out: blocks that wait for another stream's work (`record_stream`), CUDA graphs' private pools, and the environment variable's other options.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

MIN_BLOCK: Final = 512  # kMinBlockSize: every request is rounded up to a multiple of it
SMALL_REQUEST: Final = 1_048_576  # kSmallSize: the largest request served from the small pool
SMALL_SEGMENT: Final = 2_097_152  # kSmallBuffer: a segment of the small pool
LARGE_SEGMENT: Final = 20_971_520  # large_segment_size's default: a segment for requests below MIN_LARGE_REQUEST
MIN_LARGE_REQUEST: Final = 10_485_760  # kMinLargeAlloc: from here on a request gets a segment of its own size
ROUND_LARGE: Final = 2_097_152  # kRoundLarge: such segments are multiples of it

STREAMS: Final = 3  # more than this nobody here asks for
_ENDLESS: Final = 1 << 60  # address space of an expandable segment; the real one is 9/8 of the card's memory


class LimitReached(Exception):
    """The limit does not hold a request, even after every segment that can be returned was."""


def round_size(size: int) -> int:
    """The size of the block that serves a request."""
    return max(MIN_BLOCK, -(-size // MIN_BLOCK) * MIN_BLOCK)


def segment_size(size: int) -> int:
    """The size of the segment that is asked of CUDA for a rounded request that no free block can serve."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    if size < MIN_LARGE_REQUEST:
        return LARGE_SEGMENT
    return -(-size // ROUND_LARGE) * ROUND_LARGE


class Block:
    """A piece of a segment; `before` and `after` are its neighbours there."""

    __slots__ = ("address", "after", "before", "free", "mapped", "pool", "size")

    def __init__(self, pool: Pool, address: int, size: int, *, mapped: bool = True) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.before: Block | None = None
        self.after: Block | None = None
        self.free = True
        self.mapped = mapped  # False: address space of an expandable segment without memory behind it

    def put_behind(self, other: Block) -> None:
        """Become `other`'s next neighbour."""
        self.before, self.after = other, other.after
        if other.after is not None:
            other.after.before = self
        other.after = self


class Pool:
    """The free blocks of one pool, smallest first and, among equals, lowest address first."""

    __slots__ = ("blocks", "page", "small", "unmapped")

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.page = SMALL_SEGMENT if small else LARGE_SEGMENT  # what an expandable segment grows by
        self.blocks: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []


class CachingAllocator:
    """One device's allocator. Sizes are bytes; every stream has pools of its own.

    `limit` is the memory there is: a request that would pass it first returns every wholly free segment (or page, when
    segments are expandable) to CUDA, as PyTorch does before it reports out of memory.
    """

    def __init__(self, *, expandable_segments: bool = False, limit: int | None = None, yields: bool = False) -> None:
        self.expandable = expandable_segments
        self.limit = limit
        self.yields = yields  # raise the limit where it does not hold a request, instead of giving up
        self.allocated = self.reserved = 0
        self.peak_allocated = self.peak_reserved = 0
        # of stream n: small ones at 2n, large ones at 2n + 1
        self.pools = [Pool(small=place % 2 == 0) for place in range(2 * STREAMS)]
        self._next_address = 0

    def allocate(self, size: int, stream: int = 0) -> Block:
        """Serve a request of one CUDA stream; raises `OutOfMemory` where the limit does not allow it."""
        size = round_size(size)
        pool = self.pools[2 * stream + (size > SMALL_REQUEST)]
        block = self._best_fit(pool, size) or self._grow(pool, size)
        rest = block.size - size
        if rest >= MIN_BLOCK if pool.small or self.expandable else rest > SMALL_REQUEST:
            remainder = Block(pool, block.address + size, rest)
            remainder.put_behind(block)
            block.size = size
            insort(pool.blocks, (rest, remainder.address, remainder))
        block.free = False
        self.allocated += block.size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return block

    def free(self, block: Block) -> None:
        """Take a block back and join it with free neighbours."""
        self.allocated -= block.size
        block.free = True
        before, after = block.before, block.after
        if (before is not None and before.free) or (after is not None and after.free):
            block = self._joined(block)
        insort(block.pool.blocks, (block.size, block.address, block))

    def release_cached(self) -> None:
        """Return every wholly free segment to CUDA, as `torch.cuda.empty_cache` does."""
        for pool in self.pools:
            for _, _, block in list(pool.blocks):
                if self.expandable:
                    self._unmap(block)
                elif block.before is None and block.after is None:
                    self._take(block)
                    self.reserved -= block.size

    # -- free blocks --------------------------------------------------------------------------------------------

    def _put(self, block: Block) -> None:
        insort(block.pool.blocks, (block.size, block.address, block))

    def _take(self, block: Block) -> None:
        blocks = block.pool.blocks
        del blocks[bisect_left(blocks, (block.size, block.address))]

    def _pages(self, block: Block) -> tuple[int, int]:
        page = block.pool.page
        return -(-block.address // page), (block.address + block.size) // page

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        """The smallest free block that is large enough.

        A block that its segment can still grow counts with the size that it could grow to.
        """
        blocks = pool.blocks
        at = bisect_left(blocks, (size,))
        if at == len(blocks):
            return None
        if self.expandable:
            while at + 1 < len(blocks) and _could_be(blocks[at + 1][2]) < _could_be(blocks[at][2]):
                at += 1
        block = blocks[at][2]
        del blocks[at]
        return block

    def _joined(self, block: Block) -> Block:
        """The block with its neighbours of the same kind; these leave their pool."""
        for other in (block.before, block.after):
            if other is None or not other.free or other.mapped != block.mapped:
                continue
            if other.mapped:
                self._take(other)
            else:
                other.pool.unmapped.remove((other.address, other))
            if other is block.before:
                block.address, block.before = other.address, other.before
                if block.before is not None:
                    block.before.after = block
            else:
                block.after = other.after
                if block.after is not None:
                    block.after.before = block
            block.size += other.size
        return block

    # -- memory from CUDA ---------------------------------------------------------------------------------------

    def _grow(self, pool: Pool, size: int) -> Block:
        if self.expandable:
            return self._expand(pool, size)
        wanted = segment_size(size)
        self._make_room(wanted)
        self._reserve(wanted)
        block = Block(pool, self._next_address, wanted)
        self._next_address += wanted
        return block

    def _make_room(self, size: int) -> None:
        """Before so many bytes more are reserved: return what is cached if the limit is near, and see that it holds them."""
        if self.limit is None or self.reserved + size <= self.limit:
            return
        self.release_cached()
        if self.reserved + size > self.limit:
            if not self.yields:
                raise LimitReached
            self.limit = self.reserved + size

    def _reserve(self, size: int) -> None:
        self.reserved += size
        if self.reserved > self.peak_reserved:
            self.peak_reserved = self.reserved

    def _expand(self, pool: Pool, size: int) -> Block:
        """Put memory behind the lowest addresses at which free and unmapped space together hold the request."""
        if not pool.unmapped:
            page = pool.page
            self._next_address = -(-self._next_address // page) * page
            insort(pool.unmapped, (self._next_address, Block(pool, self._next_address, _ENDLESS, mapped=False)))
            self._next_address += _ENDLESS
        self._make_room(self._missing(pool, size))
        self._make_room(self._missing(pool, size))  # what was returned to make room may have to be mapped again
        block = self._lowest(pool, size)
        if not block.mapped:
            block = self._map(block, min(size, block.size))
        while block.size < size:
            after = block.after
            assert after is not None  # `_lowest` saw enough room
            block = self._map(after, min(size - block.size, after.size))
        self._take(block)
        return block

    def _lowest(self, pool: Pool, size: int) -> Block:
        for _, block in pool.unmapped:
            first = block.before if block.before is not None and block.before.free else block
            room, here = 0, first
            while room < size and here is not None and here.free:
                room, here = room + here.size, here.after  # type: ignore[assignment]
            if room >= size:
                return first
        raise AssertionError("an endless segment holds everything")

    def _missing(self, pool: Pool, size: int) -> int:
        """Bytes that have to be mapped for a request."""
        total, left, here = 0, size, self._lowest(pool, size)
        while left > 0:
            if not here.mapped:
                total += min(-(-min(left, here.size) // pool.page) * pool.page, here.size)
            left -= here.size
            here = here.after  # type: ignore[assignment]
        return total

    def _map(self, block: Block, size: int) -> Block:
        """Put memory behind the beginning of an unmapped block, in whole pages."""
        pool = block.pool
        pool.unmapped.remove((block.address, block))
        size = -(-size // pool.page) * pool.page
        if size < block.size:
            rest = Block(pool, block.address + size, block.size - size, mapped=False)
            rest.put_behind(block)
            insort(pool.unmapped, (rest.address, rest))
            block.size = size
        self._reserve(size)
        block.mapped = True
        block = self._joined(block)
        self._put(block)
        return block

    def _unmap(self, block: Block) -> None:
        """Take the memory from the whole pages of a free block of an expandable segment."""
        first, last = self._pages(block)
        if first >= last:
            return
        pool, page = block.pool, block.pool.page
        self._take(block)
        start, end = first * page, last * page
        if block.address + block.size > end:
            rest = Block(pool, end, block.address + block.size - end)
            rest.put_behind(block)
            self._put(rest)
        if start > block.address:
            unmapped = Block(pool, start, end - start)
            unmapped.put_behind(block)
            block.size = start - block.address
            self._put(block)
            block = unmapped
        block.size = end - start
        block.mapped = False
        self.reserved -= block.size
        block = self._joined(block)
        insort(pool.unmapped, (block.address, block))


def _could_be(block: Block) -> int:
    after = block.after
    return block.size + (after.size if after is not None and not after.mapped else 0)
