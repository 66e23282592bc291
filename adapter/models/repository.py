"""A model repository as Triton lays it out: `<name>/config.pbtxt`, `<name>/<version>/<files>`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter.core.dataplane import MODEL_NAME
from adapter.models.config import CONFIG_FILE, parse, served
from adapter.models.errors import ModelError, first_line
from adapter.standalone.repository import folders

MODEL_FILES = {
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "python": "model.py",
    "pytorch": "model.pt",
    "tensorrt": "model.plan",
}
"""Triton's backend → the file that it looks for in a version's folder."""

_VERSION = re.compile(r"[1-9]\d{0,17}\Z")


@dataclass(frozen=True)
class Entry:
    """One model's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The model's name, which is the folder's."""
        return self.folder.name

    @property
    def config_path(self) -> Path:
        """Where its configuration stands, if it has one: Triton completes what an ONNX file tells itself."""
        return self.folder / CONFIG_FILE

    def versions(self) -> list[str]:
        """The versions in the folder, ascending."""
        found = [path.name for path in self.folder.iterdir() if _VERSION.match(path.name) and path.is_dir()]
        return sorted(found, key=int)

    def served(self) -> list[str]:
        """Those of the versions that Triton serves. Raises ModelError."""
        return served(self.config(), self.versions())

    def text(self) -> str:
        """The configuration as it is written, "" when there is none. Raises ModelError."""
        try:
            return self.config_path.read_text()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{self.config_path}: cannot be read: {first_line(error)}") from error

    def config(self) -> Any:
        """The `ModelConfig`. Raises ModelError, which names the line and the column."""
        config = parse(self.text(), self.config_path)
        if config.name not in ("", self.name):
            raise ModelError(
                f"{self.config_path}: the name is {config.name!r}, and the folder's is {self.name!r}"
            )
        config.name = self.name
        return config

    def backend(self) -> str:
        """The backend that runs it, "ensemble" for none; "" when nothing tells. Raises ModelError."""
        config = self.config()
        if config.HasField("ensemble_scheduling"):
            return "ensemble"
        if named := config.backend or config.platform.partition("_")[0]:
            return str(named)
        files = {path.name for version in self.versions() for path in (self.folder / version).iterdir()}
        return next((backend for backend, file in MODEL_FILES.items() if file in files), "")


def entries(repository: Path) -> list[Entry]:
    """The folders that may be models, by name. Raises ModelError when the repository cannot be read."""
    try:
        return [Entry(repository / name) for name in folders(repository)]
    except OSError as error:
        raise ModelError(f"{repository}: {error.strerror}") from error


def find(repository: Path, name: str) -> Entry:
    """One model. Raises ModelError when there is no such one."""
    entry = Entry(repository / name)
    if not MODEL_NAME.match(name) or not entry.folder.is_dir():
        raise ModelError(f"{repository}: there is no model {name[:128]!r}")
    return entry
