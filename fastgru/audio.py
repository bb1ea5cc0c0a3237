"""Sound to features: WAV files, frames, log-mel energies, MFCCs."""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable
from reprlib import repr as shortened
from typing import Any, BinaryIO

import numpy as np

from fastgru import kernels
from fastgru.errors import FileFormatError
from fastgru.files import write_atomically
from fastgru.validation import (
    array_of,
    boolean,
    non_negative,
    one_of,
    positive,
    positive_int,
    shape_of,
)

WINDOW_MS, HOP_MS = 25.0, 10.0
BLOCK = 1024  # frames whose spectra are in memory at a time

# ---- WAV files

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
_COMPRESSED = {
    2: "Microsoft ADPCM",
    6: "A-law",
    7: "mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x50: "MPEG",
    0x55: "MP3",
    0xFF: "AAC",
}
# The end of the identifier of a format that an extensible header wraps; its number comes before.
_WRAPPED = bytes.fromhex("000000001000800000aa00389b71")
# Programs that write into a pipe do not know the size yet: they write 0, this, or somewhat more.
UNKNOWN_SIZE = 0x7FFFF000
HIGHEST_RATE = 1_000_000  # in Hz; a damaged header must not make a resampling filter of gigabytes
MOST_CHANNELS = 256  # likewise
# 30 dB above what [-1, 1] holds: no recording, but samples that are still those of 16 bits.
LOUDEST = 32.0


def read_wav(
    file: str | os.PathLike[str] | BinaryIO, sample_rate: int | None = None
) -> tuple[np.ndarray, int]:
    """Read a WAV file as one channel of float samples.

    PCM of 8, 16, 24 and 32 bits and float of 32 and 64 bits, with a plain or an extensible header.
    Channels are averaged.

    Parameters
    ----------
    file : str, os.PathLike or binary file
        What to read.
    sample_rate : int, optional
        Samples per second to resample to; by default those of the file.

    Returns
    -------
    samples : array (n,) float32
        In [-1, 1]; samples that a float file holds beyond that stay as they are.
    sample_rate : int
        Samples per second.

    Raises
    ------
    FileFormatError
        If the file is no WAV file, is cut short or damaged, or its samples are compressed.
    TypeError
        If `file` is neither a path nor a binary file.

    References
    ----------
    Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", 1991;
    Microsoft, "Multiple Channel Audio Data and WAVE Files", 2007 (the extensible header).

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_wav(file, [0.0, 0.5, -1.0], 8000)
    >>> _ = file.seek(0)
    >>> samples, sample_rate = read_wav(file)
    >>> samples.tolist(), sample_rate
    ([0.0, 0.5, -1.0], 8000)
    """
    if isinstance(file, (str, os.PathLike)):
        name = os.fspath(file)
        with open(file, "rb") as opened:
            content = opened.read()
    elif hasattr(file, "read"):
        name, content = str(getattr(file, "name", "file")), file.read()
    else:
        raise _no_file(file)
    format_chunk, data = _chunks_of(name, content)
    kind, channels, rate = _format_of(name, format_chunk)
    data = data[: len(data) - len(data) % (channels * kind.itemsize)]
    mixed = _as_floats(data, kind).reshape(-1, channels).mean(axis=1).astype(np.float32)
    if sample_rate is None:
        return mixed, rate
    return resample(mixed, rate, sample_rate), int(sample_rate)


def _no_file(given: Any) -> TypeError:
    return TypeError(f"file: expected a path or a binary file, given {shortened(given)}")


