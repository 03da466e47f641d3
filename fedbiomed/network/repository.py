"""The repository's HTTP side: who asks, may they, and the bytes. Refusals are 4xx (507 for a full disk) with one sentence of reason.

    POST   /v1/tokens              {"component": id}                        -> {"token"}
    POST   /v1/files               body, X-File-Sha256                      -> 201 {"key"}      a file of one request, at most 8 MiB
    POST   /v1/uploads             X-File-Size                              -> 201 {"key"}      another: announce it
    GET    /v1/uploads/<key>                                                -> {"offset"}       how far it came
    PATCH  /v1/uploads/<key>       body, X-Offset, X-Sha256 of all before   -> {"offset"}       the next part; the empty one at the end
                                                                                                confirms the whole
    GET    /v1/files/<key>         Range: bytes=N-                          -> 200 or 206
    DELETE /v1/experiments/<id>                                             -> {"removed"}
    GET    /v1/health                                                       -> {"status", "version"}

X-Experiment and X-Readers (ids, separated by commas, or *) go with the two POSTs of files.
A component that sees the same disk (the answer about its token names the folder, and a file by which it can tell) copies its file into
`incoming` and names it with `X-Incoming` and `X-File-Size` instead of sending a body, and copies what it fetches. Who reads what is not
checked there: in development mode every process of this machine's user can take any name anyway.

Keys are drawn here; a request never names a file, so no path can be made to lead elsewhere.
"""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from flask import Flask, Response, g, jsonify, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.exceptions import HTTPException

from fedbiomed import __version__
from fedbiomed.common.constants import ID_PATTERN
from fedbiomed.common.files import INCOMING, KEY_PATTERN, SHA256_PATTERN
from fedbiomed.network.catalogue import Entry
from fedbiomed.network.refusal import Refusal
from fedbiomed.network.shelf import PART_BYTES, Shelf

logger = logging.getLogger(__name__)
_CHUNK_BYTES = 128 << 10
_LOOPBACK = ("127.", "::1", "::ffff:127.")


def create_app(shelf: Shelf, secret: str, token_age_s: float) -> Flask:
    """Make the application.

    Args:
        shelf: the files and the rules of keeping them.
        secret: what tokens are signed with.
        token_age_s: how long one is good.
    """
    app = Flask("repository", static_folder=None)
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # Flask would answer other spellings with a redirect
    doors = _Doors(shelf, URLSafeTimedSerializer(secret, salt="component"), token_age_s)
    app.before_request(doors.identify)
    for method, rule, view in (
        ("POST", "/v1/tokens", doors.token),
        ("GET", "/v1/health", doors.health),
        ("POST", "/v1/files", doors.store),
        ("GET", "/v1/files/<key>", doors.fetch),
        ("POST", "/v1/uploads", doors.announce),
        ("GET", "/v1/uploads/<key>", doors.offset),
        ("PATCH", "/v1/uploads/<key>", doors.append),
        ("DELETE", "/v1/experiments", doors.discard),
        ("DELETE", "/v1/experiments/<experiment>", doors.discard),
    ):
        app.add_url_rule(rule, view.__name__, view, methods=[method])
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _http_error)
    return app


