/*
 * The functions that each host needs to update a module: SEAMCALL, and an image in host memory.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef HOST_H
#define HOST_H

#include "tdx_sim.h"

enum { PAGE = TDX_SIM_PAGE_SIZE };

/* Linux's statuses for a SEAMCALL instruction that failed. */
#define VMFAIL_INVALID 0x8000ff00ffff0000u
#define TRAP_GP 0x8000ff000000000du
#define TRAP_UD 0x8000ff0000000006u

/* The first page of an image file for Linux 7.2. The SIGSTRUCT and the module follow. */
struct image_header {
    uint16_t version, checksum;
    char signature[8];
    uint32_t sigstruct_pages, module_pages;
    uint8_t reserved[4076];
};

/* A file in memory. */
struct file {
    uint8_t *bytes;
    size_t length;
};

/* Ends the program if a function of the library failed. */
void check(tdx_sim_status status, const char *what);

/* Executes SEAMCALL on an LP. Returns RAX, or Linux's status for a failed instruction. */
uint64_t seamcall(tdx_sim *sim, uint32_t lp, struct tdx_sim_regs *regs);

struct tdx_sim_truth truth_of(tdx_sim *sim);

/*
 * Makes SEAMLDR_PARAMS for a file at a physical address. If the file has no page for the SIGSTRUCT,
 * the SIGSTRUCT's address is 0.
 */
void fill_params(struct tdx_sim_seamldr_params *params, const struct file *file, uint64_t address, uint32_t scenario);

#endif
