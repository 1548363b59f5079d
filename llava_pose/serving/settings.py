"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class ServerSettings:
    """Who may ask, and how much.

    model_name: what /v1/models says; api_key: the bearer key that everything but the page and /health then needs;
    allow_http_images: whether pictures are fetched from the network; allowed_hosts: names, besides addresses and
    localhost, by which a browser may call a server that needs no key.

    max_body_bytes: of a request; max_pixels: of a picture; max_images: of a conversation; max_prompt_tokens: the
    model's own limit where None; max_new_tokens: of an answer; max_seconds: from a request's head to its answer's end;
    max_held: requests that are being received, waiting or answered at once; max_batch: conversations, or pictures, that
    the model works on at once.
    """

    model_name: str = "llava-pose"
    api_key: str | None = None
    allow_http_images: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 20 * MIB
    max_pixels: int = 50_000_000
    max_images: int = 8
    max_prompt_tokens: int | None = None
    max_new_tokens: int = 1024
    max_seconds: float = 120.0
    max_held: int = 64
    max_batch: int = 32
