"""``LlavaPose`` as programs use it: images of every kind, boxes, options, threads, and what is refused."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import llava_pose
from llava_pose import LlavaPose, taxonomy
from llava_pose.errors import UserError
from llava_pose.geometry import pose_error
from llava_pose.images import crop_box
from tests.test_calibrated_model import FITTED

SAMPLES = Path(llava_pose.__file__).parent / "assets" / "samples"
NAMES = ["car", "chair", "motorbike", "teapot"]
FILES = [SAMPLES / f"{name}.jpg" for name in NAMES]
CAR = np.asarray(Image.open(FILES[0]).convert("RGB"))


@pytest.fixture(scope="module")
def model():
    return LlavaPose.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def car(model):
    """What the car in the sample is taken for."""
    (found,) = model.predict(FILES[0])
    return found


def degrees_apart(found, other):
    return np.degrees(float(pose_error(found.pose, other.pose)))


def stream():
    return io.BytesIO(FILES[0].read_bytes())


@pytest.mark.parametrize(
    "image",
    [
        str(FILES[0]),
        stream,
        lambda: Image.open(FILES[0]),
        CAR,
        CAR / 255,
        CAR.astype(np.uint16) * 257,
        torch.from_numpy(CAR.copy()),
        torch.from_numpy(CAR.transpose(2, 0, 1) / 255).float(),
    ],
    ids=["path", "file", "PIL", "bytes", "floats", "16 bits", "tensor last", "tensor first"],
)
def test_an_image_is_answered_alike_whatever_it_comes_as_alone_or_in_a_list(model, car, image):
    made = image if callable(image) else lambda: image
    (alone,) = model.predict(made())
    assert alone.to_dict() == car.to_dict()
    first, second = model.predict([made(), FILES[1]])
    assert first.category == "car" and degrees_apart(first, car) < 0.5
    assert (first.index, second.index, second.category) == (0, 1, "chair")


def test_batches_generators_and_columns_of_images_are_many(model):
    batch = torch.stack([torch.from_numpy(CAR.copy())] * 2)
    assert [found.index for found in model.predict(batch)] == [0, 1]
    assert [found.category for found in model.predict(path for path in FILES)] == NAMES
    assert [found.category for found in model.predict(np.array([str(path) for path in FILES]))] == NAMES


def test_more_images_than_a_batch_come_back_in_order(model, monkeypatch):
    monkeypatch.setattr("llava_pose.api.BATCH", 3)
    found = model.predict(FILES * 2)
    assert [each.category for each in found] == NAMES * 2
    assert [each.index for each in found] == list(range(8))
    assert [each.image for each in found] == FILES * 2


def test_a_box_shows_the_model_its_part_of_the_picture(model):
    street = Image.new("RGB", (700, 300), (120, 120, 120))
    for number, file in enumerate(FILES[:2]):
        street.paste(Image.open(file), (20 + 350 * number, 30))
    boxes = [(20, 30, 260, 230), (370, 30, 600, 250)]
    left, right = model.predict(street, boxes=boxes)
    assert [left.category, right.category] == NAMES[:2] and [left.box, right.box] == boxes
    for found, box in zip((left, right), boxes, strict=True):
        (cut,) = model.predict(crop_box(street, box))
        assert (found.category, found.index) == (cut.category, 0)
        assert degrees_apart(found, cut) < 0.5
    (one,) = model.predict(street, boxes=boxes[1])
    assert one.category == right.category and one.box == right.box and degrees_apart(one, right) < 0.5
    assert left.draw().size == (700, left.draw().height) and len(left._repr_png_()) > 1000


def test_each_image_has_its_own_boxes_one_several_none_or_the_whole(model):
    boxes = [None, (20, 20, 200, 200), [(5, 5, 100, 100), (50, 50, 150, 150)], np.empty((0, 4))]
    found = model.predict(FILES, boxes=boxes)
    assert [each.index for each in found] == [0, 1, 2, 2]
    assert [each.box for each in found] == [None, (20, 20, 200, 200), (5, 5, 100, 100), (50, 50, 150, 150)]
    json.dumps([each.to_dict() for each in found], allow_nan=False)
    assert model.predict(FILES[:1], boxes=torch.tensor([[5, 5, 100, 100]]))[0].box == (5, 5, 100, 100)


def test_no_images_have_no_predictions_but_wrong_names_are_told_all_the_same(model):
    assert model.predict([]) == [] == model.predict([], boxes=[])
    with pytest.raises(UserError, match="unknown name 'carr'"):
        model.predict([], ["carr"])


@pytest.mark.parametrize(
    ("images", "options", "told"),
    [
        (7, {}, "images: int: expected an image or a list of images"),
        ([7], {}, r"images\[0\]: int: expected a path, a PIL image, an array or a tensor"),
        ([FILES[0], "none.jpg"], {}, r"none\.jpg: no such image file"),
        (io.BytesIO(b"no picture"), {}, "image: not an image that can be read"),
        (np.zeros(4), {}, r"images\[0\]: float64: expected a path"),
        (np.zeros((4, 4, 3)) + 2, {}, "image: values from 2 to 2"),
        ([CAR, CAR.astype(int)], {}, r"images\[1\]: values of type int64"),
        (FILES, {"boxes": [None]}, "boxes: 1 for 4 images"),
        (FILES[:1], {"boxes": (1, 2, 3, 4)}, "boxes: 4 for 1 images"),
        (FILES[:1], {"boxes": 5}, "boxes: 5: expected a box, or a list of them"),
        (FILES[0], {"boxes": (1, 2, 3)}, r"boxes: \(1, 2, 3\): expected x1, y1, x2, y2 or a list of such boxes"),
        (FILES[:1], {"boxes": [[(1, 2, 3, 4), (1, 2)]]}, r"boxes\[0\]: .*: expected x1"),
        (FILES[:1], {"boxes": ["left"]}, r"boxes\[0\]: 'left': expected x1"),
        ([CAR], {"boxes": [(9, 9, 5, 20)]}, r"images\[0\]: box: 9,9,5,20 has no area"),
        (FILES[:1], {"boxes": [(999, 9, 1005, 20)]}, r"car\.jpg: box: 999,9,1005,20 lies outside .* 240x208 pixels"),
        ([CAR], {"boxes": [(float("nan"), 9, 5, 20)]}, r"images\[0\]: box: nan,9,5,20: every number must be finite"),
        (CAR, {"categories": []}, "categories: no name given"),
        (CAR, {"categories": "car"}, "categories: 'car': expected a list of names"),
        (CAR, {"categories": ["car", "carr"]}, "unknown name 'carr'; did you mean car"),
        (CAR, {"categories": ["car", "bus", "car"]}, "categories: 'car' and 'car' are the same category, 'car'"),
        (CAR, {"categories": ["diningtable", "Dining Table"]}, "'Dining Table' and 'diningtable' are the same"),
        (CAR, {"top_k": 0}, "top_k: 0: at least 1 is needed"),
        (CAR, {"temperature": 0}, "temperature: 0 is not a positive number"),
    ],
)
def test_a_mistake_is_told_by_name_and_value(model, images, options, told):
    with pytest.raises(UserError, match=told):
        model.predict(images, **options)


def test_ten_thousand_names_are_chosen_among_and_one_too_many_is_found(model):
    names = [f"gizmo {number:04d}" for number in range(10_000)]
    categories = {name.replace(" ", "_"): {"meta_class": "tools"} for name in names}
    with pytest.raises(UserError, match="unknown name 'gizmo 0000'"):
        model.predict(CAR, names)
    extension = taxonomy.Taxonomy({**taxonomy.BUILT_IN.categories, **_categories(categories)})
    taxonomy.activate(extension)
    (found,) = model.predict(CAR, [*names, "car"], top_k=3)
    assert found.category == "car" and len(found.candidates) == 3
    with pytest.raises(UserError, match="'Gizmo 0042' and 'gizmo 0042' are the same category"):
        model.predict(CAR, [*names, "Gizmo 0042"])


def _categories(entries):
    made = {}
    for name, entry in entries.items():
        spoken = taxonomy.default_spoken(name)
        article = taxonomy.default_article(spoken)
        plural = taxonomy.default_plural(article)
        made[name] = taxonomy.Category(name, entry["meta_class"], spoken, article, plural, (), False)
    return made


def test_names_are_scored_as_the_taxonomy_says_them_now(model, tmp_path):
    (before,) = model.predict(CAR, NAMES)
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps({"categories": {"car": {"spoken": "horseless carriage"}}}))
    taxonomy.use_file(file)
    (after,) = model.predict(CAR, NAMES)
    assert after.class_probability < before.class_probability


def test_the_best_categories_are_told_with_the_pose_read_at_each(model, car):
    (found,) = model.predict(CAR, NAMES, top_k=9)
    assert len(found.candidates) == len(NAMES), "no more than there are"
    probabilities = [candidate.class_probability for candidate in found.candidates]
    assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert found.reading is found.candidates[0].reading
    assert [each["category"] for each in found.to_dict()["candidates"]] == [c.category for c in found.candidates]
    poses = {tuple(candidate.reading.pose) for candidate in found.candidates}
    assert len(poses) > 1, "each is read at its own name"


def test_flip_reads_the_mirror_image_too_and_temperature_flattens(model, car):
    (flipped,) = model.predict(CAR, flip=True)
    assert flipped.category == "car" and 0 < degrees_apart(flipped, car) < 20
    (flat,) = model.predict(CAR, temperature=50.0)
    assert flat.category == "car" and flat.class_probability < 0.5 * car.class_probability


def test_a_calibrated_models_confidence_is_that_of_its_calibration(tiny_model_dir):
    engine = LlavaPose.from_pretrained(tiny_model_dir, device="cpu").engine
    (plain,) = LlavaPose(engine).predict(CAR)
    engine.model.calibration = FITTED
    (fitted,) = LlavaPose(engine).predict(CAR)
    assert (plain.to_dict()["calibrated"], fitted.to_dict()["calibrated"]) == (False, True)
    np.testing.assert_array_equal(fitted.pose, plain.pose)
    assert fitted.confidence == pytest.approx(float(FITTED.hit(plain.confidence)), abs=1e-6)
    both = FITTED.hit_and_class(fitted.confidence, fitted.class_probability)
    assert fitted.joint_confidence == pytest.approx(float(both), abs=1e-6)


def test_threads_side_by_side_get_what_one_alone_gets(model):
    images = [Image.fromarray(np.roll(CAR, 17 * number, axis=1)) for number in range(16)]
    names = [NAMES, None]
    alone = [model.predict(image, names[number % 2])[0].to_dict() for number, image in enumerate(images)]
    fresh = LlavaPose(model.engine)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: fresh.predict(images[number], names[number % 2])[0].to_dict(), range(16)))
        answers = list(pool.map(lambda number: ask(fresh, images[number]), range(8)))
    assert found == alone
    assert answers == [ask(model, image) for image in images[:8]]


def ask(model, image):
    return model.chat(image, [{"role": "user", "content": "Which way is it facing?"}]).text


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
def test_the_smallest_and_thinnest_pictures_are_answered(model, size):
    (found,) = model.predict(Image.new("RGB", size, (200, 30, 30)))
    assert np.isfinite(found.pose).all()
    (boxed,) = model.predict(Image.new("RGB", size, (200, 30, 30)), boxes=(0, 0, 1, 1))
    assert np.isfinite(boxed.pose).all()


def test_a_huge_picture_is_answered_as_its_small_original(model, car, tmp_path):
    path = tmp_path / "huge.jpg"
    Image.open(FILES[0]).resize((8000, 6933), Image.Resampling.BICUBIC).save(path, quality=90)
    box = np.array([57, 68, 240, 171]) * 8000 / 240
    whole, boxed = model.predict([path, path], boxes=[None, box])
    (small,) = model.predict(FILES[0], boxes=(57, 68, 240, 171))
    for found, expected in ((whole, car), (boxed, small)):
        assert found.category == "car" and degrees_apart(found, expected) < 8


def test_a_model_without_the_head_is_refused_by_name(released, tmp_path):
    with pytest.raises(UserError, match="a model without a pose head; finetune it first"):
        LlavaPose.from_pretrained(released[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "abacus"}, "device: 'abacus': "),
        ({"device": "cuda:99"}, "device: 'cuda:99': "),
        ({"dtype": "float31"}, "dtype: 'float31' is none of float32, bfloat16, float16"),
    ],
)
def test_no_such_device_or_precision_is_told_before_a_model_is_loaded(options, told, tmp_path):
    with pytest.raises(UserError, match=told):
        LlavaPose.from_pretrained(tmp_path / "none", **options)


def test_precision_can_be_chosen(car):
    model = LlavaPose.from_pretrained(device="cpu", dtype="bfloat16")
    assert model.engine.model.dtype == torch.bfloat16
    (found,) = model.predict(FILES[0])
    assert found.category == "car" and degrees_apart(found, car) < 15


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_used_where_there_is_one_in_half_precision():
    model = LlavaPose.from_pretrained()
    assert model.engine.device.type == "cuda" and model.engine.model.dtype == torch.bfloat16
    tensor = torch.from_numpy(CAR.copy()).cuda()
    assert [found.category for found in model.predict([*FILES, tensor])] == [*NAMES, "car"]
