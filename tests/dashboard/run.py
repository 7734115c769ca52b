#!/usr/bin/env python3
"""The dashboard in a real browser: Chromium, driven by Selenium.

    run.py BINARY [--screenshots DIR] [--axe FILE]

BINARY is dms-worker. Exits with 0 if everything held. With --screenshots, pictures of the pages are written for docs/.
With --axe, every page is checked by axe-core. On a failure a picture of the page is written next to this file.
"""

import argparse
import contextlib
import http.server
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "vendor"))
import postgres  # noqa: E402
TOKEN, READ_TOKEN = "a token for the test", "another token to read"
WAIT = 20
BIDI, BIG = "\u202e", 12345678901234567890
HOSTILE = [
    "</script><img src=x onerror=alert(1)><b onclick=alert(2)>",
    f"left{BIDI}right\u2066\u200b",
    {"id": BIG, "price": 1.10},
    "x" * 500_000,
]
NESTED = "[" * 59 + "]" * 59


def announced(process, log=subprocess.DEVNULL):
    """Waits until a program says where its dashboard is: what it said, the address, and the process that reads what it says from then on,
    so that its pipe never fills up."""
    told = ""
    while "dashboard on" not in told:
        line = process.stderr.readline()
        assert line, f"it ended: {told}"
        told += line
    ui = re.search(r"dashboard on (\S+)", told).group(1).rstrip("/")
    return told, ui, subprocess.Popen(["cat"], stdin=process.stderr, stdout=log, stderr=log)


class Server:
    """`dms-worker serve` with a data directory, which outlives a restart."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, pathlib.Path(directory)
        config = f"""
server:
  listen: 127.0.0.1:0
  admin: {{listen: "127.0.0.1:0", token: "{TOKEN}", read_token: "{READ_TOKEN}"}}
  data_dir: "{self.directory / 'data'}"
  project_id: shop
  queues:
    - {{name: orders, max_consume_count: 1, groups: [billing, audit]}}
    - {{name: mail, groups: [smtp]}}
  schedules:
    - {{name: nightly, cron: 0 2 * * *, timezone: Europe/Berlin, queue: mail, message: {{report: daily}}}}
"""
        self.config = self.directory / "config.yaml"
        self.config.write_text(config)
        self.start()

    def start(self):
        command = [self.binary, "serve", "-c", str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = open(self.directory / "log", "a")
        told, self.ui, _ = announced(self.process, self.log)
        self.api = re.search(r"serving on (\S+)", told).group(1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def restart(self):
        """Ends the server as a crash does, and starts another one on the same data."""
        self.process.kill()
        self.process.wait(20)
        self.start()

    def call(self, method, path, body=None):
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode())
        request = urllib.request.Request(f"{self.api}/v2/shop{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def damaged(self):
        request = urllib.request.Request(self.ui.removesuffix("/ui") + "/admin/damaged", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def ids(self, name):
        queue = next(queue for queue in self.call("GET", "/queues")["queues"] if queue["name"] == name)
        groups = self.call("GET", f"/queues/{queue['id']}/groups")["groups"]
        return queue["id"], {group["name"]: group["id"] for group in groups}

    def send(self, queue, bodies, **fields):
        for at in range(0, len(bodies), 10):
            messages = [{"body": body, **fields} for body in bodies[at : at + 10]]
            self.call("POST", f"/queues/{queue}/messages", {"messages": messages})

    def fail(self, queue, group, count, error):
        """Turns messages into dead letters: each may fail once."""
        path, left = f"/queues/{queue}/groups/{group}", count
        while left:
            batch = self.call("GET", f"{path}/messages?max_msgs=1&ack_wait=30&time_wait=3")
            if not batch:
                raise AssertionError(f"{left} messages are missing")
            acks = [{"handler": entry["handler"], "status": "fail", "reason": "failed", "error": error} for entry in batch]
            self.call("POST", f"{path}/ack", {"message": acks})
            left -= len(batch)


# What looks wrong: a button in two lines, a button for copying over the text, a page that is not in view in the row of pages.
BROKEN = """
const lines = (node) => { const range = document.createRange(); range.selectNodeContents(node); return [...range.getClientRects()].filter((one) => one.width > 1); };
const found = [...document.querySelectorAll("button, .button")].filter((one) => new Set(lines(one).map((line) => Math.round(line.top / 8))).size > 1)
  .map((one) => `in two lines: ${one.textContent}`);
