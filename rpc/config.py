"""Limits and addresses of the RPC server. Every queue, body and wait has a bound here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcConfig:
    """Defaults suit one node on one machine; bind elsewhere only behind a TLS proxy."""

    host: str = "127.0.0.1"
    port: int = 26657
    """0 takes a free one; `RpcServer.start` returns it."""
    origins_allowed: tuple[str, ...] = ()
    """Web origins (`https://app.example`, or `*`) that may POST and open WebSockets. Requests
    without an Origin header do not come from a browser page and are always allowed."""

    body_bytes_max: int = 4 * 1024 * 1024
    bodies_bytes_max: int = 64 * 1024 * 1024
    """All requests being read or answered at a time, over HTTP and WebSockets."""
    bodies_bytes_per_ip_max: int = 32 * 1024 * 1024
    body_marks_max: int = 65_536
    """Brackets, commas, colons and escapes of one body: what parsing it costs, counted before."""
    response_bytes_max: int = 32 * 1024 * 1024
    answers_bytes_max: int = 128 * 1024 * 1024
    """All answers that are being put together or that nobody has read yet."""
    answers_bytes_per_ip_max: int = 64 * 1024 * 1024
    batch_count_max: int = 1000
    calls_inflight_max: int = 8192
    connections_max: int = 1024
    connections_per_ip_max: int = 256
    calls_per_s_per_ip_max: int = 5_000
    """Cost a second of one IP, with a burst of as much; 0: no limit. A call costs 1, or what its
    `Method.cost` says, and 1 more for each 16 KiB of body."""
    slice_ms: int = 4
    """How long the server works before it lets consensus have the event loop."""

    body_timeout_ms: int = 10_000
    """From the headers to the end of the body."""
    call_timeout_ms: int = 70_000
    """More than the longest wait that tx_submit allows."""
    registrar_wait_ms: int = 15_000
    """How long a registration waits for its tx to be final before it answers `wait`."""
    keepalive_ms: int = 75_000
    """A connection without a request, or with an answer nobody reads, is closed after this."""
    drain_ms: int = 5_000
    """Graceful stop: how long calls in flight may take."""

    ws_count_max: int = 512
    ws_text_bytes_max: int = 256 * 1024
    """One WebSocket text; larger requests go by HTTP."""
    ws_queue_max: int = 1024
    """Messages waiting for one subscriber; one more and it is closed with 4001."""
    ws_queue_bytes_max: int = 8 * 1024 * 1024
    ws_calls_inflight_max: int = 64
    """Calls of one WebSocket at a time; reading pauses beyond it."""
    ws_topics_max: int = 256
    """Subscriptions of one WebSocket."""
    ws_write_timeout_ms: int = 10_000
    ws_ping_ms: int = 20_000
    status_interval_ms: int = 1_000
    """How often subscribers of "status" are looked after."""
