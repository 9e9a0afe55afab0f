# SPDX-License-Identifier: Apache-2.0
"""multipart_differential.py SPLIT [--seed N] [--count N]: forms made at random, split by the upload
server's splitter (SPLIT, tests/multipart_split.cpp, fed in pieces of random sizes) and by Python's
email parser. Both must see the same parts, and the same trouble.

Where email, made for mail, differs from multipart/form-data over HTTP, and what is done about it:

 1. email takes a bare CR or LF for the end of a line, we only CRLF. Before email sees a form, bare
    ones become bytes that the generator never uses, and are turned back in what email answers. In a
    header they are an error of ours.
 2. email parses parts that are multipart or a message themselves. To a form they are data: the
    class of message handed to email says that only the outermost one is multipart.
 3. email repairs what is malformed and notes a defect; we refuse. A defect of a part or a form must
    meet an error of ours, and what came before it must be equal.
 4. email takes a boundary directly behind a boundary for one, a boundary for the end of headers that
    lack their empty line, and a line that begins with "From " for nothing. None of it is well-formed
    (RFC 2046, 5.1.1): bad_header here.
 5. A form whose first boundary is the last has no parts; email calls it one without a start.
 6. email keeps the line breaks of a folded header; unfolding takes them out (RFC 5322, 2.2.3).
 7. email miscounts quotes in a parameter that ends with an escaped backslash, and does not parse
    UTF-8'' parameters beside plain ones. Names and file names are always held to what the generator
    meant, and to email's reading where email can read them.
 8. email knows no limits, and needs no name: such forms are held to what the generator meant.
"""

import argparse
import email.message
import email.parser
import json
import random
import re
import subprocess
import sys
import urllib.parse
from collections import Counter

arguments = argparse.ArgumentParser()
arguments.add_argument("split")
arguments.add_argument("--seed", type=int, default=2046)
arguments.add_argument("--count", type=int, default=3000)
arguments = arguments.parse_args()
chance = random.Random(arguments.seed)

BARE_CR, BARE_LF = b"\xf8", b"\xf9"  # never in UTF-8, and never generated


# -- forms made at random ---------------------------------------------------------------------------

BOUNDARY = b"0123456789abcdefXYZ'()+_,-./:=? "


def a_boundary():
    kind = chance.randrange(6)
    if kind == 0:
        return chance.choice([b"b", b"-", b"--", b"---", b"b-", b"b--", b"bb", b"a:b", b"'", b"a b"])
    if kind == 1:
        return b"----WebKitFormBoundary" + bytes(chance.choices(b"abcDEF0123456789", k=16))
    if kind == 2:
        return b"-" * 24 + bytes(chance.choices(b"0123456789abcdef", k=16))
    size = chance.choice([1, 2, 3, 10, 69, 70])
    return bytes(chance.choices(BOUNDARY, k=size - 1)) + bytes(chance.choices(BOUNDARY[:-1]))


def near_boundary(boundary):
    """What looks like a boundary's line, and is none."""
    line = b"\r\n--" + boundary
    return chance.choice([
        lambda: line[:chance.randrange(len(line))],
        lambda: line + bytes(chance.choices(b"x\n\0Z")),
        lambda: line + b"-" + bytes(chance.choices(b" x\r\n\0")),
        lambda: line + b"--" + bytes(chance.choices(b"x\n-\0")),
        lambda: line + b" \t-",
        lambda: line + b"\rx",
        lambda: line + b" \r\r",
        lambda: line + b"--\r\t",
        lambda: line[1:] + b"\r\n",       # behind a bare LF
        lambda: b"\r" + line[2:] + b"\r\n",  # behind a bare CR
        lambda: b"x" + line[2:] + b"--\r\n",
        lambda: line[:-1] + bytes([line[-1] ^ 1]) + b"\r\n",
        lambda: b"\r\n-" + line[3:-1] + b"\r\n",
        lambda: b"\r" * chance.randrange(4) + line[:-1],
        lambda: b"\r\n-",
    ])()


