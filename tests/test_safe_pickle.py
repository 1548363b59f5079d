"""The safe reader on bare pickles, and its screen."""

import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_pose import safe_npz
from llava_pose.errors import UserError
from llava_pose.safe_npz import MAX_BYTES, read_pickle
from tests.test_safe_npz import Runs

PLAIN = {
    "00001.jpg": {
        "azimuth": 1.5,
        "u": -20.0,
        "n": 3,
        "big": 2**70,
        "id": "f2a990",
        "list": [1, (True, None)],
        "b": b"x",
    }
}
AS_LISTS = {"00001.jpg": {**PLAIN["00001.jpg"], "list": [1, [True, None]]}}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_pickle_of_any_protocol_is_read(tmp_path, protocol):
    path = tmp_path / "anno.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    assert read_pickle(path) == AS_LISTS
    # NumPy's own values: in protocol 5 they are of another kind, which NumPy writes into no file.
    arrays = pickle.dumps({"array": np.arange(3.0), "scalar": np.float32(0.5)}, protocol=min(protocol, 4))
    path.write_bytes(arrays)
    assert read_pickle(path) == {"array": [0.0, 1.0, 2.0], "scalar": 0.5}


def test_a_text_pickle_of_python_2_is_read(tmp_path):
    # As Python 2 writes {"a.jpg": {"f": 1.5, u"u": 2L}, "b.jpg": {"f": 1.5}}: strings once, then by their number.
    path = tmp_path / "anno.pkl"
    path.write_bytes(b"(dp1\nS'a.jpg'\np2\n(dp3\nS'f'\np4\nF1.5\nsVu\np5\nL2L\nssS'b.jpg'\np6\n(dp7\ng4\nF1.5\nss.")
    assert read_pickle(path) == {"a.jpg": {"f": 1.5, "u": 2}, "b.jpg": {"f": 1.5}}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_bare_pickle_is_refused_and_never_runs(tmp_path, protocol):
    trap, path = tmp_path / "ran", tmp_path / "anno.pkl"
    path.write_bytes(pickle.dumps({"00001.jpg": Runs(os.mkdir, str(trap))}, protocol=protocol))
    with pytest.raises(UserError, match=r"anno\.pkl: refused, the file holds more than plain data: posix\.mkdir"):
        read_pickle(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())
    assert trap.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"(S'touch ran'\niposix\nsystem\n.", "refused, .* opcode INST"),
        (b"cposix\nsystem\n(S'touch ran'\ntR.", r"refused, .* posix\.system"),
        (b"(c__builtin__\neval\nS'1'\no.", "refused, .* opcode OBJ"),
        (b"Pid\n.", "refused, .* opcode PERSID"),
        (b"Np4294967295\n.", "refused, .* memo slot 4294967295"),
        (b"S'unquoted\n.", "cannot be read"),
        (b"L" + b"9" * 5000 + b"L\n.", "cannot be read"),
        (b"(dp0\nS'a'\n", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_bare_pickles_that_are_tricks_or_torn_are_refused(tmp_path, monkeypatch, body, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anno.pkl").write_bytes(body)
    with pytest.raises(UserError, match=rf"anno\.pkl: {message}"):
        read_pickle(tmp_path / "anno.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_that_is_missing_or_too_large_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"anno\.pkl: cannot read: No such file"):
        read_pickle(tmp_path / "anno.pkl")
    with open(tmp_path / "large.pkl", "wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"large\.pkl: file of \d+ bytes, more than the"):
        read_pickle(tmp_path / "large.pkl")


def screened_by_pickletools(body):
    """The same screen by the standard library's own disassembler, which reads every argument."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(body)):
        if not safe_npz._OPCODES.fullmatch(opcode.name) or ("PUT" in opcode.name and argument > count):
            return "refused"
    return "admitted"


def screened(body):
    try:
        safe_npz._screen(body)
    except safe_npz._RefusedError:
        return "refused"
    return "admitted"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(value=VALUES | st.sets(st.integers()) | st.complex_numbers(), protocol=st.integers(0, 5), data=st.data())
def test_the_screen_goes_from_opcode_to_opcode_as_pickletools_does(value, protocol, data):
    body = pickle.dumps(value, protocol)
    assert screened(body) == screened_by_pickletools(body)
    flipped = bytearray(body)
    flipped[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        expected = screened_by_pickletools(bytes(flipped))
    except Exception:
        return  # what the disassembler cannot read, the unpickler refuses
    assert screened(bytes(flipped)) == expected
