"""Writes docker/grafana/dashboards/*.json."""

from scripts.dashboards.pages import FOLDER, written

if __name__ == "__main__":
    for name, text in written().items():
        (FOLDER / name).write_text(text)
