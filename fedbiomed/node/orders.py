"""The order book: every training order that this node ever took, and how far it has come.

An order is committed here before the broker is told that it arrived, so neither a crash nor a second delivery loses or doubles it. Each
change names the states from which it may be made, so that a cancellation and the thread that trains cannot both win.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fedbiomed.common.constants import OrderState
from fedbiomed.common.exceptions import FedbiomedNodeStoreError
from fedbiomed.common.messages.codec import decode
from fedbiomed.common.messages.training import OrderCancelled, OrderGot, TrainReply, TrainRequest
from fedbiomed.node.store import NodeStore

CLOCK_SKEW_S = 600.0  # how far the clocks of two sites may differ
OPEN_STATES = (OrderState.NEW, OrderState.FETCHED, OrderState.RUNNING, OrderState.TRAINED, OrderState.UPLOADED)
_KEPT_S = 30 * 86400.0
_MAX_OPEN = 1000  # a researcher may not fill the node's disk
_MAX_REASON = 2000
_MAX_LISTED = 400  # so many request ids fit into one message


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A row of the book.

    Args:
        payload: the order as it came; empty when it was cancelled before it arrived.
        answer: the encoded `TrainReply`, from state `trained` on (there still without the reference to its file).
        expires_at: seconds since 1970 by the researcher's clock.
    """

    request_id: str
    researcher_id: str
    state: OrderState
    payload: bytes
    answer: bytes | None
    expires_at: float

    @property
    def request(self) -> TrainRequest:
        """The order itself."""
        return cast(TrainRequest, decode(self.payload))

    @property
    def reply(self) -> TrainReply:
        """What was answered, or shall be.

        Raises:
            FedbiomedNodeStoreError: nothing yet.
        """
        if self.answer is None:
            raise FedbiomedNodeStoreError(f"order {self.request_id} is {self.state} but has no reply stored")
        return cast(TrainReply, decode(self.answer))


