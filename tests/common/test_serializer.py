"""Files of parameters: what goes in comes out, here and in another tool that follows the contract's table."""

import collections
import enum
import logging
import math
import random
import subprocess
import sys

import msgpack
import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedTypeError, FedbiomedValueError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.serializer_read import Reader
from fedbiomed.common.serializer_types import NUMPY_DTYPES, TENSOR_DTYPES, Budget
from fedbiomed.common.serializer_write import Writer
from tests.support import reference_serializer
from tests.support.declearn_vectors import NumpyVector, TorchVector

DTYPES = sorted(NUMPY_DTYPES)
SHAPES = [(), (0,), (3,), (2, 3), (4, 0, 2), (1, 2, 1, 2, 1, 2, 1, 2)]
PLAIN = [
    None,
    True,
    False,
    *(0, 1, -1, 127, 128, -32, -33, 255, 256, 2**15, -(2**15) - 1, 2**31, -(2**31) - 1, 2**32, 2**63 - 1, -(2**63), 2**64 - 1),
    *(0.0, -1.5, math.inf, 1e-300),
    *("", "é" * 20, "x" * 40, "x" * 300, "x" * 70_000),
    *(b"", b"\x00\xff", b"y" * 300, b"y" * 70_000),
    *([], {}, [1, [2.5, None]], {"a": {"b": []}}, {1: "i", None: "n", True and 2.5: "f", b"k": "b"}),
    list(range(20)),
    list(range(70_000)),
    {f"k{i}": i for i in range(20)},
    {i: -i for i in range(300)},
]
TAGGED = [(), (1, (2, "x")), [()], 2**64, 2**64 + 1, 2**200, {"big": [2**70, 1, "x"]}]


def array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(7).integers(-9, 9, shape)
    return np.asarray(values > 0) if dtype == "bool" else values.astype(dtype)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


@pytest.mark.parametrize("value", PLAIN + TAGGED, ids=lambda value: f"{value!r:.20}")
def test_values_go_both_ways_between_us_and_another_tool(value):
    ours = Serializer.dumps(value)
    assert Serializer.loads(ours) == value
    assert reference_serializer.loads(ours) == value
    assert Serializer.loads(reference_serializer.dumps(value)) == value


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{value!r:.20}")
def test_plain_values_are_plain_msgpack(value):
    assert Serializer.dumps(value) == msgpack.packb(value)


