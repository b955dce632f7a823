"""Pictures keep their text in nbconvert's pages, whose default template drops it.

Pip puts jupyter_nbconvert_config.json where Jupyter reads it, and it names this class.
"""

from html import escape
from typing import Any

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode


class AltText(Preprocessor):
    """Show a picture that has a text as an element of HTML that has it, too."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, index: int
    ) -> tuple[NotebookNode, Any]:
        """Change the outputs of a cell."""
        for output in cell.get("outputs", ()):
            about = output.get("metadata", {}).get("image/png", {})
            if "alt" in about and "text/html" not in output.data:  # a player has both
                source = f"data:image/png;base64,{output.data.pop('image/png')}"
                width = f' width="{about["width"]}"' if "width" in about else ""
                picture = f'<img alt="{escape(about["alt"])}"{width} src="{source}">'
                output.data["text/html"] = picture
        return cell, resources
