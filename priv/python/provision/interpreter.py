"""Finds the shared library of the Python that runs it, and proves it by opening the library.

Prints one line of JSON. The setup runs it with `python -I`, even with Pythons that turn out to be too old.
So it uses only the syntax of Python 3.6 and the standard library.
"""

import json
import os
import platform
import struct
import sys
import sysconfig


def _unique(paths: list) -> list:
    """Drop empty and repeated entries, in order."""
    return list(dict.fromkeys(path for path in paths if path))


def library_names() -> list:
    """File names that the shared library may have, the one that programs load at run time first."""
    version = sysconfig.get_config_var("VERSION") or "{}.{}".format(*sys.version_info[:2])
    named = [os.path.basename(sysconfig.get_config_var(name) or "") for name in ("INSTSONAME", "LDLIBRARY")]
    guessed = ["libpython" + version + end for end in (".so.1.0", ".so", ".dylib")]
    # A .a is the static library; a framework's library has no ending at all.
    return _unique([name for name in named + guessed if not name.endswith(".a")])


def library_folders() -> list:
    """Folders to look in: the build's own, Debian's, and those that remain after a move."""
    config = sysconfig.get_config_var
    folders = [config("LIBDIR")]
    if config("MULTIARCH"):
        folders.append(os.path.join(config("LIBDIR") or "/usr/lib", config("MULTIARCH")))
    if config("PYTHONFRAMEWORKPREFIX"):
        library = config("LDLIBRARY") or ""
        folders.append(os.path.dirname(os.path.join(config("PYTHONFRAMEWORKPREFIX"), library)))
    # A relocated build (uv's, conda's, Homebrew's after an upgrade) still has it next to its prefix.
    executable = os.path.dirname(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    folders += [
        os.path.join(sys.base_prefix, "lib"),
        os.path.join(sys.base_prefix, "lib64"),
        sys.base_prefix,
        os.path.join(os.path.dirname(executable), "lib"),
        config("LIBPL"),
    ]
    return _unique(folders)


def open_library(path: str) -> str:
    """Open a library as the VM will, and return what is wrong with it, or nothing."""
    import ctypes

    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        get_version = library.Py_GetVersion
    except (OSError, AttributeError) as error:
        return str(error)
    get_version.restype = ctypes.c_char_p
    found = get_version().decode("ascii", "replace").split()[0]
    wanted = platform.python_version()
    return "" if found == wanted else f"it is of Python {found}, not {wanted}"


def find_library() -> tuple:
    """Return the first library that opens, and what was wrong with the others."""
    failures = []
    for folder in library_folders():
        for name in library_names():
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                continue
            try:
                problem = open_library(path)
            except ImportError:
                return None, [[path, "this Python was built without ctypes (libffi)"]]
            if not problem:
                return path, failures
            failures.append([path, problem])
    return None, failures


def main() -> None:
    """Print the answers."""
    wanted_version = (3, 10) <= sys.version_info[:2] <= (3, 14)
    libpython, failures = find_library() if wanted_version else (None, [])
    answers = {
        "version": list(sys.version_info[:3]),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "base_executable": getattr(sys, "_base_executable", None) or sys.executable,
        "bits": struct.calcsize("P") * 8,
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "machine": platform.machine(),
        "build_platform": sysconfig.get_platform(),
        "musl": "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""),
        "shared": bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
        or bool(sysconfig.get_config_var("PYTHONFRAMEWORK")),
        "system": sys.base_prefix == "/usr",
        "libpython": libpython and os.path.abspath(libpython),
        "failures": failures,
    }
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
