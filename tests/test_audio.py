"""WAV files of every kind, and features: those of librosa, and of a stream those of the whole."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct
from test_golden import close, golden_file, make_golden

import fastgru as fg
from fastgru.audio import (
    FeatureStream,
    RunningNormalizer,
    deltas,
    frames,
    log_mel,
    mel_filters,
    mfcc,
    normalize,
    read_wav,
    resample,
    write_wav,
)

# ---- WAV files


def chunk(kind, content):
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(*chunks):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def format_chunk(tag, bits, channels=1, rate=8000, extensible=False):
    width = channels * bits // 8
    head = struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits)
    if extensible:
        wrapped = bytes.fromhex("000000001000800000aa00389b71")
        head = (
            struct.pack("<H", 0xFFFE) + head[2:] + struct.pack("<HHIH", 22, bits, 0, tag) + wrapped
        )
    return chunk(b"fmt ", head)


def read(content, **options):
    return read_wav(io.BytesIO(content), **options)


# A kind's tag and bits, and how it writes the values -1, -0.5, 0 and 0.75.
KINDS = {
    "pcm8": (1, 8, bytes([0, 64, 128, 224])),
    "pcm16": (1, 16, np.array([-32768, -16384, 0, 24576], "<i2").tobytes()),
    "pcm24": (1, 24, bytes.fromhex("000080 0000c0 000000 000060")),
    "pcm32": (1, 32, np.array([-(2**31), -(2**30), 0, 3 * 2**29], "<i4").tobytes()),
    "float32": (3, 32, np.array([-1, -0.5, 0, 0.75], "<f4").tobytes()),
    "float64": (3, 64, np.array([-1, -0.5, 0, 0.75], "<f8").tobytes()),
}


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sample_is_read(kind, extensible):
    tag, bits, data = KINDS[kind]
    content = riff(format_chunk(tag, bits, extensible=extensible), chunk(b"data", data))
    samples, rate = read(content)
    assert samples.tolist() == [-1, -0.5, 0, 0.75] and samples.dtype == np.float32 and rate == 8000


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_averaged(kind):
    tag, bits, data = KINDS[kind]
    content = riff(format_chunk(tag, bits, channels=2, rate=44100), chunk(b"data", data))
    samples, rate = read(content)
    assert samples.tolist() == [-0.75, 0.375] and rate == 44100


def test_the_lowest_bits_of_24_are_kept(rng):
    values = rng.integers(-(2**23), 2**23, 50)
    data = b"".join(int(v).to_bytes(3, "little", signed=True) for v in values)
    samples, _ = read(riff(format_chunk(1, 24), chunk(b"data", data)))
    assert np.array_equal(samples, (values / 2**23).astype(np.float32))


def test_other_chunks_of_any_size_are_skipped():
    fmt, data = format_chunk(1, 16), chunk(b"data", b"\0\x40")
    odd = chunk(b"LIST", b"odd")
    for content in (riff(odd, fmt, data), riff(fmt, odd, odd, data), riff(fmt, data, b"garbage")):
        assert read(content)[0].tolist() == [0.5]
    # A last chunk whose filling byte is missing, as some programs write it.
    assert read(riff(format_chunk(1, 8), chunk(b"data", b"\x40")[:-1]))[0].tolist() == [-0.5]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_size_that_was_not_known_means_up_to_the_end(size):
    data = b"data" + struct.pack("<I", size) + b"\0\x40\0\xc0\0"
    assert read(riff(format_chunk(1, 16), data))[0].tolist() == [0.5, -0.5]


def test_a_file_without_samples_is_silence():
    for behind in ([], [chunk(b"LIST", b"odd")]):
        content = riff(format_chunk(1, 16), chunk(b"data", b""), *behind)
        samples, _ = read(content, sample_rate=16000)
        assert samples.shape == (0,) and samples.dtype == np.float32


FMT, DATA = format_chunk(1, 16), chunk(b"data", bytes(100))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a WAV file, .* given b''"),
        (b"ID3\x04 no sound here", "expected a WAV file"),
        (riff(FMT, DATA)[:11], "expected a WAV file"),
        (b"RIFX" + riff(FMT, DATA)[4:], "expected a WAV file"),
        (riff(FMT, DATA)[:-1], "expected 100 bytes in the chunk 'data', given 99; .* cut short"),
        (riff(FMT, DATA)[:50], "expected 100 bytes in the chunk 'data', given 6; .* cut short"),
        (riff(FMT, DATA)[:25], "expected 16 bytes in the chunk 'fmt ', given 5; .* cut short"),
        (riff(FMT), "expected a chunk of samples, 'data', given none"),
        (riff(DATA), "expected a chunk of the format, 'fmt ', given none"),
        (riff(chunk(b"fmt ", b"\1\0" * 7), DATA), "expected 16 bytes of format or more, given 14"),
        (riff(format_chunk(0x55, 16), DATA), r"given the format 0x0055 \(MP3\); convert it"),
        (riff(format_chunk(6, 8, extensible=True), DATA), r"given the format 0x0006 \(A-law\)"),
        (riff(format_chunk(0x1234, 8), DATA), r"given the format 0x1234 \(unknown\)"),
        (riff(format_chunk(1, 12), DATA), "given PCM of 12 bits"),
        (riff(format_chunk(3, 16), DATA), "given float of 16 bits"),
        (riff(format_chunk(1, 16, channels=0), DATA), "expected 1 to 256 channels, given 0"),
        (riff(FMT[:10] + b"\xff\xff" + FMT[12:], DATA), "1 to 256 channels, given 65535"),
        (riff(format_chunk(1, 16, rate=0), DATA), "expected a sample rate from 1 to 1000000 Hz"),
        (riff(format_chunk(1, 16, rate=2**30), DATA), "given 1073741824"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_what_was_expected(content, message, tmp_path):
    path = tmp_path / "some.wav"
    path.write_bytes(content)
    with pytest.raises(fg.FileFormatError, match=rf"some\.wav: .*{message}"):
        read_wav(path, sample_rate=16000)


def test_a_wrapped_format_that_is_not_known_is_refused():
    content = riff(format_chunk(1, 16, extensible=True), DATA).replace(b"\x38\x9b", b"\x38\x9c")
    with pytest.raises(fg.FileFormatError, match="0xfffe"):
        read(content)


@given(content=st.binary(max_size=80), at=st.integers(0, 60))
def test_damaged_bytes_give_samples_or_the_error_of_a_file(content, at):
    whole = riff(FMT, DATA)
    try:
        samples, _ = read(whole[:at] + content + whole[at + len(content) :])
    except fg.FileFormatError:
        return
    assert samples.dtype == np.float32 and samples.ndim == 1


def test_what_is_written_is_read_and_what_is_too_loud_is_clipped(tmp_path, rng):
    samples = np.concatenate([rng.uniform(-1, 1, 101), [1.0, -1.0, 3.0, -3.0]])
    write_wav(tmp_path / "new.wav", samples, 11025)
    got, rate = read_wav(tmp_path / "new.wav")
    assert rate == 11025
    np.testing.assert_allclose(
        got, np.clip(samples, -1, 32767 / 32768), rtol=0, atol=0.5001 / 32768
    )


@pytest.mark.parametrize(
    ("samples", "rate", "error", "message"),
    [
        ([[0.5]], 8000, ValueError, r"samples: expected one channel, shape \(n,\), given \(1, 1\)"),
        ([3, 4], 8000, TypeError, "samples: expected floats in .* divide 16-bit samples by 32768"),
        ([0.0, -900.0], 8000, ValueError, r"in \[-1, 1\], given 900; divide those of 16 bits by"),
        ([np.nan], 8000, ValueError, "samples: expected finite numbers"),
        ([0.5], 8000.0, TypeError, "sample_rate: expected a positive integer"),
        ([0.5], 2_000_000, ValueError, "sample_rate: expected at most 1000000 Hz, given 2000000"),
    ],
)
def test_what_cannot_be_written_is_refused(samples, rate, error, message):
    with pytest.raises(error, match=message):
        write_wav(io.BytesIO(), samples, rate)


@pytest.mark.parametrize("file", [None, 5, b"RIFF"])
def test_what_is_no_file_is_refused(file):
    for use in (read_wav, lambda file: write_wav(file, [0.5], 8000)):
        with pytest.raises(TypeError, match=f"file: expected a path or a .*, given {file!r}"):
            use(file)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_resampling_keeps_low_tones_and_drops_what_the_new_rate_cannot_hold(rate):
    time = np.arange(22050) / 22050
    low = np.sin(2 * np.pi * 440 * time)
    high = np.sin(2 * np.pi * 10500 * time)
    got = resample(low + high * (rate < 18000), 22050, rate)
    assert got.dtype == np.float32 and len(got) == rate
    want = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    middle = slice(rate // 10, -rate // 10)
    np.testing.assert_allclose(got[middle], want[middle], atol=0.01)


def test_read_wav_resamples():
    file = io.BytesIO()
    samples = np.sin(2 * np.pi * 440 / 16000 * np.arange(1600))
    write_wav(file, samples, 16000)
    got, rate = read(file.getvalue(), sample_rate=8000)
    assert rate == 8000
    want, _ = read(file.getvalue())
    assert np.array_equal(got, resample(want, 16000, 8000))


# ---- features


def test_frames_overlap_and_nothing_is_padded():
    assert frames(np.arange(7.0), 3, 2).tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert frames(np.arange(6.0), 3, 2).tolist() == [[0, 1, 2], [2, 3, 4]]
    assert frames(np.arange(2.0), 3, 2).shape == (0, 3)
    assert frames(np.arange(3.0), 3, 9).shape == (1, 3)


def check_librosa(name, golden):
    options, samples = make_golden.AUDIO[name], golden["samples"]
    bank = [options[k] for k in ("sample_rate", "n_fft", "n_mels", "fmin", "fmax", "scale")]
    close(mel_filters(*bank), golden["filters"], "float64", "filters")
    close(log_mel(samples, **options), golden["log_mel"], "float32", "log_mel")
    close(mfcc(samples, n_mfcc=12, **options), golden["mfcc"], "float32", "mfcc")
    got = mfcc(samples, n_mfcc=12, lifter=22, **options)
    close(got, golden["liftered"], "float32", "liftered")
    close(deltas(golden["mfcc"], 3), golden["deltas"], "float32", "deltas")


@pytest.mark.parametrize("name", make_golden.AUDIO)
def test_features_are_those_of_librosa(name):
    check_librosa(name, golden_file(name))


@pytest.mark.parametrize("name", make_golden.AUDIO)
def test_librosa_agrees_where_it_is_installed(name):
    pytest.importorskip("librosa")
    pytest.importorskip("python_speech_features")
    check_librosa(name, make_golden.from_librosa(**make_golden.AUDIO[name]))


@pytest.mark.parametrize(
    ("option", "other"),
    [("scale", "slaney"), ("window", "hann"), ("n_fft", 512), ("fmin", 0), ("hop_ms", 9)],
)
def test_another_option_would_be_noticed(option, other, monkeypatch):
    golden, options = golden_file("librosa_htk"), make_golden.AUDIO["librosa_htk"]
    golden["filters"] = mel_filters(8000, 256, 23, 100, 3800, "htk")
    monkeypatch.setitem(options, option, other)
    with pytest.raises(AssertionError):
        close(log_mel(golden["samples"], **options), golden["log_mel"], "float32", "log_mel")


def test_a_tone_is_where_its_mel_is():
    for hz in (300, 1000, 2500):
        tone = np.sin(2 * np.pi * hz / 8000 * np.arange(800))
        for scale in ("htk", "slaney"):
            filters = mel_filters(8000, 256, 20, scale=scale)
            middle = filters.argmax(axis=0)[log_mel(tone, 8000, n_mels=20, scale=scale)[0].argmax()]
            assert abs(middle * 8000 / 256 - hz) < 150


def test_silence_is_the_logarithm_of_the_floor():
    assert np.array_equal(
        log_mel(np.zeros(400), 8000, floor=1e-6),
        np.full((3, 40), np.log(np.float32(1e-6)), np.float32),
    )


def test_mfccs_are_the_cosine_transform(rng):
    samples = rng.normal(size=1000) / 9
    want = dct(log_mel(samples, 8000, n_mels=21), axis=1, norm="ortho")[:, :7]
    np.testing.assert_allclose(mfcc(samples, 8000, n_mfcc=7, n_mels=21), want, atol=1e-4)


@pytest.mark.parametrize("function", [log_mel, mfcc])
@pytest.mark.parametrize("sizes", [[1], [79, 80, 81], [3, 500, 0, 1200]])
def test_a_stream_gives_the_bits_of_the_whole(function, sizes, rng):
    samples = rng.normal(size=9000) / 9
    whole = function(samples[:1500] if sizes == [1] else samples, 8000, hop_ms=12.5)
    stream = FeatureStream(function, 8000, hop_ms=12.5)
    got, start = [], 0
    for size in sizes * 9000:
        got.append(stream(samples[start : start + size]))
        start += size
        if sum(map(len, got)) == len(whole):
            break
    assert np.concatenate(got).tobytes() == whole.tobytes()
    stream.reset()
    assert stream(samples[:500]).tobytes() == whole[: 1 + (500 - 200) // 100].tobytes()


def test_a_frame_depends_on_its_own_samples_alone(rng):
    samples = rng.normal(size=50_000) / 9  # more frames than are computed at a time
    whole = log_mel(samples, 8000, hop_ms=2.5, window_ms=10)
    assert len(whole) > 2 * 1024
    for t in (0, 1, 1023, 1024, 2047, len(whole) - 1):
        alone = log_mel(samples[20 * t : 20 * t + 80], 8000, hop_ms=2.5, window_ms=10)
        assert alone.tobytes() == whole[t : t + 1].tobytes()


def test_threads_leave_the_bits(rng, threads):
    samples = rng.normal(size=9000) / 9
    alone = mfcc(samples, 8000)
    threads.set_num_threads(2)
    assert mfcc(samples, 8000).tobytes() == alone.tobytes()


def test_normalizing_is_over_time_and_leaves_what_does_not_change_at_zero(rng):
    features = rng.normal(size=(50, 3)) * [1, 7, 0] + [4, -100, 1e4]
    got = normalize(features)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(got.std(axis=0), [1, 1, 0], atol=1e-6)
    centred = normalize(features, variance=False)
    np.testing.assert_allclose(centred, features - features.mean(axis=0), atol=1e-4)
    assert normalize(np.zeros((0, 3))).shape == (0, 3)


def test_a_running_normalizer_has_the_bits_of_the_whole_in_chunks(rng):
    features = rng.normal(size=(60, 3)) * [1, 7, 3] + [4, -100, 0]
    known = rng.normal(size=3), rng.random(3) + 1
    normalizer = RunningNormalizer(*known, weight=5)
    whole = normalizer(features)
    normalizer.reset()
    chunks = [normalizer(chunk) for chunk in np.split(features, [0, 1, 2, 20, 20, 59])]
    assert np.concatenate(chunks).tobytes() == whole.tobytes()


def test_a_running_normalizer_goes_from_what_is_known_to_what_is_heard(rng):
    features, known = rng.normal(size=(500, 2)) * 3 + 20, (np.array([1, -2]), np.array([0.5, 2]))
    sure = RunningNormalizer(*known, weight=1e9)(features)
    np.testing.assert_allclose(sure, (features - known[0]) / known[1], rtol=1e-3)
    unsure = RunningNormalizer(*known, weight=1e-3)(features)
    np.testing.assert_allclose(unsure[-1], normalize(features)[-1], rtol=1e-2)
    # The formula by hand, at frame 1.
    got = RunningNormalizer([1.0], [0.5], weight=2)([[4.0], [0.0]])[1, 0]
    mean, square = (2 * 1 + 4) / 4, (2 * (0.25 + 1) + 16) / 4
    assert got == pytest.approx(-mean / np.sqrt(square - mean**2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0]], [1.0]), r"mean: expected shape \(I,\), given \(1, 1\)"),
        (([0.0], [1.0, 2.0]), r"deviation: expected shape \(1,\)"),
        (([0.0], [0.0]), "deviation: expected numbers > 0, given 0"),
        (([0.0], [1.0], 0), "weight: expected a number > 0"),
        (([0.0, 0.0], [1.0, 1.0]), r"features: expected shape \(T, 2\), given \(4, 1\)"),
    ],
)
def test_what_cannot_be_known_before_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RunningNormalizer(*arguments)(np.zeros((4, 1)))


def test_the_slope_of_a_line_is_its_delta():
    line = np.outer(np.arange(9.0), [2.0, -0.5])
    got = deltas(line, 2)
    np.testing.assert_allclose(got[2:-2], np.broadcast_to([2.0, -0.5], (5, 2)))
    assert got[0, 0] == pytest.approx((1 * 2 + 2 * 4) / 10)  # the first frame is repeated
    assert deltas(np.zeros((0, 3))).shape == (0, 3)


def test_nan_goes_through():
    samples = np.zeros(500)
    samples[430] = np.nan
    got = log_mel(samples, 8000)
    assert np.isnan(got[-1]).all() and not np.isnan(got[0]).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"n_mels": 200},
            ValueError,
            "n_mels: expected fewer filters or a longer n_fft, given 200",
        ),
        ({"n_mels": 0}, ValueError, "n_mels: expected a positive integer"),
        ({"fmin": 500, "fmax": 400}, ValueError, "fmin, fmax: expected fmin < fmax <= 4000"),
        ({"fmax": 4001}, ValueError, "half the sample rate, given 0 and 4001"),
        ({"scale": "hkt"}, ValueError, "scale: .* Did you mean 'htk'"),
        ({"window": "han"}, ValueError, "window: .* Did you mean 'hann'"),
        ({"hop_ms": 30}, ValueError, "hop_ms: expected at most window_ms, 25.0, given 30"),
        ({"hop_ms": 0.01}, ValueError, "hop_ms: expected a sample or more at 8000 Hz"),
        ({"n_fft": 128}, ValueError, "n_fft: expected at least the 200 samples of a frame"),
        ({"floor": 0}, ValueError, "floor: expected a number > 0"),
        ({"n_mfcc": 41}, ValueError, "n_mfcc: expected at most n_mels, 40, given 41"),
    ],
)
def test_options_that_cannot_be_are_refused_by_functions_and_streams(options, error, message):
    with pytest.raises(error, match=message):
        mfcc(np.zeros(400), 8000, **options)
    with pytest.raises(error, match=message):
        FeatureStream(mfcc, 8000, **options)


@pytest.mark.parametrize("function", [normalize, deltas])
def test_features_have_two_axes(function):
    with pytest.raises(ValueError, match=r"features: expected shape \(T, I\), given \(3,\)"):
        function([1.0, 2.0, 3.0])