class _Doors:
    """One method per kind of request."""

    def __init__(self, shelf: Shelf, tokens: URLSafeTimedSerializer, token_age_s: float) -> None:
        self._shelf = shelf
        self._tokens = tokens
        self._token_age_s = int(token_age_s)
        self._proof_name = secrets.token_hex(16)

    def identify(self) -> None:
        """Know the component by its token; only a token and the state of health are had without one."""
        if request.endpoint in ("token", "health", None):
            return
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        try:
            g.component = str(self._tokens.loads(text, max_age=self._token_age_s))
        except BadData as error:
            raise Refusal(401, "no valid token: ask for one at /v1/tokens") from error
        if scheme != "Bearer":
            raise Refusal(401, "the token is to be sent as Bearer")

    def token(self) -> Any:
        """Give a token to who names itself."""
        component = _asked_component()
        if not str(request.remote_addr).startswith(_LOOPBACK):
            raise Refusal(403, "this repository is in development mode and knows components of its own machine only")
        if not isinstance(component, str) or not ID_PATTERN.fullmatch(component):
            raise Refusal(422, f"not the id of a component: {component!r:.80}")
        folder = self._shelf.shared_folder()
        disk = None if folder is None else {"folder": str(folder), "proof": self._proof(folder)}
        return jsonify(token=self._tokens.dumps(component), disk=disk)

    def health(self) -> Any:
        """Say that it serves."""
        return jsonify(status="ok", version=__version__)

    def store(self) -> Any:
        """Take a file of one request, or one that lies in the shared folder."""
        sha256, name = _sha256("X-File-Sha256"), request.headers.get("X-Incoming")
        if name is not None and not KEY_PATTERN.fullmatch(name):
            raise Refusal(422, f"no file of the shared folder: {name!r:.80}")
        size = _length() if name is None else _number("X-File-Size")
        entry = self._shelf.announce(owner=g.component, experiment=_experiment(), readers=_readers(), size=size)
        if name is None:
            self._shelf.store(entry, sha256, _body(size))
        else:
            self._shelf.take(entry, sha256, name)
        return jsonify(key=entry.key), 201

    def fetch(self, key: str) -> Response:
        """Send a file, or the rest of it."""
        entry = self._found(key)
        if not entry.may_read(g.component):
            raise Refusal(403, f"{g.component} may not read this file")
        if not entry.is_complete:
            raise Refusal(409, "this file has not come whole yet")
        return self._sent(entry)

    def announce(self) -> Any:
        """Note that a large file will come."""
        size = _number("X-File-Size")
        return jsonify(key=self._shelf.announce(owner=g.component, experiment=_experiment(), readers=_readers(), size=size).key), 201

    def offset(self, key: str) -> Any:
        """Tell how far a large file has come."""
        return jsonify(offset=self._shelf.length(self._own(key)))

    def append(self, key: str) -> Any:
        """Take the next part of a large file."""
        entry, size = self._own(key), _length()
        return jsonify(offset=self._shelf.append(entry, _number("X-Offset"), _sha256("X-Sha256"), _body(size)))

    def discard(self, experiment: str = "") -> Any:
        """Forget what the component stored for an experiment; without one: what belongs to none."""
        return jsonify(removed=self._shelf.discard(g.component, experiment))

    def _proof(self, folder: Path) -> str:
        """Name of a file by which a component sees that it looks at the same disk."""
        (folder / INCOMING / self._proof_name).touch()
        return self._proof_name

    def _found(self, key: str) -> Entry:
        entry = self._shelf.find(key) if KEY_PATTERN.fullmatch(key) else None
        if entry is None:
            raise Refusal(404, f"there is no file {key!r:.40}: it has aged out, or its experiment has ended")
        return entry

    def _own(self, key: str) -> Entry:
        entry = self._found(key)
        if entry.owner != g.component:
            raise Refusal(403, f"{g.component} did not announce this file")
        return entry

    def _sent(self, entry: Entry) -> Response:
        begin = _range_begin(entry)
        chunks = _Chunks(self._shelf.open(entry, begin))
        response = Response(chunks, status=206 if begin else 200, mimetype="application/octet-stream", direct_passthrough=True)
        response.content_length = entry.size - begin
        if begin:
            response.headers["Content-Range"] = f"bytes {begin}-{entry.size - 1}/{entry.size}"
        response.headers["X-File-Sha256"] = entry.sha256
        return response


class _Chunks:
    """A file on its way out; the server closes it, also when nobody reads it to the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _refused(refusal: Refusal) -> tuple[Response, int]:
    logger.info("%s %s: %d %s", request.method, request.path, refusal.status, refusal)
    return jsonify(error=str(refusal)), refusal.status


def _http_error(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error=error.description), error.code or 500


def _asked_component() -> object:
    try:
        content = request.get_json(silent=True)
    except RecursionError:
        return None
    return content.get("component") if isinstance(content, dict) else None


def _experiment() -> str:
    name = request.headers.get("X-Experiment", "")
    return _id(name) if name else ""


def _readers() -> tuple[str, ...]:
    names = filter(None, request.headers.get("X-Readers", "").split(","))
    return tuple(name if name == "*" else _id(name) for name in names)


def _id(name: str) -> str:
    if not ID_PATTERN.fullmatch(name):
        raise Refusal(422, f"not an id: {name!r:.80}")
    return name


def _length() -> int:
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        raise Refusal(411, "say with Content-Length how many bytes will come")
    if request.content_length > PART_BYTES:
        raise Refusal(413, f"one request carries at most {PART_BYTES} bytes: announce the file at /v1/uploads and send parts")
    return request.content_length


def _body(size: int) -> Iterator[bytes]:
    stream, left = request.environ["wsgi.input"], size  # the server ends it at the declared length; Flask's wrapper costs a copy
    while left:
        try:
            chunk = stream.read(min(left, _CHUNK_BYTES))
        except OSError as error:
            raise Refusal(408, f"{size} bytes were declared, {size - left} came in time") from error
        if not chunk:
            raise Refusal(400, f"{size} bytes were declared, {size - left} came")
        left -= len(chunk)
        yield chunk


def _number(header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Refusal(422, f"header {header} must be a number of bytes, not {text!r:.40}")
    return int(text)


def _sha256(header: str) -> str:
    text = request.headers.get(header, "")
    if not SHA256_PATTERN.fullmatch(text):
        raise Refusal(422, f"header {header} must be a SHA-256 of 64 hex digits, not {text!r:.80}")
    return text


def _range_begin(entry: Entry) -> int:
    wanted = request.range
    if wanted is None:
        return 0
    if len(wanted.ranges) != 1 or wanted.ranges[0][0] is None or wanted.ranges[0][1] is not None or wanted.ranges[0][0] < 0:
        raise Refusal(416, "only a range of the form bytes=N- is served")
    begin: int = wanted.ranges[0][0]
    if begin >= entry.size:
        raise Refusal(416, f"the file has {entry.size} bytes, there is nothing from {begin} on")
    return begin
