"""Make autograd run on fake CUDA tensors with every build of torch: of the CPU alone, of CUDA without a card, for macOS.

Two things stand in the way where no card is. The first is the device guard: c10 holds one that does nothing, and puts
it in place of a CUDA guard that sees no device (`ensureCUDADeviceGuardSet`). A build of CUDA has such a guard of its
own; to the others we offer one and let c10 replace it. The second are the hooks by which the engine asks for the
device's streams: without CUDA they say that it was not built, and with CUDA but no card they refuse to be asked. The
hooks object shows, while tracing, a copy of its virtual table in which "is CUDA built" answers yes and "has this device
a context" no; those of MPS (macOS) one in which they are not built, since the engine allows for one accelerator only.
All of it depends on the layout of one version, so every step is checked and what was not tested is refused by name.

Where torch sees a card nothing is changed, and nothing may be traced: see `apart`.

Source: c10/core/impl/DeviceGuardImplInterface.{h,cpp}, ATen/detail/{Accelerator,CUDA}HooksInterface.h and
ATen/DeviceAccelerator.cpp (`getAccelerator`), torch 2.13.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.checkpoint import DefaultDeviceType

from loralens.core.errors import DependencyMissing

TESTED: Final = ("2.13.",)
_SUFFIX: Final = {"Linux": ".so", "Darwin": ".dylib"}
_CUDA: Final = 1  # c10::DeviceType::CUDA
_IS_BUILT, _IS_AVAILABLE, _HAS_CONTEXT = 2, 3, 4  # slots of AcceleratorHooksInterface, after two destructors
_SLOTS: Final = 64  # more than any of the tables has; only read and copied
_YES: Final = ("_ZN2at7Context9hasOpenMPEv", "_ZN2at7Context9hasLAPACKEv")  # static, without arguments
_HEADER: Final = 2 * ctypes.sizeof(ctypes.c_void_p)  # offset-to-top and type information lie before the first slot
_kept: list[Any] = []  # the process may call into these until it ends
_tables: list[tuple[Any, Any]] = []  # hooks objects, and the table that each shows while tracing
_outcome: list[str] = []  # of the one installation: empty text, or why it was refused


class _Unsupported(Exception):
    pass


def card_is_visible() -> bool:
    """Whether this process sees a GPU (and fake CUDA tensors would therefore start it)."""
    return torch.cuda.is_available()


def install() -> None:
    """Put the no-op guard in place and make the hooks' other answers ready, once per process.

    Raises:
        DependencyMissing: this build of torch was not tested, or sees a card.
    """
    if not _outcome:
        _outcome.append(_install())
    if _outcome[0]:
        raise DependencyMissing(
            f"this build of torch cannot trace: {_outcome[0]} "
            f"(torch {torch.__version__} on {platform.system()} {platform.machine()})",
            hint="pip install torch==2.13.0 (any of its builds for Linux or macOS); loralens memory needs none",
        )


def _install() -> str:
    """Empty when all is in place, else why not."""
    try:
        _check_build()
        _replace_guard()
        _other_answers()
        with _answering():
            _prove()
    except (_Unsupported, OSError, ValueError, AttributeError) as problem:
        return str(problem)
    return ""


def _check_build() -> None:
    if platform.system() not in _SUFFIX or platform.python_implementation() != "CPython":
        raise _Unsupported(f"{platform.python_implementation()} on {platform.system()} was not tested")
    if torch.version.hip is not None or torch.version.xpu is not None:
        raise _Unsupported("only the builds for the CPU, for CUDA and for macOS were tested")
    if not torch.__version__.startswith(TESTED):
        raise _Unsupported("this version was not tested")
    if card_is_visible():
        raise _Unsupported("it sees a card, which a trace must not touch; with CUDA_VISIBLE_DEVICES= it sees none")


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / (name + _SUFFIX[platform.system()])))


def _replace_guard() -> None:
    table = (ctypes.c_void_p * 8).in_dll(_library("libc10"), "_ZN3c104impl26device_guard_impl_registryE")
    before = table[_CUDA]
    if table[0] is None or (before is None) != (torch.version.cuda is None):
        raise _Unsupported("the device guard registry looks different")
    if before is None:
        answer_zero = ctypes.CFUNCTYPE(ctypes.c_int64)(lambda: 0)  # a guard that counts no device
        address = ctypes.cast(answer_zero, ctypes.c_void_p).value
        methods = (ctypes.c_void_p * _SLOTS)(*[address] * _SLOTS)
        guard = (ctypes.c_void_p * 1)(ctypes.addressof(methods))
        _kept.extend((answer_zero, methods, guard))
        table[_CUDA] = ctypes.addressof(guard)
    offered = table[_CUDA]
    torch._C._ensureCUDADeviceGuardSet()
    if before is None and table[_CUDA] in (None, offered):
        table[_CUDA] = None
        raise _Unsupported("c10 did not offer its no-op guard")


def _other_answers() -> None:
    """Hooks tables in which CUDA is built and has no context, and no other accelerator is built.

    Autograd's threads ask at any time, also while the interpreter ends, so no answer may need Python: "no" is what
    CUDA's hooks themselves say to whether it is available, "yes" what a function of torch says.
    """
    accelerator = torch.accelerator.current_accelerator()
    built = None if accelerator is None else accelerator.type
    if built not in (None, "cuda", "mps") or (built == "cuda") != (torch.version.cuda is not None):
        raise _Unsupported(f"it is built for {accelerator}")
    library = _library("libtorch_cpu")
    cuda, table = _hooks(library, "_ZN2at6detail12getCUDAHooksEv")
    no = table[2 + _IS_AVAILABLE]
    table[2 + _HAS_CONTEXT] = no
    if built != "cuda":
        table[2 + _IS_BUILT] = _native_yes(library)
    _tables.append((cuda, table))
    if built == "mps":
        mps, table = _hooks(library, "_ZN2at6detail11getMPSHooksEv")
        table[2 + _IS_BUILT] = no
        _tables.append((mps, table))


def _hooks(library: ctypes.CDLL, name: str) -> tuple[Any, Any]:
    """An accelerator's hooks object, and a copy of its virtual table with the two words that lie before it."""
    get = library[name]
    get.restype = ctypes.c_void_p
    hooks = ctypes.cast(get(), ctypes.POINTER(ctypes.c_void_p))
    if not hooks or not hooks[0]:
        raise _Unsupported("the hooks look different")
    return hooks, (ctypes.c_void_p * _SLOTS)(*(ctypes.c_void_p * _SLOTS).from_address(hooks[0] - _HEADER))


