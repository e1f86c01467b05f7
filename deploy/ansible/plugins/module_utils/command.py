# Copyright: the tdx-seamldr developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs the command tdx-seamldr on a host and reads the JSON that it prints."""

from __future__ import annotations

import json

# Options of the command that the modules share.
HOST_OPTIONS = {
    "command": {"type": "str", "default": "tdx-seamldr"},
    "root": {"type": "path"},
    "config": {"type": "path"},
}

# Options of plan and update.
REQUEST_OPTIONS = {
    "target": {"type": "str"},
    "image_dirs": {"type": "list", "elements": "path", "default": []},
    "accept": {"type": "list", "elements": "str", "default": []},
    "allow_below_minimum": {"type": "bool", "default": False},
    "no_td_launches": {"type": "bool", "default": False},
}


class Unreadable(Exception):
    """The command did not print the object that was expected."""


def arguments(module, subcommand):
    """Returns the command line of a subcommand."""
    given = module.params
    line = [given["command"], subcommand, "--json"]
    for option in ("root", "config"):
        if given.get(option):
            line += ["--" + option, given[option]]
    if subcommand == "status":
        return line
    for folder in given.get("image_dirs") or []:
        line += ["--image-dir", folder]
    for unknown in given.get("accept") or []:
        line += ["--accept", unknown]
    for option in ("allow_below_minimum", "no_td_launches"):
        # What is not set here is left to the configuration of the host.
        if given.get(option):
            line.append("--" + option.replace("_", "-"))
    # Check mode plans with the options of an update, and a plan takes no timeout.
    if subcommand == "update" and given.get("timeout"):
        line += ["--timeout", str(given["timeout"])]
    if given.get("target"):
        line += ["--", given["target"]]
    return line


def parse(subcommand, output):
    """Returns the object of a subcommand, or raises Unreadable."""
    try:
        found = json.loads(output)
    except ValueError as error:
        raise Unreadable("%s printed no JSON: %s" % (subcommand, error)) from error
    if not isinstance(found, dict):
        raise Unreadable("%s printed no JSON object" % subcommand)
    wanted = "tdx-seamldr/%s/1" % subcommand
    if found.get("schema") == "tdx-seamldr/error/1":
        raise Unreadable(str(found.get("error")))
    if found.get("schema") != wanted:
        raise Unreadable("schema is %r, but should be %r" % (found.get("schema"), wanted))
    return found


def run(module, subcommand):
    """Runs a subcommand. Returns its exit status, its object (or None), and what went wrong."""
    code, output, errors = module.run_command(arguments(module, subcommand))
    try:
        return code, parse(subcommand, output), None
    except Unreadable as error:
        last = errors.strip().splitlines()[-1:]
        return code, None, "; ".join([str(error), *last])


def words(value):
    """Returns a value as text; None as an empty text."""
    return "" if value is None else str(value)
