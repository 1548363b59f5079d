"""The safe npz reader: reads what NumPy writes, and neither runs nor trusts anything else."""

import io
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from llava_pose.errors import UserError
from llava_pose.safe_npz import MAX_BYTES, read_object_array

HEADER = {"descr": "|O", "fortran_order": False, "shape": (1,)}


def npz_with(path, body, header=HEADER, key="annotations"):
    """Write an npz whose one member is an .npy header followed by raw bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{key}.npy", stream.getvalue() + body)
    return path


class Runs:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("how", ["whole array", "inside a dict", "inside an inner array", "as a dict key"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_malicious_pickle_is_refused_and_never_runs(tmp_path, how, protocol):
    trap = tmp_path / "ran"
    malice = Runs(os.system, f"touch {trap}")
    payload = {
        "whole array": malice,
        "inside a dict": np.array([{"azimuth": malice}], dtype=object),
        "inside an inner array": np.array([{"bbox": np.array([malice], dtype=object)}], dtype=object),
        "as a dict key": np.array([{malice: 1}], dtype=object),
    }[how]
    path = npz_with(tmp_path / "a.npz", pickle.dumps(payload, protocol=protocol))
    with pytest.raises(UserError, match=r"a\.npz: annotations: refused, .* posix\.system"):
        read_object_array(path, "annotations")
    assert not trap.exists()


def test_the_same_malice_does_run_under_numpys_own_reader(tmp_path):
    trap = tmp_path / "ran"
    npz_with(tmp_path / "a.npz", pickle.dumps(np.array([Runs(os.mkdir, str(trap))], dtype=object)))
    with np.load(tmp_path / "a.npz", allow_pickle=True) as data:
        assert data["annotations"].shape == (1,)
    assert trap.exists()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("__import__('os').mkdir('ran')",)),
        (exec, ("import os; os.mkdir('ran')",)),
        (open, ("ran", "w")),
        (getattr, (str, "format")),
        (__import__, ("os",)),
        (np.load, ("x.npy",)),
        (np.fromfile, ("x.npy",)),
        (np.memmap, ("ran", "u1", "w+", 0, (8,))),
        (np.frombuffer, (b"12345678",)),
        (np.array, ([1],)),
        (os.mkdir, ("ran",)),
        (pickle.loads, (b"N.",)),
        (bytearray, (10**12,)),
    ],
)
def test_every_other_callable_is_refused_by_name(tmp_path, monkeypatch, function, arguments):
    monkeypatch.chdir(tmp_path)
    path = npz_with(tmp_path / "a.npz", pickle.dumps(np.array([{"x": Runs(function, *arguments)}], dtype=object)))
    with pytest.raises(UserError, match="refused, the file holds more than plain data") as refusal:
        read_object_array(path, "annotations")
    assert function.__name__ in str(refusal.value) or "bytearray" in str(refusal.value).lower()
    assert not (tmp_path / "ran").exists()


def call(module, name, *arguments, state=None):
    """Opcodes that call module.name and, with a state, build upon the result."""
    body = b"\x80\x04c" + f"{module}\n{name}\n".encode()
    body += b"(" + b"".join(pickle.dumps(argument, 2)[2:-1].replace(b"q\x00", b"") for argument in arguments)
    return body + b"tR" + (b"" if state is None else pickle.dumps(state, 2)[2:-1].replace(b"q\x00", b"") + b"b") + b"."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (call("numpy", "ndarray", 10**10), "a direct call of numpy.ndarray"),
        (call("numpy", "dtype", "V8"), "an array of type 'V8'"),
        (call("numpy", "dtype", 5), "an array of type 5"),
        (call("_codecs", "encode", "x", "rot13"), "an encoding 'rot13'"),
        (call("numpy.core.multiarray", "scalar", 1, b"x"), "a scalar of a forged type"),
        (b"\x80\x04cnumpy\ndtype\n}b.", "a change to a function"),
        (b"\x80\x04cnumpy.core.multiarray\nfromstring\n.", "numpy.core.multiarray.fromstring"),
        (b"\x80\x04cnumpy.core\nmultiarray._reconstruct\n.", "numpy.core.multiarray._reconstruct"),
        (b"\x80\x04cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
        (b"\x80\x04cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x04(cnumpy\nndarray\no.", "opcode OBJ"),
        (b"(iposix\nsystem\n.", "opcode INST"),
        (b"\x80\x04\x82\x01.", "opcode EXT1"),
        (b"\x80\x04Pid\n.", "opcode PERSID"),
        (b"\x80\x04\x8f.", "opcode EMPTY_SET"),
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "memo slot 2147483647"),
    ],
)
def test_hand_made_tricks_are_refused(tmp_path, body, message):
    with pytest.raises(UserError, match="refused, the file holds more than plain data") as refusal:
        read_object_array(npz_with(tmp_path / "a.npz", body), "annotations")
    assert message in str(refusal.value)


class ForgedDtype:
    """Pickles as an object dtype whose flags say that its memory holds plain numbers."""

    def __reduce__(self):
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class ForgedArray:
    """Pickles as an object array built from bytes, which NumPy would follow as pointers."""

    def __init__(self, shape, dtype, raw):
        self.state = (1, shape, dtype, False, raw)

    def __reduce__(self):
        reconstruct = np.zeros(1, dtype=object).__reduce__()[0]
        return reconstruct, (np.ndarray, (0,), b"b"), self.state


@pytest.mark.parametrize(
    "forged",
    [
        ForgedArray((1,), ForgedDtype(), b"\x41" * 8),
        ForgedArray((10**12,), np.dtype("f8"), b"\x00" * 8),
        ForgedArray((-1, -1), np.dtype("f8"), b"\x00" * 8),
        ForgedArray([1], np.dtype("f8"), b"\x00" * 8),
        ForgedArray((1,), "f8", b"\x00" * 8),
        ForgedArray((1,), np.dtype([("a", "f8")]), b"\x00" * 8),
    ],
    ids=["pointers", "huge", "negative", "list shape", "no dtype", "structured"],
)
def test_forged_arrays_never_reach_numpy(tmp_path, forged):
    path = npz_with(tmp_path / "a.npz", pickle.dumps([forged], protocol=4))
    with pytest.raises(UserError, match=r"a\.npz: annotations: (refused|cannot be read)"):
        read_object_array(path, "annotations")


def test_a_small_pickle_that_unfolds_without_end_is_refused(tmp_path):
    value = ["x"] * 10
    for _ in range(12):
        value = [value] * 10
    with pytest.raises(UserError, match="too many"):
        read_object_array(npz_with(tmp_path / "a.npz", pickle.dumps(value, protocol=4)), "annotations")
    loop = []
    loop.append(loop)
    with pytest.raises(UserError, match="too deep"):
        read_object_array(npz_with(tmp_path / "b.npz", pickle.dumps(loop, protocol=4)), "annotations")


def test_a_zip_bomb_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.npy", bytes(MAX_BYTES + 1))
    assert path.stat().st_size < 2**18
    with pytest.raises(UserError, match=r"bomb\.npz: annotations: unpacks to \d+ bytes"):
        read_object_array(path, "annotations")


def test_real_numpy_output_reads_as_plain_values(tmp_path):
    value = {
        "f8": np.float64(1.5),
        "f4": np.float32(0.5),
        "i8": np.int64(-3),
        "u1": np.uint8(200),
        "b": np.bool_(True),
        "str": np.str_("größe"),
        "empty": np.str_(""),
        "bytes": np.bytes_(b"ab"),
        "big endian": np.array([1.5, 2.5], dtype=">f8"),
        "matrix": np.arange(6).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "zero-dimensional": np.array(7.0),
        "no values": np.zeros((0, 4)),
        "texts": np.array(["a", "bcd"]),
        "objects": np.array([None, {"deep": [1, (2, 3)]}], dtype=object),
        "plain": [1, 2.5, None, True, "x", b"y", 2**70],
    }
    np.savez_compressed(tmp_path / "a.npz", annotations=np.array([value], dtype=object), other=np.zeros(3))
    assert read_object_array(tmp_path / "a.npz", "annotations") == [
        {
            "f8": 1.5,
            "f4": 0.5,
            "i8": -3,
            "u1": 200,
            "b": True,
            "str": "größe",
            "empty": "",
            "bytes": b"ab",
            "big endian": [1.5, 2.5],
            "matrix": [[0, 1, 2], [3, 4, 5]],
            "columns": [[0, 1, 2], [3, 4, 5]],
            "zero-dimensional": 7.0,
            "no values": [],
            "texts": ["a", "bcd"],
            "objects": [None, {"deep": [1, [2, 3]]}],
            "plain": [1, 2.5, None, True, "x", b"y", 2**70],
        }
    ]


plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=9), st.binary()
)
nested = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
numbers = arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
    array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
    elements={"allow_nan": False},
)


@given(values=st.lists(st.tuples(nested, numbers), min_size=1, max_size=3))
def test_what_numpy_saves_comes_back_equal(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    dicts = [{"value": value, "array": array, "scalar": array.flat[0]} for value, array in values]
    np.savez(path, annotations=np.array(dicts, dtype=object))
    assert read_object_array(path, "annotations") == [
        {"value": value, "array": array.tolist(), "scalar": array.flat[0].item()} for value, array in values
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_files_of_old_and_new_numpy_are_read(tmp_path, protocol, module):
    body = pickle.dumps(np.array([{"a": np.float64(2.0), "b": np.arange(3)}], dtype=object), protocol=protocol)
    ours = b"numpy._core.multiarray" if b"numpy._core" in body else b"numpy.core.multiarray"
    # A frame or a short string states its length, so the bytes before the name change with it.
    if protocol == 4:
        body = body.replace(bytes([0x8C, len(ours)]) + ours, bytes([0x8C, len(module)]) + module)
        body = body[:2] + b"\x95" + (len(body) - 11).to_bytes(8, "little") + body[11:]
    else:
        body = body.replace(b"c" + ours + b"\n", b"c" + module + b"\n")
    path = npz_with(tmp_path / "a.npz", body)
    assert read_object_array(path, "annotations") == [{"a": 2.0, "b": [0, 1, 2]}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot read: No such file"),
        (lambda path: path.mkdir(), "cannot read: Is a directory"),
        (lambda path: path.write_bytes(b""), "not a readable npz file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 torn"), "not a readable npz file"),
        (lambda path: np.savez(path, other=np.zeros(2)), r"key 'annotations' is missing \(found: other\)"),
        (lambda path: np.savez(path, annotations=np.zeros(2)), "expected an array of objects, found float64"),
        (lambda path: npz_with(path, b""), "cannot be read"),
        (lambda path: npz_with(path, b"\x80\x04]"), "cannot be read"),
        (lambda path: npz_with(path, b"\x80\x04}]Ns."), "cannot be read: unhashable"),
    ],
)
def test_files_that_are_no_annotations_are_refused(tmp_path, make, message):
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(UserError, match=rf"a\.npz: .*{message}"):
        read_object_array(path, "annotations")


def test_a_torn_or_flipped_file_is_always_a_user_error(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", annotations=np.array([{"a": np.float64(1), "b": "x" * 50}], dtype=object))
    whole = (tmp_path / "a.npz").read_bytes()
    random = np.random.default_rng(0)
    for trial in range(300):
        data = bytearray(whole)
        if trial % 3 == 0:
            del data[random.integers(len(data)) :]
        else:
            data[random.integers(len(data))] ^= 1 << int(random.integers(8))
        (tmp_path / "b.npz").write_bytes(data)
        try:
            read_object_array(tmp_path / "b.npz", "annotations")
        except UserError as error:
            assert "b.npz" in str(error)


def test_a_flipped_pickle_is_data_or_a_user_error(tmp_path):
    whole = pickle.dumps(np.array([{"a": np.float64(1), "b": np.arange(4), "c": "xyz"}], dtype=object), protocol=4)
    random = np.random.default_rng(1)
    for _ in range(600):
        data = bytearray(whole)
        data[random.integers(len(data))] = random.integers(256)
        try:
            read_object_array(npz_with(tmp_path / "b.npz", bytes(data)), "annotations")
        except UserError as error:
            assert "b.npz: annotations:" in str(error)


def test_reading_imports_nothing_a_file_names(tmp_path):
    sys.modules.pop("antigravity", None)
    with pytest.raises(UserError, match=r"antigravity\.geohash"):
        read_object_array(npz_with(tmp_path / "a.npz", b"\x80\x04cantigravity\ngeohash\n."), "annotations")
    assert "antigravity" not in sys.modules
