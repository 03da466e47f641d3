"""Messages: what is written is read back, and nothing else is taken."""

import contextlib
import json
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbiomed.common.constants import MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages import codec
from fedbiomed.common.messages.discovery import DatasetsReply, PingRequest, SearchRequest
from fedbiomed.common.messages.message import Message, field_types
from fedbiomed.common.messages.monitoring import LogLine
from fedbiomed.common.messages.secagg import SecaggTerms
from fedbiomed.common.messages.training import TrainProgress, TrainReply, TrainRequest

REF = FileRef(key="0" * 32, sha256="1" * 64, size=3)
BASE = {"request_id": "r1", "researcher_id": "researcher_a", "issued_at": 1.5, "expires_at": 2}
TRAIN: dict[str, Any] = {
    **BASE,
    "node_id": "node_a",
    "job_id": "job_1",
    "round": 0,
    "attempt": 1,
    "training": True,
    "plan": REF,
    "plan_class": "Plan",
    "params": REF,
    "dataset_id": "dataset_1",
    "state_id": None,
    "training_args": {"betas": [0.9, None]},
    "model_args": {},
    "aggregator_args": {},
    "aggregator_files": {"correction": REF},
    "aux_files": (REF,),
    "secagg": None,
}

TERMS = SecaggTerms(
    session="AA==", job="job_1", members=["a", "b"], threshold=2, max_weight=9, bits=32, scheme="lom", distrusts_researcher=False
)


def example(kind: Any) -> Any:
    """A value of a field's type."""
    text = str(kind)
    for exact, value in ((FileRef, REF), (SecaggTerms, TERMS)):
        if kind is exact:
            return value
    if kind == tuple[LogLine, ...]:
        return (LogLine(at=0.5, logger="a", level="INFO", msg="b"),)
    maps = (("dict[str, dict[str, str", {"a": {"b": "c"}}), ("dict[str, str", {"a": "b"}), ("dict[str, float", {"a": 1.5}))
    for spelled, value in (*maps, ("tuple[str", ("a",)), ("tuple[fed", (REF,)), ("tuple[dict", ({"a": 1},)), ("dict[str, fed", {"a": REF})):
        if text.startswith(spelled):
            return value
    if text.startswith("dict"):
        return {"a": [1, "b", None, {"c": True}]}
    return {str: "x1", int: 3, float: 0.5, bool: True}.get(kind)


@pytest.mark.parametrize("message_type", codec.MESSAGE_TYPES.values(), ids=list(codec.MESSAGE_TYPES))
def test_every_message_comes_back_as_it_was(message_type: type[Message]) -> None:
    message = message_type(**{name: example(kind) for name, kind in field_types(message_type).items()})
    assert codec.decode(codec.encode(message)) == message


def test_every_message_has_a_docstring_of_its_own() -> None:
    assert all(kind.__doc__ and not kind.__doc__.startswith(kind.__name__ + "(") for kind in codec.MESSAGE_TYPES.values())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"round": "0"}, "round must be int"),
        ({"round": True}, "round must be int"),
        ({"round": 2**63}, "round must be int"),
        ({"training": 1}, "training must be bool"),
        ({"node_id": "a/b"}, "node_id is not an id"),
        ({"node_id": "+"}, "node_id is not an id"),
        ({"node_id": ""}, "node_id is not an id"),
        ({"plan": None}, "plan must be FileRef"),
        ({"aux_files": [REF]}, "aux_files must be"),
        ({"training_args": {"a": object()}}, "training_args must be"),
        ({"training_args": {1: "a"}}, "training_args must be"),
    ],
)
def test_a_message_checks_its_fields(change: dict[str, Any], part: str) -> None:
    with pytest.raises(FedbiomedMessageError, match=part):
        TrainRequest(**{**TRAIN, **change})


