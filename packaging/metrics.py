"""Reads a file of metrics with Prometheus' own parser for Python, and prints the samples."""

import sys

from prometheus_client.parser import text_string_to_metric_families

with open(sys.argv[1], encoding="utf-8") as file:
    families = list(text_string_to_metric_families(file.read()))
for family in families:
    assert family.documentation and family.type == "gauge", family
    for sample in family.samples:
        print(sample.name, sample.labels, sample.value)
assert any(family.name == "tdx_module_running" for family in families)
