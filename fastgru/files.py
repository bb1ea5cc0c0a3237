"""Where files live and how they are written: whole or not at all."""

import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl


def write_atomically(path: str | os.PathLike[str], data: bytes, name: str = "path") -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take the
    name of the file in one step. A symbolic link is followed, as plain writing does. Temporary
    files that processes left which were killed while they wrote the same file are removed.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write or to replace. Its folder must exist.
    data : bytes
        The whole content.
    name : str
        What errors call the path.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If there is a folder of that name.
    OSError
        If the file cannot be written; the old file and nothing else is then in the folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "greeting.txt"), b"hello")
    ...     Path(folder, "greeting.txt").read_text()
    'hello'
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    if target.is_dir():
        raise IsADirectoryError(
            f"{name}: expected that of a file, given the folder {os.fspath(path)!r}."
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name}: expected one in an existing folder, given {os.fspath(path)!r}."
        )
    remove_leftovers(target)
    with _temporary(target) as temporary:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    # The new name is safe only once the folder is. Windows and some network file systems cannot
    # do this; the file is complete there all the same.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def path_of(name: str, value: Any) -> str:
    """Return a path as text.

    Parameters
    ----------
    name : str
        What errors call it.
    value : str or os.PathLike
        The path.

    Raises
    ------
    TypeError
        If it is something else, such as an integer, which `open` takes for an open file.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a str or an os.PathLike, given {value!r}")
    return os.fspath(value)


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Make an empty file beside another one, which is no leftover before the end of the block.

    If the block fails, the file is removed.
    """
    while True:
        # Not tempfile: its files are readable by their owner only, and the new file would stay so.
        temporary = target.parent / f"{_prefix(target)}{secrets.token_hex(8)}.tmp"
        try:
            with open(temporary, "xb") as file:
                if not _lock(file, wait=True):
                    file.close()  # Windows lets nobody write or rename an open file
                elif not temporary.exists():  # taken for a leftover before it was locked
                    continue
                yield temporary
                return
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what `write_atomically` left where its process was killed while it wrote.

    What a process is writing now stays: it holds a lock, which ends with the process. Where there
    are no such locks, as on Windows, everything stays.

    Parameters
    ----------
    path : str or os.PathLike
        The file that was to be written.
    """
    target = Path(os.path.realpath(path))
    for temporary in target.parent.glob(f"{_prefix(target)}*.tmp"):
        with suppress(OSError):  # it has its name by now, or is not ours to touch
            with open(temporary, "r+b") as file:
                if _lock(file, wait=False):
                    temporary.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    """Return how the names of a file's temporary files begin: short, however long its own is."""
    return f".fastgru-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def _lock(file: IO[bytes], wait: bool) -> bool:
    """Lock an open file until it is closed, and return whether it is locked.

    If another process has the lock, wait for it, or give up.
    """
    if sys.platform != "win32":
        with suppress(OSError):  # somebody else has, or there are no locks in this file system
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def cache_directory() -> Path:
    """Return the folder for what can be fetched or made again; it need not exist yet.

    It is ``$FASTGRU_CACHE_DIR`` if that is set, else ``$XDG_CACHE_HOME/fastgru``, else
    ``~/.cache/fastgru``, on every system.

    Returns
    -------
    pathlib.Path
        An absolute path.

    Raises
    ------
    FileNotFoundError
        If neither variable is set and the user has no home folder, as in some containers.
    """
    chosen = os.environ.get("FASTGRU_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        return Path(base, "fastgru")
    try:
        return Path.home() / ".cache" / "fastgru"
    except RuntimeError as error:
        raise FileNotFoundError(
            "cache_directory: expected a home folder, found none. "
            "Set FASTGRU_CACHE_DIR to a folder that fastgru may write to."
        ) from error
