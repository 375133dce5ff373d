"""What becomes of an upload: a rendition, or the reason why there is none. And the bounds that make ads of media."""

from enum import StrEnum

from msgspec import Struct

IMAGE_SIDE_MAX = 4_096
"""What a phone's camera or a designer's tool makes; four such pictures at once still fit in the sandbox's memory."""
SERVED_SIDE_MAX = 1_920
"""No phone's screen shows more of a picture between two posts. A video cannot be scaled without encoding it anew."""
FRAMES_MAX = 500
FRAMES_PIXELS_MAX = 64_000_000
"""Of all frames of an animation together: 30 of 1,080 x 1,920. They are held in memory at once."""
SECONDS_MAX = 60
"""A post between posts that lasts longer is skipped; and decoding it would take minutes."""


class Rendition(Struct, frozen=True):
    """`width` and `height` are as it is shown: turned, and with square pixels."""

    content_type: str
    width: int
    height: int


class Reason(StrEnum):
    NO_IMAGE = "is not an image that can be decoded: JPEG, PNG, WebP or GIF"
    NO_VIDEO = "is not a video that can be decoded: MP4 with H.264, H.265, VP9 or AV1"
    IMAGE_SIDES = f"has a side of more than {IMAGE_SIDE_MAX:,} pixels"
    VIDEO_SIDES = f"has a side of more than {SERVED_SIDE_MAX:,} pixels"
    FRAMES = f"has more than {FRAMES_MAX:,} frames, or {FRAMES_PIXELS_MAX:,} pixels in all of them together"
    LONG = f"lasts longer than {SECONDS_MAX} s"
    SIZES = "changes its size"
    SOUND = "has sound that is neither AAC nor MP3 nor Opus"
    LARGE = "is larger than an upload may be, once encoded anew"
    MEMORY = "takes too much memory to decode"
    SLOW = "takes too long to decode"
    FATAL = "cannot be decoded: its decoder failed"


class MediaRefused(Exception):
    """The upload's bytes are not what an ad can show."""

    field = "media"

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class NoRoom(Exception):
    """The disk is full: that is not the upload's fault."""
