"""What becomes of images, rendered without the sandbox: nothing here is foreign."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from pictures import FORMATS, animated, drawn, encoded, opened, pixels
from PIL import Image, ImageCms

from adserve.creatives import images
from adserve.creatives.verdicts import (
    FRAMES_MAX,
    IMAGE_SIDE_MAX,
    SECONDS_MAX,
    SERVED_SIDE_MAX,
    MediaRefused,
    Reason,
    Rendition,
)

ORIENTATION, MAKE, GPS = 0x0112, 0x010F, 0x8825
SECRETS = (b"hidden camera", b"hidden comment", b"hidden archive", b"<script>")
ANIMATED = ("PNG", "WEBP", "GIF")


def rendered(data: bytes) -> tuple[Rendition, bytes]:
    target = io.BytesIO()
    return images.render(io.BytesIO(data), target), target.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION], made[MAKE] = orientation, "hidden camera"
    made.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0)})
    return made


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("hidden archive.html", "<script>alert(1)</script>")
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_left_but_the_picture(form: str) -> None:
    hiding: dict[str, Any] = {"comment": b"hidden comment"} if form in ("JPEG", "GIF") else {}
    hiding |= {"exif": exif().tobytes()} if form != "GIF" else {}
    data = encoded(drawn(), form, **hiding) + archive()
    hidden = [secret for secret in SECRETS if secret in data]
    assert len(hidden) >= 3  # the control: the upload has them
    assert zipfile.is_zipfile(io.BytesIO(data))
    made, served = rendered(data)
    assert (made.width, made.height) == (60, 40)
    assert [secret for secret in hidden if secret in served] == []
    assert not zipfile.is_zipfile(io.BytesIO(served))
    image = opened(served)
    assert not dict(image.getexif())
    assert not set(image.info) & {"exif", "comment", "icc_profile", "xmp", "XML:com.adobe.xmp"}
    assert np.abs(pixels(image) - pixels(drawn())).mean() < 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(form: str, orientation: int) -> None:
    upright = drawn()
    back = {None: None, **{turn: turn for turn in images._TURNS.values()}}
    back[Image.Transpose.ROTATE_90] = Image.Transpose.ROTATE_270
    back[Image.Transpose.ROTATE_270] = Image.Transpose.ROTATE_90
    turn = back[images._TURNS.get(orientation)]
    lying = upright if turn is None else upright.transpose(turn)
    made, served = rendered(encoded(lying, form, exif=exif(orientation).tobytes()))
    assert (made.width, made.height) == opened(served).size == (60, 40)
    assert np.abs(pixels(opened(served)) - pixels(upright)).mean() < 6


@pytest.mark.parametrize("form", ANIMATED)
def test_an_animation_stays_one(form: str) -> None:
    data = animated(form, frames=4, duration_ms=80)
    _, served = rendered(data)
    before, after = opened(data), opened(served)
    assert (after.n_frames, after.info["loop"]) == (4, 0)  # type: ignore[attr-defined]  # of its plugin
    for number in range(4):
        before.seek(number)
        after.seek(number)
        after.load()
        assert after.info["duration"] == 80
        assert np.abs(pixels(before) - pixels(after)).mean() < 4
    assert opened(rendered(encoded(drawn(), form))[1]).format == form  # the control: one frame


def test_a_gif_keeps_its_colours_and_its_holes() -> None:
    frames = [drawn(shift=10 * number).convert("RGBA") for number in range(3)]
    for frame in frames:
        frame.paste((0, 0, 0, 0), (5, 5, 25, 25))
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50, disposal=2)
    _, served = rendered(file.getvalue())
    before, after = opened(file.getvalue()), opened(served)
    for number in range(3):
        before.seek(number)
        after.seek(number)
        wanted, seen = pixels(before), pixels(after)
        assert 0 < (wanted[..., 3] == 0).sum() < wanted[..., 3].size
        assert (seen[..., 3] == wanted[..., 3]).all()
        assert (seen[..., :3] == wanted[..., :3])[wanted[..., 3] > 0].all()
    assert "loop" not in after.info  # it plays once, as it did


@pytest.mark.parametrize("form", FORMATS)
def test_a_large_picture_is_scaled_to_what_is_shown(form: str) -> None:
    made, served = rendered(encoded(drawn(IMAGE_SIDE_MAX, 100), form))
    assert (made.width, made.height) == opened(served).size == (SERVED_SIDE_MAX, 47)
    assert rendered(encoded(drawn(SERVED_SIDE_MAX, 100), form))[0].height == 100


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_upload_is_the_same_rendition(form: str) -> None:
    data = encoded(drawn(), form)
    assert rendered(data) == rendered(data)
    assert rendered(encoded(drawn(shift=5), form))[1] != rendered(data)[1]


@pytest.mark.parametrize(
    ("image", "form", "mode"),
    [
        (drawn().convert("CMYK"), "JPEG", "RGB"),
        (drawn().convert("L"), "JPEG", "L"),
        (drawn().convert("1"), "PNG", "L"),
        (drawn().convert("P"), "PNG", "RGB"),
        (drawn().convert("LA"), "PNG", "RGBA"),
    ],
)
def test_every_mode_becomes_one_that_browsers_show_alike(image: Image.Image, form: str, mode: str) -> None:
    _, served = rendered(encoded(image, form))
    assert opened(served).mode == mode
    assert np.abs(pixels(opened(served)) - pixels(image)).mean() < 8


def test_sixteen_bits_become_eight_not_white() -> None:
    deep = np.mgrid[0:16, 0:256][1].astype(np.uint16) * 256
    _, served = rendered(encoded(Image.fromarray(deep), "PNG"))
    assert (np.asarray(opened(served)) == np.mgrid[0:16, 0:256][1]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_brought_to_srgb(mode: str) -> None:
    """A profile that brightens all is obeyed, and goes; sRGB's own, and one that does not fit, change nothing."""
    gamma, low = b"\x00\x02\x66\x66", b"\x00\x01\x40\x00"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert gamma in srgb
    for profile, brighter in ((srgb.replace(gamma, low), 43), (srgb, 0), (lab, 0), (b"no profile", 0)):
        _, served = rendered(encoded(drawn().convert(mode), "PNG", icc_profile=profile))
        change = (pixels(opened(served)) - pixels(drawn()))[..., :3]
        assert abs(change.mean() - brighter) < 1
        assert opened(served).mode == mode
        assert "icc_profile" not in opened(served).info


