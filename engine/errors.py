"""Errors that arcforge raises on purpose.

Which one to raise: the class says whose input is at fault (a catalogue, a host, a configuration, a store,
an audited data set, a PSF), the message is ONE line that names what, where (file, row, column, value) and the
way out. Each class also is the builtin that a caller would expect, so ``except ValueError`` keeps working.
Anything else that escapes is a bug of ours.
"""


class ArcforgeError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line."""


class ConfigError(ArcforgeError, ValueError):
    """A configuration file or value is wrong."""


class CatalogError(ArcforgeError, ValueError):
    """A catalogue misses a column or holds a value that cannot be rendered; names row and column."""


class HostError(ArcforgeError, ValueError):
    """A host cutout cannot be read or used; names the file.

    ``reason`` is the kind of fault in a word or two, by which refused hosts are counted.
    """

    def __init__(self, message: str = "", reason: str = "unusable") -> None:
        super().__init__(message)
        self.reason = reason


class PsfError(ArcforgeError, ValueError):
    """A PSF has a wrong shape, width or normalisation."""


class SourceError(ArcforgeError, ValueError):
    """A source image or a bank of them cannot be used; names it."""


class RenderError(ArcforgeError, ValueError):
    """A rendering option is wrong (stamp size, tolerance, variant)."""


class AuditInputError(ArcforgeError, ValueError):
    """A data set given to the audit cannot be read; names file and row."""


class ImportSourceError(ArcforgeError, ValueError):
    """Data to import cannot be read as what they should be; names file, column or row."""


class StoreError(ArcforgeError, OSError):
    """A store is unreadable, incomplete, corrupt or in the way; names the path."""


class StoreExistsError(StoreError, FileExistsError):
    """The output exists already."""


class StoreCorruptError(StoreError):
    """A store's bytes differ from what was committed."""