def test_every_length_of_header_is_read():
    for header in (b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"):
        assert Serializer.loads(header + b"\xa1k\xdb\x00\x00\x00\x01v") == {"k": "v"}
    for header in (b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"):
        assert Serializer.loads(header + b"\xca\x3f\x80\x00\x00") == [1.0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_go_both_ways_between_us_and_another_tool(dtype, shape):
    value = array(dtype, shape)
    ours = Serializer.dumps({"w": value})
    assert ours == reference_serializer.dumps({"w": value})
    back = Serializer.loads(ours)["w"]
    assert same(back, value)
    assert back.flags.owndata
    assert back.flags.writeable
    assert back.flags.c_contiguous
    assert same(reference_serializer.loads(ours)["w"], value)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_go_both_ways_between_us_and_another_tool(dtype, shape):
    value = torch.from_numpy(array(dtype, shape))
    ours = Serializer.dumps({"w": value})
    assert ours == reference_serializer.dumps({"w": value})
    for back in (Serializer.loads(ours)["w"], reference_serializer.loads(ours)["w"]):
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert bool((back == value).all())
    Serializer.loads(ours)["w"].zero_()  # writable


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_scalars_keep_their_type(dtype):
    value = array(dtype, (1,))[0]
    ours = Serializer.dumps([value])
    assert ours == reference_serializer.dumps([value])
    for back in (Serializer.loads(ours)[0], reference_serializer.loads(ours)[0]):
        assert type(back) is type(value)
        assert back == value


def test_bfloat16_tensors_are_carried_under_their_own_name():
    value = torch.tensor([[1.5, -2.0], [0.0, 3.0]], dtype=torch.bfloat16)
    back = Serializer.loads(Serializer.dumps(value))
    assert back.dtype == torch.bfloat16
    assert torch.equal(back, value)
    assert {"bfloat16"} == TENSOR_DTYPES - NUMPY_DTYPES
    scalar = Serializer.loads(Serializer.dumps(torch.tensor(2.0, dtype=torch.bfloat16)))
    assert scalar == 2.0
    assert scalar.shape == ()


def test_arrays_that_lie_otherwise_in_memory_come_back_equal():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    cases = {
        "transposed": base.T,
        "strided": base[::2, ::-1],
        "fortran": np.asfortranarray(base),
        "big-endian": base.astype(">f4"),
        "big-endian scalar": np.array(5, ">i8"),
        "broadcast": np.broadcast_to(np.float64(3), (2, 2)),
        "read-only": np.frombuffer(base.tobytes(), np.float32),
    }
    back = Serializer.loads(Serializer.dumps(cases))
    for name, value in cases.items():
        assert np.array_equal(back[name], value), name
        assert back[name].dtype.isnative, name
        assert back[name].flags.owndata, name
        assert back[name].flags.writeable, name
    assert same(reference_serializer.loads(Serializer.dumps(base.astype(">f4"))), base)


def test_tensors_that_lie_otherwise_in_memory_come_back_equal():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    cases = {
        "transposed": base.T,
        "strided": base[:, ::3],
        "channels last": base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "needs a gradient": torch.nn.Parameter(base),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negated": torch.tensor([1 + 2j]).conj().imag,
        "bfloat16 transposed": base.T.bfloat16(),
        "expanded": torch.ones(1).expand(3),
    }
    back = Serializer.loads(Serializer.dumps(cases))
    for name, value in cases.items():
        assert torch.equal(back[name], value), name
        assert not back[name].requires_grad, name


def test_a_negative_large_integer_comes_back():
    for value in (-(2**63) - 1, -(2**64), -(2**300)):
        assert Serializer.loads(Serializer.dumps([value])) == [value]


def test_vectors_of_declearn_come_back_with_their_type():
    for vector in (NumpyVector({"a": np.ones(3), "b": np.zeros((2, 2))}), TorchVector({"a": torch.ones(3)})):
        ours = Serializer.dumps({"aux": vector})
        assert ours == reference_serializer.dumps({"aux": vector})
        assert Serializer.loads(ours)["aux"] == vector
        assert type(Serializer.loads(ours)["aux"]) is type(vector)


def test_containers_derived_from_ours_are_written_as_what_they_derive_from():
    point = collections.namedtuple("point", "x y")  # the case under test
    value = {"state": collections.OrderedDict(a=1), "shape": torch.Size([2, 3]), "point": point(1, 2)}
    assert Serializer.loads(Serializer.dumps(value)) == {"state": {"a": 1}, "shape": (2, 3), "point": (1, 2)}


def test_lists_of_numbers_longer_than_a_block_come_back():
    draw = random.Random(3)
    for value in (
        [draw.randrange(2**64) for _ in range(140_000)],
        [draw.choice([draw.random(), -draw.randrange(2**40), True, None]) for _ in range(70_000)],
        [*range(70_000), "end", 2**70],
        [[]] * 100,
        [2**70] * 100,
        [""] * 100,
        [{}, b""] * 50,
    ):
        assert Serializer.loads(Serializer.dumps(value)) == value


def test_a_file_comes_back_and_nothing_else_is_left(tmp_path):
    value = {"model_weights": {"w": torch.ones(5, 5), "n": np.arange(3)}, "researcher_id": "r"}
    path = tmp_path / "params.mpk"
    Serializer.dump(value, str(path))
    assert path.read_bytes() == Serializer.dumps(value)
    back = Serializer.load(path)
    assert torch.equal(back["model_weights"]["w"], value["model_weights"]["w"])
    path.unlink()  # the arrays do not lie in the file
    back["model_weights"]["n"] += 1
    assert back["model_weights"]["n"].tolist() == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(FedbiomedTypeError):
        Serializer.dump({"w": np.ones(9), "bad": object()}, tmp_path / "params.mpk")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_or_missing_file_is_named(tmp_path):
    path = tmp_path / "empty.mpk"
    path.touch()
    with pytest.raises(FedbiomedValueError, match=r"cannot read .*empty\.mpk: the file is empty"):
        Serializer.load(path)
    with pytest.raises(FileNotFoundError):
        Serializer.load(tmp_path / "none.mpk")


def test_bytes_of_any_kind_of_buffer_are_read():
    data = Serializer.dumps({"w": np.arange(4)})
    for buffer in (data, bytearray(data), memoryview(data)):
        assert Serializer.loads(buffer)["w"].tolist() == [0, 1, 2, 3]


def test_large_arrays_are_split_and_joined():
    value = {"w": np.arange(10, dtype=np.int16), "t": torch.arange(5.0), "b": torch.ones(4).bfloat16(), "small": np.ones(1, np.int32)}
    pieces = []
    Writer(pieces.append, part_bytes=7).write(value)  # 20 bytes: 7 + 7 + 6, cut within an element
    data = b"".join(pieces)
    assert msgpack.unpackb(data)["w"]["__type__"] == "np.ndarray.parts"
    assert [len(part) for part in msgpack.unpackb(data)["w"]["value"][0]] == [7, 7, 6]
    assert msgpack.unpackb(data)["small"]["__type__"] == "np.ndarray"
    back = Reader(memoryview(data)).read()
    assert same(back["w"], value["w"])
    assert torch.equal(back["t"], value["t"])
    assert torch.equal(back["b"], value["b"])


@pytest.mark.parametrize("raw", [{"__type__": "set", "value": [1]}, {"a": 1, "__type__": 3}, {"__type__": [1]}], ids=str)
def test_an_unknown_tag_warns_and_gives_its_map(raw, caplog):
    with caplog.at_level(logging.WARNING, "fedbiomed"):
        assert Serializer.loads(msgpack.packb(raw)) == raw
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert Serializer.loads(Serializer.dumps(raw)) == raw


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        bytearray(b"x"),
        range(3),
        1j,
        Colour.RED,
        Word("x"),
        torch.nn.Linear(1, 1),
        torch.float32,
        np.array([object()]),
        np.array(["text"]),
        np.array([1], "datetime64[s]"),
        np.zeros(2, [("a", "f4")]),
        np.ma.masked_array([1, 2], [True, False]),
        np.str_("x"),
        np.float64(1).astype(np.longdouble),
        torch.eye(2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2).to(torch.float8_e4m3fn),
        {(1, 2): 3},
        {2**64: 1},
        {np.int64(1): 1},
        NumpyVector,
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused_by_name(value):
    for wrapped in (value, [[value]], {"k": (value,)}):
        with pytest.raises(FedbiomedTypeError, match="cannot write a") as caught:
            Serializer.dumps(wrapped)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\ud800", "cannot write a str"),
        ({"__type__": "tuple", "value": []}, "reserved for tagged values"),
        (1 << (1 << 20), "65536 are allowed"),
        (-(1 << (1 << 20)), "65536 are allowed"),
        (np.ones((1,) * 9), "at most 8 dimensions"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_out_of_bounds_are_refused(value, reason):
    with pytest.raises(FedbiomedValueError, match=reason):
        Serializer.dumps([value])


def nested(depth: int, innermost: object) -> object:
    value = innermost
    for i in range(depth):
        value = [[value], {"k": value}, (value,)][i % 3]
    return value


def test_what_is_written_can_be_read_up_to_the_deepest():
    for innermost in (1, [], (), {}, np.ones(1), np.float32(1), torch.ones(1), 2**70, -(2**70)):
        levels = 16 if innermost == 1 and type(innermost) is int else 15
        data = Serializer.dumps(nested(levels, innermost))
        assert Serializer.dumps(Serializer.loads(data)) == data
        with pytest.raises(FedbiomedValueError, match="more than 16 deep"):
            Serializer.dumps(nested(levels + 1, innermost))


def test_a_value_that_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(FedbiomedValueError, match="more than 16 deep"):
        Serializer.dumps(value)


def test_the_budget_counts_alike_on_both_sides():
    value = {"a": [1, (2, {}), np.ones(2), np.float32(1), 2**70, "x", list(range(40))], "b": NumpyVector({"c": np.ones(1)})}
    writer = Writer(lambda _: None)
    writer.write(value)
    reader = Reader(memoryview(Serializer.dumps(value)))
    reader.read()
    assert vars(writer._budget) == vars(reader._budget)


def test_a_spent_budget_refuses():
    budget = Budget(values=6, containers=1)
    budget.spend(2)
    budget.enter(15, "int")  # 4
    budget.enter(15, "tuple")
    with pytest.raises(FedbiomedValueError, match="too many values"):
        budget.spend()
    with pytest.raises(FedbiomedValueError, match="too many containers"):
        budget.enter(0)


def test_neither_torch_nor_declearn_is_loaded_without_need(tmp_path):
    code = (
        "import sys; from fedbiomed.common.serializer import Serializer; import numpy; "
        "Serializer.loads(Serializer.dumps({'w': numpy.ones(3)})); "
        "assert not {'torch', 'sklearn', 'declearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=tmp_path)
