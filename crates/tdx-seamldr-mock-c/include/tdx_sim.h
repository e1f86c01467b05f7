// A simulated Intel TDX platform, for tests of module updates.
//
// Made from the Rust sources by `cargo xtask c-header`; do not edit.
// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Every function may be called from any thread. Calls for the same platform are made one after the other. A handle is not the
// address of anything: a wrong one, or one that was freed, is refused. No function keeps a pointer that it was given, but
// tdx_sim_map() the memory that is mapped.

#ifndef TDX_SIM_H
#define TDX_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Bytes of a page.
 */
#define TDX_SIM_PAGE_SIZE 4096

/**
 * A fault is for every LP.
 */
#define TDX_SIM_ANY_LP 4294967295

/**
 * The longest that a delayed call waits for others, in milliseconds.
 */
#define TDX_SIM_DELAY_LIMIT_MS 1000

/**
 * What came of a call of this library: 0, or a negative number. Unless something else is said, nothing was done then, and
 * nothing was written.
 */
enum tdx_sim_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  TDX_SIM_STATUS_OK = 0,
  /**
   * A pointer is NULL.
   */
  TDX_SIM_STATUS_NULL = -1,
  /**
   * The description is not UTF-8.
   */
  TDX_SIM_STATUS_NOT_UTF8 = -2,
  /**
   * The description is not JSON of the right form, or there is no such platform.
   */
  TDX_SIM_STATUS_BAD_DESCRIPTION = -3,
  /**
   * The handle was never given out, or was freed.
   */
  TDX_SIM_STATUS_BAD_HANDLE = -4,
  /**
   * The platform has no such LP.
   */
  TDX_SIM_STATUS_UNKNOWN_LP = -5,
  /**
   * A pointer or a physical address is not a multiple of what it has to be.
   */
  TDX_SIM_STATUS_UNALIGNED = -6,
  /**
   * A length is 0, not a multiple of 4096, or goes beyond the end of addresses.
   */
  TDX_SIM_STATUS_BAD_LENGTH = -7,
  /**
   * Something else is mapped there.
   */
  TDX_SIM_STATUS_OVERLAP = -8,
  /**
   * Nothing is mapped that begins there.
   */
  TDX_SIM_STATUS_NOT_MAPPED = -9,
  /**
   * There is no room for another one.
   */
  TDX_SIM_STATUS_NO_ROOM = -10,
  /**
   * No module is ready.
   */
  TDX_SIM_STATUS_NOT_READY = -11,
  /**
   * There is no such fault.
   */
  TDX_SIM_STATUS_BAD_FAULT = -12,
  /**
   * A buffer is too small.
   */
  TDX_SIM_STATUS_BUFFER_TOO_SMALL = -13,
  /**
   * Another argument has no meaning.
   */
  TDX_SIM_STATUS_BAD_ARGUMENT = -14,
  /**
   * The library failed inside, now or in an earlier call for the same platform. The platform can only be freed.
   */
  TDX_SIM_STATUS_PANIC = -15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tdx_sim_status tdx_sim_status;
#else
typedef int32_t tdx_sim_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether the instruction itself failed.
 */
enum tdx_sim_trap
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It did not: firmware was entered and came back.
   */
  TDX_SIM_TRAP_NONE = 0,
  /**
   * The carry flag was set: nothing can be called, or another LP is inside P-SEAMLDR. Also if firmware hits a fatal error.
   */
  TDX_SIM_TRAP_VMFAIL_INVALID = 1,
  /**
   * #GP: TDX is not enabled on this LP.
   */
  TDX_SIM_TRAP_GP = 2,
  /**
   * #UD: this LP is not in VMX operation.
   */
  TDX_SIM_TRAP_UD = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tdx_sim_trap tdx_sim_trap;
#else
typedef uint32_t tdx_sim_trap;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How far a module has come.
 */
