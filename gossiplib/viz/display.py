"""How a picture gets into a page: sharp, small, and with words beside it."""

import html
import io
import struct
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["about", "escaped", "png", "show", "width_of"]


def png(figure: Figure, *, scale: int = 2, box: Any = "tight") -> bytes:
    """Return a figure as the bytes of a PNG, of 90 dots to an inch times `scale`.

    It has 256 colours, and shows what is in the `box`, inches, or all but margins.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90 * scale, bbox_inches=box)
    small = io.BytesIO()
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
    return small.getvalue()


def width_of(image: bytes, scale: int = 2) -> int:
    """Return how wide a PNG of so many times the resolution is shown, in pixels."""
    return int(struct.unpack(">I", image[16:20])[0]) // scale


def about(image: bytes, alt: str) -> dict[str, Any]:
    """Return what a notebook keeps beside a picture: its words, and its width."""
    return {"image/png": {"alt": alt, "width": width_of(image)}}


def escaped(text: str) -> str:
    """Return a text as a page can hold it."""
    return html.escape(text, quote=True)


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, and close it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    alt : str
        What a reader sees in it, in words: for those who cannot see it.
    """
    from IPython.display import display

    image = png(figure)
    display(
        {"image/png": image, "text/plain": alt}, metadata=about(image, alt), raw=True
    )
    plt.close(figure)
