"""Large tensors to a Triton on the same machine, through memory that both have mapped."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc

from adapter.core.errors import DeadlineExceeded, InvalidInput
from adapter.core.metrics import Metrics
from adapter.core.types import InferRequest, Tensor
from adapter.security.keys import KeyStore
from adapter.settings import Settings
from adapter.triton import segments
from adapter.triton.client import TritonEngine
from tests.integration.conftest import Up, eventually, start_serve
from tests.integration.services import Service, Stage, open_stage
from tests.integration.serving import wait_for
from tests.integration.v2 import HEADER, message
from tests.models.generate import write_block_model

ELEMENTS = 1 << 16
BYTES = 4 * ELEMENTS
REGION = 2 * BYTES
"""For the input and the output."""


def write_models(folder: Path) -> Path:
    write_block_model(folder / "block", ELEMENTS)
    write_block_model(folder / "slow", ELEMENTS)
    write_block_model(
        folder / "longer", ELEMENTS, 'parameters { key: "longer" value: { string_value: "1" } }\n'
    )
    return folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("memory")) as stage:
        stage.triton("triton", write_models(stage.folder / "models"))
        stage.nats()
        stage.start()
        yield stage


@pytest.fixture
def triton(stage: Stage) -> Iterator[Service]:
    """Every test leaves it up, with no region of the adapter's."""
    yield stage.services[0]
    assert registered(stage.services[0]) == set()
    assert files() == set()


def registered(triton: Service) -> set[str]:
    """The names of the adapter's regions that Triton knows."""
    with grpc.InferenceServerClient(triton.address) as client:
        found: Any = client.get_system_shared_memory_status()
        return {name for name in found.regions if name.startswith("miaas-tensors-")}


def files(pid: int | None = None) -> set[str]:
    """A process's own in /dev/shm, or this one's."""
    return {path.name for path in Path("/dev/shm").glob(f"miaas-tensors-*-{pid or os.getpid()}-*")}


class Asker:
    """An engine that is asked for blocks of equal values."""

    def __init__(self, urls: str, **settings: Any) -> None:
        self.metrics = Metrics()
        options: dict[str, Any] = {"shared_memory_min_bytes": BYTES, **settings}
        self.engine = TritonEngine(Settings(triton_grpc_url=urls, **options), self.metrics)

    async def ask(self, value: float, seconds: float = 0, model: str = "block", timeout_s: float = 20) -> Any:
        """The block that came back, as the engine gives it."""
        block = np.full(ELEMENTS, value, np.float32)
        block[0] = seconds
        await self.engine.metadata(model)
        tensor = Tensor("block", "FP32", (ELEMENTS,), block.tobytes())
        answer = await self.engine.infer(InferRequest(model, "", (tensor,)), timeout_s)
        assert answer.outputs[0].name == "echo"
        return answer.outputs[0].data

    async def echoes(self, value: float, **options: Any) -> None:
        """It comes back as it went."""
        check(await self.ask(value, **options), value)

    @property
    def shared(self) -> float:
        """Calls that went through shared memory."""
        return self.metrics.shared_memory_calls.labels().value

    @property
    def held(self) -> float:
        """Bytes of shared memory."""
        return self.metrics.shared_memory_bytes.labels().value

    async def until_shared(self) -> None:
        """Ask until it goes through shared memory."""
        before = self.shared
        async with asyncio.timeout(20):
            while self.shared == before:
                await self.echoes(0.5)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not look():  # noqa: ASYNC110 - looks at what another process does
            await asyncio.sleep(0.05)


def check(data: Any, value: float) -> None:
    block = np.frombuffer(data, np.float32)
    assert block.shape == (ELEMENTS,)
    assert (block[1:] == np.float32(value)).all()


@asynccontextmanager
async def asking(urls: str, **settings: Any) -> AsyncIterator[Asker]:
    asker = Asker(urls, **settings)
    try:
        yield asker
    finally:
        await asker.engine.close()


