import hashlib
import json
import os
import re
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest

from fastgru._version import __version__
from fastgru.errors import FileFormatError
from fastgru.saving import load, pack, save, unpack

DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool"]
METADATA = {"format": "fastgru", "format_version": "1", "sha256": "0" * 64, "config": "{}"}
CONFIG = {
    "name": "größe \U0001f40d \"'\\\n\x00\x7f",
    "layers": [{"units": 8, "rate": 0.1}, None, True, -0.0, 2**70, "0" * 64],
    "": {},
}


def random_arrays(seed=0):
    rng = np.random.default_rng(seed)
    arrays = {f"layer.{dtype}": rng.normal(0, 9, (3, 5)).astype(dtype) for dtype in DTYPES}
    return {**arrays, "0-d": np.array(np.float32(7)), "ü": np.zeros((4, 0, 2), np.int64)}


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name in want:
        assert (got[name].dtype, got[name].shape) == (want[name].dtype, want[name].shape), name
        assert got[name].tobytes() == want[name].tobytes(), name


def file_of(header, body=b""):
    """Put a file together as the format says, correctly signed; header is a dict or raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return sign(len(raw).to_bytes(8, "little") + raw + body)


def sign(data):
    # Written again from the format's description, on purpose without the code of fastgru.
    found = re.search(rb'"sha256":\s*"([0-9a-f]{64})"', data)
    if found is None:
        return data
    before, after = data[: found.start(1)], data[found.end(1) :]
    return before + hashlib.sha256(before + b"0" * 64 + after).hexdigest().encode() + after


def tensor(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def with_tensors(body=b"", metadata=METADATA, **tensors):
    return file_of({"__metadata__": metadata, **tensors}, body)


def with_metadata(**changes):
    metadata = {key: value for key, value in {**METADATA, **changes}.items() if value is not None}
    return with_tensors(metadata=metadata)


def with_header_text(text):
    return file_of(b'{"__metadata__":' + json.dumps(METADATA).encode() + text + b"}")


# ---- what is written


def test_a_small_file_has_exactly_these_bytes(tmp_path):
    path = tmp_path / "m.safetensors"
    arrays = {"w": np.array([[1, -2]], np.float32), "é": np.array([True]), "n": np.array(3, "<i8")}
    save(path, {"units": 2, "ü": [0.5, None]}, arrays)
    header = (
        '{"__metadata__":{"format":"fastgru","format_version":"1",'
        f'"fastgru_version":"{__version__}","sha256":"' + "0" * 64 + '",'
        r'"config":"{\"units\":2,\"ü\":[0.5,null]}"},'
        '"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},'
        '"é":{"dtype":"BOOL","shape":[1],"data_offsets":[16,17]}}'
    ).encode()
    header += b" " * (-len(header) % 8)
    body = b"\x03\0\0\0\0\0\0\0" + b"\0\0\x80\x3f" + b"\0\0\0\xc0" + b"\1"
    assert path.read_bytes() == sign(len(header).to_bytes(8, "little") + header + body)


def test_the_arrays_begin_at_a_multiple_of_8(tmp_path):
    for n in range(8):
        save(tmp_path / "m", {"a": "x" * n}, {"w": np.ones(3)})
        data = (tmp_path / "m").read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        assert begin % 8 == 0 and data[begin:] == np.ones(3).tobytes()


def test_the_same_model_gives_the_same_bytes_in_every_process(tmp_path):
    code = "import sys; from test_saving import *; save(sys.argv[1], CONFIG, random_arrays())"
    for name in "ab":
        run(code, tmp_path / name)
    save(tmp_path / "c", CONFIG, dict(reversed(random_arrays().items())))
    first, *others = [(tmp_path / name).read_bytes() for name in "abc"]
    assert others == [first, first]


def test_a_round_trip_changes_nothing(tmp_path):
    save(tmp_path / "m", CONFIG, random_arrays())
    config, arrays = load(str(tmp_path / "m"))
    assert json.dumps(config) == json.dumps(CONFIG)  # the order of keys and the sign of -0.0 too
    assert_same(arrays, random_arrays())
    for array in arrays.values():
        assert array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative
        array[...] = 1


def test_nothing_at_all_makes_a_round_trip(tmp_path):
    save(tmp_path / "m", {}, {})
    assert load(tmp_path / "m") == ({}, {})


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides_and_byte_order_are_saved_by_value(tmp_path, dtype):
    x = np.random.default_rng(0).normal(0, 9, (4, 6)).astype(dtype)
    given = {
        "transposed": x.T,
        "strided": x[::-2, 1::3],
        "big": x.astype(x.dtype.newbyteorder(">")),
    }
    given["read-only"] = np.broadcast_to(x[0], (3, 6))
    save(tmp_path / "m", {}, given)
    want = {name: np.array(array, dtype, order="C") for name, array in given.items()}
    assert_same(load(tmp_path / "m")[1], want)


def test_nested_state_comes_back_from_a_file_as_it_was(tmp_path):
    state = {
        "a": {"b.c": np.arange(3), "n": [1, None, True, "text", {}]},
        "a.b": {"c": np.arange(4.0)},  # the same path with dots
        "best": [float("nan"), float("-inf"), np.float32(0.5), np.int64(3), np.bool_(False)],
        "pair": (np.zeros((2, 0), "float32"), 2**127 + 1),
    }
    save(tmp_path / "m", {"state": (packed := pack(state))[0]}, packed[1])
    config, arrays = load(tmp_path / "m")
    got = unpack(config["state"], arrays)
    assert np.isnan(got["best"].pop(0))
    assert got["best"] == [float("-inf"), 0.5, 3, False] and got["a"]["n"] == state["a"]["n"]
    assert list(got) == list(state) and got["pair"][1] == 2**127 + 1
    for a, b in (
        (got["a"]["b.c"], np.arange(3)), (got["a.b"]["c"], np.arange(4.0)),
        (got["pair"][0], state["pair"][0]),
    ):  # fmt: skip
        assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("value", [{1, 2}, object(), np.array(["a"]), 1j])
def test_what_a_file_cannot_hold_is_named(tmp_path, value):
    config, arrays = pack({"callbacks": [{"mine": value}]})
    with pytest.raises(TypeError, match=r"callbacks.*mine"):
        save(tmp_path / "m", config, arrays)
    assert not (tmp_path / "m").exists()


def test_nan_and_inf_in_arrays_keep_their_bits(tmp_path):
    x = np.array([0x7FC00001, 0xFFC00000, 0x7F800000, 0x80000000], np.uint32).view(np.float32)
    save(tmp_path / "m", {}, {"x": x})
    assert_same(load(tmp_path / "m")[1], {"x": x})


def test_the_safetensors_package_reads_our_files_and_its_own_are_not_ours(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    save(tmp_path / "m", CONFIG, random_arrays())
    assert_same(load_file(tmp_path / "m"), random_arrays())
    with safe_open(tmp_path / "m", framework="np") as file:
        assert json.loads(file.metadata()["config"]) == CONFIG
    save_file(random_arrays(), tmp_path / "foreign")
    with pytest.raises(FileFormatError, match="do not say that fastgru wrote it"):
        load(tmp_path / "foreign")


def test_a_file_of_another_writer_with_spaces_and_escapes_loads(tmp_path):
    metadata = {"config": '{ "a": [1] }', **{k: METADATA[k] for k in list(METADATA)[2::-1]}}
    header = json.dumps({"é": tensor([1], 0, 4), "__metadata__": metadata}, indent=2).encode()
    (tmp_path / "m").write_bytes(file_of(header, b"\0\0\x80\x3f"))
    assert load(tmp_path / "m") == ({"a": [1]}, {"é": np.float32([1])})


# ---- what is refused before anything is written


@pytest.mark.parametrize(
    "config, arrays, error, message",
    [
        ([], {}, TypeError, "expected config to be a dict, given list"),
        ({"a": [{"b": float("nan")}]}, {}, ValueError, "config['a'][0]['b'], given nan"),
        ({"a": float("-inf")}, {}, ValueError, "finite number in config['a'], given -inf"),
        ({"a": np.float32(1)}, {}, TypeError, "expected config['a'] to be dict, list"),
        ({"a": {1: 2}}, {}, TypeError, "expected str keys in config['a'], given 1"),
        ({"a": "\ud800"}, {}, ValueError, "expected Unicode text in config['a']"),
        ({"\ud800": 1}, {}, ValueError, "expected Unicode text in config['\\ud800']"),
        ({"a": "x" * 2**22}, {}, ValueError, "at most 4194304 bytes of JSON, given 41944"),
        ({}, {"w": np.zeros(2, np.float16)}, TypeError, "'w' of dtype float32, float64, int32"),
        ({}, {"w": np.zeros(2, object)}, TypeError, "given object"),
        ({}, {"w": np.zeros(2, "f4,i4")}, TypeError, "array 'w'"),
        ({}, {"w": [1.0]}, TypeError, "numpy.ndarray, given 'w': list"),
        ({}, {1: np.zeros(2)}, TypeError, "given 1: ndarray"),
        ({}, {"__metadata__": np.zeros(2)}, ValueError, "another name for an array"),
        ({}, {"\udfff": np.zeros(2)}, ValueError, "another name for an array"),
    ],
)
def test_what_cannot_come_back_is_refused(tmp_path, config, arrays, error, message):
    with pytest.raises(error, match=re.escape(message)):
        save(tmp_path / "m", config, arrays)
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(repr(str(tmp_path / "no" / "m")))):
        save(tmp_path / "no" / "m", {}, {})
    with pytest.raises(FileNotFoundError, match=re.escape(repr(str(tmp_path / "m")))):
        load(tmp_path / "m")


# ---- damaged and hostile files; all are signed, so that the checksum is not what stops them


def longest(before, filler, after):
    """Fill a header up to the 4 MiB that are allowed."""
    return before + filler * ((4 * 2**20 - len(before) - len(after)) // len(filler)) + after


META = b'"__metadata__":' + json.dumps(METADATA).encode()
META_NO_CONFIG = META.replace(b"{}", b"[]")
BEFORE_CONFIG, AFTER_CONFIG = json.dumps({"__metadata__": METADATA}).encode().split(b"{}")
EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
VALID = with_tensors(bytes(8), a=tensor([1], 0, 4), b=tensor([1], 4, 8))

HOSTILE = {
    "empty": (b"", "it has 0 bytes"),
    "7 bytes": (VALID[:7], "it has 7 bytes"),
    "pickle": (b"\x80\x04\x95" + bytes(40), "longer than the file"),
    "zip": (b"PK\x03\x04" + bytes(40), ""),
    "only zeros": (bytes(64), "header"),
    "truncated header": (VALID[:50], "longer than the file"),
    "truncated body": (VALID[:-1], ""),
    "trailing byte": (sign(VALID + b"\0"), "not fully covered"),
    "header of 2**64 - 1": (b"\xff" * 8 + bytes(64), "longer than the file"),
    "header above the limit": (file_of(longest(b"{" + META, b" ", b"}") + b" "), "than 4194304 b"),
    "header not UTF-8": (with_header_text(b',"\xff":1'), ""),
    "header not JSON": (with_header_text(b","), "JSON"),
    "header a list": (file_of(b"[]"), ""),
    "no metadata": (file_of({"a": tensor([0], 0, 0)}), "do not say"),
    "metadata null": (file_of(b'{"__metadata__":null}'), "do not say"),
    "metadata not strings": (with_metadata(extra=1), "string"),
    "another format": (with_metadata(format="pt"), "do not say"),
    "newer version": (with_metadata(format_version="2"), "version is '2'.*Install a newer"),
    "long version": (with_metadata(format_version="9" * 9999), "version is '9{39},.*newer"),
    "no version": (with_metadata(format_version=None), "version is None"),
    "no checksum": (with_metadata(sha256=None), "no checksum"),
    "empty checksum": (with_metadata(sha256=""), "no checksum"),
    "wrong checksum": (VALID[:-1] + b"\1", "checksum is wrong"),
    "no config": (with_metadata(config=None), ""),
    "config not JSON": (with_metadata(config="__import__('os')"), ""),
    "config a list": (with_metadata(config="[]"), "not a JSON object"),
    "config with NaN": (with_metadata(config='{"a":NaN}'), "holds NaN"),
    "config with a key twice": (with_metadata(config='{"a":1,"a":2}'), "'a' occurs twice"),
    "config too deep": (with_metadata(config="[" * 10**5), "recursion"),
    "config with a long number": (with_metadata(config="9" * 10**6), ""),
    "overlap": (with_tensors(bytes(4), a=tensor([1], 0, 4), b=tensor([1], 0, 4)), "offset"),
    "gap": (with_tensors(bytes(12), a=tensor([1], 0, 4), b=tensor([1], 8, 12)), "offset"),
    "gap before": (with_tensors(bytes(8), a=tensor([1], 4, 8)), "offset"),
    "reversed": (with_tensors(bytes(4), a=tensor([1], 4, 0)), "offset"),
    "out of range": (with_tensors(bytes(4), a=tensor([2], 0, 8)), ""),
    "far out of range": (with_tensors(bytes(4), a=tensor([2**58], 0, 2**60)), ""),
    "negative offset": (with_tensors(bytes(4), a=tensor([1], -4, 0)), "integer `-4`"),
    "negative size": (with_tensors(bytes(4), a=tensor([-1], 0, 4)), "integer `-1`"),
    "fractional size": (with_tensors(bytes(4), a=tensor([1.0], 0, 4)), ""),
    "size and offsets differ": (with_tensors(bytes(8), a=tensor([1], 0, 8)), ""),
    "overflow to 0": (with_tensors(b"", a=tensor([2**32, 2**32], 0, 0)), "overflow"),
    "overflow before a 0": (with_tensors(b"", a=tensor([2**63, 2**63, 0], 0, 0)), "overflow"),
    "beyond 64 bits": (with_tensors(b"", a=tensor([2**64, 0], 0, 0)), ""),
    "too long for NumPy": (with_tensors(b"", a=tensor([2**62, 0, 2], 0, 0)), ""),
    "100 axes": (with_tensors(bytes(4), a=tensor([1] * 100, 0, 4)), "dimension"),
    "foreign dtype": (with_tensors(bytes(4), a=tensor([2], 0, 4, "BF16")), "'a' has dtype BF16"),
    "unknown dtype": (with_tensors(bytes(4), a=tensor([1], 0, 4, "O")), "unknown variant"),
    "bool of 2": (with_tensors(b"\2", a=tensor([1], 0, 1, "BOOL")), "neither 0 nor 1"),
    "array not an object": (with_tensors(bytes(4), a=[1]), ""),
    "array without shape": (with_tensors(b"", a={"dtype": "F32", "data_offsets": [0, 0]}), "shape"),
    "name twice": (with_header_text(b',"a":' + EMPTY + b',"a":' + EMPTY), "'a' occurs twice"),
    "escaped name twice": (with_header_text(b',"a":' + EMPTY + b',"\\u0061":' + EMPTY), "twice"),
    "metadata twice": (with_header_text(b"," + META), "duplicate"),
    "shape twice": (with_header_text(b',"a":' + EMPTY[:-1] + b',"shape":[0]}'), "duplicate"),
    "too deep": (file_of(longest(b"{" + META + b',"a":', b"[", b"")), "recursion"),
    "unknown and too deep": (with_header_text(b',"a":' + EMPTY[:-1] + b',"b":' + b"[" * 9999), ""),
    "long shape": (
        file_of(
            longest(b'{%b,"a":{"dtype":"U8","data_offsets":[0,0],"shape":[' % META, b"0,", b"0]}}")
        ),
        "dimension",
    ),
    "config of empty objects": (
        file_of(longest(BEFORE_CONFIG + b"[", b"{},", b"{}]" + AFTER_CONFIG)),
        "not a JSON object",
    ),
    "unknown of empty objects": (
        file_of(longest(b'{%b,"a":%b,"b":[' % (META_NO_CONFIG, EMPTY[:-1]), b"{},", b"{}]}}")),
        "not a JSON object",
    ),
    "70,000 arrays of no bytes and one of 1": (
        file_of(
            b"{%b,%b}" % (META, b",".join(b'"%d":%b' % (i, EMPTY) for i in range(70_000))),
            b"\0",
        ),
        "not fully covered",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_path_and_a_reason(tmp_path, name):
    data, reason = HOSTILE[name]
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(
        FileFormatError, match=f"(?s){re.escape(repr(str(tmp_path / 'm')))}.*{reason}"
    ) as caught:
        load(tmp_path / "m")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_the_valid_file_beside_the_hostile_ones_loads(tmp_path):
    (tmp_path / "m").write_bytes(VALID)
    assert_same(load(tmp_path / "m")[1], {"a": np.zeros(1, "f4"), "b": np.zeros(1, "f4")})


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux reports it")
def test_no_hostile_file_takes_a_second_or_200_mb(tmp_path):
    for i, (data, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{i}").write_bytes(data)
    # Sparse: 4 GB for load to read, nothing on the disk.
    for name, tensors in {"trailing": {}, "gap": {"a": tensor([1], 2**32 - 4, 2**32)}}.items():
        data = with_tensors(**tensors)
        (tmp_path / name).write_bytes(data)
        os.truncate(tmp_path / name, len(data) + 2**32)
    code = """
        import os, resource, sys, time
        from fastgru.errors import FileFormatError
        from fastgru.saving import load, pack, save, unpack
        save(sys.argv[1] + "/warm", {}, {})
        load(sys.argv[1] + "/warm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.unlink(sys.argv[1] + "/warm")

        def seconds(name):
            start = time.process_time()
            try:
                load(os.path.join(sys.argv[1], name))
            except FileFormatError:
                return time.process_time() - start
            raise AssertionError(name)

        for name in os.listdir(sys.argv[1]):
            assert any(seconds(name) < 1 for attempt in range(3)), name  # the machine may be busy
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    """
    assert int(run(code, tmp_path)) < 200e6


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    save(tmp_path / "good", CONFIG, random_arrays())
    good = (tmp_path / "good").read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(600):
        bad = bytearray(good)
        if trial % 3 == 0:
            del bad[rng.integers(len(good)) :]
        else:
            for _ in range(trial % 3):
                bad[rng.integers(len(good))] ^= 1 << rng.integers(8)
        if bad == good:
            continue
        (tmp_path / "m").write_bytes(bad)
        with pytest.raises(FileFormatError):
            load(tmp_path / "m")


def test_a_damaged_header_with_a_right_checksum_raises_nothing_else(tmp_path):
    save(tmp_path / "good", {"a": [1, 2.5, "x"]}, {"w": np.ones((2, 3)), "b": np.array([True])})
    good = (tmp_path / "good").read_bytes()
    rng = np.random.default_rng(1)
    loaded = 0
    for _ in range(1000):
        bad = bytearray(good)
        i = rng.integers(8, len(good) - 49)
        bad[i] = rng.choice(list(b'{}[]",:019-e\\\x00\xff')) if rng.random() < 0.7 else bad[i - 1]
        (tmp_path / "m").write_bytes(sign(bytes(bad)))
        try:
            load(tmp_path / "m")
            loaded += 1
        except FileFormatError:
            pass
    assert 0 < loaded < 500  # some bytes are names and values; most are structure


# ---- crashes


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    save(tmp_path / "m", {"step": 1}, random_arrays(1))

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path / "m", {"step": 2}, random_arrays(2))
    config, arrays = load(tmp_path / "m")
    assert config == {"step": 1}
    assert_same(arrays, random_arrays(1))
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_save_leaves_a_whole_file(tmp_path):
    code = """
        import os, random, signal, struct, sys, time
        import numpy as np
        from fastgru.saving import load, pack, save, unpack

        path, steps = sys.argv[1] + "/m", []

        def save_step(step):
            save(path, {"step": step}, {"x": np.full(300_000, step, np.float32)})

        save_step(0)
        for seed in range(20):
            ready, written = os.pipe()
            child = os.fork()
            if child == 0:
                for step in range(steps[-1] if steps else 0, 10**6):
                    begin = time.monotonic()
                    save_step(step)
                    os.write(written, struct.pack("d", time.monotonic() - begin))
            # Its first save says how long one takes now, and so when the next ones go on.
            os.close(written)
            (took,) = struct.unpack("d", os.read(ready, 8))
            time.sleep(random.Random(seed).uniform(0, 5) * took)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(ready)
            config, arrays = load(path)
            assert (arrays["x"] == config["step"]).all()
            steps.append(config["step"])
        assert steps == sorted(steps) and steps[-1] > 0, steps
    """
    run(code, tmp_path)


def run(code, *arguments):
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
