"""Live tensors and kernels' scratch, told apart in what a profiler saw."""

from dataclasses import dataclass

from loralens.lab.measure.profile import MEMORY, ProfiledPeaks, read


@dataclass
class Seen:
    """An event as the profiler gives it."""

    label: str
    start: int
    end: int
    size: int = 0
    thread: int = 1

    def name(self):
        return self.label

    def start_ns(self):
        return self.start

    def duration_ns(self):
        return self.end - self.start

    def nbytes(self):
        return self.size

    def start_thread_id(self):
        return self.thread


def memory(at, size, thread=1):
    return Seen(MEMORY, at, at, size, thread)


STEP = Seen("mine: step", 10, 100)


def test_what_an_operator_takes_and_gives_back_is_scratch():
    product = Seen("aten::mm", 20, 40)
    events = [STEP, product, memory(5, 1000), memory(21, 100), memory(22, 400), memory(39, -400), memory(90, -100)]
    assert read(events, "mine: ") == ProfiledPeaks({"step": 1100}, 400)


def test_what_outlives_its_operator_is_a_tensor():
    outer, inner = Seen("aten::linear", 20, 60), Seen("aten::mm", 30, 40)
    events = [STEP, outer, inner, memory(31, 400), memory(50, -400)]  # made by mm, released by linear
    assert read(events, "mine: ") == ProfiledPeaks({"step": 400}, 0)


def test_an_older_block_released_by_an_operator_is_no_scratch():
    events = [STEP, Seen("aten::set_", 20, 40), memory(5, 400), memory(21, -400)]
    assert read(events, "mine: ") == ProfiledPeaks({"step": 400}, 0)


def test_python_code_has_no_scratch():
    events = [STEP, memory(21, 400), memory(39, -400)]
    assert read(events, "mine: ") == ProfiledPeaks({"step": 400}, 0)


def test_threads_do_not_share_operators():
    events = [STEP, Seen("aten::mm", 20, 40), memory(21, 400, thread=2), memory(39, -400, thread=2)]
    assert read(events, "mine: ") == ProfiledPeaks({"step": 400}, 0)


def test_what_was_there_before_counts():
    events = [STEP, memory(5, 1000), memory(50, -1000), memory(60, 10)]
    assert read(events, "mine: ") == ProfiledPeaks({"step": 1000}, 0)


def test_the_largest_of_spans_of_one_name():
    events = [Seen("mine: a", 0, 10), Seen("mine: a", 20, 30), memory(1, 5), memory(9, -5), memory(21, 7)]
    assert read(events, "mine: ").tensors == {"a": 7}
