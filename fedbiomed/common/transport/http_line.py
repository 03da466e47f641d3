"""One component's line to the repository: who asks, what an answer means, and trying again after a cut.

urllib3 is used without `requests` on top: that costs 0.6 ms more for each request, and a round has some 13 of them for 4 nodes.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError

from fedbiomed.common.exceptions import FedbiomedRepositoryError, FileStoreError
from fedbiomed.common.files import INCOMING, KEY_PATTERN

PATIENCE = 6
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_CONNECTIONS = 16
_AWAY = (408, 429, 502, 503, 504)
T = TypeVar("T")


class Cut(Exception):
    """The line was cut or the repository is away; what was done so far stands."""


class ConflictError(FileStoreError):
    """The repository has another state than the request says."""


class Line:
    """Requests of one component to one repository; may be used by several threads.

    Args:
        base_url: of the repository, `http://localhost:8844` for instance. Proxies and `REQUESTS_CA_BUNDLE` of the environment are
            honoured as they are now.
        component_id: who asks.
        timeout_s: how long to try to reach it, and how long one answer may take.
        secret: what the component was given at its enrolment; None in development mode.
    """

    def __init__(self, base_url: str, component_id: str, *, timeout_s: float, secret: str | None) -> None:
        self.base_url = base_url.rstrip("/")
        self._component_id = component_id
        self._timeout_s = timeout_s
        self._secret = secret
        self._token: str | None = None
        self._disk: Path | None = None
        self._closed = threading.Event()
        self._pool = _pool(self.base_url)

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        is_streamed: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Ask once.

        Args:
            body: a stream of bytes goes with its own `Content-Length` in `headers`.
            is_streamed: leave the answer's body to be read, and closed, by the caller.

        Raises:
            FileStoreError: refused, with the repository's reason.
            Cut: it could not be reached, was busy, or the line was cut.
        """
        token = self._token or self._new_token()
        sent = {**(headers or {}), "Authorization": f"Bearer {token}"}
        answer = self._exchange(method, path, headers=sent, body=body, preload_content=not is_streamed, decode_content=False)
        if answer.status == 401:
            self._token = None
            answer.close()
            raise Cut("the token was not valid any more")
        return _checked(answer)

    def retried(self, action: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Do something again after a cut, with longer and longer pauses, until nothing has moved for too long.

        That is the timeout before anything has moved, and six times as long afterwards: a repository that is started again, or a line
        that is cut for some seconds, costs no transfer.

        Args:
            progress: bytes that have gone over the line so far.

        Raises:
            FedbiomedRepositoryError: no repository, or not any more.
        """
        moved_at, pause_s, before, patience_s = time.monotonic(), _FIRST_PAUSE_S, progress(), self._timeout_s
        while True:
            if self._closed.is_set():
                raise FedbiomedRepositoryError(f"FB200: the store at {self.base_url} was closed")
            try:
                return action()
            except Cut as cut:
                if progress() > before:
                    moved_at, pause_s, before, patience_s = time.monotonic(), _FIRST_PAUSE_S, progress(), PATIENCE * self._timeout_s
                if time.monotonic() + pause_s > moved_at + patience_s or self._closed.wait(pause_s):
                    raise FedbiomedRepositoryError(
                        f"FB201: no repository at {self.base_url}: {cut}; start one with `fedbiomed network start` "
                        "or set its address (--repository, UPLOADS_URL)"
                    ) from cut
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def shared_folder(self) -> Path | None:
        """The repository's folder where it is on this very disk, else None."""
        if self._token is None:
            self.retried(self._new_token)
        return self._disk

    def close(self) -> None:
        """End connections, and waits between tries; a second call does nothing."""
        self._closed.set()
        self._pool.clear()

    def _exchange(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, self.base_url + path, timeout=self._timeout_s, retries=False, redirect=False, **more)
        except HTTPError as error:
            raise Cut(cause_of(error)) from error

    def _new_token(self) -> str:
        answer = self._exchange("POST", "/v1/tokens", json={"component": self._component_id, "secret": self._secret or ""})
        given = _checked(answer)
        token = text_of(given, "token")
        self._disk = _same_disk(given.json().get("disk"))
        self._token = token
        return token


def text_of(answer: urllib3.BaseHTTPResponse, key: str) -> str:
    """One value of a JSON answer, as text.

    Raises:
        FileStoreError: the answer is not of that form.
    """
    try:
        return str(answer.json()[key])
    except (ValueError, KeyError, TypeError) as error:
        raise FileStoreError(f"FB203: the repository's answer holds no {key!r}: is it a repository of this release?") from error


def cause_of(error: BaseException) -> str:
    """The innermost reason, which says what happened without the library's own wrapping."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error)


def _same_disk(offer: Any) -> Path | None:
    """The folder that a repository offers, if the file by which it proves itself is there for us too and we may put files there."""
    if not isinstance(offer, dict) or not KEY_PATTERN.fullmatch(str(offer.get("proof"))):
        return None
    folder = Path(str(offer.get("folder")))
    is_ours = folder.is_absolute() and (folder / INCOMING / offer["proof"]).is_file() and os.access(folder / INCOMING, os.W_OK | os.X_OK)
    return folder if is_ours else None


def _pool(base_url: str) -> urllib3.PoolManager:
    address = urlsplit(base_url)
    certificates: dict[str, Any] = {}
    if address.scheme == "https":
        certificates = {"cert_reqs": "CERT_REQUIRED", "ca_certs": os.environ.get("REQUESTS_CA_BUNDLE")}
    proxy = None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=_CONNECTIONS, **certificates)
    return urllib3.PoolManager(maxsize=_CONNECTIONS, **certificates)


def _checked(answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    if answer.status < 300:
        return answer
    reason = _reason(answer)
    if answer.status in _AWAY:
        raise Cut(reason)
    if answer.status == 409:
        raise ConflictError(f"FB203: the repository refused: {reason}")
    raise FileStoreError(f"{'FB202' if answer.status == 404 else 'FB203'}: the repository refused: {reason}")


def _reason(answer: urllib3.BaseHTTPResponse) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError, HTTPError):
        return f"it answered {answer.status} {answer.reason}"
    finally:
        answer.close()
