from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from loralens.lab.trace import cuda_on_cpu, kernels, ledger  # noqa: E402


def heads(count: int, width: int = 64, length: int = 32, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(2, count, length, width, device="meta", dtype=dtype)


@pytest.mark.parametrize(
    ("query", "key", "value", "mask", "causal", "grouped", "chosen"),
    [
        (heads(8), heads(8), heads(8), None, True, False, "flash"),
        (heads(8), heads(2), heads(2), None, True, True, "flash"),
        (heads(8), heads(2), heads(2), None, True, False, "math"),  # heads neither equal nor said to be grouped
        (heads(71), heads(1), heads(1), None, True, False, "math"),
        (heads(8, 256), heads(8, 256), heads(8, 256), None, True, False, "flash"),
        (heads(8, 264), heads(8, 264), heads(8, 264), None, True, False, "efficient"),
        (heads(8, 192), heads(8, 192), heads(8, 128), None, True, False, "efficient"),  # latent attention
        (heads(8, dtype=torch.float32),) * 3 + (None, True, False, "efficient"),
        (heads(8), heads(8), heads(8), torch.empty(2, 1, 32, 32, device="meta"), False, False, "efficient"),
        (heads(8), heads(2), heads(2), torch.empty(2, 1, 32, 32, device="meta"), False, True, "math"),
        (heads(8), heads(8, length=48), heads(8, length=48), None, True, False, "efficient"),
        (heads(8, 20), heads(8, 20), heads(8, 20), torch.empty(2, 1, 32, 32, device="meta"), False, False, "math"),
    ],
)
def test_kernel_choice(query, key, value, mask, causal, grouped, chosen):
    assert kernels.choose(query, key, value, mask, is_causal=causal, enable_gqa=grouped) == chosen


@pytest.mark.parametrize("length", [32, 40])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_keeps_what_the_kernel_keeps(length, masked):
    kernels.install()
    with cuda_on_cpu.cuda_words(), FakeTensorMode(), ledger.TraceLedger() as book:
        q, k, v = (
            torch.empty(2, 4, length, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
        )
        mask = torch.empty(2, 1, length, length, device="cuda", dtype=torch.bool) if masked else None
        book.begin("forward")
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=not masked)
        held = sum(
            s.size_bytes for s in book.storages if s.phase == "forward" and book.events.count(-(s.index + 1)) == 0
        )
    output, logsumexp = out.untyped_storage().nbytes(), 4 * 2 * 4 * length
    if masked:  # the efficient kernel pads the log-sum-exp to 32 and reads a mask in the compute dtype
        padded = -(-length // 16) * 16
        logsumexp = 4 * 2 * 4 * (-(-length // 32) * 32)
        assert output + logsumexp + 2 * 2 * length * padded <= held <= output + logsumexp + 2 * 2 * length * padded + 64
    else:
        assert output + logsumexp <= held <= output + logsumexp + 64  # and the random state


def test_safe_softmax_borrows_what_a_profile_of_it_shows():
    from torch.profiler import ProfilerActivity, profile

    scores = torch.randn(4, 64, 64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        torch.ops.aten._safe_softmax(scores, -1)
    taken = {event.name: event.cpu_memory_usage for event in seen.events()}
    assert sum(kernels.safe_softmax_scratch(scores)) == taken["aten::isneginf"] + taken["aten::all"]
    assert taken["aten::where"] == 0  # the rows are cleared in place


def test_a_mask_becomes_places_which_are_addresses_where_values_are_added_up():
    mask, values = torch.empty(4, 6, dtype=torch.bool, device="meta"), torch.empty(5, device="meta")
    spread = torch.empty(4, 1, dtype=torch.bool, device="meta").expand(4, 6)
    kernels.CHOSEN[4, 6] = (5, 7)
    try:
        assert kernels.mask_scratch(values, [mask]) == (5 * 2 * 8,)
        assert kernels.mask_scratch(values, [spread]) == (7 * 2 * 8,)
        assert kernels.mask_put_scratch(values, [mask], values) == (5 * 2 * 8,)
        assert kernels.mask_put_scratch(values, [mask], values, True) == (5 * (2 + 3) * 8,)
        assert kernels.mask_put_scratch(values, [torch.empty(5, dtype=torch.int64)], values, True) == ()
        # a mask of the first two dimensions chooses slices: x (2, 3, 7), whose slices are one place each
        whole, some = torch.empty(2, 3, 7), torch.ones(2, 3, dtype=torch.bool)
        assert kernels.mask_put_scratch(whole, [some], torch.empty(6, 7), True) == (6 * (2 + 3) * 8,)
    finally:
        kernels.CHOSEN.clear()
