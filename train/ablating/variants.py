"""The list of what is compared: each variant is the baseline, or the one it stands against, with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from train.ablating.patches import Patch, bins, one_layer, state_before_pose, unchanged

BASELINE = "baseline"
EMBEDDED = "embedded"
"""The embedded model as it is: not trained here, but read in several ways like the baseline."""
LORA = "lora-16"
NEW_CATEGORIES = ("forklift", "tractor", "camera", "microwave")
KNOWN_CATEGORIES = ("car", "chair")


@dataclass(frozen=True)
class Variant:
    """A run's settings.

    question: what it answers; says: what is other than in ``against``, the run of the same seed that it is compared
    with; overrides: keys of the recipe; data: the folders that it is trained on; scored: the one whose val split it is
    scored on; patch: what is changed in the product.
    """

    name: str
    question: str
    says: str
    overrides: tuple[str, ...] = ()
    data: tuple[str, ...] = ("crops",)
    patch: Patch = unchanged
    against: str = BASELINE
    scored: str = "crops"


def _lora(rank: int) -> Variant:
    """Adapters on the embedded model for categories that it was not trained on, beside two that it knows."""
    settings = (
        "model.text=null",
        "model.tower_sizes=null",
        "model.base=BASE",
        f"model.lora={{rank: {rank}, alpha: {2 * rank}, dropout: 0.0}}",
        "optimizer=adamw",
        "learning_rate=2e-3",
        "head_learning_rate=5e-4",
        "projector_learning_rate=5e-4",
        "weight_decay=0",
        "adam_beta2=0.999",
        "steps=80",
    )
    says = f"adapters of rank {rank} on the embedded model, new categories"
    return Variant(f"lora-{rank}", "LoRA rank", says, settings, ("new",), against=LORA, scored="new")


VARIANTS: tuple[Variant, ...] = (
    Variant(BASELINE, "baseline", "as baseline.yaml says"),
    Variant("before-pose", "token position", "pose read at the token before `<pose>`", patch=state_before_pose),
    Variant("hard", "targets", "hard cross-entropy", ("model.pose_target_deviation=0",)),
    Variant("soft-2", "targets", "soft targets of two bins", ("model.pose_target_deviation=2.0",)),
    Variant("bins-20", "bins per angle", "20 bins", patch=partial(bins, 20)),
    Variant("bins-72", "bins per angle", "72 bins", patch=partial(bins, 72)),
    Variant("stride-32", "vision layers", "the map of stride 32 alone", patch=partial(one_layer, 32)),
    Variant("stride-16", "vision layers", "the map of stride 16 alone", patch=partial(one_layer, 16)),
    Variant("image-128", "resolution", "128 px, 16 tokens", ("model.tower_sizes.image_size=128",)),
    Variant("image-256", "resolution", "256 px, 64 tokens", ("model.tower_sizes.image_size=256",)),
    Variant("scenes", "objects per row", "whole pictures, one to three objects a row", data=("scenes",)),
    Variant("scenes-and-crops", "objects per row", "whole pictures and crops mixed", data=("crops", "scenes")),
    Variant(
        "no-captions", "captions", "none, where the baseline has them in a fifth of its rows", data=("uncaptioned",)
    ),
    Variant("no-questions", "3D questions", "no 3D questions", ("question_share=0",)),
    Variant("pose-weight-0.3", "pose loss weight", "0.3", ("model.pose_loss_weight=0.3",)),
    Variant("pose-weight-3", "pose loss weight", "3", ("model.pose_loss_weight=3.0",)),
    _lora(16),
    _lora(4),
    _lora(64),
    Variant(
        "bins-72-wide",
        "bins per angle",
        "72 bins, soft targets as wide in degrees",
        ("model.pose_target_deviation=1.8",),
        patch=partial(bins, 72),
    ),
    Variant("stride-8", "vision layers", "the map of stride 8 alone", patch=partial(one_layer, 8)),
)


def chosen(names: list[str] | None) -> list[Variant]:
    """The variants of these names, all without them, in the list's order; KeyError for an unknown name."""
    known = {variant.name: variant for variant in VARIANTS}
    wanted = set(known) if names is None else {known[name].name for name in names}
    return [variant for variant in VARIANTS if variant.name in wanted]
