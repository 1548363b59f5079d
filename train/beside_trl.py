"""TRL's SFTTrainer on the same rows as ours: the other side of ``train/speed.py``.

TRL knows no poses: its model is a plain LLaVA that learns the words alone, which is the lesser work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from transformers import LlavaConfig, LlavaForConditionalGeneration, TrainerCallback
from trl import SFTConfig, SFTTrainer

from llava_pose.scene import PosedImage

from .config import TrainConfig


class Stopwatch(TrainerCallback):
    """The seconds that the steps after the first ``skipped`` take."""

    def __init__(self, skipped: int):
        self.skipped, self.began, self.seconds = skipped, 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin with the first step that counts."""
        if state.global_step == self.skipped:
            self.began = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The time up to the latest step."""
        self.seconds = now() - self.began


def now() -> float:
    """The time in seconds when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def plain_llava(model: Any, peft_config: Any) -> Any:
    """A plain LLaVA of the same sizes and weights, with the same parts trained."""
    fields = {k: v for k, v in model.config.to_dict().items() if k not in ("model_type", "architectures")}
    with torch.device("meta"):
        plain: Any = LlavaForConditionalGeneration(LlavaConfig(**fields))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pose_head.")}
    plain.load_state_dict({name: value.detach().clone() for name, value in weights.items()}, assign=True)
    # What is computed and not loaded, such as the rotary frequencies, is taken over.
    for name, value in model.named_buffers():
        owner, _, last = name.rpartition(".")
        plain.get_submodule(owner).register_buffer(last, value.clone(), persistent=False)
    plain.set_attn_implementation({"text_config": model.config.get_text_config()._attn_implementation})
    if peft_config is not None:
        from peft import get_peft_model

        plain = get_peft_model(plain, peft_config)
        for value in plain.parameters():
            if value.requires_grad:
                value.data = value.data.float()
        return plain
    plain.model.vision_tower.requires_grad_(False)
    return plain


def trl_rows(talks: Iterable[tuple[PosedImage, list[dict[str, Any]]]]) -> Dataset:
    """Records with the conversations about them as TRL takes them."""
    rows = [{"images": [record.image], "messages": [_plain(message) for message in talk]} for record, talk in talks]
    message = {"role": Value("string"), "content": Value("string")}
    return Dataset.from_list(rows, features=Features({"images": List(Image()), "messages": List(message)}))


def _plain(message: dict[str, Any]) -> dict[str, str]:
    words = "".join(part["text"] for part in message["content"] if part["type"] == "text")
    return {"role": message["role"], "content": words}


def train_with_trl(
    model: Any, processor: Any, rows: Dataset, config: TrainConfig, steps: int, skipped: int, folder: Path
) -> float:
    """The seconds that ``steps`` steps take after ``skipped`` that do not count."""
    watch = Stopwatch(skipped)
    settings = SFTConfig(
        output_dir=str(folder),
        max_steps=skipped + steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        adam_beta2=config.adam_beta2,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=config.gradient_checkpointing,
        max_length=None,
        assistant_only_loss=True,
        train_sampling_strategy="sequential",
        dataloader_num_workers=config.workers,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=10**9,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(model, settings, train_dataset=rows, processing_class=processor, callbacks=[watch])
    trainer.train()
    return watch.seconds
