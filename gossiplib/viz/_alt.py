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
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                source = f"data:image/png;base64,{output.data.pop('image/png')}"
                picture = f'<img alt="{escape(alt)}" src="{source}">'
                output.data["text/html"] = picture
        return cell, resources
