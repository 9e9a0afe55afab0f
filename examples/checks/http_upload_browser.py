# SPDX-License-Identifier: Apache-2.0
"""http_upload_browser.py URL FILE SCREENSHOT WORK: a headless Chromium fills in the form at URL with
FILE and sends it, driven through chromedriver (the WebDriver protocol); prints what it then shows."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

url, file, screenshot, work = sys.argv[1:5]
environment = dict(os.environ, HOME=work)
driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, env=environment,
                          text=True)
port = None
for line in driver.stdout:
    if "started successfully on port" in line:
        port = int(line.split("port")[-1].strip(" .\n"))
        break


def call(method, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method,
                                     data=None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["value"]


def element(session, selector):
    found = call("POST", f"/session/{session}/element",
                 {"using": "css selector", "value": selector})
    return f"/session/{session}/element/{next(iter(found.values()))}"


try:
    options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                        f"--user-data-dir={work}/profile"]}
    session = call("POST", "/session", {"capabilities": {"alwaysMatch": {
        "browserName": "chrome", "goog:chromeOptions": options}}})["sessionId"]
    call("POST", f"/session/{session}/url", {"url": url})
    call("POST", element(session, "#file") + "/value", {"text": file})
    with open(screenshot, "wb") as picture:
        picture.write(base64.b64decode(call("GET", f"/session/{session}/screenshot")))
    call("POST", element(session, "#send") + "/click", {})
    shown = ""
    for _ in range(200):
        try:
            shown = call("GET", element(session, "body") + "/text")
        except urllib.error.HTTPError as error:
            if error.code != 404:  # between two pages there is no body, or it is the old one's
                raise
        if "sha256" in shown:
            break
        time.sleep(0.05)
    print(shown)
    call("DELETE", f"/session/{session}")
finally:
    driver.terminate()
    driver.wait()
