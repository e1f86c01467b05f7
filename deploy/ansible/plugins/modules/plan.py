#!/usr/bin/python
# Copyright: the tdx-seamldr developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Module plan: what an update of a host would do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plans an update of the TDX module
description:
  - Runs C(tdx-seamldr plan --json). Changes nothing.
  - A refused plan is a result and no failure.
version_added: 0.1.0
author: The tdx-seamldr developers (@tdx-seamldr)
extends_documentation_fragment:
  - tdx_seamldr.hosts.command
  - tdx_seamldr.hosts.command.request
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Plan the update to the newest module that fits
  tdx_seamldr.hosts.plan:
  register: plan
"""

RETURN = r"""
verdict:
  description: >-
    C(update) if nothing but a word on TDs in build is missing, C(current) if there is nothing to
    do, else C(refused).
  returned: success
  type: str
plan:
  description: The whole object of C(tdx-seamldr plan --json).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tdx_seamldr.hosts.plugins.module_utils import command


def verdict(code, plan):
    """Returns the verdict in one word."""
    if code == 0:
        return "current" if plan.get("verdict") == "nothing-to-do" else "update"
    return "refused"


def main():
    options = {**command.HOST_OPTIONS, **command.REQUEST_OPTIONS}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    code, plan, problem = command.run(module, "plan")
    if code not in (0, 1) or plan is None:
        module.fail_json(msg=command.words(problem), rc=code)
    module.exit_json(changed=False, verdict=verdict(code, plan), plan=plan)


if __name__ == "__main__":
    main()
