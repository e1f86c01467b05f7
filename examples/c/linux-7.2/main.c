/*
 * Repeats the recorded runs of Linux 7.2 on simulated platforms, and compares how each run ends.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recorded.h"

enum { RUNS = sizeof RECORDED / sizeof RECORDED[0] };

static const char *const FATE[] = {"never at risk", "updated", "lost", "platform dead"};
static const char *const MODE[] = {"once", "twice", "online", "stay", "resume", "server-hv0"};
static const char *const RECOVERY[] = {"", ", more rounds save them", ", more rounds bring only a module",
                                       ", more rounds do not help"};

static struct ending look(tdx_sim *sim, const struct recorded *run)
{
    tdx_sim_truth truth = truth_of(sim);
    struct ending ending;

    memset(&ending, 0, sizeof ending);
    if (truth.dead)
        ending.fate = PLATFORM_DEAD;
    else if (truth.tds_alive != truth.tds)
        ending.fate = LOST;
    else
        ending.fate = truth.remaining_updates == run->initial.remaining_updates ? NEVER_AT_RISK : UPDATED;
    ending.module_state = truth.module_state;
    ending.seam_ready = truth.seam_ready;
    ending.handoff.valid = truth.handoff_valid;
    ending.handoff.hv = truth.handoff_hv;
    ending.handoff.size = truth.handoff_size;
    ending.lps_in_session = truth.lps_in_session;
    ending.remaining_updates = truth.remaining_updates;
    ending.seamdb_used = truth.seamdb_used;
    ending.lps_initialised = truth.lps_initialized;
    return ending;
}

/* Ten failures of TDH.SYS.LP.INIT lose the TDs only if all hit one CPU, which depends on timing. */
static bool is_by_chance(const struct recorded *run)
{
    return strcmp(run->scenario, "lpinit-entropy-10") == 0 && run->cpus > 1;
}

/*
 * The number of LPs in a session that a failure left open depends on timing: on how many CPUs saw
 * the stage begin before one failed. On a dead platform the session is meaningless.
 */
static bool same_ending(const struct ending *a, const struct ending *b)
{
    return a->fate == b->fate && a->module_state == b->module_state && a->seam_ready == b->seam_ready &&
           a->handoff.valid == b->handoff.valid && a->handoff.hv == b->handoff.hv &&
           a->handoff.size == b->handoff.size && a->remaining_updates == b->remaining_updates &&
           a->seamdb_used == b->seamdb_used && a->lps_initialised == b->lps_initialised &&
           (a->fate == PLATFORM_DEAD || (a->lps_in_session != 0) == (b->lps_in_session != 0));
}

/* The highest handoff versions of modules that run before the update. */
enum { OLD_VERSIONS = 2 };

/* The files of a scenario's runs. */
struct files {
    struct file usual, scenario, old[OLD_VERSIONS], good;
};

/* Makes the run. Stores the result in `found`, whose first fields are copied from the recording. */
static void make(const struct recorded *run, const struct files *files, struct recorded *found)
{
    tdx_sim *sim = set_up(run, &files->old[run->initial.module_hv]);
    struct linux_host host = linux_host(sim, run->cpus, run->erratum);

    *found = *run;
    if (run->mode == SERVER_HV0) {
        server_hv0(sim, run->lps, &files->scenario);
    } else {
        found->returned = linux_install(&host, &files->scenario);
        found->failed = host.failed;
    }
    if (run->mode == TWICE || run->mode == ONLINE) {
        end_faults(sim);
        if (run->mode == ONLINE)
            host.cpus = run->lps;
        found->returned_again = linux_install(&host, &files->good);
    }
    found->after_linux = look(sim, run);
    found->recovery = NOT_TRIED;
    if (found->after_linux.fate == LOST) {
        if (run->mode != STAY)
            end_faults(sim);
        found->recovery = run->mode == RESUME ? resume(sim, run->lps)
                                              : recover(sim, run->mode == STAY ? run->cpus : run->lps, &files->good);
    }
    found->end = look(sim, run);
    check(tdx_sim_free(sim), "free");
}

