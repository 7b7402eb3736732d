"""The map of the engine in its docstring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backpropagate.training import engine


def named(docstring: str) -> Iterator[str]:
    """Each file and folder that the map names, as `file` or `folder/` or `folder/file`."""
    folder = ""
    for line in docstring.splitlines()[2:]:
        name = line.split()[0] if line.strip() else ""
        if not name:
            continue
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            yield name
        else:
            yield folder + name


def found(root: Path) -> Iterator[str]:
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if path.name != "__init__.py":
            yield inside.with_suffix("").as_posix()
        elif inside.parent != Path("."):
            yield f"{inside.parent.as_posix()}/"


def test_the_map_names_every_file_and_folder_and_nothing_else() -> None:
    names = list(named(engine.__doc__ or ""))
    assert sorted(names) == sorted(found(Path(str(engine.__file__)).parent))
