"""The sample playbook on machines in QEMU, each with Linux's own update of the TDX module."""

import json
import os
import pathlib
import socket
import tempfile
import unittest

from hosts import NEW, OLD, Site, install

# The TDs of each machine.
TDS = 3


def truth(control):
    """The module that runs on a machine, and how many TDs live, as the plugin of QEMU sees them."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(control)
        stream.sendall(b'{"command":"state"}\n')
        state = json.loads(stream.makefile().readline())["state"]
    return (state.get("module") or {}).get("version"), state["tds_alive"]


class Machines(unittest.TestCase):
    maxDiff = None

    def test_roll_out_stops_at_the_machine_that_loses_its_tds(self):
        folder = tempfile.TemporaryDirectory(prefix="tdx-collections-")
        self.addCleanup(folder.cleanup)
        site = Site(install(pathlib.Path(folder.name)))
        self.addCleanup(site.close)
        # `cargo xtask rollout --machines FOLDER` sets it.
        machines = json.loads(os.environ["MACHINES"])
        for name, machine in machines.items():
            site.machine(name, machine["port"], machine["key"])

        def seen():
            return {name: truth(machine["control"]) for name, machine in machines.items()}

        before = {
            "alpha": (OLD, TDS),
            "bravo": (NEW, TDS),
            "charlie": (OLD, TDS),
            "delta": (OLD, TDS),
            "echo": (OLD, TDS),
        }
        self.assertEqual(seen(), before)

        with self.subTest("a refused plan stops before any machine changes"):
            ran = site.roll_out(canaries=["alpha"])
            self.assertNotEqual(ran.code, 0)
            self.assertIn("The plan of charlie is refused", ran.flat, ran.text)
            self.assertRegex(ran.text, r"charlie .* refused .* lps-missing\n")
            self.assertEqual(seen(), before)
            self.assertEqual(site.noted(), [])

        with self.subTest("the first machine that loses its TDs is the last that is touched"):
            ran = site.roll_out(canaries=["alpha"], tdx_module_skip_refused=True)
            self.assertNotEqual(ran.code, 0)
            self.assertEqual(
                site.noted(), ["drain alpha", "release alpha updated", "drain delta"], ran.text
            )
            after = seen()
            # A module that is lost is still in memory, but has no TDs.
            self.assertEqual(after.pop("delta")[1], 0)
            del before["delta"]
            self.assertEqual(after, {**before, "alpha": (NEW, TDS)})
            self.assertIn("delta: lost", ran.flat)
            self.assertIn("no other wave begins", ran.flat)


if __name__ == "__main__":
    unittest.main()