for (const copy of document.querySelectorAll(".code .copy:not([hidden])")) {
  const over = copy.getBoundingClientRect();
  if (lines(copy.parentElement.querySelector("pre")).some((line) => line.right > over.left + 1 && line.left < over.right && line.bottom > over.top + 1 && line.top < over.bottom - 1))
    found.push(`text under ${copy.dataset.copy}`);
}
const here = document.querySelector("nav.main [aria-current]")?.getBoundingClientRect();
if (here && (here.left < 0 || here.right > innerWidth)) found.push("the page is not in view in the row of pages");
return found;
"""


class Browser:
    """One browser window, and the checks that hold for every page."""

    def __init__(self, server, axe, screenshots):
        self.server, self.axe, self.screenshots = server, axe, screenshots
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(argument)
        options.add_argument("--lang=en")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(60)
        self.size(1280, 860)

    def size(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, path):
        for _ in range(3):
            self.driver.get(self.server.ui + path)
            # Chromium may take a connection that was closed just now.
            if not self.driver.execute_script("return location.protocol === 'chrome-error:'"):
                break
        self.check()

    def check(self):
        """No message of the browser about the policy or a script, nothing wider than the window, no fault that axe-core finds."""
        complaints = [entry["message"] for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]]
        complaints = [entry for entry in complaints if "status of 4" not in entry and "ERR_" not in entry and "[DOM]" not in entry]
        assert not complaints, complaints
        broken = self.driver.execute_script(BROKEN)
        assert not broken, (self.driver.current_url, broken)
        wide = self.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{self.driver.current_url} is {wide} pixels wider than the window"
        if self.axe:
            self.driver.execute_script(self.axe)
            found = self.driver.execute_async_script(
                "const done = arguments[0]; axe.run().then((found) => done(found.violations.map((one) => "
                "`${one.id}: ${one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')}`)));"
            )
            assert not found, "\n".join([self.driver.current_url, *found])

    def one(self, css):
        return WebDriverWait(self.driver, WAIT).until(lambda driver: driver.find_element(By.CSS_SELECTOR, css))

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def steady(self, action):
        """What `action` returns. It is repeated if the page changed under it, as an element of the page before cannot be used."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                return action()
            except StaleElementReferenceException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def text(self, css="main"):
        return self.steady(lambda: self.one(css).text)

    def value(self, css):
        return self.steady(lambda: self.one(css).get_attribute("value"))

    def click(self, css):
        def once():
            element = self.one(css)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()

        self.steady(once)

    def fill(self, css, value):
        def once():
            field = self.one(css)
            field.clear()
            field.send_keys(value)

        self.steady(once)

    @contextlib.contextmanager
    def leaving(self):
        """What is done inside leads to another page: waits until that page is loaded."""
        before = self.one("html")
        yield

        def another():
            try:
                before.is_enabled()
                return False
            except WebDriverException:
                return self.driver.execute_script("return document.readyState") == "complete"

        self.until("another page", another)

    def submit(self, css):
        """Sends the form that this field belongs to."""
        with self.leaving():
            self.one(css).submit()

    def until(self, what, condition):
        # An element may belong to the page before this one: then the condition is asked again.
        wait = WebDriverWait(self.driver, WAIT, 0.2, ignored_exceptions=[WebDriverException])
        try:
            wait.until(lambda _: condition())
        except Exception as error:
            raise AssertionError(f"{what}: {self.driver.current_url}\n{self.text()[:2000]}") from error

    def log_in(self, token):
        self.driver.get(self.server.ui + "/login")
        if "/login" in self.driver.current_url:
            self.fill("#token", token)
            self.submit("#token")
        self.until("logged in", lambda: self.all("nav.main"))

    def prefer(self, name, value):
        with self.leaving():
            self.click(f"button[name={name}]" + (f"[value='{value}']" if value else ""))

    def shoot(self, name, width=1280, height=None):
        if not self.screenshots:
            return
        if height is None:
            self.size(width, 400)
            height = min(1600, max(500, self.driver.execute_script("return document.documentElement.scrollHeight")))
        self.size(width, height)
        time.sleep(0.6)
        self.driver.save_screenshot(str(self.screenshots / f"dashboard-{name}.png"))
        self.size(1280, 860)


def test_login_and_live_numbers(server, browser):
    browser.open("/queues")
    assert browser.driver.current_url.endswith("/login?next=%2Fui%2Fqueues"), browser.driver.current_url
    browser.fill("#token", "wrong")
    browser.submit("#token")
    browser.until("the wrong token is refused", lambda: browser.all(".alert.bad"))
    browser.check()
    browser.log_in(TOKEN)
    queue, groups = server.ids("orders")
    browser.open("/")
    cell = f"[data-live='{groups['billing']}.ready']"
    before = browser.text(cell)
    server.send(queue, [{"order": number} for number in range(30)])
    browser.until("a live number moves", lambda: browser.text(cell) not in ("", before))
    browser.click("#pause")
    frozen = browser.text(cell)
    server.send(queue, [{"order": number} for number in range(30, 40)])
    time.sleep(2.5)
    assert browser.text(cell) == frozen, "paused numbers moved"
    browser.click("#pause")
    browser.until("the numbers go on", lambda: browser.text(cell) != frozen)
    browser.check()


