"""The notebooks in JupyterLab, in a browser, with the keyboard: widgets do their work.

Copies of the notebooks run here. Screenshots for human eyes go to out/screenshots.
"""

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from playwright.sync_api import expect

from browser import chromium
from notebooks import ROOT, find, read
from processes import private_environment

TOKEN = "of-this-test"
SIZES = {
    "laptop": {"width": 1366, "height": 768},
    "tablet": {"width": 820, "height": 1180},
}
SETTINGS = {
    # All cells are in the page, also those below the window.
    "notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "apputils-extension/notification.jupyterlab-settings": {
        "checkForUpdates": False,
        "fetchNews": "false",
    },
}
SCREENSHOTS = ROOT / "out" / "screenshots"
PROMPTS = ".jp-Notebook .jp-CodeCell .jp-Cell-inputArea .jp-InputPrompt"
# An image's bytes, as the browser has them; they come as a new address each time.
BYTES = """async image => {
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return btoa(Array.from(bytes, b => String.fromCharCode(b)).join(""));
}"""


class Reader:
    """Someone in front of JupyterLab with a keyboard, and no mouse."""

    def __init__(self, page, address):
        self.page, self.address = page, address

    def open(self, number):
        """Open a notebook, and wait until it can be run."""
        (path,) = find(ROOT, [number])
        self.page.set_viewport_size(SIZES["laptop"])
        self.page.goto(f"{self.address}/lab/tree/{path.name}?reset&token={TOKEN}")
        self.page.locator(PROMPTS).first.wait_for()
        self.page.get_by_text("| Idle").wait_for()

    def command(self, name):
        """Give a command of JupyterLab's by its name."""
        self.page.keyboard.press("Control+Shift+C")
        self.page.locator(".lm-CommandPalette-input:focus").wait_for()
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")

    def run_all(self):
        """Run all cells, and wait until the last is done."""
        self.command("Run All Cells")
        self.page.wait_for_function(
            """prompts => [...document.querySelectorAll(prompts)].every(
                prompt => /\\[\\d+\\]/.test(prompt.innerText))""",
            arg=PROMPTS,
            timeout=120_000,
        )

    def errors(self):
        """Return what went wrong in the notebook's cells."""
        kinds = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
        shown = ", ".join(f'.jp-OutputArea [data-mime-type="{kind}"]' for kind in kinds)
        return self.page.locator(shown).all_inner_texts()

    def picture(self):
        """Return the bytes of the widget's picture."""
        image = self.page.locator("img.widget-image")
        return base64.b64decode(image.evaluate(BYTES))

    def words(self):
        """Return what the widget says below its picture."""
        return self.page.locator(".widget-image + .widget-html").inner_text()

    def other_picture(self, before):
        """Wait until the picture is another one than before."""
        end = time.monotonic() + 30
        while (now := self.picture()) == before:
            assert time.monotonic() < end, "the picture stays the same"
            self.page.wait_for_timeout(50)
        return now

    def tab_to(self, selector):
        """Press Tab until something is focused, as one does without a mouse."""
        for _ in range(30):
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"no way by Tab to {selector}")

    def select_widget(self):
        """Select the cell that holds the widget, as Escape and arrow keys do."""
        cell = self.page.locator(".jp-CodeCell", has=self.page.locator(".widget-image"))
        self.page.keyboard.press("Escape")
        for _ in range(80):
            if "jp-mod-selected" in cell.get_attribute("class"):
                return
            self.page.keyboard.press("ArrowUp")
        raise AssertionError("no way by arrow keys to the widget's cell")

    def photograph(self, name):
        """Take screenshots of the widget in two sizes and two themes."""
        for theme in ("Light", "Dark"):
            self.command(f"Theme: JupyterLab {theme}")
            body = f'body[data-jp-theme-name="JupyterLab {theme}"]'
            self.page.locator(body).wait_for(state="attached")
            for size, pixels in SIZES.items():
                self.page.set_viewport_size(pixels)
                self.page.locator(".widget-image").scroll_into_view_if_needed()
                self.page.wait_for_timeout(300)  # layout follows the window
                self.page.screenshot(
                    path=SCREENSHOTS / f"{name}-{size}-{theme.lower()}.png"
                )
                fits = self.page.locator(".widget-image").evaluate(
                    "i => i.clientWidth <= i.closest('.jp-OutputArea').clientWidth"
                )
                assert fits, f"the picture is wider than its cell on a {size}"


def start(home, env):
    """Start JupyterLab on the notebooks of a folder; return its process and address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": home / "notebooks",
        "IdentityProvider.token": TOKEN,
    }
    for kind in ("config", "data", "runtime"):
        env |= {f"JUPYTER_{kind.upper()}_DIR": str(home / kind)}
    told = [f"--{name}={value}" for name, value in options.items()]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *told],
            env=env,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}/api").close()
            return server, address
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError((home / "log").read_text()) from None
            time.sleep(0.1)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """JupyterLab on copies of two notebooks without outputs, and who reads them."""
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    for path in find(ROOT, ["00", "02"]):
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, home / "notebooks" / path.name)
    for name, setting in SETTINGS.items():
        path = home / "config/lab/user-settings/@jupyterlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with private_environment() as env, chromium() as browser:
        server, address = start(home, env)
        try:
            yield Reader(browser.new_page(), address)
        finally:
            server.terminate()
            server.wait(20)


def test_the_explorer_obeys_the_keyboard(reader):
    reader.open("02")
    reader.run_all()
    assert reader.errors() == []
    reader.select_widget()
    first = reader.picture()
    reader.tab_to(".widget-slider .noUi-handle")
    reader.page.keyboard.press("ArrowRight")
    larger = reader.other_picture(first)
    assert "ring, 17 clients" in reader.words()
    reader.page.keyboard.press("ArrowLeft")
    assert reader.other_picture(larger) == first
    reader.page.keyboard.press("Shift+Tab")
    reader.page.keyboard.type("st")  # as in each list of choices: star
    reader.other_picture(first)
    assert "star, 16 clients" in reader.words()
    reader.photograph("explorer")


def test_the_player_plays(reader):
    reader.open("00")
    reader.run_all()
    assert reader.errors() == []
    player = reader.page.locator("figure.player").first
    button, slider, title = (player.locator(s) for s in ("button", "input", "output"))
    player.scroll_into_view_if_needed()
    shown = player.locator("img").get_attribute("src")
    button.focus()
    reader.page.keyboard.press("Enter")
    expect(title).not_to_have_text("round 2")  # with which it begins
    assert player.locator("img").get_attribute("src") != shown
    reader.page.keyboard.press("Space")  # and stops
    slider.focus()
    reader.page.keyboard.press("End")
    expect(title).to_have_text("round 20")
    reader.page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("round 16")
