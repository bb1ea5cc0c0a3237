"""The one decorator of every kernel: compile flags, and a private disk cache.

No fastmath flag is set anywhere. Contraction or reassociation would let the compiler change the
order of a sum, and the promise of equal bits for any batch and any thread count would be gone.

Numba's own cache looks at the file of one function only: an edit in another kernel file, or
another vector width, would go unnoticed and load wrong machine code. It also keeps an index beside
the machine code, which two processes that write at the same time can leave pointing at the wrong
file. Here the folder's name holds all that every kernel depends on (version of the package and of
Numba, vector width, a hash of every kernel source), and each file's name all that one kernel does
(its name, its signature, hence the dtype, and the CPU). The files are pickles, so the folder
belongs to the user alone, and one that others could write to is refused.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import caching, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import PassManager
from numba.extending import intrinsic

from fastgru._version import __version__
from fastgru.files import cache_directory
from fastgru.kernels.width import SIMD_WIDTH


class CacheWarning(UserWarning):
    """Kernels are compiled in memory, because their disk cache cannot be used, or written to."""


def _hash_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# Taken while the sources are being imported: an edit in a running process must not be kept as what
# the edited file gives.
SOURCES = _hash_of_sources()


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can write to, or nobody; or raise `OSError`."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path} can be written to by other users (mode 0700 is needed)")
    # It need not be writable: what it holds, on a read-only mount, is as good.
    if not os.access(path, os.R_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be read")
    return path


@functools.cache
def kernel_cache() -> Path | None:
    """Return the folder of the compiled kernels, or None, with one warning, if there is none."""
    name = f"{__version__}-numba{numba.__version__}-w{SIMD_WIDTH}-{SOURCES}"
    try:
        return private_folder(private_folder(cache_directory() / "kernels") / name)
    except OSError as error:
        warnings.warn(
            f"fastgru compiles its kernels in memory in every process: {error}. "
            "Set FASTGRU_CACHE_DIR to a folder of your own to keep them.",
            CacheWarning,
            stacklevel=2,
        )
        return None


class _Locator(caching._CacheLocator):
    """Where Numba keeps one kernel: in the private folder, whose name is the freshness stamp."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_func = py_func
        self._py_file = py_file

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator | None:
        return cls(py_func, py_file) if kernel_cache() else None

    def get_cache_path(self) -> str:
        return str(kernel_cache())

    def get_source_stamp(self) -> str:
        folder = kernel_cache()
        return folder.name if folder else ""

    def get_disambiguator(self) -> str:
        return str(self._py_func.__code__.co_firstlineno)


