"""Pictures: folders of them, splits, transforms, the loader, and the named data sets."""

from __future__ import annotations

from minialex.data.audit import BadImage
from minialex.data.disk_cache import DiskCache
from minialex.data.folder import Dataset, ImageFolder, equal_files
from minialex.data.images import load_image
from minialex.data.loader import Batch, Loader
from minialex.data.picture_cache import MemoryCache, PictureCache, memory_budget, parse_bytes
from minialex.data.sources import open_dataset
from minialex.data.split import Split, parse_fractions, stratified_split, subset
from minialex.data.transforms import (
    CenterCrop,
    Compose,
    Greyscale,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    transform_from_config,
)

__all__ = [
    "BadImage",
    "Batch",
    "CenterCrop",
    "Compose",
    "Dataset",
    "DiskCache",
    "Greyscale",
    "ImageFolder",
    "Loader",
    "MemoryCache",
    "Normalize",
    "PictureCache",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Split",
    "Transform",
    "equal_files",
    "load_image",
    "memory_budget",
    "open_dataset",
    "parse_bytes",
    "parse_fractions",
    "stratified_split",
    "subset",
    "transform_from_config",
]