def test_charts(server, browser):
    queue, groups = server.ids("orders")
    browser.open(f"/queues/orders/billing")
    browser.until("three charts are drawn", lambda: len(browser.all(".uplot canvas")) == 3)
    painted = "const c = document.querySelector('.uplot canvas'); return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)"
    browser.until("a line is painted", lambda: browser.driver.execute_script(painted))
    browser.click(".ranges a:nth-child(2)")
    browser.until("another range", lambda: "range=3h" in browser.driver.current_url and browser.all(".uplot canvas"))
    browser.check()


def test_messages(server, browser):
    queue, groups = server.ids("mail")
    server.send(queue, HOSTILE, attributes={"customer": "<i>7</i>", "n": BIG})
    server.call("POST", f"/queues/{queue}/messages", b'{"messages":[{"body":' + NESTED.encode() + b"}]}")
    server.send(queue, ["later"], delay_time=3_600_000)
    server.call("GET", f"/queues/{queue}/groups/{groups['smtp']}/messages?max_msgs=1&ack_wait=300&time_wait=1")
    before = server.call("GET", f"/queues/{queue}/groups")["groups"][0]
    browser.open("/queues/mail/smtp/messages")
    text = browser.text()
    for expected in ("leased", "ready", "due in", "U+202E", str(BIG), "</script>"):
        assert expected in text, (expected, text)
    assert not browser.all("main img, main [onclick], main b, main i"), "a body became an element"
    assert BIDI not in text
    browser.shoot("messages")
    browser.fill("#filter-pointer", f"/id={BIG}")
    browser.submit("#filter-pointer")
    browser.until("the filter finds one message", lambda: len(browser.all(".messages tbody tr")) == 1)
    assert "pointer=" in browser.driver.current_url
    browser.check()
    message = browser.driver.current_url
    browser.open("/queues/mail/smtp/messages?until=2020-01-01T00:00")
    assert not browser.all(".messages") and "No messages match" in browser.text(), browser.text()
    browser.open("/queues/mail/smtp/messages?since=2020-01-01T00:00")
    assert len(browser.all(".messages tbody tr")) == 6, browser.text()
    # The script sends times in UTC, whatever the zone of the visitor.
    browser.submit("#filter-text")
    assert "since=2020-01-01T00%3A00%3A00.000Z" in browser.driver.current_url, browser.driver.current_url
    browser.driver.get(message)
    browser.click(".messages tbody a")
    browser.until("the message is shown", lambda: browser.all(".place"))
    assert f'"id": {BIG}' in browser.text() and '"price": 1.1' in browser.text(), browser.text()
    first = "return getComputedStyle(document.querySelector('.place .facts dt'), '::first-letter').textTransform"
    assert browser.driver.execute_script(first) == "none", "the name of an attribute has other letters than it has"
    browser.check()
    browser.shoot("message")
    for row in range(5):
        browser.open("/queues/mail/smtp/messages")
        browser.all(".messages tbody a")[row].click()
        browser.until("a hostile body is shown", lambda: browser.all(".place pre"))
        browser.check()
    assert server.call("GET", f"/queues/{queue}/groups")["groups"][0] == before, "looking leased or settled something"


def dead(server):
    queue, groups = server.ids("orders")
    found = server.call("GET", f"/queues/{queue}/groups?include_deadletter=true")["groups"]
    return next(group["available_deadletters"] for group in found if group["name"] == "billing")


def test_redrive_is_cancelled_and_resumed(server, browser):
    queue, groups = server.ids("orders")
    server.call("GET", f"/queues/{queue}/groups/{groups['billing']}/messages?max_msgs=1&ack_wait=15&time_wait=1")
    server.send(queue, [{"order": number, "customer": f"c-{number % 7}"} for number in range(1000, 2040)])
    server.fail(queue, groups["billing"], 700, "no such account")
    server.fail(queue, groups["billing"], 330, "connection refused")
    browser.open("/queues/orders/billing/dead")
    text = browser.text()
    assert "no such account" in text and "connection refused" in text, text
    browser.shoot("dead-letters")
    causes = {row.find_elements(By.CSS_SELECTOR, "td")[2].text.split("\n")[-1]: row for row in browser.all("main table")[0].find_elements(By.CSS_SELECTOR, "tbody tr")}
    causes["no such account"].find_element(By.CSS_SELECTOR, "a").click()
    browser.until("the filter is in the URL", lambda: "error=no" in browser.driver.current_url)
    browser.click(".actions .primary")
    browser.until("the dry run", lambda: browser.all("#typed"))
    browser.check()
    browser.shoot("redrive")
    expected = browser.value("input[name=expected]")
    assert expected == "700", expected
    browser.fill("#typed", "699")
    browser.submit("#typed")
    browser.until("a wrong number is refused", lambda: browser.all(".alert.bad"))
    browser.fill("#rate", "50")
    browser.fill("#typed", expected)
    browser.submit("#typed")
    browser.until("the job runs", lambda: "/jobs/" in browser.driver.current_url)
    job = browser.driver.current_url.rsplit("/", 1)[1]
    browser.until("it makes progress", lambda: dead(server) < 1030 - 50)
    browser.check()
    browser.shoot("job")
    server.restart()
    browser.log_in(TOKEN)
    browser.open(f"/jobs/{job}")
    browser.until("the job goes on after the restart", lambda: dead(server) < 1030 - 200)
    browser.click("#job button.bad")
    browser.until("it is cancelled", lambda: "cancelled" in browser.text())
    left = dead(server)
    time.sleep(1.5)
    assert dead(server) == left and left > 330, "a cancelled redrive went on"
    browser.open("/queues/orders/billing/dead/redrive")
    browser.fill("#typed", browser.value("input[name=expected]"))
    browser.submit("#typed")
    browser.until("everything is redriven", lambda: "done" in browser.text() and dead(server) == 0)


