import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adserve.prediction import artifact
from adserve.prediction.artifact import HEADER_NAME, WEIGHTS_NAME, ArtifactRefused
from adserve.prediction.rates import load_or_prior

COUNTS = {7: (1_000, 30)}


def rewrite_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header = json.loads((folder / HEADER_NAME).read_text())
    change(header)
    (folder / HEADER_NAME).write_text(json.dumps(header))


def replace_weights(folder: Path, **arrays: Any) -> None:
    """Other weights, under a checksum that is right for them."""
    sound = {"index": np.array([1], np.uint32), "weight": np.array([0.5]), "intercept": np.float64(0)}
    buffer = BytesIO()
    np.savez(buffer, **{name: array for name, array in (sound | arrays).items() if array is not None})
    (folder / WEIGHTS_NAME).write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    rewrite_header(folder, lambda header: header.update(weights_sha256=digest))


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS_NAME).unlink(), "No such file"),
    "no header": (lambda folder: (folder / HEADER_NAME).unlink(), "No such file"),
    "a flipped bit": (flip_a_bit, "checksum"),
    "cut weights": (lambda folder: (folder / WEIGHTS_NAME).write_bytes(b"PK"), "checksum"),
    "header is no JSON": (lambda folder: (folder / HEADER_NAME).write_text("{"), "damaged"),
    "header is not UTF-8": (
        lambda folder: (folder / HEADER_NAME).write_bytes(b'{"format": "\xff"}'),
        "damaged",
    ),
    "header lacks a part": (lambda folder: rewrite_header(folder, lambda h: h.pop("training")), "training"),
    "another format": (lambda folder: rewrite_header(folder, lambda h: h.update(format="x/9")), "format"),
    "another hash seed": (
        lambda folder: rewrite_header(folder, lambda h: h["features"].update(hash_seed=1)),
        "other features",
    ),
    "not an archive": (
        lambda folder: (
            (folder / WEIGHTS_NAME).write_bytes(b"PK"),
            rewrite_header(folder, lambda h: h.update(weights_sha256=hashlib.sha256(b"PK").hexdigest())),
        ),
        "damaged",
    ),
    "a pickle": (lambda folder: replace_weights(folder, weight=np.array([object()])), "damaged"),
    "an array is missing": (lambda folder: replace_weights(folder, weight=None), "damaged"),
    "other types": (lambda folder: replace_weights(folder, index=np.array([1.5])), "types"),
    "other shapes": (lambda folder: replace_weights(folder, weight=np.array([0.5, 0.5])), "shapes"),
    "an index too far": (
        lambda folder: replace_weights(folder, index=np.array([2**18], np.uint32)),
        "shapes",
    ),
    "not a number": (lambda folder: replace_weights(folder, weight=np.array([np.nan])), "not a number"),
    "an infinite intercept": (
        lambda folder: replace_weights(folder, intercept=np.float64(np.inf)),
        "not a number",
    ),
}


def test_a_sound_artifact_is_served(folder: Path) -> None:
    rates, reason = load_or_prior(folder, COUNTS)
    header = artifact.load_header(folder)
    assert reason is None
    assert rates.name == f"lr-{header.weights_sha256[:8]}"
    assert header.training.rows == 1_000


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_an_unusable_artifact_gives_the_prior_and_says_why(
    folder: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(folder)
    rates, said = load_or_prior(folder, COUNTS)
    assert rates.name == "prior"
    assert said is not None
    assert reason in said


@pytest.mark.filterwarnings("ignore")  # numpy and zipfile warn of some
def test_whatever_byte_is_damaged_under_a_checksum_that_is_right_nothing_else_is_raised(folder: Path) -> None:
    sound, refused = (folder / WEIGHTS_NAME).read_bytes(), 0
    for place, flip in product(range(len(sound)), (0x01, 0x10, 0xFF)):
        data = bytearray(sound)
        data[place] ^= flip
        try:
            artifact._unpack(bytes(data))
        except ArtifactRefused:
            refused += 1
    assert refused > len(sound)


def test_sound_weights_of_another_model_are_refused_by_checksum_alone(folder: Path) -> None:
    header = (folder / HEADER_NAME).read_bytes()
    replace_weights(folder)
    (folder / HEADER_NAME).write_bytes(header)
    with pytest.raises(ArtifactRefused, match="checksum"):
        artifact.load(folder)


def test_control_without_the_checksum_those_weights_would_be_served(folder: Path) -> None:
    replace_weights(folder)
    artifact._unpack((folder / WEIGHTS_NAME).read_bytes())


def test_no_configured_model_is_a_reason_too() -> None:
    rates, reason = load_or_prior(None, COUNTS)
    assert (rates.name, reason) == ("prior", "no model is configured")


def test_saving_again_replaces_the_model(folder: Path) -> None:
    before = artifact.load(folder).name
    training = artifact.load_header(folder).training
    artifact.save(folder, np.array([5]), np.array([0.1]), 0.0, training)
    assert artifact.load(folder).name != before
    assert sorted(path.name for path in folder.iterdir()) == [HEADER_NAME, WEIGHTS_NAME]
