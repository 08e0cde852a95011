"""Make autograd run on fake CUDA tensors with a build of torch that has no CUDA.

Two things stand in the way: no device guard is registered for CUDA, and the CUDA hooks say that CUDA is not built.
c10 holds a no-op guard that it puts in place of a CUDA guard that sees no device (`ensureCUDADeviceGuardSet`); we
offer such a guard and let c10 replace it with its own. The hooks object gets a copy of its virtual table in which
"is CUDA built" answers yes and "has this device a context" answers no. Both depend on the layout of one build,
so every step is checked and any other build is refused by name.

Source: c10/core/impl/DeviceGuardImplInterface.{h,cpp} and ATen/detail/{Accelerator,CUDA}HooksInterface.h, torch 2.13.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from loralens.core.errors import DependencyMissing

TESTED: Final = ("2.13.",)
_CUDA: Final = 1  # c10::DeviceType::CUDA
_IS_BUILT, _IS_AVAILABLE, _HAS_CONTEXT = (
    2,
    3,
    4,
)  # slots of AcceleratorHooksInterface's virtual table, after two destructors
_SLOTS: Final = 64  # more than either table has; only read and copied
_RETURN_ONE: Final = {
    "x86_64": b"\xb8\x01\x00\x00\x00\xc3",  # mov eax, 1; ret
    "aarch64": b"\x20\x00\x80\x52\xc0\x03\x5f\xd6",  # mov w0, #1; ret
}
_kept: list[Any] = []  # the process may call into these until it ends


class _Unsupported(Exception):
    pass


def install() -> None:
    """Put the no-op guard and the hooks in place, once per process.

    Raises:
        DependencyMissing: this torch is neither a tested CPU build nor a CUDA build with a device.
    """
    if _kept or torch.cuda.is_available():
        return
    try:
        _check_build()
        _register_guard()
        _say_built()
        _prove()
    except (_Unsupported, OSError, ValueError, AttributeError) as problem:
        raise DependencyMissing(
            f"tracing needs the CPU build of torch 2.13 on Linux, or a CUDA build with a GPU: {problem} "
            f"(this is torch {torch.__version__} on {platform.system()})",
            hint='pip install "loralens[trace]" with torch 2.13 from the CPU wheels',
        ) from problem


def _check_build() -> None:
    if platform.system() != "Linux" or platform.python_implementation() != "CPython":
        raise _Unsupported("the system is not supported")
    if torch.version.cuda is not None or torch.version.hip is not None:
        raise _Unsupported("a GPU build without a GPU")
    if not torch.__version__.startswith(TESTED):
        raise _Unsupported("this version was not tested")


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))


def _register_guard() -> None:
    table = (ctypes.c_void_p * 8).in_dll(_library("libc10.so"), "_ZN3c104impl26device_guard_impl_registryE")
    if table[0] is None or table[_CUDA] is not None:
        raise _Unsupported("the device guard registry looks different")
    answer_zero = ctypes.CFUNCTYPE(ctypes.c_int64)(lambda: 0)  # a guard that counts no device
    address = ctypes.cast(answer_zero, ctypes.c_void_p).value
    methods = (ctypes.c_void_p * _SLOTS)(*[address] * _SLOTS)
    guard = (ctypes.c_void_p * 1)(ctypes.addressof(methods))
    _kept.extend((answer_zero, methods, guard))
    table[_CUDA] = ctypes.addressof(guard)
    torch._C._ensureCUDADeviceGuardSet()
    if table[_CUDA] in (None, ctypes.addressof(guard)):
        table[_CUDA] = None
        raise _Unsupported("c10 did not offer its no-op guard")


def _say_built() -> None:
    get_hooks = _library("libtorch_cpu.so")["_ZN2at6detail12getCUDAHooksEv"]
    get_hooks.restype = ctypes.c_void_p
    hooks = ctypes.cast(get_hooks(), ctypes.POINTER(ctypes.c_void_p))
    original = hooks[0]
    if not original:
        raise _Unsupported("the CUDA hooks look different")
    header = 2 * ctypes.sizeof(ctypes.c_void_p)  # offset-to-top and type information lie before the first slot
    copied = (ctypes.c_void_p * _SLOTS)(*(ctypes.c_void_p * _SLOTS).from_address(original - header))
    copied[2 + _HAS_CONTEXT] = copied[2 + _IS_AVAILABLE]  # which answers no
    copied[2 + _IS_BUILT] = _native_yes()
    _kept.append(copied)
    hooks[0] = ctypes.addressof(copied) + header


def _native_yes() -> int:
    """Address of a function that returns 1.

    Autograd's threads ask at any time, also while the interpreter ends, so the answer must not need Python.
    """
    code = _RETURN_ONE.get(platform.machine())
    if code is None:
        raise _Unsupported(f"the processor {platform.machine()} is not known")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page[: len(code)] = code
    start = ctypes.c_char.from_buffer(page)
    _kept.extend((page, start))
    return ctypes.addressof(start)


def _prove() -> None:
    """One backward pass: a wrong slot shows here, not in somebody's figure."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.autograd.set_multithreading_enabled(False):
        weight = torch.empty(3, 2, device="cuda", requires_grad=True)
        try:
            (torch.empty(4, 3, device="cuda") @ weight).sum().backward()
        except RuntimeError as problem:
            raise _Unsupported(f"autograd refuses fake CUDA tensors: {problem}") from problem
        if weight.grad is None or weight.grad.device.type != "cuda":
            raise _Unsupported("autograd gave no CUDA gradient")


@contextmanager
def cuda_words() -> Iterator[None]:
    """Answer the questions that libraries ask about CUDA as a recent card would, while tracing.

    `torch.cuda.is_available()` stays false, since fake tensors would otherwise try to start a real device.
    """
    if torch.cuda.is_available():
        yield
        return
    answers: list[tuple[Any, str, Any]] = [
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_capability", lambda device=None: (8, 0)),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in answers]
    for where, name, answer in answers:
        setattr(where, name, answer)
    try:
        yield
    finally:
        for where, name, old in before:
            setattr(where, name, old)
