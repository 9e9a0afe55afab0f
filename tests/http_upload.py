# SPDX-License-Identifier: Apache-2.0
"""http_upload.py SERVER: the upload server, byte by byte: every kind of bad input sees its status,
and the good ones their bytes. Starts SERVER itself, on a port that the kernel chooses."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

server_path = sys.argv[1]
outside = tempfile.TemporaryDirectory()
directory = os.path.join(outside.name, "store")
os.mkdir(directory)
failures = []
checked = 0


class Server:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([server_path, "--port", "0", "--dir", directory, *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:"), line
        self.port = int(line.rsplit(":", 1)[1])

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return connection

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        check("the server leaves with status 0", status, 0)
        return self.process.stderr.read()


def check(what, seen, wanted):
    global checked
    checked += 1
    if seen != wanted:
        failures.append(f"{what}: wanted {wanted!r}, saw {seen!r}")


class Answers:
    """Reads one answer after the other from a connection."""

    def __init__(self, connection):
        self.connection = connection
        self.bytes = b""

    def more(self):
        try:
            piece = self.connection.recv(65536)
        except ConnectionResetError:
            piece = b""
        self.bytes += piece
        return bool(piece)

    def next(self, without_body=False):
        while b"\r\n\r\n" not in self.bytes:
            if not self.more():
                return None, {}, self.bytes
        head, self.bytes = self.bytes.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines[1:])}
        length = 0 if without_body else int(headers.get("content-length", 0))
        while len(self.bytes) < length:
            if not self.more():
                return status, headers, self.bytes
        body, self.bytes = self.bytes[:length], self.bytes[length:]
        return status, headers, body

    def at_end(self):
        while self.more():
            pass
        return self.bytes == b""


def talk(server, request):
    """The first final answer to this, and whether the server then ended the connection."""
    with server.connect() as connection:
        connection.sendall(request)
        return Answers(connection).next()


def request(line, *headers, body=b""):
    return "\r\n".join([line, "Host: test", *headers, "", ""]).encode() + body


def form(boundary, *parts):
    text = b""
    for disposition, data in parts:
        text += (b"--" + boundary + b"\r\nContent-Disposition: form-data; " + disposition +
                 b"\r\n\r\n" + data + b"\r\n")
    return text + b"--" + boundary + b"--\r\n"


def post(body, content_type="multipart/form-data; boundary=b"):
    return request("POST /upload HTTP/1.1", f"Content-Type: {content_type}",
                   f"Content-Length: {len(body)}", body=body)


def files():
    return sorted(os.listdir(directory))


def bad_input(server):
    good = form(b"b", (b'name="file"; filename="x"', b"data"))
    cases = [
        ("no request", b"hello\r\n\r\n", (400, 501)),
        ("a bare line", b"GET / HTTP/1.1\n\n", (400,)),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", (400,)),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400,)),
        ("a blank before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", (400,)),
        ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", (400,)),
        ("a length that is no number", request("POST /upload HTTP/1.1", "Content-Length: ten"), (400,)),
        ("a negative length", request("POST /upload HTTP/1.1", "Content-Length: -1"), (400,)),
        ("a length beyond measure",
         request("POST /upload HTTP/1.1", "Content-Length: 99999999999999999999999"), (400,)),
        ("two lengths", request("POST /upload HTTP/1.1", "Content-Length: 1", "Content-Length: 2"),
         (400,)),
        ("a length and chunks (smuggling)",
         request("POST /upload HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"), (400,)),
        ("an unknown coding", request("POST /upload HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
         (501, 400)),
        ("a bad chunk size", request("PUT /files/a HTTP/1.1", "Transfer-Encoding: chunked",
                                     body=b"xyz\r\n"), (400,)),
        ("an unknown method", request("BREW / HTTP/1.1"), (400, 501)),
        ("a method that is not served", request("DELETE /files/x HTTP/1.1"), (501,)),
        ("connect", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", (501, 400)),
        ("another protocol version", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", (400, 505)),
        ("nowhere", request("GET /nowhere HTTP/1.1"), (404,)),
        ("no such file", request("GET /files/none HTTP/1.1"), (404,)),
        ("the wrong method for the form", request("POST / HTTP/1.1", "Content-Length: 0"), (405,)),
        ("the wrong method for an upload", request("GET /upload HTTP/1.1"), (405,)),
        ("the wrong method for a file", request("POST /files/x HTTP/1.1", "Content-Length: 0"), (405,)),
        ("no form", request("POST /upload HTTP/1.1", "Content-Length: 0"), (415,)),
        ("a form without boundary", post(good, "multipart/form-data"), (415,)),
        ("a form of another kind", post(good, "multipart/mixed; boundary=b"), (415,)),
        ("a form that does not end", post(good[:-6]), (400,)),
        ("a form with another boundary", post(good, "multipart/form-data; boundary=c"), (400,)),
        ("a part without disposition", post(b"--b\r\nX: y\r\n\r\ndata\r\n--b--\r\n"), (400,)),
        ("a part with a huge header", post(b"--b\r\nX: " + b"y" * 20000 + b"\r\n\r\n\r\n--b--\r\n"),
         (400,)),
        ("an expectation that nobody knows", request("PUT /files/a HTTP/1.1", "Content-Length: 5",
                                                     "Expect: wonders"), (417,)),
        ("a long target", request("GET /" + "x" * 9000 + " HTTP/1.1"), (414,)),
        ("a long header", request("GET / HTTP/1.1", "X: " + "y" * 40000), (431,)),
        ("many headers", request("GET / HTTP/1.1", *[f"X{n}: y" for n in range(200)]), (431,)),
        ("over the limit, announced", request("PUT /files/big HTTP/1.1", "Content-Length: 3000000"),
         (413,)),
        ("over the limit, in chunks",
         request("PUT /files/big HTTP/1.1", "Transfer-Encoding: chunked",
                 body=b"100000\r\n" + b"x" * 0x100000 + b"\r\n100000\r\n" + b"x" * 0x100000), (413,)),
    ]
    for path in ("../x", "..%2fx", "%2e%2e/x", "a/b", "..", ".", "", ".hidden", "%00", "a%0ab", "%zz",
                 "/etc/passwd", "..%5cx", "x" * 300):
        for method in ("GET", "PUT"):
            cases.append((f"the path {path[:20]!r} by {method}",
                          request(f"{method} /files/{path} HTTP/1.1", "Content-Length: 1", body=b"x"),
                          (400, 404)))
    for what, bytes_, statuses in cases:
        status = talk(server, bytes_)[0]
        check(what, status if status not in statuses else statuses, statuses)
    check("nothing of that was stored", files(), [])
    check("nothing of that lies outside", os.listdir(outside.name), ["store"])


def rude(server):
    # Who vanishes in the middle leaves nothing.
    for reset in (False, True):
        connection = server.connect()
        connection.sendall(post(form(b"b", (b'name="f"; filename="part"', b"x" * 100000)))[:5000])
        time.sleep(0.1)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    time.sleep(0.3)
    check("who vanishes leaves no file", files(), [])
    # Who is refused while he sends still gets his answer.
    with server.connect() as connection:
        connection.sendall(request("PUT /files/big HTTP/1.1", "Content-Length: 9000000"))
        try:
            for _ in range(100):
                connection.sendall(b"x" * 30000)
        except OSError:
            pass
        status, headers, _ = Answers(connection).next()
        check("a refusal reaches who still sends", (status, headers.get("connection")), (413, "close"))


def good(server):
    data = os.urandom(300000)
    digest = hashlib.sha256(data).hexdigest()
    body = form(b"b", (b'name="text"', b"no file"), (b'name="f"; filename="one.bin"', data),
                (b'name="f"; filename=""', b""), (b'name="g"; filename="C:\\dir\\two.txt"', b"2"))
    status, headers, answer = talk(server, post(body))
    check("a form", (status, headers["content-type"]), (200, "application/json"))
    check("its files", json.loads(answer), [
        {"name": "one.bin", "size": 300000, "sha256": digest},
        {"name": "two.txt", "size": 1, "sha256": hashlib.sha256(b"2").hexdigest()}])
    # A form in chunks, each byte of it in a segment of its own at first.
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece)
                       for piece in (body[n:n + 977] for n in range(0, len(body), 977))) + b"0\r\n\r\n"
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = request("POST /upload HTTP/1.1", "Content-Type: multipart/form-data; boundary=\"b\"",
                        "Transfer-Encoding: chunked", body=chunked)
        for n in range(600):
            connection.sendall(whole[n:n + 1])
        connection.sendall(whole[600:])
        status, _, answer = Answers(connection).next()
        check("a form in chunks", (status, json.loads(answer)[0]["sha256"]), (200, digest))
    # Keep-alive and a pipeline, with a download in the middle that is larger than any buffer.
    with server.connect() as connection:
        big = os.urandom(1900000)
        connection.sendall(request("PUT /files/big HTTP/1.1", f"Content-Length: {len(big)}", body=big))
        answers = Answers(connection)
        check("a raw file", answers.next()[0], 201)
        connection.sendall(request("GET /healthz HTTP/1.1") + request("GET /files/big HTTP/1.1") +
                           request("HEAD /files/big HTTP/1.1") + request("GET /files/one.bin HTTP/1.1") +
                           request("PUT /files/last HTTP/1.1", "Content-Length: 3", body=b"end") +
                           request("GET /files/last HTTP/1.1", "Connection: close"))
        check("a pipeline: health", answers.next()[::2], (200, b"ok\n"))
        check("a pipeline: a large file", answers.next()[::2] == (200, big), True)
        status, headers, _ = answers.next(without_body=True)
        check("a pipeline: its head", (status, headers["content-length"]), (200, str(len(big))))
        check("a pipeline: another file", answers.next()[::2] == (200, data), True)
        check("a pipeline: a new file", answers.next()[0], 201)
        check("a pipeline: the new file", answers.next()[::2], (200, b"end"))
        check("and then the end", answers.at_end(), True)
    # 100-continue.
    with server.connect() as connection:
        connection.sendall(request("PUT /files/c HTTP/1.1", "Content-Length: 4",
                                   "Expect: 100-continue"))
        answers = Answers(connection)
        check("go on", answers.next()[0], 100)
        connection.sendall(b"body")
        check("and the answer", answers.next()[0], 201)
        connection.sendall(request("PUT /files/big HTTP/1.1", "Content-Length: 90000000",
                                   "Expect: 100-continue"))
        check("a refusal instead of a go on", answers.next()[0], 413)
    status, headers, page = talk(server, request("GET / HTTP/1.1"))
    check("the form page", (status, headers["content-type"], b"multipart/form-data" in page),
          (200, "text/html; charset=utf-8", True))
    check("of HTTP/1.0", talk(server, b"GET /healthz HTTP/1.0\r\n\r\n")[::2], (200, b"ok\n"))
    status, _, text = talk(server, request("GET /metrics HTTP/1.1"))
    check("metrics", (status, b'http_upload_answers_total{code="413"}' in text), (200, True))
    with server.connect() as connection: # half-closed behind the request
        connection.sendall(request("GET /files/big HTTP/1.1"))
        connection.shutdown(socket.SHUT_WR)
        answers = Answers(connection)
        check("an answer to a half-closed one", len(answers.next()[2]), 1900000)
        check("and its end", answers.at_end(), True)
    check("what was stored", files(), ["big", "c", "last", "one.bin", "two.txt"])


def refused_then_on(server):
    # A refusal is over when it was told: the next request may come in two pieces.
    with server.connect() as connection:
        answers = Answers(connection)
        for path in ("/nowhere", "/files/none", "/files/%2e%2e"):
            connection.sendall(request(f"GET {path} HTTP/1.1"))
            check(f"a refusal of {path}", answers.next()[0] in (400, 404), True)
            whole = request("GET /healthz HTTP/1.1")
            connection.sendall(whole[:10])
            time.sleep(0.1)
            connection.sendall(whole[10:])
            check(f"and the next request after {path}", answers.next()[::2], (200, b"ok\n"))


def many(server):
    # Many small files in one form, more than fit into one read; each is stored as it was sent.
    parts = [(f"file.{n}", os.urandom(n * 3)) for n in range(400)]
    body = form(b"b", *[(b'name="f"; filename="' + name.encode() + b'"', data)
                        for name, data in parts])
    status, _, answer = talk(server, post(body))
    check("a form of many files", (status, json.loads(answer)), (200, [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in parts]))
    # When it is answered it is there, for everybody.
    for n in range(50):
        data = os.urandom(20000)
        status, _, _ = talk(server, request("PUT /files/again HTTP/1.1", "Content-Length: 20000",
                                            body=data))
        with open(os.path.join(directory, "again"), "rb") as file:
            check(f"what was answered is there ({n})", (status, file.read() == data), (201, True))
    _, _, text = talk(server, request("GET /metrics HTTP/1.1"))
    check("nothing waits for the disk", b"\nhttp_upload_waiting_bytes 0\n" in text, True)


def forced(server, stored):
    # Who does not end his upload during the drain is forced out, and leaves nothing.
    connections = [server.connect() for _ in range(20)]
    for connection in connections:
        connection.sendall(request("PUT /files/part HTTP/1.1", "Content-Length: 1000000",
                                   body=b"x" * 100000))
    time.sleep(0.3)
    server.stop()
    check("no part of a file is left", files(), stored)
    for connection in connections:
        connection.close()


def slow(server):
    silent, within, dribbles = server.connect(), server.connect(), server.connect()
    within.sendall(b"POST /upload HTTP/1.1\r\nHost")
    status, _, _ = Answers(within).next()
    check("a request that does not go on", status, 408)
    for n in range(60):
        try:
            dribbles.sendall(b"GET / HTTP/1.1\r\nX: "[n:n + 1] or b"y")
        except OSError:
            break
        dribbles.settimeout(0.2)
        try:
            if (answer := dribbles.recv(1000)) != b"":
                check("a request by dribs and drabs", answer[9:12], b"408")
            break
        except TimeoutError:
            continue
    else:
        check("a request by dribs and drabs ends", False, True)
    check("a connection without a request ends without an answer", silent.recv(10), b"")


one = Server("--limit", "2000000")
bad_input(one)
rude(one)
good(one)
refused_then_on(one)
one.stop()
two = Server("--idle", "2")
slow(two)
two.stop()
three = Server("--threads", "1", "--grace", "1")
many(three)
forced(three, files())
for failure in failures:
    print(failure)
print(f"{checked} checks, {len(failures)} failed")
sys.exit(1 if failures else 0)
