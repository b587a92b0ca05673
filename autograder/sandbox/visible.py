"""What the sandbox shows of this machine's files: Python, its packages and the students' library. Runs outside.

It is a list of what is needed, not of what is hidden. Of `/usr`, of a home directory and of the course folder, only the
folders named here are visible, read-only, at their own places.
"""

import os
import re
import site
import sys
import sysconfig
from pathlib import Path, PurePath

import ebmcourse

LIBRARY = Path(ebmcourse.__file__).resolve().parent


def needed_paths() -> list[Path]:
    """The files and folders that a process of this Python must be able to read."""
    base = {"installed_base": sys.base_prefix, "base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    paths = [Path(sys.executable), Path(sys.prefix, "pyvenv.cfg"), LIBRARY]
    paths += [Path(sysconfig.get_path(name, vars=base)) for name in ("stdlib", "platstdlib")]
    paths += map(Path, site.getsitepackages())
    # In a conda environment, the shared objects of packages are in `lib`.
    paths += [Path(prefix, "lib") for prefix in (sys.prefix, sys.base_prefix) if Path(prefix, "conda-meta").is_dir()]
    paths += _shared_objects()
    return [path for path in dict.fromkeys(paths) if path.exists()]


def _shared_objects() -> list[Path]:
    """The dynamic loader, the folders of the C library, and what this process has loaded (libpython, for example)."""
    loaded = [Path(name) for name in re.findall(r"/.*\.so\b.*", Path("/proc/self/maps").read_text())]
    folders = [file.parent for file in loaded if re.match(r"libc[.-]|ld-musl", file.name)]
    twins = [Path("/usr", *folder.parts[1:]) for folder in folders]
    twins += [Path("/", *folder.parts[2:]) for folder in folders if folder.parts[1] == "usr"]
    loaders = sorted(Path("/").glob("lib*/ld-*.so*"))
    return [*folders, *twins, *loaders, *loaded, Path("/etc/ld.so.cache")]


def resolve(paths: list[Path]) -> tuple[dict[Path, str], list[Path]]:
    """The symbolic links on the way to `paths`, and the files and folders, without links, that they lead to.

    What is in another folder of the list is not listed again.
    """
    links: dict[Path, str] = {}
    targets = set()
    for path in paths:
        place, parts = Path("/"), list(Path(os.path.abspath(path)).parts[1:])
        while parts:
            part = parts.pop(0)
            if part == "..":
                place = place.parent
            elif (place / part).is_symlink():
                links[place / part] = os.readlink(place / part)
                target = PurePath(links[place / part])
                place = Path("/") if target.is_absolute() else place
                parts = [*target.parts[target.is_absolute() :], *parts]
            else:
                place = place / part
        targets.add(place)
    outermost = sorted(target for target in targets if not targets & set(target.parents))
    return {link: to for link, to in links.items() if not set(outermost) & set(link.parents)}, outermost


def bind_arguments(paths: list[Path]) -> list[str]:
    """The arguments of bubblewrap that show these files and folders at their own places, read-only."""
    links, targets = resolve(paths)
    parents = {parent for path in (*links, *targets) for parent in path.parents[:-1]}
    arguments: list[str] = []
    for parent in sorted(parents):
        arguments += ["--perms", "0755", "--dir", str(parent)]  # so that every user may pass
    for link, to in links.items():
        arguments += ["--symlink", to, str(link)]
    for target in targets:
        arguments += ["--ro-bind", str(target), str(target)]
    return arguments


def needed_below(folder: Path) -> dict[str, str]:
    """What is needed below `folder`: path -> where it leads if it is a symbolic link, else an empty text."""
    links, targets = resolve(needed_paths())
    needed = {str(target): "" for target in targets} | {str(link): to for link, to in links.items()}
    return {path: to for path, to in needed.items() if Path(path).is_relative_to(folder)}
