/* Updates the module of a simulated platform of four LPs, by the SEAMCALLs that a host makes, while a TD runs. */
#include "tdx_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LPS = 4, PAGES = 8, SYS_INIT = 33, SYS_LP_INIT = 35, SYS_SHUTDOWN = 52, SYS_UPDATE = 53 };
static const uint64_t INSTALL = 0x8000000000000001, HOST = 0x100000000;

/* SEAMEXTEND: a module of SVN 1.4 is there and ready, and so is P-SEAMLDR. */
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
#define SEAMEXTEND "ff010000000000000401" ZEROS ZEROS "010001"

static const char *const DESCRIPTION =
    "{\"platform\": {\"num_lps\": 4, \"lp_x2apic_ids\": [0, 2, 4, 6], \"num_sockets\": 1, \"socket_fms\": [\"0x806f8\"],"
    "  \"max_pa\": 46, \"keyid_bits\": 6, \"private_hkid_min\": \"0x20\", \"rdrand\": {\"ok\": true, \"value\": \"0x5a5a\"},"
    "  \"seamrr_base\": \"0x2000000000\", \"seamrr_size\": \"0x10000000\"},"
    " \"initial\": {\"seamextend\": \"" SEAMEXTEND "\", \"num_remaining_updates\": 60,"
    "  \"state\": \"SYS_READY\", \"lps_initialized\": [0, 1, 2, 3], \"module\": {"
    "  \"major\": 1, \"minor\": 5, \"update\": 1, \"internal\": 0, \"build_date\": 20230808, \"build_num\": 451,"
    "  \"built_module_hv\": 0, \"built_min_update_hv\": 0, \"built_no_downgrade\": 0, \"sysinfo\":"
    "  {\"module_hv\": 0, \"min_update_hv\": 0, \"no_downgrade\": 0, \"num_handoff_pages\": 13}}}}";

/* What the host gives to P-SEAMLDR: SEAMLDR_PARAMS, SIGSTRUCT and the pages of the image. */
static struct {
    struct {
        uint32_t version, scenario;
        uint64_t sigstruct;
        uint8_t reserved[104];
        uint64_t num_pages, pages[496];
    } params;
    uint8_t sigstruct[TDX_SIM_PAGE_SIZE], module[PAGES][TDX_SIM_PAGE_SIZE];
} host;

static void check(tdx_sim_status status, const char *what)
{
    if (status == TDX_SIM_STATUS_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, tdx_sim_status_name(status));
    exit(1);
}

static void call(tdx_sim *sim, uint32_t lp, uint64_t rax, uint64_t rcx, const char *name)
{
    tdx_sim_regs regs;
    tdx_sim_trap trap;

    memset(&regs, 0, sizeof regs);
    regs.rax = rax;
    regs.rcx = rcx;
    check(tdx_sim_seamcall(sim, lp, &regs, &trap), name);
    if (trap != TDX_SIM_TRAP_NONE || regs.rax != 0) {
        fprintf(stderr, "%s on LP %u: trap %u, RAX %#llx\n", name, (unsigned)lp, (unsigned)trap,
                (unsigned long long)regs.rax);
        exit(1);
    }
    printf("%s on LP %u\n", name, (unsigned)lp);
}

int main(void)
{
    char message[200];
    tdx_sim *sim;
    tdx_sim_image image;
    tdx_sim_truth truth;

    if (tdx_sim_create(DESCRIPTION, message, sizeof message, &sim) != TDX_SIM_STATUS_OK) {
        fprintf(stderr, "no platform: %s\n", message);
        return 1;
    }
    check(tdx_sim_create_td(sim, TDX_SIM_TD_PHASE_RUNNING), "TD");

    check(tdx_sim_image_defaults(&image), "image");
    image.pages = PAGES;
    image.svn_minor = 6;
    check(tdx_sim_test_image(&image, host.sigstruct, sizeof host.sigstruct, host.module, sizeof host.module), "image");
    host.params.scenario = 1; /* an update */
    host.params.sigstruct = HOST + sizeof host.params;
    host.params.num_pages = PAGES;
    for (uint64_t page = 0; page < PAGES; page++)
        host.params.pages[page] = HOST + sizeof host.params + (1 + page) * TDX_SIM_PAGE_SIZE;
    check(tdx_sim_map(sim, HOST, &host, sizeof host), "memory");

    call(sim, 0, SYS_SHUTDOWN, 0, "TDH.SYS.SHUTDOWN");
    for (uint32_t lp = 0; lp < LPS; lp++)
        call(sim, lp, INSTALL, HOST, "SEAMLDR.INSTALL");
    call(sim, 0, SYS_INIT, 0, "TDH.SYS.INIT");
    for (uint32_t lp = 0; lp < LPS; lp++)
        call(sim, lp, SYS_LP_INIT, 0, "TDH.SYS.LP.INIT");
    call(sim, 0, SYS_UPDATE, 0, "TDH.SYS.UPDATE");

    check(tdx_sim_get_truth(sim, &truth), "truth");
    printf("module %u.%u.%02u, %u of %u TDs alive\n", truth.version_major, truth.version_minor, truth.version_update,
           (unsigned)truth.tds_alive, (unsigned)truth.tds);
    check(tdx_sim_free(sim), "free");
    return truth.module_state == TDX_SIM_MODULE_STATE_READY && truth.tds_alive == 1 ? 0 : 1;
}
