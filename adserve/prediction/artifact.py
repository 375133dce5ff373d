"""A trained model on disk: model.npz (weights) and model.json (what it is, how good, and the checksum of the other)."""

import hashlib
import os
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from adserve.prediction.features import BUCKETS, SCHEMA, Indexes, Numbers
from adserve.prediction.model import Model

FORMAT = "adserve-click-model/1"
WEIGHTS_NAME = "model.npz"
HEADER_NAME = "model.json"
FILE_BYTES_MAX = 64_000_000
WEIGHT_MAX = 100.0
"""Regularised weights are far smaller; a larger one says that something went wrong."""


_DAMAGE = (
    *(ValueError, KeyError, EOFError, OSError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise for a file that is none of theirs."""


class ArtifactRefused(Exception):
    """The artifact cannot be used; the message says why, for an operator to read."""


class Training(Struct, frozen=True):
    """Where a model comes from and what it is worth. Times are RFC 3339; metrics are of rows it never saw."""

    trained_at: str
    first_at: str
    last_at: str
    rows: int
    clicks: int
    regularisation: float
    metrics: dict[str, float]


class Header(Struct, frozen=True):
    format: str
    features: dict[str, Any]
    weights_sha256: str
    training: Training


def save(folder: Path, indexes: Indexes, weights: Numbers, intercept: float, training: Training) -> Header:
    """Weights first, header last: whoever loads in between finds a wrong checksum, never a mixed model."""
    buffer = BytesIO()
    np.savez_compressed(
        buffer, index=indexes.astype(np.uint32), weight=weights, intercept=np.float64(intercept)
    )
    header = Header(FORMAT, SCHEMA, hashlib.sha256(buffer.getbuffer()).hexdigest(), training)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS_NAME, buffer.getvalue())
    _replace(folder / HEADER_NAME, msgspec.json.format(msgspec.json.encode(header), indent=2))
    return header


def load(folder: Path) -> Model:
    """Raises ArtifactRefused."""
    header = load_header(folder)
    data = _read(folder / WEIGHTS_NAME)
    if hashlib.sha256(data).hexdigest() != header.weights_sha256:
        raise ArtifactRefused(f"{WEIGHTS_NAME} does not have the checksum that {HEADER_NAME} names")
    weights, intercept = _unpack(data)
    return Model(f"lr-{header.weights_sha256[:8]}", weights, intercept)


def load_header(folder: Path) -> Header:
    """Raises ArtifactRefused."""
    try:
        header = msgspec.json.decode(_read(folder / HEADER_NAME), type=Header)
    except (ValueError, RecursionError) as error:
        raise ArtifactRefused(f"{HEADER_NAME} is damaged: {error}") from error
    if header.format != FORMAT:
        raise ArtifactRefused(f"format is {header.format!r}, not {FORMAT!r}")
    if header.features != SCHEMA:
        raise ArtifactRefused("it was trained with other features: train it again")
    return header


def _unpack(data: bytes) -> tuple[Numbers, float]:
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            indexes, values, intercept = arrays["index"], arrays["weight"], arrays["intercept"]
    except _DAMAGE as error:
        raise ArtifactRefused(f"{WEIGHTS_NAME} is damaged: {error}") from error
    if (indexes.dtype, values.dtype, intercept.dtype) != (np.uint32, np.float64, np.float64):
        raise ArtifactRefused(f"{WEIGHTS_NAME} holds numbers of other types")
    if indexes.ndim != 1 or indexes.shape != values.shape or intercept.ndim or np.any(indexes >= BUCKETS):
        raise ArtifactRefused(f"{WEIGHTS_NAME} holds arrays of other shapes")
    # Written so that NaN fails too.
    if not (np.all(np.abs(values) <= WEIGHT_MAX) and abs(intercept) <= WEIGHT_MAX):
        raise ArtifactRefused(f"a weight is not a number of at most {WEIGHT_MAX:g}")
    weights = np.zeros(BUCKETS)
    weights[indexes] = values
    return weights, float(intercept)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ArtifactRefused(f"{path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ArtifactRefused(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(path.suffix + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
