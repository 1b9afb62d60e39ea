"""This is where a picture that is not taken gets the service's own text (wire reference 3.4, 5.3; help-centre page of 2025-12-26)."""

from qwenbox.terms.errors import ApiError, ErrorKind

WRONG_URL = "The provided URL does not appear to be valid. Ensure it is correctly formatted."
# One text for all addresses that are not fetched from, and for names that nobody knows: it tells nothing about the network inside.
NOT_FETCHED = (
    f"{WRONG_URL} Pictures come from public http and https addresses, and from others only if [media] allow of this box lists them."
)
FAILED = "Failed to download multimodal content."
TIMED_OUT = "Download the media resource timed out during the data inspection process."
# Worded as its siblings are; the wire reference does not list one for this.
NOT_DECODED = "Failed to decode the image during the data inspection process."
TOO_MANY = "A request may have {limit} pictures, frames included ([media] request_pictures of this box)."
TOO_LARGE = "Multimodal file size is too large"
# The stray quote is the service's.
DATA_TOO_LARGE = "Exceeded limit on max bytes per data-uri item : {limit_bytes}'."
WRONG_SIZE = "The image length and width do not meet the model restrictions."
# What follows it then (a caller's report of 2026-03).
TOO_SMALL = "[height:{height} or width:{width} must be larger than 10]"
# So is the spelling.
WRONG_FRAMES = "The video modality input does not meet the requirements because: the range of sequence images shoule be (4, 512)."


def refused(text: str) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, text, param="messages")


def again(error: ApiError) -> ApiError:
    """The same error, without what led to it."""
    return ApiError(error.kind, error.message, param=error.param, retry_after_s=error.retry_after_s)