@contextmanager
def _answering() -> Iterator[None]:
    before = [(hooks, hooks[0]) for hooks, _ in _tables]
    for hooks, table in _tables:
        hooks[0] = ctypes.addressof(table) + _HEADER
    try:
        yield
    finally:
        for hooks, old in before:
            hooks[0] = old


def _native_yes(library: ctypes.CDLL) -> int:
    """Address of a function of torch that takes nothing and returns true."""
    for name in _YES:
        function = library[name]
        function.restype = ctypes.c_bool
        address = ctypes.cast(function, ctypes.c_void_p).value
        if address and function() is True:
            return address
    raise _Unsupported("no function in it answers yes")


def _prove() -> None:
    """One backward pass, with a gradient that two operators add to: a wrong slot shows here, not in a figure."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.autograd.set_multithreading_enabled(False):
        weight = torch.empty(3, 3, device="cuda", requires_grad=True)
        try:
            (torch.empty(4, 3, device="cuda") @ (weight @ weight + weight.relu())).sum().backward()
        except RuntimeError as problem:
            raise _Unsupported(f"autograd refuses fake CUDA tensors: {problem}") from problem
        if weight.grad is None or weight.grad.device.type != "cuda":
            raise _Unsupported("autograd gave no CUDA gradient")


@contextmanager
def cuda_words() -> Iterator[None]:
    """Answer what the engine and the libraries ask about CUDA as a recent card would, while tracing.

    `torch.cuda.is_available()` stays false, since fake tensors would otherwise try to start a real device.

    Raises:
        DependencyMissing: see `install`.
    """
    install()
    answers: list[tuple[Any, str, Any]] = [
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_capability", lambda device=None: (8, 0)),
        (DefaultDeviceType, "_default_device_type", "cuda"),  # of layers that are called with keywords alone
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in answers]
    for where, name, answer in answers:
        setattr(where, name, answer)
    try:
        with _answering():
            yield
    finally:
        for where, name, old in before:
            setattr(where, name, old)
