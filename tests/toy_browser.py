"""A real headless Chromium for the tests of pages, or a skip where there is none."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest


@contextmanager
def chromium(downloads, size="1000,1000"):
    """A driver with a window of this size whose downloads go to this folder and which keeps the browser's logs."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with chromedriver (on Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={size}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def photograph(browser, name):
    """Keep the window's picture as NAME.png in the folder RESTORER_SCREENSHOTS, for people to look at; else nothing."""
    if folder := os.environ.get("RESTORER_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def drag(browser, kind, element, *paths):
    """One event of files dragged over an element from a file manager: "dragEnter", "dragOver" or "drop".

    The browser makes the event itself and reads the files, so the page cannot tell it from a person's.
    """
    box = element.rect
    scrolled = browser.execute_script("return [scrollX, scrollY]")
    place = {"x": box["x"] + box["width"] / 2 - scrolled[0], "y": box["y"] + box["height"] / 2 - scrolled[1]}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def set_scheme(browser, scheme):
    """Let the page see a light or dark system; None is what the machine has."""
    features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def luminance(browser, name):
    """WCAG's relative luminance of one of the page's colours, by the name of its property."""
    value = browser.execute_script(
        "return getComputedStyle(document.body).getPropertyValue(arguments[0]).trim()", f"--{name}"
    )
    rgb = np.array([int(value[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(browser, one, other):
    """WCAG's contrast between two of the page's colours, by the names of their properties."""
    dark, light = sorted([luminance(browser, one), luminance(browser, other)])
    return (light + 0.05) / (dark + 0.05)
