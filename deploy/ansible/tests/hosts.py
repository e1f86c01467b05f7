"""Hosts for the tests (folders, each with a program as its kernel, or machines), and Ansible."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parents[3]
IMAGES = pathlib.Path(os.environ["TDX_MODULE_BINARIES"]) / "joined_files/1.5"
PROGRAMS = pathlib.Path(sys.executable).parent

OLD, NEW = "1.5.05", "1.5.16"

# Notes who is drained and released. The host named by REFUSES_DRAIN is not drained.
SCHEDULER = """#!/bin/sh
test -s "$REFERENCE_VALUES" || { echo "no reference values yet" >&2; exit 9; }
echo "$1 $TDX_MODULE_HOST ${TDX_MODULE_OUTCOME:-}" >> "$NOTES"
test "$1 $TDX_MODULE_HOST" != "drain ${REFUSES_DRAIN:-}" || { echo "TDs migrate" >&2; exit 1; }
"""


def install(folder):
    """Builds the collection and installs it as an operator does."""
    for words in (
        ["build", "--output-path", folder, PROJECT / "deploy/ansible"],
        ["install", "--offline", "-p", folder / "collections"],
    ):
        if words[0] == "install":
            words += folder.glob("*.tar.gz")
        subprocess.run(
            [PROGRAMS / "ansible-galaxy", "collection", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections")},
        )
    return folder / "collections"


class Ran:
    """How a playbook ended, and what it printed."""

    def __init__(self, ended, site):
        self.code = ended.returncode
        self.text = (ended.stdout + ended.stderr).replace(str(site.folder), "/site")
        self.text = self.text.replace(str(site.collections), "/collections")
        recap = self.text.partition("PLAY RECAP")[2]
        self.recap = {
            line.split()[0]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
            for line in recap.splitlines()
            if "ok=" in line
        }

    @property
    def flat(self):
        """The text with each run of blanks as one."""
        return " ".join(self.text.split())


class Site:
    """Some hosts, until `close`."""

    def __init__(self, collections):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tdx-site-"))
        self.collections = collections
        self.kernels = []
        # The inventory's variables of each host.
        self.hosts = {}
        self.notes = self.folder / "notes"
        self.notes.touch()
        self.reference_values = self.folder / "tdx-reference-values.json"
        self.scheduler = self.folder / "scheduler"
        self.scheduler.write_text(SCHEDULER)
        self.scheduler.chmod(0o755)

    def close(self):
        for kernel in self.kernels:
            kernel.communicate()
        shutil.rmtree(self.folder)

    def host(self, name, *options):
        """Adds a host that is a folder, with the images of both versions."""
        root = self.folder / name
        images = root / "var/lib/tdx-seamldr/images"
        images.mkdir(parents=True)
        for version in (OLD, NEW):
            shutil.copy(IMAGES / f"tdx_module_{version}.blob", images)
        kernel = subprocess.Popen(
            [os.environ["HOST_FOLDER"], root, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.kernels.append(kernel)
        assert kernel.stdout.readline() == "ready\n"
        self.hosts[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "tdx_module_command": os.environ["TDX_SEAMLDR"],
            "tdx_module_root": str(root),
        }

    def machine(self, name, port, key):
        """Adds a host that takes ssh connections on this port of loopback."""
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        self.hosts[name] = {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": key,
            "ansible_ssh_common_args": options,
            # No file is copied to the host before a task.
            "ansible_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            "tdx_module_image_dirs": ["/images/intel"],
        }

    def version(self, name):
        """The module that runs on a host; None if there is none."""
        file = self.folder / name / "sys/devices/faux/tdx_host/version"
        return file.read_text().strip() if file.is_file() else None

    def noted(self):
        """What the scheduler was asked since the last call."""
        lines = self.notes.read_text().splitlines()
        self.notes.write_text("")
        return [line.strip() for line in lines]

    def content(self):
        """Each regular file of the site, but for the scheduler's notes."""
        found = {}
        for file in self.folder.rglob("*"):
            if not file.is_file() or file == self.notes:
                continue
            facts = file.stat()
            # /dev/cpu/0/cpuid is 12 GiB, nearly all of it a hole.
            is_large = facts.st_size > 1 << 26
            found[str(file)] = (
                (facts.st_size, facts.st_mtime_ns) if is_large else file.read_bytes()
            )
        return found

    def inventory(self, canaries):
        groups = {
            "tdx_hosts": {"hosts": self.hosts},
            "tdx_canaries": {"hosts": {name: {} for name in canaries}},
        }
        file = self.folder.with_suffix(".inventory.json")
        file.write_text(json.dumps({"all": {"children": groups}}))
        return file

    def roll_out(self, *options, canaries=(), environment=None, **variables):
        """Runs the sample playbook."""
        inventory = self.inventory(canaries)
        given = {
            "tdx_module_no_td_launches": True,
            "tdx_module_drain": [str(self.scheduler), "drain"],
            "tdx_module_release": [str(self.scheduler), "release"],
            "tdx_module_reference_values": str(self.reference_values),
            **variables,
        }
        ended = subprocess.run(
            [
                PROGRAMS / "ansible-playbook",
                "tdx_seamldr.hosts.roll_out",
                "--inventory",
                inventory,
                "--extra-vars",
                json.dumps(given),
                *options,
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "NOTES": str(self.notes),
                "REFERENCE_VALUES": str(self.reference_values),
                "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
                "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
                "ANSIBLE_HOME": str(self.collections.parent / "home"),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        inventory.unlink()
        return Ran(ended, self)
