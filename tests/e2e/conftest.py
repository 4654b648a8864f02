"""One event loop for all end-to-end tests, so that what is costly to start is started once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from epp.modelserver.server import ModelServer

from .cluster import ClusterStack, cluster_of
from .stack import Stack, in_process_options, model_server, stack_of

__all__ = ["StartCluster", "StartStack", "logged", "logged_stack"]

StartStack = Callable[..., Awaitable[Stack]]
StartCluster = Callable[..., Awaitable[ClusterStack]]

_LOG_BYTES = 6_000
_log_directories: list[Path] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the coroutine tests of this directory in the session's loop."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Attach the last log lines of all processes to the report of a failure."""
    report = yield
    if report.failed:
        for directory in _log_directories:
            for log in sorted(directory.glob("*.log")):
                tail = log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
                if not tail.strip():
                    continue
                report.sections.append((f"{directory.name}/{log.name}", tail))
    return report


@contextmanager
def logged(directory: Path) -> Iterator[None]:
    """Attach the logs in a directory to the failures meanwhile."""
    _log_directories.append(directory)
    yield
    _log_directories.remove(directory)


@asynccontextmanager
async def logged_stack(
    directory: Path, servers: Sequence[ModelServer], **more: Any
) -> AsyncIterator[Stack]:
    """Start a stack for the tests of a module, whose logs are attached to failures."""
    with logged(directory):
        async with stack_of(directory, servers, **more) as stack:
            yield stack


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Three model servers with two slots each and an EPP that knows of those slots."""
    directory = tmp_path_factory.mktemp("shared")
    _log_directories.append(directory)
    servers = [model_server(name) for name in ("one", "two", "three")]
    async with stack_of(directory, servers) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def stack(shared: Stack) -> AsyncIterator[Stack]:
    """The shared stack, which every test must leave at rest."""
    yield shared
    await shared.at_rest()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_inside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The same with the EPP in this process, to look into it at any moment."""
    directory = tmp_path_factory.mktemp("inside")
    _log_directories.append(directory)
    servers = [model_server(name) for name in ("one", "two", "three")]
    options = in_process_options(directory)
    async with stack_of(directory, servers, in_process=options) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def inside(shared_inside: Stack) -> AsyncIterator[Stack]:
    """The shared stack with the EPP in this process, which every test must leave at rest."""
    yield shared_inside
    await shared_inside.at_rest()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with one fast server for a single module, which must leave it at rest."""
    directory = tmp_path_factory.mktemp("own")
    _log_directories.append(directory)
    async with stack_of(directory, [model_server("fast", step_s=0.0002)]) as stack:
        yield stack
        await stack.at_rest()


@pytest_asyncio.fixture(loop_scope="session")
async def start_stack(tmp_path: Path) -> AsyncIterator[StartStack]:
    """Start a stack of the test's own: its servers, then what :func:`stack_of` takes."""
    numbers = count(1)
    async with AsyncExitStack() as exits:

        async def start(servers: Sequence[ModelServer], **more: Any) -> Stack:
            directory = tmp_path / f"stack-{next(numbers)}"
            directory.mkdir()
            _log_directories.append(directory)
            exits.callback(_log_directories.remove, directory)
            return await exits.enter_async_context(stack_of(directory, servers, **more))

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def start_cluster(tmp_path: Path) -> AsyncIterator[StartCluster]:
    """Start a cluster of the test's own: its pods, then what :func:`cluster_of` takes."""
    async with AsyncExitStack() as exits:

        async def start(pods: Sequence[str], **more: Any) -> ClusterStack:
            exits.enter_context(logged(tmp_path))
            return await exits.enter_async_context(cluster_of(tmp_path, pods, **more))

        yield start


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_fast(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One model server that takes hardly any time, for bodies and what HTTP has to offer."""
    directory = tmp_path_factory.mktemp("fast")
    _log_directories.append(directory)
    async with stack_of(directory, [model_server("fast", step_s=0.0002)]) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def fast(shared_fast: Stack) -> AsyncIterator[Stack]:
    """The shared stack with the fast model server, which every test must leave at rest."""
    yield shared_fast
    await shared_fast.at_rest()


@pytest_asyncio.fixture(loop_scope="session")
async def exits() -> AsyncIterator[AsyncExitStack]:
    """Whatever a test opens and may not get to close: it is closed before the stacks stop."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def reference() -> AsyncIterator[ModelServer]:
    """A model server that no gateway knows: it says what an answer should be."""
    async with model_server("reference", slots=64, step_s=0.0) as server:
        yield server
