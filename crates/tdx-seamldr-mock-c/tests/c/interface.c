/*
 * What only a program in C can do wrong: numbers that are no enumerator, structures that were not
 * set up, callbacks that call back.
 */
#include "tdx_sim.h"

#include <stdio.h>
#include <string.h>

static int failures;

#define EXPECT(condition)                                                     \
    do {                                                                      \
        if (!(condition)) {                                                   \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, tdx_sim_last_error()); \
            failures++;                                                       \
        }                                                                     \
    } while (0)

/* A compiler that knows the enumeration sees that none is left out. */
static const char *trap_name(tdx_sim_trap trap)
{
    switch (trap) {
    case TDX_SIM_TRAP_NONE:
        return "none";
    case TDX_SIM_TRAP_VMFAIL_INVALID:
        return "VMfailInvalid";
    case TDX_SIM_TRAP_GP:
        return "#GP";
    case TDX_SIM_TRAP_UD:
        return "#UD";
    }
    return "another number";
}

/* What callbacks see and are told. */
struct host {
    tdx_sim *sim;
    uint8_t page[TDX_SIM_PAGE_SIZE];
    tdx_sim_status told;
    unsigned reads, writes, calls;
    int result;
};

static const uint64_t HOST = 0x100000000;

static int host_read(void *context, uint64_t physical_address, void *buffer, size_t len)
{
    struct host *host = (struct host *)context;

    host->reads++;
    if (physical_address >= HOST && physical_address - HOST + len <= sizeof host->page)
        memcpy(buffer, host->page + (physical_address - HOST), len);
    return host->result;
}

static int host_write(void *context, uint64_t physical_address, const void *bytes, size_t len)
{
    struct host *host = (struct host *)context;

    host->writes++;
    host->told = tdx_sim_clear_faults(host->sim);
    if (physical_address >= HOST && physical_address - HOST + len <= sizeof host->page)
        memcpy(host->page + (physical_address - HOST), bytes, len);
    return host->result;
}

static void on_call(void *context, const tdx_sim_call *call)
{
    struct host *host = (struct host *)context;

    if (call->size >= sizeof *call && call->input.rax == TDX_SIM_SEAMLDR_INFO)
        host->calls++;
    host->told = tdx_sim_free(host->sim);
}

static tdx_sim_status info(tdx_sim *sim, uint64_t address, tdx_sim_regs *regs, tdx_sim_trap *trap)
{
    memset(regs, 0, sizeof *regs);
    regs->rax = TDX_SIM_SEAMLDR_INFO;
    regs->rcx = address;
    return tdx_sim_seamcall(sim, 0, regs, trap);
}

static void callbacks(tdx_sim *sim)
{
    static struct host host;
    tdx_sim_memory_callbacks functions;
    tdx_sim_seamldr_info *answer = (tdx_sim_seamldr_info *)(void *)host.page;
    tdx_sim_regs regs;
    tdx_sim_trap trap;

    host.sim = sim;
    memset(&functions, 0, sizeof functions);
    functions.context = &host;
    functions.read = host_read;
    functions.write = host_write;
    EXPECT(tdx_sim_set_memory_callbacks(sim, &functions) == TDX_SIM_STATUS_BAD_SIZE);
    functions.size = sizeof functions;
    EXPECT(tdx_sim_set_memory_callbacks(sim, &functions) == TDX_SIM_STATUS_OK);
    EXPECT(info(sim, HOST, &regs, &trap) == TDX_SIM_STATUS_OK && trap == TDX_SIM_TRAP_NONE);
    EXPECT(answer->vendor == 0x8086 && answer->num_remaining_updates == 64 && host.writes == 1);
    EXPECT(host.told == TDX_SIM_STATUS_REENTRANT);

    host.result = 1;
    EXPECT(info(sim, HOST, &regs, &trap) == TDX_SIM_STATUS_CALLBACK_FAILED && regs.rax == 0);
    host.result = 0;

    host.told = TDX_SIM_STATUS_OK;
    EXPECT(tdx_sim_set_trace_callback(sim, on_call, &host) == TDX_SIM_STATUS_OK);
    EXPECT(info(sim, 0, &regs, &trap) == TDX_SIM_STATUS_OK);
    EXPECT(host.calls == 1 && host.told == TDX_SIM_STATUS_REENTRANT);
    EXPECT(tdx_sim_set_trace_callback(sim, NULL, NULL) == TDX_SIM_STATUS_OK);
    EXPECT(tdx_sim_set_memory_callbacks(sim, NULL) == TDX_SIM_STATUS_OK);
}

