"""Whether the service can do its work: named reasons that keep it from being ready."""

from __future__ import annotations


class Readiness:
    """Reasons not to be ready, by the name of the part that gives them; ready when none is left."""

    def __init__(self, **blocked: str) -> None:
        """Begin with reasons, say ``Readiness(model="loading")``."""
        self._reasons: dict[str, str] = dict(blocked)

    def block(self, part: str, reason: str) -> None:
        """A part cannot work (any more)."""
        self._reasons[part] = reason

    def clear(self, part: str) -> None:
        """A part can work."""
        self._reasons.pop(part, None)

    @property
    def ready(self) -> bool:
        """Whether no reason is left."""
        return not self._reasons

    def reasons(self) -> dict[str, str]:
        """Part to reason."""
        return dict(self._reasons)
