"""(config, arrays) <-> one ``.safetensors`` file.

The format, version 1, all numbers little-endian:

    8 bytes     n, the length of the header: an unsigned integer, a multiple of 8, at most 4 MiB
    n bytes     the header: one JSON object in UTF-8, padded with spaces at its end
    the rest    the arrays, one behind the other without gaps, each in C order

This is the safetensors format, so its package reads the arrays in any language. The header maps
every array's name to ``{"dtype": d, "shape": [...], "data_offsets": [begin, end]}``: d is one of
F32 F64 I32 I64 U8 BOOL (a byte of 0 or 1), the offsets count from the end of the header. It also
maps ``__metadata__`` to an object of strings:

    format              fastgru
    format_version      1
    fastgru_version     the version that wrote the file, for people
    sha256              64 lower-case hexadecimal digits: the SHA-256 of the whole file, with these
                        digits replaced by 64 zeros. It covers the header as well as the arrays
    config              a JSON object as text; no key occurs twice, no number is NaN or infinite

fastgru writes the same bytes for the same model: no spaces inside the JSON, every character that
JSON allows as itself, ``__metadata__`` first with its keys in the order above, then the arrays, the
widest dtypes first and those that share a dtype by name. A reader need not ask for this order.
"""

import hashlib
import json
import math
import os
import re
from typing import Any, BinaryIO

import numpy as np

from fastgru._version import __version__
from fastgru.errors import FileFormatError
from fastgru.files import path_of, write_atomically

_DTYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1", "BOOL": "|b1"}
_NAMES = [np.dtype(dtype).name for dtype in _DTYPES.values()]
_ZEROS = b"0" * 64
# JSON grows up to 24-fold when Python parses it: 4 MiB (a vocabulary of 200,000 words) cannot take
# more than 100 MB. Anything larger belongs in an array.
_LONGEST_HEADER = 4 * 2**20


