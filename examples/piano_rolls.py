"""Piano rolls: pieces of music as arrays (T, 88), 1 where a key sounds, and batches of them."""

from __future__ import annotations

import zipfile

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import fastgru as fg

KEYS = 88
OCTAVE = 12
SPLITS = "train", "valid", "test"

Pieces = list[np.ndarray]


def load(path: str) -> dict[str, Pieces]:
    """Read the pieces of each split, float32 (T, 88), without those of a single step."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {split: (file[split], file[f"{split}_lengths"]) for split in SPLITS}
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        names = ", ".join(f"{split}, {split}_lengths" for split in SPLITS)
        raise ValueError(f"expected an .npz with {names}, given {path}") from None
    data = {}
    for split, (packed, lengths) in columns.items():
        if packed.dtype != np.uint8 or packed.shape[1:] != (KEYS // 8,):
            raise ValueError(
                f"{split}: expected uint8 of shape (steps, {KEYS // 8}), "
                f"given {packed.dtype} of shape {packed.shape}"
            )
        rolls = np.unpackbits(packed, axis=1).astype(np.float32)
        pieces = np.split(rolls, np.cumsum(lengths)[:-1])
        data[split] = [piece for piece in pieces if len(piece) > 1]
        if not data[split]:
            raise ValueError(f"{split}: expected a piece of two steps or more, given none")
    return data


def made_chords(seed: int = 0) -> dict[str, Pieces]:
    """Make pieces whose chords go up, or down, a scale for ever: the first two tell which way."""
    random = np.random.default_rng(seed)

    def piece() -> np.ndarray:
        steps, way = int(random.integers(10, 40)), random.choice([-1, 1])
        roots = 30 + (random.integers(12) + way * np.arange(steps)) % 12
        roll = np.zeros((steps, KEYS), np.float32)
        for third in (0, 4, 7):
            roll[np.arange(steps), roots + third] = 1
        return roll

    return {
        split: [piece() for _ in range(n)] for split, n in zip(SPLITS, (100, 20, 20), strict=True)
    }


def shifted(pieces: Pieces) -> tuple[Pieces, Pieces]:
    """Return all steps but the last of each piece, and the steps that follow them."""
    return [piece[:-1] for piece in pieces], [piece[1:] for piece in pieces]


def cut(pieces: Pieces, steps: int, context: int) -> tuple[Pieces, list[int]]:
    """Cut long pieces; a part begins with the last step of the part before, or further back.

    Returns
    -------
    parts : list of arrays (T, 88)
    contexts : list of int
        How many steps of each part belong to those before it.
    """
    parts, contexts = [], []
    for piece in pieces:
        for start in range(0, len(piece) - 1, steps):
            contexts.append(min(context, start))
            parts.append(piece[start - contexts[-1] : start + steps + 1])
    return parts, contexts


class Batches:
    """Batches of parts in other keys: each part is moved by a random interval whenever it is read.

    Parameters
    ----------
    parts : list of arrays (T, 88)
    contexts : list of int
        How many steps at the beginning of each part do not count.
    batch_size : int
    most : int
        How many keys they are moved up or down at most.
    seed : int
    """

    def __init__(
        self, parts: Pieces, contexts: list[int], batch_size: int, most: int, seed: int
    ) -> None:
        self.parts, self.contexts, self.batch_size, self.most = parts, contexts, batch_size, most
        self.is_weighted = any(contexts)
        self.random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.parts) // self.batch_size)

    def __getitem__(self, i: int) -> tuple[Pieces, ...]:
        chosen = self.order[i * self.batch_size : (i + 1) * self.batch_size]
        by = self.random.integers(-self.most, self.most + 1, len(chosen))
        x, y = shifted([moved(self.parts[k], n) for k, n in zip(chosen, by, strict=True)])
        if not self.is_weighted:
            return x, y
        weights = [np.ones(len(part), np.float32) for part in x]
        for own, k in zip(weights, chosen, strict=True):
            own[: self.contexts[k]] = 0
        return x, y, weights

    def on_epoch_end(self) -> None:
        """Put the parts together anew."""
        self.order = self.random.permutation(len(self.parts))


class KeyBatches(Batches):
    """Batches for the network of one key: what each key reads of the parts, one row for each.

    Parameters
    ----------
    parts, contexts, batch_size, most, seed
        As in `Batches`.
    is_in_turn : bool
        Whether a key's network is told those keys of the step to come that lie below it.
    one_in : int
        Of the keys that are silent throughout a part, most of which tell little, one in so many is
        drawn, and counts so many times. The weights make the loss the mean over all keys still,
        and over the steps that count.
    """

    def __init__(
        self,
        parts: Pieces,
        contexts: list[int],
        batch_size: int,
        most: int,
        seed: int,
        is_in_turn: bool = False,
        one_in: int = 1,
    ) -> None:
        super().__init__(parts, contexts, batch_size, most, seed)
        self.is_weighted, self.is_in_turn, self.one_in = True, is_in_turn, one_in

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
        x, y, counts = (
            fg.pad_sequences(column, dtype="float32", padding="post")
            for column in super().__getitem__(i)
        )
        is_silent = ~(x.any(axis=1) | y.any(axis=1))
        is_drawn = ~is_silent | (self.random.integers(self.one_in, size=is_silent.shape) == 0)
        weights = counts[:, np.newaxis] * np.where(is_silent, self.one_in, 1)[..., np.newaxis]
        weights = weights[is_drawn].astype(np.float32)
        weights *= weights.size / (counts.sum() * KEYS)
        read = around_keys(x, y if self.is_in_turn else None)
        return read[is_drawn], np.swapaxes(y, 1, 2)[is_drawn][..., np.newaxis], weights


def around_keys(x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    """Return what the network of each key reads, in numbers of about the same size.

    Parameters
    ----------
    x : array (..., T, 88)
        1 where a key sounds.
    y : array (..., T, 88), optional
        The steps that follow, of which a key's network may know what lies below the key.

    Returns
    -------
    array (..., 88, T, 39 or 64)
        For each key the keys around it, from an octave below to an octave above; how many keys of
        each pitch class sound, beginning with its own, halved; a fifth of how many sound in all;
        and where it lies, from -2 to 2. With y, too, the keys of an octave below it, how many of
        each of their pitch classes sound there and further down, and how many in all.
    """
    keys = np.swapaxes(x, -1, -2)
    count = np.broadcast_to(keys.sum(axis=-2, keepdims=True), keys.shape)
    place = np.broadcast_to(np.linspace(-2, 2, KEYS)[:, np.newaxis], keys.shape)
    classes = by_octave(keys).sum(axis=-3)[..., np.arange(KEYS + OCTAVE - 1) % OCTAVE, :]
    read = [following(beyond(keys, OCTAVE, OCTAVE), 2 * OCTAVE + 1)]
    read += [following(classes, OCTAVE) / 2, count[..., np.newaxis] / 5, place[..., np.newaxis]]
    if y is not None:
        told = np.swapaxes(y, -1, -2)
        below = told.cumsum(axis=-2) - told
        # For each key, how many of its pitch class sound there and below: the twelve keys that
        # come before another one know of all that lie below that.
        octaves = by_octave(told).cumsum(axis=-3).reshape(*told.shape[:-2], -1, told.shape[-1])
        read += [following(beyond(told, OCTAVE, 0), OCTAVE)]
        read += [following(beyond(octaves, OCTAVE, 0), OCTAVE) / 2, below[..., np.newaxis] / 5]
    return np.concatenate(read, axis=-1, dtype=np.float32)


def beyond(keys: np.ndarray, below: int, above: int) -> np.ndarray:
    """Add silent keys to keys (..., K, T), at both ends."""
    return np.pad(keys, [(0, 0)] * (keys.ndim - 2) + [(below, above), (0, 0)])


def by_octave(keys: np.ndarray) -> np.ndarray:
    """Return keys (..., 88, T) as (..., 8, 12, T)."""
    whole = beyond(keys, 0, -KEYS % OCTAVE)
    return whole.reshape(*keys.shape[:-2], -1, OCTAVE, keys.shape[-1])


def following(keys: np.ndarray, many: int) -> np.ndarray:
    """Return so many keys from each of the 88 on: (..., K, T) as (..., 88, T, many)."""
    return sliding_window_view(keys, many, axis=-2)[..., :KEYS, :, :]


def moved(piece: np.ndarray, by: int) -> np.ndarray:
    """Move all notes up by some keys, or down; those beyond the last key are lost."""
    result = np.zeros_like(piece)
    result[:, max(by, 0) : KEYS + min(by, 0)] = piece[:, max(-by, 0) : KEYS + min(-by, 0)]
    return result
