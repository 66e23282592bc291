"""Large tensors to a Triton on the same machine, through memory that both have mapped."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapter.core.errors import DeadlineExceeded, InvalidInput
from adapter.core.types import InferRequest, Tensor
from adapter.triton import segments
from adapter.triton.segments import place_of
from tests.integration.blocks import (
    BYTES,
    ELEMENTS,
    REGION,
    Asker,
    asking,
    check,
    files,
    registered,
    run,
    until,
    write_models,
)
from tests.integration.services import Service, Stage, open_stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("memory")) as stage:
        stage.triton("triton", write_models(stage.folder / "models"))
        stage.start()
        yield stage


@pytest.fixture
def triton(stage: Stage) -> Iterator[Service]:
    """Every test leaves it up, with no region of the adapter's."""
    triton = stage.services[0]
    yield triton
    assert registered(triton) == files() == set()


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


def test_an_output_of_unknown_size_is_expected_as_large_as_the_last_one(triton: Service) -> None:
    async def scenario(asker: Asker) -> None:
        async with asyncio.timeout(20):
            while place_of(data := await asker.ask(1, model="repeated")) is None:
                check(data, 1)
        check(data, 1)
        del data
        # Larger than expected: it comes as bytes, and from then on all of them do.
        block = np.frombuffer(await asker.ask(3, model="repeated"), np.float32)
        assert block.size == 3 * ELEMENTS
        before = asker.shared
        async with asyncio.timeout(20):
            while asker.shared < before + 3:
                data = await asker.ask(1, model="repeated")
                assert place_of(data) is None
                check(data, 1)

    run(triton.address, scenario)


def test_what_was_laid_into_a_region_is_not_copied_into_another(triton: Service) -> None:
    async def scenario(asker: Asker) -> None:
        async with asyncio.timeout(20):
            while (value := asker.shared) < 5:
                check(await asker.send(await asker.laid(value)), value)
        # One for the input with what is before it, and one for the output.
        assert asker.held == BYTES * 5 / 4 + BYTES
        kept = [await asker.laid(value) for value in range(4)]
        for value, data in enumerate(kept):
            check(await asker.send(data), value)

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


def test_a_triton_that_is_started_anew(tmp_path: Path) -> None:
    async def scenario(asker: Asker, own: Service) -> None:
        for _ in range(2):
            await asker.until_shared()
            old = registered(own)
            assert old
            laid = await asker.laid(8)
            await asyncio.to_thread(own.restart)
            assert registered(own) == set()
            # Asked at once, with regions that this Triton does not know.
            await asker.echoes(7)
            check(await asker.send(laid), 8)
            del laid
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