static bool is_as_recorded(const struct recorded *run, const struct recorded *found)
{
    return found->returned == run->returned && found->returned_again == run->returned_again &&
           found->failed.leaf == run->failed.leaf && found->failed.status == run->failed.status &&
           found->failed.rdx == run->failed.rdx && same_ending(&found->after_linux, &run->after_linux) &&
           found->recovery == run->recovery && same_ending(&found->end, &run->end);
}

static void print_ending(const char *when, const struct ending *e)
{
    printf("    %s: %s, module state %u, SEAM_READY %d, handoff %d version %u size %u, session %u, remaining %u, "
           "SEAMDB %u, initialised %u\n",
           when, FATE[e->fate], e->module_state, e->seam_ready, e->handoff.valid, e->handoff.hv, e->handoff.size,
           e->lps_in_session, e->remaining_updates, e->seamdb_used, e->lps_initialised);
}

static void print_run(const char *what, const struct recorded *run)
{
    printf("  %s: %s, %u CPUs, %s: returns %d and %d, leaf %#llx fails with %#llx, RDX %llu%s\n", what, run->scenario,
           run->cpus, MODE[run->mode], run->returned, run->returned_again, (unsigned long long)run->failed.leaf,
           (unsigned long long)run->failed.status, (unsigned long long)run->failed.rdx, RECOVERY[run->recovery]);
    print_ending("after Linux", &run->after_linux);
    print_ending("in the end", &run->end);
}

/*
 * Makes all runs of the scenario of the run `first`. Returns their number, and adds 1 to `differ`
 * if a run ends differently.
 */
static size_t scenario(size_t first, struct files *files, size_t *differ)
{
    const struct recorded *run = &RECORDED[first];
    struct recorded found, shown = {0};
    size_t made = 0, differ_here = 0;

    files->scenario = scenario_file(run->scenario, &files->usual);
    for (size_t i = first; i < RUNS; i++) {
        if (strcmp(RECORDED[i].scenario, run->scenario) != 0)
            continue;
        make(&RECORDED[i], files, &found);
        if (made++ == 0)
            shown = found;
        if (!is_as_recorded(&RECORDED[i], &found) && !is_by_chance(run)) {
            differ_here++;
            print_run("recorded", &RECORDED[i]);
            print_run("found   ", &found);
        }
    }
    printf("| %s | %zu | %d, %s%s | %d, %s%s | %s |\n", run->scenario, made, shown.returned, FATE[shown.after_linux.fate],
           RECOVERY[shown.recovery], run->returned, FATE[run->after_linux.fate], RECOVERY[run->recovery],
           differ_here == 0 ? "ok" : "DIFFERS");
    *differ += differ_here != 0;
    free(files->scenario.bytes);
    return made;
}

static bool came_before(size_t run)
{
    for (size_t i = 0; i < run; i++)
        if (strcmp(RECORDED[i].scenario, RECORDED[run].scenario) == 0)
            return true;
    return false;
}

int main(void)
{
    struct files files = {.usual = usual_file(), .good = good_file()};
    size_t scenarios = 0, runs = 0, differ = 0;

    for (uint16_t hv = 0; hv < OLD_VERSIONS; hv++)
        files.old[hv] = old_file(hv);
    puts("| scenario | runs | found: Linux returns, TDs | recorded | |\n|---|---|---|---|---|");
    for (size_t i = 0; i < RUNS; i++)
        if (!came_before(i)) {
            runs += scenario(i, &files, &differ);
            scenarios++;
        }
    for (uint16_t hv = 0; hv < OLD_VERSIONS; hv++)
        free(files.old[hv].bytes);
    free(files.usual.bytes);
    free(files.good.bytes);
    printf("%zu scenarios in %zu runs: %zu end as recorded, %zu differ\n", scenarios, runs, scenarios - differ, differ);
    return differ == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
