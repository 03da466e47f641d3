"""The contract's tagged layout written down a second time, with msgpack alone: stands for another tool of the family."""

import msgpack
import numpy as np
import torch

from tests.support.declearn_vectors import NumpyVector, TorchVector


def dumps(obj: object) -> bytes:
    """Write as the contract's table says."""
    return msgpack.packb(obj, default=_tagged, strict_types=True)


def loads(data: bytes) -> object:
    """Read as the contract's table says; unknown tags stay maps."""
    return msgpack.unpackb(data, object_hook=_untagged, strict_map_key=False)


def _tagged(obj: object) -> object:
    if isinstance(obj, tuple):
        return {"__type__": "tuple", "value": list(obj)}
    if isinstance(obj, int):
        return {"__type__": "int", "value": obj.to_bytes(length=obj.bit_length() // 8 + 1, byteorder="big")}
    if isinstance(obj, np.ndarray):
        return {"__type__": "np.ndarray", "value": [obj.tobytes(), obj.dtype.name, list(obj.shape)]}
    if isinstance(obj, np.generic):
        return {"__type__": "np.generic", "value": [obj.tobytes(), obj.dtype.name]}
    if isinstance(obj, torch.Tensor):
        array = obj.cpu().numpy()
        return {"__type__": "torch.Tensor", "value": [array.tobytes(), array.dtype.name, list(array.shape)]}
    if type(obj).__name__.endswith("Vector"):
        return {"__type__": "Vector", "value": obj.coefs}
    raise TypeError(type(obj))


def _untagged(entries: dict[str, object]) -> object:
    readers = {
        "tuple": tuple,
        "int": lambda raw: int.from_bytes(raw, "big"),
        "np.ndarray": _array,
        "np.generic": lambda spec: np.frombuffer(spec[0], spec[1])[0],
        "torch.Tensor": lambda spec: torch.from_numpy(_array(spec)),
        "Vector": _vector,
    }
    reader = readers.get(entries.get("__type__"))
    return entries if reader is None else reader(entries["value"])


def _array(spec: list[object]) -> np.ndarray:
    return np.frombuffer(spec[0], spec[1]).reshape(spec[2]).copy()


def _vector(coefs: dict[str, object]) -> object:
    vector_type = TorchVector if isinstance(next(iter(coefs.values())), torch.Tensor) else NumpyVector
    return vector_type(coefs)
