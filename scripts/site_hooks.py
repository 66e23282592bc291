"""What MkDocs does to docs/ before it becomes the site."""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_announced: set[str] = set()
"""Pages that the navigation names and nobody has written yet."""


def on_config(config: Any) -> Any:
    """Leave pages that are not there out of the navigation; one that is there and not in it is an error."""
    docs = Path(config.docs_dir)

    def there(entries: list[Any]) -> list[Any]:
        kept = []
        for entry in entries:
            if isinstance(entry, dict):
                kept.append({title: there(pages) for title, pages in entry.items()})
            elif (docs / entry).exists():
                kept.append(entry)
            else:
                _announced.add(entry)
        return kept

    _announced.clear()
    config.nav = there(config.nav)
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Leave of a link its text where the site has nothing behind it: the repository's other files."""
    docs = Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_uri).parent

    def keep(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        outside = not target.is_relative_to(docs)
        return link[1] if outside or str(target.relative_to(docs)) in _announced else link[0]

    return _LINK.sub(keep, markdown)