def test_discard_is_undone(server, browser):
    queue, groups = server.ids("orders")
    server.fail(queue, groups["billing"], 12, "poison")
    browser.open("/queues/orders/billing/dead/discard")
    browser.fill("#typed", browser.value("input[name=expected]"))
    browser.submit("#typed")
    browser.until("the discard waits", lambda: "begins in" in browser.text())
    browser.shoot("undo")
    browser.click("#job button.bad")
    browser.until("it is undone", lambda: "cancelled" in browser.text())
    assert dead(server) == 12


def test_a_dead_letter_is_edited(server, browser):
    """Without a script: the copy goes to the group, and the original stays beside it."""
    queue = server.call("POST", "/queues", {"name": "letters", "redrive_policy": "enable", "max_consume_count": 1})["id"]
    server.call("POST", f"/queues/{queue}/groups", {"groups": [{"name": "editor"}]})
    queue, groups = server.ids("letters")
    server.send(queue, [{"order": BIG, "mail": "ann@exampel.org"}], attributes={"n": BIG})
    server.fail(queue, groups["editor"], 1, "no such host: exampel.org")
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(server.ui + "/queues/letters/editor/dead")
        with browser.leaving():
            browser.click(".messages tbody a")
        with browser.leaving():
            browser.click(".standing a.button")
        edit = browser.driver.current_url.removeprefix(server.ui)
        body = browser.value("#edit-body")
        assert str(BIG) in body and str(BIG) in browser.value("#edit-attributes"), body
        browser.fill("#edit-body", "{no json")
        browser.submit("#edit-body")
        assert browser.value("#edit-body") == "{no json" and browser.all(".alert.bad")
        browser.fill("#edit-body", body.replace("exampel", "example"))
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.open(edit)
    browser.check()
    browser.fill("#edit-body", body.replace("exampel", "example"))
    browser.shoot("edit")
    browser.submit("#edit-body")
    text = browser.text()
    assert "ann@example.org" in text and "ann@exampel.org" in text, text
    assert text.count(f'"order": {BIG}') >= 2 and "failed: no such host" in text, text
    browser.check()
    browser.shoot("edited")
    browser.open("/activity")
    assert browser.text().count("an edited copy was sent") == 1
    taken = server.call("GET", f"/queues/{queue}/groups/{groups['editor']}/messages?max_msgs=10&ack_wait=15&time_wait=3")
    assert [entry["message"]["body"] for entry in taken] == [{"order": BIG, "mail": "ann@example.org"}], taken
    acks = [{"handler": entry["handler"], "status": "success"} for entry in taken]
    server.call("POST", f"/queues/{queue}/groups/{groups['editor']}/ack", {"message": acks})


def test_send(server, browser):
    browser.open("/send")
    browser.fill("#send-body", '{"id": 12345678901234567890}')
    browser.fill("#send-labels", "new")
    browser.shoot("send")
    browser.one("main form button.primary").click()
    browser.until("the message was sent", lambda: browser.all(".alert.good a"))
    browser.check()
    browser.click(".alert.good a")
    browser.until("its page", lambda: "12345678901234567890" in browser.text())


def test_search_over_all_queues(server, browser):
    queue, groups = server.ids("mail")
    server.send(queue, [{"id": BIG}])
    browser.open("/search")
    browser.fill("#filter-pointer", f"/id={BIG}")
    browser.submit("#filter-pointer")
    text = browser.text()
    assert "mail / smtp" in text and str(BIG) in text, text
    browser.check()
    browser.open("/search?text=order")
    assert "orders / billing" in browser.text(), browser.text()
    # Page by page to the end.
    pages = 1
    while browser.all(".further a.primary"):
        with browser.leaving():
            browser.click(".further a.primary")
        pages += 1
    assert 1 < pages < 100, pages
    browser.open("/search?text=order")
    browser.shoot("search", height=900)