def test_what_lies_behind_the_first_picture_of_a_phone_goes() -> None:
    """An MPO: a JPEG with another behind it."""
    file = io.BytesIO()
    drawn().save(file, "MPO", save_all=True, append_images=[drawn(30, 20)])
    assert opened(file.getvalue()).n_frames == 2  # type: ignore[attr-defined]  # of its plugin
    made, served = rendered(file.getvalue())
    assert (made.content_type, made.width) == ("image/jpeg", 60)
    assert opened(served).format == "JPEG"
    assert served.count(b"\xff\xd8\xff") == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(drawn(IMAGE_SIDE_MAX + 1, 1), "PNG"), Reason.IMAGE_SIDES),
        (animated("GIF", frames=FRAMES_MAX + 1), Reason.FRAMES),
        (animated("GIF", frames=2, duration_ms=SECONDS_MAX * 500 + 10), Reason.LONG),
    ],
)
def test_what_is_no_ad_is_refused_with_its_reason(data: bytes, reason: Reason) -> None:
    with pytest.raises(MediaRefused) as refused:
        rendered(data)
    assert refused.value.reason is reason


def test_what_just_fits_is_taken() -> None:
    """The control of the refusals."""
    assert rendered(encoded(drawn(IMAGE_SIDE_MAX, 1), "PNG"))[0].width == SERVED_SIDE_MAX
    assert rendered(animated("GIF", frames=2, duration_ms=SECONDS_MAX * 500))[0].width == 60


def test_frames_are_bounded_by_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "FRAMES_PIXELS_MAX", 4 * 60 * 40)
    assert rendered(animated("WEBP", frames=4))[0].width == 60
    with pytest.raises(MediaRefused) as refused:
        rendered(animated("WEBP", frames=5))
    assert refused.value.reason is Reason.FRAMES
