# Copyright: the tdx-seamldr developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Filters for the plans of many hosts. Hosts are not trusted: what they say is data."""

from __future__ import annotations

import json

# The columns of the table.
COLUMNS = ("host", "runs", "SVN", "left", "plan", "to", "SVN after", "why")
# No value is longer.
WIDEST = 200


def plain(value):
    """Returns a value as one line of printable ASCII, so that no host forges a row."""
    text = "?" if value is None else str(value)
    text = "".join(char if " " <= char <= "~" else "?" for char in text)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def why(plan):
    """Returns what speaks against a plan: code and message of reasons, then of open questions."""
    open_questions = [one for one in plan.get("questions") or [] if not one.get("accepted")]
    return [
        (plain(one.get("code")), plain(one.get("message")))
        for one in (plan.get("reasons") or []) + open_questions
    ]


def row(host, found):
    """Returns the cells of a host."""
    facts, plan = found.get("facts") or {}, found.get("plan") or {}
    last = (plan.get("steps") or [{}])[-1] if found.get("verdict") == "update" else {}
    cells = [
        host,
        facts.get("version"),
        facts.get("svn"),
        facts.get("remaining_updates"),
        found.get("verdict"),
        last.get("to") if last else "-",
        last.get("svn") if last else "-",
        ", ".join(code for code, _ in why(plan)) or "-",
    ]
    return [plain(cell) for cell in cells]


def plan_table(hosts):
    """Returns a table: what runs on each host, and what its plan says. Messages come below."""
    rows = [list(COLUMNS), *(row(host, hosts[host]) for host in sorted(hosts))]
    widths = [max(len(one[column]) for one in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(one, widths)).rstrip() for one in rows
    ]
    messages = [
        "%s: %s" % (plain(host), message)
        for host in sorted(hosts)
        for _, message in why(hosts[host].get("plan") or {})
    ]
    return "\n".join(lines + [""] + messages if messages else lines)


def entry(version, svn, mrseam, tee_tcb_svn_2=None):
    """Returns one reference value."""
    values = {"version": version, "svn": svn, "mrseam": mrseam}
    if tee_tcb_svn_2 is not None:
        values["tee_tcb_svn_2"] = tee_tcb_svn_2
    return values


def reference_values(hosts, before=""):
    """Returns the modules that quotes of these hosts may show, as JSON.

    These are the modules that run, those that the plans install, and all of the file that was
    written before. A host that reboots runs the BIOS's module again, so none is dropped here.
    """
    found = {}

    def add(values):
        if values["mrseam"]:
            known = found.setdefault(values["mrseam"], {})
            known.update({name: value for name, value in values.items() if value is not None})

    if before:
        for values in json.loads(before)["modules"]:
            add(values)
    for host in sorted(hosts):
        facts = hosts[host].get("facts") or {}
        add(entry(facts.get("version"), facts.get("svn"), facts.get("mrseam")))
        if hosts[host].get("verdict") == "update":
            for step in (hosts[host].get("plan") or {}).get("steps") or []:
                add(entry(step["to"], step["svn"], step["mrseam"], step["tee_tcb_svn_2"]))
    modules = sorted(found.values(), key=lambda one: (str(one.get("version")), one["mrseam"]))
    return json.dumps({"modules": modules}, indent=2) + "\n"


class FilterModule:
    """Registers the filters."""

    def filters(self):
        return {"plan_table": plan_table, "reference_values": reference_values}
