"""The page that `nogaps report` makes of a notebook, looked at in a real browser."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from browser import errors_of, needs_browser, open_browser
from in_process import called
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait
from submissions import TEN_IMAGES, code, markdown, stream, write, write_submission

from tests.report.test_writing import CODE, PNGS

pytestmark = needs_browser
POLICY = re.compile(r'<meta [^>]*http-equiv="Content-Security-Policy"[^>]*>')
# how light an element's colour and background are, by WCAG 2.1; and the ratio of the two
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d");
function light(colour) {
  canvas.fillStyle = colour;
  const parts = [1, 3, 5].map((k) => parseInt(canvas.fillStyle.slice(k, k + 2), 16) / 255);
  const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function page(element) {
  while (element && getComputedStyle(element).backgroundColor === "rgba(0, 0, 0, 0)")
    element = element.parentElement;
  return light(element ? getComputedStyle(element).backgroundColor : "white");
}
function contrast(element) {
  const pair = [light(getComputedStyle(element).color), page(element)].sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
}
const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
const all = [...document.querySelectorAll("body *:not(img, script, style)")].filter(own);
const low = all.filter((e) => contrast(e) < 4.5).map((e) => e.outerHTML).slice(0, 5);
return [page(document.body), low, [...document.querySelectorAll("figure img")].map(page)];
"""
WIDTHS = "return [...document.querySelectorAll('figure img')].map((i) => [i.naturalWidth,"
WIDTHS += "i.getBoundingClientRect().width, i.complete, i.alt, i.closest('figure').innerText])"
SIDEWAYS = "return document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = open_browser(tmp_path_factory.mktemp("downloads"))
    yield driver
    driver.quit()


def visit(
    driver: webdriver.Chrome, page: Path, width: int = 1440, dark: bool = False, media: str = ""
) -> webdriver.Chrome:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    driver.get(f"file://{page}")
    state = "return document.readyState"
    WebDriverWait(driver, 60).until(lambda _: driver.execute_script(state) == "complete")
    return driver


def test_figures_are_legible_and_nothing_is_fetched(
    report: Path, chromium: webdriver.Chrome
) -> None:
    driver = visit(chromium, report)
    figures = driver.execute_script(WIDTHS)
    assert len(figures) == len(PNGS)
    for k, (natural, width, complete, alt, caption) in enumerate(figures, 1):
        assert complete and natural > 0 and width >= min(natural, 1000)
        assert re.match(rf"Figure {k}: \w", alt) and alt in caption
    assert driver.execute_script("return performance.getEntriesByType('resource')") == []
    assert not errors_of(driver)  # the page's own style and script pass its policy
    assert driver.title == driver.execute_script("return document.querySelector('h1').innerText")
    assert driver.execute_script("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [320, 768])
def test_narrow_pages_do_not_scroll_sideways(
    report: Path, chromium: webdriver.Chrome, width: int
) -> None:
    driver = visit(chromium, report, width)
    driver.execute_script("document.querySelector('.all-code').click()")
    assert driver.execute_script(SIDEWAYS) <= 0
    driver.execute_script("document.querySelectorAll('.zoom').forEach((b) => b.click())")
    assert driver.execute_script(SIDEWAYS) <= 0
    assert driver.execute_script(
        "return [...document.querySelectorAll('.prose p')].every((p) =>"
        "parseFloat(getComputedStyle(p).fontSize) >= 16)"
    )
    assert all(drawn >= 0.55 * natural for natural, drawn, *_ in driver.execute_script(WIDTHS))
    visit(driver, report, width, media="print")  # paper has no links, and no side to scroll to
    assert not driver.find_element("css selector", "nav").is_displayed()
    assert driver.execute_script(SIDEWAYS) <= 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_and_figures_stay_light(
    report: Path, chromium: webdriver.Chrome, dark: bool
) -> None:
    driver = visit(chromium, report, dark=dark)
    driver.execute_script("document.querySelector('.all-code').click()")
    page, low, cards = driver.execute_script(CONTRAST)
    assert (page < 0.02 if dark else page > 0.9) and not low
    assert cards and min(cards) > 0.9


def test_code_opens_and_contents_lead_to_their_headings(
    report: Path, chromium: webdriver.Chrome
) -> None:
    driver = visit(chromium, report)
    codes = driver.find_elements("css selector", "details.code pre")
    toggle = driver.find_element("css selector", ".all-code")
    assert len(codes) == len(CODE)
    driver.find_element("css selector", "details.code summary").click()
    assert [one.is_displayed() for one in codes[:2]] == [True, False]
    assert codes[0].text.split() == CODE[0].source.split()
    toggle.click()
    assert all(one.is_displayed() for one in codes) and toggle.text == "Hide all code"
    toggle.click()
    assert not any(one.is_displayed() for one in codes) and toggle.text == "Show all code"
    links = driver.find_elements("css selector", "nav a, main .prose a[href^='#Q']")
    names = [link.text for link in links]
    assert sum(name.startswith("Question") for name in names) == 6 and len(links) > 8
    for link, name in zip(links, names, strict=True):
        driver.execute_script("arguments[0].click()", link)
        text, top, below = driver.execute_script(
            "const h = document.querySelector(':target');"
            "return [h.innerText, h.getBoundingClientRect().top,"
            "document.documentElement.scrollHeight - innerHeight - scrollY]"
        )
        assert text.lower() == name.lower() and (0 <= top < 60 or below < 2)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server of this machine, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}", asked
        one.shutdown()


