"""Text to ids and back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from operator import index
from pathlib import Path
from reprlib import repr as shortened

from fastgru.errors import FileFormatError
from fastgru.files import write_atomically

_FORMAT = "fastgru.Tokenizer/1"
_OPTIONS = ("num_words", "filters", "lower", "split", "char_level", "oov_token")
UNKNOWN = "<unk>"
_FIELDS = {"format", *_OPTIONS, "document_count", "word_counts"}


class Tokenizer:
    r"""Turn texts into sequences of word ids, or of character ids, and back.

    It behaves as the classic ``keras.preprocessing.text.Tokenizer``: words get the ids 1, 2, ...
    from the most to the least frequent, ties in order of first appearance. Id 0 is never given
    to a word, so it is free for padding.

    Parameters
    ----------
    num_words : int or None, default None
        Keep only the ids below this number, at least 1; None keeps all.
    filters : str, default all ASCII punctuation but the apostrophe, tab and newline
        Characters that separate words and are dropped. Not used at character level.
    lower : bool, default True
        Whether to lower the case of texts and tokens.
    split : str, default " "
        The separator between words.
    char_level : bool, default False
        Whether every character is a token.
    oov_token : str or None, default None
        Stands, with id 1, for every word that is unknown or not kept. None: such words are left
        out.

    Attributes
    ----------
    word_counts : dict of str to int
        How often each token was seen, in order of first appearance.
    word_index, index_word : dict of str to int, dict of int to str
        The id of each token, kept or not, and the token of each id.
    document_count : int
        The number of texts seen.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of another type or range.

    Notes
    -----
    Where a text contains the ``oov_token`` itself, Keras moves the token's id away from 1, even
    beyond ``num_words``. Here it keeps id 1.

    Examples
    --------
    >>> tokenizer = Tokenizer(oov_token="<unk>")
    >>> tokenizer.fit_on_texts(["A good film!", "Not a good one."])
    >>> tokenizer.word_index
    {'<unk>': 1, 'a': 2, 'good': 3, 'film': 4, 'not': 5, 'one': 6}
    >>> tokenizer.texts_to_sequences(["A very good one"])
    [[2, 1, 3, 6]]
    >>> tokenizer.sequences_to_texts([[2, 1, 3, 6]])
    ['a <unk> good one']
    """

    def __init__(
        self,
        num_words: int | None = None,
        filters: str = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n',
        lower: bool = True,
        split: str = " ",
        char_level: bool = False,
        oov_token: str | None = None,
    ) -> None:
        for name, value, expected in (
            ("filters", filters, str),
            ("lower", lower, bool),
            ("split", split, str),
            ("char_level", char_level, bool),
            ("oov_token", "" if oov_token is None else oov_token, str),
        ):
            if not isinstance(value, expected):
                raise TypeError(
                    f"Tokenizer: expected {name} of type {expected.__name__}, given {value!r}."
                )
        if num_words is not None and not _is_positive_int(num_words):
            raise ValueError(
                f"Tokenizer: expected num_words to be an int >= 1 or None, given {num_words!r}."
            )
        if not split:
            raise ValueError("Tokenizer: expected split to be a non-empty str, given ''.")

        self.num_words = num_words
        self.filters = filters
        self.lower = lower
        self.split = split
        self.char_level = char_level
        self.oov_token = oov_token
        self._set_counts({}, 0)

    def fit_on_texts(self, texts: Iterable[str | Sequence[str]]) -> None:
        """Count the words of some texts and number them; may be called again with more texts.

        Parameters
        ----------
        texts : iterable of str, or of lists of str
            A text, or its tokens if it is split already.

        Raises
        ------
        TypeError
            If ``texts`` is a single str, or one of them is neither a str nor a list of str.
        ValueError
            If there are no texts. After an error the tokenizer is as it was before.
        """
        counts = dict(self.word_counts)
        document_count = self.document_count
        for tokens in self._tokenized(texts, "fit_on_texts"):
            document_count += 1
            for token in tokens:
                counts[token] = counts.get(token, 0) + 1
        if document_count == self.document_count:
            raise ValueError("Tokenizer.fit_on_texts: expected at least one text, given none.")
        self._set_counts(counts, document_count)

    def texts_to_sequences(self, texts: Iterable[str | Sequence[str]]) -> list[list[int]]:
        """Turn each text into the list of its words' ids.

        Parameters
        ----------
        texts : iterable of str, or of lists of str
            A text, or its tokens if it is split already.

        Returns
        -------
        list of lists of int
            One list per text; empty where no word is known.

        Raises
        ------
        TypeError
            If ``texts`` is a single str, or one of them is neither a str nor a list of str.
        ValueError
            If the tokenizer has not been fitted.
        """
        self._require_fitted("texts_to_sequences")
        word_index, end, unknown = self.word_index, self._end(), self.oov_token is not None
        sequences = []
        for tokens in self._tokenized(texts, "texts_to_sequences"):
            sequence = []
            for token in tokens:
                i = word_index.get(token, end)
                if i < end:
                    sequence.append(i)
                elif unknown:
                    sequence.append(1)
            sequences.append(sequence)
        return sequences

    def sequences_to_texts(self, sequences: Iterable[Iterable[int]]) -> list[str]:
        """Turn each sequence of ids into its words, joined by spaces.

        As in Keras, an id without a kept word, 0 included, becomes the ``oov_token``, or nothing if
        there is none; characters are joined by spaces too.

        Parameters
        ----------
        sequences : iterable of iterables of int
            Lists of ids, or an integer array of shape (B, T).

        Returns
        -------
        list of str
            One text per sequence.

        Raises
        ------
        TypeError
            If ``sequences`` is not made of sequences of integers.
        ValueError
            If the tokenizer has not been fitted.
        """
        self._require_fitted("sequences_to_texts")
        if not isinstance(sequences, Iterable):
            raise TypeError(
                "Tokenizer.sequences_to_texts: expected sequences to be a list of lists of int, "
                f"given {shortened(sequences)}."
            )
        end = self._end()
        texts = []
        for n, sequence in enumerate(sequences):
            try:
                ids = [index(i) for i in sequence]
            except TypeError:
                raise TypeError(
                    f"Tokenizer.sequences_to_texts: expected sequences[{n}] to be a list of int, "
                    f"given {shortened(sequence)}."
                ) from None
            words = (self.index_word.get(i) if i < end else None for i in ids)
            known = (self.oov_token if word is None else word for word in words)
            texts.append(" ".join(word for word in known if word is not None))
        return texts

    def to_json(self) -> str:
        """Return the settings and the counts as JSON; `from_json` reads it.

        Returns
        -------
        str
            One JSON object in plain ASCII.
        """
        options = {name: getattr(self, name) for name in _OPTIONS}
        state = {"format": _FORMAT, **options, "document_count": self.document_count}
        return json.dumps({**state, "word_counts": self.word_counts}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Make the tokenizer again from what `to_json` returned.

        Parameters
        ----------
        text : str
            The JSON text.

        Returns
        -------
        Tokenizer
            A tokenizer that does what the old one did.

        Raises
        ------
        FileFormatError
            If the text is damaged, or not what `to_json` returns.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"Tokenizer.from_json: expected text of type str, given {shortened(text)}."
            )
        try:
            state = json.loads(text)
            if not isinstance(state, dict) or state.keys() != _FIELDS:
                raise ValueError(f"expected an object with the keys {sorted(_FIELDS)}")
            if state["format"] != _FORMAT:
                raise ValueError(f"expected the format {_FORMAT}, found {state['format']!r}")
            counts, document_count = state["word_counts"], state["document_count"]
            if not isinstance(counts, dict) or not all(map(_is_positive_int, counts.values())):
                raise ValueError("expected word_counts of positive integers")
            if not _is_positive_int(document_count) and (counts or document_count != 0):
                raise ValueError(f"expected a positive document_count, found {document_count!r}")
            tokenizer = cls(**{name: state[name] for name in _OPTIONS})
        except (ValueError, TypeError, RecursionError) as error:
            raise FileFormatError(f"Tokenizer.from_json: not a tokenizer: {error}.") from error
        tokenizer._set_counts(counts, document_count)
        return tokenizer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all.

        Parameters
        ----------
        path : str or os.PathLike
            The file to write or to replace.
        """
        write_atomically(path, self.to_json().encode("ascii"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer that `save` wrote.

        Parameters
        ----------
        path : str or os.PathLike
            The file to read.

        Returns
        -------
        Tokenizer
            A tokenizer that does what the saved one did.

        Raises
        ------
        FileFormatError
            If the file is damaged, or not what `save` writes.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="ascii"))
        except ValueError as error:
            raise FileFormatError(f"{os.fspath(path)}: {error}") from error

    def _set_counts(self, counts: dict[str, int], document_count: int) -> None:
        self.word_counts = counts
        self.document_count = document_count
        # sorted() is stable, reversed or not: ties stay in order of first appearance.
        words = sorted(counts, key=counts.__getitem__, reverse=True)
        if self.oov_token is not None:
            words = [self.oov_token, *(word for word in words if word != self.oov_token)]
        self.index_word = dict(enumerate(words, start=1))
        self.word_index = {word: i for i, word in self.index_word.items()}

    def _end(self) -> int:
        """Return the first id that is not kept."""
        return self.num_words or len(self.word_index) + 1

    def _require_fitted(self, method: str) -> None:
        if not self.document_count:
            raise ValueError(
                f"Tokenizer.{method}: expected a fitted tokenizer. Call fit_on_texts first."
            )

    def _tokenized(
        self, texts: Iterable[str | Sequence[str]], method: str
    ) -> Iterator[Iterable[str]]:
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise TypeError(
                f"Tokenizer.{method}: expected texts to be a list of str, given "
                f"{shortened(texts)}. Put a single text into a list: [text]."
            )
        separators = str.maketrans(dict.fromkeys(self.filters, self.split))
        for n, text in enumerate(texts):
            if isinstance(text, str):
                text = text.lower() if self.lower else text
                if self.char_level:
                    yield text
                else:
                    yield filter(None, text.translate(separators).split(self.split))
            elif isinstance(text, list | tuple) and all(isinstance(token, str) for token in text):
                yield (token.lower() for token in text) if self.lower else text
            else:
                raise TypeError(
                    f"Tokenizer.{method}: expected texts[{n}] to be a str or a list of str, "
                    f"given {shortened(text)}."
                )