enum tdx_sim_module_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * There is no module.
   */
  TDX_SIM_MODULE_STATE_NONE = 0,
  /**
   * Just installed.
   */
  TDX_SIM_MODULE_STATE_SYS_INIT_PENDING = 1,
  /**
   * After TDH.SYS.INIT.
   */
  TDX_SIM_MODULE_STATE_SYS_INIT_DONE = 2,
  /**
   * After TDH.SYS.CONFIG.
   */
  TDX_SIM_MODULE_STATE_SYS_CONFIG_DONE = 3,
  /**
   * TDs can run.
   */
  TDX_SIM_MODULE_STATE_READY = 4,
  /**
   * After TDH.SYS.SHUTDOWN, for good.
   */
  TDX_SIM_MODULE_STATE_SHUTDOWN = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tdx_sim_module_state tdx_sim_module_state;
#else
typedef uint32_t tdx_sim_module_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How far a TD has come.
 */
enum tdx_sim_td_phase
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It runs.
   */
  TDX_SIM_TD_PHASE_RUNNING = 0,
  /**
   * Its measurement is under way: between TDH.MNG.INIT and TDH.MR.FINALIZE.
   */
  TDX_SIM_TD_PHASE_IN_BUILD = 1,
  /**
   * A step of its migration was interrupted.
   */
  TDX_SIM_TD_PHASE_INTERRUPTED_MIGRATION = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tdx_sim_td_phase tdx_sim_td_phase;
#else
typedef uint32_t tdx_sim_td_phase;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a call gets.
 */
enum tdx_sim_fault_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * A status in RAX, and RDX. Firmware does nothing.
   */
  TDX_SIM_FAULT_KIND_RETURN = 1,
  /**
   * The instruction fails. Firmware is not entered.
   */
  TDX_SIM_FAULT_KIND_TRAP = 2,
  /**
   * Firmware is entered, and answers only after so many other calls were made, by other threads; but after
   * TDX_SIM_DELAY_LIMIT_MS at the latest.
   */
  TDX_SIM_FAULT_KIND_DELAY = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tdx_sim_fault_kind tdx_sim_fault_kind;
#else
typedef uint32_t tdx_sim_fault_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A simulated platform, as C knows it. The pointer to it leads nowhere.
 */
typedef struct tdx_sim tdx_sim;

/**
 * The registers of SEAMCALL, in and out.
 */
typedef struct tdx_sim_regs {
  uint64_t rax;
  uint64_t rcx;
  uint64_t rdx;
  uint64_t rbx;
  uint64_t rsi;
  uint64_t rdi;
  uint64_t r8;
  uint64_t r9;
  uint64_t r10;
  uint64_t r11;
  uint64_t r12;
  uint64_t r13;
  uint64_t r14;
  uint64_t r15;
} tdx_sim_regs;

/**
 * How things stand on a platform.
 */
typedef struct tdx_sim_truth {
  /**
   * There is a module in the SEAM range.
   */
  bool module_present;
  /**
   * SEAMCALL reaches it.
   */
  bool module_callable;
  /**
   * SEAM_READY in SEAMEXTEND is 1.
   */
  bool seam_ready;
  /**
   * The handoff data is there for a module to take.
   */
  bool handoff_valid;
  /**
   * Firmware has hit a fatal error: nothing can be called until the next boot.
   */
  bool dead;
  /**
   * Major SVN in SEAMEXTEND.
   */
  uint8_t svn_major;
  /**
   * Minor SVN in SEAMEXTEND.
   */
  uint8_t svn_minor;
  /**
   * How far the module has come.
   */
  tdx_sim_module_state module_state;
  /**
   * Major version of the module, or 0.
   */
  uint16_t version_major;
  /**
   * Minor version of the module, or 0.
   */
  uint16_t version_minor;
  /**
   * Update version of the module, or 0.
   */
  uint16_t version_update;
  /**
   * Updates that remain, as P-SEAMLDR remembers.
   */
  uint32_t remaining_updates;
  /**
   * LPs in an INSTALL session that has not ended; 0 if none is open.
   */
  uint32_t lps_in_session;
  /**
   * TDs that were made.
   */
  uint32_t tds;
  /**
   * TDs that can run and find their memory as it was.
   */
  uint32_t tds_alive;
} tdx_sim_truth;

/**
 * Calls that go wrong.
 */
