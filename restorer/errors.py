"""Errors a user can act on. The command line prints their one line and exits with status 2."""

import errno

# Of an OSError that is no bug: no room, no permission, a broken disk.
DISK_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class RestorerError(Exception):
    """Base of every error this package raises on purpose: wrong value, what is allowed, what to do next."""


class AudioFileError(RestorerError):
    """An audio file cannot be read or written."""


class ModelError(RestorerError):
    """A model file is missing, damaged, foreign, or of a format this version does not know."""


class DeviceError(RestorerError):
    """The requested device or its runtime is not available."""


class ConfigError(RestorerError):
    """A setting has an unknown name or an impossible value."""