def some_data(boundary):
    kind = chance.randrange(8)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes(chance.choices(b"\r\n-b", k=chance.randrange(60)))
    if kind == 2:
        return chance.choice([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"-", b"--", b"\r\n--", b"\0"])
    pieces = []
    for _ in range(chance.randrange(1, 6)):
        pieces.append(chance.choice([
            lambda: near_boundary(boundary),
            lambda: near_boundary(boundary),
            lambda: bytes(chance.choices(range(0xf8), k=chance.randrange(80))),
            lambda: b"line of text\r\n" * chance.randrange(5),
            lambda: b"\r" * chance.randrange(5),
        ])())
    return b"".join(pieces)


PLAIN = "abcXYZ019_-.;=,:()[] %'äß文😀"


def a_text(extra=""):
    return "".join(chance.choices(PLAIN + extra, k=chance.randrange(1, 12)))


def a_parameter(name):
    """(bytes of the parameter, what it means)"""
    kind = chance.randrange(6)
    if kind == 0:  # a token
        text = "".join(chance.choices("abcXYZ019_-.%'", k=chance.randrange(1, 9)))
        return f"{name}={text}".encode(), text
    if kind == 1:  # curl --form-escape, and many others: backslashes
        text = a_text('"\\')
        return f'{name}="{text.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"' \
            .encode(), text
    if kind == 2:  # browsers: percent-encoded quotes, which stay as they are
        text = a_text('"').replace('"', "%22")
        return f'{name}="{text}"'.encode(), text
    if kind == 3:  # browsers on Windows of old: a path as it is
        text = "C:" + "".join("\\" + a_text() for _ in range(chance.randrange(1, 4)))
        return f'{name}="{text}"'.encode(), text
    if kind == 4:
        return f'{name}=""'.encode(), ""
    text = a_text()
    return f'{name}="{text}"'.encode(), text


def any_case(text):
    return chance.choice([text, text.lower(), text.upper()])


def a_disposition():
    """(value, name, file name)"""
    name_bytes, name = a_parameter(any_case("name"))
    parameters, filename = [name_bytes], None
    if chance.random() < 0.6:
        parameter, filename = a_parameter(any_case("filename"))
        parameters.append(parameter)
    if chance.random() < 0.15:
        filename = a_text('"\\\n\0')
        encoded = urllib.parse.quote(filename, safe=chance.choice(["", "!#$&+^`|~"]))
        language = chance.choice(["", "en", "de-AT"])
        parameters.append(f"filename*={any_case('UTF-8')}'{language}'{encoded}".encode())
    if chance.random() < 0.1:
        parameters.append(a_parameter("other")[0])
    chance.shuffle(parameters)
    gap = chance.choice([b"; ", b"; ", b";", b" ;\t", b"; ;"])
    value = gap.join([any_case("form-data").encode(), *parameters]) + chance.choice([b"", b"", b";"])
    return value, name, filename


