import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from children import start

from fastgru import files
from fastgru.files import cache_directory, remove_leftovers, write_atomically

posix_locks = pytest.mark.skipif(os.name != "posix", reason="the locks are those of POSIX")


def test_writing_replaces_the_old_file(tmp_path):
    path = tmp_path / "model"
    write_atomically(path, b"old and longer")
    write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def fail(*arguments):
        assert path.read_bytes() == b"old"
        raise OSError("disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (".", "", tmp_path):
        with pytest.raises(IsADirectoryError, match=rf"given the folder '{path}'\."):
            write_atomically(path, b"new")
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_removes_its_temporary_file(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "model", b"new")
    assert os.listdir(tmp_path) == []


@posix_locks
def test_what_a_killed_writer_left_goes_with_the_next_and_nothing_else(
    tmp_path, killed_while_writing
):
    long = "n" * 250
    for name in ("model", "other", long):
        killed_while_writing(tmp_path / name)
    assert len(os.listdir(tmp_path)) == 3
    for name in ("mod", "model", long, "other"):
        write_atomically(tmp_path / name, b"done")
        assert len(os.listdir(tmp_path)) == 4
    assert set(os.listdir(tmp_path)) == {"mod", "model", long, "other"}
    remove_leftovers(tmp_path / "nowhere" / "model")


BEGIN_TO_WRITE = """
import os, sys
from fastgru.files import write_atomically

def replace(source, target):
    print("writing", flush=True)
    sys.stdin.read()  # until the test ends, at the latest

os.replace = replace
write_atomically(sys.argv[1], b"theirs")
"""


@posix_locks
def test_what_another_process_is_writing_stays_until_it_is_killed(tmp_path):
    writer = start("-c", BEGIN_TO_WRITE, str(tmp_path / "model"))
    assert writer.stdout.readline() == "writing\n", writer.communicate()[1]
    write_atomically(tmp_path / "model", b"ours")
    assert len(os.listdir(tmp_path)) == 2
    writer.kill()
    writer.communicate()
    write_atomically(tmp_path / "model", b"ours again")
    assert os.listdir(tmp_path) == ["model"]


@posix_locks
def test_a_file_that_is_taken_for_a_leftover_at_once_is_made_again(tmp_path, monkeypatch):
    lock, taken = files._lock, []

    def late(file, wait):
        if wait and not taken:
            taken.append(file.name)
            remove_leftovers(tmp_path / "model")
            assert os.listdir(tmp_path) == []
        return lock(file, wait)

    monkeypatch.setattr(files, "_lock", late)
    write_atomically(tmp_path / "model", b"new")
    assert taken and (tmp_path / "model").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model"]


def test_without_locks_files_are_written_and_leftovers_stay(
    tmp_path, monkeypatch, killed_while_writing
):
    monkeypatch.setattr(files, "_lock", lambda file, wait: False)
    killed_while_writing(tmp_path / "model")
    write_atomically(tmp_path / "model", b"new")
    assert (tmp_path / "model").read_bytes() == b"new"
    assert len(os.listdir(tmp_path)) == 2


def test_threads_that_write_one_file_do_not_take_each_others(tmp_path):
    contents = [bytes([i]) * 1000 for i in range(4)]

    def write(content):
        for _ in range(25):
            write_atomically(tmp_path / "model", content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert (tmp_path / "model").read_bytes() in contents
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(os.name != "posix", reason="the order of calls is that of POSIX")
def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = os.fstat(descriptor).st_size
        calls.append("fsync folder" if is_folder else f"fsync {size} bytes")
        fsync(descriptor)

    def spy_replace(source, target):
        assert Path(source).parent == Path(target).parent == tmp_path
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomically(tmp_path / "model", b"12345")
    assert calls == ["fsync 5 bytes", "replace", "fsync folder"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_new_file_has_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need privileges elsewhere")
def test_writing_follows_a_symbolic_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "model")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "model").read_bytes() == b"new"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="^path: expected one in an existing.*nowhere"):
        write_atomically(tmp_path / "nowhere" / "model", b"")


@pytest.mark.parametrize(
    ("chosen", "xdg", "expected"),
    [
        ("chosen", "xdg", "chosen"),
        ("", "xdg", "xdg/fastgru"),
        (None, "xdg", "xdg/fastgru"),
        (None, None, "home/.cache/fastgru"),
        (None, "", "home/.cache/fastgru"),
    ],
)
def test_the_cache_folder_is_the_first_that_is_named(tmp_path, monkeypatch, chosen, xdg, expected):
    for name, value in (("FASTGRU_CACHE_DIR", chosen), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(tmp_path / value) if value else "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_directory() == tmp_path / expected
    assert not (tmp_path / expected).exists()


def test_a_relative_xdg_folder_is_ignored_and_a_relative_choice_made_absolute(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("FASTGRU_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / "home" / ".cache" / "fastgru"
    monkeypatch.setenv("FASTGRU_CACHE_DIR", "relative")
    assert cache_directory() == tmp_path / "relative"


def test_without_a_home_the_error_names_the_remedy(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FASTGRU_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OSError, match="Set FASTGRU_CACHE_DIR"):
        cache_directory()
