"""What twisted has to tell the pulse: that its reactor will wait once more, and then end its run.

``ReactorBase.crash`` is what every stop comes to; the main loop then ends the turn that it is in, with its wait.
Without that, all the program did after its ``reactor.run()`` would be one long iteration.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable


class TwistedHooks:
    """Wraps ``crash``, until ``uninstall``."""

    def __init__(self, agent: Any) -> None:
        self._reactors: Any = sys.modules["twisted.internet.base"].ReactorBase
        self._crash = self._reactors.crash
        self._ours = self._reactors.crash = _crashing(agent, self._crash)

    def uninstall(self) -> None:
        """Restore what is still ours."""
        if self._reactors.__dict__.get("crash") is self._ours:
            self._reactors.crash = self._crash
        del self._ours


def _crashing(agent: Any, crashed: Callable[[Any], None]) -> Callable[[Any], None]:
    def crash(self: Any) -> None:
        try:
            if agent.alive[0] and agent.pulse is not None:
                agent.pulse.last()
        except Exception as error:
            agent.failed(error)
        crashed(self)

    return crash
