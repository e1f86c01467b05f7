/*
 * A recorded run of Linux 7.2 on real firmware code, and the same run on the simulated platform.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef RUN_H
#define RUN_H

#include "linux.h"

/*
 * What is done. ONCE: an upload; if the TDs are lost, a server makes more rounds, with the fault gone. TWICE: after the upload the
 * fault goes away and a good image is uploaded, then as ONCE. ONLINE: the same, and the CPU that was offline takes part in the
 * second upload. STAY: as ONCE, but the fault stays. RESUME: as ONCE, but the server installs nothing. SERVER_HV0: no Linux; the
 * server shuts the module down with handoff version 0 and installs the scenario's image.
 */
enum mode { ONCE, TWICE, ONLINE, STAY, RESUME, SERVER_HV0 };

/* NEVER_AT_RISK: the old module is ready. UPDATED: a module is ready that has taken the handoff data. LOST: neither. */
enum fate { NEVER_AT_RISK, UPDATED, LOST, PLATFORM_DEAD };

/* What more rounds come to. MODULE_ONLY: SEAMLDR.INSTALL with LOAD brings a module, without the TDs. */
enum recovery { NOT_TRIED, SAVED, MODULE_ONLY, NOTHING };

struct initial {
    uint16_t module_hv; /* the highest handoff version of the module that runs; its lowest is 0 */
    uint32_t remaining_updates, seamdb_used;
};

struct ending {
    enum fate fate;
    uint32_t module_state;
    bool seam_ready;
    struct {
        bool valid;
        uint16_t hv;
        uint32_t size;
    } handoff;
    uint32_t lps_in_session, remaining_updates, seamdb_used, lps_initialised;
};

struct recorded {
    const char *scenario;
    uint32_t cpus, lps; /* CPUs online, and LPs that firmware counts */
    enum mode mode;
    bool erratum;
    struct initial initial;
    int returned, returned_again; /* by the first and the second upload */
    struct failed_call failed;    /* in the first upload */
    struct ending after_linux;
    enum recovery recovery;
    struct ending end;
};

/*
 * The files of a run, to be freed: a scenario's, which is the usual one with something changed; that of the module that runs before,
 * which writes handoff data of versions 0 to `hv`; one that nothing is wrong with.
 */
struct file usual_file(void);
struct file scenario_file(const char *scenario, const struct file *usual_file);
struct file old_file(uint16_t hv);
struct file good_file(void);

/* A platform as the run finds it: with the module of the file `old`, TDs, and what is wrong. */
tdx_sim *set_up(const struct recorded *run, const struct file *old);

/* What was wrong with the platform is over. */
void end_faults(tdx_sim *sim);

/* The server's rounds on LP 0 to `lps` - 1, with the file `good`. */
enum recovery recover(tdx_sim *sim, uint32_t lps, const struct file *good);

/* The server goes on with the module that is there. */
enum recovery resume(tdx_sim *sim, uint32_t lps);

/* The server's own update, with handoff data of version 0. */
void server_hv0(tdx_sim *sim, uint32_t lps, const struct file *file);

#endif
