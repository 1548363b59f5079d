import io
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from llava_pose.overlay import (
    ANSWER_WIDTH,
    AXES,
    PosedAnswer,
    angle_plot,
    answer_picture,
    draw_axes,
    draw_box,
    draw_wireframe,
)

CENTER = np.array([150.0, 150.0])


def blank(width=300, height=300, gray=128):
    return Image.new("RGB", (width, height), (gray, gray, gray))


def changed(before, after):
    return (np.asarray(before) != np.asarray(after)).any(-1)


def drawn_direction(pose, axis):
    """Where an axis's pixels lie as seen from the centre, (x right, y up) in pixels, farthest end."""
    pixels = np.asarray(draw_axes(blank(), pose, CENTER, 90)).astype(float)
    color = np.array(AXES[axis][1], dtype=float)
    spread = color - color.mean()
    hue = pixels - pixels.mean(-1, keepdims=True)
    # The same hue, however pale: an axis that points away is drawn paler.
    likeness = (hue @ spread) / (np.linalg.norm(hue, axis=-1) * np.linalg.norm(spread) + 1e-9)
    rows, columns = np.nonzero((likeness > 0.97) & (np.linalg.norm(hue, axis=-1) > 30))
    offsets = np.stack([columns + 0.5 - CENTER[0], CENTER[1] - rows - 0.5], -1)
    distance = np.linalg.norm(offsets, axis=-1)
    return offsets[distance > 0.9 * distance.max()].mean(0)


def look_at(points, pose, distance, viewport, principal):
    """Pixels by a camera built from its position and what it looks at, turned by theta: no shared code."""
    azimuth, elevation, theta = pose
    position = distance * np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            -math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
        ]
    )
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    offset = np.asarray(points) - position
    x, y, depth = offset @ right, offset @ up, offset @ forward
    x, y = math.cos(theta) * x - math.sin(theta) * y, math.sin(theta) * x + math.cos(theta) * y
    return np.stack([principal[0] + viewport * x / depth, principal[1] - viewport * y / depth], -1)


def test_at_azimuth_zero_the_front_points_at_the_viewer_and_left_to_the_right():
    picture = np.asarray(draw_axes(blank(), (0.0, 0.0, 0.0), CENTER, 90))
    assert tuple(picture[151, 149]) == AXES["front"][1]
    left, up = drawn_direction((0, 0, 0), "left"), drawn_direction((0, 0, 0), "up")
    assert left[0] > 70 and abs(left[1]) < 3
    assert up[1] > 70 and abs(up[0]) < 3


def test_seen_from_its_own_left_an_object_faces_the_image_left():
    front = drawn_direction((math.pi / 2, 0.0, 0.0), "front")
    assert front[0] < -70 and abs(front[1]) < 3
    mirrored = drawn_direction((3 * math.pi / 2, 0.0, 0.0), "front")
    assert mirrored[0] > 70 and abs(mirrored[1]) < 3


def test_theta_turns_the_up_axis_against_the_clock():
    up = drawn_direction((0.4, 0.0, math.pi / 2), "up")
    assert up[0] < -70 and abs(up[1]) < 5
    tilted = drawn_direction((0.4, 0.0, math.radians(30)), "up")
    assert math.degrees(math.atan2(tilted[1], tilted[0])) == pytest.approx(120, abs=4)


@pytest.mark.parametrize("axis", list(AXES))
@pytest.mark.parametrize("pose", [(0.7, 0.3, 0.1), (2.5, 0.5, 5.9), (4.0, -0.4, 0.6), (5.5, 1.0, 3.0)])
def test_axes_point_where_a_look_at_camera_sees_them(pose, axis):
    tip = look_at(np.array([AXES[axis][0]]), pose, 5.0, 450.0, CENTER)[0] - CENTER
    expected = math.atan2(-tip[1], tip[0])
    x, y = drawn_direction(pose, axis)
    difference = (math.atan2(y, x) - expected + math.pi) % (2 * math.pi) - math.pi
    assert abs(math.degrees(difference)) < 6
    assert np.hypot(x, y) == pytest.approx(np.hypot(*tip), rel=0.2)


def test_an_axis_that_points_away_is_paler_than_one_that_points_here():
    def most_red(azimuth):
        pixels = np.asarray(draw_axes(blank(), (azimuth, 0.0, 0.0), CENTER, 90)).astype(int)
        return (pixels[..., 0] - pixels[..., 1:].max(-1)).max()

    assert most_red(math.radians(135)) < 0.7 * most_red(math.radians(45))


def test_a_picture_is_left_as_it_was_and_any_mode_becomes_rgb():
    image = Image.new("L", (80, 60), 100)
    picture = draw_axes(image, (0.5, 0.2, 0.0), (40, 30), 20)
    assert (picture.mode, picture.size) == ("RGB", (80, 60))
    assert np.asarray(image).min() == np.asarray(image).max() == 100


@pytest.mark.parametrize("center", [(-1000.0, 50.0), (1e7, -1e7), (-30.0, 150.0)])
def test_a_centre_outside_the_picture_draws_what_is_inside(center):
    picture = draw_axes(blank(), (0.5, 0.2, 0.0), center, 90)
    assert picture.size == (300, 300)
    assert changed(blank(), picture).any() == (center == (-30.0, 150.0))


@pytest.mark.parametrize(
    ("pose", "center", "length", "message"),
    [
        ((math.nan, 0, 0), (1, 1), 10, "pose must be finite"),
        ((0, 0, 0), (math.inf, 1), 10, "center must be finite"),
        ((0, 0, 0), (1, 1), 0, "length must be a positive number of pixels, got 0"),
    ],
)
def test_axes_refuse_numbers_that_cannot_be_drawn(pose, center, length, message):
    with pytest.raises(ValueError, match=message):
        draw_axes(blank(), pose, center, length)


