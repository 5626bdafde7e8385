#!/usr/bin/env python3
"""Writes data.csv: two years of sales of a shop that does not exist.

Every number comes from the formula below and its seed, so the file holds
nobody's data and may be used for anything (CC0). Run it again to get the same
bytes: python3 make_data.py > data.csv
"""

import math
import random

REGIONS = {"north": 1.00, "south": 1.35, "west": 0.72}
PRODUCTS = {"tea": (4.20, 310), "coffee": (6.90, 260)}
OUTAGE = ("2024-03", "west")  # the payment system was down for most of the month

rng = random.Random(20240301)
print("month,region,product,units,revenue")
for index in range(24):
    month = f"{2023 + index // 12}-{index % 12 + 1:02d}"
    season = 1 + 0.22 * math.cos((index % 12 - 11) / 12 * 2 * math.pi)
    growth = 1.012**index
    for region, share in REGIONS.items():
        for product, (price, base) in PRODUCTS.items():
            units = base * share * season * growth * rng.uniform(0.93, 1.07)
            if (month, region) == OUTAGE:
                units *= 0.18
            units = round(units)
            print(f"{month},{region},{product},{units},{units * price:.2f}")
