"""What the processes of a run are told, and what the hardware under them cannot do."""

import pytest
import torch

from llava_pose.errors import UserError
from train.config import TrainConfig
from train.processes import check_half_precision


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"precision": "bf16"}, "precision: bf16, but Tesla V100 has no bfloat16; set precision=fp32$"),
        (
            {"precision": "bf16", "model": {"base": "embedded", "lora": {}, "base_dtype": "bf16"}},
            r"Tesla V100 has no bfloat16; set precision=fp32 model\.base_dtype=fp32$",
        ),
    ],
)
def test_half_precision_on_a_gpu_without_it_is_refused(recipe, tmp_path, monkeypatch, settings, named):
    def supported(including_emulation=True):
        return including_emulation  # what torch says of a V100

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    config = TrainConfig.model_validate(recipe(tmp_path, **settings))
    with pytest.raises(UserError, match=named):
        check_half_precision(config, torch.device("cuda", 0))
    check_half_precision(config, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    check_half_precision(config, torch.device("cuda", 0))


def test_full_precision_asks_nothing_of_a_gpu(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    check_half_precision(TrainConfig.model_validate(recipe(tmp_path)), torch.device("cuda", 0))
