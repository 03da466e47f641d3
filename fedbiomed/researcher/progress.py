"""What the nodes do, while they do it: a live table in a terminal or a notebook, plain lines elsewhere. All of it on stderr."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedbiomed.common.messages.training import TrainProgress
from fedbiomed.researcher.history import LOSS

_LINE_EVERY_S = 10.0
_REFRESHES_PER_S = 4
_LONG_ID = 20
_ENDS = frozenset({"answered", "left out"})


@dataclass(slots=True)
class NodeRow:
    """What is known of one node in the present round; times are seconds by its clock."""

    clock: Callable[[], float] = time.monotonic
    state: str = "asked"
    phase: str = ""
    iteration: int = 0
    num_iterations: int = 0
    samples: int = 0
    num_samples: int = 0
    loss: float | None = None
    began: float = field(init=False)
    ended: float | None = None
    _first: tuple[float, int] = (0.0, 0)
    _ready_at: float | None = None

    def __post_init__(self) -> None:
        self.began = self.clock()

    def take(self, news: TrainProgress) -> None:
        """The node has come further."""
        now = self.clock()
        if news.phase != self.phase or news.iteration < self.iteration:
            self._first = (now, news.iteration)
        self.phase, self.state = news.phase, _plain(f"{news.state} {news.phase.lower()}".strip())
        self.iteration, self.num_iterations = news.iteration, news.num_iterations
        self.samples, self.num_samples = news.samples, news.num_samples
        self.loss = next((value for name, value in news.metrics.items() if name.startswith(LOSS)), self.loss)
        self._ready_at = self._estimate(now)

    def end(self) -> None:
        """Nothing more is heard of it in this round."""
        self.ended, self._ready_at = self.clock(), None

    def _estimate(self, now: float) -> float | None:
        """When this phase will be over, by its pace since its first report; by that since the order while there is only one."""
        left = self.num_iterations - self.iteration
        since, before = self._first if self.iteration > self._first[1] else (self.began, 0)
        if left < 0 or self.iteration <= before:
            return None
        return now + left * (now - since) / (self.iteration - before)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was asked, up to its reply."""
        return (self.ended or self.clock()) - self.began

    @property
    def left_s(self) -> float | None:
        """Seconds until its present phase will be over, as far as that can be told."""
        return None if self._ready_at is None else max(0.0, self._ready_at - self.clock())

    @property
    def left_text(self) -> str:
        """The same in words, or nothing."""
        return "" if self.left_s is None else duration(self.left_s)

    @property
    def samples_done(self) -> str:
        """Samples done of those to do."""
        return f"{self.samples}/{self.num_samples}" if self.num_samples else ""

    @property
    def done(self) -> str:
        """Batches done of those to do."""
        return f"{self.iteration}/{self.num_iterations}" if self.num_iterations else ""

    @property
    def loss_text(self) -> str:
        """The last loss that it told, or nothing."""
        return "" if self.loss is None else f"{self.loss:.4g}"


@dataclass(slots=True)
class RoundView:
    """The present round: its title, its nodes, and a line that sums it up once it is over."""

    title: str
    rows: dict[str, NodeRow]
    summary: str = ""

    def table(self) -> Table:
        """One row per node. `Text`: what nodes tell could hold markup."""
        table = Table(title=Text(self.summary or self.heading), title_justify="left")
        for column in ("node", "state", "batches", "samples", "loss", "seconds", "left"):
            table.add_column(column, overflow="fold")
        for node_id, row in self.rows.items():
            cells = (short(node_id), row.state, row.done, row.samples_done, row.loss_text, f"{row.elapsed_s:.1f}", row.left_text)
            table.add_row(*(Text(cell) for cell in cells))
        return table

    def line(self) -> str:
        """All nodes in one line."""
        parts = (" ".join(filter(None, (short(node_id), *_words(row)))) for node_id, row in self.rows.items())
        return f"{self.heading}: {'; '.join(parts)}"

    @property
    def heading(self) -> str:
        """The title, with the time that the slowest node needs as far as that can be told."""
        left = [row.left_s for row in self.rows.values() if row.left_s is not None]
        return f"{self.title}, about {duration(max(left))} left" if left else self.title


class _Display(Protocol):
    """Where a round is shown."""

    def show(self, view: RoundView) -> None:
        """Show it as it is now."""

    def close(self) -> None:
        """Leave the last state there."""


