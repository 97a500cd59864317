"""Several renderers in one process, each with its own GL context.

robosuite draws into, reads from and frees in whatever context is current: the one that was
made last. It gets away with that because each of its resets makes a new one. Where contexts
are kept, a second simulator would draw over the first, and the end of a forgotten one, at any
moment that suits the garbage collector, would delete the textures of a living one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

_current: weakref.ref[Any] | None = None


@functools.cache
def guard() -> None:
    """Make robosuite's renderers use their own context, from now on in this process."""
    from robosuite.utils import binding_utils

    context, renderer = binding_utils.GLContext, binding_utils.MjRenderContext
    context.make_current = _noted(context.make_current)
    renderer.render = _in_own(renderer.render)
    renderer.read_pixels = _in_own(renderer.read_pixels)
    renderer.__del__ = _freed_in_own(renderer.__del__)


def _noted(make_current: Callable[[Any], None]) -> Callable[[Any], None]:
    def noted(self: Any) -> None:
        global _current
        make_current(self)
        _current = weakref.ref(self)

    return noted


def _in_own(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def in_own(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.gl_ctx.make_current()
        return method(self, *args, **kwargs)

    return in_own


def _freed_in_own(free: Callable[[Any], None]) -> Callable[[Any], None]:
    def freed_in_own(self: Any) -> None:
        before, own = _current and _current(), getattr(self, "gl_ctx", None)
        if own is None:  # it was never made, and whoever asked for it has the error
            return
        own.make_current()
        free(self)
        if before is not None and before is not own:
            before.make_current()

    return freed_in_own
