/*
 * A recorded run of Linux 7.2 on real firmware code, and the same run on the simulated platform.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef RUN_H
#define RUN_H

#include "linux.h"

/*
 * The steps of a run.
 *
 * ONCE: one upload. If the TDs are lost, the fault is repaired and a server makes more rounds.
 * TWICE: one upload, the fault is repaired, a valid image is uploaded; then as ONCE.
 * ONLINE: as TWICE, but the offline CPU takes part in the second upload.
 * STAY: as ONCE, but the fault stays.
 * RESUME: as ONCE, but the server installs no module.
 * SERVER_HV0: no upload; the server shuts the module down with handoff version 0 and installs the
 * scenario's image.
 */
enum mode { ONCE, TWICE, ONLINE, STAY, RESUME, SERVER_HV0 };

/*
 * NEVER_AT_RISK: the old module is ready. UPDATED: a module that has restored the handoff data is
 * ready. LOST: neither.
 */
enum fate { NEVER_AT_RISK, UPDATED, LOST, PLATFORM_DEAD };

/* Result of more rounds. MODULE_ONLY: SEAMLDR.INSTALL with LOAD gives a module without the TDs. */
enum recovery { NOT_TRIED, SAVED, MODULE_ONLY, NOTHING };

struct initial {
    uint16_t module_hv; /* the running module's highest handoff version; its lowest is 0 */
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
 * The files of a run; the caller frees them. The scenario's file is the usual file with a change.
 * The old file has the module that runs before the update. It writes handoff versions 0 to `hv`.
 */
struct file usual_file(void);
struct file scenario_file(const char *scenario, const struct file *usual_file);
struct file old_file(uint16_t hv);
struct file good_file(void);

/* Returns the platform before the run: with the module of the file `old`, TDs, and the fault. */
tdx_sim *set_up(const struct recorded *run, const struct file *old);

/* Repairs the platform. */
void end_faults(tdx_sim *sim);

/* Makes the server's rounds on LP 0 to `lps` - 1, with the file `good`. */
enum recovery recover(tdx_sim *sim, uint32_t lps, const struct file *good);

/* The server continues with the installed module. */
enum recovery resume(tdx_sim *sim, uint32_t lps);

/* Makes the server's own update, with handoff version 0. */
void server_hv0(tdx_sim *sim, uint32_t lps, const struct file *file);

#endif
