/*
 * The update of a TDX module as Linux 7.2 makes it.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "linux.h"

#include <errno.h>
#include <string.h>

/* Physical addresses of the kernel's memory. */
static const uint64_t PARAMS_PA = 0x100000000, FILE_PA = 0x100100000;

enum { NO_ENTROPY_TRIES = 10, IMAGE_V2 = 0x200 };

/* Ids of metadata fields. */
#define FIELD_MINOR_VERSION 0x0800000100000003u
#define FIELD_MAJOR_VERSION 0x0800000100000004u
#define FIELD_UPDATE_VERSION 0x0800000100000005u

struct linux_host linux_host(tdx_sim *sim, uint32_t cpus, bool erratum)
{
    struct linux_host host;

    memset(&host, 0, sizeof host);
    host.sim = sim;
    host.cpus = cpus;
    host.erratum = erratum;
    host.module_ready = true;
    return host;
}

static int errno_of(uint64_t status)
{
    switch (status) {
    case 0:
        return 0;
    case VMFAIL_INVALID:
        return -ENODEV;
    case TRAP_GP:
        return -EOPNOTSUPP;
    case TRAP_UD:
        return -EACCES;
    default:
        return -EIO;
    }
}

/* Makes a SEAMCALL, and retries while the module lacks entropy. Returns 0, or a negative errno. */
static int call(struct linux_host *host, uint32_t cpu, tdx_sim_regs *regs)
{
    tdx_sim_regs in = *regs;
    uint64_t status = 0;

    for (int tries = 0; tries < NO_ENTROPY_TRIES; tries++) {
        *regs = in;
        status = seamcall(host->sim, cpu, regs);
        if (status != 0 && host->failed.status == 0) {
            host->failed.leaf = in.rax;
            host->failed.status = status;
            host->failed.rdx = in.rax == TDX_SIM_SEAMLDR_INSTALL ? regs->rdx : 0;
        }
        if (status != TDX_SIM_TDX_RND_NO_ENTROPY)
            break;
    }
    return errno_of(status);
}

static int read_field(struct linux_host *host, uint64_t field, uint64_t *value)
{
    tdx_sim_regs regs = {.rax = TDX_SIM_TDH_SYS_RD, .rdx = field};
    int result = call(host, 0, &regs);

    *value = regs.r8;
    return result;
}

/* Checks the file in the kernel's order. Each product has 32 bits. */
static bool file_is_good(const struct file *file)
{
    struct image_header header;
    uint64_t wanted;

    if (file->length < sizeof header)
        return false;
    memcpy(&header, file->bytes, sizeof header);
    wanted = sizeof header + (uint64_t)(uint32_t)(header.sigstruct_pages * PAGE) +
             (uint32_t)(header.module_pages * PAGE);
    if (wanted != file->length || header.version != IMAGE_V2)
        return false;
    if (header.sigstruct_pages > 1 || header.module_pages > TDX_SIM_MAX_MODULE_PAGES)
        return false;
    if (memcmp(header.signature, "TDX-BLOB", sizeof header.signature) != 0)
        return false;
    for (size_t i = 0; i < sizeof header.reserved; i++)
        if (header.reserved[i] != 0)
            return false;
    return true;
}

/* Shuts the module down with its highest handoff version. The kernel forgets all its facts. */
static int shut_down(struct linux_host *host)
{
    tdx_sim_regs regs = {.rax = TDX_SIM_TDH_SYS_SHUTDOWN};
    int result = read_field(host, TDX_SIM_FIELD_MODULE_HV, &regs.rcx);

    if (result == 0)
        result = call(host, 0, &regs);
    if (result != 0)
        return result;
    host->module_ready = false;
    host->sys_init_done = false;
    host->sys_init_result = 0;
    memset(host->lp_init_done, 0, sizeof host->lp_init_done);
    return 0;
}

static int install(struct linux_host *host, uint32_t cpu)
{
    tdx_sim_regs regs = {.rax = TDX_SIM_SEAMLDR_INSTALL, .rcx = PARAMS_PA};

    return host->erratum ? -EINVAL : call(host, cpu, &regs);
}

/* The first CPU initialises the module; all CPUs use the result. */
static int initialise(struct linux_host *host, uint32_t cpu)
{
    tdx_sim_regs regs = {.rax = TDX_SIM_TDH_SYS_INIT};
    int result;

    if (!host->sys_init_done) {
        host->sys_init_result = call(host, cpu, &regs);
        host->sys_init_done = true;
    }
    if (host->sys_init_result != 0 || host->lp_init_done[cpu])
        return host->sys_init_result;
    memset(&regs, 0, sizeof regs);
    regs.rax = TDX_SIM_TDH_SYS_LP_INIT;
    result = call(host, cpu, &regs);
    host->lp_init_done[cpu] = result == 0;
    return result;
}

static int take_over(struct linux_host *host)
{
    tdx_sim_regs regs = {.rax = TDX_SIM_TDH_SYS_UPDATE};
    uint64_t version;
    int result = call(host, 0, &regs);

    if (result != 0)
        return result;
    /* A version that cannot be read only gives a warning. */
    (void)(read_field(host, FIELD_MINOR_VERSION, &version) || read_field(host, FIELD_MAJOR_VERSION, &version) ||
           read_field(host, FIELD_UPDATE_VERSION, &version));
    host->module_ready = true;
    return 0;
}

enum stage { SHUTDOWN, CPU_INSTALL, CPU_INIT, RUN_UPDATE, DONE };

static int step(struct linux_host *host, uint32_t cpu, enum stage stage)
{
    switch (stage) {
    case SHUTDOWN:
        return cpu == 0 ? shut_down(host) : 0;
    case CPU_INSTALL:
        return install(host, cpu);
    case CPU_INIT:
        return initialise(host, cpu);
    case RUN_UPDATE:
        return cpu == 0 ? take_over(host) : 0;
    case DONE:
        break;
    }
    return 0;
}

/*
 * All CPUs are stopped and go through the stages together. No CPU begins a stage before all CPUs
 * have finished the previous one without a failure. Here the CPUs take turns. A CPU that has seen a
 * stage begin makes its step even if another CPU fails in this stage.
 */
static int stop_machine(struct linux_host *host)
{
    int result = 0;

    for (enum stage stage = SHUTDOWN; stage != DONE && result == 0; stage++)
        for (uint32_t cpu = 0; cpu < host->cpus; cpu++) {
            int failed = step(host, cpu, stage);

            if (failed != 0)
                result = failed;
        }
    return result;
}

int linux_install(struct linux_host *host, const struct file *file)
{
    static tdx_sim_seamldr_params params;
    int result;

    memset(&host->failed, 0, sizeof host->failed);
    if (!file_is_good(file))
        return -EINVAL;
    fill_params(&params, file, FILE_PA, TDX_SIM_SCENARIO_UPDATE);
    check(tdx_sim_map(host->sim, PARAMS_PA, &params, sizeof params), "the parameters");
    check(tdx_sim_map(host->sim, FILE_PA, file->bytes, file->length), "the file");
    result = stop_machine(host);
    check(tdx_sim_unmap(host->sim, PARAMS_PA), "the parameters");
    check(tdx_sim_unmap(host->sim, FILE_PA), "the file");
    return result;
}
