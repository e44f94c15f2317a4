"""`Settings`: how a service is asked, and where its limits are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rm_gallery.core.errors import ConfigError

ServedMode = Literal["expected", "greedy"]
MIB = 2**20
_BODIES = 32


@dataclass(frozen=True)
class Settings:
    """Of `create_app`.

    Attributes:
        mode: where a request names none. None: `expected` where the judge can be asked so, else `greedy`.
        max_batch: questions that the model is given at once.
        batch_tokens: and about how many tokens, by the length of their text.
        max_queue: questions that wait; beyond them 429.
        max_items: of a request, and questions that it comes to; beyond them 413.
        max_body: bytes of a request; beyond them 413. Bodies that are being answered, and the text of what waits, may
            have 32 times as many together; beyond them 429.
        body_seconds: within which a request's body must have come, or 408.
        max_new_tokens: where a written answer is cut off. None: as in the judge's training.
        missing_reward: what OpenRLHF is given for a response without a score. None: its request fails.
        api_key: what clients must know; None: anyone may ask. Shown nowhere.
        hosts: the names under which the service may be addressed, against web pages that point a name of their own
            at it; None: any.
    """

    mode: ServedMode | None = None
    max_batch: int = 64
    batch_tokens: int = 16_384
    max_queue: int = 4096
    max_items: int = 1024
    max_body: int = 8 * MIB
    body_seconds: float = 30.0
    max_new_tokens: int | None = None
    missing_reward: float | None = None
    api_key: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] | None = None

    @property
    def max_text(self) -> int:
        """Bytes of all requests together."""
        return _BODIES * self.max_body

    def __post_init__(self) -> None:
        if self.mode not in (None, "expected", "greedy"):
            raise ConfigError(f"the mode is {self.mode!r}; a service asks in mode expected or greedy")
        limits = ("max_batch", "batch_tokens", "max_queue", "max_items", "max_body")
        if small := [name for name in limits if getattr(self, name) < 1]:
            raise ConfigError(f"{', '.join(small)} must be at least 1")
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError("the API key is empty: unset RMG_API_KEY, or give it a value")
