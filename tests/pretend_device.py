"""A device that is none: tensors whose numbers lie in CPU memory, but which torch takes for those of an accelerator.

With it the code that a GPU runs can be run without one, and what a GPU would refuse is refused: a tensor of the CPU
beside one of the device (numbers of no dimension excepted, as in torch). What makes the host wait for the device, and
what comes from the host, is counted; `recording` refuses both, as a CUDA graph does while it is recorded.

`is_cuda` says True, so that Python code takes the way that is meant for a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "pretend"
"""What torch calls the device."""
HOST_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select")
"""Each makes the host wait: for a value, or for a shape that depends on values."""
LOWER = (
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "conv1d", "scaled_dot_product_attention",
)  # fmt: skip
WIDEN = ("layer_norm", "cross_entropy_loss", "nll_loss", "pow.Tensor_Scalar", "exp", "log", "rsqrt")
"""What autocast computes in 16 bits on a GPU, and what in float32 (torch's autocast_mode.h, those that we use)."""
WIDEN_UNLESS_ASKED = ("softmax.int", "log_softmax.int", "cumsum", "sum", "sum.dim_IntList")
PROMOTE = ("cat", "stack", "addcmul", "index_put", "scatter_add")
_registered: list[Any] = []


class CaptureError(RuntimeError):
    """What CUDA does not allow while a graph is recorded."""


class _State:
    recording = False
    host_reads: ClassVar[Counter[str]] = Counter()
    copies: ClassVar[Counter[str]] = Counter()


class DeviceTensor(Tensor):
    """Holds its numbers in `inner`, a CPU tensor."""

    inner: Tensor
    is_cuda = True  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> DeviceTensor:
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.inner})"


class PretendMode(torch.utils._python_dispatch.TorchDispatchMode):
    """Inside, its `device=` makes tensors of the device, also where no argument is one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device, for as long as the block lasts."""
    if not _registered:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        _registered.append(_autocast())
    forget()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) makes a CPU tensor and copies it
    try:
        with PretendMode():
            yield torch.device(NAME, 0)
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


class _Module(_DummyBackendModule):
    """What `torch.pretend` offers; its random numbers are the CPU's."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _autocast() -> list[torch.library.Library]:
    """Give the device the rules of a GPU's autocast. They hold as long as what is returned."""
    others, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    lists = ((LOWER, _lowered), (WIDEN, _widened), (WIDEN_UNLESS_ASKED, _widened), (PROMOTE, _promoted))
    for names, rule in lists:
        for name in names:
            library.impl(name, partial(rule, _operation(name)), "AutocastPrivateUse1")
    # As a GPU it would call cuDNN.
    library.impl("lstm.input", torch._decomp.decomposition_table[aten.lstm.input], "AutogradPrivateUse1")
    return [others, library]


def _operation(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _lowered(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return _cast(operation, torch.get_autocast_dtype(NAME), args, kwargs)


def _widened(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return _cast(operation, torch.float32, args, kwargs)


def _promoted(operation: Any, *args: Any, **kwargs: Any) -> Any:
    wide = any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in tree_leaves((args, kwargs)))
    return _cast(operation, torch.float32 if wide else torch.get_autocast_dtype(NAME), args, kwargs)


def _cast(operation: Any, dtype: torch.dtype, args: Any, kwargs: Any) -> Any:
    def cast(x: Any) -> Any:
        casts = isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64
        return x.to(dtype) if casts else x

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        args, kwargs = tree_map(cast, (args, kwargs))
        return operation(*args, **kwargs)


@contextmanager
def recording() -> Iterator[None]:
    """Refuse what a CUDA graph refuses while it is recorded: host reads, and copies between host and device."""
    _State.recording = True
    try:
        yield
    finally:
        _State.recording = False


def forget() -> None:
    """Count from zero."""
    _State.host_reads.clear()
    _State.copies.clear()


def host_reads() -> Counter[str]:
    """How often the host has waited for the device, by operation."""
    return _State.host_reads


def copies() -> Counter[str]:
    """Copies to and from the device: `in` and `out`."""
    return _State.copies


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    flat = tree_leaves((args, kwargs))
    mine = [x for x in flat if isinstance(x, DeviceTensor)]
    wanted = kwargs.get("device")
    if func in (aten._to_copy.default, aten.copy_.default):
        return _copy(func, args, kwargs)
    if not mine and (wanted is None or torch.device(wanted).type != NAME):
        return func(*args, **kwargs)
    if func is aten._fused_sdp_choice.default:
        return 0  # plain products: the fused kernels of a GPU are not here
    _refuse(func, flat, bool(mine))
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    if wanted is not None:
        inner_kwargs["device"] = "cpu"
    result = func(*inner_args, **inner_kwargs)
    wrapped = tree_map(lambda x: _wrapped(x, mine), result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _refuse(func: Any, flat: list[Any], on_device: bool) -> None:
    name = func._schema.name
    strangers = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, DeviceTensor)]
    if on_device and any(x.ndim > 0 for x in strangers):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cpu beside {NAME}")
    reads = name in HOST_READS or any(isinstance(x, DeviceTensor) for x in _boolean_indices(name, flat))
    if reads:
        _State.host_reads[name] += 1
        if _State.recording:
            raise CaptureError(f"{name} makes the host wait for the device")
    if _State.recording and strangers:
        raise CaptureError(f"{name} reads a number of the host's, which a replay would not see")


def _boolean_indices(name: str, flat: list[Any]) -> list[Tensor]:
    """A mask as an index: how many it picks is known on the device alone."""
    if name not in ("aten::index", "aten::index_put_", "aten::index_put"):
        return []
    return [x for x in flat[1:] if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)]


def _copy(func: Any, args: Any, kwargs: Any) -> Any:
    """Between host and device, or within one of them."""
    source = args[1] if func is aten.copy_.default else args[0]
    if func is aten.copy_.default:
        from_device, to_device = isinstance(source, DeviceTensor), isinstance(args[0], DeviceTensor)
    else:
        from_device = isinstance(source, DeviceTensor)
        wanted = kwargs.get("device")
        to_device = from_device if wanted is None else torch.device(wanted).type == NAME
    if from_device != to_device:
        _State.copies["in" if to_device else "out"] += 1
        if from_device:
            _State.host_reads["copy to the host"] += 1
        if _State.recording:
            raise CaptureError(f"{func._schema.name}: a copy between host and device")
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    if inner_kwargs.get("device") is not None:
        inner_kwargs["device"] = "cpu"
    result = func(*inner_args, **inner_kwargs)
    if func is aten.copy_.default:
        return args[0]
    return DeviceTensor(result) if to_device else result


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, DeviceTensor) else x


def _wrapped(x: Any, mine: list[DeviceTensor]) -> Any:
    """The tensor of the device that holds x: the argument itself where it was written in place."""
    if not isinstance(x, Tensor):
        return x
    return (
        next((one for one in mine if one.inner is x), None) if any(one.inner is x for one in mine) else DeviceTensor(x)
    )
