"""`rmg serve` in a process of its own, and many clients that ask it at once, for `benchmarks/serve.py`."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

RMG = Path(sys.executable).parent / "rmg"


def environment(threads: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "RMG_API_KEY"}
    return {**kept, "OMP_NUM_THREADS": str(threads)}


@contextlib.contextmanager
def service(model: str, options: Sequence[str], threads: int) -> Iterator[str]:
    """`rmg serve` in a process of its own; its address."""
    command = [str(RMG), "serve", "--model", model, "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(threads))
    try:
        address = next((line.strip() for line in process.stdout if line.startswith("http://")), None)
        if address is None:
            raise SystemExit(f"{' '.join(command)} did not start")
        yield address
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise SystemExit(f"the service ended with status {process.returncode}")
    finally:
        process.kill()


class Load:
    """Clients that ask for `seconds`: what they got, and when."""

    def __init__(self, address: str, bodies: Sequence[bytes], clients: int, seconds: float) -> None:
        self.place = urlsplit(address).netloc
        before = answered(address)
        self.bodies = bodies
        self.numbers = itertools.count()
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.results: dict[int, dict] = {}
        self.numbers_done: list[int] = []
        self.begun = time.perf_counter()
        self.until = self.begun + seconds
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.perf_counter() - self.begun
        self.lost = answered(address) - before - len(self.latencies)

    def _client(self) -> None:
        connection = http.client.HTTPConnection(self.place, timeout=600)
        while time.perf_counter() < self.until:
            number = next(self.numbers) % len(self.bodies)
            asked = time.perf_counter()
            try:
                connection.request(
                    "POST", "/v1/score", self.bodies[number], {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                content = json.loads(response.read())
                status = str(response.status)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                status, content = type(error).__name__, {}
            self.statuses[status] += 1
            if status == "200":
                self.latencies.append(time.perf_counter() - asked)
                self.numbers_done.append(number)
                self.results[number] = content["results"][0]
        connection.close()

    def report(self) -> dict:
        done = len(self.latencies)
        return {
            "requests": sum(self.statuses.values()),
            "errors": sum(self.statuses.values()) - done,
            "lost": self.lost,
            "statuses": dict(self.statuses),
            "seconds": round(self.seconds, 1),
            "per_second": round(done / self.seconds, 2),
            "p50_s": _quantile(self.latencies, 0.5),
            "p99_s": _quantile(self.latencies, 0.99),
        }


def answered(address: str) -> int:
    """How many requests to /v1/score the service says that it has answered."""
    with urllib.request.urlopen(f"{address.rstrip('/')}/metrics") as response:
        said = response.read().decode()
    counts = re.findall(r'^rmg_requests_total{[^}]*path="/v1/score",status="200"} (.*)$', said, re.MULTILINE)
    return int(sum(map(float, counts)))


def _quantile(values: Sequence[float], q: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3) if ordered else None


def bodies_of(items: Sequence[dict], mode: str) -> list[bytes]:
    return [json.dumps({"items": [item], "mode": mode}).encode() for item in items]
