"""The ``serve`` command: its options, and what is checked before anything heavy is imported."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import socket
from importlib.util import find_spec
from pathlib import Path

from llava_pose import __version__
from llava_pose.arguments import positive_number, whole_number
from llava_pose.errors import UserError
from llava_pose.folders import EMBEDDED, model_source

from .settings import MIB, ServerSettings

SUMMARY = "Serve a web page and an HTTP API, OpenAI's form of chat among it."

KEY_VARIABLE = "LLAVA_POSE_API_KEY"
SHORTEST_KEY = 16
PACKAGES = ("fastapi", "fastapi_swagger", "httpx", "prometheus_client", "uvicorn")

EXAMPLES = f"""\
examples:
  llava-pose serve                                    then open http://127.0.0.1:7860
  llava-pose serve --port 8000 --model runs/demo/train/final
  llava-pose serve --host 0.0.0.0 --api-key-file key.txt
  {KEY_VARIABLE}=... llava-pose serve --host 0.0.0.0

  curl http://127.0.0.1:7860/v1/pose -H 'Content-Type: application/json' \\
      -d "{{\\"image\\": \\"data:image/jpeg;base64,$(base64 -w0 photo.jpg)\\"}}"

The page is at /, the API's description at /docs. /v1/chat/completions and /v1/models are OpenAI's; the poses of an
answer's <pose> marks are in its message's field "poses". /v1/pose names the objects in boxes and reads their poses.
/health and /metrics are for what watches over it.

Only this machine is served unless --host says otherwise; then a key is needed, which clients send as OpenAI's do
(Authorization: Bearer KEY). TLS is for a proxy in front. SIGTERM or Ctrl-C finishes what was accepted and leaves; a
second one leaves at once."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Everything the command takes besides --model."""
    own = ServerSettings()
    # A key that somebody gives as --api-key must not be taken for the name of a file, which messages tell.
    parser.allow_abbrev = False

    def limit(name: str, default: float | None, told: str, kind: type = int) -> None:
        check = whole_number if kind is int else positive_number
        shown = "" if default is None else f" ({default:g} unless said otherwise)"
        parser.add_argument(name, type=check, default=default, metavar="N", help=f"{told}{shown}")

    parser.add_argument("--host", default="127.0.0.1", help="the address to serve at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=_port, default=7860, help="the port (7860; 0 takes a free one)")
    parser.add_argument(
        "--api-key-file", metavar="FILE", help=f"a file with the key that clients must send ({KEY_VARIABLE} does too)"
    )
    parser.add_argument("--without-key", action="store_true", help="serve other machines without a key all the same")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which browsers may call a server without a key, besides its addresses and localhost",
    )
    parser.add_argument("--allow-http-images", action="store_true", help="fetch pictures from public http(s) URLs")
    limit("--max-body-mib", own.max_body_bytes / MIB, "size of a request in MiB", float)
    limit("--max-megapixels", own.max_pixels / 1e6, "millions of pixels of a picture", float)
    limit("--max-images", own.max_images, "pictures in a conversation")
    limit("--max-prompt-tokens", own.max_prompt_tokens, "tokens of a conversation, pictures included (the model's own)")
    limit("--max-tokens", own.max_new_tokens, "tokens of an answer")
    limit("--max-seconds", own.max_seconds, "seconds that a request may take", float)
    limit("--max-requests", own.max_held, "requests accepted at once; more are told to come again")
    limit("--max-batch", own.max_batch, "conversations, or pictures, that the model works on at once")


def serve(arguments: argparse.Namespace) -> None:
    """Serve until a signal says to stop. Raises UserError for a mistake, before a model is loaded."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"serve: {', '.join(missing)} is not installed: pip install 'llava-pose[serve]'")
    key = _key(arguments.api_key_file)
    model_source(arguments.model)
    door = _listening(arguments.host, arguments.port)
    address, port = door.getsockname()[:2]
    if key is None and not ipaddress.ip_address(address).is_loopback and not arguments.without_key:
        door.close()
        raise UserError(
            f"--host: {arguments.host} is reached from other machines: set a key (--api-key-file or {KEY_VARIABLE}), "
            "or say --without-key"
        )

    from llava_pose.terminal import note, open_model

    from .foyer import foyer

    settings = _settings(arguments, key)
    shown = f"[{address}]" if ":" in address else address
    with foyer(door, settings):
        note(f"http://{shown}:{port} can be opened; its model is loading")
        model = open_model(arguments.model)

        from llava_pose.server import create_app, log_to_stderr, run

        log_to_stderr()
        app = create_app(model, settings)
    place = f"llava-pose {__version__}: http://{shown}:{port} (the API: http://{shown}:{port}/docs)"
    run(app, door, lambda: print(place, flush=True))


def _settings(arguments: argparse.Namespace, key: str | None) -> ServerSettings:
    model = arguments.model.rstrip("/")
    # Of a folder its own name: where it lies is nobody's business.
    served = ServerSettings.model_name if model == EMBEDDED else Path(model).name if os.path.isdir(model) else model
    return ServerSettings(
        model_name=served,
        api_key=key,
        allow_http_images=arguments.allow_http_images,
        allowed_hosts=tuple(arguments.allow_host),
        max_body_bytes=int(arguments.max_body_mib * MIB),
        max_pixels=int(arguments.max_megapixels * 1e6),
        max_images=arguments.max_images,
        max_prompt_tokens=arguments.max_prompt_tokens,
        max_new_tokens=arguments.max_tokens,
        max_seconds=arguments.max_seconds,
        max_held=arguments.max_requests,
        max_batch=arguments.max_batch,
    )


def _key(file: str | None) -> str | None:
    """The key that clients must send, if there is one. Its value is in no message."""
    if file is not None:
        try:
            given, place = Path(file).read_text(encoding="utf-8").strip(), f"--api-key-file: {file}"
        except (OSError, ValueError) as error:
            raise UserError(f"--api-key-file: {file}: cannot be read") from error
    elif KEY_VARIABLE in os.environ:
        given, place = os.environ[KEY_VARIABLE].strip(), KEY_VARIABLE
    else:
        return None
    if len(given) < SHORTEST_KEY or not given.isascii() or not given.isprintable() or " " in given:
        raise UserError(f"{place}: a key is one line of at least {SHORTEST_KEY} letters, digits and signs")
    return given


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens already: who connects while the model is loaded is answered once it is."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"--port: {port} is taken on {host}; choose another") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"--host {host} --port {port}: cannot be served at: {reason}") from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, got {text!r}")
    return int(text)
