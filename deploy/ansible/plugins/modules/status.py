#!/usr/bin/python
# Copyright: the tdx-seamldr developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Module status: what runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Reads which TDX module runs
description:
  - Runs C(tdx-seamldr status --json) and returns the fact RV(ansible_facts.tdx_module).
  - Changes nothing.
version_added: 0.1.0
author: The tdx-seamldr developers (@tdx-seamldr)
extends_documentation_fragment:
  - tdx_seamldr.hosts.command
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Read which module runs
  tdx_seamldr.hosts.status:
"""

RETURN = r"""
ansible_facts:
  description: The fact C(tdx_module).
  returned: success
  type: dict
  contains:
    tdx_module:
      description: >-
        C(version), C(svn), C(mrseam), C(seamldr), C(remaining_updates), C(updatable) and
        C(problem). Each is null if the host does not tell.
      type: dict
status:
  description: The whole object of C(tdx-seamldr status --json).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tdx_seamldr.hosts.plugins.module_utils import command


def facts(status):
    """Returns the fact of a status."""
    module = status.get("module") or {}
    host = status.get("host") or {}
    return {
        "version": module.get("version"),
        "svn": module.get("svn"),
        "mrseam": module.get("mrseam"),
        "seamldr": (host.get("seamldr") or {}).get("value"),
        "remaining_updates": (host.get("remaining_updates") or {}).get("value"),
        "updatable": status.get("updatable"),
        "problem": status.get("problem"),
    }


def main():
    module = AnsibleModule(argument_spec=command.HOST_OPTIONS, supports_check_mode=True)
    code, status, problem = command.run(module, "status")
    if code != 0 or status is None:
        module.fail_json(msg=command.words(problem), rc=code)
    module.exit_json(
        changed=False, status=status, ansible_facts={"tdx_module": facts(status)}
    )


if __name__ == "__main__":
    main()
