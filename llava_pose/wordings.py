"""How a conversation is written for a language model: chat templates with the assistant's turns marked.

A turn is worded as the language model learnt to read it. In each the assistant's part, up to and including the token
that ends it, is marked, so that its tokens, and no others, are supervised; and a prompt, which ends where the assistant
begins, is a beginning of the conversation that goes on from it.
"""

from __future__ import annotations

from typing import Any

_IMAGES = "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% endif %}{% endfor %}"
_TEXT = "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"


def _template(system: str, user: str, answer: str) -> str:
    """The three kinds of turn, each with TEXT where its words stand, and IMAGES in the user's."""
    return (
        (
            "{% for message in messages %}"
            "{% if message['role'] == 'system' %}"
            + system
            + "{% elif message['role'] == 'user' %}"
            + user
            + "{% else %}"
            + answer
            + "{% endif %}{% endfor %}"
        )
        .replace("IMAGES", _IMAGES)
        .replace("TEXT", _TEXT)
    )


VICUNA = _template(
    "{% for part in message['content'] %}{{ part['text'] }} {% endfor %}",
    "USER: IMAGESTEXT ASSISTANT:",
    "{% generation %}{% for part in message['content'] %} {{ part['text'] }}{% endfor %}{{ eos_token }}"
    "{% endgeneration %}",
)
"""LLaVA-1.5's own wording (Vicuna v1), closed by the end-of-sequence token, as it was trained."""

CHATML = _template(
    "<|im_start|>system\nTEXT<|im_end|>\n",
    "<|im_start|>user\nIMAGESTEXT<|im_end|>\n<|im_start|>assistant\n",
    "{% generation %}TEXT<|im_end|>{% endgeneration %}{{ '\\n' }}",
)
"""That of Qwen and Yi, and so of LLaVA-OneVision and InternVL."""

LLAMA_3 = _template(
    "<|start_header_id|>system<|end_header_id|>\n\nTEXT<|eot_id|>",
    "<|start_header_id|>user<|end_header_id|>\n\nIMAGESTEXT<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "{% generation %}TEXT<|eot_id|>{% endgeneration %}",
)

MISTRAL = _template(
    "TEXT{{ '\\n\\n' }}",
    "[INST] IMAGESTEXT [/INST]",
    "{% generation %} TEXT{{ eos_token }}{% endgeneration %}",
)


def wording(tokenizer: Any, text_type: str, image_mark: str) -> str:
    """The chat template for a language model of this ``model_type``, by the marks that its tokenizer knows."""
    known = tokenizer.get_vocab()
    if "<|im_start|>" in known and "<|im_end|>" in known:
        template = CHATML
    elif "<|start_header_id|>" in known:
        template = LLAMA_3
    else:
        template = MISTRAL if text_type == "mistral" else VICUNA
    return with_images(template, image_mark)


def with_images(template: str, image_mark: str) -> str:
    """One of these templates, with an image written like this."""
    return template.replace("IMAGE", image_mark)