class _Files(caching.IndexDataCacheFile):
    """Numba's files of one kernel without their index: a file's name is a hash of its key.

    So what processes write at the same time can be lost to none, and taken for none other's. The
    machine code is followed by its own hash, which is compared before anything else is done.
    """

    def _data_name(self, key: Any) -> str:
        return f"{self._index_name[:-4]}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def save(self, key: Any, data: Any) -> None:
        self._save_data(self._data_name(key), data)

    def load(self, key: Any) -> Any:
        path = Path(self._data_path(self._data_name(key)))
        data = path.read_bytes()
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError(f"{path} is damaged")
        return self._load_data(path.name)

    def _dump(self, obj: Any) -> bytes:
        data = super()._dump(obj)
        return data + hashlib.sha256(data).digest()


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _Cache(caching.FunctionCache):
    """Numba's function cache in our folder; a damaged or vanished file only costs a compilation."""

    _impl_class = _Implementation
    _has_warned = False  # of all kernels

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        folder, base = self._impl.locator.get_cache_path(), self._impl.filename_base
        self._cache_file = _Files(folder, base, self._impl.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # besides OSError: damaged bytes, or what another library wrote
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            if _Cache._has_warned:
                return
            _Cache._has_warned = True
            warnings.warn(
                f"fastgru cannot keep compiled kernels in {self._cache_path}: {error}. Make room "
                "there, or set FASTGRU_CACHE_DIR to a folder that can be written to.",
                CacheWarning,
                stacklevel=2,
            )


def jit(
    function: Callable[..., Any] | None = None, *, parallel: bool = False, nogil: bool = True
) -> Any:
    """Compile a kernel that Python calls: without the GIL, without fastmath, kept on disk."""
    if function is None:
        return functools.partial(jit, parallel=parallel, nogil=nogil)
    own = {} if parallel else {"pipeline_class": _KernelCompiler}
    options = {"nogil": nogil, "parallel": parallel, "error_model": "numpy", **own}
    dispatcher = numba.njit(**options)(function)
    # The cache is attached on the first compilation: finding its folder costs a millisecond.
    compile_signature = dispatcher.compile

    def compile_cached(signature: Any) -> Any:
        if isinstance(dispatcher._cache, caching.NullCache) and kernel_cache():
            dispatcher._cache = _Cache(function)
        return compile_signature(signature)

    dispatcher.compile = compile_cached
    return dispatcher


def inline(function: Callable[..., Any]) -> Any:
    """Compile a part of a kernel that only other kernels call, always merged into its caller."""
    return _called(function, forceinline=True)


def part(function: Callable[..., Any]) -> Any:
    """Compile a part of a kernel that only other kernels call."""
    return _called(function)


# What Numba does for closures, `with`, expressions of arrays, calls that it inlines itself and
# errors that are made up while they run: no kernel has such, and it takes a tenth of the time.
UNNEEDED_PASSES = {
    "FindLiterallyCalls", "InlineClosureLikes", "InlineInlinables", "InlineOverloads",
    "LiteralPropagationSubPipelinePass", "LiteralUnroll", "MakeFunctionToJitFunction",
    "NopythonRewrites", "RewriteDynamicRaises", "WithLifting",
}  # fmt: skip


class _KernelCompiler(Compiler):
    def define_pipelines(self) -> list[PassManager]:
        (every,) = super().define_pipelines()
        needed = PassManager(every.pipeline_name)
        needed.passes = [each for each in every.passes if each[0].__name__ not in UNNEEDED_PASSES]
        needed.finalize()
        return [needed]


class _Bitcode(JITCodeLibrary):
    """The code of a part, which is only linked into kernels.

    Numba would optimize it, make machine code of it, and work through all of it again for each
    level of callers: LLVM needs to see it once, inside a kernel.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    @property
    def codegen(self) -> Any:
        """What Numba tells the Python objects that machine code refers to: there is none."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        pass


class _PartCompiler(_KernelCompiler):
    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *others: Any) -> None:
        super().__init__(typingctx, targetctx, _Bitcode(targetctx.codegen(), "part"), *others)


def _called(function: Callable[..., Any], **options: Any) -> Any:
    options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(error_model="numpy", pipeline_class=_PartCompiler, **options)(function)
    template = dispatcher.get_call_template

    # Numba takes the literal 0 for another type than an integer: each mixture of literals and
    # integers would be compiled on its own, with all that it calls.
    def without_literals(args: Any, kws: Any) -> Any:
        kws = {name: types.unliteral(kind) for name, kind in kws.items()}
        return template(tuple(map(types.unliteral, args)), kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


@intrinsic
def argument(typingctx, function):
    """Return a part of a kernel as it can be passed to another part, which is compiled for it.

    Its type says all. Its value would be the address that the function has in this process, and
    Numba would keep the kernel off the disk.
    """

    def codegen(context, builder, sig, args):
        return context.get_constant_null(sig.return_type)

    return function(function), codegen


_addresses: dict[tuple[Any, ...], int] = {}


def _kind(array: np.ndarray) -> tuple[Any, ...]:
    flags = array.flags
    return array.dtype, array.ndim, flags.c_contiguous, flags.aligned, flags.writeable


def address_of(kernel: Any, arguments: tuple[Any, ...]) -> int:
    """Return the address of a kernel's machine code for these arguments, compiled if need be."""
    # Numba's own typeof takes 70 us for these. This tells apart all that it does: a kernel must
    # never be entered with an array of another kind than it was compiled for.
    key = (kernel, *[_kind(a) if isinstance(a, np.ndarray) else type(a) for a in arguments])
    address = _addresses.get(key)
    if address is None:
        kinds = tuple(map(numba.typeof, arguments))
        kernel.compile(kinds)
        result = kernel.overloads[kinds]
        address = result.library.get_pointer_to_function(result.fndesc.mangled_name)
        _addresses[key] = address
    return address
