"""An object of storage as a file that is read in ranges, all of one version."""

import io
from typing import Any

from deid.shards import storage

BUFFER = 8 << 20  # bytes read at once


class Ranged(io.RawIOBase):
    """Raises ObjectChanged (from any read) where the object is not the one that was listed."""

    def __init__(self, file: storage.Object) -> None:
        self.file, self.position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.file.size}[whence]
        self.position = start + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self.file.size - self.position))
        if length:
            buffer[:length] = storage.read_range(self.file.uri, self.position, length, self.file.version)
        self.position += length
        return length


def buffered(file: storage.Object) -> io.BufferedReader:
    """The same with read-ahead, for reading from front to back."""
    return io.BufferedReader(Ranged(file), BUFFER)
