"""`/docs` in a real browser, offline: it opens, a predict is tried out from it, and the answer is seen."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.ui import WebDriverWait

from tests.integration.conftest import Up

OPERATION = "#operations-V1-predict"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A headless Chromium that reaches nothing but this machine."""
    if not (CHROMIUM and DRIVER):
        assert "CI" not in os.environ, "continuous integration installs Chromium"
        pytest.skip("no Chromium here (Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--window-size=1400,1800",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path}",
    ):
        options.add_argument(argument)
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def test_a_predict_is_tried_out_from_the_page(up: Up, browser: Chrome) -> None:
    def find(selector: str) -> WebElement:
        return WebDriverWait(browser, 20).until(presence_of_element_located((By.CSS_SELECTOR, selector)))

    browser.get(up.facts["url"] + "/docs")
    find(".btn.authorize").click()
    find("#api_key_value, input[aria-label='auth-api-key'], .auth-container input").send_keys(
        up.facts["api_key"]
    )
    find(".auth-container .btn.authorize").click()
    find(".btn-done").click()

    find(f"{OPERATION} .opblock-summary-control").click()
    find(f"{OPERATION} .try-out__btn").click()
    find(f"{OPERATION} tr[data-param-name=name] input").send_keys("sklearn-iris")
    find(f"{OPERATION} .execute").click()
    find(f"{OPERATION} .live-responses-table .response-col_status")
    shown = find(f"{OPERATION} .live-responses-table").text
    assert "200" in shown
    assert '"predictions"' in shown
