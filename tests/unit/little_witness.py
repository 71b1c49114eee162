"""A witness by the text of C2SP tlog-witness, on nothing of the node's: its own note reader, own
RFC 9162 consistency check, its own signatures. Over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nacl.exceptions
import nacl.signing
from aiohttp import web


class LittleWitness:
    """Knows one log. `misbehave` says how it fails, if it does; `requests` counts what came."""

    def __init__(self, name: str, origin: str, log_key: bytes, seed: bytes = b"w" * 32) -> None:
        self.name = name
        self.key = nacl.signing.SigningKey(seed)
        self.sizes: list[int] = []
        self.size = 0
        self.root = hashlib.sha256(b"").digest()
        self.requests = 0
        self.misbehave = ""
        self.time_s = 1_800_000_000
        self._origin = origin
        self._log_key = log_key

    @property
    def vkey(self) -> str:
        material = b"\x04" + bytes(self.key.verify_key)
        return f"{self.name}+{self._key_id.hex()}+{base64.b64encode(material).decode()}"

    @property
    def _key_id(self) -> bytes:
        material = b"\x04" + bytes(self.key.verify_key)
        return hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4]

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[str]:
        """Yields its submission prefix."""
        app = web.Application()
        app.router.add_post("/witness/add-checkpoint", self._add_checkpoint)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/witness"
        finally:
            await runner.cleanup()

    async def _add_checkpoint(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        match self.misbehave:
            case "stall":
                await asyncio.sleep(60)
            case "broken":
                return web.Response(status=503, text="come back later\n")
            case "redirect":
                return web.Response(status=307, headers={"Location": "/elsewhere"})
            case "flood":
                return web.Response(body=b"x" * 1_000_000)
            case "other sizes":
                return self._conflict(self.requests % 2)
            case "no size":
                return web.Response(status=409, text="what?\n", content_type="text/x.tlog.size")
            case "stranger":
                return web.Response(
                    body=LittleWitness("s", "", b"", b"s" * 32)._line("x\n").encode()
                )
            case "forged":
                return web.Response(body=self._line("another body\n").encode())
        return self._judge((await request.read()).decode())

    def _judge(self, text: str) -> web.Response:
        head, _, note = text.partition("\n\n")
        old_line, *proof_lines = head.split("\n")
        word, old_text = old_line.split(" ")
        body, _, signatures = note.rpartition("\n\n")
        body += "\n"
        origin, size_text, root_text = body.splitlines()[:3]
        if origin != self._origin:
            return web.Response(status=404)
        if not self._is_signed(body, signatures):
            return web.Response(status=403)
        old, size, root = int(old_text), int(size_text), base64.b64decode(root_text)
        if word != "old" or str(old) != old_text or old > size or len(proof_lines) > 63:
            return web.Response(status=400)
        if old != self.size:
            return self._conflict(self.size)
        proof = [base64.b64decode(line, validate=True) for line in proof_lines]
        if old == size:
            is_good = root == self.root and not proof
        elif old == 0:
            is_good = not proof
        else:
            is_good = is_consistent(old, self.root, size, root, proof)
        if not is_good:
            return web.Response(status=422, text="not the log that I know\n")
        self.size, self.root = size, root
        self.sizes.append(size)
        return web.Response(body=self._line(body).encode())

    @staticmethod
    def _conflict(size: int) -> web.Response:
        return web.Response(status=409, text=f"{size}\n", content_type="text/x.tlog.size")

    def _is_signed(self, body: str, signatures: str) -> bool:
        key_id = hashlib.sha256(self._origin.encode() + b"\n\x01" + self._log_key).digest()[:4]
        for line in signatures.splitlines():
            _, name, encoded = line.split(" ")
            data = base64.b64decode(encoded)
            if name == self._origin and data[:4] == key_id:
                try:
                    nacl.signing.VerifyKey(self._log_key).verify(body.encode(), data[4:])
                except nacl.exceptions.BadSignatureError:
                    return False
                return True
        return False

    def _line(self, body: str) -> str:
        self.time_s += 1
        message = f"cosignature/v1\ntime {self.time_s}\n{body}".encode()
        data = self._key_id + self.time_s.to_bytes(8, "big") + self.key.sign(message).signature
        return f"\u2014 {self.name} {base64.b64encode(data).decode()}\n"


def is_consistent(
    first: int, first_hash: bytes, second: int, second_hash: bytes, path: list[bytes]
) -> bool:
    """RFC 9162, section 2.1.4.2, step by step; 0 < first < second."""
    if not path:
        return False
    if first & (first - 1) == 0:
        path = [first_hash, *path]
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for item in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr = hashlib.sha256(b"\1" + item + fr).digest()
            sr = hashlib.sha256(b"\1" + item + sr).digest()
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = hashlib.sha256(b"\1" + sr + item).digest()
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr, sn) == (first_hash, second_hash, 0)