def save(
    path: str | os.PathLike[str], config: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Write a config and arrays to one file; a crash leaves the old file or the new one.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write or to replace. Its folder must exist.
    config : dict
        What JSON can hold: dict with str keys, list, str, int, finite float, bool, None. A tuple
        comes back as a list; the order of keys is kept.
    arrays : dict of str to numpy.ndarray
        Of float32, float64, int32, int64, uint8 or bool; any shape, strides and byte order.

    Raises
    ------
    TypeError
        If config holds something else, or an array has another dtype; names which. Or if `path` is
        no path.
    ValueError
        If config holds NaN, inf or text that is not Unicode, or is too long.
    FileNotFoundError
        If the folder does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/m.safetensors", {"units": 2}, {"bias": np.zeros(2, np.float32)})
    ...     load(f"{folder}/m.safetensors")
    ({'units': 2}, {'bias': array([0., 0.], dtype=float32)})
    """
    import safetensors.numpy

    path = path_of("path", path)
    if not isinstance(config, dict):
        raise TypeError(f"save: expected config to be a dict, given {type(config).__name__}.")
    _check_json(config, "config")
    plain = safetensors.numpy.save({name: _plain(name, array) for name, array in arrays.items()})
    begin = 8 + int.from_bytes(plain[:8], "little")
    metadata = {
        "format": "fastgru",
        "format_version": "1",
        "fastgru_version": __version__,
        "sha256": _ZEROS.decode(),
        "config": _to_json(config),
    }
    # Not save(..., metadata): the package writes its keys in another order in every process.
    header = _to_json({"__metadata__": metadata, **json.loads(plain[8:begin])}).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > _LONGEST_HEADER:
        raise ValueError(
            f"save: expected config and names of at most {_LONGEST_HEADER} bytes of JSON, "
            f"given {len(header)}. Put long lists into an array."
        )
    header = len(header).to_bytes(8, "little") + header
    body = memoryview(plain)[begin:]
    digest = _digest(header, body).encode()
    # The first zeros are the checksum's own: config, which may hold such text, comes behind it.
    write_atomically(path, b"".join([header.replace(_ZEROS, digest, 1), body]))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `save` wrote; nothing is ever unpickled or evaluated.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    config : dict
    arrays : dict of str to numpy.ndarray
        In the order of the file, writable and in the machine's byte order.

    Raises
    ------
    TypeError
        If `path` is no path.
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If the file is damaged, hostile, of another format or of a newer version; says why.
    """
    from safetensors import SafetensorError

    path = path_of("path", path)
    with open(path, "rb") as file:
        try:
            return _read(file, path)
        except (ValueError, RecursionError, SafetensorError) as error:
            raise FileFormatError(
                f"load: expected a fastgru file, given {path!r}: {str(error):.200}."
            ) from error


def pack(state: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Divide nested state into what JSON can hold and arrays, for `save`.

    Parameters
    ----------
    state : dict, list, tuple, str, number, bool, None or numpy.ndarray
        Nested in any way. Numbers may be NumPy's, and NaN or infinite.

    Returns
    -------
    config : the same, of JSON's types
        An array is ``{"$array": name}`` in it, and NaN ``{"$float": "nan"}``.
    arrays : dict of str to numpy.ndarray
        Named by where they are in the state.

    Examples
    --------
    >>> pack({"best": [np.float64("inf"), 2], "m": {"0": np.zeros(3)}})
    ({'best': [{'$float': 'inf'}, 2], 'm': {'0': {'$array': 'm.0'}}}, {'m.0': array([0., 0., 0.])})
    """
    arrays: dict[str, np.ndarray] = {}

    def packed(value: Any, path: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, dict):
            return {name: packed(item, f"{path}.{name}") for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [packed(item, f"{path}.{i}") for i, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            return {"$float": str(value)}
        if isinstance(value, np.ndarray):
            name = path[1:]
            while name in arrays:  # a dot in one name may look like that between two
                name += "_"
            arrays[name] = value
            return {"$array": name}
        return value

    return packed(state, ""), arrays


def unpack(config: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return what `pack` divided; tuples come back as lists.

    Parameters
    ----------
    config, arrays
        What `load` returned.

    Raises
    ------
    ValueError, KeyError, TypeError
        If they are not what `pack` returned.
    """
    if isinstance(config, dict):
        if set(config) == {"$array"}:
            return arrays[config["$array"]]
        if set(config) == {"$float"}:
            return float(config["$float"])
        return {name: unpack(item, arrays) for name, item in config.items()}
    if isinstance(config, list):
        return [unpack(item, arrays) for item in config]
    return config


def _read(file: BinaryIO, path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import deserialize, safe_open

    size = os.fstat(file.fileno()).st_size
    begin = 8 + int.from_bytes(file.read(8), "little")
    if size < 8:
        raise ValueError(f"it has {size} bytes, too few for a header")
    if begin > size:
        raise ValueError("its header is longer than the file")
    if begin > 8 + _LONGEST_HEADER:
        raise ValueError(f"its header is longer than {_LONGEST_HEADER} bytes")
    # Types, nesting, offsets, gaps, overlaps and sizes, without reading the arrays. The bytes that
    # are then read are checked again: the file may have been replaced in between.
    with safe_open(path, framework="np"):
        pass
    header = _from_json(file.read(begin - 8))
    metadata = header.get("__metadata__") or {}
    if metadata.get("format") != "fastgru":
        raise ValueError("its metadata do not say that fastgru wrote it")
    if metadata.get("format_version") != "1":
        raise ValueError(
            f"its format version is {metadata.get('format_version')!r:.40}, fastgru {__version__} "
            "reads version '1'. Install a newer fastgru"
        )
    digest = metadata.get("sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("it has no checksum")

    file.seek(0)
    data = file.read()
    tensors = deserialize(data)
    zeroed = data[:begin].replace(digest.encode(), _ZEROS)
    if _digest(zeroed, memoryview(data)[begin:]) != digest:
        raise ValueError("its checksum is wrong, so it has been damaged")
    config = _from_json(metadata.get("config", ""))
    if not isinstance(config, dict):
        raise ValueError("its config is not a JSON object")
    return config, {name: _array(name, **tensor) for name, tensor in tensors}


def _array(name: str, dtype: str, shape: list[int], data: bytearray) -> np.ndarray:
    if dtype not in _DTYPES:
        raise ValueError(f"array {name!r:.40} has dtype {dtype}, not one of {', '.join(_DTYPES)}")
    if dtype == "BOOL" and (np.frombuffer(data, np.uint8) > 1).any():
        raise ValueError(f"array {name!r:.40} has a bool that is neither 0 nor 1")
    array = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array in C order; the package swaps the bytes of a big-endian one."""
    if not isinstance(name, str) or not isinstance(array, np.ndarray):
        raise TypeError(
            f"save: expected arrays to map str to numpy.ndarray, "
            f"given {name!r}: {type(array).__name__}."
        )
    if name == "__metadata__" or not _is_unicode(name):
        raise ValueError(f"save: expected another name for an array, given {name!r}.")
    if array.dtype.name not in _NAMES:
        raise TypeError(
            f"save: expected array {name!r} of dtype {', '.join(_NAMES)}, given {array.dtype}."
        )
    return np.asarray(array, order="C")  # ascontiguousarray would make 0-d arrays 1-d


def _check_json(value: Any, key: str) -> None:
    """Refuse what would not come back; `key` says where it is, as Python would write it."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"save: expected str keys in {key}, given {name!r}.")
            _check_json(name, f"{key}[{name!r}]")
            _check_json(item, f"{key}[{name!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{key}[{i}]")
    elif isinstance(value, str):
        if not _is_unicode(value):
            raise ValueError(f"save: expected Unicode text in {key}, given {value!r}.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"save: expected a finite number in {key}, given {value}.")
    elif value is not None and not isinstance(value, int):
        raise TypeError(
            f"save: expected {key} to be dict, list, str, int, float, bool or None, "
            f"given {type(value).__name__}."
        )


def _is_unicode(text: str) -> bool:
    return text.encode(errors="replace").decode() == text  # a lone surrogate becomes "?"


def _to_json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _from_json(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in pairs:
        if key in items:
            raise ValueError(f"the key {key!r:.40} occurs twice")
        items[key] = value
    return items


def _refuse(constant: str) -> Any:
    raise ValueError(f"its JSON holds {constant}")


def _digest(header: bytes, body: memoryview) -> str:
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.hexdigest()
