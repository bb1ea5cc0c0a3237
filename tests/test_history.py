"""The history: numbers by epoch, and a picture of them."""

import sys

import pytest

import fastgru as fg


def history(epochs=5, **values):
    made = fg.History()
    for epoch in range(epochs):
        made.add(epoch, {name: some[epoch] for name, some in values.items()})
    return made


def test_a_picture_shows_training_and_validation_of_every_measure(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: drawn.append(self) or save(self, *a, **k)
    )
    loss, val = [3.0, 2, 1.5, 1.2, 1], [3.0, 2.5, 2.2, 2.1, 2.3]
    history(loss=loss, val_loss=val, accuracy=[0.1, 0.2, 0.5, 0.6, 0.7]).plot(tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    left, right = drawn[0].axes
    assert (left.get_title(), right.get_title()) == ("loss", "accuracy")
    assert [list(line.get_ydata()) for line in left.lines] == [loss, val]
    assert [line.get_label() for line in left.lines] == ["training", "validation"]
    assert list(left.lines[0].get_xdata()) == [1, 2, 3, 4, 5] and len(right.lines) == 1
    history(loss=loss).plot(tmp_path / "h.svg")
    assert b"<svg" in (tmp_path / "h.svg").read_bytes()


def test_without_a_path_the_picture_is_shown(monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    history(loss=[1.0] * 5).plot()
    assert len(shown) == 1
    plt.close(shown[0])


def test_what_is_missing_for_a_picture_is_said(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="history: expected at least one epoch to draw"):
        fg.History().plot(tmp_path / "h.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastgru\[plot\]"'):
        history(loss=[1.0] * 5).plot(tmp_path / "h.png")