def test_tags(server, browser):
    browser.open("/queues/orders")
    browser.fill("#tag-key", "team")
    browser.fill("#tag-value", "payments")
    browser.submit("#tag-key")
    assert "payments" in browser.text()
    browser.check()
    browser.shoot("queue")


def test_schedules(server, browser):
    """One is added without a script, sends its message, is paused, and is removed. The one of the configuration cannot be removed."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(server.ui + "/schedules")
        browser.fill("#new-name", "wrong")
        browser.fill("#new-cron", "0 25 * * *")
        browser.fill("#new-message", "1")
        browser.submit("#new-name")
        assert "the hour is" in browser.text(".alert.bad") and browser.value("#new-cron") == "0 25 * * *"
        browser.fill("#new-name", "each-second")
        browser.one(f"#new-queue option[value='{server.ids('mail')[0]}']").click()
        browser.fill("#new-cron", "* * * * * *")
        browser.fill("#new-zone", "Asia/Shanghai")
        browser.fill("#new-message", f'{{"id": {BIG}}}')
        browser.submit("#new-name")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "each-second" in browser.text() and str(BIG) in browser.text(), browser.text()
    page = browser.driver.current_url.removeprefix(server.ui).split("?")[0]

    def has_sent():
        browser.open(page)
        return "message sent" in browser.text()

    browser.until("a tick sent its message", has_sent)
    browser.shoot("schedule")
    browser.open("/schedules")
    assert "nightly" in browser.text() and "of the configuration" in browser.text()
    browser.shoot("schedules")
    with browser.leaving():
        browser.click("button[aria-label='Pause each-second']")
    assert "paused" in browser.text(), browser.text()
    browser.check()
    browser.open("/queues/mail")
    assert "each-second" in browser.text()
    browser.open("/schedules/mail/nightly")
    assert "server.schedules" in browser.text() and not browser.all("#confirm-remove")
    browser.open(page)
    browser.fill("#confirm-remove", "each-second")
    browser.submit("#confirm-remove")
    browser.until("it was removed", lambda: "each-second" not in browser.text())
    browser.open("/activity")
    for action in ("add-schedule", "pause-schedule", "remove-schedule"):
        assert action in browser.text(), browser.text()
    # Its messages would be found by the other tests.
    call = urllib.request.Request(f"{server.ui}/queues/mail/purge", data=b"confirm=mail", headers={"Authorization": f"Bearer {TOKEN}"})
    urllib.request.urlopen(call, timeout=30).close()


def test_queues_are_created_and_deleted(server, browser):
    browser.open("/queues")
    browser.fill("#new-name", "made-here")
    browser.fill("#new-group", "first")
    browser.submit("#new-name")
    browser.until("it was created", lambda: "made-here" in browser.text())
    browser.check()
    browser.open("/queues/made-here")
    browser.check()
    browser.fill("#confirm-delete", "made-here")
    browser.submit("#confirm-delete")
    browser.until("it was deleted", lambda: "made-here" not in browser.text() and browser.driver.current_url.endswith("notice=done"))


def test_keyboard(server, browser):
    browser.open("/")
    page = browser.one("body")
    page.send_keys(Keys.TAB)
    assert "skip" in browser.driver.switch_to.active_element.get_attribute("class")
    browser.one("main").click()
    browser.one("body").send_keys("?")
    browser.until("the help is open", lambda: browser.one("#keys").is_displayed())
    browser.check()
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.one("body").send_keys("gd")
    browser.until("g d leads to the dead letters", lambda: browser.driver.current_url.endswith("/ui/dead"))
    browser.one("body").send_keys("/")
    browser.until("the search has the focus", lambda: browser.driver.switch_to.active_element.get_attribute("id") == "find-id")
    browser.open("/queues/orders/billing/dead")
    browser.one("body").send_keys("/")
    browser.until("the filter has the focus", lambda: (browser.driver.switch_to.active_element.get_attribute("id") or "").startswith("filter-"))


PAGES = ["/", "/queues", "/queues/orders", "/queues/orders/billing", "/queues/orders/billing/messages", "/queues/orders/billing/leases", "/queues/orders/billing/dead",
         "/queues/orders/billing/dead/redrive", "/queues/orders/billing/consume", "/dead", "/search", "/search?text=order",
         "/jobs", "/send", "/schedules", "/schedules/mail/nightly", "/storage", "/cluster", "/access", "/activity", "/nothing"]


def test_every_page_in_every_language_theme_and_width(server, browser):
    for language, name in (("zh-CN", "zh"), ("en", "en")):
        browser.open("/")
        if browser.driver.execute_script("return document.documentElement.lang") != language:
            browser.prefer("language", language)
        browser.until("the language", lambda: browser.driver.execute_script("return document.documentElement.lang") == language)
        for theme in ("dark", "light"):
            while browser.driver.execute_script("return document.documentElement.dataset.theme") != theme:
                browser.prefer("theme", None)
            for width in (1280, 390):
                browser.size(width, 860)
                for page in PAGES:
                    browser.open(page)
                    if page == "/queues/orders/billing":
                        browser.until("the charts are drawn", lambda: len(browser.all(".uplot canvas")) == 3)
                        browser.check()
                    if page in ("/", "/queues/orders/billing") and (theme, width) in (("light", 1280), ("dark", 1280), ("light", 390)):
                        kind = "" if width == 1280 else "-narrow"
                        browser.shoot(f"{'overview' if page == '/' else 'group'}-{name}-{theme}{kind}", width)
                    if page in ("/jobs", "/storage", "/access", "/activity", "/queues/orders/billing/consume") and (name, theme, width) == ("en", "light", 1280):
                        browser.shoot(page.rsplit("/", 1)[1])
            browser.size(1280, 860)


def test_the_read_token_sees_no_bodies_and_no_buttons(server, browser):
    browser.driver.delete_all_cookies()
    browser.log_in(READ_TOKEN)
    for page in PAGES:
        browser.open(page)
        assert not browser.all("main form[method=post]"), page
    browser.open("/queues/mail/smtp/messages")
    assert str(BIG) not in browser.text() and not browser.all("#filter-text")
    browser.check()


def test_without_javascript(server, browser):
    """Everything but live numbers and charts."""
    browser.driver.delete_all_cookies()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(server.ui + "/login")
        browser.fill("#token", TOKEN)
        browser.one("#token").send_keys(Keys.ENTER)
        browser.until("logged in", lambda: browser.all("nav.main"))
        browser.driver.get(server.ui + "/queues/orders/billing/dead/discard")
        browser.fill("#typed", browser.value("input[name=expected]"))
        browser.one("#typed").send_keys(Keys.ENTER)
        browser.until("the discard waits", lambda: "begins in" in browser.text())
        browser.one("#job button.bad").click()
        browser.until("it is undone", lambda: "cancelled" in browser.text())
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@contextlib.contextmanager
def workers_of(server, config):
    """`dms-worker run` with this configuration; gives what the browser needs of it."""
    file = server.directory / "workers.yaml"
    file.write_text(config)
    process = subprocess.Popen([server.binary, "run", "-c", str(file)], stderr=subprocess.PIPE, text=True)
    _, ui, reader = announced(process)
    try:
        yield type("Worker", (), {"ui": ui})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        reader.wait(5)


def test_in_flight_with_deadlines(server, browser):
    """An application that does not answer: the server shows the leases, the worker the messages, both with the time left."""
    done = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            # A worker begins with one message, until its application has answered once.
            if b'"order":0' not in self.rfile.read(int(self.headers.get("Content-Length", 0))).replace(b" ", b""):
                done.wait(60)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    queue = server.call("POST", "/queues", {"name": "slow"})["id"]
    server.call("POST", f"/queues/{queue}/groups", {"groups": [{"name": "app"}]})
    server.send(queue, [{"order": number} for number in range(12)])
    application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    config = f"""
