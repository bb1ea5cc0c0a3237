import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgru.errors import FileFormatError
from fastgru.text import Tokenizer, vocabulary

TEXTS = ["The cat sat on the mat.", "The dog sat on the log!", "Dogs and cats (living together)"]

# Few letters, so that words repeat; case, punctuation, and letters that grow when lowered.
words = st.text("abAB'İß!. \t", max_size=12)
corpora = st.lists(words | st.lists(words, max_size=4), min_size=1, max_size=6)


def fitted(texts=TEXTS, **options):
    tokenizer = Tokenizer(**options)
    tokenizer.fit_on_texts(texts)
    return tokenizer


def slow_words(text):
    """Split as `Tokenizer` does by default, character by character."""
    found = [""]
    for character in text.lower():
        if character == "'" or character.isalnum() or ord(character) > 127:
            found[-1] += character
        else:
            found.append("")
    return [word for word in found if word]


def test_frequent_words_come_first_and_ties_in_order_of_appearance():
    assert list(fitted().word_index) == (
        "the sat on cat mat dog log dogs and cats living together".split()
    )
    assert fitted().word_index["the"] == 1


@given(corpora)
def test_ids_follow_the_counts_of_a_slow_twin(texts):
    tokenizer = fitted(texts)
    counts = Counter()
    for text in texts:
        is_split = isinstance(text, list)
        counts.update([word.lower() for word in text] if is_split else slow_words(text))
    assert list(tokenizer.word_counts.items()) == list(counts.items())
    assert list(tokenizer.word_index) == [word for word, _ in counts.most_common()]
    assert list(tokenizer.word_index.values()) == list(range(1, len(counts) + 1))
    assert tokenizer.index_word == {i: word for word, i in tokenizer.word_index.items()}
    assert tokenizer.document_count == len(texts)


def test_num_words_keeps_the_ids_below_it():
    tokenizer = fitted(num_words=3)
    assert tokenizer.texts_to_sequences(["the cat sat on the mat"]) == [[1, 2, 1]]
    assert len(tokenizer.word_index) == 12
    assert tokenizer.sequences_to_texts([[1, 2, 3, 4, 0, 99, -1]]) == ["the sat"]


def test_the_oov_token_has_id_1_and_stands_for_every_other_word():
    tokenizer = fitted(num_words=4, oov_token="<unk>")
    assert tokenizer.texts_to_sequences(["the bird sat on the mat"]) == [[2, 1, 3, 1, 2, 1]]
    assert tokenizer.sequences_to_texts([[2, 1, 3, 4, 0]]) == ["the <unk> sat <unk> <unk>"]
    assert "<unk>" not in tokenizer.word_counts


def test_an_oov_token_that_is_also_a_word_keeps_id_1():
    tokenizer = fitted(["the unk", "the unk cat"], num_words=3, oov_token="unk")
    assert tokenizer.word_index == {"unk": 1, "the": 2, "cat": 3}
    assert tokenizer.texts_to_sequences(["the cat unk"]) == [[2, 1, 1]]


def test_unknown_words_are_left_out():
    assert fitted().texts_to_sequences(["a bird", "", "the bird"]) == [[], [], [1]]


def test_characters_are_tokens_at_character_level():
    tokenizer = fitted(["Aab!"], char_level=True)
    assert tokenizer.word_index == {"a": 1, "b": 2, "!": 3}
    assert tokenizer.texts_to_sequences(["B a!"]) == [[2, 1, 3]]
    assert tokenizer.sequences_to_texts([[2, 1, 3]]) == ["b a !"]


def test_case_is_kept_without_lower():
    assert fitted(["Aa aA", ["Aa"]], lower=False).word_counts == {"Aa": 2, "aA": 1}


def test_filters_and_split_can_be_chosen():
    tokenizer = fitted(["one.two;three--x"], filters=".;", split="--")
    assert list(tokenizer.word_index) == ["one", "two", "three", "x"]


def test_tokens_of_a_split_text_are_not_split_again():
    tokenizer = fitted([["New York", "is"], ("is", "Big!")])
    assert tokenizer.word_counts == {"new york": 1, "is": 2, "big!": 1}
    assert tokenizer.texts_to_sequences([["is", "new york", "new"]]) == [[1, 2]]


def test_fitting_twice_is_fitting_once_on_all():
    twice = fitted(TEXTS[:1])
    twice.fit_on_texts(TEXTS[1:])
    assert vars(twice) == vars(fitted())


def test_a_generator_of_texts_is_read_once():
    assert vars(fitted(text for text in TEXTS)) == vars(fitted())


@given(corpora)
def test_known_words_survive_the_way_to_ids_and_back(texts):
    tokenizer = fitted(texts)
    split = [slow_words(text) for text in texts if isinstance(text, str)]
    sequences = tokenizer.texts_to_sequences([" ".join(text) for text in split])
    assert tokenizer.sequences_to_texts(sequences) == [" ".join(text) for text in split]


def test_a_vocabulary_keeps_the_frequent_words_that_are_seen_often_enough():
    texts = [["A", "b", "A", "c"], ["b", "A", "c", "d"]]
    for min_count, num_words, ids in (
        (1, None, [2, 3, 4, 5, 1]),
        (2, None, [2, 3, 4, 1, 1]),
        (3, None, [2, 1, 1, 1, 1]),
        (2, 2, [2, 3, 1, 1, 1]),
        (2, 9, [2, 3, 4, 1, 1]),
    ):
        tokenizer = vocabulary("texts", texts, min_count, num_words)
        assert tokenizer.texts_to_sequences([["A", "b", "c", "d", "e"]]) == [ids]
        assert tokenizer.num_words == max(ids) + 1 and 0 not in tokenizer.index_word
    with pytest.raises(ValueError, match=r"texts: expected a word seen min_count = 4 .* than 3 ti"):
        vocabulary("texts", texts, 4)


