"""What a caller is told when something goes wrong: OpenAI's error object, and nothing that is the server's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException

from llava_pose.errors import UserError

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's word for what kind of mistake a status is, where it is not ``invalid_request_error``."""


class ApiError(HTTPException):
    """A refusal: its HTTP status, one line for the caller, which field is meant, and a code that programs may check."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(status, message, headers)
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return error_object(self.status_code, self.detail, self.param, self.code)


def error_object(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error object for an answer of this status."""
    kind = "server_error" if status >= 500 else KINDS.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def busy(message: str, status: int = 429, code: str = "too_many_requests") -> ApiError:
    """A refusal of what may be asked again in a second."""
    return ApiError(status, message, code=code, headers={"Retry-After": "1"})


@contextmanager
def mistakes_in(param: str) -> Iterator[None]:
    """The library's word for a caller's mistake as a refusal that names the field: ``param``, or the part of it that
    the message begins with."""
    try:
        yield
    except UserError as error:
        told = " ".join(str(error).split())
        # The library speaks of a part's image, which is the whole part here.
        place = told.partition(": ")[0].removesuffix(".image")
        raise ApiError(400, told, place if place.startswith(param) else param, "invalid_value") from error
