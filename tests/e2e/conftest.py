"""What browser tests stand on: Chromium, the app as a real server process, and the demo studies on disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
DEMOS = ("digits", "breast-cancer")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 90.0
STOP_SECONDS = 15.0
DEMO_SECONDS = 240.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


def browser_path() -> Path | None:
    """The Chromium found by `.ci/browser.sh`, or the one named by INFLUENCE_BROWSER, or one on PATH."""
    named = os.environ.get("INFLUENCE_BROWSER", "").strip()
    if named:
        return Path(named) if os.access(named, os.X_OK) else None
    record = ROOT / ".venv" / "browser-path"
    recorded = record.read_text(encoding="utf-8").strip() if record.is_file() else ""
    candidates = [recorded, *(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))]
    return next((Path(path) for path in candidates if path and os.access(path, os.X_OK)), None)


def no_browser(reason: str) -> NoReturn:
    """Skips, except in CI, where browser tests are mandatory."""
    if os.environ.get("CI"):
        pytest.fail(f"browser tests cannot run: {reason}", pytrace=False)
    pytest.skip(f"browser tests cannot run: {reason}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def marked_processes(mark: str) -> list[int]:
    """Ids of the processes that inherited `mark` in their environment (Linux; elsewhere none are found)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone meanwhile, or another user's
            continue
        if mark.encode() in environment:
            found.append(int(entry.name))
    return found


class AppServer:
    """`streamlit run app.py` on a loopback port, as a process group of its own, over one folder of studies.

    The port stays the same over `restart`, so a URL taken before it is good after it. Workers that the app starts
    detach themselves and outlive `stop` and `restart`, as they do for a person; `close` ends them too.

    Attributes:
        url: address of the app, without a trailing slash.
        studies: folder of studies that the app shows.
        log: file with everything that the server printed.
    """

    def __init__(
        self, studies: Path, log: Path, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
    ) -> None:
        self.studies = studies
        self._environment, self._arguments = dict(environment or {}), list(arguments)
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._mark = f"INFLUENCE_TEST_SERVER={uuid.uuid4().hex}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            RuntimeError: if it ends or does not answer within `START_SECONDS`; with the end of its log.
        """
        if self._process is not None:
            raise RuntimeError("the server is already running")
        command = [sys.executable, "-m", "streamlit", "run", "app.py"]
        command += ["--server.address", "127.0.0.1", "--server.port", str(self.port), "--server.headless", "true"]
        command += self._arguments
        name, _, value = self._mark.partition("=")
        environment = {**os.environ, "INFLUENCE_STUDIES": str(self.studies), name: value, **self._environment}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_healthy(self._process)

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self.is_healthy():
                return
            time.sleep(0.1)
        why = f"ended with status {process.returncode}" if process.poll() is not None else "did not answer in time"
        self.stop()
        raise RuntimeError(f"streamlit run app.py {why}; its output ends with:\n{self.tail()}")

    def is_healthy(self) -> bool:
        """Whether the server answers its own health check."""
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def tail(self, lines: int = 30) -> str:
        """The last lines that the server printed."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server's process group; `signal.SIGKILL` is a crash. Nothing happens if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        for attempt in (sign, signal.SIGKILL):
            try:
                os.killpg(process.pid, attempt)
            except ProcessLookupError:  # already gone
                pass
            try:
                process.wait(timeout=STOP_SECONDS)
                return
            except subprocess.TimeoutExpired:
                continue
        raise RuntimeError(f"process {process.pid} does not end")

    def restart(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server and starts it again on the same port."""
        self.stop(sign)
        self.start()

    def close(self) -> None:
        """Ends the server and every worker it left behind."""
        self.stop()
        for pid in marked_processes(self._mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # ended by itself
                continue


def command(*words: str) -> None:
    """Runs a command of the command line, as a person does.

    Raises:
        RuntimeError: if it fails; with what it printed.
    """
    whole = [sys.executable, "-m", "influence_core", *words]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=DEMO_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}\n{done.stderr}")


def build_demo(name: str, folder: Path) -> None:
    """Builds one demo study with the command line, as a person does.

    Raises:
        RuntimeError: if the command fails; with what it printed.
    """
    command("demo", name, "--out", str(folder))
    if not (folder / "study.toml").is_file():
        raise RuntimeError(f"building the demo study {name} made no study")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        named = os.environ.get("INFLUENCE_BROWSER")
        no_browser(f"INFLUENCE_BROWSER={named} is not a program" if named else "no Chromium was found (see make test)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of a fresh visitor: nothing stored, 1280 pixels wide, allowed to use the clipboard."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, locale="en-GB", permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def demo_studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo studies, built once; INFLUENCE_TEST_STUDIES names one that is built already. Read only."""
    prebuilt = os.environ.get("INFLUENCE_TEST_STUDIES")
    folder = Path(prebuilt).resolve() if prebuilt else tmp_path_factory.mktemp("studies")
    for name in DEMOS:
        if not (folder / name / "study.toml").is_file():
            if prebuilt:
                raise RuntimeError(f"INFLUENCE_TEST_STUDIES={prebuilt} holds no {name} study; build it or unset it")
            build_demo(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., AppServer]]:
    """Makes running servers: `start_server(studies, environment=, arguments=)`; all of them end with the module."""
    servers: list[AppServer] = []

    def start(studies: Path, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> AppServer:
        server = AppServer(studies, tmp_path_factory.mktemp("server") / "log.txt", environment, arguments)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def server(
    demo_studies: Path, start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory
) -> AppServer:
    """The app over a copy of the demo studies, so that jobs and reviews of one module never meet another's."""
    studies = tmp_path_factory.mktemp("app") / "studies"
    shutil.copytree(demo_studies, studies)
    return start_server(studies)
