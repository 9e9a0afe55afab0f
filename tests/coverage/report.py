#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the tests have covered of the headers, from clang's source-based coverage.

  report.py --root DIR --profile FILE --uncovered FILE --html DIR PROGRAM...

Each PROGRAM is asked by itself and the answers are added up here: a line, or one outcome of a
condition, of a template is covered if any instantiation in any program covers it. (llvm-cov takes,
of a function that several programs have, what the first of them says.)

What is left must be explained in the file --uncovered, or the status is 1; what is explained and
covered is told, no more, as a race may be lost in one run and won in the next. An explanation names a
finding as this report does, so that it stays true when lines move, and no longer when they change:

  detail/mailbox.hpp
    3 lines: if (the first of them) {
      The reason.
    never true: the == condition
      The reason.
    never compiled: return what_no_test_instantiates;
      The reason.

"never compiled" is what clang says nothing about: members of templates that no program
instantiates, and branches of `if constexpr` that no instantiation takes.
"""

import argparse
import bisect
import collections
import concurrent.futures
import html
import json
import os
import re
import subprocess
import sys

CODE, SKIPPED, BRANCH = 0, 2, 4

# A statement, at the beginning of a line or of a body that stands in one line.
STATEMENT = re.compile(r"(?:^|\{ )(?:return|if|for|while|switch|throw|do)\b")
# The end of a line at which a branch of an `if constexpr` begins.
CONSTEXPR_BRANCH = re.compile(r"if constexpr \(.*\{$")


class Header:
    """One header: its text, and counts by place (line, column, to line, column)."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.lines = file.read().split("\n")
        self.code = set()
        # Instantiations of a function differ where an `if constexpr` does: by the places of its
        # code, how often each of them was run in all instantiations that have just these.
        self.shapes = {}
        self.taken = collections.defaultdict(lambda: [0, 0])
        self.skipped = set()
        self.functions = set()

    def add(self, part):
        """The code of one function: its places, and how often each of them was run."""
        shape = tuple(place for place, _ in part)
        self.code.update(shape)
        counts = self.shapes.setdefault(shape, [0] * len(shape))
        for index, (_, count) in enumerate(part):
            counts[index] += count

    def text(self, place):
        """The source of a place, on one line."""
        from_line, from_column, to_line, to_column = place
        lines = self.lines[from_line - 1 : to_line]
        lines[-1] = lines[-1][: to_column - 1]
        lines[0] = lines[0][from_column - 1 :]
        return " ".join(line.strip() for line in lines)

    def count_lines(self):
        """How often each line that holds code was run, by number."""
        counts = {}
        blocks = sorted(p for p in self.code if self.lines[p[0] - 1][p[1] - 1 : p[1]] == "{")
        for shape, of_shape in self.shapes.items():
            at_line = collections.defaultdict(list)
            for place, count in zip(shape, of_shape):
                for line in range(place[0], place[2] + 1):
                    at_line[line].append((place, count))
            # Blocks in the midst of it that it does not know: lambdas, which are functions of their
            # own, and branches of an `if constexpr` that it does not have.
            own = set(shape)
            start, end = shape[0][:2], shape[0][2:]
            foreign = [p for p in blocks[bisect.bisect(blocks, shape[0]) :] if p[:2] < end]
            foreign = [p for p in foreign if p not in own and start < p[:2] and p[2:] <= end]
            for number, places in at_line.items():
                first = self.begin_of(number)
                if any(p[:2] <= first < p[2:] for p in foreign):
                    continue
                count = self.count_line(number, places)
                if count is not None:
                    counts[number] = max(count, counts.get(number, 0))
        return counts

    def begin_of(self, number):
        line = self.lines[number - 1]
        return (number, len(line) - len(line.lstrip()) + 1)

    def count_line(self, number, places):
        """The same of one line, by the places of one function that touch it."""
        line = self.lines[number - 1]
        text = line.strip()
        if not re.search(r"\w", text) or text.startswith("//") or number in self.skipped:
            return None
        first = self.begin_of(number)
        around = [p for p in places if p[0][:2] <= first < p[0][2:]]
        inside = [p for p in places if first < p[0][:2] and p[0][0] == number]
        if around:
            # Of places that hold each other the one that begins last is the innermost.
            inside.append(max(around, key=lambda p: (p[0][0], p[0][1], -p[0][2], -p[0][3])))
        elif text.startswith("}"):
            return None
        return max((count for _, count in inside), default=None)

    def never_compiled(self):
        """Lines of code that no program had a word about."""
        in_function = set()
        for place in self.functions:
            in_function.update(range(place[0], place[2] + 1))
        begins = {place[:2] for place in self.code}
        found = []
        after_constexpr = []  # the indents of those `if constexpr` that stand open
        for number, line in enumerate(self.lines, 1):
            text = line.strip()
            indent = len(line) - len(line.lstrip())
            if text.startswith("//") or number in self.skipped:
                continue
            if number not in in_function:
                if STATEMENT.search(text):
                    found.append(number)
                continue
            branch = CONSTEXPR_BRANCH.search(text) is not None
            if text.startswith("}") and indent in after_constexpr:
                if text == "} else {" or branch:
                    branch = True
                else:
                    after_constexpr.remove(indent)
            if branch:
                if indent not in after_constexpr:
                    after_constexpr.append(indent)
                if text.endswith("{") and (number, len(line)) not in begins:
                    found.append(number)
        return found


def ask(program, profile, folder):
    """The functions of one program whose text stands in the folder, as plain tuples."""
    exported = subprocess.run(
        ["llvm-cov", "export", "-format=text", "-skip-expansions", "-instr-profile", profile,
         program, folder],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if exported.returncode != 0:
        sys.exit(f"llvm-cov export {program}: {exported.stderr.decode()}")
    functions = []
    for function in json.loads(exported.stdout)["data"][0]["functions"]:
        files = function["filenames"]
        if any(file.startswith(folder) for file in files):
            functions.append((files, function["regions"], function["branches"]))
    return functions


def gather(programs, profile, folder):
    headers = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            headers[path] = Header(path)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda program: ask(program, profile, folder), programs)
        for functions in answers:
            for files, regions, branches in functions:
                parts = collections.defaultdict(list)
                for index, region in enumerate(regions):
                    header = headers.get(files[region[5]])
                    if header is None:
                        continue
                    place = tuple(region[:4])
                    if index == 0:
                        header.functions.add(place)
                    if region[7] == CODE:
                        parts[files[region[5]]].append((place, region[4]))
                    elif region[7] == SKIPPED:
                        header.skipped.update(range(place[0], place[2] + 1))
                for file, part in parts.items():
                    headers[file].add(part)
                for branch in branches:
                    header = headers.get(files[branch[6]])
                    if header is not None and branch[8] == BRANCH:
                        taken = header.taken[tuple(branch[:4])]
                        taken[0] += branch[4]
                        taken[1] += branch[5]
    return headers


def findings(header, counts):
    """(first line, lines, what) of each, `what` being its name in the list of explanations."""
    found = []
    missed = [number for number, count in sorted(counts.items()) if count == 0]
    mapped = sorted(counts)
    position = {number: index for index, number in enumerate(mapped)}
    run = []
    for number in missed + [None]:
        if run and (number is None or position[number] != position[run[-1]] + 1):
            lines = f"{len(run)} line{'s' if len(run) > 1 else ''}"
            found.append((run[0], run, f"{lines}: {header.lines[run[0] - 1].strip()}"))
            run = []
        run.append(number)
    # What led nowhere is told by the lines that it would have led to.
    begin = {lines[0] for _, lines, _ in found}
    for place, (true, false) in header.taken.items():
        if counts.get(place[0], 1) == 0 or (true and false):
            continue
        if "= default;" in header.lines[place[0] - 1]:
            continue  # a comparison that the compiler has written
        if not true and min((n for n in mapped if n > place[2]), default=0) in begin:
            continue
        what = "never true" if false else "never false" if true else "never asked"
        found.append((place[0], [place[0]], f"{what}: {header.text(place)}"))
    for number in header.never_compiled():
        text = header.lines[number - 1].strip()
        found.append((number, [number], f"never compiled: {text}"))
    return sorted(found, key=lambda finding: (finding[0], finding[2]))


def read_explanations(path):
    """By (header, finding): how many of them are explained."""
    explained = collections.Counter()
    header = finding = None
    reasoned = True
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("    "):
                reasoned = True
                continue
            if not reasoned:
                sys.exit(f"{path}:{number}: the reason for '{finding}' is missing")
            if line.startswith("  "):
                finding = line.strip()
                explained[(header, finding)] += 1
                reasoned = False
            else:
                header = line
    if not reasoned:
        sys.exit(f"{path}: the reason for '{finding}' is missing")
    return explained


def percent(part, whole):
    return "100.0 %" if whole == 0 else f"{100 * part / whole:.1f} %"


def write_html(folder, rows, pages):
    os.makedirs(folder, exist_ok=True)
    style = ("<meta charset='utf-8'><style>body{font:14px sans-serif}td{padding:0 1em}"
             "pre{margin:0}.miss{background:#fbb}.part{background:#fd9}.hit{background:#efe}"
             "i{color:#777}</style>")
    for name, (header, counts, found) in pages.items():
        notes = collections.defaultdict(list)
        for _, lines, what in found:
            for line in lines:
                notes[line].append(what)
        out = [f"<title>{name}</title>{style}<h2>{name}</h2><pre>"]
        for number, line in enumerate(header.lines, 1):
            count = counts.get(number)
            kind = ("" if count is None and number not in notes
                    else "miss" if not count else "part" if number in notes else "hit")
            told = html.escape("; ".join(notes[number]), True)
            out.append(f"<span class='{kind}' title='{told}'>"
                       f"<i>{number:5} {'' if count is None else count:>10} </i>"
                       f"{html.escape(line)}</span>")
        page = os.path.join(folder, name.replace("/", ".") + ".html")
        with open(page, "w", encoding="utf-8") as file:
            file.write("\n".join(out) + "</pre>")
    with open(os.path.join(folder, "index.html"), "w", encoding="utf-8") as file:
        file.write(f"<title>coverage</title>{style}<table>")
        for row in rows:
            cells = [html.escape(str(cell)) for cell in row]
            if row[0] in pages:
                cells[0] = f"<a href='{row[0].replace('/', '.')}.html'>{cells[0]}</a>"
            file.write("<tr><td>" + "<td>".join(cells))
        file.write("</table>")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--uncovered", required=True)
    parser.add_argument("--html", required=True)
    parser.add_argument("programs", nargs="+")
    arguments = parser.parse_args()

    folder = os.path.join(os.path.realpath(arguments.root), "include", "reactor") + os.sep
    headers = gather(arguments.programs, arguments.profile, folder)
    explained = read_explanations(arguments.uncovered)

    rows = [("header", "lines", "", "outcomes", "", "findings", "unexplained")]
    pages = {}
    unexplained = []
    totals = [0] * 6
    used = collections.Counter()
    for path in sorted(headers):
        name = path[len(folder):]
        header = headers[path]
        counts = header.count_lines()
        found = findings(header, counts)
        pages[name] = (header, counts, found)
        new = 0
        for number, _, what in found:
            used[(name, what)] += 1
            if used[(name, what)] > explained[(name, what)]:
                new += 1
                unexplained.append(f"{name}:{number}: {what}")
        outcomes = [count > 0 for taken in header.taken.values() for count in taken]
        figures = [sum(c > 0 for c in counts.values()), len(counts), sum(outcomes), len(outcomes),
                   len(found), new]
        totals = [a + b for a, b in zip(totals, figures)]
        rows.append((name, *cells(figures)))
    rows.append(("all", *cells(totals)))
    stale = sorted(f"{name}: {what}" for (name, what), count in explained.items()
                   if count > used[(name, what)])

    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
                        for column, (cell, width) in enumerate(zip(row, widths))))
    write_html(arguments.html, rows, pages)
    print(f"\nLine by line: {os.path.join(arguments.html, 'index.html')}")
    for title, entries in (("Not covered and not explained:", unexplained),
                           ("Explained, but covered or changed by now:", stale)):
        if entries:
            print("\n" + title)
            print("\n".join("  " + entry for entry in entries))
    print(f"\n{totals[4]} findings, {totals[4] - totals[5]} explained, {totals[5]} not, "
          f"{len(stale)} stale explanations")
    return 1 if unexplained else 0


def cells(figures):
    lines_hit, lines, outcomes_hit, outcomes, found, new = figures
    return (f"{lines_hit}/{lines}", percent(lines_hit, lines),
            f"{outcomes_hit}/{outcomes}", percent(outcomes_hit, outcomes), found, new)


if __name__ == "__main__":
    sys.exit(main())
