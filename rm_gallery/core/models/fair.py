"""`FairQueue`: questions that wait for the model, taken in turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Q = TypeVar("Q")


class FairQueue(Generic[Q]):
    """Takes one question of each client in turn, and of a client's requests one in turn.

    So a client with a thousand requests, and a request with a thousand questions, wait for themselves and not the
    others for them. Within a request the order is kept.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[int, deque[Q]]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, client: str, request: int, questions: list[Q]) -> None:
        """`request` is a number that no other request has."""
        if questions:
            self._clients.setdefault(client, OrderedDict())[request] = deque(questions)
            self._size += len(questions)

    def peek(self) -> Q:
        """The question that `take` gives next."""
        requests = next(iter(self._clients.values()))
        return next(iter(requests.values()))[0]

    def take(self) -> Q:
        client, requests = next(iter(self._clients.items()))
        request, waiting = next(iter(requests.items()))
        question = waiting.popleft()
        self._size -= 1
        if waiting:
            requests.move_to_end(request)
        else:
            del requests[request]
        if requests:
            self._clients.move_to_end(client)
        else:
            del self._clients[client]
        return question

    def drop(self, client: str, request: int) -> list[Q]:
        """Take out what is left of a request."""
        requests = self._clients.get(client, OrderedDict())
        dropped = list(requests.pop(request, ()))
        if client in self._clients and not requests:
            del self._clients[client]
        self._size -= len(dropped)
        return dropped
