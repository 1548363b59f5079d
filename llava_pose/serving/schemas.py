"""The form of requests and answers: OpenAI's where it has one, with poses besides. What is not known is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

MAX_BOXES = 32
MAX_CATEGORIES = 1000
MAX_MESSAGES = 200
MAX_STOPS = 4

Box = Annotated[list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the picture")]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
DATA_URL = "data:image/…;base64,… (PNG, JPEG, WebP, GIF or BMP), or an http(s) URL where the server allows it"


class Strict(BaseModel):
    """A request's part: nothing unknown in it, no text where a number belongs, and a null is what was left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None} if type(values) is dict else values


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImageURL(Strict):
    """Where a picture is. ``detail`` changes nothing."""

    url: str = Field(description=DATA_URL)
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """A picture, or with ``box`` the part of it that is meant."""

    type: Literal["image_url"]
    image_url: ImageURL
    box: Box | None = None


def _form(content: Any) -> str:
    return "parts" if isinstance(content, list) else "text"


Parts = Annotated[list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(min_length=1)]
TextParts = Annotated[list[TextPart], Field(min_length=1)]
# Which of the two is meant is plain, so that a mistake in one is told of that one.
Content = Annotated[Annotated[str, Tag("text")] | Annotated[Parts, Tag("parts")], Discriminator(_form)]
Words = Annotated[Annotated[str, Tag("text")] | Annotated[TextParts, Tag("parts")], Discriminator(_form)]


class UserMessage(Strict):
    """What was asked."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Strict):
    """What was answered, as it came back: its poses are accepted, and read no more."""

    role: Literal["assistant"]
    content: Words
    name: str | None = None
    poses: list[Any] | None = None


class SystemMessage(Strict):
    """What holds for the whole conversation."""

    role: Literal["system", "developer"]
    content: Words
    name: str | None = None


Message = Annotated[UserMessage | AssistantMessage | SystemMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """``include_usage``: whether a last chunk counts the tokens."""

    include_usage: bool = False


class TextFormat(Strict):
    """The one form of answers."""

    type: Literal["text"]


class ChatRequest(Strict):
    """A conversation that ends with the user's turn. Fields of OpenAI's that are missing here are refused by name."""

    model: str | None = Field(None, description="the model served here, as /v1/models names it")
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="how long the answer may be")
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="0: always the likeliest words")
    top_p: float = Field(1.0, gt=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: Literal[1] = 1
    frequency_penalty: Literal[0] = 0
    presence_penalty: Literal[0] = 0
    logprobs: Literal[False] = False
    response_format: TextFormat | None = None
    user: str | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "text", "text": "How far must the car turn to face me?"},
                                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}},
                            ],
                        }
                    ]
                }
            ]
        }
    )


class PoseRequest(Strict):
    """A picture, the boxes of the objects meant (the whole picture without), and the names to choose among."""

    image: str = Field(description=DATA_URL)
    boxes: list[Box] | None = Field(None, min_length=1, max_length=MAX_BOXES)
    categories: list[Name] | None = Field(
        None, min_length=1, max_length=MAX_CATEGORIES, description="all that the model was trained to name, without"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"image": "data:image/jpeg;base64,…", "boxes": [[40, 60, 300, 220]], "categories": ["car"]}]
        }
    )


class Alternative(BaseModel):
    """Another pose that the object may well have, as one that looks alike from behind."""

    azimuth: float
    elevation: float
    theta: float
    probability: float
    turn: float = Field(description="the angle between the two poses, in radians")
    text: str
    rotation: list[list[float]] = Field(description="3×3 by rows, from the object's frame to the camera's")


class Distributions(BaseModel):
    """Each angle's probabilities over equal bins that go once around, from 0 to 2π."""

    azimuth: list[float]
    elevation: list[float]
    theta: list[float]


class Pose(BaseModel):
    """A pose; angles in radians, null where none could be read."""

    category: str
    class_probability: float | None = Field(description="null in chats, where no names are compared")
    azimuth: float | None
    elevation: float | None
    theta: float | None
    spread: list[float | None] = Field(description="how far each angle scatters, in radians")
    confidence: float = Field(description="the probability that the pose errs by less than 30 degrees")
    expected_error: float | None = Field(description="in radians")
    alternative: Alternative | None
    calibrated: bool = Field(description="whether the probabilities were fitted to how often the model was right")
    box: list[float] | None = Field(description="the part of the picture that was looked at; null for all of it")
    words: str
    text: str
    chip: str
    rotation: list[list[float]] | None = Field(description="3×3 by rows, from the object's frame to the camera's")
    distributions: Distributions


class NamedPose(Pose):
    """A pose of an object that was named among candidates."""

    joint_confidence: float = Field(description="the probability that name and pose are both right")


class PoseAnswer(BaseModel):
    """An object for each box, in order, or the one of the whole picture."""

    objects: list[NamedPose]


class AnswerMessage(BaseModel):
    """The k-th ``<pose>`` in the text belongs to ``poses[k]``."""

    role: Literal["assistant"]
    content: str
    refusal: None
    poses: list[Pose]


class Choice(BaseModel):
    """``length``: the answer was cut at its greatest number of tokens."""

    index: Literal[0]
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens; each picture counts with all of its own."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """OpenAI's chat.completion, with poses in the message."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Model(BaseModel):
    """The model served here."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    """All models: the one."""

    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    """``draining``: what is under way is finished, nothing new is taken."""

    status: Literal["ready", "draining"]
    model: str
    version: str


class Mistake(BaseModel):
    """What went wrong, and which field is meant."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """OpenAI's error object."""

    error: Mistake
