/*
 * The functions that each host needs to update a module.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct image_header) == PAGE, "the header is a page");

void check(tdx_sim_status status, const char *what)
{
    if (status != TDX_SIM_STATUS_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, tdx_sim_status_name(status), tdx_sim_last_error());
        exit(EXIT_FAILURE);
    }
}

uint64_t seamcall(tdx_sim *sim, uint32_t lp, struct tdx_sim_regs *regs)
{
    tdx_sim_trap trap;

    check(tdx_sim_seamcall(sim, lp, regs, &trap), "SEAMCALL");
    switch (trap) {
    case TDX_SIM_TRAP_NONE:
        return regs->rax;
    case TDX_SIM_TRAP_GP:
        return TRAP_GP;
    case TDX_SIM_TRAP_UD:
        return TRAP_UD;
    default:
        return VMFAIL_INVALID;
    }
}

struct tdx_sim_truth truth_of(tdx_sim *sim)
{
    struct tdx_sim_truth truth;

    truth.size = sizeof truth;
    check(tdx_sim_get_truth(sim, &truth), "truth");
    return truth;
}

void fill_params(struct tdx_sim_seamldr_params *params, const struct file *file, uint64_t address, uint32_t scenario)
{
    struct image_header header;
    uint64_t page = address + PAGE;

    memcpy(&header, file->bytes, sizeof header);
    memset(params, 0, sizeof *params);
    params->scenario = scenario;
    if (header.sigstruct_pages != 0) {
        params->sigstruct_pa = page;
        page += PAGE;
    }
    params->num_module_pages = header.module_pages;
    for (uint32_t i = 0; i < header.module_pages; i++)
        params->module_page_pa[i] = page + (uint64_t)i * PAGE;
}
