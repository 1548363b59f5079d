"""Annotation files: what the release writes is read, and every mistake is named by file, field and value."""

import math

import numpy as np
import pytest

from llava_pose.annotations import read_annotations, skip_reason
from llava_pose.errors import UserError

GOOD = {
    "azimuth": 1.0,
    "elevation": 0.25,
    "theta": 6.2,
    "distance": 5.0,
    "viewport": 1800.0,
    "focal": 1,
    "px": 100.0,
    "py": 80.5,
    "principal": np.array([100.0, 80.5]),
    "cad_index": 3,
    "height": 200,
    "width": 300,
    "bbox": np.array([10, 20, 200, 150]),
    "class": "car",
    "object_status": "status_good",
    "dense": "dense_yes",
}


def write(path, *objects):
    np.savez(path, annotations=np.array(objects, dtype=object))
    return path


def without(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


def test_a_release_file_reads_as_plain_dicts(tmp_path):
    numpy_typed = {
        **GOOD,
        "azimuth": np.float64(1.0),
        "theta": np.float32(0.5),
        "cad_index": np.int64(3),
        "bbox": [np.float64(10), np.int32(20), 200, 150],
        "object_status": np.str_("status_barely"),
    }
    first, second = read_annotations(write(tmp_path / "a.npz", GOOD, numpy_typed))
    assert first == {**GOOD, "bbox": (10.0, 20.0, 200.0, 150.0), "principal": [100.0, 80.5]}
    assert second["bbox"] == (10.0, 20.0, 200.0, 150.0)
    assert second["theta"] == 0.5 and type(second["theta"]) is float
    assert second["cad_index"] == 3 and type(second["cad_index"]) is int
    assert second["object_status"] == "status_barely"


def test_dicts_are_found_in_every_container(tmp_path):
    for name, value in {
        "array": np.array([GOOD], dtype=object),
        "list": [GOOD],
        "zero-dimensional dict": np.array(GOOD, dtype=object),
        "row": np.array([[GOOD]], dtype=object)[0],
    }.items():
        np.savez(tmp_path / "a.npz", annotations=value)
        (read,) = read_annotations(tmp_path / "a.npz")
        assert read["px"] == 100.0, name
    holder = np.empty((), dtype=object)
    holder[()] = [GOOD, GOOD]
    np.savez(tmp_path / "a.npz", annotations=holder)
    assert len(read_annotations(tmp_path / "a.npz")) == 2
    np.savez(tmp_path / "a.npz", annotations=np.array([], dtype=object))
    assert read_annotations(tmp_path / "a.npz") == []


@pytest.mark.parametrize("name", ["viewport", "focal", "principal", "cad_index", "height", "width", "class", "dense"])
def test_an_optional_field_may_be_missing_or_none_and_stays_missing(tmp_path, name):
    path = write(tmp_path / "a.npz", without(name), {**GOOD, name: None})
    assert all(name not in read for read in read_annotations(path))


@pytest.mark.parametrize("name", ["azimuth", "elevation", "theta", "distance", "px", "py", "bbox"])
def test_a_required_field_that_is_missing_is_named(tmp_path, name):
    path = write(tmp_path / "a.npz", GOOD, without(name))
    with pytest.raises(UserError, match=rf"a\.npz: annotations\[1\]\.{name}: field is missing"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"azimuth": math.nan}, r"azimuth: expected a finite number, found nan"),
        ({"elevation": -math.inf}, r"elevation: expected a finite number, found -inf"),
        ({"theta": np.float32("nan")}, r"theta: expected a finite number, found nan"),
        ({"theta": 90.0}, r"theta: expected radians, found 90\.0"),
        ({"azimuth": "1.0"}, r"azimuth: expected a number, found '1\.0'"),
        ({"azimuth": True}, r"azimuth: expected a number, found True"),
        ({"azimuth": [1.0]}, r"azimuth: expected a number, found \[1\.0\]"),
        ({"azimuth": np.array([1.0])}, r"azimuth: expected a number"),
        ({"distance": 10**400}, r"distance: .*too large"),
        ({"px": math.nan}, r"px: expected a finite number, found nan"),
        ({"viewport": 0}, r"viewport: expected a number above 0, found 0"),
        ({"cad_index": 1.5}, r"cad_index: expected a whole number, found 1\.5"),
        ({"bbox": [1, 2, 3]}, r"bbox: expected four numbers x1, y1, x2, y2, found \[1, 2, 3\]"),
        ({"bbox": "1,2,3,4"}, r"bbox: expected four numbers"),
        ({"bbox": [1, 2, math.nan, 4]}, r"bbox: expected a finite number"),
        ({"bbox": [10, 2, 10, 4]}, r"bbox: box has no area: \(10\.0, 2\.0, 10\.0, 4\.0\)"),
        ({"bbox": [10, 40, 20, 4]}, r"bbox: box has no area"),
        ({"class": 3}, r"class: expected text, found 3"),
        ({"object_status": "status_fine"}, r"object_status: expected one of status_good, .* 'status_fine'"),
        ({"object_status": ["status_good"]}, r"object_status: expected one of"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(tmp_path, fields, message):
    path = write(tmp_path / "a.npz", {**GOOD, **fields})
    with pytest.raises(UserError, match=rf"^{tmp_path}/a\.npz: annotations\[0\]\.{message}"):
        read_annotations(path)


def test_entries_that_are_no_dicts_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"annotations\[0\]: expected a dict, found int"):
        read_annotations(write(tmp_path / "a.npz", 3))
    holder = np.empty((), dtype=object)
    holder[()] = "text"
    np.savez(tmp_path / "a.npz", annotations=holder)
    with pytest.raises(UserError, match="annotations: expected dicts, found str"):
        read_annotations(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (GOOD, None),
        ({**GOOD, "object_status": "status_barely"}, None),
        ({**GOOD, "object_status": "status_partially"}, None),
        (without("object_status"), "no object_status"),
        ({**GOOD, "object_status": "status_bad"}, "status_bad"),
        ({**GOOD, "distance": 0.0}, "distance <= 0"),
        ({**GOOD, "distance": -1}, "distance <= 0"),
        ({"object_status": "status_bad"}, "status_bad"),
        ({}, "no object_status"),
        ({**GOOD, "ignore": 1}, "ignore"),
        ({**GOOD, "ignore": np.bool_(True)}, "ignore"),
        ({**GOOD, "ignore": 0}, None),
        ({**GOOD, "object_status": "status_bad", "azimuth": math.nan, "bbox": "none"}, "status_bad"),
        ({**GOOD, "distance": 0, "theta": "none"}, "distance <= 0"),
    ],
)
def test_objects_that_the_authors_skip_are_returned_with_a_reason(tmp_path, annotation, reason):
    (read,) = read_annotations(write(tmp_path / "a.npz", annotation))
    assert skip_reason(read) == reason
