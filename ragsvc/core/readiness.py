"""Readiness of the service: ready unless a component reports a reason why not."""

from __future__ import annotations


class Readiness:
    """Reasons why the service is not ready, by component. Without reasons it is ready."""

    def __init__(self, **blocked: str) -> None:
        """Start with reasons, for example ``Readiness(model="loading")``."""
        self._reasons: dict[str, str] = dict(blocked)

    def block(self, component: str, reason: str) -> None:
        """Report that a component does not work."""
        self._reasons[component] = reason

    def clear(self, component: str) -> None:
        """Report that a component works."""
        self._reasons.pop(component, None)

    @property
    def ready(self) -> bool:
        return not self._reasons

    def reasons(self) -> dict[str, str]:
        return dict(self._reasons)
