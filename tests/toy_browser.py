"""A real headless Chromium for the tests of pages, or a skip where there is none."""

import shutil
from contextlib import contextmanager

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
