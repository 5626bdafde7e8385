"""What `foredeck demo` runs in a sandbox: Python's standard library alone, 3.9 or later.

Reads data.csv, analyses it, draws chart.png, fetches a page through the egress
gateway and tries a host that policy denies. Ends with 0 only if all of it went
as it should: the denied host included.
"""

import csv
import math
import os
import random
import re
import statistics
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib

BARS = " ▏▎▍▌▋▊▉█"


def bar(share, width=28):
    """A bar of text, to an eighth of a character."""
    eighths = max(1, round(share * width * 8))
    return "█" * (eighths // 8) + (BARS[eighths % 8] if eighths % 8 else "")


# ---------------------------------------------------------------- the analysis


def read_sales(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {**row, "units": int(row["units"]), "revenue": float(row["revenue"])}
            for row in csv.DictReader(file)
        ]


def total(rows, column):
    sums = {}
    for row in rows:
        sums[row[column]] = sums.get(row[column], 0.0) + row["revenue"]
    return sums


def growth(values):
    """Of the second half against the first."""
    half = len(values) // 2
    return sum(values[half:]) / sum(values[:half]) - 1


def bootstrap(pairs, rounds):
    """The middle 95 % of the growth over resampled months."""
    rng = random.Random(7)
    found = []
    started = time.monotonic()
    for done in range(1, rounds + 1):
        sample = rng.choices(pairs, k=len(pairs))
        found.append(sum(b for _, b in sample) / sum(a for a, _ in sample) - 1)
        if done % (rounds // 4) == 0:
            took = time.monotonic() - started
            print(f"  {done:>6,} of {rounds:,} resamples   {took:.2f} s")
    found.sort()
    return found[int(rounds * 0.025)], found[int(rounds * 0.975)]


def odd_ones(rows):
    """Months in which a region's share of the whole was far from its usual share, the worst region.

    Far: more than 5 median absolute deviations. A share, because the season moves all regions.
    """
    by_month = total(rows, "month")
    odd = {}
    for region in sorted({row["region"] for row in rows}):
        own = total([row for row in rows if row["region"] == region], "month")
        shares = {month: value / by_month[month] for month, value in own.items()}
        usual = statistics.median(shares.values())
        spread = statistics.median(abs(share - usual) for share in shares.values())
        for month, share in sorted(shares.items()):
            score = (share - usual) / (1.4826 * spread)
            if abs(score) > max(5, abs(odd[month][-1]) if month in odd else 0):
                odd[month] = (region, share, usual, score)
    return odd


# ------------------------------------------------------------------- the chart

# 5 by 7 pixels; a character a row, whose value in base 32 is the row's bits.
GLYPHS = dict(
    pair.split("=")
    for pair in (
        "A=ehhvhhh B=uhhuhhu C=ehggghe D=uhhhhhu E=vgguggv F=vgguggg G=ehgnhhf H=hhhvhhh "
        "I=e44444e J=72222ic K=hikokih L=ggggggv M=hrllhhh N=hhpljhh O=ehhhhhe P=uhhuggg "
        "Q=ehhhlid R=uhhukih S=fgge11u T=v444444 U=hhhhhhe V=hhhhha4 W=hhhllla X=hha4ahh "
        "Y=hhha444 Z=v1248gv 0=ehjlphe 1=4c4444e 2=eh1248v 3=v2421he 4=26aiv22 5=vgu11he "
        "6=68guhhe 7=v124888 8=ehhehhe 9=ehhf12c -=000v000 .=00000cc ,=0000c48 :=0cc0cc0 "
        "/=01248g0 %=op248j3 (=2488842 )=8422248 +=044v440"
    ).split()
)

INK, FAINT, PAPER = (38, 44, 56), (226, 230, 236), (255, 255, 255)
COLOURS = {"north": (54, 112, 181), "south": (242, 158, 76), "west": (86, 163, 120)}
TREND = (196, 48, 72)


class Picture:
    """A canvas of 8-bit RGB that writes itself as a PNG."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.rows = [bytearray(PAPER * width) for _ in range(height)]

    def box(self, x0, y0, x1, y1, colour):
        left, right = max(0, round(x0)), min(self.width, round(x1))
        if right > left:
            line = bytes(colour) * (right - left)
            for y in range(max(0, round(y0)), min(self.height, round(y1))):
                self.rows[y][left * 3 : right * 3] = line

    def blend(self, x, y, colour, cover):
        if 0 <= x < self.width and 0 <= y < self.height:
            row = self.rows[y]
            for i, value in enumerate(colour):
                row[x * 3 + i] = round(row[x * 3 + i] * (1 - cover) + value * cover)

    def line(self, points, colour, thick):
        """A line with round joints: each pixel by its distance to the nearest segment."""
        cover = {}
        reach = thick / 2 + 1
        for (ax, ay), (bx, by) in zip(points, points[1:]):
            length = (bx - ax) ** 2 + (by - ay) ** 2 or 1.0
            for y in range(int(min(ay, by) - reach), int(max(ay, by) + reach) + 1):
                for x in range(int(min(ax, bx) - reach), int(max(ax, bx) + reach) + 1):
                    along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length
                    along = min(1.0, max(0.0, along))
                    away = math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))
                    part = min(1.0, max(0.0, thick / 2 + 0.5 - away))
                    if part > cover.get((x, y), 0.0):
                        cover[x, y] = part
        for (x, y), part in cover.items():
            self.blend(x, y, colour, part)

    def text(self, x, y, text, colour=INK, scale=2, align=0.0):
        """`align`: 0 begins at x, 0.5 is centred on it, 1 ends there."""
        x -= round((len(text) * 6 - 1) * scale * align)
        for char in text.upper():
            for down, bits in enumerate(GLYPHS.get(char, "0000000")):
                for across in range(5):
                    if int(bits, 32) >> (4 - across) & 1:
                        px, py = x + across * scale, y + down * scale
                        self.box(px, py, px + scale, py + scale, colour)
            x += 6 * scale

    def png(self):
        def chunk(kind, body):
            sealed = kind + body
            return struct.pack(">I", len(body)) + sealed + struct.pack(">I", zlib.crc32(sealed))

        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        pixels = b"".join(b"\0" + bytes(row) for row in self.rows)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(pixels, 9))
            + chunk(b"IEND", b"")
        )


def draw(rows, months, path):
    """Stacked bars a month, a part for each region; over them the mean of the months around."""
    picture = Picture(1040, 580)
    left, right, top, bottom = 92, 1016, 96, 500
    by_month = [total([row for row in rows if row["month"] == m], "region") for m in months]
    sums = [sum(parts.values()) for parts in by_month]
    step = 2000
    ceiling = math.ceil(max(sums) / step) * step

    def height(value):
        return bottom - value / ceiling * (bottom - top)

    picture.text(left, 22, "Monthly revenue by region", scale=3)
    picture.text(left, 56, f"{months[0]} to {months[-1]}, a made-up shop", (110, 118, 132))
    for value in range(0, ceiling + 1, step):
        y = round(height(value))
        picture.box(left, y, right, y + 1, FAINT)
        picture.text(left - 12, y - 7, f"{value:,}", (110, 118, 132), align=1.0)
    slot = (right - left) / len(months)
    for index, (month, parts) in enumerate(zip(months, by_month)):
        x = left + index * slot
        base = 0.0
        for region in sorted(parts):
            above = base + parts[region]
            picture.box(x + 6, height(above), x + slot - 5, height(base), COLOURS[region])
            base = above
        if index % 3 == 0:
            picture.box(x + slot / 2, bottom, x + slot / 2 + 2, bottom + 7, INK)
            picture.text(round(x + slot / 2), bottom + 14, month, align=0.5)
    picture.box(left, bottom, right, bottom + 2, INK)
    means = [
        sum(sums[max(0, i - 1) : i + 2]) / len(sums[max(0, i - 1) : i + 2])
        for i in range(len(sums))
    ]
    points = [(left + (i + 0.5) * slot, height(value)) for i, value in enumerate(means)]
    picture.line(points, (255, 255, 255), 7)
    picture.line(points, TREND, 3)
    x = left
    for name, colour in COLOURS.items():
        picture.box(x, 545, x + 16, 561, colour)
        picture.text(x + 26, 546, name)
        x += 26 + len(name) * 12 + 34
    picture.line([(x, 553), (x + 28, 553)], TREND, 3)
    picture.text(x + 40, 546, "mean of 3 months")
    image = picture.png()
    with open(path, "wb") as file:
        file.write(image)
    return picture.width, picture.height, len(image)


# --------------------------------------------------------------------- the web


def fetch(pages):
    """The first page that answers."""
    for page in pages:
        started = time.monotonic()
        try:
            with urllib.request.urlopen(page, timeout=15) as answer:
                body = answer.read(65536)
                took = (time.monotonic() - started) * 1000
                title = re.search(rb"<title>(.*?)</title>", body, re.S)
                name = title.group(1).decode("utf-8", "replace").strip() if title else "no title"
                print(f"  {page}")
                print(f"  {answer.status}, {len(body):,} bytes, {took:.0f} ms: “{name}”")
                return True
        except OSError as error:
            print(f"  {page} did not answer: {error}")
    return False


def is_denied(url, body):
    """Whether the gateway refuses it, and says why."""
    try:
        with urllib.request.urlopen(url, data=body, timeout=15) as answer:
            print(f"  {url} answered {answer.status}: it should have been denied")
            return False
    except urllib.error.HTTPError as refusal:
        text = refusal.read(4096).decode("utf-8", "replace")
        print(f"  {refusal.code} {refusal.reason}")
        for line in text.splitlines():
            print(f"    {line}")
        return refusal.code == 403 and "denied" in f"{refusal.reason} {text}".lower()
    except OSError as error:
        print(f"  {url} did not answer: {error}")
        return False


def main():
    print(f"Python {sys.version.split()[0]} as uid {os.getuid()} in {os.getcwd()}")
    rows = read_sales("data.csv")
    months = sorted({row["month"] for row in rows})
    print(f"data.csv: {len(rows)} rows, {months[0]} to {months[-1]}")

    print("\nRevenue")
    by_month = total(rows, "month")
    for region, value in sorted(total(rows, "region").items(), key=lambda pair: -pair[1]):
        share = value / sum(by_month.values())
        print(f"  {region:<6} {value:>10,.0f}  {share:>4.0%}  {bar(share)}")
    best = max(by_month, key=lambda month: by_month[month])
    print(f"  best month: {best} with {by_month[best]:,.0f}")

    print("\nGrowth, second year against the first")
    values = [by_month[month] for month in months]
    low, high = bootstrap(list(zip(values[:12], values[12:])), 100_000)
    print(f"  {growth(values):+.1%}, 95 % between {low:+.1%} and {high:+.1%}")

    print("\nOut of line")
    for month, (region, share, usual, score) in sorted(odd_ones(rows).items()):
        print(f"  {month}  {region:<6} {share:>4.0%} of the month, usually {usual:.0%} ({score:+.1f})")

    width, height, size = draw(rows, months, "chart.png")
    print(f"\nchart.png: {width} x {height}, {size:,} bytes")

    print("\nA page, through the egress gateway")
    fetched = fetch(os.environ["DEMO_PAGE"].split())

    denied_url = os.environ["DEMO_DENIED"]
    print(f"\nSending the data out to {denied_url}")
    with open("data.csv", "rb") as file:
        denied = is_denied(denied_url, file.read())

    if not (fetched and denied):
        print("\nNot everything went as it should.", file=sys.stderr)
        return 1
    print("\nDone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
