#!/usr/bin/python
# Copyright: the tdx-seamldr developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Module update: replaces the TDX module of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: update
short_description: Replaces the running TDX module
description:
  - Runs C(tdx-seamldr update --json). In check mode, runs C(tdx-seamldr plan --json) instead.
  - The task fails unless the module runs, or ran already. RV(outcome) tells what became of the TDs.
version_added: 0.1.0
author: The tdx-seamldr developers (@tdx-seamldr)
options:
  timeout:
    description: How many seconds the kernel may take.
    type: int
extends_documentation_fragment:
  - tdx_seamldr.hosts.command
  - tdx_seamldr.hosts.command.request
attributes:
  check_mode:
    description: Plans, and changes nothing.
    support: full
  diff_mode:
    description: Shows the versions before and after, with SVN and MRSEAM.
    support: full
"""

EXAMPLES = r"""
- name: Update to the newest module that fits, on a host whose launcher of TDs is stopped
  tdx_seamldr.hosts.update:
    no_td_launches: true
"""

RETURN = r"""
outcome:
  description: >-
    C(updated), C(nothing-to-do), C(refused), C(aborted), C(failed-kept), C(lost) or C(unknown).
    C(unknown) also if the command ended in a way that it does not document.
  returned: always
  type: str
ending:
  description: The object C(ending) of C(tdx-seamldr update --json); empty if there is none.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tdx_seamldr.hosts.plugins.module_utils import command

# What each exit status says if the object does not tell.
OUTCOMES = {0: "updated", 1: "refused", 2: "refused", 3: "failed-kept", 4: "unknown"}
# The outcomes that may come with each exit status.
FITTING = {
    0: ("updated", "nothing-to-do"),
    1: ("refused", "aborted"),
    3: ("failed-kept", "refused", "aborted"),
    4: ("lost", "unknown"),
}


def outcome(code, ending):
    """Returns the outcome. The exit status decides; the object only says more."""
    said = ending.get("outcome")
    if said in FITTING.get(code, ()):
        # Exit status 3 also ends a plan that was refused after its first update.
        return "failed-kept" if code == 3 else said
    return OUTCOMES.get(code, "unknown")


def line(version, svn, mrseam):
    """Returns what a side of the diff says of a module."""
    return "module: %s\nsvn: %s\nmrseam: %s\n" % tuple(
        value or "not known" for value in (version, svn, mrseam)
    )


def diff(status, steps):
    """Returns the versions before and after these steps."""
    running = (status or {}).get("module") or {}
    before = line(running.get("version"), running.get("svn"), running.get("mrseam"))
    after = before
    for step in steps:
        after = line(step.get("to"), step.get("svn"), step.get("mrseam"))
    return {"before": before, "after": after}


def check(module, status):
    """Ends the module in check mode."""
    code, plan, problem = command.run(module, "plan")
    if code != 0 or plan is None:
        said = plan or {}
        questions = [one for one in said.get("questions") or [] if not one.get("accepted")]
        reasons = [one.get("message") for one in (said.get("reasons") or []) + questions]
        message = "; ".join(str(reason) for reason in reasons) or command.words(problem)
        module.fail_json(msg=message, outcome="refused", ending={})
    changed = plan.get("verdict") != "nothing-to-do"
    steps = plan.get("steps") or [] if changed else []
    said = "updated" if changed else "nothing-to-do"
    module.exit_json(changed=changed, outcome=said, ending={}, diff=diff(status, steps))


def main():
    options = {
        **command.HOST_OPTIONS,
        **command.REQUEST_OPTIONS,
        "timeout": {"type": "int"},
    }
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    status = command.run(module, "status")[1]
    if module.check_mode:
        check(module, status)
    code, report, problem = command.run(module, "update")
    report = report or {}
    ending = report.get("ending") or {}
    made = [
        one.get("step") or {}
        for one in report.get("steps") or []
        if (one.get("ending") or {}).get("outcome") == "updated"
    ]
    result = {
        # A module that may be gone is a change, too.
        "changed": bool(made) or code not in (0, 1, 2, 3),
        "outcome": outcome(code, ending),
        "ending": ending,
        "rc": code,
        "diff": diff(status, made),
    }
    if code != 0:
        message = ending.get("message") or problem or "exit status %d" % code
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
