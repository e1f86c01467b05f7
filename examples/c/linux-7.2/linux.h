/*
 * The update of a TDX module as Linux 7.2 makes it, for a simulated platform.
 *
 * Written for this example from the known behaviour of Linux 7.2; not the kernel's code.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef LINUX_H
#define LINUX_H

#include "host.h"

enum { MAX_CPUS = 8 };

/* The first call that failed; leaf 0 and status 0 if no call failed. */
struct failed_call {
    uint64_t leaf, status, rdx;
};

/* The kernel: its facts about the module, and its first failure. */
struct linux_host {
    tdx_sim *sim;
    uint32_t cpus; /* online: LP 0 to cpus - 1 */
    bool erratum;  /* SEAMRET clears the current VMCS: the kernel makes no calls to P-SEAMLDR */
    bool module_ready, sys_init_done, lp_init_done[MAX_CPUS];
    int sys_init_result;
    struct failed_call failed;
};

/* Returns a kernel that runs on these CPUs and has initialised the module. */
struct linux_host linux_host(tdx_sim *sim, uint32_t cpus, bool erratum);

/*
 * Installs a file, as a write to /sys/class/firmware/tdx_module does. Returns 0, or a negative
 * errno.
 */
int linux_install(struct linux_host *host, const struct file *file);

#endif
