/*
 * The rounds that can preserve the TDs after Linux has given up: SEAMLDR.INSTALL, TDH.SYS.INIT,
 * TDH.SYS.LP.INIT and TDH.SYS.UPDATE.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "run.h"

/* Physical addresses of the server's memory. */
static const uint64_t PARAMS_PA = 0x800000000, INFO_PA = 0x800001000, FILE_PA = 0x800100000;

static uint64_t call(tdx_sim *sim, uint32_t lp, uint64_t rax, uint64_t rcx)
{
    tdx_sim_regs regs = {.rax = rax, .rcx = rcx};

    return seamcall(sim, lp, &regs);
}

/* Calls SEAMLDR.INSTALL on all LPs until one completes the session; returns whether one did. */
static bool install(tdx_sim *sim, uint32_t lps, const struct file *file, uint32_t scenario)
{
    static tdx_sim_seamldr_params params;
    bool installed = false;

    fill_params(&params, file, FILE_PA, scenario);
    check(tdx_sim_map(sim, PARAMS_PA, &params, sizeof params), "the parameters");
    check(tdx_sim_map(sim, FILE_PA, file->bytes, file->length), "the file");
    for (uint32_t lp = 0; lp < lps && !installed; lp++)
        installed = call(sim, lp, TDX_SIM_SEAMLDR_INSTALL, PARAMS_PA) == 0 && truth_of(sim).seam_ready;
    check(tdx_sim_unmap(sim, PARAMS_PA), "the parameters");
    check(tdx_sim_unmap(sim, FILE_PA), "the file");
    return installed;
}

/* Makes the steps that are still missing in the initialisation of the installed module. */
static bool initialise(tdx_sim *sim, uint32_t lps)
{
    if (truth_of(sim).module_state == TDX_SIM_MODULE_STATE_SYS_INIT_PENDING && call(sim, 0, TDX_SIM_TDH_SYS_INIT, 0) != 0)
        return false;
    for (uint32_t lp = 0; lp < lps; lp++) {
        uint64_t status = call(sim, lp, TDX_SIM_TDH_SYS_LP_INIT, 0);

        if (status != 0 && status != TDX_SIM_TDX_SYS_LP_INIT_DONE)
            return false;
    }
    return true;
}

/* Makes the module restore the handoff data. */
static uint64_t take_over(tdx_sim *sim)
{
    return call(sim, 0, TDX_SIM_TDH_SYS_UPDATE, 0);
}

/* Makes P-SEAMLDR count the remaining updates again if it remembers 0. */
static void ask_for_info(tdx_sim *sim)
{
    static uint8_t info[PAGE];

    check(tdx_sim_map(sim, INFO_PA, info, sizeof info), "room for SEAMLDR_INFO");
    (void)call(sim, 0, TDX_SIM_SEAMLDR_INFO, INFO_PA);
    check(tdx_sim_unmap(sim, INFO_PA), "room for SEAMLDR_INFO");
}

enum recovery recover(tdx_sim *sim, uint32_t lps, const struct file *good)
{
    enum recovery result = NOTHING;

    for (int try = 0; try < 3 && result == NOTHING; try++) {
        if (try == 2)
            ask_for_info(sim);
        if (install(sim, lps, good, TDX_SIM_SCENARIO_UPDATE) && initialise(sim, lps) && take_over(sim) == 0)
            result = SAVED;
    }
    if (result == NOTHING && install(sim, lps, good, TDX_SIM_SCENARIO_LOAD) && initialise(sim, lps) &&
        take_over(sim) == TDX_SIM_TDX_SYS_INVALID_HANDOFF)
        result = MODULE_ONLY;
    return result;
}

enum recovery resume(tdx_sim *sim, uint32_t lps)
{
    return initialise(sim, lps) && take_over(sim) == 0 ? SAVED : NOTHING;
}

void server_hv0(tdx_sim *sim, uint32_t lps, const struct file *file)
{
    if (call(sim, 0, TDX_SIM_TDH_SYS_SHUTDOWN, 0) == 0 && install(sim, lps, file, TDX_SIM_SCENARIO_UPDATE) &&
        initialise(sim, lps))
        (void)take_over(sim);
}
