# Copyright: the tdx-seamldr developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Documents the options that the modules share; module_utils/command.py has their types."""

from __future__ import annotations


class ModuleDocFragment:
    """Holds the texts that Ansible adds to the documentation of a module."""

    # Options of all modules.
    DOCUMENTATION = r"""
options:
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
"""

    # Options of plan and update.
    REQUEST = r"""
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
"""
