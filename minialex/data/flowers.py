"""TensorFlow's flower photographs: 3,670 in five classes, the data of the course that many begin with.

Source: https://www.tensorflow.org/datasets/catalog/tf_flowers (the photographers' licences: CC-BY, listed in
the archive's LICENSE.txt). Size and SHA-256 as TensorFlow Datasets records them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minialex.data.download import Progress, alone, extract, fetch
from minialex.errors import DataError

__all__ = ["FOLDER", "fetch_flowers"]

URL = "http://download.tensorflow.org/example_images/flower_photos.tgz"
SIZE = 228_813_984
SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"
FOLDER = "flower_photos"


def fetch_flowers(
    cache: Path,
    say: Callable[[str], None],
    progress: Progress | None = None,
    *,
    url: str = URL,
    size: int = SIZE,
    sha256: str = SHA256,
) -> Path:
    """Download the photographs into the cache and unpack them; the folder that holds the classes.

    Raises: DownloadError if the network or the server fails; DataError for anything else.
    """
    archive, folder = cache / f"{FOLDER}.tgz", cache / FOLDER
    say(f"Downloading {url} ({size / 1e6:.0f} MB) into {cache}.")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            if not folder.is_dir():  # else another process has just made it
                fetch(url, archive, size=size, sha256=sha256, progress=progress)
                extract(archive, folder, top=FOLDER)
                archive.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{cache} cannot be used as a cache: {error}. Set MINIALEX_CACHE to another folder."
        ) from error
    return folder
