"""What ``/metrics`` tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
BATCHES = (1, 2, 4, 8, 16, 32, 64)

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("llava_pose_requests", "Requests answered.", ["route", "status"], registry=own)
        told = "From a request's head to its end."
        self.seconds = Histogram("llava_pose_request_seconds", told, ["route"], buckets=SECONDS, registry=own)
        self.held = Gauge("llava_pose_requests_held", "Requests accepted and not yet answered.", registry=own)
        self.waiting = Gauge("llava_pose_queue_length", "Work that waits for the model.", registry=own)
        told = "What the model did at once: conversations, or pictures to be named."
        self.batches = Histogram("llava_pose_batch_size", told, ["work"], buckets=BATCHES, registry=own)
        told = "From the arrival at the model of a conversation that is streamed to its first token."
        self.first_token = Histogram("llava_pose_first_token_seconds", told, buckets=SECONDS, registry=own)
        self.tokens = Counter("llava_pose_tokens", "Tokens read and written in chats.", ["kind"], registry=own)
        self.poses = Counter("llava_pose_poses", "Poses read.", ["route"], registry=own)
        self.cancelled = Counter("llava_pose_cancelled", "Work whose client left before its end.", registry=own)

    def text(self) -> bytes:
        """Everything in Prometheus' text form."""
        return generate_latest(self.registry)
