"""The sample playbook on hosts that are folders: what runs where, and what does not."""

import json
import os
import pathlib
import tempfile
import unittest

from hosts import NEW, OLD, Site, install

FINE = f"--answer=installs={NEW}"
# What a host says that wants to run a command of its own on the controller.
EVIL = "{{ lookup('ansible.builtin.pipe', 'touch evil') }}"


def setUpModule():
    global FOLDER, COLLECTIONS
    FOLDER = tempfile.TemporaryDirectory(prefix="tdx-collections-")
    unittest.addModuleCleanup(FOLDER.cleanup)
    COLLECTIONS = install(pathlib.Path(FOLDER.name))


class RollOut(unittest.TestCase):
    maxDiff = None

    def site(self):
        site = Site(COLLECTIONS)
        self.addCleanup(site.close)
        return site

    def assert_versions(self, site, versions):
        self.assertEqual({name: site.version(name) for name in versions}, versions)

    def test_four_hosts_from_the_refused_plan_to_the_run_that_changes_nothing(self):
        site = self.site()
        site.host("alpha", FINE)
        site.host("bravo", "--module", NEW)
        site.host("charlie", "--offline", "2", FINE)
        site.host("delta", "--answer=refuses=firmware-invalid", FINE)
        before = site.content()

        with self.subTest("a refused plan stops before any host changes"):
            ran = site.roll_out(canaries=["alpha"])
            self.assertNotEqual(ran.code, 0)
            self.assertIn("The plan of charlie is refused", ran.flat)
            self.assertRegex(ran.text, rf"alpha +{OLD} +\S+ +8 +update +{NEW} ")
            self.assertRegex(ran.text, rf"bravo +{NEW} +\S+ +8 +current +- ")
            self.assertRegex(ran.text, r"charlie .* refused .* lps-missing\n")
            self.assertEqual(site.content(), before)
            self.assertEqual(site.noted(), [])

        with self.subTest("check mode shows versions and changes nothing"):
            ran = site.roll_out(
                "--check", "--diff", canaries=["alpha"], tdx_module_skip_refused=True
            )
            self.assertEqual(ran.code, 0, ran.text)
            for line in (f"-module: {OLD}", f"+module: {NEW}", "+svn: 1.11"):
                self.assertIn(line, ran.text)
            self.assertEqual(site.content(), before)
            self.assertEqual(site.noted(), [])

        with self.subTest("the roll-out updates who can be updated, the canary first"):
            ran = site.roll_out(
                "--forks=1", canaries=["alpha"], tdx_module_skip_refused=True, roll_out_serial=2
            )
            self.assertNotEqual(ran.code, 0)
            self.assertEqual(
                site.noted(),
                [
                    "drain alpha",
                    "release alpha updated",
                    "drain delta",
                    "release delta failed-kept",
                ],
            )
            self.assert_versions(
                site, {"alpha": NEW, "bravo": NEW, "charlie": OLD, "delta": OLD}
            )
            self.assertEqual(
                {name: recap["failed"] for name, recap in ran.recap.items()},
                {"alpha": 0, "bravo": 0, "charlie": 0, "delta": 1},
            )
            if "ROLL_OUT_OUTPUT" in os.environ:
                pathlib.Path(os.environ["ROLL_OUT_OUTPUT"]).write_text(ran.text)

        with self.subTest("reference values have the old and the new module"):
            modules = json.loads(site.reference_values.read_text())["modules"]
            self.assertEqual([one["version"] for one in modules], [OLD, NEW])
            self.assertEqual([one["svn"] for one in modules], ["1.5", "1.11"])
            self.assertTrue(all(len(one["mrseam"]) == 96 for one in modules))

        with self.subTest("a host that failed is updated by the next run"):
            ran = site.roll_out(tdx_module_skip_refused=True)
            self.assertEqual(ran.code, 0, ran.text)
            self.assertEqual(site.noted(), ["drain delta", "release delta updated"])

        with self.subTest("a run with nothing to do changes nothing"):
            before = site.content()
            ran = site.roll_out(tdx_module_skip_refused=True)
            self.assertEqual(ran.code, 0, ran.text)
            self.assertEqual({recap["changed"] for recap in ran.recap.values()}, {0})
            self.assertEqual(site.content(), before)
            self.assertEqual(site.noted(), [])

    def test_first_host_that_loses_its_tds_stops_the_roll_out_whatever_the_limit_is(self):
        site = self.site()
        site.host("a-kept", f"--answer=refuses={EVIL}", "--kernel", EVIL)
        site.host("b-busy", FINE)
        site.host("c-fine", FINE)
        site.host("d-lost", "--answer=loses=firmware-invalid")
        site.host("e-fine", FINE)
        site.host("f-same-wave", FINE)
        site.host("g-next-wave", FINE)
        ran = site.roll_out(
            roll_out_serial=3,
            roll_out_max_fail_percentage=100,
            environment={"REFUSES_DRAIN": "b-busy"},
        )
        self.assertNotEqual(ran.code, 0)
        self.assert_versions(
            site,
            {
                "a-kept": OLD,
                "b-busy": OLD,
                "c-fine": NEW,
                "d-lost": None,
                "e-fine": NEW,
                "f-same-wave": NEW,
                "g-next-wave": OLD,
            },
        )
        noted = site.noted()
        for line in ("release a-kept failed-kept", "release b-busy not-drained", "drain d-lost"):
            self.assertIn(line, noted)
        self.assertFalse([line for line in noted if line.startswith("release d-lost")])
        self.assertIn("no other wave begins", ran.flat)
        self.assertIn("TDs migrate", ran.flat)
        # What a host says is shown and never evaluated.
        self.assertIn("touch evil", ran.flat)
        self.assertEqual(list(site.folder.rglob("evil")), [])


if __name__ == "__main__":
    unittest.main()