def vocabulary(
    name: str, texts: Iterable[Sequence[str]], min_count: int, num_words: int | None = None
) -> Tokenizer:
    """Return a tokenizer that knows the words seen often enough; all others are id 1.

    Parameters
    ----------
    name : str
        What the texts are called in errors.
    texts : iterable of lists of str
        The words of each text.
    min_count : int
        How often a word must be seen to be known.
    num_words : int, optional
        How many words to know at most, the most frequent ones; by default all that are left.

    Returns
    -------
    Tokenizer

    Raises
    ------
    ValueError
        If no word is seen often enough.

    Examples
    --------
    >>> vocabulary("texts", [["a", "b", "a"]], min_count=2).texts_to_sequences([["b", "a"]])
    [[1, 2]]
    """
    tokenizer = Tokenizer(filters="", lower=False, oov_token=UNKNOWN)
    tokenizer.fit_on_texts(texts)
    counts = tokenizer.word_counts.values()
    kept = sum(count >= min_count for count in counts)
    if not kept:
        raise ValueError(
            f"{name}: expected a word seen min_count = {min_count} times or more, given none seen "
            f"more than {max(counts, default=0)} times; a lower min_count keeps some"
        )
    # Ids 0, of no word, and 1, of the unknown ones, come on top.
    tokenizer.num_words = min(kept, num_words or kept) + 2
    return tokenizer


def _is_positive_int(value: object) -> bool:
    return type(value) is int and value > 0  # a bool is an int too, but not a number here