@given(
    st.lists(st.text(max_size=8), max_size=5),
    st.booleans(),
    st.none() | st.integers(1, 9),
    st.none() | st.text(),
)
def test_json_keeps_everything(texts, char_level, num_words, oov_token):
    tokenizer = Tokenizer(num_words, char_level=char_level, oov_token=oov_token)
    if texts:
        tokenizer.fit_on_texts(texts)
    again = Tokenizer.from_json(tokenizer.to_json())
    assert vars(again) == vars(tokenizer)
    assert list(again.word_index) == list(tokenizer.word_index)
    assert list(again.word_counts) == list(tokenizer.word_counts)


def test_saving_and_loading_keeps_everything(tmp_path):
    tokenizer = fitted(["déjà vu", "日本"], oov_token="<unk>")
    tokenizer.save(tmp_path / "tokenizer.json")
    assert vars(Tokenizer.load(tmp_path / "tokenizer.json")) == vars(tokenizer)
    assert json.loads((tmp_path / "tokenizer.json").read_bytes())["word_counts"]["日本"] == 1


def test_a_cut_file_is_refused_by_name(tmp_path):
    path = tmp_path / "tokenizer.json"
    fitted().save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match=r"tokenizer\.json: .*not a tokenizer"):
        Tokenizer.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match=r"tokenizer\.json"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "fastgru.Tokenizer/2"},
        {"num_words": 0},
        {"num_words": "3"},
        {"filters": None},
        {"lower": 1},
        {"split": ""},
        {"oov_token": 7},
        {"document_count": 0},
        {"document_count": -1},
        {"document_count": True},
        {"document_count": 1e3},
        {"word_counts": ["the"]},
        {"word_counts": {"the": 0}},
        {"word_counts": {"the": True}},
        {"word_counts": {"the": float("nan")}},
        {"unheard_of": 1},
    ],
)
def test_a_damaged_state_is_refused(change):
    state = json.loads(fitted().to_json())
    with pytest.raises(FileFormatError, match="not a tokenizer"):
        Tokenizer.from_json(json.dumps(state | change))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, "1" * 10_000])
def test_other_json_is_refused(text):
    with pytest.raises(FileFormatError, match="not a tokenizer"):
        Tokenizer.from_json(text)


def test_a_missing_field_is_refused():
    for field in (state := json.loads(fitted().to_json())):
        rest = {name: value for name, value in state.items() if name != field}
        with pytest.raises(FileFormatError, match=field):
            Tokenizer.from_json(json.dumps(rest))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_words": 0}, ValueError, "num_words to be an int >= 1 or None, given 0"),
        ({"num_words": -3}, ValueError, "given -3"),
        ({"num_words": 2.5}, ValueError, "given 2.5"),
        ({"num_words": True}, ValueError, "given True"),
        ({"split": ""}, ValueError, "split to be a non-empty str"),
        ({"split": None}, TypeError, "split of type str, given None"),
        ({"filters": 3}, TypeError, "filters of type str, given 3"),
        ({"lower": "yes"}, TypeError, "lower of type bool, given 'yes'"),
        ({"char_level": 1}, TypeError, "char_level of type bool, given 1"),
        ({"oov_token": 1}, TypeError, "oov_token of type str, given 1"),
    ],
)
def test_a_wrong_option_is_named(options, error, message):
    with pytest.raises(error, match=message):
        Tokenizer(**options)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", r"texts to be a list of str, given 'one text'.*\[text\]"),
        (b"bytes", "given b'bytes'"),
        (None, "given None"),
        (5, "given 5"),
        (["good", 5], r"texts\[1\] to be a str or a list of str, given 5"),
        (["good", None], r"texts\[1\]"),
        (["good", b"bytes"], r"texts\[1\]"),
        (["good", ["a", 1]], r"texts\[1\].*given \['a', 1\]"),
    ],
)
def test_wrong_texts_are_named_and_change_nothing(texts, message):
    tokenizer = fitted()
    with pytest.raises(TypeError, match=f"fit_on_texts: .*{message}"):
        tokenizer.fit_on_texts(texts)
    assert vars(tokenizer) == vars(fitted())
    with pytest.raises(TypeError, match=f"texts_to_sequences: .*{message}"):
        tokenizer.texts_to_sequences(texts)


def test_fitting_on_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one text"):
        Tokenizer().fit_on_texts([])


@pytest.mark.parametrize("method", ["texts_to_sequences", "sequences_to_texts"])
def test_using_before_fitting_is_refused(method):
    with pytest.raises(ValueError, match=f"{method}: expected a fitted.*fit_on_texts first"):
        getattr(Tokenizer(), method)([])


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        (3, "sequences to be a list of lists of int, given 3"),
        ([1, 2], r"sequences\[0\] to be a list of int, given 1"),
        ([[1], [1.5]], r"sequences\[1\] to be a list of int, given \[1.5\]"),
        ([[1], "text"], r"sequences\[1\]"),
    ],
)
def test_wrong_sequences_are_named(sequences, message):
    with pytest.raises(TypeError, match=message):
        fitted().sequences_to_texts(sequences)