static void enumerations(tdx_sim *sim)
{
    tdx_sim_fault fault;
    uint64_t id = 77;
    tdx_sim_regs regs;
    tdx_sim_trap trap;

    /* Numbers that no enumerator has, as an uninitialised variable or a cast has them. */
    EXPECT(tdx_sim_set_lp_trap(sim, 0, (tdx_sim_trap)0x7fffffff) == TDX_SIM_STATUS_BAD_ARGUMENT);
    EXPECT(tdx_sim_set_global_lock(sim, (tdx_sim_lock)3) == TDX_SIM_STATUS_BAD_ARGUMENT);
    EXPECT(tdx_sim_create_td(sim, (tdx_sim_td_phase)3, NULL) == TDX_SIM_STATUS_BAD_ARGUMENT);
    EXPECT(strcmp(tdx_sim_status_name((tdx_sim_status)1), "unknown status") == 0);
    memset(&fault, 0xff, sizeof fault);
    EXPECT(tdx_sim_add_fault(sim, &fault, &id) == TDX_SIM_STATUS_BAD_SIZE && id == 77);
    fault.size = sizeof fault;
    EXPECT(tdx_sim_add_fault(sim, &fault, &id) == TDX_SIM_STATUS_BAD_ARGUMENT && id == 77);

    memset(&fault, 0, sizeof fault);
    fault.size = sizeof fault;
    fault.lp = TDX_SIM_ANY_LP;
    fault.any_rax = true;
    fault.times = TDX_SIM_ALWAYS;
    fault.kind = TDX_SIM_FAULT_KIND_TRAP;
    fault.trap = TDX_SIM_TRAP_GP;
    EXPECT(tdx_sim_add_fault(sim, &fault, &id) == TDX_SIM_STATUS_OK);
    EXPECT(info(sim, 0, &regs, &trap) == TDX_SIM_STATUS_OK && strcmp(trap_name(trap), "#GP") == 0);
    EXPECT(tdx_sim_end_fault(sim, id) == TDX_SIM_STATUS_OK);
    EXPECT(info(sim, 0, &regs, &trap) == TDX_SIM_STATUS_OK && trap == TDX_SIM_TRAP_NONE);
}

/* The same program, compiled with an older and with a newer header than the library's. */
static void sizes(tdx_sim *sim)
{
    struct {
        tdx_sim_truth truth;
        uint64_t later[2];
    } newer;
    struct {
        tdx_sim_platform platform;
        uint64_t later;
    } description;
    tdx_sim *made;

    memset(&newer, 0xee, sizeof newer);
    newer.truth.size = sizeof newer;
    EXPECT(tdx_sim_get_truth(sim, &newer.truth) == TDX_SIM_STATUS_OK);
    EXPECT(newer.truth.size == sizeof newer && newer.truth.num_lps == 4);
    EXPECT(newer.later[0] == 0 && newer.later[1] == 0);
    newer.truth.size = sizeof(uint32_t);
    EXPECT(tdx_sim_get_truth(sim, &newer.truth) == TDX_SIM_STATUS_BAD_SIZE);

    memset(&description, 0, sizeof description);
    description.platform.size = sizeof description;
    EXPECT(tdx_sim_platform_defaults(&description.platform) == TDX_SIM_STATUS_OK);
    EXPECT(description.later == 0);
    EXPECT(tdx_sim_create(&description.platform, &made) == TDX_SIM_STATUS_OK);
    EXPECT(tdx_sim_free(made) == TDX_SIM_STATUS_OK);
    description.later = 1; /* what this library does not know */
    EXPECT(tdx_sim_create(&description.platform, &made) == TDX_SIM_STATUS_BAD_SIZE && made == NULL);
}

int main(void)
{
    tdx_sim_platform platform;
    tdx_sim *sim;

    EXPECT(sizeof(tdx_sim_seamldr_params) == 4096 && sizeof(tdx_sim_sigstruct) == 2048);
    EXPECT(sizeof(tdx_sim_seamldr_info) == 256 && sizeof(tdx_sim_seamextend) == 136);
    EXPECT(tdx_sim_version() == TDX_SIM_VERSION);
    EXPECT(strcmp(tdx_sim_last_error(), "") == 0);
    platform.size = sizeof platform;
    EXPECT(tdx_sim_platform_defaults(&platform) == TDX_SIM_STATUS_OK);
    EXPECT(tdx_sim_create(&platform, &sim) == TDX_SIM_STATUS_OK);
    callbacks(sim);
    enumerations(sim);
    sizes(sim);
    EXPECT(tdx_sim_free(sim) == TDX_SIM_STATUS_OK);
    EXPECT(tdx_sim_free(sim) == TDX_SIM_STATUS_BAD_HANDLE);
    printf("%d expectations were not met\n", failures);
    return failures != 0;
}