def _chunks_of(name: str, content: bytes) -> tuple[bytes, bytes]:
    """Return the chunks of the format and of the samples."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise FileFormatError(
            f"{name}: expected a WAV file, which begins with 'RIFF', a size and 'WAVE', "
            f"given {content[:12]!r}"
        )
    found: dict[bytes, bytes] = {}
    start = 12
    while b"data" not in found and start + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, start)
        start += 8
        if kind == b"data" and not size and not _is_chunk(content, start):
            size = len(content) - start
        chunk = content[start : start + size]
        if len(chunk) < size and not (kind == b"data" and size >= UNKNOWN_SIZE):
            raise FileFormatError(
                f"{name}: expected {size} bytes in the chunk {kind.decode('latin-1')!r}, "
                f"given {len(chunk)}; the file is cut short"
            )
        found.setdefault(kind, chunk)
        start += size + size % 2
    for kind, what in ((b"fmt ", "of the format"), (b"data", "of samples")):
        if kind not in found:
            raise FileFormatError(
                f"{name}: expected a chunk {what}, {kind.decode()!r}, given none; "
                "the file is cut short or damaged"
            )
    return found[b"fmt "], found[b"data"]


def _is_chunk(content: bytes, start: int) -> bool:
    """Return whether a chunk is there, not samples or nothing."""
    if start + 8 > len(content):
        return False
    kind, size = struct.unpack_from("<4sI", content, start)
    return kind.isascii() and kind.decode().isprintable() and start + 8 + size <= len(content)


def _format_of(name: str, chunk: bytes) -> tuple[np.dtype[Any], int, int]:
    """Return the dtype of a sample in the file, the number of channels and the sample rate.

    Three bytes have no dtype of NumPy's: they are a void of three.
    """
    if len(chunk) < 16:
        raise FileFormatError(
            f"{name}: expected 16 bytes of format or more, given {len(chunk)}; the file is damaged"
        )
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _WRAPPED:
        tag = int.from_bytes(chunk[24:26], "little")
    dtype = _DTYPES.get((tag, bits))
    if dtype is None:
        if tag in (PCM, FLOAT):
            what = f"{'PCM' if tag == PCM else 'float'} of {bits} bits"
        else:
            what = f"the format {tag:#06x} ({_COMPRESSED.get(tag, 'unknown')})"
        raise FileFormatError(
            f"{name}: expected PCM of 8, 16, 24 or 32 bits or float of 32 or 64 bits, "
            f"given {what}; convert it, as with: ffmpeg -i FILE -c:a pcm_s16le NEW.wav"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise FileFormatError(f"{name}: expected 1 to {MOST_CHANNELS} channels, given {channels}")
    if not 1 <= rate <= HIGHEST_RATE:
        raise FileFormatError(
            f"{name}: expected a sample rate from 1 to {HIGHEST_RATE} Hz, given {rate}"
        )
    return dtype, channels, rate


_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {
    (PCM, 8): np.dtype("u1"),
    (PCM, 16): np.dtype("<i2"),
    (PCM, 24): np.dtype("V3"),
    (PCM, 32): np.dtype("<i4"),
    (FLOAT, 32): np.dtype("<f4"),
    (FLOAT, 64): np.dtype("<f8"),
}


def _as_floats(data: bytes, kind: np.dtype[Any]) -> np.ndarray:
    """Return the samples of a file in [-1, 1], as float64."""
    if kind.kind == "f":
        return np.frombuffer(data, kind).astype(np.float64)
    if kind.kind == "u":  # eight bits alone are unsigned
        return (np.frombuffer(data, kind) - 128.0) / 128.0
    if kind.kind == "V":
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)  # the high bytes of 32 bits
        return wide.view("<i4")[:, 0] / 2.0**31
    return np.frombuffer(data, kind) / 2.0 ** (8 * kind.itemsize - 1)


def write_wav(file: str | os.PathLike[str] | BinaryIO, samples: Any, sample_rate: int) -> None:
    """Write samples as a WAV file: one channel, 16-bit PCM.

    Parameters
    ----------
    file : str, os.PathLike or binary file
        Where to. A path is replaced as a whole or not at all.
    samples : array (n,) of float
        In [-1, 1]; what is beyond is clipped, up to 32.
    sample_rate : int
        Samples per second.

    Raises
    ------
    ValueError, TypeError
        If the samples are not one channel of finite floats, or are far beyond [-1, 1].
    """
    rate = _rate("sample_rate", sample_rate)
    samples = _plausible("samples", _waveform(samples))
    data = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    header = struct.pack("<HHIIHH", PCM, 1, rate, 2 * rate, 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(header)) + header
    chunks += b"data" + struct.pack("<I", len(data)) + data
    content = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    if isinstance(file, (str, os.PathLike)):
        write_atomically(file, content, "file")
    elif hasattr(file, "write"):
        file.write(content)
    else:
        raise _no_file(file)


def resample(samples: Any, sample_rate: int, new_rate: int) -> np.ndarray:
    """Change the number of samples per second.

    Parameters
    ----------
    samples : array (n,) of float
        One channel.
    sample_rate, new_rate : int
        Samples per second, before and after.

    Returns
    -------
    array (ceil(n * new_rate / sample_rate),) float32
        What is above half the lower rate is filtered out.

    Raises
    ------
    ValueError, TypeError
        If the samples are not one channel of floats, or a rate is not from 1 to 1,000,000.

    References
    ----------
    scipy.signal.resample_poly, with its default filter.
    """
    rates = _rate("sample_rate", sample_rate), _rate("new_rate", new_rate)
    samples = _waveform(samples)
    if rates[0] != rates[1] and samples.size:
        from scipy.signal import resample_poly

        common = math.gcd(*rates)
        samples = resample_poly(samples, rates[1] // common, rates[0] // common)
    return samples.astype(np.float32)


def _rate(name: str, value: Any) -> int:
    rate = positive_int(name, value)
    if rate > HIGHEST_RATE:
        raise ValueError(f"{name}: expected at most {HIGHEST_RATE} Hz, given {rate}")
    return rate


def _plausible(name: str, samples: np.ndarray) -> np.ndarray:
    """Return samples if they can be those of a sound in [-1, 1], or raise.

    What is a little beyond passes, up to 32, for programs write float files with such samples.
    """
    if not np.isfinite(samples).all():
        raise ValueError(f"{name}: expected finite numbers, given NaN or infinity")
    largest = np.abs(samples).max(initial=0)
    if largest > LOUDEST:
        raise ValueError(
            f"{name}: expected samples in [-1, 1], given {largest:g}; divide those of 16 bits by "
            "32768, of 32 bits by 2147483648"
        )
    return samples


def _waveform(samples: Any) -> np.ndarray:
    """Return samples (n,) as float64, or raise."""
    array = array_of("samples", samples)
    if array.ndim != 1:
        raise ValueError(f"samples: expected one channel, shape (n,), given {array.shape}")
    if array.dtype.kind != "f" and array.size:
        raise TypeError(
            f"samples: expected floats in [-1, 1], given {array.dtype}; divide 16-bit samples "
            "by 32768"
        )
    return array.astype(np.float64)


# ---- features: what is known of frame t comes from the samples of frame t alone


def frames(samples: Any, window: int, hop: int) -> np.ndarray:
    """Cut samples into frames that overlap.

    Parameters
    ----------
    samples : array (n,) of float
        One channel.
    window, hop : int
        Samples of a frame, and from the beginning of one to the next.

    Returns
    -------
    array (T, window) float64
        Read-only, a view. T = 1 + (n - window) // hop, or 0 if there are fewer samples than a
        window has: nothing is padded.
    """
    window, hop = positive_int("window", window), positive_int("hop", hop)
    samples = _waveform(samples)
    if len(samples) < window:
        return np.empty((0, window))
    return np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]


def _hz_to_mel(hz: Any, scale: str) -> Any:
    """Return mels.

    htk:     2595 log10(1 + f / 700)
    slaney:  3 f / 200 below 1000 Hz, above it 15 + 27 log(f / 1000) / log(6.4)
    """
    hz = np.asarray(hz, float)
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(
        hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4)
    )


def _mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


SCALES = ("htk", "slaney")


def mel_filters(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    scale: str = "htk",
) -> np.ndarray:
    """Return triangular filters whose middles are at equal distances in mels.

    Parameters
    ----------
    sample_rate : int
        Samples per second.
    n_fft : int
        Samples of a Fourier transform.
    n_mels : int
        How many filters.
    fmin, fmax : float
        Where the first begins and the last ends, in Hz; `fmax` is half the sample rate by default.
    scale : {"htk", "slaney"}
        ``"htk"``: mels are 2595 log10(1 + f / 700), and all filters have the height 1.
        ``"slaney"``: mels are linear below 1000 Hz and logarithmic above, and all filters have
        the area 1 (over Hz).

    Returns
    -------
    array (n_fft // 2 + 1, n_mels) float64
        To multiply spectra with.

    Raises
    ------
    ValueError, TypeError
        If a value is out of range, or a filter is too narrow for the transform to have a frequency
        in it.

    References
    ----------
    S. Young et al., "The HTK Book", section 5.4; M. Slaney, "Auditory Toolbox", 1998. The numbers
    are those of librosa.filters.mel with ``htk=True, norm=None`` and with its defaults.
    """
    rate, n_fft = _rate("sample_rate", sample_rate), positive_int("n_fft", n_fft)
    n_mels, fmin = positive_int("n_mels", n_mels), non_negative("fmin", fmin)
    fmax = rate / 2 if fmax is None else positive("fmax", fmax)
    scale = one_of("scale", scale, SCALES)
    if not fmin < fmax <= rate / 2:
        raise ValueError(
            f"fmin, fmax: expected fmin < fmax <= {rate / 2:g}, half the sample rate, "
            f"given {fmin:g} and {fmax:g}"
        )
    first, last = _hz_to_mel([fmin, fmax], scale)
    edges = _mel_to_hz(np.linspace(first, last, n_mels + 2), scale)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    hz = np.arange(n_fft // 2 + 1)[:, None] * rate / n_fft
    filters = np.maximum(0, np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)))
    empty = np.flatnonzero(~filters.any(axis=0))
    if empty.size:
        raise ValueError(
            f"n_mels: expected fewer filters or a longer n_fft, given {n_mels} and {n_fft}: filter "
            f"{empty[0]}, from {low[empty[0]]:.0f} to {high[empty[0]]:.0f} Hz, has no frequency"
        )
    return filters * 2 / (high - low) if scale == "slaney" else filters


# The windows of n samples, periodic: of n + 1 samples the last is left out.
WINDOWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hann": lambda phase: 0.5 - 0.5 * np.cos(phase),
    "hamming": lambda phase: 0.54 - 0.46 * np.cos(phase),
}


@functools.lru_cache(maxsize=16)
def _packed_filters(*arguments: Any) -> Any:
    filters = mel_filters(*arguments).astype(np.float32)
    return kernels.pack_dense(filters, np.zeros(filters.shape[1], np.float32))


@functools.lru_cache(maxsize=16)
def _packed_cosines(n_mels: int, n_mfcc: int, lifter: float) -> Any:
    k = np.arange(n_mfcc)
    cosines = np.cos(np.pi * k * (np.arange(n_mels)[:, None] + 0.5) / n_mels) * math.sqrt(
        2 / n_mels
    )
    cosines[:, 0] /= math.sqrt(2)
    if lifter:
        cosines *= 1 + lifter / 2 * np.sin(np.pi * k / lifter)
    return kernels.pack_dense(cosines.astype(np.float32), np.zeros(n_mfcc, np.float32))


def _samples_in(name: str, milliseconds: float, rate: int) -> int:
    samples = round(positive(name, milliseconds) * rate / 1000)
    if not samples:
        raise ValueError(f"{name}: expected a sample or more at {rate} Hz, given {milliseconds} ms")
    return samples


def log_mel(
    samples: Any,
    sample_rate: int,
    *,
    n_mels: int = 40,
    window_ms: float = WINDOW_MS,
    hop_ms: float = HOP_MS,
    fmin: float = 0.0,
    fmax: float | None = None,
    scale: str = "htk",
    window: str = "hann",
    n_fft: int | None = None,
    floor: float = 1e-10,
) -> np.ndarray:
    """Compute the logarithms of the energies that mel filters let through, frame by frame.

    Formula: log(max(F' |rfft(w s)|^2, floor)), with the natural logarithm, s the samples of a
    frame, w the window and F `mel_filters`.

    Parameters
    ----------
    samples : array (n,) of float
        One channel, in [-1, 1].
    sample_rate : int
        Samples per second.
    n_mels : int
        How many filters.
    window_ms, hop_ms : float
        Milliseconds of a frame, and from the beginning of one to the next, which are at most as
        many; both are rounded to samples.
    fmin, fmax : float
        Where the first filter begins and the last ends, in Hz; see `mel_filters`.
    scale : {"htk", "slaney"}
        See `mel_filters`.
    window : {"hann", "hamming"}
        What a frame is multiplied with; periodic.
    n_fft : int, optional
        Samples of the Fourier transform, those beyond the frame zero; by default the next power of
        two.
    floor : float
        The least energy.

    Returns
    -------
    array (T, n_mels) float32
        T as in `frames`: a frame depends on its own samples alone, bit for bit.

    Raises
    ------
    ValueError, TypeError
        If a value is out of range, or the samples are not one channel of floats.

    References
    ----------
    S. Davis, P. Mermelstein, "Comparison of parametric representations for monosyllabic word
    recognition", 1980. The numbers are those of librosa.feature.melspectrogram with
    ``center=False``, as `mel_filters` says.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 440 / 8000 * np.arange(8000))
    >>> features = log_mel(tone, 8000)
    >>> features.shape, int(features[0].argmax())
    ((98, 40), 10)
    """
    rate = _rate("sample_rate", sample_rate)
    size, hop = _samples_in("window_ms", window_ms, rate), _samples_in("hop_ms", hop_ms, rate)
    if hop > size:
        raise ValueError(f"hop_ms: expected at most window_ms, {window_ms}, given {hop_ms}")
    n_fft = 1 << (size - 1).bit_length() if n_fft is None else positive_int("n_fft", n_fft)
    if n_fft < size:
        raise ValueError(f"n_fft: expected at least the {size} samples of a frame, given {n_fft}")
    taper = WINDOWS[one_of("window", window, WINDOWS)](2 * np.pi * np.arange(size) / size)
    n_mels = positive_int("n_mels", n_mels)
    filters = _packed_filters(rate, n_fft, n_mels, fmin, fmax, scale)
    framed = frames(samples, size, hop)
    mel = np.empty((len(framed), n_mels), np.float32)
    for start in range(0, len(framed), BLOCK):
        spectrum = np.fft.rfft(framed[start : start + BLOCK] * taper, n_fft)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        kernels.dense_forward(power, filters, out=mel[start : start + BLOCK])
    return np.log(np.maximum(mel, positive("floor", floor), dtype=np.float64)).astype(np.float32)


def mfcc(
    samples: Any, sample_rate: int, *, n_mfcc: int = 13, lifter: float = 0.0, **options: Any
) -> np.ndarray:
    """Compute mel-frequency cepstral coefficients: the cosine transform of `log_mel`.

    Parameters
    ----------
    samples, sample_rate
        As in `log_mel`.
    n_mfcc : int
        How many coefficients, the first, which is the level, included; at most `n_mels`.
    lifter : float
        L in 1 + L / 2 sin(pi k / L), by which coefficient k is multiplied; 0 for not at all.
        HTK uses 22.
    **options
        Those of `log_mel`.

    Returns
    -------
    array (T, n_mfcc) float32
        T as in `frames`.

    Raises
    ------
    ValueError, TypeError
        As `log_mel`, and if there are fewer filters than coefficients.

    References
    ----------
    Davis and Mermelstein 1980, with the orthonormal DCT-II as librosa and scipy have it; "The HTK
    Book", section 5.6, for the liftering.
    """
    n_mfcc, lifter = positive_int("n_mfcc", n_mfcc), non_negative("lifter", lifter)
    mel = log_mel(samples, sample_rate, **options)
    if n_mfcc > mel.shape[1]:
        raise ValueError(f"n_mfcc: expected at most n_mels, {mel.shape[1]}, given {n_mfcc}")
    return kernels.dense_forward(mel, _packed_cosines(mel.shape[1], n_mfcc, lifter))


class FeatureStream:
    """Features of a sound that comes in chunks: bit for bit those of the whole.

    Parameters
    ----------
    function : callable
        `log_mel` or `mfcc`, or another that takes their `window_ms` and `hop_ms` and computes a
        frame from its own samples alone.
    sample_rate : int
        Samples per second.
    **options
        Those of the function.

    Examples
    --------
    >>> stream = FeatureStream(log_mel, 8000, n_mels=20)
    >>> [len(stream(np.zeros(n))) for n in (150, 150, 1000)]
    [0, 2, 12]
    """

    def __init__(
        self, function: Callable[..., np.ndarray], sample_rate: int, **options: Any
    ) -> None:
        self._features = functools.partial(function, sample_rate=sample_rate, **options)
        rate = _rate("sample_rate", sample_rate)
        self._hop = _samples_in("hop_ms", options.get("hop_ms", HOP_MS), rate)
        self._rest = np.empty(0)
        self._features(self._rest)  # finds wrong options before the first chunk comes

    def __call__(self, samples: Any) -> np.ndarray:
        """Take samples (n,), any number; return the features (T, I) of the frames now complete."""
        rest = np.concatenate([self._rest, _waveform(samples)])
        features = self._features(rest)
        self._rest = rest[len(features) * self._hop :]
        return features

    def reset(self) -> None:
        """Forget the samples of the frame that is not complete, for another sound."""
        self._rest = np.empty(0)


def _features(features: Any) -> np.ndarray:
    array = array_of("features", features)
    if array.ndim != 2:
        raise ValueError(f"features: expected shape (T, I), given {array.shape}")
    return array.astype(np.float64)


# Below this a deviation is what rounding leaves, and dividing by it would blow that up.
LEAST_DEVIATION = 1e-5


def normalize(features: Any, *, variance: bool = True) -> np.ndarray:
    """Give the features of one utterance mean 0 and variance 1 over time.

    Parameters
    ----------
    features : array (T, I)
        Of one utterance, without padding.
    variance : bool
        Whether to divide by the standard deviation, too. What does not change over time becomes 0.

    Returns
    -------
    array (T, I) float32
    """
    array = _features(features)
    if not array.size:
        return array.astype(np.float32)
    array = array - array.mean(axis=0)
    if boolean("variance", variance):
        array = array / np.maximum(array.std(axis=0), LEAST_DEVIATION)
    return array.astype(np.float32)


class RunningNormalizer:
    """Normalize features of a sound that goes on, by its frames so far and what was known before.

    Called with the first frames, then with the next: bit for bit what all at once give.

    Formula: y[t] = (x[t] - m[t]) / s[t], where m and s are the mean and the standard deviation over
    the frames 0 to t and `weight` frames with the mean and deviation known before.

    Parameters
    ----------
    mean, deviation : array (I,)
        Known before, such as those of all utterances that a model was trained on.
    weight : float
        For how many frames they count; above 0.

    Examples
    --------
    >>> normalizer = RunningNormalizer([2.0], [0.5], weight=3)
    >>> print(normalizer([[2.0], [3.0]]).round(2))
    [[0.  ]
     [1.44]]
    """

    def __init__(self, mean: Any, deviation: Any, weight: float = 50.0) -> None:
        self._mean = array_of("mean", mean).astype(np.float64)
        self._deviation = array_of("deviation", deviation).astype(np.float64)
        shape_of("mean", self._mean, ("I",))
        shape_of("deviation", self._deviation, self._mean.shape)
        if not (self._deviation > 0).all():
            raise ValueError(f"deviation: expected numbers > 0, given {self._deviation.min()}")
        self._weight = positive("weight", weight)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        squares = self._deviation**2 + self._mean**2
        self._count = self._weight
        self._sums = self._weight * np.stack([self._mean, squares])

    def __call__(self, features: Any) -> np.ndarray:
        """Take features (T, I), any number of frames; return them normalized (T, I), as float32."""
        array = _features(features)
        shape_of("features", array, ("T", len(self._mean)))
        sums = np.stack([array, array**2], axis=1)
        sums = np.cumsum(np.concatenate([self._sums[None], sums]), axis=0)
        count = self._count + np.arange(len(sums))
        self._sums, self._count = sums[-1], count[-1]
        mean, square = np.moveaxis(sums[1:] / count[1:, None, None], 1, 0)
        # As in `normalize`.
        deviation = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), LEAST_DEVIATION)
        return ((array - mean) / deviation).astype(np.float32)


def deltas(features: Any, width: int = 2) -> np.ndarray:
    """Compute how features change over time: the slope of a line through 2 width + 1 frames.

    Formula: d[t] = sum(n (x[t + n] - x[t - n])) / (2 sum(n^2)) over n = 1 to width, where the first
    and the last frame are repeated beyond the ends.

    Parameters
    ----------
    features : array (T, I)
        Of one utterance.
    width : int
        How many frames to look at on either side.

    Returns
    -------
    array (T, I) float32

    References
    ----------
    "The HTK Book", section 5.9; python_speech_features.delta.
    """
    array, width = _features(features), positive_int("width", width)
    if not len(array):
        return array.astype(np.float32)
    padded = np.pad(array, ((width, width), (0, 0)), mode="edge")
    steps, T = np.arange(1, width + 1), len(array)
    slopes = sum(
        n * (padded[width + n : width + n + T] - padded[width - n : width - n + T]) for n in steps
    )
    return (slopes / (2 * (steps**2).sum())).astype(np.float32)