dms: {{endpoint: "{server.api}", project_id: shop}}
workers:
  - {{name: slow, queue: slow, group: app, concurrency: 4, handler: {{http: {{url: "http://127.0.0.1:{application.server_port}/"}}}}}}
admin: {{listen: "127.0.0.1:0"}}
"""
    own = browser.server
    try:
        with workers_of(server, config) as worker:
            browser.until("messages are in flight", lambda: server.call("GET", f"/queues/{queue}/groups")["groups"][0]["available_messages"] == 7)
            browser.open("/queues/slow/app/leases")
            assert len(browser.all("tbody tr")) == 4, browser.text()
            left = browser.text("[data-left]")
            browser.until("the time runs down", lambda: browser.text("[data-left]") != left)
            browser.check()
            browser.shoot("in-flight")
            browser.server = worker
            browser.open("/workers/slow")
            browser.until("three charts are drawn", lambda: len(browser.all(".uplot canvas")) == 3)
            rows = len(browser.all("[data-left]"))
            assert rows == 4, browser.text()
            browser.click("a[href*='range=3h']")
            browser.until("another range of the charts", lambda: "range=3h" in browser.driver.current_url)
            browser.click("#again a[href*='window=1h']")
            browser.until("both choices stay", lambda: "range=3h" in browser.driver.current_url and "window=1h" in browser.driver.current_url)
            assert [link.text for link in browser.all(".ranges [aria-current=true]")] == ["3 h", "1 h"], browser.text()
            browser.open("/workers/slow")
            left = browser.text("[data-left]")
            browser.until("the time runs down", lambda: browser.text("[data-left]") != left)
            browser.check()
            browser.size(390, 860)
            browser.open("/workers/slow?range=3h")
            browser.size(1280, 860)
            browser.open("/workers/slow")
            browser.shoot("worker-in-flight")
            done.set()
            browser.until("all are done", lambda: browser.text("[data-live='slow.done']") == "12")
            browser.open("/workers/slow")
            assert not browser.all("[data-left]")
    finally:
        done.set()
        browser.server = own
        application.shutdown()


def cluster_server(server, database, name):
    """A server of a cluster, on ports of its own, without a token."""
    config = server.directory / f"{name}.yaml"
    config.write_text(f"""
