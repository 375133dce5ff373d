"""What becomes of videos, muxed without the sandbox: nothing here is foreign."""

import io
import tempfile
from pathlib import Path

import av
import pytest
from pictures import drawn, encoded, video

from adserve.creatives import videos
from adserve.creatives.verdicts import SECONDS_MAX, SERVED_SIDE_MAX, MediaRefused, Reason, Rendition

SECRETS = (b"hidden title", b"hidden comment", b"loci")


def rendered(data: bytes) -> tuple[Rendition, bytes]:
    with tempfile.TemporaryFile() as target:
        made = videos.render(io.BytesIO(data), target)
        target.seek(0)
        return made, target.read()


def reason(data: bytes) -> Reason:
    with pytest.raises(MediaRefused) as refused:
        rendered(data)
    return refused.value.reason


def packets(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data), format="mp4") as read:
        return [bytes(packet) for packet in read.demux() if packet.size]


def test_a_video_keeps_its_packets_and_loses_the_rest(tmp_path: Path) -> None:
    data = video(tmp_path / "made.mp4", sound="aac") + b"hidden archive"
    assert all(secret in data for secret in SECRETS)  # the control: the upload has them
    assert data.find(b"moov") > data.find(b"mdat")
    made, served = rendered(data)
    assert made == Rendition("video/mp4", 64, 48)
    assert [secret for secret in (*SECRETS, b"hidden archive") if secret in served] == []
    assert sorted(packets(served)) == sorted(packets(data))
    assert 0 < served.find(b"moov") < served.find(b"mdat")
    with av.open(io.BytesIO(served)) as read:
        assert [stream.type for stream in read.streams] == ["video", "audio"]
    assert rendered(data)[1] == served  # the same again


def turned(data: bytes, angle: float) -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as read, av.open(file, "w", format="mp4") as muxer:
        stream = muxer.add_stream_from_template(read.streams.video[0], opaque=True)
        stream.set_display_rotation(angle)
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                muxer.mux(packet)
    return file.getvalue()


def test_a_turned_video_is_as_wide_as_it_is_shown(tmp_path: Path) -> None:
    data = video(tmp_path / "made.mp4")
    for angle, size in ((0, (64, 48)), (90, (48, 64)), (180, (64, 48)), (-90, (48, 64))):
        made, served = rendered(turned(data, angle))
        assert (made.width, made.height) == size
        with av.open(io.BytesIO(served)) as read:
            assert abs(next(read.decode(video=0)).rotation) == abs(angle)


def test_a_long_video_is_refused(tmp_path: Path) -> None:
    assert rendered(video(tmp_path / "fits.mp4", seconds=SECONDS_MAX, size=(16, 16)))[0].width == 16
    assert reason(video(tmp_path / "long.mp4", seconds=SECONDS_MAX + 1, size=(16, 16))) is Reason.LONG


def test_a_large_video_is_refused_as_it_is_not_scaled(tmp_path: Path) -> None:
    assert (
        rendered(video(tmp_path / "fits.mp4", seconds=0.1, size=(SERVED_SIDE_MAX, 16)))[0].width
        == SERVED_SIDE_MAX
    )
    assert (
        reason(video(tmp_path / "large.mp4", seconds=0.1, size=(SERVED_SIDE_MAX + 2, 16)))
        is Reason.VIDEO_SIDES
    )


def test_sound_that_phones_do_not_play_is_refused(tmp_path: Path) -> None:
    assert rendered(video(tmp_path / "mp3.mp4", sound="mp3"))[0].width == 64
    assert reason(video(tmp_path / "ac3.mp4", sound="ac3")) is Reason.SOUND


def test_a_video_that_breaks_off_is_refused(tmp_path: Path) -> None:
    whole = rendered(video(tmp_path / "made.mp4", seconds=3))[1]
    with pytest.raises(av.error.InvalidDataError):
        rendered(whole[: len(whole) * 2 // 3])


def test_pictures_in_the_same_boxes_are_no_videos() -> None:
    """AVIF, as HEIC, is a picture to everybody but the demuxer."""
    assert reason(encoded(drawn(), "AVIF")) is Reason.NO_VIDEO


@pytest.mark.parametrize(
    ("codec", "sent", "served"),
    [("libx265", b"hev1", b"hvc1"), ("libvpx-vp9", b"vp09", b"vp09"), ("mpeg4", b"mp4v", None)],
)
def test_codecs_are_those_that_phones_play(
    tmp_path: Path, codec: str, sent: bytes, served: bytes | None
) -> None:
    data = video(tmp_path / "made.mp4", codec=codec)
    assert sent in data
    if served is None:
        assert reason(data) is Reason.NO_VIDEO
    else:
        assert served in rendered(data)[1]
