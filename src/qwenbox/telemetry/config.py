"""This is where it is said where traces go."""

import msgspec


class TracesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[traces]`. endpoint: of a collector that speaks OTLP over HTTP, e.g. http://localhost:4318; "" sends none.

    The exporter's other settings (headers, sampling) are OpenTelemetry's own OTEL_* variables.
    """

    endpoint: str = ""

    def __post_init__(self) -> None:
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint must be an http:// or https:// address")