class Form:
    """The bytes, and the parts they were made of: (name, file name, content type, data)."""

    def __init__(self):
        self.boundary = a_boundary()
        self.parts = []
        self.error = None  # what the generator knows; email is asked for the rest
        self.bytes = b""
        lines = [b"--" + self.boundary, b""]
        if chance.random() < 0.15:
            preamble = some_data(self.boundary)
            # Behind a near-boundary that ends with CR, a line break would make it a boundary.
            if is_split(self.boundary, preamble):
                preamble = b"plain"
            self.bytes += preamble + (b"x" if preamble.endswith(b"\r") else b"") + b"\r\n"
        for _ in range(chance.choice([0, 1, 1, 2, 3, 5, 12])):
            self.bytes += lines[0] + self.padding() + b"\r\n"
            self.part()
        self.bytes += lines[0] + b"--" + self.padding() + chance.choice([b"\r\n", b"\r\n", b""])
        if self.bytes.endswith(b"\n") and chance.random() < 0.15:
            self.bytes += some_data(self.boundary)
        self.damage()
        self.sizes = chance.choice([
            [1], [2], [3], [7], [1 << 20],
            [chance.randrange(1, 90) for _ in range(chance.randrange(1, 20))]])

    def padding(self):
        size = chance.choice([0, 0, 0, 0, 0, 1, 3, 126])
        return bytes(chance.choices(b" \t", k=size))

    def headers(self):
        value, name, filename = a_disposition()
        kind = ""
        headers = [(any_case("Content-Disposition").encode(), value)]
        if chance.random() < 0.5:
            kind = chance.choice([
                "text/plain", "image/png", "text/plain; charset=UTF-8", "message/rfc822",
                "multipart/mixed; boundary=" + chance.choice(["b", "inner"]), "multipart/form-data",
                "message/delivery-status", "application/octet-stream", "nonsense"])
            headers.append((any_case("Content-Type").encode(), kind.encode()))
        for _ in range(chance.choice([0, 0, 0, 1, 2])):
            headers.append((chance.choice([b"X", b"Content-Length", b"content_transfer.encoding",
                                           b"X-" + b"y" * 40, b"!#$%&'*+.^`|~", b"--dashes"]),
                            a_text('"\\<>').encode()))
        chance.shuffle(headers)
        lines = b""
        for header, text in headers:
            if text.count(b"; ") and chance.random() < 0.1:
                # Not within quotes, where a blank has a meaning; that of a header of ours begins.
                first, rest = text.split(b"; ", 1)
                if first.count(b'"') == 0:
                    # Unfolding leaves the blanks: in a type, whose text is compared, as they were.
                    blanks = chance.choice([b" ", b"\t", b"   "]) if header[0] in b"Cc" and \
                        header[-1:].lower() == b"n" else b" "
                    text = first + b";\r\n" + blanks + rest
            gap = chance.choice([b" ", b" ", b"", b"\t", b"   "])
            lines += header + b":" + gap + text + chance.choice([b"", b"", b"", b" "]) + b"\r\n"
        return lines, name, filename, kind

    def part(self):
        lines, name, filename, kind = self.headers()
        data = some_data(self.boundary)
        if is_split(self.boundary, data):
            data = b"plain"
        if data == b"" and chance.random() < 0.3:
            self.bytes += lines + b"\r\n"  # no body at all: one CRLF serves twice
        else:
            self.bytes += lines + b"\r\n" + data + b"\r\n"
        self.parts.append((name.encode(), filename if filename is None else filename.encode(),
                           kind.encode(), data))

    def damage(self):
        if chance.random() < 0.7:
            return
        self.parts = None  # from here on email alone knows
        kind = chance.randrange(10)
        size = len(self.bytes)
        at = chance.randrange(size)
        if kind <= 2:
            self.bytes = self.bytes[:at]
        elif kind == 3:
            self.bytes = self.bytes[:-chance.randrange(1, min(size, 9) + 1)]
        elif kind == 4:
            self.bytes = self.bytes[:at] + self.bytes[at + chance.randrange(1, 4):]
        elif kind == 5:
            self.bytes = self.bytes[:at] + bytes(chance.choices(b"\r\n-: \0", k=1)) + self.bytes[at:]
        elif kind == 6:
            breaks = [found.start() for found in re.finditer(b"\r\n", self.bytes)]
            if breaks:
                at = chance.choice(breaks)
                bad = chance.choice([b"\n", b"\r", b"\n\r", b"\r\n\r\n", b"", b"\r\n \r\n", b"\r\nx\r\n",
                                     b"\r\n: y\r\n", b"\r\nFrom x\r\n", b"\r\nA b: c\r\n", b"\r\n\xff: c\r\n",
                                     b"\r\n--" + self.boundary + b"\r\n"])
                self.bytes = self.bytes[:at] + bad + self.bytes[at + 2:]
        elif kind == 7:
            self.bytes = self.bytes.replace(b"isposition", b"isposed", 1)
        elif kind == 8:
            bad = chance.choice([b"ame =", b"ame", b'ame=";"', b"ame=", b'ame="x', b"=", b'ame=a; name=',
                                 b"ame*=", b"am=", b'ame=a b="', b'ame="a"b"'])
            self.bytes = self.bytes.replace(b"ame=", bad, 1)
        else:
            self.bytes = some_data(self.boundary) + self.bytes


def is_split(boundary, data):
    """Whether this data, where a part's data stands, would be taken for more than data."""
    line = rb"\r\n--" + re.escape(boundary) + rb"(?:--)?[ \t]*\r\n"
    return re.search(line, b"\r\n" + data + b"\r\n") is not None


# -- what email makes of them -----------------------------------------------------------------------