typedef struct tdx_sim_fault {
  /**
   * On which LP, or TDX_SIM_ANY_LP.
   */
  uint32_t lp;
  /**
   * 1: whatever RAX is. 0: with the RAX that follows.
   */
  uint32_t any_rax;
  /**
   * RAX at the call.
   */
  uint64_t rax;
  /**
   * How many such calls pass before.
   */
  uint32_t after;
  /**
   * How many such calls go wrong then; not 0.
   */
  uint32_t times;
  /**
   * What they get: a tdx_sim_fault_kind.
   */
  uint32_t kind;
  /**
   * With TDX_SIM_FAULT_KIND_TRAP: which, a tdx_sim_trap other than none.
   */
  uint32_t trap;
  /**
   * With TDX_SIM_FAULT_KIND_DELAY: how many calls; not 0.
   */
  uint32_t delay;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * With TDX_SIM_FAULT_KIND_RETURN: RAX.
   */
  uint64_t answer_rax;
  /**
   * With TDX_SIM_FAULT_KIND_RETURN: RDX.
   */
  uint64_t answer_rdx;
} tdx_sim_fault;

/**
 * A module's image that is to be made. tdx_sim_image_defaults() fills it in.
 */
typedef struct tdx_sim_image {
  /**
   * 4 KiB pages of the module, 3 to 496.
   */
  uint32_t pages;
  /**
   * YYYYMMDD, one hexadecimal digit each.
   */
  uint32_t date;
  /**
   * Highest handoff version.
   */
  uint16_t module_hv;
  /**
   * Lowest handoff version.
   */
  uint16_t min_update_hv;
  /**
   * Pages for handoff data, minus one.
   */
  uint16_t num_handoff_pages;
  /**
   * Major SVN. It decides about the version, as with released modules.
   */
  uint8_t svn_major;
  /**
   * Minor SVN. It decides about the version, as with released modules.
   */
  uint8_t svn_minor;
  /**
   * Not 0: writes the highest handoff version only.
   */
  uint8_t no_downgrade;
  /**
   * Not 0: a debug module.
   */
  uint8_t debug;
} tdx_sim_image;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status, for messages. It stays where it is. Never NULL: other numbers have the name "unknown status".
 */
const char *tdx_sim_status_name(int32_t status);

/**
 * Makes a platform of a description: a JSON object with `platform` and `initial`, in the form of the recordings of the crate
 * tdx-seamldr-mock. The files README.md below its folder `vectors` describe it. On success `*sim` is the platform's handle, to
 * be given to tdx_sim_free() in the end; otherwise it becomes NULL.
 *
 * `message` is room for `message_size` characters. It gets what is wrong with the description as text that ends with a NUL,
 * cut off if it is too long; or an empty text. It may be NULL if `message_size` is 0.
 *
 * Errors: NULL, UNALIGNED: `sim` is not set then; NOT_UTF8; BAD_DESCRIPTION; NO_ROOM: handles have come to an end.
 *
 * # Safety
 *
 * `description` leads to text with a NUL at its end, `message` to `message_size` bytes that may be written, `sim` to a
 * pointer that may be written.
 */
tdx_sim_status tdx_sim_create(const char *description,
                              char *message,
                              size_t message_size,
                              struct tdx_sim **sim);

/**
 * Makes a TD that has come so far (`phase`: a tdx_sim_td_phase). tdx_sim_get_truth() says how many TDs live.
 *
 * Errors: NULL; BAD_HANDLE; BAD_ARGUMENT: there is no such phase; NOT_READY: no module is ready; NO_ROOM: there is no room,
 * or no KeyID, for another TD.
 */
tdx_sim_status tdx_sim_create_td(struct tdx_sim *sim,
                                 uint32_t phase);

/**
 * Frees a platform. If it is inside a SEAMCALL, that one is waited for; one that is delayed ends with BAD_HANDLE. Then all
 * memory that was mapped belongs to the caller alone again.
 *
 * Errors: NULL; BAD_HANDLE: also if it was freed before.
 */
tdx_sim_status tdx_sim_free(struct tdx_sim *sim);