def test_a_box_is_drawn_on_its_edges_and_nowhere_inside():
    picture = draw_box(blank(), (60, 80, 220, 260))
    mask = changed(blank(), picture)
    rows, columns = np.nonzero(mask)
    assert (abs(columns.min() - 60), abs(columns.max() - 220)) <= (2, 2)
    assert abs(rows.min() - 80) <= 2 and abs(rows.max() - 260) <= 2
    assert not mask[84:256, 64:216].any()


def test_the_label_of_a_box_at_the_upper_edge_stays_in_the_picture():
    plain = draw_box(blank(), (-20, -20, 120, 100))
    labelled = draw_box(blank(), (-20, -20, 120, 100), "sofa")
    rows, columns = np.nonzero(changed(plain, labelled))
    assert len(rows) > 100
    assert rows.max() < 40 and columns.max() < 100


@pytest.mark.parametrize("box", [(10, 10, 10, 40), (50, 10, 20, 40), (0, 0, math.nan, 4)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match="box must be"):
        draw_box(blank(), box)


def cube():
    corners = [[x, y, z] for x in (-0.2, 0.2) for y in (-0.5, 0.5) for z in (-0.15, 0.25)]
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    triangles = [[a, b, c] for s in sides for a, b, c in ((s[0], s[1], s[2]), (s[0], s[2], s[3]))]
    return np.array(corners), np.array(triangles)


@pytest.mark.parametrize("pose", [(0.7, 0.3, 0.1), (4.0, -0.4, 6.0)])
def test_a_wireframe_fills_the_silhouette_and_stays_inside_it(pose):
    vertices, faces = cube()
    camera = {"distance": 3.0, "viewport": 500.0, "principal": (160.0, 140.0)}
    picture = draw_wireframe(blank(), vertices, faces, pose, **camera)
    pixels = look_at(vertices, pose, **camera)
    silhouette = Image.new("1", (300, 300))
    for face in faces:
        ImageDraw.Draw(silhouette).polygon([tuple(point) for point in pixels[face]], fill=1)
    inside = np.asarray(silhouette)
    drawn = changed(blank(), picture)
    grown = np.zeros_like(inside)
    for row in (-2, -1, 0, 1, 2):
        for column in (-2, -1, 0, 1, 2):
            grown |= np.roll(inside, (row, column), (0, 1))
    assert drawn.any() and not (drawn & ~grown).any()
    for axis in (0, 1):
        reached, expected = np.nonzero(drawn.any(axis))[0], np.nonzero(inside.any(axis))[0]
        assert abs(reached.min() - expected.min()) <= 2 and abs(reached.max() - expected.max()) <= 2


def test_edges_behind_the_camera_are_left_out():
    vertices, faces = cube()
    behind = vertices + np.array([0.0, -10.0, 0.0])
    picture = draw_wireframe(blank(), behind, faces, (0.0, 0.0, 0.0), 3.0, 500.0, (150.0, 150.0))
    assert not changed(blank(), picture).any()


def test_the_angle_plot_marks_where_the_mass_is():
    mass = np.full((3, 40), 0.001)
    mass[0, 10] = mass[1, 0] = mass[2, 20] = 1.0
    plot = np.asarray(angle_plot(mass, np.array([10.5, 0.5, 20.5]) * 2 * math.pi / 40)).astype(int)
    assert plot.shape[0] > 200 and plot.shape[1] > 600
    thirds = np.array_split(plot, 3, axis=1)
    colored = [np.nonzero(np.ptp(third, axis=-1) > 40) for third in thirds]
    sides = [columns.mean() / third.shape[1] - 0.5 for (_, columns), third in zip(colored, thirds, strict=True)]
    # Azimuth π/2 is seen from the right of the map; elevation 0 lies to the right, theta π to the left.
    assert sides[0] > 0.1 and sides[1] > 0.1 and sides[2] < -0.1


@pytest.mark.parametrize(
    ("shape", "pose"), [((2, 40), (0, 0, 0)), ((3, 40), (0, 0)), ((40,), (0, 0, 0)), ((3, 40), (math.nan, 0, 0))]
)
def test_the_angle_plot_refuses_what_it_cannot_show(shape, pose):
    with pytest.raises(ValueError, match="must be"):
        angle_plot(np.ones(shape), pose)


def test_an_answer_has_axes_on_the_picture_and_a_chip_for_each_object_below():
    answers = [PosedAnswer("car", np.deg2rad((312, 11, 2))), PosedAnswer("bus", np.deg2rad((40, 5, 0)), (8, 8, 40, 40))]
    one, two = answer_picture(blank(140, 100), answers[:1]), answer_picture(blank(140, 100), answers)
    assert one.width == two.width == ANSWER_WIDTH
    assert two.height > one.height > 400
    plain = blank(ANSWER_WIDTH, 400)
    assert changed(plain, one.crop((0, 0, ANSWER_WIDTH, 400))).any()
    buffer = io.BytesIO()
    two.save(buffer, format="PNG")
    assert len(buffer.getvalue()) > 3000


def test_a_large_picture_is_not_enlarged_and_a_long_name_fits():
    answer = answer_picture(blank(900, 300), [PosedAnswer("a very long name " * 8, (0.1, 0.2, 0.3))])
    assert answer.width == 900
    strip = np.asarray(answer)[300:, 880:]
    assert np.ptp(strip.reshape(-1, 3), axis=0).max() < 60