def run(urls: str, scenario: Callable[[Asker], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a scenario on a new engine."""

    async def main() -> None:
        async with asking(urls, **settings) as asker:
            await scenario(asker)

    asyncio.run(main())


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_a_large_tensor_comes_back_as_without_shared_memory(triton: Service, transport: str) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.until_shared()
        before = asker.shared
        for value in range(5):
            await asker.echoes(value)
        assert asker.shared - before == 5
        assert asker.held == REGION
        assert registered(triton) == files() != set()

    async def without(asker: Asker) -> None:
        for value in range(5):
            await asker.echoes(value)
        assert asker.shared == asker.held == 0
        assert files() == set()

    run(triton.address, scenario, triton_transport=transport)
    run(triton.address, without, triton_transport=transport, shared_memory_min_bytes=0)
    run(triton.address, without, triton_transport=transport, shared_memory_min_bytes=BYTES + 1)


def test_many_at_once_get_their_own(triton: Service) -> None:
    async def client(asker: Asker, number: int) -> None:
        for n in range(20):
            await asker.echoes(100 * number + n)

    async def scenario(asker: Asker) -> None:
        await asyncio.gather(*(client(asker, number) for number in range(16)))
        assert asker.shared > 100
        assert asker.held <= 16 * REGION

    run(triton.address, scenario)


def test_no_more_memory_is_taken_than_is_allowed(triton: Service) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.until_shared()
        for _ in range(5):
            answers = await asyncio.gather(*(asker.ask(value) for value in range(16)))
            for value, data in enumerate(answers):
                check(data, value)
        assert asker.held == 2 * REGION == 1 << 20

    run(triton.address, scenario, shared_memory_max_bytes=1 << 20)


def test_what_a_late_answer_may_write_into_is_lent_to_nobody(triton: Service) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.until_shared()
        (late,) = registered(triton)
        with pytest.raises(DeadlineExceeded):
            await asker.ask(666, seconds=1.5, model="slow", timeout_s=0.3)
        # Its memory has no name any more, while Triton still works on it.
        assert late not in files()
        assert late in registered(triton)
        await asker.until_shared()
        held = [await asker.ask(value) for value in range(1, 9)]
        assert late not in files()
        await until(lambda: late not in registered(triton))
        # By now the late answer has been written.
        for value, data in enumerate(held, 1):
            check(data, value)

    run(triton.address, scenario)


def test_who_hangs_up_leaves_the_region_to_its_call(triton: Service) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.until_shared()
        gone = asyncio.create_task(asker.ask(666, seconds=1.0, model="slow"))
        await asyncio.sleep(0.2)
        gone.cancel()
        held = [await asker.ask(value) for value in range(1, 9)]
        before = asker.shared
        await until(lambda: asker.shared > before)
        for value, data in enumerate(held, 1):
            check(data, value)
        held.clear()
        async with asyncio.timeout(20):
            # There are two regions, and both come back.
            while asker.shared < before + 2:
                before = asker.shared
                await asyncio.gather(asker.echoes(1), asker.echoes(2))

    run(triton.address, scenario, shared_memory_max_bytes=2 * REGION)


def test_a_model_that_answers_more_than_it_declares(triton: Service) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.until_shared()
        before = asker.shared
        async with asyncio.timeout(20):
            # Its input alone does.
            while asker.shared < before + 2:
                block = np.frombuffer(await asker.ask(8, model="longer"), np.float32)
                assert block.size == 2 * ELEMENTS
                assert (block[1:ELEMENTS] == 8).all()

    run(triton.address, scenario)


def test_a_request_that_fails_says_what_it_says_without(triton: Service) -> None:
    async def failure(asker: Asker) -> str:
        request = InferRequest("block", "", (Tensor("block", "FP32", (2, ELEMENTS), bytes(2 * BYTES)),))
        await asker.engine.metadata("block")
        with pytest.raises(InvalidInput) as told:
            await asker.engine.infer(request, 20)
        return str(told.value)

    async def main() -> None:
        async with (
            asking(triton.address) as shared,
            asking(triton.address, shared_memory_min_bytes=0) as plain,
        ):
            await shared.until_shared()
            expected = await failure(plain)
            assert {await failure(shared) for _ in range(5)} == {expected}
            await shared.until_shared()

    asyncio.run(main())


def test_a_triton_with_a_dev_shm_of_its_own_gets_bytes(
    triton: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segments, "_FOLDER", tmp_path)
    segments.prefix.cache_clear()

    async def scenario(asker: Asker) -> None:
        for value in range(10):
            await asker.echoes(value)
            await asyncio.sleep(0.05)
        assert asker.shared == asker.held == 0

    run(triton.address, scenario)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    segments.prefix.cache_clear()
    assert capfd.readouterr().out.count("shared memory not used") == 1


@pytest.fixture
def api(stage: Stage, triton: Service, tmp_path: Path) -> Iterator[Service]:
    """An API process that is not started yet, on the same Triton."""
    key = KeyStore(tmp_path / "keys.json").create("test", ("infer", "read")).key
    settings = {
        "TRITON_GRPC_URL": triton.address,
        "NATS_URL": stage.services[1].address,
        "STATE_DIR": str(tmp_path),
        "LOG_LEVEL": "debug",
    }
    named = {f"ADAPTER_{name}": value for name, value in settings.items()}
    service = stage.api("api", {**named, "KEY": key})
    yield service
    service.kill()


def post(api: Service, seconds: float, model: str = "block", timeout_s: float = 20) -> tuple[bytes, bytes]:
    """A block by V2, in binary, and what came back."""
    block = np.full(ELEMENTS, 7, np.float32)
    block[0] = seconds
    size = {"binary_data_size": BYTES}
    one = {"name": "block", "datatype": "FP32", "shape": [ELEMENTS], "parameters": size}
    body, headers = message({"inputs": [one], "parameters": {"binary_data_output": True}}, block.tobytes())
    headers["X-API-Key"] = api.env["KEY"]
    url = f"{api.address}/v2/models/{model}/infer"
    answer = httpx.post(url, content=body, headers=headers, timeout=timeout_s)
    assert answer.status_code == 200
    return block.tobytes(), answer.content[-BYTES:]


def post_blocks(api: Service) -> None:
    for _ in range(5):
        sent, came = post(api, 0.02)
        assert sent == came


def test_nothing_is_left_of_a_process_that_ends(api: Service, triton: Service) -> None:
    api.start().wait_up()
    post_blocks(api)
    assert files(api.pid) == registered(triton) != set()
    pid = api.pid
    api.stop()
    assert files(pid) == registered(triton) == set()


def test_what_a_killed_process_leaves_goes_when_the_next_one_starts(api: Service, triton: Service) -> None:
    api.start().wait_up()
    post_blocks(api)
    left, first = registered(triton), api.pid
    api.kill()
    assert registered(triton) == files(first) == left != set()
    api.start().wait_up()
    wait_for(lambda: registered(triton).isdisjoint(left) and not files(first))
    post_blocks(api)
    assert files(api.pid) == registered(triton) != set()
    api.stop()


def test_a_process_that_is_killed_while_triton_works_for_it(api: Service, triton: Service) -> None:
    """Its region stays registered until Triton, which would write into it, is done."""
    api.start().wait_up()
    post_blocks(api)
    (left,) = registered(triton)
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        post(api, 4.0, "slow", timeout_s=0.5)
    api.kill()
    api.start().wait_up()
    post_blocks(api)
    wait_for(lambda: left not in registered(triton))
    assert time.monotonic() - began > 4.0
    assert triton.process is not None
    assert triton.process.poll() is None
    post_blocks(api)
    api.stop()


def test_a_triton_that_is_started_anew(tmp_path: Path) -> None:
    async def scenario(asker: Asker, own: Service) -> None:
        for _ in range(2):
            await asker.until_shared()
            old = registered(own)
            assert old
            await asyncio.to_thread(own.restart)
            assert registered(own) == set()
            # Asked at once, with regions that this Triton does not know.
            await asker.echoes(7)
            await asker.until_shared()
            assert registered(own).isdisjoint(old)

    with open_stage(tmp_path) as stage:
        own = stage.triton("own", write_models(tmp_path / "models"))
        stage.start()
        run(own.address, lambda asker: scenario(asker, own))
        assert registered(own) == files() == set()


def test_several_tritons_have_regions_of_their_own(tmp_path: Path) -> None:
    with open_stage(tmp_path) as stage:
        pair = [
            stage.triton(name, write_models(tmp_path / name), host)
            for name, host in (("a", "127.0.0.1"), ("b", "127.0.0.2"))
        ]
        stage.start()

        async def scenario(asker: Asker) -> None:
            async with asyncio.timeout(20):
                while not all(map(registered, pair)):
                    await asyncio.gather(*(asker.echoes(value) for value in range(4)))
            assert registered(pair[0]).isdisjoint(registered(pair[1]))
            await asyncio.to_thread(pair[0].kill)
            for value in range(10):
                await asker.echoes(value)

        run(",".join(each.address for each in pair), scenario)
        assert registered(pair[1]) == files() == set()


def test_every_contract_has_large_tensors_in_shared_memory(up: Up, tmp_path: Path) -> None:
    row = np.random.default_rng(3).random(1 << 17, np.float32)
    rows = [row.tolist()]
    size = {"binary_data_size": row.nbytes}
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, row.size], "parameters": size}
    body, headers = message({"inputs": [one], "parameters": {"binary_data_output": True}}, row.tobytes())

    def calls() -> float:
        lines = up.ops.get("/metrics").text.splitlines()
        return next(
            float(line.split()[1]) for line in lines if line.startswith("adapter_shared_memory_calls_total ")
        )

    def v1(client: httpx.Client) -> Any:
        return client.post("/v1/models/identity-batch:predict", json={"instances": rows}).json()

    def v2(client: httpx.Client) -> Any:
        answer = client.post("/v2/models/identity-batch/infer", content=body, headers=headers)
        return answer.content[int(answer.headers[HEADER]) :]

    def job() -> Any:
        return up.result(up.submit("identity-batch", {"INPUT0": rows}).json()["request_id"])["result"]

    def through_memory(ask: Callable[[], Any]) -> Any:
        """What is answered once a call went that way."""
        before = calls()

        def answered() -> Any:
            answer = ask()
            return answer if calls() > before else None

        return eventually(answered)

    with start_serve(up, tmp_path, ADAPTER_SHARED_MEMORY_MIN_BYTES="0") as plain:
        shared = through_memory(lambda: v1(up.client))
        assert shared == v1(plain)
        assert np.array_equal(np.array(shared["predictions"], np.float32), [row])
        assert through_memory(lambda: v2(up.client)) == v2(plain) == row.tobytes()
    result = through_memory(job)
    assert np.array_equal(np.array(result["OUTPUT0"], np.float32), [row])