class _Terminal:
    def __init__(self, console: Console) -> None:
        self._view: RoundView | None = None
        self._live = Live(console=console, get_renderable=self._renderable, refresh_per_second=_REFRESHES_PER_S)
        self._live.start()

    def show(self, view: RoundView) -> None:
        self._view = view

    def close(self) -> None:
        self._live.stop()

    def _renderable(self) -> Any:
        return self._view.table() if self._view else ""


class _Notebook:
    """One output below the cell, rewritten at most so often; rich's own live display would need another library there."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = 0.0

    def show(self, view: RoundView) -> None:
        now = time.monotonic()
        if self._handle is None:
            from IPython.display import display  # only there in a notebook

            self._handle = display(view.table(), display_id=True)  # type: ignore[no-untyped-call]  # IPython has no types
        elif view.summary or now - self._shown_at > 1 / _REFRESHES_PER_S:
            self._handle.update(view.table())
            self._shown_at = now

    def close(self) -> None:
        pass


class _Lines:
    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._shown_at = clock()

    def show(self, view: RoundView) -> None:
        now = self._clock()
        if view.summary or now - self._shown_at > _LINE_EVERY_S:
            self._console.print(view.summary or view.line(), soft_wrap=True, markup=False, highlight=False)
            self._shown_at = now

    def close(self) -> None:
        pass


class _Nowhere:
    def show(self, view: RoundView) -> None:
        pass

    def close(self) -> None:
        pass


class Progress:
    """Shows the rounds of a run, one after the other; a context manager.

    Args:
        is_shown: False shows nothing.
        console: where; stderr by default.
        clock: seconds.
    """

    def __init__(self, *, is_shown: bool = True, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_shown = is_shown
        self._clock = clock
        self._console = console
        self._display: _Display = _Nowhere()
        self._view = RoundView("", {})
        self._began = clock()

    def __enter__(self) -> Self:
        if self._is_shown:
            self._display = _display_for(self._console or Console(stderr=True), self._clock)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._display.close()
        self._display = _Nowhere()

    def begin_round(self, round_: int, limit: int | None, nodes: Sequence[str], what: str = "round") -> None:
        """A round, counted from 0, of so many (None: nobody said how many) starts on these nodes."""
        self._began = self._clock()
        title = f"{what} {round_ + 1}" + (f" of {limit}" if limit else "")
        self._view = RoundView(title, {node_id: NodeRow(self._clock) for node_id in nodes})
        self._display.show(self._view)

    def hear(self, node_id: str, news: TrainProgress | str) -> None:
        """Something was heard of a node: a report, or a state in words."""
        row = self._view.rows.setdefault(node_id, NodeRow(self._clock))
        if not isinstance(news, str):
            row.take(news)
        else:
            row.state, row.ended = _plain(news), None
            if news in _ENDS:
                row.end()
        self._display.show(self._view)

    def end_round(self, losses: Mapping[str, float], failures: Mapping[str, str]) -> None:
        """The round is over: the last losses that nodes told, and why nodes were left out."""
        for node_id, loss in losses.items():
            self._view.rows.setdefault(node_id, NodeRow(self._clock)).loss = loss
        for node_id, reason in failures.items():
            row = self._view.rows.setdefault(node_id, NodeRow(self._clock))
            row.state = f"left out: {_plain(reason)}"
            if row.ended is None:
                row.end()
        self._view.summary = self._summary(failures)
        self._display.show(self._view)

    def _summary(self, failures: Mapping[str, str]) -> str:
        rows = self._view.rows
        losses = [row.loss for node_id, row in rows.items() if node_id not in failures and row.loss is not None]
        parts = [
            f"{self._view.title}: {len(rows.keys() - failures.keys())} of {len(rows)} nodes in {self._clock() - self._began:.1f} s",
            f"mean loss {sum(losses) / len(losses):.4g}" if losses else "",
            *(f"left out {short(node_id)}: {_plain(reason)}" for node_id, reason in failures.items()),
        ]
        return "; ".join(filter(None, parts))


def short(node_id: str) -> str:
    """A node's id without the tail of its random part."""
    return node_id if len(node_id) <= _LONG_ID else f"{node_id[: _LONG_ID - 1]}…"


def _plain(text: str) -> str:
    """A text of others, without the characters that would steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """A time to wait, in whole seconds, or in minutes or hours with what is left of them."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _words(row: NodeRow) -> tuple[str, ...]:
    samples = f"{row.samples_done} samples" if row.num_samples else ""
    return row.state, row.done, samples, row.loss_text, f"{row.left_text} left" if row.left_text else ""


def _display_for(console: Console, clock: Callable[[], float]) -> _Display:
    if console.is_jupyter:
        return _Notebook()
    return _Terminal(console) if console.is_terminal else _Lines(console, clock)