/**
 * Makes `len` bytes at `memory` the host's memory at `physical_address`, KeyID included: what firmware reads and writes
 * there, until tdx_sim_unmap() or tdx_sim_free(). What is not mapped reads as 0 and takes no writes. The same memory may be
 * mapped at several physical addresses.
 *
 * Errors: NULL; BAD_HANDLE; UNALIGNED: `physical_address` is not a multiple of 4096 (`memory` may have any alignment);
 * BAD_LENGTH: `len` is 0, not a multiple of 4096, or too much; OVERLAP: some of the physical addresses are mapped already.
 *
 * # Safety
 *
 * Until it is unmapped or the platform is freed, `memory` leads to `len` bytes that may be read and written. While
 * tdx_sim_seamcall() runs for this platform, no other thread accesses them, nor does firmware of another platform.
 */
tdx_sim_status tdx_sim_map(struct tdx_sim *sim,
                           uint64_t physical_address,
                           void *memory,
                           size_t len);

/**
 * Takes back what was mapped at `physical_address` by tdx_sim_map(), all of it. The memory then belongs to the caller alone.
 *
 * Errors: NULL; BAD_HANDLE; NOT_MAPPED: nothing is mapped that begins there.
 */
tdx_sim_status tdx_sim_unmap(struct tdx_sim *sim,
                             uint64_t physical_address);

/**
 * An LP executes SEAMCALL with these registers. `*trap` says whether the instruction itself failed (a tdx_sim_trap); if it did
 * not, `*regs` are what firmware returned, and otherwise they stay as they are. What firmware answers is in `regs->rax`, and is
 * no error of this function. Signatures are checked with RSA-3072 and SHA-384.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; UNKNOWN_LP.
 *
 * # Safety
 *
 * `regs` leads to registers, and `trap` to a tdx_sim_trap, that may be written. For the memory that is mapped see
 * tdx_sim_map().
 */
tdx_sim_status tdx_sim_seamcall(struct tdx_sim *sim,
                                uint32_t lp,
                                struct tdx_sim_regs *regs,
                                tdx_sim_trap *trap);

/**
 * Says how things stand.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE.
 *
 * # Safety
 *
 * `truth` leads to a tdx_sim_truth that may be written.
 */
tdx_sim_status tdx_sim_get_truth(struct tdx_sim *sim, struct tdx_sim_truth *truth);

/**
 * Plans a fault, in addition to those there are. The first that strikes a call decides about it.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; BAD_FAULT: a field has a value that it cannot have; UNKNOWN_LP; NO_ROOM: 32 faults are
 * planned already that have not done all that they were to do.
 *
 * # Safety
 *
 * `fault` leads to a tdx_sim_fault that may be read.
 */
tdx_sim_status tdx_sim_add_fault(struct tdx_sim *sim,
                                 const struct tdx_sim_fault *fault);

/**
 * Takes back all faults. Calls that are delayed already stay so.
 *
 * Errors: NULL; BAD_HANDLE.
 */
tdx_sim_status tdx_sim_clear_faults(struct tdx_sim *sim);

/**
 * Fills in an image of 8 pages, much like the released module 1.5.05 (SVN 1.5).
 *
 * Errors: NULL; UNALIGNED.
 *
 * # Safety
 *
 * `image` leads to a tdx_sim_image that may be written.
 */
tdx_sim_status tdx_sim_image_defaults(struct tdx_sim_image *image);

/**
 * Makes a module's image, in the parts that SEAMLDR.INSTALL reads: `sigstruct` gets one page with the SIGSTRUCT, signed with a
 * test key, and `module` gets `image->pages` pages. Platforms trust that key if their description has no `signer_key_sha384`.
 *
 * Errors: NULL; UNALIGNED; BAD_ARGUMENT: `image->pages` is not 3 to 496; BUFFER_TOO_SMALL: `sigstruct_size` is less than 4096,
 * or `module_size` less than 4096 for each page.
 *
 * # Safety
 *
 * `image` leads to a tdx_sim_image that may be read, `sigstruct` to `sigstruct_size` bytes and `module` to `module_size` bytes
 * that may be written. While this runs, no other thread accesses them.
 */
tdx_sim_status tdx_sim_test_image(const struct tdx_sim_image *image,
                                  void *sigstruct,
                                  size_t sigstruct_size,
                                  void *module,
                                  size_t module_size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TDX_SIM_H */
