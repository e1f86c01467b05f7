/* Updates the module of a simulated platform of 4 LPs with a host's SEAMCALLs, while a TD runs. */
#include "tdx_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LPS = 4, PAGES = 8 };
static const uint64_t HOST = 0x100000000;

/* The host's memory for P-SEAMLDR: SEAMLDR_PARAMS, SIGSTRUCT, and the pages of the image. */
static struct {
    tdx_sim_seamldr_params params;
    union {
        tdx_sim_sigstruct sigstruct;
        uint8_t page[TDX_SIM_PAGE_SIZE];
    } signature;
    uint8_t module[PAGES][TDX_SIM_PAGE_SIZE];
} host;

static void check(tdx_sim_status status, const char *what)
{
    if (status == TDX_SIM_STATUS_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, tdx_sim_status_name(status), tdx_sim_last_error());
    exit(1);
}

/* Creates a platform of LPS LPs that runs the default module, 1.5.05. */
static tdx_sim *boot(void)
{
    static uint8_t file[(2 + PAGES) * TDX_SIM_PAGE_SIZE];
    tdx_sim_platform platform;
    tdx_sim_image image;
    size_t len;
    tdx_sim *sim;

    platform.size = sizeof platform;
    check(tdx_sim_platform_defaults(&platform), "platform");
    platform.num_lps = LPS;
    check(tdx_sim_create(&platform, &sim), "platform");
    image.size = sizeof image;
    check(tdx_sim_image_defaults(&image), "image");
    check(tdx_sim_image_file(&image, TDX_SIM_IMAGE_FORMAT_V2, file, sizeof file, &len), "image");
    check(tdx_sim_boot(sim, file, len, TDX_SIM_MODULE_STATE_READY), "boot");
    return sim;
}

/* Fills the host's memory with the image of 1.5.06. */
static void load(void)
{
    tdx_sim_image image;

    image.size = sizeof image;
    check(tdx_sim_image_defaults(&image), "image");
    image.pages = PAGES;
    image.svn_minor = 6;
    check(tdx_sim_make_image(&image, &host.signature.sigstruct, host.module, sizeof host.module), "image");
    host.params.scenario = TDX_SIM_SCENARIO_UPDATE;
    host.params.sigstruct_pa = HOST + TDX_SIM_PAGE_SIZE;
    host.params.num_module_pages = PAGES;
    for (uint64_t page = 0; page < PAGES; page++)
        host.params.module_page_pa[page] = HOST + (2 + page) * TDX_SIM_PAGE_SIZE;
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
    tdx_sim *sim = boot();
    tdx_sim_truth truth;

    check(tdx_sim_create_td(sim, TDX_SIM_TD_PHASE_RUNNING, NULL), "TD");
    load();
    check(tdx_sim_map(sim, HOST, &host, sizeof host), "memory");

    call(sim, 0, TDX_SIM_TDH_SYS_SHUTDOWN, 0, "TDH.SYS.SHUTDOWN");
    for (uint32_t lp = 0; lp < LPS; lp++)
        call(sim, lp, TDX_SIM_SEAMLDR_INSTALL, HOST, "SEAMLDR.INSTALL");
    call(sim, 0, TDX_SIM_TDH_SYS_INIT, 0, "TDH.SYS.INIT");
    for (uint32_t lp = 0; lp < LPS; lp++)
        call(sim, lp, TDX_SIM_TDH_SYS_LP_INIT, 0, "TDH.SYS.LP.INIT");
    call(sim, 0, TDX_SIM_TDH_SYS_UPDATE, 0, "TDH.SYS.UPDATE");

    truth.size = sizeof truth;
    check(tdx_sim_get_truth(sim, &truth), "truth");
    printf("module %u.%u.%02u, %u of %u TDs alive\n", truth.version_major, truth.version_minor, truth.version_update,
           (unsigned)truth.tds_alive, (unsigned)truth.tds);
    check(tdx_sim_free(sim), "free");
    return truth.module_state == TDX_SIM_MODULE_STATE_READY && truth.tds_alive == 1 ? 0 : 1;
}
