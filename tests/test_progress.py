"""Bars and lines, in terminals of all widths."""

import os
import re
import struct
import sys
import types
import warnings
from contextlib import suppress
from importlib.util import find_spec

import pytest

from fastgru import progress

MEASURED = {"loss": 0.1, "accuracy": 0.875, "val_loss": 0.2, "val_accuracy": 0.75}


def shown(columns, monkeypatch, samples=9545):
    """Return what one epoch writes to a terminal of so many columns."""
    pytest.importorskip("termios")
    import fcntl
    import termios

    ours, theirs = os.openpty()
    size = struct.pack("HHHH", 24 if columns else 0, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    monkeypatch.setattr(progress.Bar, "REFRESH_S", -1)
    with open(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        patched.setattr(sys, "stderr", terminal)
        show = progress.chosen("auto", 4)
        show.begin(3, samples)
        for _ in range(2):
            show.advance(4000, lambda: {"loss": 0.1, "accuracy": 0.875})
            show.bar.refresh()
        show.end(MEASURED)
        show.close()
        list(progress.watched([], 7, 1))
    text = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):  # its other end is shut
        while part := terminal.read(4096):
            text += part
    return text.decode()


@pytest.mark.parametrize("samples", [9545, None])
@pytest.mark.parametrize("columns", [200, 80, 40, 0])
def test_a_terminal_shows_all_that_an_epoch_measured(columns, samples, monkeypatch):
    text = shown(columns, monkeypatch, samples)
    lines = [line.strip() for line in re.split("[\r\n]+", text)]
    line = "Epoch 4/4 - loss: 0.1 - accuracy: 0.875 - val_loss: 0.2 - val_accuracy: 0.75 - "
    assert [one.startswith(line) for one in lines].count(True) == 1
    assert "0/7" in text or columns == 40  # of `watched`
    if samples and columns != 40:  # before the end, too
        bars = [one for one in lines if "84%" in one]
        assert bars and all("accuracy: 0.875" in bar for bar in bars)


def test_a_notebook_without_its_widgets_gets_the_plain_bar_without_a_warning(monkeypatch, capsys):
    if find_spec("ipywidgets"):
        pytest.skip("the widgets are there")
    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    notebook = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", notebook)
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(progress.watched([], 7, 1)) == []
    assert not caught and "0/7" in capsys.readouterr().err