class OrderBook:
    """Orders in the node's database.

    Args:
        store: the database.
        now: seconds since 1970.
    """

    def __init__(self, store: NodeStore, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    def add(
        self, request: TrainRequest, payload: bytes, *, state: OrderState = OrderState.NEW, answer: bytes | None = None, message: str = ""
    ) -> Order | None:
        """Write an order down, once.

        Args:
            request, payload: the order, and the same as it came.
            state: `new`, or a closed state with its answer when the order is refused.
            answer, message: the encoded reply of a refused order, and why it was refused.

        Returns:
            None when it is new, else what the book held already.
        """
        row = (request.request_id, request.researcher_id, request.job_id, request.round, request.attempt, request.expires_at)
        with self._store.transaction() as connection:
            if self._insert(connection, row, state, payload=payload, answer=answer, message=message):
                return None
            return self.get(request.request_id)

    def is_full(self) -> bool:
        """Whether so many orders have work left that no more are taken."""
        with self._store.transaction() as connection:
            query = f"SELECT count(*) FROM orders WHERE state IN {_among(OPEN_STATES)}"
            return bool(connection.execute(query, OPEN_STATES).fetchone()[0] >= _MAX_OPEN)

    def get(self, request_id: str) -> Order | None:
        """Look an order up."""
        return self._first("request_id = ?", request_id)

    def next_open(self) -> Order | None:
        """The order that arrived first of those with work left."""
        return self._first(f"state IN {_among(OPEN_STATES)} ORDER BY received_at, rowid LIMIT 1", *OPEN_STATES)

    def open_orders(self) -> list[Order]:
        """All with work left, as they arrived."""
        where = f"state IN {_among(OPEN_STATES)} ORDER BY received_at, rowid"
        with self._store.transaction() as connection:
            return [_order(row) for row in connection.execute(f"SELECT * FROM orders WHERE {where}", OPEN_STATES)]

    def advance(self, request_id: str, state: OrderState, answer: bytes | None = None) -> bool:
        """Note that an open order has come further; False when it is open no more (cancelled meanwhile)."""
        return self._change(request_id, state, before=OPEN_STATES, answer=answer)

    def close(self, request_id: str, state: OrderState, answer: bytes, message: str) -> bool:
        """End an open order as failed or expired, with its reply; False when it is open no more."""
        return self._change(request_id, state, before=OPEN_STATES, answer=answer, message=message)

    def cancel(self, wish: OrderCancelled) -> bool:
        """The researcher does not want it any more; an order that has not arrived yet is refused when it comes.

        Returns:
            Whether this changed anything. Only who gave an order can take it back.
        """
        unborn = (wish.request_id, wish.researcher_id, "unknown", -1, -1, self._now() + CLOCK_SKEW_S)
        reason = wish.reason[:_MAX_REASON]
        with self._store.transaction() as connection:
            if self._insert(connection, unborn, OrderState.CANCELLED, message=reason):
                return True
            before = (*OPEN_STATES, OrderState.REPLIED)
            return self._change(wish.request_id, OrderState.CANCELLED, before=before, message=reason, giver=wish.researcher_id)

    def got(self, receipt: OrderGot) -> bool:
        """The researcher has the result; False when there was none to have."""
        before = (OrderState.UPLOADED, OrderState.REPLIED)
        return self._change(receipt.request_id, OrderState.DONE, before=before, giver=receipt.researcher_id)

    def wanted_by_researcher(self) -> dict[str, list[str]]:
        """Who may wait for an answer, and the ids of the orders that each of them has open here, at most 400.

        An order that was answered is not among the ids: if the answer was lost, the researcher asks again for what is not listed.
        """
        states = (*OPEN_STATES, OrderState.REPLIED)
        where = f"state IN {_among(states)} AND expires_at > ? ORDER BY received_at, rowid"
        query = f"SELECT request_id, researcher_id, state FROM orders WHERE {where}"
        wanted: dict[str, list[str]] = {}
        with self._store.transaction() as connection:
            for row in connection.execute(query, (*states, self._now() - CLOCK_SKEW_S)):
                ids = wanted.setdefault(row["researcher_id"], [])
                if row["state"] in OPEN_STATES and len(ids) < _MAX_LISTED:
                    ids.append(row["request_id"])
        return wanted

    def is_expired(self, expires_at: float) -> bool:
        """Whether nobody waits any more, even if the researcher's clock is behind ours."""
        return expires_at + CLOCK_SKEW_S < self._now()

    def is_from_the_future(self, issued_at: float) -> bool:
        """Whether an order was issued later than differing clocks explain."""
        return issued_at > self._now() + CLOCK_SKEW_S

    def tidy(self) -> list[str]:
        """Close answered orders that nobody fetched in time and forget those of long ago.

        Returns:
            Ids of all orders whose files are still needed.
        """
        now = self._now()
        states = (*OPEN_STATES, OrderState.REPLIED)
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE orders SET state = ?, changed_at = ? WHERE state = ? AND expires_at < ?",
                (OrderState.EXPIRED, now, OrderState.REPLIED, now - CLOCK_SKEW_S),
            )
            connection.execute(
                f"DELETE FROM orders WHERE state NOT IN {_among(states)} AND MAX(expires_at, changed_at) < ?", (*states, now - _KEPT_S)
            )
            return [
                row["request_id"] for row in connection.execute(f"SELECT request_id FROM orders WHERE state IN {_among(states)}", states)
            ]

    def _insert(
        self,
        connection: sqlite3.Connection,
        row: tuple[str, str, str, int, int, float],
        state: OrderState,
        *,
        payload: bytes = b"",
        answer: bytes | None = None,
        message: str = "",
    ) -> bool:
        now = self._now()
        cursor = connection.execute(
            "INSERT OR IGNORE INTO orders (request_id, researcher_id, job_id, round, attempt, expires_at, state, payload, reply,"
            " received_at, changed_at, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, state, payload, answer, now, now, message),
        )
        return cursor.rowcount == 1

    def _change(
        self,
        request_id: str,
        state: OrderState,
        *,
        before: tuple[OrderState, ...],
        answer: bytes | None = None,
        message: str = "",
        giver: str | None = None,
    ) -> bool:
        with self._store.transaction() as connection:
            cursor = connection.execute(
                "UPDATE orders SET state = ?, reply = COALESCE(?, reply), message = ?, changed_at = ? WHERE request_id = ?"
                f" AND state IN {_among(before)} AND researcher_id = COALESCE(?, researcher_id)",
                (state, answer, message, self._now(), request_id, *before, giver),
            )
            return cursor.rowcount == 1

    def _first(self, where: str, *values: str) -> Order | None:
        with self._store.transaction() as connection:
            row = connection.execute(f"SELECT * FROM orders WHERE {where}", values).fetchone()
        return None if row is None else _order(row)


def _among(states: tuple[OrderState, ...]) -> str:
    return f"({', '.join('?' * len(states))})"


def _order(row: sqlite3.Row) -> Order:
    return Order(
        request_id=row["request_id"],
        researcher_id=row["researcher_id"],
        state=OrderState(row["state"]),
        payload=row["payload"],
        answer=row["reply"],
        expires_at=row["expires_at"],
    )