server:
  listen: 127.0.0.1:0
  admin: {{listen: "127.0.0.1:0", dashboard: {{actions: true}}}}
  postgres: {{url: "{database}"}}
  cluster: {{listen: "127.0.0.1:0", takeover_after: 2s}}
  project_id: shop
  queues:
    - {{name: orders, max_consume_count: 1, groups: [billing]}}
    - {{name: mail, groups: [smtp]}}
""")
    started = Server.__new__(Server)
    started.binary, started.directory, started.config = server.binary, server.directory, config
    started.start()
    return started


def test_cluster(server, browser):
    """The pages of a cluster, and a redrive whose server dies: another one goes on with it."""
    own = browser.server
    with postgres.running() as database, contextlib.ExitStack() as stack:
        servers = [cluster_server(server, database, name) for name in ("north", "south")]
        first, second = servers
        stack.callback(second.stop)
        stack.callback(first.process.kill)
        try:
            browser.server = second

            def both_own():
                browser.open("/cluster")
                return all(int(cell.text) > 0 for cell in browser.all("main table tbody tr td.num")[:2])

            browser.until("both servers own shards", both_own)
            for language in ("zh-CN", "en"):
                if browser.driver.execute_script("return document.documentElement.lang") != language:
                    browser.prefer("language", language)
                for width in (390, 1280):
                    browser.size(width, 860)
                    for page in ("/cluster", "/jobs", "/storage", "/"):
                        browser.open(page)
                browser.open("/cluster")
                browser.shoot("cluster" if language == "en" else "cluster-zh")
            queue, groups = first.ids("orders")
            first.send(queue, [{"order": number} for number in range(60)])
            first.fail(queue, groups["billing"], 60, "no such account")
            browser.server = first
            browser.open("/queues/orders/billing/dead/redrive")
            browser.fill("#rate", "8")
            browser.fill("#typed", browser.value("input[name=expected]"))
            browser.submit("#typed")
            browser.until("the job runs", lambda: "/jobs/" in browser.driver.current_url)
            job = browser.driver.current_url.rsplit("/", 1)[1]
            browser.server = second

            def is_listed():
                browser.open("/jobs")
                return "running at" in browser.text()

            browser.until("the other server lists it", is_listed)
            browser.shoot("jobs-cluster")
            first.process.kill()

            def is_done():
                browser.driver.get(f"{second.ui}/jobs/{job}")
                return "done" in browser.text() and "60 / 60" not in browser.text("h1")

            browser.until("the other server goes on and ends it", is_done)
            browser.check()
            assert dead(second) == 0
        finally:
            browser.server = own


def test_a_link_logs_in_once(server, browser):
    """`serve` prints it on a terminal."""
    config = server.directory / "linked.yaml"
    config.write_text(f'server: {{listen: "127.0.0.1:0", admin: {{listen: "127.0.0.1:0", token: "{TOKEN}"}}}}\n')
    screen, terminal = pty.openpty()
    process = subprocess.Popen([server.binary, "serve", "-c", str(config)], stderr=terminal)
    os.close(terminal)
    try:
        told = ""
        while not re.search(r"log in once, within 10 minutes: \S+\s", told):
            told += os.read(screen, 4096).decode()
        link = re.search(r"log in once, within 10 minutes: (\S+)", told).group(1)
        browser.driver.get(link)
        browser.until("it logged in", lambda: browser.all("nav.main"))
        browser.check()
        assert "#" not in browser.driver.current_url
        browser.driver.delete_all_cookies()
        browser.driver.get("about:blank")
        browser.driver.get(link)
        browser.until("it is refused the second time", lambda: browser.all(".alert.bad"))
        assert "/login" in browser.driver.current_url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        os.close(screen)


def test_worker_pages(server, browser):
    """The dashboard of `dms-worker run`, with a worker whose application is down."""
    config = server.directory / "worker.yaml"
    config.write_text("""
server: {listen: "127.0.0.1:0", queues: [{name: orders, max_consume_count: 3, groups: [billing]}, {name: mail, groups: [smtp]}]}
workers:
  - {name: orders, queue: orders, group: billing, handler: {log: {}}}
  - {name: mail, queue: mail, group: smtp, handler: {http: {url: "http://127.0.0.1:1/mail"}}}
