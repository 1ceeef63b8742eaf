"""Rendering with MuJoCo on machines that have no display."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import sys


def set_headless_gl() -> str | None:
    """Let MuJoCo render without a display: choose the OpenGL library if nobody has chosen.

    On Linux without DISPLAY and without MUJOCO_GL this sets MUJOCO_GL to "egl" where libEGL is
    found, else to "osmesa" where libOSMesa is. MuJoCo reads the variable when it is imported.

    Returns:
        The value of MUJOCO_GL afterwards, None if unset.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if not chosen and sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
            if _has_library(library):
                os.environ["MUJOCO_GL"] = backend
                break
    return os.environ.get("MUJOCO_GL")


def gl_error(error: BaseException) -> RuntimeError | None:
    """What to tell the user if `error` comes from a missing OpenGL library, else None.

    The libraries fail in many ways (an AttributeError of a None, a GLFW warning, a FatalError), so
    this looks at where the error was raised and not at what it says.
    """
    trace = error.__traceback__
    places = []
    while trace is not None:
        places.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    if not re.search(r"\b(OpenGL|glfw|mujoco_rendering|mujoco\.(egl|osmesa|glfw))\b", str(places)):
        return None
    return RuntimeError(
        "MuJoCo found no OpenGL library to render with "
        f"(MUJOCO_GL is {os.environ.get('MUJOCO_GL') or 'unset'}): install the Debian packages "
        "libegl1 and libgl1 and set MUJOCO_GL=egl, or install libosmesa6 and set MUJOCO_GL=osmesa."
    )


def _has_library(name: str) -> bool:
    if ctypes.util.find_library(name) is not None:
        return True
    try:  # find_library asks ldconfig or a compiler, which a slim image may not have
        ctypes.CDLL({"EGL": "libEGL.so.1", "OSMesa": "libOSMesa.so.8"}[name])
    except OSError:
        return False
    return True
