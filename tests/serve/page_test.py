#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page in a headless Chromium: page_test.py URL. A stroke is drawn with the mouse, taught, trained; the answer must become what was taught.

Speaks the DevTools protocol over a WebSocket of its own (standard library only). Exit code 77: no Chromium here.
"""
import base64
import http.client
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

failures = 0


def check(good, text):
    global failures
    if not good:
        failures += 1
        print("FAILED:", text)


class Page:
    """One tab, spoken to over its WebSocket."""

    def __init__(self, port, url):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        c.request("PUT", "/json/new?about:blank")
        where = json.loads(c.getresponse().read())["webSocketDebuggerUrl"].split("/", 3)[3]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{where} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        assert b" 101 " in head.split(b"\r\n")[0], head
        self.number, self.errors = 0, []
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.call("Page.navigate", url=url)

    def receive(self, n):
        data = b""
        while len(data) < n:
            part = self.socket.recv(n - len(data))
            if not part:
                raise SystemExit("the browser is gone")
            data += part
        return data

    def message(self):
        data = b""
        while True:
            first, second = self.receive(2)
            n = second & 127
            if n > 125:
                n = struct.unpack("!H" if n == 126 else "!Q", self.receive(2 if n == 126 else 8))[0]
            data += self.receive(n)
            if first & 128:
                return json.loads(data)

    def call(self, method, **params):
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        mask = os.urandom(4)
        length = bytes([128 | len(data)]) if len(data) < 126 else bytes([254]) + struct.pack("!H", len(data))
        self.socket.sendall(b"\x81" + length + mask + bytes(v ^ mask[i % 4] for i, v in enumerate(data)))
        while True:
            answer = self.message()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"].get("exception", {}).get("description", "exception"))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])
            if answer.get("id") == self.number:
                return answer.get("result", {})

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {}).get("value")

    def until(self, expression, seconds=90):
        end = time.time() + seconds
        while time.time() < end:
            if self.value(expression):
                return True
            time.sleep(0.2)
        return False

    def click(self, name):
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.getElementById('{name}').getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def stroke(self, points):
        left, top = self.value("(r => [r.x, r.y])(document.getElementById('draw').getBoundingClientRect())")
        for i, (x, y) in enumerate(points):
            kind = "mousePressed" if i == 0 else "mouseMoved"
            self.call("Input.dispatchMouseEvent", type=kind, x=left + x, y=top + y, button="left", buttons=1, clickCount=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=left + points[-1][0], y=top + points[-1][1], button="left", clickCount=1)


def look(page):
    check(page.until("document.getElementById('version').textContent === '1'"), "the page shows no version")
    check(page.value("document.getElementById('model').value") == "digits", "the model is not in the list")
    check(page.value("document.querySelectorAll('.bar').length") == 10, "not ten bars")
    strokes = {3: [(96, 20), (96, 60), (96, 120), (96, 170)], 8: [(20, 96), (60, 96), (120, 96), (170, 96)]}
    for label, points in strokes.items():
        page.click("clear")
        page.stroke(points)
        check(page.until("document.getElementById('by').textContent === '1'"), "a drawing was not answered")
        for k in range(3):
            before = page.value("document.getElementById('count').textContent")
            page.click(f"label-{label}")
            check(page.until(f"document.getElementById('count').textContent !== '{before}'", 20), "a sample was not taken")
    check(page.value("document.getElementById('count').textContent") == "54", "not 54 samples")
    page.click("start")
    check(page.until("+document.getElementById('version').textContent > 1"), "no new version while it trains")
    check(page.until("document.getElementById('curve').dataset.points >= 2"), "no curve")
    for label, points in strokes.items():
        page.click("clear")
        page.stroke(points)
        check(page.until(f"document.getElementById('bars').dataset.best === '{label}'"),
              f"the answer did not become {label} but {page.value('document.getElementById(`bars`).dataset.best')}")
    check(page.value("+document.getElementById('by').textContent > 1"), "the answer is of the first version")
    check(page.value("document.querySelectorAll('#versions tr').length") >= 2, "the versions are not in the table")
    page.click("cancel")
    check(page.until("document.getElementById('state').textContent === 'idle'"), "training did not end")
    page.click("rollback")
    check(page.value("document.getElementById('error').textContent") == "", page.value("document.getElementById('error').textContent"))
    check(not page.errors, f"errors in the page: {page.errors}")


def main():
    chromium = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if not chromium:
        print("skipped: no Chromium is installed")
        return 77
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = subprocess.Popen([chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--disable-extensions",
                                    "--window-size=1100,900", "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            active = pathlib.Path(folder) / "DevToolsActivePort"
            end = time.time() + 60
            while not (active.exists() and active.read_text().strip()) and browser.poll() is None and time.time() < end:
                time.sleep(0.1)
            if not active.exists():
                print("skipped: Chromium does not start here")
                return 77
            look(Page(int(active.read_text().split()[0]), sys.argv[1]))
        finally:
            browser.terminate()
            browser.wait()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
