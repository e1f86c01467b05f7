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
options:
  target:
    description:
      - A version, or the path of an image on the host.
      - Without it, the newest image that fits.
    type: str
  image_dirs:
    description: Folders on the host with images. Without them, those of the configuration.
    type: list
    elements: path
    default: []
  accept:
    description: Names of rules that may stay unchecked, as the plan shows them.
    type: list
    elements: str
    default: []
  allow_below_minimum:
    description: Go on although the table wants a newer running module first.
    type: bool
    default: false
  no_td_launches:
    description:
      - Vouch that no TD is in build and no migration runs until the update is over.
      - Without it, the configuration or a pre-update hook of the host has to vouch.
    type: bool
    default: false
  command:
    description: The command on the host.
    type: str
    default: tdx-seamldr
  root:
    description: Read and write below this folder instead of C(/).
    type: path
  config:
    description: Read this configuration instead of C(/etc/tdx-seamldr.toml).
    type: path
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