admin: {listen: "127.0.0.1:0", dashboard: {actions: true}}
""")
    process = subprocess.Popen([server.binary, "run", "-c", str(config)], stderr=subprocess.PIPE, text=True)
    _, ui, reader = announced(process)
    own, browser.server = browser.server, type("Worker", (), {"ui": ui})
    try:
        browser.open("/")
        browser.until("a worker runs and another is in trouble", lambda: "running" in browser.text() and "cannot be reached" in browser.text())
        browser.shoot("workers")
        for page in ("/workers/mail", "/workers/orders", "/publishers", "/config", "/activity", "/nothing"):
            for width in (1280, 390):
                browser.size(width, 860)
                browser.open(page)
        browser.size(1280, 860)
        browser.open("/workers/orders")
        browser.click("main form button")
        browser.until("it is paused", lambda: "notice=done" in browser.driver.current_url)
        browser.fill("#messages", "7")
        browser.submit("#messages")
        browser.until("another concurrency", lambda: browser.text("[data-live='orders.concurrency']") == "7")
        browser.shoot("worker")
        browser.open("/")
        browser.until("the state is paused", lambda: browser.text("[data-live='orders.state']") == "paused")
        browser.open("/activity")
        assert "concurrency" in browser.text() and "pause" in browser.text()
    finally:
        browser.server = own
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        reader.wait(5)


def test_a_slowed_down_key_is_freed(server, browser):
    """Wrong signatures lock a key for its peer; the access page shows that, and lifts it."""
    config = server.directory / "keys.yaml"
    config.write_text(f"""
server:
  listen: 127.0.0.1:0
  admin: {{listen: "127.0.0.1:0", token: "{TOKEN}"}}
  project_id: shop
  auth: {{access_keys: [{{access_key: AK-SHOP, secret_key: "{'s' * 40}"}}]}}
""")
    keyed = Server.__new__(Server)
    keyed.binary, keyed.directory, keyed.config = server.binary, server.directory, config
    keyed.start()

    def wrongly_signed():
        """The error code for a request of the key with another signature."""
        request = urllib.request.Request(f"{keyed.api}/v2/shop/queues")
        request.add_header("X-Sdk-Date", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        request.add_header("Authorization", f"SDK-HMAC-SHA256 Access=AK-SHOP, SignedHeaders=host;x-sdk-date, Signature={'0' * 64}")
        try:
            urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            return json.loads(error.read())["error_msg"]

    own, browser.server = browser.server, keyed
    try:
        browser.driver.delete_all_cookies()
        browser.log_in(TOKEN)
        browser.open("/access")
        assert "Nobody is slowed down now" in browser.text(), browser.text()
        said = [wrongly_signed() for _ in range(7)]
        assert "verify aksk signature fail" in said[0] and "failed to reach the limit" in said[6], said
        for width in (390, 1280):
            browser.size(width, 860)
            browser.open("/access")
        lift = "form[action$='/access/unlock'] button"
        row = browser.text("tbody tr:has(form)")
        assert "AK-SHOP" in row and "127.0.0.1" in row, row
        browser.shoot("access-slowed")
        with browser.leaving():
            browser.click(lift)
        assert "Nobody is slowed down now" in browser.text() and not browser.all(lift), browser.text()
        browser.check()
        again = wrongly_signed()
        assert "verify aksk signature fail" in again, f"the key is still locked: {again}"
        browser.open("/activity")
        assert "key AK-SHOP from 127.0.0.1" in browser.text(), browser.text()
    finally:
        browser.server = own
        keyed.stop()


TESTS = [
    test_login_and_live_numbers, test_charts, test_messages, test_redrive_is_cancelled_and_resumed, test_discard_is_undone, test_a_dead_letter_is_edited,
    test_send, test_search_over_all_queues, test_tags, test_schedules,
    test_queues_are_created_and_deleted, test_keyboard, test_every_page_in_every_language_theme_and_width,
    test_the_read_token_sees_no_bodies_and_no_buttons, test_without_javascript, test_in_flight_with_deadlines, test_worker_pages, test_cluster, test_a_link_logs_in_once,
    test_a_slowed_down_key_is_freed,
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--axe", type=pathlib.Path)
    parser.add_argument("--only", help="run the tests whose names contain this")
    arguments = parser.parse_args()
    axe = arguments.axe.read_text() if arguments.axe else None
    failed = 0
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        server = Server(arguments.binary, directory)
        stack.callback(server.stop)
        browser = Browser(server, axe, arguments.screenshots)
        stack.callback(browser.driver.quit)
        if arguments.only:
            browser.log_in(TOKEN)
        tests = [test for test in TESTS if not arguments.only or arguments.only in test.__name__]
        for test in tests:
            began = time.monotonic()
            try:
                test(server, browser)
                damaged = server.damaged()
                assert not damaged, f"{len(damaged)} messages are set aside as damaged: {damaged[:2]}"
                print(f"ok     {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception as error:
                failed += 1
                browser.driver.save_screenshot(str(HERE / f"failed-{test.__name__}.png"))
                print(f"FAILED {test.__name__}: {error}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
