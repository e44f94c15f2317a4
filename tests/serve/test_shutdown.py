"""Told to stop, the service answers what it accepted and refuses what comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.held import HeldJudge, ask, until
from tests.service import serving

RMG = Path(sys.executable).parent / "rmg"


def test_what_was_accepted_is_answered_and_what_comes_is_told_to_go():
    judge = HeldJudge()
    with serving(judge.subject, "pointwise") as running, ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(running.post, "/v1/score", ask(f"{i}", 3)) for i in range(8)]
        assert judge.started.wait(10)
        queue = running.server.config.app.state.service.batcher
        until(lambda: queue.waiting + judge.held == 24)
        running.server.should_exit = True
        gate = running.server.gate
        until(lambda: gate.closed)
        # a new connection, while the others wait
        late = httpx.post(f"{running.url}/v1/score", json=ask("late"))
        assert late.status_code == 503
        assert int(late.headers["Retry-After"]) >= 1
        assert "shutting down" in late.json()["error"]["message"]
        assert httpx.get(f"{running.url}/healthz").json() == {"status": "closing"}
        judge.release.set()
        for one in accepted:
            response = one.result(10)
            assert response.status_code == 200
            assert response.headers["Connection"] == "close"
            assert [result["score"] for result in response.json()["results"]] == [3.0] * 3
    assert len(judge.seen) == 24
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/healthz")


def command(model: Path, *more: str, key: str | None = None) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RMG_API_KEY"}
    return subprocess.Popen(
        [
            str(RMG),
            "serve",
            "--model",
            str(model),
            "--task",
            "pointwise",
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1", **({"RMG_API_KEY": key} if key else {})},
    )


def address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout:
        if line.startswith("http://"):
            return line.strip().rstrip("/")
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_well(tiny_model, sign):
    process = command(tiny_model, "--port", "0", "--mode", "greedy", "--max-batch", "4")
    try:
        url = address(process)
        statuses: list[int | str] = []
        asked = threading.Semaphore(0)

        def client(name: int) -> None:
            with httpx.Client(timeout=60) as session:
                for i in range(500):
                    try:
                        response = session.post(f"{url}/v1/score", json=ask(f"{name} {i}", 4))
                    except httpx.TransportError:  # a connection that was never accepted, or was idle
                        statuses.append("closed")
                        return
                    statuses.append(response.status_code)
                    asked.release()
                    if response.status_code != 200:
                        return
                    assert len(response.json()["results"]) == 4

        threads = [threading.Thread(target=client, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            assert asked.acquire(timeout=60)
        process.send_signal(sign)
        for thread in threads:
            thread.join(60)
        assert process.wait(30) == 0
        # each was answered, told to go, or found nobody; that nothing accepted is lost is the test above
        assert set(statuses) <= {200, 503, "closed"}
        assert len([status for status in statuses if status != 200]) == 12
        assert "stopped; all that was accepted is answered" in process.stderr.read()
    finally:
        process.kill()


def test_the_command_asks_for_the_key_of_the_environment(tiny_model):
    process = command(tiny_model, "--port", "0", key="secret")
    try:
        url = address(process)
        assert httpx.get(f"{url}/v1/models").status_code == 401
        [model] = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer secret"}).json()["data"]
        assert model["task"] == "pointwise"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert "secret" not in out + err
    finally:
        process.kill()
