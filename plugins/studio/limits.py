"""What one studio gives to whoever uses it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on size, time and number; the page and the errors say the first two in words.

    A session whose page is gone loses its job after `absent_seconds` and its files after `idle_seconds`. An
    upload may pause for `stall_seconds` and last `upload_seconds`; a request's head must arrive within
    `head_seconds`.
    """

    upload_bytes: int = 200_000_000
    audio_seconds: float = 20 * 60.0
    takes: int = 8
    downloads: int = 4
    sessions: int = 16
    uploads: int = 4
    connections: int = 200
    stall_seconds: float = 20.0
    upload_seconds: float = 20 * 60.0
    head_seconds: float = 15.0
    absent_seconds: float = 150.0
    idle_seconds: float = 30 * 60.0
    free_disk_bytes: int = 500_000_000

    @property
    def upload_words(self) -> str:
        """The size limit for people."""
        return f"{self.upload_bytes / 1e6:g} MB"

    @property
    def length_words(self) -> str:
        """The length limit for people."""
        return f"{self.audio_seconds / 60:g} minutes"
