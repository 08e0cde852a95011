import torch

from loralens.lab.matmul.counts import count, saved_bytes


def test_operations_are_counted_and_views_are_not():
    x, weight = torch.ones(4, 8), torch.ones(16, 8)

    def call():
        y = torch.mm(x, weight.t())
        y.view(8, 8)[1:].mul_(2.0)
        return y + 1.0

    counts = count(call)
    assert counts.names == ["mm", "mul_", "add"]
    assert counts.materialised_bytes == 2 * 4 * 16 * 4


def test_only_what_autograd_keeps_beyond_the_given_tensors_is_counted():
    x = torch.ones(4, 8, requires_grad=True)
    weight = torch.ones(8, 8, requires_grad=True)
    assert saved_bytes(lambda: torch.mm(x, weight), [x, weight]) == 0
    assert saved_bytes(lambda: torch.mm(x, weight), [x]) == 8 * 8 * 4
    assert saved_bytes(lambda: (x * 2.0).exp(), [x]) == 4 * 8 * 4
