#!/usr/bin/env python3
"""Makes docs/drivers.md from what the contract tests wrote down (*/target/contract/*.tsv).

    testing/contract-table.py           print the table
    testing/contract-table.py --write   put it into docs/drivers.md

Exits with 1 where a promise is broken. Standard library only.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "drivers.md"
BEGIN, END = "<!-- the contract tests write from here", "<!-- to here -->"
ORDER = ["simulated", "local", "docker", "kubernetes"]
TITLES = {"driver": "What every driver does", "escape": "What does not work from inside a sandbox"}


def sentence(method):
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", method).split()
    return " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words)


def position(column):
    name = column.split()[0]
    return (ORDER.index(name) if name in ORDER else len(ORDER), column)


def read():
    promises, figures = {}, {}
    for path in sorted(ROOT.glob("control-plane/drivers/*/target/contract/*.tsv")):
        for line in path.read_text().splitlines():
            kind, contract, column, what, *rest = line.split("\t")
            if kind == "promise":
                held, total = promises.setdefault(contract, {}).setdefault(what, {}).get(column, (0, 0))
                promises[contract][what][column] = (held + (rest[0] == "held"), total + 1)
            else:
                figures.setdefault(what, {})[column] = rest
    return promises, figures


def table(head, columns, rows):
    lines = ["| " + " | ".join([head, *columns]) + " |", "| --- |" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def page(promises, figures):
    lines, broken = [], 0
    if figures:
        columns = sorted({column for row in figures.values() for column in row}, key=position)
        rows = [[what, *(f"{row[c][2]} ({row[c][1]}-{row[c][3]}), n {row[c][0]}" if c in row else "" for c in columns)]
                for what, row in sorted(figures.items())]
        lines += ["## How fast", "", "Milliseconds: median (least-most), cold, on the machine that made this table while its tests ran.", ""]
        lines += table("", columns, rows) + [""]
    for contract, title in TITLES.items():
        if contract not in promises:
            continue
        columns = sorted({column for row in promises[contract].values() for column in row}, key=position)
        rows = []
        for method, row in sorted(promises[contract].items()):
            cells = []
            for column in columns:
                held, total = row.get(column, (0, 0))
                broken += total - held
                cells.append("" if total == 0 else f"**{held} of {total}**" if held < total else "yes" if total == 1 else f"yes ({total})")
            rows.append([sentence(method), *cells])
        lines += ["## " + title, ""] + table("", columns, rows) + [""]
    return lines, broken


def main():
    promises, figures = read()
    if not promises:
        sys.exit("contract-table: no contract test has run: ./foredeck test")
    lines, broken = page(promises, figures)
    if "--write" in sys.argv[1:]:
        text = PAGE.read_text()
        start, end = text.index(BEGIN), text.index(END)
        start = text.index("\n", start) + 1
        PAGE.write_text(text[:start] + "\n" + "\n".join(lines) + "\n" + text[end:])
    else:
        print("\n".join(lines))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
