"""Videos, decoded and muxed anew by PyAV. Only the sandbox's child imports this."""

import os
from fractions import Fraction
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, BinaryIO

import av

from adserve.creatives.verdicts import SECONDS_MAX, SERVED_SIDE_MAX, MediaRefused, Reason, Rendition

CONTENT_TYPE = "video/mp4"

_PICTURES = frozenset({"av1", "h264", "hevc", "vp9"})
_SOUNDS = frozenset({"aac", "mp3", "opus"})
"""What phones and browsers play."""
_STILLS = frozenset({"avif", "avis", "heic", "heim", "heis", "heix", "hevc", "hevx", "mif1", "msf1"})
"""Brands of the same box format that are pictures."""
_BITEXACT = {"fflags": "+bitexact", "movflags": "+faststart"}
"""Or the muxer would write its version and the time; and an index at the front, so that it plays before it has all come."""

av.logging.set_level(None)


class _Whole:
    """A file from its beginning, with an offset of its own: to put the index in front, the muxer opens what it has
    written again, and a confined process can open nothing."""

    name = "rendition"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self._at)
            self._at += written
            rest = rest[written:]
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        ends = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._at = ends[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at


def render(source: BinaryIO, target: BinaryIO) -> Rendition:
    """Decodes every frame, and writes the first picture and sound without metadata. Raises MediaRefused, and whatever PyAV
    raises at what is no video."""
    written = target.fileno()
    with av.open(source, "r", format="mp4") as read:
        if not read.streams.video or read.metadata.get("major_brand") in _STILLS:
            raise MediaRefused(Reason.NO_VIDEO)
        video, sounds = read.streams.video[0], read.streams.audio[:1]
        if video.codec.canonical_name not in _PICTURES:
            raise MediaRefused(Reason.NO_VIDEO)
        if any(sound.codec.canonical_name not in _SOUNDS for sound in sounds):
            raise MediaRefused(Reason.SOUND)
        if max(video.width, video.height) > SERVED_SIDE_MAX:
            raise MediaRefused(Reason.VIDEO_SIDES)
        video.codec_context.thread_count = 1  # a confined process can start no thread
        with av.open(
            _Whole(written), "w", format="mp4", options=_BITEXACT, io_open=lambda *_: _Whole(written)
        ) as muxer:
            return _remux(read, muxer, [video, *sounds])


def rehearse() -> None:
    """Imports what PyAV imports when it is needed first: a confined process can import nothing."""
    for module in walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def _remux(read: Any, muxer: Any, streams: list[Any]) -> Rendition:
    """The first stream is the picture."""
    video = streams[0]
    copies = {stream.index: muxer.add_stream_from_template(stream, opaque=True) for stream in streams}
    if video.codec.canonical_name == "hevc":
        copies[video.index].codec_context.codec_tag = "hvc1"  # the only one that Apple's players know
    began: dict[int, Fraction] = {}
    size = None
    for packet in read.demux(streams):
        for frame in packet.decode() if packet.stream is video else ():
            size = size or _size(video, frame)
            if (frame.width, frame.height) != (video.width, video.height):
                raise MediaRefused(Reason.SIZES)
        if packet.dts is None:
            continue  # the end
        at, index = packet.dts * packet.time_base, packet.stream.index
        if at - began.setdefault(index, at) > SECONDS_MAX:
            raise MediaRefused(Reason.LONG)
        packet.stream = copies[index]
        muxer.mux(packet)
    if size is None:
        raise MediaRefused(Reason.NO_VIDEO)
    return Rendition(CONTENT_TYPE, *size)


def _size(video: Any, frame: Any) -> tuple[int, int]:
    """As it is shown: with square pixels, and turned."""
    width, height = max(1, round(frame.width * (video.sample_aspect_ratio or 1))), frame.height
    if width > SERVED_SIDE_MAX:
        raise MediaRefused(Reason.VIDEO_SIDES)
    return (height, width) if frame.rotation % 180 == 90 else (width, height)