def email_message(form):
    """The form as email reads it (differences 1 and 2)."""

    class Opaque(email.message.Message):
        def get_content_maintype(self):
            return "multipart" if "outermost" in self else "application"

        def get_content_type(self):
            return "multipart/form-data" if "outermost" in self else "application/octet-stream"

    bare = re.sub(rb"\r(?!\n)", BARE_CR, form.bytes)
    bare = re.sub(rb"(?<!\r)\n", BARE_LF, bare)
    head = b'Outermost: yes\r\nContent-Type: multipart/form-data; boundary="' + form.boundary + b'"\r\n\r\n'
    return email.parser.BytesParser(Opaque).parsebytes(head + bare)


def raw(text):
    return text.encode("ascii", "surrogateescape")


def restored(data):
    return data.replace(BARE_CR, b"\r").replace(BARE_LF, b"\n")


def value_of(message, name):
    """A header's one value, unfolded and trimmed (difference 6)."""
    for key, value in message.raw_items():
        if key.lower() == name:
            return raw(value).replace(b"\r\n", b"").strip(b" \t")
    return None


def expected(form):
    """(errors that may be told, parts (disposition, content type, data), and how much of the last
    part is certain: all, or only its begin, or nothing of it)."""
    message = email_message(form)
    delimiter = re.escape(b"--" + form.boundary)
    first = re.search(rb"(?:\A|\r\n)" + delimiter + rb"(--)?[ \t]*(?:\r\n|\Z)", form.bytes)
    too_long = {"bad_boundary_line"} if re.search(delimiter + rb"(--)?[ \t]{127}", form.bytes) else set()
    if first is not None and first.group(1):
        return {"none"} | too_long, [], "all"  # difference 5
    defects = [type(defect).__name__ for defect in message.defects]
    if not message.is_multipart():
        return {"truncated", "bad_header"}, [], "all"
    parts = []
    is_cut = "CloseBoundaryNotFoundDefect" in defects

    def cut(part):
        ends = not is_cut and form.bytes.endswith(b"\r\n")
        return {"truncated"} if not ends and part is message.get_payload()[-1] else set()

    for part in message.get_payload():
        headers = [(raw(key), raw(value)) for key, value in part.raw_items()]
        if part.defects or part.get_unixfrom() is not None:  # difference 3
            return {"bad_header"} | cut(part), parts, "all"
        for key, value in headers:
            if not key or any(byte in key + value for byte in (BARE_CR, BARE_LF, b"\0")):
                return {"bad_header"} | cut(part), parts, "all"
        dispositions = [key for key, _ in headers if key.lower() == b"content-disposition"]
        if len(dispositions) != 1:
            # Or email was content with headers that lack their empty line (difference 4).
            errors = {"bad_disposition"} if dispositions else {"no_disposition"}
            return errors | {"bad_header"} | cut(part), parts, "all"
        parts.append((part, value_of(part, "content-disposition"), value_of(part, "content-type"),
                      restored(part.get_payload(decode=True))))
    if is_cut:
        return {"truncated", "bad_header", "bad_disposition"} | too_long, parts, "begin"
    errors = {"none", "bad_header", "bad_disposition"} | too_long
    if parts and not parts[-1][3]:
        errors |= cut(parts[-1][0])  # difference 4, and the form ends there
    return errors, parts, "all"


def decoded(part):
    """(name, file name) as email reads them, "unknown" where it cannot (difference 7)."""
    names = ["unknown", "unknown"]
    value = value_of(part, "content-disposition")
    if b'\\\\"' in value or b"*=" in value:
        return names
    message = email.message.Message()  # bytes as letters: email does not parse what is not ASCII
    message["content-disposition"] = value.decode("latin-1")
    for n, key in enumerate(("name", "filename")):
        found = message.get_param(key, None, "content-disposition")
        names[n] = found if found is None else found.encode("latin-1")
    return names


# -- and the comparison -----------------------------------------------------------------------------

