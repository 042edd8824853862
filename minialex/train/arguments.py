"""What stands on a command line: paths of checkpoints and pictures."""

from __future__ import annotations

from pathlib import Path

from minialex.data.images import OTHER_PICTURE_SUFFIXES, SUFFIXES
from minialex.errors import DataError, UsageError


def refuse_swapped(checkpoint: Path) -> None:
    """Raises: UsageError if the path of a picture stands where that of the checkpoint is expected."""
    if checkpoint.suffix.lower() in SUFFIXES | OTHER_PICTURE_SUFFIXES and not checkpoint.is_dir():
        raise UsageError(
            f"{checkpoint} is a picture; the checkpoint comes first: "
            "minialex predict best.safetensors photo.jpg"
        )


def picture_files(paths: list[Path]) -> list[Path]:
    """The files named, and the pictures in the folders named, in the order of their names.

    Raises: DataError for a path that is not there, or a folder without pictures.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no picture or folder {path}; check the path")
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(
            f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")
        )
        if not inside:
            raise DataError(f"the folder {path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        files += inside
    return files
