"""Put the network's two servers together: the embedded broker and the file repository, in one process or the repository alone."""

import errno
import logging
import sqlite3
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from cheroot.wsgi import Server

from fedbiomed.common import plugins
from fedbiomed.common.exceptions import FedbiomedNetworkError
from fedbiomed.common.files import INCOMING
from fedbiomed.network import storage as storages
from fedbiomed.network.broker import EmbeddedBroker
from fedbiomed.network.catalogue import Catalogue
from fedbiomed.network.config import NetworkConfig
from fedbiomed.network.repository import create_app
from fedbiomed.network.shelf import PART_BYTES, Shelf
from fedbiomed.network.storage.storage import Storage

logger = logging.getLogger(__name__)
_THREADS = 16
_KEPT_LINES = 512
_BACKLOG = 128
_HEADROOM_BYTES = 64 << 10
_END_S = 5
_READ_TIMEOUT_S = 10


class _LoggedServer(Server):
    """A server that tells the log what goes wrong instead of stderr."""

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Write one record."""
        logger.log(level, "%s", msg, exc_info=traceback)


class RepositoryServer:
    """The file repository, listening while the `with` block runs.

    Args:
        config: where to listen and what to allow; port 0 takes a free one.

    Raises:
        FedbiomedNetworkError: the port is in use, the folder cannot be used, or the storage is not known.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._exit = ExitStack()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Base URL; known when it listens."""
        if self._server is None:
            raise FedbiomedNetworkError("the repository has not been started")
        host, port = self._server.bind_addr[:2]
        return f"http://{host}:{port}"

    def start(self) -> None:
        """Listen; returns when requests are answered."""
        config = self._config
        catalogue = self._exit.enter_context(_opened(config.var / "catalogue.sqlite"))
        shelf = Shelf(catalogue, _storage_type(config.storage)(config.var / "files"), config.var / "growing", config)
        app = create_app(shelf, catalogue.secret(), config.token_age_s)
        server = _LoggedServer(
            (config.host, config.http_port),
            app,
            numthreads=_THREADS,
            request_queue_size=_BACKLOG,
            timeout=_READ_TIMEOUT_S,
            shutdown_timeout=_END_S,
        )
        server.keep_alive_conn_limit = _KEPT_LINES
        server.max_request_body_size = PART_BYTES + _HEADROOM_BYTES
        server.max_request_header_size = _HEADROOM_BYTES
        _listen(server, config)
        self._server = server
        thread = threading.Thread(target=server.serve, name="repository", daemon=True)
        thread.start()
        self._exit.callback(thread.join, _END_S)
        self._exit.callback(server.stop)

    def close(self) -> None:
        """Stop listening; a second call does nothing."""
        self._exit.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Network:
    """Broker and repository in this process, listening while the `with` block runs.

    Args:
        config: where to listen and what to allow.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self._broker = EmbeddedBroker(config.host, config.mqtt_port)
        self._repository = RepositoryServer(config)
        self._exit = ExitStack()

    @property
    def mqtt_address(self) -> tuple[str, int]:
        """Host and port of the broker."""
        return self._broker.host, self._broker.port

    @property
    def http_url(self) -> str:
        """Base URL of the repository."""
        return self._repository.url

    def close(self) -> None:
        """End both; a second call does nothing."""
        self._exit.close()

    def __enter__(self) -> Self:
        with ExitStack() as exit_:
            exit_.enter_context(self._broker)
            exit_.enter_context(self._repository)
            self._exit = exit_.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _storage_type(name: str) -> type[Storage]:
    found = getattr(plugins.load_member(storages, name), "STORAGE", None)
    if found is None:
        raise FedbiomedNetworkError(f"storage = {name!r:.80} is no kind of storage; disk is one")
    kind: type[Storage] = found
    return kind


def _opened(path: Path) -> Catalogue:
    """The catalogue, with the folders beside it of the files that it tells of."""
    try:
        for folder in (path.with_name("files") / INCOMING, path.with_name("growing")):
            folder.mkdir(parents=True, exist_ok=True)
        return Catalogue(path)
    except (OSError, sqlite3.Error) as error:
        raise FedbiomedNetworkError(f"cannot use the repository's folder {path.parent}: {error}; mend it, or name another --dir") from error


def _listen(server: Server, config: NetworkConfig) -> None:
    try:
        server.prepare()
    except OSError as error:
        where = f"port {config.http_port} on {config.host}"
        if error.errno == errno.EADDRINUSE or "in use" in str(error):
            raise FedbiomedNetworkError(f"{where} is in use: stop what listens there or choose another with --http-port") from error
        raise FedbiomedNetworkError(f"the repository cannot listen on {where}: {error}") from error