def is_refused(form, seen, part):
    """Whether our refusal of this part, which email took, has one of the reasons at the top."""
    boundary_line = rb"--" + re.escape(form.boundary) + rb"(?:--)?[ \t]*\r\n"
    if seen["error"] == "bad_boundary_line":  # difference 8
        return True
    if seen["error"] == "truncated":  # difference 4, and the form ends there
        return part.get_payload() == "" and not form.bytes.endswith(b"\r\n")
    if seen["error"] == "bad_header":  # difference 4, and envelopes of mail, which email drops
        return (part.get_payload() == "" or b"\r\nFrom " in form.bytes or
                re.search(boundary_line * 2, form.bytes + b"\r\n") is not None)
    if seen["error"] == "bad_disposition":
        kind, _, rest = value_of(part, "content-disposition").partition(b";")
        value = rb'(?:[^\s;"]+|"(?:\\[\\"]|[^"])*")'
        parameter = rb'([^\s;="]+)=(' + value + rb")"
        gap = rb"[ \t]*(?:;[ \t]*)*"
        if kind.strip(b" \t").lower() != b"form-data" or re.fullmatch(
                gap + rb"(?:" + parameter + rb"[ \t]*(?:;" + gap + rb"|\Z))*", rest) is None:
            return True
        found = [(key.lower(), text) for key, text in re.findall(parameter, rest)]
        keys = [key for key, _ in found]
        star = dict(found).get(b"filename*", b"utf-8''").strip(b'"')
        return (b"name" not in keys or len(set(keys)) != len(keys) or
                re.fullmatch(rb"(?i:utf-8)'[^']*'(?:[^%]|%[0-9A-Fa-f]{2})*", star) is None)
    return False


def compare(form, seen):
    """A complaint, or none."""
    ours = [(*(None if part[key] is None else bytes.fromhex(part[key])
               for key in ("name", "filename", "type", "data")), part["ended"])
            for part in seen["parts"]]
    if form.parts is not None:
        wanted = [(*part, True) for part in form.parts]
        if ours != wanted or seen["error"] != "none":
            return f"not what it was made of: {wanted}"
    errors, theirs, last = expected(form)
    if seen["error"] not in errors:
        return f"email allows {sorted(errors)}"
    if len(ours) > len(theirs):
        return f"email sees only {len(theirs)} parts"
    if len(ours) < len(theirs):
        # We stopped at a part that email took.
        part = theirs[len(ours)][0]
        cut = seen["error"] == "truncated" and last == "begin" and len(ours) + 1 == len(theirs)
        if not cut and not is_refused(form, seen, part):
            return f"email sees {len(theirs)} parts"
    for n, ((name, filename, kind, data, ended), (part, _, their_kind, their_data)) in enumerate(
            zip(ours, theirs)):
        for mine, email_reads in zip((name, filename), decoded(part)):
            if email_reads != "unknown" and mine != email_reads:
                return f"part {n}: email reads the name {email_reads}"
        if kind != (their_kind or b""):
            return f"part {n}: email reads the type {their_kind}"
        if ended:
            if data != their_data:
                return f"part {n}: email reads the data {their_data}"
        elif n + 1 != len(ours) or seen["error"] == "none":
            return f"part {n} is not ended"
        else:
            # What may be a boundary is held back, and email gives the rest as it is.
            missing = their_data[len(data):]
            if not their_data.startswith(data) or len(missing) > 4 + len(form.boundary) + 131:
                return f"part {n}: email reads at its end {their_data}"
    return None


def main():
    forms = [Form() for _ in range(arguments.count)]
    lines = "".join(f"{form.boundary.hex()} {','.join(map(str, form.sizes))} {form.bytes.hex()}\n"
                    for form in forms)
    run = subprocess.run([arguments.split], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    answers = run.stdout.splitlines()
    if len(answers) != len(forms):
        sys.exit(f"{len(forms)} forms, {len(answers)} answers")
    outcomes, failed, parts = Counter(), 0, 0
    for n, (form, answer) in enumerate(zip(forms, answers)):
        seen = json.loads(answer)
        outcomes[seen["error"]] += 1
        parts += len(seen["parts"])
        complaint = compare(form, seen)
        if complaint is not None:
            failed += 1
            if failed <= 5:
                print(f"form {n} of seed {arguments.seed}, boundary {form.boundary}, "
                      f"in pieces of {form.sizes}:\n  {form.bytes}\n  we: {answer}\n  {complaint}")
    print(f"{len(forms)} forms, {parts} parts, {failed} not alike; by outcome:",
          ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items())))
    # A generator that no longer makes what is to be compared proves nothing.
    for outcome in ("none", "truncated", "bad_header", "bad_disposition", "no_disposition"):
        if outcomes[outcome] * 200 < len(forms):
            sys.exit(f"too few forms end with {outcome}")
    sys.exit(1 if failed else 0)


main()
