"""Where the ONNX backend runs a model. The tests have no GPU: ONNX Runtime is made to say that it has."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

from adapter.standalone.wheels import OUR_BACKENDS

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def log() -> list[str]:
    """What the backend writes to Triton's log."""
    return []


@pytest.fixture
def backend(log: list[str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend's module, as Triton's stub would import it."""
    utilities = ModuleType("triton_python_backend_utils")
    logger = SimpleNamespace(log_info=log.append, log_warn=lambda text: log.append(f"warning: {text}"))
    vars(utilities)["Logger"] = logger
    monkeypatch.setitem(sys.modules, utilities.__name__, utilities)
    spec = importlib.util.spec_from_file_location("onnx_backend", OUR_BACKENDS / "onnxruntime" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of an ONNX Runtime that has CUDA once its libraries are loaded, and not before."""
    calls: list[str] = []

    def available() -> list[str]:
        calls.append("available")
        return [CUDA, CPU] if "preload" in calls else [CPU]

    monkeypatch.setattr(backend.onnxruntime, "preload_dlls", lambda: calls.append("preload"))
    monkeypatch.setattr(backend.onnxruntime, "get_available_providers", available)
    return calls


def test_a_gpu_instance_loads_the_libraries_and_takes_its_device(
    backend: ModuleType, calls: list[str]
) -> None:
    assert backend.providers("GPU", "3") == [(CUDA, {"device_id": "3"}), CPU]
    assert calls == ["preload", "available"]


def test_a_cpu_instance_does_not_touch_the_gpu(backend: ModuleType, calls: list[str]) -> None:
    assert backend.providers("CPU", "0") == [CPU]
    assert calls == []


def test_a_gpu_instance_where_onnxruntime_has_no_cuda(backend: ModuleType) -> None:
    assert backend.providers("GPU", "0") == [CPU]


def test_the_log_says_where_a_gpu_instance_runs(backend: ModuleType, log: list[str]) -> None:
    backend.report_place("m_0", "GPU", [CUDA, CPU])
    backend.report_place("m_1", "GPU", [CPU])
    backend.report_place("m_2", "CPU", [CPU])
    assert log == ["m_0 runs on the GPU", "warning: m_1 is a GPU instance, but runs on the CPU"]
