"""Pictures: folders of them, splits, transforms, the loader, and the named data sets."""

from __future__ import annotations

from minialex.data.audit import BadImage
from minialex.data.disk_cache import DiskCache
from minialex.data.folder import Dataset, ImageFolder, equal_files
from minialex.data.images import load_image
from minialex.data.loader import Batch, Loader
from minialex.data.picture_cache import MemoryCache, PictureCache, memory_budget, parse_bytes
from minialex.data.sources import NAMED_DATA, open_dataset
from minialex.data.split import Split, divide, parse_fractions, stratified_split, subset
from minialex.data.statistics import Statistics, picture_statistics, principal_components
from minialex.data.transforms import (
    CenterCrop,
    Compose,
    Greyscale,
    Normalize,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    transform_from_config,
)

__all__ = [
    "NAMED_DATA",
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
    "PCAJitter",
    "PictureCache",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Split",
    "Statistics",
    "Transform",
    "divide",
    "equal_files",
    "load_image",
    "memory_budget",
    "open_dataset",
    "parse_bytes",
    "parse_fractions",
    "picture_statistics",
    "principal_components",
    "stratified_split",
    "subset",
    "transform_from_config",
]
