"""Normals of the users' models, worked out from their corners alone."""

import numpy as np
import trimesh

from data_prep.rendering.axes import CANONICAL
from data_prep.rendering.cad.finishing import finish
from data_prep.rendering.cad.model import Model, plain


def finished(mesh):
    return finish(Model(np.asarray(mesh.vertices), np.asarray(mesh.faces), *plain(len(mesh.faces))), CANONICAL)


def loose(mesh):
    """The same triangles, none of which shares a vertex, as an STL file has them."""
    return trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False)


def turned_over(mesh, seed=0):
    """Half of the faces wound the other way."""
    faces = np.array(mesh.faces)
    some = np.random.default_rng(seed).random(len(faces)) < 0.5
    faces[some] = faces[some][:, ::-1]
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


def test_a_round_surface_is_smooth_however_its_triangles_are_joined_and_wound():
    ball = trimesh.creation.icosphere(subdivisions=3)
    for mesh in (ball, loose(ball), turned_over(ball), loose(turned_over(ball))):
        shape = finished(mesh)
        outward = shape.vertices[shape.faces] * 2 * np.sqrt(3)  # of a ball whose box has diagonal 1
        np.testing.assert_allclose(np.abs((shape.corner_normals * outward).sum(axis=2)), 1, atol=0.002)


def test_edges_stay_sharp_and_flat_sides_flat():
    for mesh in (trimesh.creation.box((1, 2, 3)), turned_over(trimesh.creation.box((1, 2, 3)))):
        shape = finished(mesh)
        np.testing.assert_allclose(np.sort(np.abs(shape.corner_normals), axis=2), [[[0, 0, 1]] * 3] * 12, atol=1e-6)
    # Six sides that meet at 60 degrees.
    nut = trimesh.creation.cylinder(radius=1, height=1, sections=6)
    nut_shape = finished(loose(turned_over(nut)))
    np.testing.assert_allclose(np.ptp(nut_shape.corner_normals, axis=1), 0, atol=1e-6)
    can = finished(trimesh.creation.cylinder(radius=1, height=2, sections=24))
    corners = shape_of_sides(can)
    # Round about, flat on top: no normal lies between.
    assert set(np.round(np.abs(can.corner_normals[..., 2]), 2).ravel().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose((corners[0] * corners[1]).sum(axis=1), 1, atol=0.01)


def shape_of_sides(can):
    """Normals and directions from the axis (N, 3) at the corners of a cylinder's side."""
    side = np.abs(can.corner_normals[:, 0, 2]) < 0.5
    outward = can.vertices[can.faces[side]].reshape(-1, 3) * [1, 1, 0]
    return can.corner_normals[side].reshape(-1, 3), outward / np.linalg.norm(outward, axis=1, keepdims=True)


def test_two_sheets_back_to_back_are_not_mixed_up():
    """A thin board of two sheets that share their vertices, one wound each way: its normals must not cancel."""
    points = [(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)]
    faces = [(0, 1, 2), (0, 2, 3), (2, 1, 0), (3, 2, 0)]
    shape = finished(trimesh.Trimesh(points, faces, process=False))
    np.testing.assert_allclose(np.abs(shape.corner_normals[..., 1]), 1, atol=1e-6)


def test_fans_and_large_models_keep_the_normals_of_their_faces(monkeypatch):
    cone = trimesh.creation.cone(radius=1, height=1, sections=200)
    assert np.isfinite(finished(cone).corner_normals).all()
    monkeypatch.setattr("data_prep.rendering.cad.finishing._SMOOTHED_FACES", 100)
    shape = finished(trimesh.creation.icosphere(subdivisions=3))
    assert (np.ptp(shape.corner_normals, axis=1) == 0).all()
