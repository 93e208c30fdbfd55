"""What the service said when it refused a call."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


class ServiceError(Exception):
    """A call was refused as a whole, or the service could not be reached."""

    def __init__(self, code: grpc.StatusCode, reason: str, text: str, retry_after_ms: int) -> None:
        super().__init__(f"{text} ({reason})" if reason else text)
        self.code = code
        self.reason = reason
        """Stable and made for programs. Empty when the answer did not come from the service."""
        self.text = text
        self.retry_after_ms = retry_after_ms
        """0: trying the same again does not help."""
        self.how_far: list[str] = []
        """Of several calls, what was done before this one."""

    @property
    def unreachable(self) -> bool:
        """Whether the call was carried out is not known; all calls of this client may be repeated."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def service_error(error: grpc.RpcError) -> ServiceError:
    """Reads the details that the service sends with a refusal."""
    reason, retry_after_ms = "", 0
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            information = error_details_pb2.ErrorInfo()
            advice = error_details_pb2.RetryInfo()
            if detail.Unpack(information):
                reason = information.reason
            elif detail.Unpack(advice):
                retry_after_ms = advice.retry_delay.ToMilliseconds()
    return ServiceError(error.code(), reason, error.details() or error.code().name, retry_after_ms)