def hostile(address: str) -> dict:
    """A notebook that tries in every field to run a script and to fetch something."""
    run = "window.hacked = 1"
    tag = f'"\'><script>{run}</script><img src="{address}/i" onerror="{run}"></title></pre></style>'
    prose = f"""# Title {tag} {tag}
## Heading {tag}
{tag} {{{{ 7 * 7 }}}}
<b onclick="{run}" class="badge good" style="background: url({address}/b)">b</b>

<iframe src="{address}/f"></iframe> <svg onload="{run}"> <style>@import "{address}/c"</style>
<math><mtext><style><img src="{address}/m" onerror="{run}"></style></mtext></math>
<object data="/o">

![picture]({address}/p.png) ![svg](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KCkiLz4=)
![attached](attachment:a.png) ![file](file:///etc/hostname) ![x]({address}/x"onerror="{run})

[press](javascript:{run}) [data](data:text/html,<script>{run}</script>) <javascript:{run}>
<a href="java&#10;script:{run}">c</a> <a href=" javascript:{run}">d</a> <base href="{address}">
[ref]: javascript:{run} "x"
[ref] `{tag}` $x{tag}y$ <form action="{address}/g"><input name="x"><button>g</button></form>

| a{tag} | b |
|:-:|--:|
| {tag} | 1 |

```html" onclick="{run}
{tag}
```
"""
    shown = [
        {"text/html": tag, "text/plain": f"plain {tag}"},
        {"text/html": tag},
        {"image/svg+xml": f'<svg xmlns="http://www.w3.org/2000/svg" onload="{run}">{tag}</svg>'},
        {"text/markdown": prose},
        {"application/javascript": run, "text/latex": tag, f"x/{tag}": tag},
        {"image/png": f'{TEN_IMAGES}" onload="{run}'},
        {"image/png": base64.b64encode(f"<svg onload='{run}'>".encode()).decode()},
        {"image/png": TEN_IMAGES},
    ]
    outs = [{"output_type": "display_data", "metadata": {}, "data": data} for data in shown]
    outs += [{**stream(tag), "name": tag}]
    outs += [{"output_type": "error", "ename": tag, "evalue": tag, "traceback": [tag]}]
    outs += [stream(json.dumps({"profile": tag, tag: {tag: 1}, "seconds": tag}))]
    cells = [
        {**markdown(prose), "attachments": {"a.png": {"image/png": tag}}},
        code(f"show_rows(x, '''{tag}''')\n# {tag}", 1, *outs),
        code("%magic " + tag, 2),
        {"cell_type": "raw", "metadata": {}, "source": tag},
    ]
    return {"cells": cells, "metadata": {"title": tag}, "nbformat": 4, "nbformat_minor": 5}


def test_a_hostile_notebook_runs_and_fetches_nothing(
    tmp_path: Path, chromium: webdriver.Chrome, server: tuple[str, list[str]]
) -> None:
    address, asked = server
    write_submission(tmp_path)
    write(tmp_path, hostile(address))
    assert called("report", tmp_path).code == 1  # `check` has something to say
    page, bare = tmp_path / "report.html", tmp_path / "bare.html"
    html = page.read_text()
    bare.write_text(POLICY.sub("", html))  # the cleaning must do without the policy
    assert bare.read_text() != html and "{{ 7 * 7 }}" in html
    for path in (page, bare):
        driver = visit(chromium, path)
        driver.execute_script(
            "document.querySelector('.all-code').click();"
            "for (const e of document.querySelectorAll('main a, main summary, main b'))"
            "if (!/^http/.test(e.href || '')) e.click();"
        )
        assert driver.execute_script("return window.hacked") is None
        bad = "svg, math, iframe, object, base, form, input, main script, main style, main .badge"
        assert not driver.find_elements("css selector", bad)
        assert not driver.find_elements("css selector", "main [style], [onload], [onclick]")
        links = driver.execute_script("return [...document.links].map((a) => a.protocol)")
        assert set(links) == {"file:", "http:"}
        assert not errors_of(driver)
    assert not asked and "[picture: attached]" in html


def test_the_policy_stops_what_would_slip_through(
    report: Path, tmp_path: Path, chromium: webdriver.Chrome, server: tuple[str, list[str]]
) -> None:
    """The guard behind the cleaning, and proof that the test above could fail."""
    address, asked = server
    slipped = f'<script>window.hacked = 1</script><img src="{address}/i" onerror="hacked = 1">'
    page = tmp_path / "page.html"
    page.write_text(report.read_text().replace("</main>", f"{slipped}</main>"))
    driver = visit(chromium, page)
    assert driver.execute_script("return window.hacked") is None and not asked
    assert len(errors_of(driver)) >= 2
    page.write_text(POLICY.sub("", page.read_text()))
    assert visit(chromium, page).execute_script("return window.hacked") == 1 and asked
    errors_of(driver)
