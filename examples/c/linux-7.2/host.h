/*
 * What each host needs to update a module: SEAMCALL, and an image in the host's memory.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef HOST_H
#define HOST_H

#include "tdx_sim.h"

enum { PAGE = TDX_SIM_PAGE_SIZE };

/* The status words that Linux has for a SEAMCALL that failed itself. */
#define VMFAIL_INVALID 0x8000ff00ffff0000u
#define TRAP_GP 0x8000ff000000000du
#define TRAP_UD 0x8000ff0000000006u

/* The first page of a file that Linux 7.2 takes. The SIGSTRUCT and the module follow. */
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

/* Ends the program if the library did not do what it should. */
void check(tdx_sim_status status, const char *what);

/* An LP executes SEAMCALL. Returns RAX, or Linux's word for why the instruction failed. */
uint64_t seamcall(tdx_sim *sim, uint32_t lp, struct tdx_sim_regs *regs);

struct tdx_sim_truth truth_of(tdx_sim *sim);

/* SEAMLDR_PARAMS for a file that begins at a physical address. Without a page for the SIGSTRUCT its address stays 0. */
void fill_params(struct tdx_sim_seamldr_params *params, const struct file *file, uint64_t address, uint32_t scenario);

#endif
