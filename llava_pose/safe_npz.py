"""Read a pickle, bare or as the object array of an .npz file, without running anything that is in it.

NumPy stores object arrays as pickles, and loading a pickle runs whatever it names. Here a pickle may hold
plain values and NumPy arrays and scalars of plain types; three guards see to that:

1. The opcodes are read first and must all be among those such data consists of, in Python 2's text form too, so
   that no class can be instantiated, no extension looked up and no memo slot claimed beyond the data (that would
   claim memory).
2. A global must be one of a few exact (module, name) pairs.
3. What such a pair stands for is never NumPy's own function but one of this module's small stand-ins. NumPy
   trusts a pickled dtype's flags, so a forged dtype can turn bytes into object pointers; the stand-ins decide
   by the type's name alone and check every length.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import reprlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llava_pose.errors import UserError

MAX_BYTES = 64 * 2**20
"""The largest file and the largest unpacked array that is read."""
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 16

_OPCODES = re.compile(
    "PROTO|FRAME|STOP|MARK|MEMOIZE|(LONG_)?BIN(PUT|GET)|GLOBAL|STACK_GLOBAL|REDUCE|BUILD|NONE|NEWTRUE|NEWFALSE"
    "|BININT[12]?|LONG1|BINFLOAT|(SHORT_)?BIN(UNICODE|BYTES|STRING)|EMPTY_(TUPLE|LIST|DICT)|TUPLE[123]?"
    "|APPENDS?|SETITEMS?"
    # Protocol 0 writes plain values as text.
    "|PUT|GET|INT|LONG|FLOAT|STRING|UNICODE|LIST|DICT"
)
_ARGUMENTS = {
    ord(opcode.code): opcode.arg.n if opcode.arg else 0
    for opcode in pickletools.opcodes
    if _OPCODES.fullmatch(opcode.name)
}
"""How many bytes follow each admitted opcode, or how their number is told: see pickletools.ArgumentDescriptor."""
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_STOP, _GLOBAL, _TEXT_PUT = b".cp"
_PUTS = frozenset(b"qr")


class _RefusedError(Exception):
    """The pickle holds more than data."""


class _Dtype:
    """Stands in for numpy.dtype: a type code such as ``f8``, ``U11`` or ``O`` and a byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"f[248]|[iu][1248]|b1|[US]\d{1,6}|O8?", code):
            raise _RefusedError(f"an array of type {reprlib.repr(code)}")
        self.code, self.order = code[:1] if code[0] == "O" else code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, …): the rest describes structured types, or is the flags not to be trusted.
        if state[1] not in ("<", ">", "|", "="):
            raise _RefusedError(f"a byte order {reprlib.repr(state[1])}")
        self.order = state[1]

    def values(self, raw: bytes | str) -> list[Any]:
        """The plain values behind raw memory; a string is what Python 2 made of bytes."""
        data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        if self.code[1:] == "0":
            return [""]
        return np.frombuffer(data, dtype=np.dtype(self.order + self.code)).tolist()


class _Array:
    """Stands in for numpy.ndarray: flat values and a shape, filled by the BUILD that follows _reconstruct."""

    __slots__ = ("shape", "values")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.values: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or fortran not in (True, False, 0, 1):
            raise _RefusedError("an array with a forged state")
        values = raw if dtype.code == "O" else dtype.values(raw)
        counted = isinstance(shape, tuple) and all(isinstance(size, int) and size >= 0 for size in shape)
        if not isinstance(values, list) or not counted or math.prod(shape) != len(values):
            raise _RefusedError(f"an array whose shape {reprlib.repr(shape)} is not that of its data")
        if fortran:
            values = [values[i] for i in np.arange(len(values)).reshape(shape, order="F").ravel()]
        self.shape, self.values = shape, values