def wire(**change: Any) -> bytes:
    """A valid search as JSON, with changes; a value of `...` takes the field away."""
    content = {"type": "SearchRequest", "protocol_version": PROTOCOL_VERSION, **BASE, "tags": ["a"], **change}
    return json.dumps({name: value for name, value in content.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "JSON object"),
        (b"[" * 60_000, "not JSON"),
        (b" " * (MAX_MESSAGE_BYTES + 1), "at most"),
        (wire(protocol_version="2"), "protocol version"),
        (wire(protocol_version=...), "protocol version"),
        (wire(type="Message"), "unknown message type"),
        (wire(type=["SearchRequest"]), "unknown message type"),
        (wire(colour="red"), "unknown fields"),
        (wire(tags=...), "missing fields"),
        (wire(tags="a"), "tags must be"),
        (wire(tags=[1]), "tags must be"),
        (wire(issued_at="now"), "issued_at must be float"),
        (wire(issued_at=float("nan")), "not a JSON number"),
        (wire(issued_at=0).replace(b'"issued_at": 0', b'"issued_at": 1e999'), "not a JSON number"),
        (wire(issued_at=10**400), "issued_at must be float"),
        (wire(tags=["a"]).decode().encode("utf-16"), "not JSON"),
        (wire(tags=["X"]).replace(b"X", b"\xed\xa0\x80"), "not JSON"),
    ],
)
def test_what_is_not_a_message_is_refused(payload: bytes, part: str) -> None:
    with pytest.raises(FedbiomedMessageError, match=part):
        codec.decode(payload)


@pytest.mark.parametrize(
    "ref",
    [None, 1, {"key": "0" * 32}, {**asdict(REF), "url": "http://x"}, {**asdict(REF), "key": "../" + "0" * 29}, {**asdict(REF), "size": -1}],
)
def test_a_file_reference_is_checked(ref: Any) -> None:
    payload = json.loads(codec.encode(TrainRequest(**TRAIN)))
    payload["params"] = ref
    with pytest.raises(FedbiomedMessageError):
        codec.decode(json.dumps(payload).encode())


def test_too_large_a_message_is_not_sent() -> None:
    with pytest.raises(FedbiomedMessageError, match="put large things in a file"):
        codec.encode(SearchRequest(**BASE, tags=("a" * MAX_MESSAGE_BYTES,)))


def test_nan_is_not_sent() -> None:
    progress = {field.name: example(field_types(TrainProgress)[field.name]) for field in fields(TrainProgress)}
    with pytest.raises(FedbiomedMessageError, match="JSON"):
        codec.encode(TrainProgress(**{**progress, "metrics": {"Loss": float("nan")}}))


def test_defaults_may_be_left_out() -> None:
    payload = json.loads(codec.encode(DatasetsReply(request_id="r", researcher_id="a", node_id="n", databases=(), count=0)))
    del payload["part"], payload["parts"]
    reply = codec.decode(json.dumps(payload).encode())
    assert isinstance(reply, DatasetsReply)
    assert (reply.part, reply.parts) == (0, 1)


def test_half_a_character_becomes_a_question_mark() -> None:
    search = codec.decode(wire(tags=["a\ud800", "\U0001f600"]))
    assert isinstance(search, SearchRequest)
    assert search.tags == ("a?", "\U0001f600")


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    with contextlib.suppress(FedbiomedMessageError):
        codec.decode(payload)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.integers(0, 2000), st.integers(0, 255), st.integers(1, 3))
def test_any_changed_message_is_decoded_or_refused(place: int, byte: int, count: int) -> None:
    payload = bytearray(codec.encode(PingRequest(**BASE)) if count == 1 else codec.encode(TrainRequest(**TRAIN)))
    payload[place % len(payload)] = byte
    with contextlib.suppress(FedbiomedMessageError):
        codec.decode(bytes(payload))


def test_a_reply_without_result_is_a_message() -> None:
    reply = TrainReply(
        request_id="r",
        researcher_id="a",
        node_id="n",
        job_id="j",
        round=0,
        success=False,
        msg="no",
        dataset_id="d",
        state_id=None,
        result=None,
        sample_size=0,
        timing={},
        metrics=(),
    )
    assert codec.decode(codec.encode(reply)) == reply
