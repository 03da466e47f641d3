"""Pages of the site that are made while it is built: one per notebook, and the project's own texts from the head of the tree.

A notebook's page holds its texts and its code; results are left to whoever runs it.
"""

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

TUTORIALS = "Tutorials"
_TEXTS = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the notebooks' pages under the head `Tutorials`, in the order of their file names."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and TUTORIALS in entry:
            entry[TUTORIALS] = [{_title(path): _page_name(path)} for path in _notebooks(config)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path in _notebooks(config):
        files.append(File.generated(config, _page_name(path), content=notebook_as_markdown(path)))
    for name, source in _TEXTS.items():
        files.append(File.generated(config, name, content=(_root(config) / source).read_text(encoding="utf-8")))
    return files


def notebook_as_markdown(path: Path) -> str:
    """Texts as they are, code in fences, and where to find the notebook itself.

    Raises:
        PluginError: the file is not a notebook.
    """
    cells = _cells(path)
    parts = [_cell_text(cell) for cell in cells]
    return "\n\n".join([*filter(None, parts), f"*This page is the notebook `notebooks/{path.name}` of the repository.*\n"])


def _cells(path: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [{"cell_type": cell["cell_type"], "source": "".join(cell["source"])} for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise PluginError(f"{path} is not a notebook: {type(error).__name__}: {error}") from error


def _cell_text(cell: dict[str, Any]) -> str:
    source = str(cell["source"]).strip("\n")
    if not source:
        return ""
    return f"````python\n{source}\n````" if cell["cell_type"] == "code" else source


def _title(path: Path) -> str:
    """The first heading of a notebook.

    Raises:
        PluginError: it has none.
    """
    for cell in _cells(path):
        for line in str(cell["source"]).splitlines():
            if cell["cell_type"] == "markdown" and line.startswith("# "):
                return line.removeprefix("# ").strip()
    raise PluginError(f"{path} has no heading: begin it with a cell `# ...`")


def _notebooks(config: MkDocsConfig) -> list[Path]:
    return sorted((_root(config) / "notebooks").glob("*.ipynb"))


def _page_name(path: Path) -> str:
    return f"tutorials/{path.stem}.md"


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
