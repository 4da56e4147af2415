"""Failures in three kinds (bad input, retryable, bug), each with the exit code that the command ends with.

Exit codes: 0 done; 1 a bug of ours; 2 the configuration or the command line; 3 a model or the gallery;
4 the input; 5 storage or the cluster, worth trying again; 6 the run ended, but something it promises does not hold.
"""


class DeidError(Exception):
    """One clear line for the user: what, where, what to do. Never a source key, path or embedding of a face."""

    exit_code = 1


class ConfigError(DeidError):
    """A setting is missing, unknown or contradictory."""

    exit_code = 2


class ModelError(DeidError):
    """A model or the gallery is missing, damaged, not the expected one, or its licence is not accepted."""

    exit_code = 3


class InputError(DeidError):
    """The source as a whole cannot be used: nothing there, not readable, not shards."""

    exit_code = 4


class StorageError(DeidError):
    """Storage or the cluster did not answer, after the retries; worth trying again."""

    exit_code = 5


class PromiseError(DeidError):
    """The run ended, but a promise does not hold: counts do not balance, or too much was quarantined."""

    exit_code = 6


class NothingNew(DeidError):
    """There is nothing to do, and that is no failure."""

    exit_code = 0


class PictureError(Exception):
    """One picture cannot be processed; it is quarantined under the closed code `reason` (`records.QUARANTINE`)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FaceError(Exception):
    """One face cannot be replaced; it is covered under the closed code `reason` (`records.COVER`)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
