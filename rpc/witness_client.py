"""Posts to outside witnesses over one kept-alive HTTP session. A witness is a stranger: its answer
is bounded in size and time, and is not followed elsewhere."""

from __future__ import annotations

import aiohttp

from audit.witness import ANSWER_BYTES_MAX, WitnessAnswer
from rpc.errors import RpcConnectionError

TIMEOUT_S = 10.0


class WitnessClient:
    """Close it when done."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: bytes) -> WitnessAnswer:
        """Raises RpcConnectionError if no answer came, or one that is too long."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s)
            )
        try:
            async with self._session.post(
                url, data=body, allow_redirects=False, headers={"Content-Type": "text/plain"}
            ) as response:
                found = bytearray()
                async for chunk in response.content.iter_any():
                    found += chunk
                    if len(found) > ANSWER_BYTES_MAX:
                        raise RpcConnectionError(
                            "the witness's answer is too long", expected=f"<= {ANSWER_BYTES_MAX} B"
                        )
                return WitnessAnswer(
                    status=response.status,
                    content_type=response.content_type,
                    body=bytes(found),
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise RpcConnectionError(
                f"no answer from {url}", got=str(error) or type(error).__name__
            ) from error