class _Admitted:
    """A stand-in as the unpickler sees it: it can be called, and neither built upon nor changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("a change to a function")


def _reconstruct(kind: object, shape: object, typecode: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, raw: bytes | str) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.code == "O":
        raise _RefusedError("a scalar of a forged type")
    values = dtype.values(raw)
    if len(values) != 1:
        raise _RefusedError(f"a scalar of {len(values)} values")
    return values[0]


def _dtype(code: str, align: object = False, copy: object = True) -> _Dtype:
    return _Dtype(code)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise _RefusedError(f"an encoding {reprlib.repr(encoding)}")
    return text.encode("latin1")


def _marker(*args: object) -> None:
    raise _RefusedError("a direct call of numpy.ndarray")


_GLOBALS = {
    ("numpy", "dtype"): _Admitted(_dtype),
    ("numpy", "ndarray"): _Admitted(_marker),
    ("_codecs", "encode"): _Admitted(_encode),
    **{
        (f"{core}.multiarray", name): _Admitted(call)
        for core in ("numpy.core", "numpy._core")
        for name, call in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise _RefusedError(f"{module}.{name}")
        return _GLOBALS[module, name]


def _screen(body: bytes) -> None:
    """Raise _RefusedError unless the opcodes are those of plain data.

    Goes from opcode to opcode as ``pickletools.genops`` does, by its own table, and reads no argument but a memo slot:
    annotation files are small and many.
    """
    position = count = 0
    while position < len(body):
        code = body[position]
        position += 1
        if code not in _ARGUMENTS:
            raise _RefusedError(f"opcode {_NAMES.get(code, code)}")
        size = _ARGUMENTS[code]
        if size < 0:
            start = position
            position = _after_argument(body, position, code, size)
            if code == _TEXT_PUT and int(body[start:position]) > count:
                raise _RefusedError(f"memo slot {int(body[start:position])}")
        else:
            if code in _PUTS and int.from_bytes(body[position : position + size], "little") > count:
                raise _RefusedError(f"memo slot {int.from_bytes(body[position : position + size], 'little')}")
            position += size
        if code == _STOP:
            return
        count += 1
    raise ValueError("pickle exhausted before seeing STOP")


def _after_argument(body: bytes, position: int, code: int, size: int) -> int:
    """Where an argument of varying length that starts at ``position`` ends."""
    if size == pickletools.UP_TO_NEWLINE:
        for _ in range(2 if code == _GLOBAL else 1):
            position = body.index(b"\n", position) + 1
        return position
    prefix = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(size, 4)
    length = int.from_bytes(body[position : position + prefix], "little")
    return position + prefix + length


def _plain(value: Any, depth: int, seen: list[None]) -> Any:
    """Copy a value with arrays as (nested) lists; refuse one that is too deep or too large."""
    seen.append(None)
    if depth > _MAX_DEPTH or len(seen) > _MAX_VALUES:
        raise _RefusedError("values nested too deep or too many")
    if isinstance(value, _Array):
        if not value.shape:
            return _plain(value.values[0], depth + 1, seen)
        flat = [_plain(item, depth + 1, seen) for item in value.values]
        for size in reversed(value.shape[1:]):
            flat = [flat[start : start + size] for start in range(0, len(flat), max(size, 1))]
        return flat
    if isinstance(value, dict):
        return {_plain(k, depth + 1, seen): _plain(v, depth + 1, seen) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1, seen) for item in value]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise _RefusedError(f"a {type(value).__name__}")


def _read_member(path: Path, key: str) -> bytes:
    """The bytes of ``{key}.npy`` in the archive."""
    member = f"{key}.npy"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: file of {path.stat().st_size} bytes, more than the {MAX_BYTES} allowed")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if member not in names:
                found = ", ".join(name.removesuffix(".npy") for name in names[:5]) or "nothing"
                raise UserError(f"{path}: key {key!r} is missing (found: {found})")
            if archive.getinfo(member).file_size > MAX_BYTES:
                size = archive.getinfo(member).file_size
                raise UserError(f"{path}: {key}: unpacks to {size} bytes, more than the {MAX_BYTES} allowed")
            with archive.open(member) as stream:
                return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable npz file: {error}") from error


def _pickle_of(data: bytes) -> bytes:
    """The pickle behind the header of an .npy file that holds an object array."""
    stream = io.BytesIO(data)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(stream))
    if read_header is None:
        raise ValueError("unknown .npy version")
    _, _, dtype = read_header(stream)
    if dtype != np.dtype(object):
        raise ValueError(f"expected an array of objects, found {dtype}")
    return stream.read()


def read_object_array(path: str | Path, key: str) -> Any:
    """Read the object array ``key`` of an npz file as plain Python values.

    Arrays, lists and tuples become lists, zero-dimensional arrays the value they hold, NumPy scalars Python
    numbers and strings.

    Raises:
        UserError: the file cannot be read, is no npz, is larger than ``MAX_BYTES``, has no such key, holds
            something other than an object array, or holds a pickle with more than data (which it names).
    """
    path = Path(path)
    data = _read_member(path, key)
    return _load(lambda: _pickle_of(data), f"{path}: {key}")


def read_pickle(path: str | Path) -> Any:
    """Read a pickle file of any protocol as plain Python values, as ``read_object_array`` gives them.

    Raises:
        UserError: the file cannot be read, is larger than ``MAX_BYTES``, or is no pickle or one with more than data
            (which it names).
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: file of {path.stat().st_size} bytes, more than the {MAX_BYTES} allowed")
        body = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from error
    return _load(lambda: body, str(path))


def _load(body_of: Callable[[], bytes], where: str) -> Any:
    """The plain values of a pickle; ``where`` names it in messages."""
    try:
        body = body_of()
        _screen(body)
        value = _Unpickler(io.BytesIO(body), encoding="latin1").load()
        return _plain(value, 0, [])
    except _RefusedError as refusal:
        raise UserError(f"{where}: refused, the file holds more than plain data: {refusal}") from refusal
    except Exception as error:
        # A damaged pickle can fail in any way, and each of them is the file's fault.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: cannot be read: {reason or type(error).__name__}") from error
