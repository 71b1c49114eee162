"""The three kinds of failure, told apart by whose fault they are.

`InvalidInputError`  someone else's data is wrong: refuse it, score the sender, state is unchanged.
`UsageError`         our own caller asked for something that makes no sense.
`DurabilityError`    a write or sync failed, or our own store is damaged: stop; never go on as if it
                     had worked.
"""

from __future__ import annotations


class ZynkError(Exception):
    """Base of every error this project raises on purpose.

    `expected` and `got` are short, human-readable; `retry` tells whether the same call can
    succeed later without being changed.
    """

    def __init__(
        self, message: str, *, expected: str = "", got: str = "", retry: bool = False
    ) -> None:
        self.message = message
        self.expected = expected
        self.got = got
        self.retry = retry
        super().__init__(message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.got:
            parts.append(f"got {self.got}")
        return ": ".join(parts[:1]) + ("; " + ", ".join(parts[1:]) if len(parts) > 1 else "")


class InvalidInputError(ZynkError):
    """Data from outside breaks a rule. Nothing was changed."""


class UsageError(ZynkError):
    """Our caller misused an interface, or an operator gave a wrong option."""


class DurabilityError(ZynkError):
    """A write that had to be durable is not. The only safe reaction is to stop."""


class DamagedStoreError(DurabilityError):
    """A row of our own store is not what was written. Nothing may rest on it, and nobody who asked
    for it is to blame."""
