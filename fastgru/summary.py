"""A model as a table for people."""

from __future__ import annotations

from typing import Any

_PLAIN = str.maketrans("━─┃│┏┳┓┡╇┩├┼┤└┴┘", "=-||++++++++++++")


def size_text(size: int) -> str:
    """Return a number of bytes for people.

    Parameters
    ----------
    size : int
        The number.

    Examples
    --------
    >>> size_text(216), size_text(5 * 1024**2)
    ('216.00 B', '5.00 MB')
    """
    number, units = float(size), ["B", "KB", "MB", "GB", "TB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:.2f} {units[0]}"


def table(rows: list[tuple[str, str, str]]) -> list[str]:
    """Return the lines of a table with a head, as Keras draws it; numbers are in the last column.

    Parameters
    ----------
    rows : list of tuples of str
        The cells; the first row is the head.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def rule(left: str, middle: str, right: str, line: str) -> str:
        return left + middle.join(line * (width + 2) for width in widths) + right

    def cells(row: tuple[str, str, str], edge: str) -> str:
        texts = [f" {text:<{width}} " for text, width in zip(row, widths, strict=True)]
        texts[-1] = f" {row[-1]:>{widths[-1]}} "
        return edge + edge.join(texts) + edge

    lines = [rule("┏", "┳", "┓", "━"), cells(rows[0], "┃"), rule("┡", "╇", "┩", "━")]
    for i, row in enumerate(rows[1:]):
        lines += [rule("├", "┼", "┤", "─")] if i else []
        lines.append(cells(row, "│"))
    return [*lines, rule("└", "┴", "┘", "─")]


def plain(text: str, encoding: str | None) -> str:
    """Return a table without box characters where an encoding has none.

    Parameters
    ----------
    text : str
        The table.
    encoding : str or None
        Where it is going to be written; None takes any.
    """
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return text.translate(_PLAIN)
    return text


def lines_of(model: Any) -> list[str]:
    """Return the summary of a model, line by line.

    Parameters
    ----------
    model : Sequential
        Built or not.
    """
    rows = [("Layer (type)", "Output Shape", "Param #")]
    shape = model.layers[0].input_shape if model.layers else None
    for place, layer in enumerate(model.layers):
        shape = None if shape is None else layer.output_shape(shape)
        count = f"{layer.count_params():,}" if layer.built else "? (not built)"
        if layer in model.layers[:place]:
            count = "0 (shared)"
        rows.append((f"{layer.name} ({type(layer).__name__})", str(shape or "?"), count))
    different = dict.fromkeys(model.layers)
    every = [array for layer in different for array in layer.weights().values()]
    learnt = model._weights()[0]
    counts = [sum(a.size for a in some) for some in (every, learnt)]
    sizes = [sum(a.nbytes for a in some) for some in (every, learnt)]
    totals = [
        ("Total", counts[0], sizes[0]),
        ("Trainable", counts[1], sizes[1]),
        ("Non-trainable", counts[0] - counts[1], sizes[0] - sizes[1]),
    ]
    return [
        f'Model: "{model.name}"',
        *table(rows),
        *(f" {name} params: {count:,} ({size_text(size)})" for name, count, size in totals),
    ]
