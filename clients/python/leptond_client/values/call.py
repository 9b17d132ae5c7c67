"""What is known of a call once it is over."""

from __future__ import annotations

from dataclasses import dataclass, field

from leptond_client.values.text import Timing, Usage

__all__ = ["CallInfo"]


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What is known of a call once it is over.

    Attributes:
        usage: what was read and written.
        timing: where the time went.
        model: what answered, as "model:variant".
        model_version: its version.
        request_id: the caller's label of the call, or the daemon's id.
        server_request_id: the daemon's own id of the call.
    """

    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    model: str = ""
    model_version: int = 0
    request_id: str = ""
    server_request_id: str = ""
