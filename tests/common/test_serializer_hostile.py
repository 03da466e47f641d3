"""Files that somebody made to harm: each is refused with a reason, before it has cost more memory than the file itself has."""

import pickle
import random
import struct
import tracemalloc

import msgpack
import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedValueError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.serializer_read import Reader
from fedbiomed.common.serializer_types import Budget
from tests.support.declearn_vectors import NumpyVector

ALLOWED_PEAK_BYTES = 128 * 1024  # an error with its traceback, a few small lists, and one unpacker of msgpack (some 64 KiB)


def tagged(tag: str, value: object, **more: object) -> bytes:
    return msgpack.packb({"__type__": tag, "value": value, **more})


def spec(raw: bytes, dtype: object, shape: object, tag: str = "np.ndarray") -> bytes:
    return tagged(tag, [raw, dtype, shape])


HUGE = 2**63 - 1
HOSTILE = {
    "empty": b"",
    "a list of 4 billion elements": b"\xdd\xff\xff\xff\xff",
    "a list of 4 billion elements within lists": b"\xdd\xff\xff\xff\xff" * 20,
    "a list as long as the file, at every level": b"".join(b"\xdd" + struct.pack(">I", 1_000) for _ in range(16)) + bytes(1_000),
    "a map of 4 billion entries": b"\xdf\xff\xff\xff\xff",
    "a map with half its entries": b"\xdf\x00\x00\x80\x00" + bytes(40_000),
    "a text of 4 GiB": b"\xdb\xff\xff\xff\xff" + b"x" * 10,
    "bytes of 4 GiB": b"\xc6\xff\xff\xff\xff" + b"x" * 10,
    "a cut number": b"\xcf\x00",
    "an array of 4 GiB of bytes that are not there": b"\x82\xa8__type__\xaanp.ndarray\xa5value\x93\xc6\xff\xff\xff\xff",
    "an array of 1 TiB": spec(b"1234", "float32", [2**38]),
    "an array whose size wraps round to 0": spec(b"", "float32", [2**32, 2**32]),
    "an empty array that cannot be addressed": spec(b"", "float64", [0, HUGE]),
    "an empty tensor that cannot be addressed": spec(b"", "float64", [HUGE, 0, HUGE], "torch.Tensor"),
    "a negative dimension": spec(b"1234", "int8", [-2, -2]),
    "a dimension that is not an integer": spec(b"1", "int8", [1.0]),
    "a dimension that is a bool": spec(b"1", "int8", [True]),
    "a dimension that is a list": spec(b"1", "int8", [[1]]),
    "nine dimensions": spec(b"1", "int8", [1] * 9),
    "a million dimensions": spec(b"1", "int8", [1] * 1_000_000),
    "a shape that is a number": spec(b"1", "int8", 1),
    "more bytes than the shape says": spec(b"12345", "float32", [1]),
    "fewer bytes than the shape says": spec(b"123", "float32", [1]),
    "no bytes for a scalar": spec(b"", "float32", []),
    "objects": spec(bytes(8), "object", [1]),
    "objects by their letter": spec(bytes(8), "O", [1]),
    "texts as an array": spec(bytes(8), "<U2", [1]),
    "void": spec(bytes(8), "V8", [1]),
    "a structured dtype": spec(bytes(8), "f4,f4", [1]),
    "a dtype of 1 GiB per element": spec(b"", "S1073741824", [0]),
    "a dtype in another byte order": spec(bytes(4), ">f4", [1]),
    "a dtype of a megabyte of text": spec(bytes(4), "f" * 1_000_000, [1]),
    "a dtype that is bytes": spec(bytes(4), b"float32", [1]),
    "bfloat16 for numpy": spec(bytes(2), "bfloat16", [1]),
    "a bool that is neither": spec(b"\x02", "bool", [1]),
    "an array without shape": tagged("np.ndarray", [b"1", "int8"]),
    "an array that is a map": tagged("np.ndarray", {"raw": b"1"}),
    "an array of text": spec("1", "int8", [1]),
    "parts that do not fill the array": tagged("np.ndarray.parts", [[b"1"] * 3, "int8", [4]]),
    "more parts than allowed": tagged("np.ndarray.parts", [[b""] * 70_000, "int8", [0]]),
    "parts that are lists": tagged("torch.Tensor.parts", [[[b"1"]], "int8", [1]]),
    "a scalar of an object": tagged("np.generic", [bytes(8), "object"]),
    "a scalar with too many bytes": tagged("np.generic", [bytes(9), "float64"]),
    "a scalar with a shape": tagged("np.generic", [bytes(8), "float64", []]),
    "a tuple of a text": tagged("tuple", "abc"),
    "a tuple of 4 billion elements": b"\x82\xa8__type__\xa5tuple\xa5value\xdd\xff\xff\xff\xff",
    "an integer of a text": tagged("int", "1"),
    "an integer of a megabyte": tagged("int", bytes(1_000_000)),
    "a tag without a value": msgpack.packb({"__type__": "tuple"}),
    "a tag with a wrong second key": msgpack.packb({"__type__": "tuple", "values": []}),
    "a tag with more beside it": tagged("tuple", [], more=1),
    "a tag behind its value": msgpack.packb({"value": [], "__type__": "tuple"}),
    "a vector of nothing": tagged("Vector", {}),
    "a vector of numbers": tagged("Vector", {"a": 1}),
    "a vector of a list": tagged("Vector", [1]),
    "a vector with a number for a name": Serializer.dumps(NumpyVector({1: np.ones(1)})),
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "a key that is a list": b"\x81\x90\x01",
    "a key that is a map": b"\x81\x80\x01",
    "a text that is not UTF-8": b"\xa2\xff\xfe",
    "a reserved code": b"\xc1",
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "a time stamp": msgpack.packb(msgpack.Timestamp(1, 1)),
    "an extension in a long list": msgpack.packb([1] * 50 + [msgpack.ExtType(5, b"x")]),
    "two values": b"\x01\x02",
    "seventeen lists": b"\x91" * 17 + b"\x01",
    "a million lists": b"\x91" * 1_000_000,
    "a thousand maps": b"\x81\xa1a" * 1000,
    "a pickle": pickle.dumps({"w": 1.0}),
    "an archive": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_before_memory_is_taken(name, tmp_path):
    path = tmp_path / "hostile.mpk"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(FedbiomedValueError):
        Serializer.loads(HOSTILE[name])  # once before, so that what is loaded late does not count
    tracemalloc.start()
    try:
        with pytest.raises(FedbiomedValueError, match=r"cannot read .*hostile\.mpk: ") as caught:
            Serializer.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < ALLOWED_PEAK_BYTES
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_number_of_values_and_containers_is_bounded():
    for data, reason in ((msgpack.packb([[]] * 20), "too many containers"), (msgpack.packb([1] * 200), "too many values")):
        with pytest.raises(FedbiomedValueError, match=reason):
            Reader(memoryview(data), Budget(values=100, containers=10)).read()


def test_a_reason_names_the_place():
    # 1 byte begins the map, 2 are the key, 2 begin a text of 0x64 = 100 bytes, of which one is there
    with pytest.raises(FedbiomedValueError, match="cannot read 6 bytes of parameters: byte 5: 100 bytes are announced, 1 are there"):
        Serializer.loads(b"\x81\xa1w\xd9\x64x")


def test_no_mutation_of_a_good_file_does_anything_but_load_or_be_refused():
    value = {
        "w": np.arange(6, dtype=np.float32),
        "n": (1, 2**70, -(2**70)),
        "s": np.float64(2),
        "l": list(range(40)),
        "x": {"y": [None, "é"]},
    }
    good = Serializer.dumps(value)
    draw = random.Random(11)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            Serializer.loads(data[: draw.choice([len(data), len(data), draw.randrange(len(data))])])
        except FedbiomedValueError:
            outcomes["refused"] += 1
        else:
            outcomes["loaded"] += 1
    assert min(outcomes.values()) > 50, outcomes
