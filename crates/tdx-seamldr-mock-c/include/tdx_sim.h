// A simulated Intel TDX platform, for tests of module updates.
//
// Made from the Rust sources by `cargo xtask c-header`; do not edit.
// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Platforms: tdx_sim_create() makes one from a structure with defaults, tdx_sim_create_from_json() from a description. It has LPs
// with the numbers 0, 1, 2 and so on, a P-SEAMLDR, and no module until tdx_sim_boot() or SEAMLDR.INSTALL brings one. Code under test
// calls tdx_sim_seamcall() where it would execute SEAMCALL. tdx_sim_get_truth() says how things stand, whatever that code believes.
//
// Threads: every function may be called from any thread. Calls for the same platform are made one after the other. From a callback,
// functions that take a platform return TDX_SIM_STATUS_REENTRANT.
//
// Handles: a handle is not the address of anything. A wrong one, or one that was freed, is refused. No function keeps a pointer that it
// was given; but tdx_sim_map() keeps the memory that is mapped, and callbacks are kept with their context.
//
// Errors: functions return a tdx_sim_status. After an error nothing was done and nothing was written, unless the function says
// otherwise. tdx_sim_last_error() says what was found and what was expected. "Errors: NULL" in the description of a function stands
// for TDX_SIM_STATUS_NULL.
//
// Structures that begin with `size` may grow in later versions. Set `size` to sizeof of the structure before each call, also before
// the functions that fill in defaults. A program that was compiled with an older header goes on to work: what it does not know is taken
// as 0, and is not written. With a library that is older than the header, fields that the library does not know have to be 0.
//
// Enumerations have 32 bits. A number that is none of them is refused with TDX_SIM_STATUS_BAD_ARGUMENT.

#ifndef TDX_SIM_H
#define TDX_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Version of this header: major << 16 | minor << 8 | patch. It is a version in the sense of
 * semver.org.
 */
#define TDX_SIM_VERSION 256

/**
 * SEAMLDR.INFO: describe P-SEAMLDR and the module. RCX: a tdx_sim_seamldr_info, aligned to 256
 * bytes.
 */
#define TDX_SIM_SEAMLDR_INFO UINT64_C(0x8000000000000000)

/**
 * SEAMLDR.INSTALL: take part in installing a module; each LP calls once. RCX: a
 * tdx_sim_seamldr_params, aligned to 4096 bytes. RDX becomes 0, or 1 for a failure that destroys
 * the module.
 */
#define TDX_SIM_SEAMLDR_INSTALL UINT64_C(0x8000000000000001)

/**
 * SEAMLDR.SHUTDOWN: take part in ending P-SEAMLDR.
 */
#define TDX_SIM_SEAMLDR_SHUTDOWN UINT64_C(0x8000000000000002)

/**
 * SEAMLDR.SEAMINFO: copy the platform's table of 2048 bytes to the address in RCX.
 */
#define TDX_SIM_SEAMLDR_SEAMINFO UINT64_C(0x8000000000000003)

/**
 * SEAMLDR.CLEANUP: take part in wiping keys and caches. Only the generation after 1.5.00 has it.
 */
#define TDX_SIM_SEAMLDR_CLEANUP UINT64_C(0x8000000000000004)

/**
 * TDH.SYS.KEY.CONFIG: set up the module's key on one package.
 */
#define TDX_SIM_TDH_SYS_KEY_CONFIG 31

/**
 * TDH.SYS.INFO: read the module's description in its older form.
 */
#define TDX_SIM_TDH_SYS_INFO 32

/**
 * TDH.SYS.INIT: initialise the module, once.
 */
#define TDX_SIM_TDH_SYS_INIT 33

/**
 * TDH.SYS.RD: read one metadata field. RDX: the field's id; the value comes in R8.
 */
#define TDX_SIM_TDH_SYS_RD 34

/**
 * TDH.SYS.LP.INIT: initialise the module on the calling LP.
 */
#define TDX_SIM_TDH_SYS_LP_INIT 35

/**
 * TDH.SYS.TDMR.INIT: initialise the next part of a TDMR.
 */
#define TDX_SIM_TDH_SYS_TDMR_INIT 36

/**
 * TDH.SYS.RDALL: read all metadata fields.
 */
#define TDX_SIM_TDH_SYS_RDALL 37

/**
 * TDH.SYS.LP.SHUTDOWN: does nothing.
 */
#define TDX_SIM_TDH_SYS_LP_SHUTDOWN 44

/**
 * TDH.SYS.CONFIG: configure the module with TDMRs and a KeyID.
 */
#define TDX_SIM_TDH_SYS_CONFIG 45

/**
 * TDH.SYS.SHUTDOWN: stop the module for good and write handoff data. RCX: the version of the
 * handoff data.
 */
#define TDX_SIM_TDH_SYS_SHUTDOWN 52

/**
 * TDH.SYS.UPDATE: take over the handoff data of the module that ran before.
 */
#define TDX_SIM_TDH_SYS_UPDATE 53

/**
 * Field id of the highest handoff version of a module, for TDH.SYS.RD.
 */
#define TDX_SIM_FIELD_MODULE_HV UINT64_C(0x8900000100000000)

/**
 * Field id of TDX_FEATURES0, for TDH.SYS.RD.
 */
#define TDX_SIM_FIELD_TDX_FEATURES0 UINT64_C(0x0a00000300000008)

/**
 * P-SEAMLDR: a parameter is wrong, the leaf is unknown, or the image cannot be relocated.
 */
#define TDX_SIM_SEAMLDR_EBADPARAM UINT64_C(0x8000000000000000)

/**
 * P-SEAMLDR: the call comes at the wrong time, no updates are left, or the major SVN differs.
 */
#define TDX_SIM_SEAMLDR_EBADCALL UINT64_C(0x8000000000000003)

/**
 * P-SEAMLDR: the handoff data is missing, too large, or of a version that the new module does not
 * take.
 */
#define TDX_SIM_SEAMLDR_EBADHANDOFF UINT64_C(0x8000000000000004)

/**
 * P-SEAMLDR: keys or caches are dirty, SEAMLDR.CLEANUP has to come first.
 */
#define TDX_SIM_SEAMLDR_ECLEANUPREQ UINT64_C(0x8000000000000005)

/**
 * P-SEAMLDR: the major SVN of the image is 0, or not that of the module that runs.
 */
#define TDX_SIM_SEAMLDR_EUNSUPPORTED UINT64_C(0x8000000000000006)

/**
 * P-SEAMLDR: the module does not fit into the SEAM range.
 */
#define TDX_SIM_SEAMLDR_ENOMEM UINT64_C(0x8000000000010002)

/**
 * P-SEAMLDR: the x2APIC id is out of range, or there was no random number to start with.
 */
#define TDX_SIM_SEAMLDR_EUNSPECERR UINT64_C(0x8000000000010003)

/**
 * P-SEAMLDR: a processor is not in the image's list of CPUs.
 */
#define TDX_SIM_SEAMLDR_EUNSUPCPU UINT64_C(0x8000000000010004)

/**
 * P-SEAMLDR: a field of the SIGSTRUCT, the signer, the SVN or the signature is not acceptable.
 */
#define TDX_SIM_SEAMLDR_EBADSIG UINT64_C(0x8000000000020000)

/**
 * P-SEAMLDR: the image has not the hash that was signed.
 */
#define TDX_SIM_SEAMLDR_EBADHASH UINT64_C(0x8000000000020001)

/**
 * P-SEAMLDR: an interrupt is pending, call again.
 */
#define TDX_SIM_SEAMLDR_EINTERRUPT UINT64_C(0x8000000000030000)

/**
 * P-SEAMLDR: there was no random number.
 */
#define TDX_SIM_SEAMLDR_ENOENTROPY UINT64_C(0x8000000000030001)

/**
 * Module: an operand is not acceptable. The low 32 bits name it.
 */
#define TDX_SIM_TDX_OPERAND_INVALID UINT64_C(0xc000010000000000)

/**
 * Module: another LP is inside the module, or holds its global lock.
 */
#define TDX_SIM_TDX_SYS_BUSY UINT64_C(0x8000020200000000)

/**
 * Module: there was no random number.
 */
#define TDX_SIM_TDX_RND_NO_ENTROPY UINT64_C(0x8000020300000000)

/**
 * Module: the module is initialised already.
 */
#define TDX_SIM_TDX_SYS_INIT_NOT_PENDING UINT64_C(0xc000050000000000)

/**
 * Module: this LP is not initialised.
 */
#define TDX_SIM_TDX_SYS_LP_INIT_NOT_DONE UINT64_C(0xc000050200000000)

/**
 * Module: this LP is initialised already.
 */
#define TDX_SIM_TDX_SYS_LP_INIT_DONE UINT64_C(0xc000050300000000)

/**
 * Module: the module is not ready for this call.
 */
#define TDX_SIM_TDX_SYS_NOT_READY UINT64_C(0xc000050500000000)

/**
 * Module: the module was shut down.
 */
#define TDX_SIM_TDX_SYS_SHUTDOWN UINT64_C(0xc000050600000000)

/**
 * Module: the module is in another state, or an LP is not initialised.
 */
#define TDX_SIM_TDX_SYS_STATE_INCORRECT UINT64_C(0xc000050800000000)

/**
 * Module: there is no handoff data, or not of a version that the module takes.
 */
#define TDX_SIM_TDX_SYS_INVALID_HANDOFF UINT64_C(0xc000050900000000)

/**
 * Module: the handoff versions or pages in the SIGSTRUCT are not those that the module was built
 * for.
 */
#define TDX_SIM_TDX_SYS_INCOMPATIBLE_SIGSTRUCT UINT64_C(0xc000050a00000000)

/**
 * Module: the module does not wait for LPs.
 */
#define TDX_SIM_TDX_SYS_LP_INIT_NOT_PENDING UINT64_C(0xc000050b00000000)

/**
 * Module: SEAMOPS capabilities are not enough, or differ between LPs.
 */
#define TDX_SIM_TDX_INCOMPATIBLE_SEAM_CAPABILITIES UINT64_C(0xc000050d00000000)

/**
 * Module: TDs are in build, or a migration is interrupted. Bits 15:0: why; bits 31:16: how many.
 */
#define TDX_SIM_TDX_UPDATE_COMPATIBILITY_SENSITIVE UINT64_C(0x8000051200000000)

/**
 * Module: an MSR differs between LPs. The low 32 bits are its number.
 */
#define TDX_SIM_TDX_INCONSISTENT_MSR UINT64_C(0xc000092000000000)

/**
 * SEAMLDR.INSTALL: start without TDs.
 */
#define TDX_SIM_SCENARIO_LOAD 0

/**
 * SEAMLDR.INSTALL: keep the handoff data of the module that was shut down.
 */
#define TDX_SIM_SCENARIO_UPDATE 1

/**
 * The most pages of a module.
 */
#define TDX_SIM_MAX_MODULE_PAGES 496

/**
 * The most CPUs in the list of a SIGSTRUCT.
 */
#define TDX_SIM_MAX_CPUS 255

/**
 * Bytes of the area for handoff data, with its header.
 */
#define TDX_SIM_HANDOFF_SIZE 131072

/**
 * Bytes of a page.
 */
#define TDX_SIM_PAGE_SIZE 4096

/**
 * The most calls that a platform keeps.
 */
#define TDX_SIM_TRACE_LIMIT 1000000

/**
 * A fault is for every LP; no LP.
 */
#define TDX_SIM_ANY_LP UINT32_C(0xffffffff)

/**
 * A fault that strikes as good as always: 4,294,967,295 times.
 */
#define TDX_SIM_ALWAYS UINT32_C(0xffffffff)

/**
 * The most faults that can be planned at the same time.
 */
#define TDX_SIM_MAX_FAULTS 32

/**
 * The longest that a delayed call waits for others, in milliseconds.
 */
#define TDX_SIM_DELAY_LIMIT_MS 1000

/**
 * What came of a call of this library: 0, or a negative number. After an error nothing was done
 * and nothing was written, unless the function says otherwise. tdx_sim_last_error() has the
 * details.
 */
typedef enum tdx_sim_status {
  /**
   * Done.
   */
  TDX_SIM_STATUS_OK = 0,
  /**
   * A pointer is NULL.
   */
  TDX_SIM_STATUS_NULL = -1,
  /**
   * A pointer or a physical address is not a multiple of what it has to be.
   */
  TDX_SIM_STATUS_UNALIGNED = -2,
  /**
   * The field `size` of a structure is not what the library knows. Set it to `sizeof` of the
   * structure.
   */
  TDX_SIM_STATUS_BAD_SIZE = -3,
  /**
   * An argument or a field has a value that it cannot have.
   */
  TDX_SIM_STATUS_BAD_ARGUMENT = -4,
  /**
   * The handle was never given out, or was freed.
   */
  TDX_SIM_STATUS_BAD_HANDLE = -5,
  /**
   * The function was called from a callback.
   */
  TDX_SIM_STATUS_REENTRANT = -6,
  /**
   * The description is not UTF-8.
   */
  TDX_SIM_STATUS_NOT_UTF8 = -7,
  /**
   * The description is not JSON of the right form.
   */
  TDX_SIM_STATUS_BAD_DESCRIPTION = -8,
  /**
   * The arguments are possible one by one, but not together: there is no such platform.
   */
  TDX_SIM_STATUS_CONTRADICTION = -9,
  /**
   * The platform has no such LP.
   */
  TDX_SIM_STATUS_UNKNOWN_LP = -10,
  /**
   * Another thread makes a SEAMCALL on this LP, which has not ended.
   */
  TDX_SIM_STATUS_LP_BUSY = -11,
  /**
   * No such TD was made.
   */
  TDX_SIM_STATUS_UNKNOWN_TD = -12,
  /**
   * No such fault was planned.
   */
  TDX_SIM_STATUS_UNKNOWN_FAULT = -13,
  /**
   * A length is 0, not a multiple of 4096, or goes beyond the end of addresses.
   */
  TDX_SIM_STATUS_BAD_LENGTH = -14,
  /**
   * Something else is mapped there.
   */
  TDX_SIM_STATUS_OVERLAP = -15,
  /**
   * Nothing is mapped that begins there.
   */
  TDX_SIM_STATUS_NOT_MAPPED = -16,
  /**
   * There is no room for another one.
   */
  TDX_SIM_STATUS_NO_ROOM = -17,
  /**
   * A buffer is too small.
   */
  TDX_SIM_STATUS_BUFFER_TOO_SMALL = -18,
  /**
   * There is no module.
   */
  TDX_SIM_STATUS_NO_MODULE = -19,
  /**
   * No module is ready.
   */
  TDX_SIM_STATUS_NOT_READY = -20,
  /**
   * The TD is not in the phase that this is for.
   */
  TDX_SIM_STATUS_BAD_PHASE = -21,
  /**
   * No module is ready that knows the TD: it is lost, or the module is not ready yet.
   */
  TDX_SIM_STATUS_TD_GONE = -22,
  /**
   * The module found that an update left the TD a measurement or a MAC that it cannot go on
   * with.
   */
  TDX_SIM_STATUS_TD_INCOMPATIBLE = -23,
  /**
   * Firmware refused a call that the library made.
   */
  TDX_SIM_STATUS_REFUSED = -24,
  /**
   * A file is no image of a TDX module.
   */
  TDX_SIM_STATUS_BAD_IMAGE = -25,
  /**
   * A callback returned something other than 0.
   */
  TDX_SIM_STATUS_CALLBACK_FAILED = -26,
  /**
   * No call is left in the trace.
   */
  TDX_SIM_STATUS_NO_CALL = -27,
  /**
   * The library failed inside, now or in an earlier call for the same platform. The platform
   * can only be freed.
   */
  TDX_SIM_STATUS_INTERNAL = -28,
} tdx_sim_status;

/**
 * Whether the instruction itself failed.
 */
typedef enum tdx_sim_trap {
  /**
   * It did not: firmware was entered and came back.
   */
  TDX_SIM_TRAP_NONE = 0,
  /**
   * The carry flag was set: no firmware can be called, or another LP is inside P-SEAMLDR. Also
   * if firmware hits a fatal error.
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
} tdx_sim_trap;

/**
 * Which register CPUID writes.
 */
typedef enum tdx_sim_cpuid_output {
  TDX_SIM_CPUID_OUTPUT_EAX = 0,
  TDX_SIM_CPUID_OUTPUT_EBX = 1,
  TDX_SIM_CPUID_OUTPUT_ECX = 2,
  TDX_SIM_CPUID_OUTPUT_EDX = 3,
} tdx_sim_cpuid_output;

/**
 * From which public release on a module behaves as it does, where they differ. 2.0 modules behave
 * as the 1.5 module of the same time.
 */
typedef enum tdx_sim_module_generation {
  /**
   * 1.5.01, whose behaviour was recorded.
   */
  TDX_SIM_MODULE_GENERATION_V1501 = 0,
  /**
   * 1.5.05 and 2.0.02: TDH.SYS.RD knows the field that Linux 7.2 needs, too.
   */
  TDX_SIM_MODULE_GENERATION_V1505 = 1,
  /**
   * 1.5.28 and 2.0.16: TDH.SYS.UPDATE does not look at the size of the handoff data.
   */
  TDX_SIM_MODULE_GENERATION_V1528 = 2,
  /**
   * 1.5.34 and 2.0.18: TDH.SYS.UPDATE looks at its operands first, and TDH.SYS.INIT has a
   * version 1.
   */
  TDX_SIM_MODULE_GENERATION_V1534 = 3,
} tdx_sim_module_generation;

/**
 * What a call gets.
 */
typedef enum tdx_sim_fault_kind {
  /**
   * A status in RAX, and RDX. Firmware is not asked and does nothing. One exception:
   * SEAMLDR.INSTALL with an RDX that is not 0 says that the module is destroyed, so the
   * module is destroyed, and all TDs with it.
   */
  TDX_SIM_FAULT_KIND_RETURN = 1,
  /**
   * The instruction fails. Firmware is not entered.
   */
  TDX_SIM_FAULT_KIND_TRAP = 2,
  /**
   * Firmware is entered, and answers only after `delay` other calls were made, by other
   * threads; but after TDX_SIM_DELAY_LIMIT_MS at the latest. The other calls find the LP
   * inside firmware.
   */
  TDX_SIM_FAULT_KIND_DELAY = 3,
} tdx_sim_fault_kind;

/**
 * How a module writes its handoff data.
 */
typedef enum tdx_sim_handoff_form {
  /**
   * As 1.5.01 does, whatever the version.
   */
  TDX_SIM_HANDOFF_FORM_PLAIN = 0,
  /**
   * As the 2.0 modules do: with data of TDX Connect in version 0.
   */
  TDX_SIM_HANDOFF_FORM_CONNECT = 1,
  /**
   * Version 1 has what is counted for UPDATE_COMPATIBILITY.
   */
  TDX_SIM_HANDOFF_FORM_COUNTING = 2,
  /**
   * As the newest modules do: the size is that of whole pages.
   */
  TDX_SIM_HANDOFF_FORM_ROUNDED = 3,
} tdx_sim_handoff_form;

/**
 * The form of a file with an image.
 */
typedef enum tdx_sim_image_format {
  /**
   * The form of Intel's releases (version 0x100).
   */
  TDX_SIM_IMAGE_FORMAT_V1 = 1,
  /**
   * The form that Linux 7.2 takes (version 0x200).
   */
  TDX_SIM_IMAGE_FORMAT_V2 = 2,
} tdx_sim_image_format;

/**
 * The module's global lock, as another LP holds it.
 */
typedef enum tdx_sim_lock {
  /**
   * No LP holds it.
   */
  TDX_SIM_LOCK_FREE = 0,
  /**
   * Held together with others.
   */
  TDX_SIM_LOCK_SHARED = 1,
  /**
   * Held alone.
   */
  TDX_SIM_LOCK_EXCLUSIVE = 2,
} tdx_sim_lock;

/**
 * How far a module has come.
 */
typedef enum tdx_sim_module_state {
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
} tdx_sim_module_state;

/**
 * A generation of P-SEAMLDR.
 */
typedef enum tdx_sim_generation {
  /**
   * 1.5.00, for processors that run 1.5 modules.
   */
  TDX_SIM_GENERATION_V15 = 0,
  /**
   * 1.0, which cannot keep TDs.
   */
  TDX_SIM_GENERATION_V10 = 1,
  /**
   * The generation after 1.5.00, with SEAMLDR.CLEANUP.
   */
  TDX_SIM_GENERATION_NEWER = 2,
  /**
   * 2.0.00, for processors that run 2.0 modules.
   */
  TDX_SIM_GENERATION_V20 = 3,
} tdx_sim_generation;

/**
 * How far a TD has come.
 */
typedef enum tdx_sim_td_phase {
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
} tdx_sim_td_phase;

/**
 * A simulated platform, as C knows it. The pointer to it leads nowhere.
 */
typedef struct tdx_sim tdx_sim;

/**
 * A region of convertible memory.
 */
typedef struct tdx_sim_cmr {
  /**
   * Physical address.
   */
  uint64_t base;
  /**
   * Bytes.
   */
  uint64_t bytes;
} tdx_sim_cmr;

/**
 * What a platform is made of. tdx_sim_platform_defaults() fills it in.
 */
typedef struct tdx_sim_platform {
  /**
   * sizeof(tdx_sim_platform), set by the caller.
   */
  uint32_t size;
  /**
   * LPs that firmware counts: P-SEAMLDR and the module wait for all of them. 1 to 1024; by
   * default 4. The LPs have the numbers 0 to `num_lps` - 1.
   */
  uint32_t num_lps;
  /**
   * Sockets, 1 to 8; by default 1.
   */
  uint32_t num_sockets;
  /**
   * The generation of P-SEAMLDR; by default 1.5.00.
   */
  enum tdx_sim_generation generation;
  /**
   * CPUID.1:EAX of each socket; by default 0x806f8.
   */
  uint32_t socket_fms[8];
  /**
   * The x2APIC id of each LP, or NULL: evenly over the sockets. Only read while the platform is
   * made.
   */
  const uint32_t *x2apic_ids;
  /**
   * How many x2APIC ids there are; 0 if `x2apic_ids` is NULL. More than `num_lps`: the platform
   * has LPs that firmware does not count.
   */
  uint32_t num_x2apic_ids;
  /**
   * The x2APIC id of the LP on which SEAMLDR.SHUTDOWN has to end; by default that of LP 0, if
   * this is 0xffffffff.
   */
  uint32_t acm_x2apicid;
  /**
   * Bits of physical addresses, KeyID bits included; at most 52, by default 46.
   */
  uint32_t max_pa;
  /**
   * KeyID bits, at the top of physical addresses; by default 6.
   */
  uint32_t keyid_bits;
  /**
   * The first KeyID that only TDs may use; by default 0x20.
   */
  uint64_t private_hkid_min;
  /**
   * Where the SEAM range begins: a multiple of its size.
   */
  uint64_t seamrr_base;
  /**
   * Bytes of the SEAM range: a power of two; by default 256 MiB.
   */
  uint64_t seamrr_size;
  /**
   * Bytes of P-SEAMLDR's own range, at the end of it; by default 4 MiB.
   */
  uint64_t p_seamldr_size;
  /**
   * LPs that can share a socket's last-level cache, by CPUID leaf 4; 0: as many as there are
   * slots for LPs. How much memory a module needs depends on it.
   */
  uint32_t addressable_lps_per_socket;
  /**
   * Low bits of x2APIC ids that number the LPs of a package; 0xffffffff: as few as leave
   * `num_sockets` packages.
   */
  uint32_t package_shift;
  /**
   * SHA-384 of the modulus of the key that P-SEAMLDR trusts; by default that of the test key,
   * which tdx_sim_sign() uses.
   */
  uint8_t signer[48];
  /**
   * What RDRAND gives.
   */
  uint64_t rdrand_value;
  /**
   * SEAMOPS capabilities of each LP; by default 0x7f.
   */
  uint64_t seamops_capabilities;
  /**
   * Entries that the SEAM database has room for; by default 64.
   */
  uint32_t seamdb_size;
  /**
   * Entries in use; by default 0.
   */
  uint32_t seamdb_used;
  /**
   * Regions of convertible memory, at most 32, or NULL: from 1 MiB to 2 GiB, and from 4 GiB on
   * without the SEAM range. Only read while the platform is made.
   */
  const struct tdx_sim_cmr *cmrs;
  /**
   * How many regions there are; 0 if `cmrs` is NULL.
   */
  uint32_t num_cmrs;
  /**
   * RDRAND gives numbers; by default true.
   */
  bool rdrand_ok;
  /**
   * Debug modules may be installed (bit 1 of MSR 0x503); by default false.
   */
  bool debug_unlocked;
  /**
   * The processor has the erratum of IA32_VMX_BASIC bit 60: when P-SEAMLDR returns, the LP has
   * no current VMCS; by default false.
   */
  bool seamret_clears_vmcs;
  /**
   * A full SEAM database answers with an error that P-SEAMLDR is not prepared for, so that
   * SEAMLDR.INSTALL is fatal. The specifications leave it open; by default false: the
   * answer is want of entropy.
   */
  bool full_seamdb_is_fatal;
  /**
   * A signature that is not below the modulus is reduced first, as one crypto library does; by
   * default false: it is bad.
   */
  bool accepts_large_signatures;
  /**
   * The platform does not support SMRR2; by default false.
   */
  bool smrr2_not_supported;
  /**
   * TDX works without integrity; by default false.
   */
  bool tdx_without_integrity;
  /**
   * P-SEAMLDR reports itself as a debug build; by default false.
   */
  bool seamldr_debug;
  /**
   * 0.
   */
  uint32_t reserved;
} tdx_sim_platform;

/**
 * Reads `len` bytes of the host's memory at `physical_address`, KeyID included, into `buffer`. The
 * bytes lie in one page. 0: done; anything else: they cannot be read. Memory that is not there
 * reads as 0, and is no error.
 */
typedef int (*tdx_sim_read_callback)(void *context, uint64_t physical_address, void *buffer, size_t len);

/**
 * Writes `len` bytes to the host's memory at `physical_address`, KeyID included. The bytes lie in
 * one page. 0: done; anything else: they cannot be written. Writes to memory that is not there are
 * dropped, and are no error.
 */
typedef int (*tdx_sim_write_callback)(void *context, uint64_t physical_address, const void *bytes, size_t len);

/**
 * The host's memory, as functions of the caller.
 */
typedef struct tdx_sim_memory_callbacks {
  /**
   * sizeof(tdx_sim_memory_callbacks), set by the caller.
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * What the functions get as `context`. It may be NULL.
   */
  void *context;
  /**
   * Reads. Not NULL.
   */
  tdx_sim_read_callback read;
  /**
   * Writes. Not NULL.
   */
  tdx_sim_write_callback write;
} tdx_sim_memory_callbacks;

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
 * A SEAMCALL that has ended.
 */
typedef struct tdx_sim_call {
  /**
   * sizeof(tdx_sim_call), set by the caller.
   */
  uint32_t size;
  /**
   * On which LP.
   */
  uint32_t lp;
  /**
   * The number of the call on this platform, in the order in which calls ended, from 1. A gap
   * shows calls that were not kept.
   */
  uint64_t number;
  /**
   * Whether the instruction itself failed. If so, `output` is as `input`.
   */
  enum tdx_sim_trap trap;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The registers before the call.
   */
  struct tdx_sim_regs input;
  /**
   * The registers after the call.
   */
  struct tdx_sim_regs output;
} tdx_sim_call;

/**
 * Called for each SEAMCALL when it has ended. `call` is there until the function returns;
 * `call->size` is the size that the library knows.
 */
typedef void (*tdx_sim_trace_callback)(void *context, const struct tdx_sim_call *call);

/**
 * How things stand on a platform.
 */
typedef struct tdx_sim_truth {
  /**
   * sizeof(tdx_sim_truth), set by the caller.
   */
  uint32_t size;
  /**
   * How far the module has come.
   */
  enum tdx_sim_module_state module_state;
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
   * P_SEAMLDR_READY in SEAMEXTEND is 1: P-SEAMLDR can be called.
   */
  bool p_seamldr_ready;
  /**
   * The handoff data is there for a module to take.
   */
  bool handoff_valid;
  /**
   * Firmware has hit a fatal error: nothing can be called until the next boot.
   */
  bool dead;
  /**
   * Debug modules may be installed.
   */
  bool debug_unlocked;
  /**
   * P-SEAMLDR was entered since boot.
   */
  bool p_seamldr_entered;
  /**
   * Major SVN in SEAMEXTEND.
   */
  uint8_t svn_major;
  /**
   * Minor SVN in SEAMEXTEND.
   */
  uint8_t svn_minor;
  /**
   * Version of the handoff data.
   */
  uint16_t handoff_hv;
  /**
   * Bytes of the handoff data, after its header.
   */
  uint32_t handoff_size;
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
   * Internal version of the module, or 0.
   */
  uint16_t version_internal;
  /**
   * Highest handoff version that the module was told, or 0.
   */
  uint16_t module_hv;
  /**
   * Lowest handoff version that the module was told, or 0.
   */
  uint16_t min_update_hv;
  /**
   * Pages for handoff data that the module was told, minus one, or 0.
   */
  uint16_t num_handoff_pages;
  /**
   * The module's own KeyID, or 0.
   */
  uint16_t module_hkid;
  /**
   * LPs that the module has initialised. tdx_sim_get_lp() says which.
   */
  uint32_t lps_initialized;
  /**
   * Packages that have the module's key, a bit each.
   */
  uint32_t packages_configured;
  /**
   * TDMRs of the module.
   */
  uint32_t tdmrs;
  /**
   * The module's global lock.
   */
  enum tdx_sim_lock global_lock;
  /**
   * Updates that remain, as P-SEAMLDR remembers.
   */
  uint32_t remaining_updates;
  /**
   * LPs in an INSTALL session that has not ended; 0 if none is open.
   */
  uint32_t lps_in_session;
  /**
   * LPs that have called SEAMLDR.SHUTDOWN.
   */
  uint32_t lps_in_shutdown;
  /**
   * The LP that is inside P-SEAMLDR, or TDX_SIM_ANY_LP.
   */
  uint32_t lp_in_p_seamldr;
  /**
   * Entries that the SEAM database has room for.
   */
  uint32_t seamdb_size;
  /**
   * Entries in use.
   */
  uint32_t seamdb_used;
  /**
   * How many of the next insertions fail.
   */
  uint32_t seamdb_failures;
  /**
   * LPs that firmware counts.
   */
  uint32_t num_lps;
  /**
   * TDs that were made.
   */
  uint32_t tds;
  /**
   * TDs that can run and find their memory as it was.
   */
  uint32_t tds_alive;
  /**
   * TDX_FEATURES0 of the module's build, or 0.
   */
  uint64_t features0;
  /**
   * SEAMCALLs that were begun.
   */
  uint64_t calls;
  /**
   * The VMCS that the last call evicted, or 0xffffffffffffffff.
   */
  uint64_t evicted_vmcs;
} tdx_sim_truth;

/**
 * How things stand on an LP.
 */
typedef struct tdx_sim_lp {
  /**
   * sizeof(tdx_sim_lp), set by the caller.
   */
  uint32_t size;
  /**
   * Its x2APIC id.
   */
  uint32_t x2apic_id;
  /**
   * Its package.
   */
  uint32_t package;
  /**
   * What each SEAMCALL gets by tdx_sim_set_lp_trap().
   */
  enum tdx_sim_trap trap;
  /**
   * Its current VMCS, a physical address, or 0xffffffffffffffff: none.
   */
  uint64_t current_vmcs;
  /**
   * Its SEAMOPS capabilities.
   */
  uint64_t capabilities;
  /**
   * The module has initialised it.
   */
  bool initialized;
  /**
   * It is inside the module.
   */
  bool in_module;
  /**
   * It is in a SEAMCALL that has not ended.
   */
  bool in_call;
  /**
   * It takes part in the INSTALL session that is open.
   */
  bool in_session;
  /**
   * Firmware counts it.
   */
  bool counted;
  /**
   * 0.
   */
  uint8_t reserved[3];
} tdx_sim_lp;

/**
 * SEAMEXTEND: the module that P-SEAMLDR installed, as the processor attests it. 136 bytes.
 */
typedef struct tdx_sim_seamextend {
  /**
   * 0x1ff after a module was installed, 0 without one.
   */
  uint64_t valid;
  /**
   * Byte 0: minor SVN; byte 1: major SVN.
   */
  uint8_t tee_tcb_svn[16];
  /**
   * SHA-384 of the module.
   */
  uint8_t mrseam[48];
  /**
   * SHA-384 of the signer; 0 for Intel's own modules.
   */
  uint8_t mrsigner[48];
  /**
   * Attributes of the module.
   */
  uint64_t attributes;
  /**
   * 1 while the module can be called.
   */
  uint8_t seam_ready;
  /**
   * Not 0 if the system is being debugged.
   */
  uint8_t system_under_debug;
  /**
   * 1 while P-SEAMLDR can be called.
   */
  uint8_t p_seamldr_ready;
  /**
   * Reserved.
   */
  uint8_t reserved[5];
} tdx_sim_seamextend;

/**
 * How things stand with a TD.
 */
typedef struct tdx_sim_td {
  /**
   * sizeof(tdx_sim_td), set by the caller.
   */
  uint32_t size;
  /**
   * How far it has come.
   */
  enum tdx_sim_td_phase phase;
  /**
   * A module is ready that knows its KeyID, and it finds its memory as it was.
   */
  bool alive;
  /**
   * Its measurement (MRTD), or the MAC of its migration, is what it has to be, as far as it has
   * come.
   */
  bool measurement_right;
  /**
   * 0.
   */
  uint8_t reserved[6];
  /**
   * The measurement, or the MAC, as far as it has come. Not a real hash.
   */
  uint8_t measurement[32];
} tdx_sim_td;

/**
 * Calls that go wrong.
 */
typedef struct tdx_sim_fault {
  /**
   * sizeof(tdx_sim_fault), set by the caller.
   */
  uint32_t size;
  /**
   * On which LP, or TDX_SIM_ANY_LP.
   */
  uint32_t lp;
  /**
   * RAX at the call, all 64 bits. It does not count if `any_rax` is true.
   */
  uint64_t rax;
  /**
   * True: whatever RAX is.
   */
  bool any_rax;
  /**
   * 0.
   */
  uint8_t reserved[3];
  /**
   * How many such calls pass before.
   */
  uint32_t after;
  /**
   * How many such calls go wrong then; not 0. TDX_SIM_ALWAYS: as good as all.
   */
  uint32_t times;
  /**
   * What they get.
   */
  enum tdx_sim_fault_kind kind;
  /**
   * With TDX_SIM_FAULT_KIND_TRAP: which, other than TDX_SIM_TRAP_NONE.
   */
  enum tdx_sim_trap trap;
  /**
   * With TDX_SIM_FAULT_KIND_DELAY: how many calls; not 0.
   */
  uint32_t delay;
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
 * What is fixed when a module is built, apart from what its SIGSTRUCT says.
 * tdx_sim_build_defaults() or tdx_sim_release_build() fills it in.
 */
typedef struct tdx_sim_build {
  /**
   * sizeof(tdx_sim_build), set by the caller.
   */
  uint32_t size;
  /**
   * Major version.
   */
  uint16_t version_major;
  /**
   * Minor version.
   */
  uint16_t version_minor;
  /**
   * Update version.
   */
  uint16_t version_update;
  /**
   * Internal version.
   */
  uint16_t version_internal;
  /**
   * YYYYMMDD, a decimal number.
   */
  uint32_t build_date;
  /**
   * Build number.
   */
  uint16_t build_num;
  /**
   * The handoff version that it was built for. TDH.SYS.INIT refuses another one in the
   * SIGSTRUCT.
   */
  uint16_t module_hv;
  /**
   * The lowest handoff version that it was built for.
   */
  uint16_t min_update_hv;
  /**
   * It was built to write its own handoff version only.
   */
  bool no_downgrade;
  /**
   * The version of the contexts of hashes and MACs that are under way in TDs; 0: the module
   * does not say. A module cannot go on with those of another version, nor of one that does
   * not say.
   */
  uint8_t crypto_context;
  /**
   * How it writes its handoff data.
   */
  enum tdx_sim_handoff_form handoff_form;
  /**
   * How its leaves behave.
   */
  enum tdx_sim_module_generation generation;
  /**
   * TDX_FEATURES0.
   */
  uint64_t features0;
} tdx_sim_build;

/**
 * A module's image that is to be made. tdx_sim_image_defaults() fills it in. For what has no field
 * here, take the SIGSTRUCT that tdx_sim_make_image() makes, change it, and sign it again with
 * tdx_sim_sign().
 */
typedef struct tdx_sim_image {
  /**
   * sizeof(tdx_sim_image), set by the caller.
   */
  uint32_t size;
  /**
   * 4 KiB pages of the module, 1 to TDX_SIM_MAX_MODULE_PAGES. With less than 3, the default of
   * `gdt_idt_offset` and `fault_wrapper_offset` lies outside.
   */
  uint32_t pages;
  /**
   * YYYYMMDD, one hexadecimal digit each.
   */
  uint32_t date;
  /**
   * Major SVN.
   */
  uint8_t svn_major;
  /**
   * Minor SVN.
   */
  uint8_t svn_minor;
  /**
   * Writes the highest handoff version only.
   */
  bool no_downgrade;
  /**
   * A debug module.
   */
  bool debug;
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
   * Keyhole pages of each LP, minus one.
   */
  uint16_t num_keyhole_pages;
  /**
   * Global data pages, minus one.
   */
  uint16_t num_global_data_pages;
  /**
   * Stack pages of each LP, minus one.
   */
  uint8_t num_stack_pages;
  /**
   * Thread-local pages of each LP, minus one.
   */
  uint8_t num_tls_pages;
  /**
   * Offset of the GDT and the IDT in the module.
   */
  uint32_t gdt_idt_offset;
  /**
   * Offset of the fault wrappers in the module.
   */
  uint32_t fault_wrapper_offset;
  /**
   * The byte that the rest of the module is filled with.
   */
  uint8_t fill;
  /**
   * The hash that is signed is `seamhash`, not that of the module.
   */
  bool seamhash_given;
  /**
   * With `seamhash_given`: SHA-384.
   */
  uint8_t seamhash[48];
  /**
   * 0.
   */
  uint8_t reserved[2];
  /**
   * How many CPUs there are in the list, at most TDX_SIM_MAX_CPUS.
   */
  uint32_t num_cpus;
  /**
   * CPUs that the module runs on: CPUID.1:EAX without the stepping.
   */
  uint32_t cpus[TDX_SIM_MAX_CPUS];
  /**
   * What the module is built as, or NULL: what follows from the SIGSTRUCT. Then its SVN decides
   * about the version, as with released modules: 1.5 is version 1.5.05. Only read while the
   * image is made.
   */
  const struct tdx_sim_build *build;
} tdx_sim_image;

/**
 * SIGSTRUCT: what is signed about a module. 2048 bytes. Numbers that are not aligned are arrays of
 * bytes, little-endian.
 */
typedef struct tdx_sim_sigstruct {
  /**
   * 6.
   */
  uint32_t header_type;
  /**
   * 0xe1.
   */
  uint32_t header_length;
  /**
   * 0x10000.
   */
  uint32_t header_version;
  /**
   * Bit 31: a debug module.
   */
  uint32_t module_type;
  /**
   * 0x8086.
   */
  uint32_t module_vendor;
  /**
   * YYYYMMDD, one hexadecimal digit each.
   */
  uint32_t date;
  /**
   * Size of this structure in words of 32 bits: 0x200.
   */
  uint32_t words;
  /**
   * Size of the key in words: 0x60.
   */
  uint32_t key_words;
  /**
   * Size of the modulus in words: 0x60.
   */
  uint32_t modulus_words;
  /**
   * Size of the exponent in words: 1.
   */
  uint32_t exponent_words;
  /**
   * 0.
   */
  uint8_t reserved0[88];
  /**
   * Modulus of the key, little-endian.
   */
  uint8_t modulus[384];
  /**
   * Exponent of the key: 0x10001.
   */
  uint32_t exponent;
  /**
   * Signature, little-endian.
   */
  uint8_t signature[384];
  /**
   * SHA-384 of the module.
   */
  uint8_t seamhash[48];
  /**
   * Minor SVN.
   */
  uint8_t svn_minor;
  /**
   * Major SVN.
   */
  uint8_t svn_major;
  /**
   * 0.
   */
  uint8_t attributes[8];
  /**
   * Offset of the module's entry point.
   */
  uint8_t rip_offset[4];
  /**
   * Stack pages of each LP, minus one.
   */
  uint8_t num_stack_pages;
  /**
   * Thread-local pages of each LP, minus one.
   */
  uint8_t num_tls_pages;
  /**
   * Keyhole pages of each LP, minus one.
   */
  uint16_t num_keyhole_pages;
  /**
   * Global data pages, minus one.
   */
  uint16_t num_global_data_pages;
  /**
   * Highest number of TDMRs.
   */
  uint16_t max_tdmrs;
  /**
   * Highest number of reserved areas of a TDMR.
   */
  uint16_t max_reserved_per_tdmr;
  /**
   * Bytes of a PAMT entry for 4 KiB.
   */
  uint16_t pamt_4k_entry_size;
  /**
   * Bytes of a PAMT entry for 2 MiB.
   */
  uint16_t pamt_2m_entry_size;
  /**
   * Bytes of a PAMT entry for 1 GiB.
   */
  uint16_t pamt_1g_entry_size;
  /**
   * 0.
   */
  uint8_t reserved1[6];
  /**
   * Highest handoff version.
   */
  uint16_t module_hv;
  /**
   * Lowest handoff version.
   */
  uint16_t min_update_hv;
  /**
   * Not 0: the module writes its highest handoff version only.
   */
  uint8_t no_downgrade;
  /**
   * 0.
   */
  uint8_t reserved2;
  /**
   * Pages for handoff data, minus one.
   */
  uint16_t num_handoff_pages;
  /**
   * Offset of the GDT and the IDT in the module, a multiple of 4096; or 0.
   */
  uint32_t gdt_idt_offset;
  /**
   * Offset of the fault wrappers in the module, or 0.
   */
  uint32_t fault_wrapper_offset;
  /**
   * 0.
   */
  uint8_t reserved3[24];
  /**
   * Entries in the list of CPUs.
   */
  uint32_t num_cpus;
  /**
   * CPUs that the module runs on: CPUID.1:EAX without the stepping.
   */
  uint32_t cpus[TDX_SIM_MAX_CPUS];
} tdx_sim_sigstruct;

/**
 * SEAMLDR_INFO, which SEAMLDR.INFO writes. It has to lie at a multiple of 256.
 */
typedef struct tdx_sim_seamldr_info {
  /**
   * 0.
   */
  uint32_t version;
  /**
   * Bit 31: a debug build of P-SEAMLDR.
   */
  uint32_t attributes;
  /**
   * 0x8086.
   */
  uint32_t vendor;
  /**
   * YYYYMMDD, a decimal number.
   */
  uint32_t build_date;
  /**
   * Build number.
   */
  uint16_t build_num;
  /**
   * Minor version.
   */
  uint16_t minor;
  /**
   * Major version.
   */
  uint16_t major;
  /**
   * Update version.
   */
  uint16_t update;
  /**
   * x2APIC id of the LP that has to call SEAMLDR.SHUTDOWN last.
   */
  uint32_t acm_x2apicid;
  /**
   * Modules that P-SEAMLDR can still install.
   */
  uint32_t num_remaining_updates;
  /**
   * A copy of the register.
   */
  struct tdx_sim_seamextend seamextend;
  /**
   * Bit 1: there is SEAMLDR.CLEANUP.
   */
  uint64_t features0;
  /**
   * Reserved.
   */
  uint8_t reserved[80];
} tdx_sim_seamldr_info;

/**
 * SEAMLDR_PARAMS, what SEAMLDR.INSTALL reads. It has to lie at a multiple of 4096.
 */
typedef struct tdx_sim_seamldr_params {
  /**
   * 0.
   */
  uint32_t version;
  /**
   * TDX_SIM_SCENARIO_LOAD or TDX_SIM_SCENARIO_UPDATE.
   */
  uint32_t scenario;
  /**
   * Physical address of the SIGSTRUCT, a multiple of 4096.
   */
  uint64_t sigstruct_pa;
  /**
   * 0.
   */
  uint8_t reserved[104];
  /**
   * Pages of the module.
   */
  uint64_t num_module_pages;
  /**
   * Physical address of each page of the module, a multiple of 4096.
   */
  uint64_t module_page_pa[TDX_SIM_MAX_MODULE_PAGES];
} tdx_sim_seamldr_params;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that the program runs with, in the form of TDX_SIM_VERSION. If it is
 * the same, header and library fit; as they do if the first number that is not 0 is the same, and
 * the rest is not lower than that of the header.
 */
uint32_t tdx_sim_version(void);

/**
 * The name of a status, for messages, e.g. "TDX_SIM_STATUS_NULL". It stays where it is. Never
 * NULL: other numbers have the name "unknown status".
 */
const char *tdx_sim_status_name(enum tdx_sim_status status);

/**
 * What went wrong in the last call of this thread that did not return TDX_SIM_STATUS_OK: what was
 * found, and what was expected. Empty if there was none. The text stays there until the next call
 * of this library in this thread. Never NULL.
 */
const char *tdx_sim_last_error(void);

/**
 * Fills in a platform of 4 LPs on one socket, with P-SEAMLDR 1.5.00, that trusts the test key.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE.
 *
 * The caller guarantees:
 *
 * `platform` leads to a tdx_sim_platform with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_platform_defaults(struct tdx_sim_platform *platform);

/**
 * Makes a platform as its boot firmware leaves it: with P-SEAMLDR, and without a module, which
 * tdx_sim_boot() installs. On success `*sim` is the platform's handle, to be given to
 * tdx_sim_free() in the end; otherwise it becomes NULL.
 *
 * Errors: NULL, UNALIGNED: if that is about `sim`, it is not set; BAD_SIZE; BAD_ARGUMENT: a field
 * has a value that it cannot have; CONTRADICTION: there is no such platform, e.g. two LPs have the
 * same x2APIC id; NO_ROOM: there is no memory, or handles have come to an end.
 *
 * The caller guarantees:
 *
 * `platform` leads to a tdx_sim_platform with its `size` set that may be read, its pointers to as
 * many values as it says, and `sim` to a pointer that may be written.
 */
enum tdx_sim_status tdx_sim_create(const struct tdx_sim_platform *platform, struct tdx_sim **sim);

/**
 * Makes a platform of a description: a JSON object with `platform` and `initial`, in the form that
 * the project's recordings have. The files README.md in the folders of
 * crates/tdx-seamldr-mock/vectors describe it. Beside what recordings have, `platform` may
 * have `loader_generation` ("1.0", "1.5.00", "newer" or "2.0.00"), `seamret_clears_vmcs`,
 * `full_seamdb_is_fatal` and `accepts_large_signatures`, and `initial.module` may have
 * `features0`. The platform can begin in any state. On success `*sim` is the platform's handle, to
 * be given to tdx_sim_free() in the end; otherwise it becomes NULL.
 *
 * Errors: NULL, UNALIGNED: if that is about `sim`, it is not set; NOT_UTF8; BAD_DESCRIPTION: it is
 * not JSON, a field is missing, there is no field with a name, or there is no such platform, as
 * tdx_sim_last_error() says; NO_ROOM: there is no memory, or handles have come to an end.
 *
 * The caller guarantees:
 *
 * `description` leads to text with a NUL at its end, and `sim` to a pointer that may be written.
 */
enum tdx_sim_status tdx_sim_create_from_json(const char *description, struct tdx_sim **sim);

/**
 * Boots a platform that has no module yet. Firmware loads the module of an image, by all of
 * P-SEAMLDR's checks; then a kernel initialises it on all LPs that firmware counts, until it is in
 * the state `until`. TDX_SIM_MODULE_STATE_READY: TDs can run.
 * TDX_SIM_MODULE_STATE_SYS_INIT_PENDING: the kernel has still to begin. `file` is a file with an
 * image, of either format, as tdx_sim_image_file() makes it, or one of Intel's. It is only read in
 * this call.
 *
 * Faults that are planned do not strike these calls, they are not in the trace, and RDRAND gives
 * numbers meanwhile.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `until` is no state that a module can be in;
 * BAD_IMAGE; CONTRADICTION: there is a module already, or an LP is in a call; REFUSED: firmware
 * refused a call, as tdx_sim_last_error() says. What was done before stays so then.
 *
 * The caller guarantees:
 *
 * `file` leads to `file_size` bytes that may be read.
 */
enum tdx_sim_status tdx_sim_boot(struct tdx_sim *sim,
                                 const void *file,
                                 size_t file_size,
                                 enum tdx_sim_module_state until);

/**
 * Frees a platform. If it is inside a SEAMCALL, that one is waited for; one that is delayed ends
 * with BAD_HANDLE. Then all memory that was mapped belongs to the caller alone again, and no
 * callback is called any more.
 *
 * Errors: NULL; BAD_HANDLE: also if it was freed before; REENTRANT.
 */
enum tdx_sim_status tdx_sim_free(struct tdx_sim *sim);

/**
 * Makes `len` bytes at `memory` the host's memory at `physical_address`, KeyID included: what
 * firmware reads and writes there, until tdx_sim_unmap() or tdx_sim_free(). What is not mapped is
 * read and written by the callbacks of tdx_sim_set_memory_callbacks(); without them it reads as 0
 * and takes no writes. The same memory may be mapped at several physical addresses.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNALIGNED: `physical_address` is not a multiple of 4096
 * (`memory` may have any alignment); BAD_LENGTH: `len` is 0, not a multiple of 4096, or too much;
 * OVERLAP: some of the physical addresses are mapped already.
 *
 * The caller guarantees:
 *
 * Until it is unmapped or the platform is freed, `memory` leads to `len` bytes that may be read
 * and written. While a tdx_sim_seamcall() runs, no other thread writes the bytes that this call
 * reads, nor reads or writes the bytes that it writes. Which these are follows from the leaf and
 * its operands: SEAMLDR_PARAMS, the SIGSTRUCT and the pages of the module that it names, or
 * the buffer that it fills in. All else that is mapped may be used by other threads meanwhile.
 */
enum tdx_sim_status tdx_sim_map(struct tdx_sim *sim, uint64_t physical_address, void *memory, size_t len);

/**
 * Takes back what was mapped at `physical_address` by tdx_sim_map(), all of it. The memory then
 * belongs to the caller alone.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; NOT_MAPPED: nothing is mapped that begins there.
 */
enum tdx_sim_status tdx_sim_unmap(struct tdx_sim *sim, uint64_t physical_address);

/**
 * From now on firmware reads and writes the host's memory by these functions, where nothing is
 * mapped by tdx_sim_map(). `callbacks` may be NULL: no more. This is how an emulator gives all of
 * its memory.
 *
 * The functions are called in the thread that makes the SEAMCALL. They must return, and must not
 * wait for another thread that uses the same platform. Functions that take a platform return
 * REENTRANT there. If one returns something other than 0, the SEAMCALL goes on, with zeros for
 * what could not be read, and tdx_sim_seamcall() returns CALLBACK_FAILED.
 *
 * Errors: NULL: also if `read` or `write` is NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `reserved`
 * is not 0; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `callbacks` leads to a tdx_sim_memory_callbacks with its `size` set that may be read, or
 * nowhere. Until they are replaced or the platform is freed, its functions may be called with
 * `context` from each thread that makes SEAMCALLs on this platform. `read` writes `len` bytes of
 * `buffer` at most, and `write` reads `len` bytes at most.
 */
enum tdx_sim_status tdx_sim_set_memory_callbacks(struct tdx_sim *sim,
                                                 const struct tdx_sim_memory_callbacks *callbacks);

/**
 * From now on firmware reads the byte of the host's memory at `physical_address` with the bits of
 * `mask` flipped, whatever is there. A mask of 0 puts it right. At most 8 bytes can be so at the
 * same time.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; NO_ROOM.
 */
enum tdx_sim_status tdx_sim_flip_memory(struct tdx_sim *sim, uint64_t physical_address, uint8_t mask);

/**
 * An LP executes SEAMCALL with these registers. `*trap` says whether the instruction itself
 * failed. If it did not, `*regs` are what firmware returned; otherwise they stay as they are. What
 * firmware answers is in `regs->rax`, and is no error of this function. Signatures are checked
 * with RSA-3072 and SHA-384.
 *
 * `lp` is the number of an LP: its place in the platform's list, counted from 0. It is not its
 * x2APIC id. An LP that is offline is one that firmware counts and for which nobody calls this
 * function. One that is not in VMX operation is made by tdx_sim_set_lp_trap().
 *
 * Calls for different LPs may be made by different threads at the same time. They are executed one
 * after the other, unless a fault delays one of them: others then find its LP inside firmware.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; UNKNOWN_LP; LP_BUSY: a call of another thread
 * for the same LP is delayed, a real LP could not execute another one; CALLBACK_FAILED: a callback
 * for memory failed. The call was made all the same then, with zeros for what could not be read,
 * and `*regs` and `*trap` are set.
 *
 * The caller guarantees:
 *
 * `regs` leads to registers, and `trap` to a tdx_sim_trap, that may be written. For the memory
 * that is mapped see tdx_sim_map().
 */
enum tdx_sim_status tdx_sim_seamcall(struct tdx_sim *sim,
                                     uint32_t lp,
                                     struct tdx_sim_regs *regs,
                                     enum tdx_sim_trap *trap);

/**
 * From now on `callback` is called with `context` for each SEAMCALL of this platform, in the
 * thread that makes it, when it has ended. NULL: no more.
 *
 * The callback must return, and must not wait for another thread that uses the same platform.
 * Functions that take a platform return REENTRANT there.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * Until it is replaced, or the platform is freed, `callback` may be called with `context` from
 * each thread that makes SEAMCALLs on this platform.
 */
enum tdx_sim_status tdx_sim_set_trace_callback(struct tdx_sim *sim,
                                               tdx_sim_trace_callback callback,
                                               void *context);

/**
 * From now on the platform keeps its last calls, `limit` of them, for tdx_sim_next_call(). 0:
 * none. Those that it has kept are forgotten.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `limit` is more than TDX_SIM_TRACE_LIMIT.
 */
enum tdx_sim_status tdx_sim_keep_calls(struct tdx_sim *sim, uint32_t limit);

/**
 * Takes the oldest call out of those that the platform has kept since tdx_sim_keep_calls().
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; NO_CALL: there is none.
 *
 * The caller guarantees:
 *
 * `call` leads to a tdx_sim_call with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_next_call(struct tdx_sim *sim, struct tdx_sim_call *call);

/**
 * Writes a call as one line of text: LP, leaf, RCX and RDX, what was answered. The text ends with
 * a NUL, and is cut off if `text_size` is too small.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `call->trap` is no tdx_sim_trap;
 * BUFFER_TOO_SMALL: `text_size` is 0.
 *
 * The caller guarantees:
 *
 * `call` leads to a tdx_sim_call that may be read, `text` to `text_size` characters that may be
 * written.
 */
enum tdx_sim_status tdx_sim_call_text(const struct tdx_sim_call *call, char *text, size_t text_size);

/**
 * Writes the name of what a SEAMCALL has answered, e.g. "EBADSIG" or "SYS_BUSY". An answer without
 * a name is written as a number. `leaf` is RAX at the call, `answer` is RAX after it. The text
 * ends with a NUL, and is cut off if `text_size` is too small.
 *
 * Errors: NULL; BUFFER_TOO_SMALL: `text_size` is 0.
 *
 * The caller guarantees:
 *
 * `text` leads to `text_size` characters that may be written.
 */
enum tdx_sim_status tdx_sim_answer_text(uint64_t leaf, uint64_t answer, char *text, size_t text_size);

/**
 * Says how things stand.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `truth` leads to a tdx_sim_truth with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_get_truth(struct tdx_sim *sim, struct tdx_sim_truth *truth);

/**
 * Says how things stand on one LP.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 *
 * The caller guarantees:
 *
 * `state` leads to a tdx_sim_lp with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_get_lp(struct tdx_sim *sim, uint32_t lp, struct tdx_sim_lp *state);

/**
 * What RDRAND does from now on: `ok`: it gives `value`; but before that it fails `failures` times.
 * Not `ok`: it always fails. P-SEAMLDR needs a number at its first entry, and for each module that
 * it installs; the module at TDH.SYS.INIT and TDH.SYS.LP.INIT.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `ok` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_rdrand(struct tdx_sim *sim, bool ok, uint64_t value, uint32_t failures);

/**
 * Changes the SEAM database, in which the processor counts modules that were installed since boot:
 * it has room for `size` entries, of which `used` are in use, and the next `failures` insertions
 * fail for want of entropy (0xffffffff: as good as all). What P-SEAMLDR remembers of it stays: see
 * tdx_sim_set_remaining_updates().
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; CONTRADICTION: `used` is more than `size`.
 */
enum tdx_sim_status tdx_sim_set_seamdb(struct tdx_sim *sim, uint32_t size, uint32_t used, uint32_t failures);

/**
 * Changes the number of remaining updates that P-SEAMLDR remembers. SEAMLDR.INFO counts the SEAM
 * database again if it is 0.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_set_remaining_updates(struct tdx_sim *sim, uint32_t count);

/**
 * Says whether P-SEAMLDR was entered since boot. Its first entry needs a random number.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `entered` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_p_seamldr_entered(struct tdx_sim *sim, bool entered);

/**
 * Says whether debug modules may be installed: bit 1 of MSR 0x503.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `unlocked` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_debug_unlocked(struct tdx_sim *sim, bool unlocked);

/**
 * Of the next steps of SEAMLDR.CLEANUP, `count` find an interrupt pending.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_set_pending_interrupts(struct tdx_sim *sim, uint32_t count);

/**
 * Says what SEAMOPS(SEAMDB_GETREF) and PCONFIG tell the module; 0 is success. TDH.SYS.INIT takes
 * an error of the first as fatal. TDH.SYS.KEY.CONFIG has answers for the errors 2 (no entropy) and
 * 5 (busy) of the second, and takes others as fatal.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_set_instruction_errors(struct tdx_sim *sim,
                                                   uint32_t seamdb_getref,
                                                   uint32_t pconfig);

/**
 * Says how another LP holds the module's global lock. Calls that need it return
 * TDX_SIM_TDX_SYS_BUSY.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `lock` is no tdx_sim_lock; NO_MODULE.
 */
enum tdx_sim_status tdx_sim_set_global_lock(struct tdx_sim *sim, enum tdx_sim_lock lock);

/**
 * Says whether another LP is initialising a TDMR, by its place in the list of TDH.SYS.CONFIG: 0 to
 * 63.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `tdmr` is more than 63, or `held` is neither
 * true nor false; NO_MODULE.
 */
enum tdx_sim_status tdx_sim_set_tdmr_lock(struct tdx_sim *sim, uint32_t tdmr, bool held);

/**
 * Makes each SEAMCALL of one LP fail from now on: #UD: the LP is not in VMX operation; #GP: TDX is
 * not enabled. NONE: no more. It is not possible for TDX_SIM_TRAP_VMFAIL_INVALID;
 * tdx_sim_add_fault() can make calls fail so.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; BAD_ARGUMENT: `trap` is not one of the three.
 */
enum tdx_sim_status tdx_sim_set_lp_trap(struct tdx_sim *sim, uint32_t lp, enum tdx_sim_trap trap);

/**
 * Says whether one LP is inside the module, e.g. runs a TD. TDH.SYS.SHUTDOWN on other LPs then
 * returns TDX_SIM_TDX_SYS_BUSY, and its own calls to the module VMfailInvalid.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; LP_BUSY: it is in a SEAMCALL; BAD_ARGUMENT:
 * `inside` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_lp_in_module(struct tdx_sim *sim, uint32_t lp, bool inside);

/**
 * Flips bits of an MSR on one LP, so that it differs from that of other LPs, or with
 * TDX_SIM_ANY_LP on all of them. The same bits twice cancel. TDH.SYS.INIT looks at the values of
 * MSRs, and TDH.SYS.LP.INIT compares them with those of the LP that called TDH.SYS.INIT.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; NO_ROOM: 2048 registers are changed already.
 */
enum tdx_sim_status tdx_sim_flip_lp_msr(struct tdx_sim *sim, uint32_t lp, uint32_t msr, uint64_t bits);

/**
 * Flips bits of what CPUID writes to one register on one LP, or with TDX_SIM_ANY_LP on all of
 * them. The same bits twice cancel. `subleaf` is 0xffffffff for leaves that have none.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; BAD_ARGUMENT: `output` is no
 * tdx_sim_cpuid_output; NO_ROOM: 2048 registers are changed already.
 */
enum tdx_sim_status tdx_sim_flip_lp_cpuid(struct tdx_sim *sim,
                                          uint32_t lp,
                                          uint32_t leaf,
                                          uint32_t subleaf,
                                          enum tdx_sim_cpuid_output output,
                                          uint32_t bits);

/**
 * Changes the SEAMOPS capabilities of one LP.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 */
enum tdx_sim_status tdx_sim_set_lp_capabilities(struct tdx_sim *sim, uint32_t lp, uint64_t capabilities);

/**
 * Takes back what tdx_sim_flip_lp_msr(), tdx_sim_flip_lp_cpuid() and tdx_sim_set_lp_capabilities()
 * have changed on one LP, or with TDX_SIM_ANY_LP everywhere.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 */
enum tdx_sim_status tdx_sim_restore_lp(struct tdx_sim *sim, uint32_t lp);

/**
 * One LP executes VMPTRLD: `address` becomes its current VMCS. 0xffffffffffffffff: it has none.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 */
enum tdx_sim_status tdx_sim_load_vmcs(struct tdx_sim *sim, uint32_t lp, uint64_t address);

/**
 * Reads the register SEAMEXTEND.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `seamextend` leads to a tdx_sim_seamextend that may be written.
 */
enum tdx_sim_status tdx_sim_get_seamextend(struct tdx_sim *sim, struct tdx_sim_seamextend *seamextend);

/**
 * Writes the register SEAMEXTEND, as no host could. A session that is open stays open.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `seam_ready` or `p_seamldr_ready`
 * is neither 0 nor 1; CONTRADICTION: `seam_ready` is 1, but there is no module.
 *
 * The caller guarantees:
 *
 * `seamextend` leads to a tdx_sim_seamextend that may be read.
 */
enum tdx_sim_status tdx_sim_set_seamextend(struct tdx_sim *sim, const struct tdx_sim_seamextend *seamextend);

/**
 * Reads `len` bytes of the handoff area from `offset`: first the header of 8 bytes (valid u8,
 * reserved u8, version u16, size u32), then the data. The area has TDX_SIM_HANDOFF_SIZE bytes.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_LENGTH: the bytes are not within the area.
 *
 * The caller guarantees:
 *
 * `bytes` leads to `len` bytes that may be written.
 */
enum tdx_sim_status tdx_sim_read_handoff(struct tdx_sim *sim, size_t offset, void *bytes, size_t len);

/**
 * Writes `len` bytes to the handoff area from `offset`. See tdx_sim_read_handoff().
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_LENGTH: the bytes are not within the area.
 *
 * The caller guarantees:
 *
 * `bytes` leads to `len` bytes that may be read.
 */
enum tdx_sim_status tdx_sim_write_handoff(struct tdx_sim *sim, size_t offset, const void *bytes, size_t len);

/**
 * Makes a TD that has come so far. `*td` is its number on this platform, from 0; `td` may be NULL.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `phase` is no tdx_sim_td_phase;
 * NOT_READY: no module is ready; NO_ROOM: there is no room, or no KeyID, for another TD.
 *
 * The caller guarantees:
 *
 * `td` leads to a number that may be written, or nowhere.
 */
enum tdx_sim_status tdx_sim_create_td(struct tdx_sim *sim, enum tdx_sim_td_phase phase, uint32_t *td);

/**
 * Says how things stand with a TD.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; UNKNOWN_TD.
 *
 * The caller guarantees:
 *
 * `state` leads to a tdx_sim_td with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_get_td(struct tdx_sim *sim, uint32_t td, struct tdx_sim_td *state);

/**
 * Adds a page with these bytes to a TD in build, and to its measurement, as TDH.MEM.PAGE.ADD and
 * TDH.MR.EXTEND do.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_TD; BAD_LENGTH: `len` is more than 4096; BAD_PHASE:
 * it is not in build; TD_GONE; TD_INCOMPATIBLE.
 *
 * The caller guarantees:
 *
 * `bytes` leads to `len` bytes that may be read.
 */
enum tdx_sim_status tdx_sim_extend_td(struct tdx_sim *sim, uint32_t td, const void *bytes, size_t len);

/**
 * The build of a TD, or its migration that was interrupted, comes to its end, and the TD runs.
 * `*right` says whether its measurement, or the MAC, has become what it has to be; `right` may be
 * NULL.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_TD; BAD_PHASE: it runs already; TD_GONE;
 * TD_INCOMPATIBLE.
 *
 * The caller guarantees:
 *
 * `right` leads to a bool that may be written, or nowhere.
 */
enum tdx_sim_status tdx_sim_finish_td(struct tdx_sim *sim, uint32_t td, bool *right);

/**
 * Plans a fault, in addition to those there are. The first that strikes a call decides about it.
 * `*id` is the number of the fault on this platform, never 0 and never used again. `id` may be
 * NULL. A fault that no call meets says nothing: see tdx_sim_count_unfired_faults().
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: a field has a value that
 * it cannot have; UNKNOWN_LP; NO_ROOM: TDX_SIM_MAX_FAULTS are planned that are not over.
 *
 * The caller guarantees:
 *
 * `fault` leads to a tdx_sim_fault with its `size` set that may be read, and `id` to a number that
 * may be written, or nowhere.
 */
enum tdx_sim_status tdx_sim_add_fault(struct tdx_sim *sim, const struct tdx_sim_fault *fault, uint64_t *id);

/**
 * Ends a fault: it strikes no further call. A fault that is over already stays so. Calls that it
 * has delayed stay delayed.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_FAULT: this platform never had a fault with this
 * number.
 */
enum tdx_sim_status tdx_sim_end_fault(struct tdx_sim *sim, uint64_t id);

/**
 * Says how many more calls a fault strikes. `*times` is 0 if the fault is over: it has struck as
 * often as it should, or was ended.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; UNKNOWN_FAULT: this platform never had a fault
 * with this number.
 *
 * The caller guarantees:
 *
 * `times` leads to a number that may be written.
 */
enum tdx_sim_status tdx_sim_get_fault(struct tdx_sim *sim, uint64_t id, uint32_t *times);

/**
 * Counts the faults that have struck no call yet and that nobody has ended. `*first` is the
 * lowest of their numbers, or 0. `first` may be NULL. Ask at the end of a test: a test whose
 * fault never strikes tests something else than it says.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `count` leads to a number that may be written, and `first` to one or nowhere.
 */
enum tdx_sim_status tdx_sim_count_unfired_faults(struct tdx_sim *sim, uint32_t *count, uint64_t *first);

/**
 * Ends all faults. Calls that are delayed already stay so.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_clear_faults(struct tdx_sim *sim);

/**
 * Fills in an image of 8 pages, much like the released module 1.5.05 (SVN 1.5).
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE.
 *
 * The caller guarantees:
 *
 * `image` leads to a tdx_sim_image with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_image_defaults(struct tdx_sim_image *image);

/**
 * Fills in what a module with this image is built as if `image->build` is NULL.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has a value that it cannot
 * have.
 *
 * The caller guarantees:
 *
 * `image` leads to a tdx_sim_image that may be read, and `build` to a tdx_sim_build that may be
 * written, both with their `size` set.
 */
enum tdx_sim_status tdx_sim_build_defaults(const struct tdx_sim_image *image, struct tdx_sim_build *build);

/**
 * Fills in what a public release is built as, e.g. 1, 5 and 16 for 1.5.16. What no public source
 * tells is 0: handoff versions and the date of some. An image with this build needs the same
 * `module_hv`, and `no_downgrade` if the build has it: otherwise TDH.SYS.INIT refuses it.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: there is no such release.
 *
 * The caller guarantees:
 *
 * `build` leads to a tdx_sim_build with its `size` set that may be written.
 */
enum tdx_sim_status tdx_sim_release_build(uint16_t major,
                                          uint16_t minor,
                                          uint16_t update,
                                          struct tdx_sim_build *build);

/**
 * Makes a module's image, in the parts that SEAMLDR.INSTALL reads: the SIGSTRUCT, signed with the
 * test key, and `image->pages` pages of the module.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has a value that it cannot
 * have; BUFFER_TOO_SMALL: `module_size` is less than 4096 for each page.
 *
 * The caller guarantees:
 *
 * `image` leads to a tdx_sim_image with its `size` set that may be read, its `build` to a
 * tdx_sim_build or nowhere, `sigstruct` to a tdx_sim_sigstruct and `module` to `module_size` bytes
 * that may be written.
 */
enum tdx_sim_status tdx_sim_make_image(const struct tdx_sim_image *image,
                                       struct tdx_sim_sigstruct *sigstruct,
                                       void *module,
                                       size_t module_size);

/**
 * Signs a SIGSTRUCT with the test key, after any change: writes the modulus and the signature. If
 * `module` is not NULL, `seamhash` becomes the SHA-384 of its `module_size` bytes first. Nothing
 * else is changed and nothing is checked.
 *
 * Errors: NULL: `sigstruct`; UNALIGNED; BAD_LENGTH.
 *
 * The caller guarantees:
 *
 * `sigstruct` leads to a tdx_sim_sigstruct that may be read and written, `module` to `module_size`
 * bytes that may be read, or nowhere.
 */
enum tdx_sim_status tdx_sim_sign(struct tdx_sim_sigstruct *sigstruct, const void *module, size_t module_size);

/**
 * Makes a file of a SIGSTRUCT and a module, which need not fit together. `*needed` is how many
 * bytes the file has, also if `file_size` is less, so that `file` may be NULL if `file_size` is 0.
 *
 * Errors: NULL; UNALIGNED; BAD_ARGUMENT: `format` is no tdx_sim_image_format; BAD_LENGTH:
 * `module_size` is not 1 to TDX_SIM_MAX_MODULE_PAGES times 4096; BUFFER_TOO_SMALL: `*needed` is
 * set then.
 *
 * The caller guarantees:
 *
 * `sigstruct` leads to a tdx_sim_sigstruct, and `module` to `module_size` bytes, that may be read;
 * `file` to `file_size` bytes, and `needed` to a number, that may be written.
 */
enum tdx_sim_status tdx_sim_pack(enum tdx_sim_image_format format,
                                 const struct tdx_sim_sigstruct *sigstruct,
                                 const void *module,
                                 size_t module_size,
                                 void *file,
                                 size_t file_size,
                                 size_t *needed);

/**
 * Makes a file with an image, as tdx_sim_make_image() makes it. `*needed` is how many bytes the
 * file has, also if `file_size` is less, so that `file` may be NULL if `file_size` is 0.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `format` is no tdx_sim_image_format, or a field
 * of `image` has a value that it cannot have; BUFFER_TOO_SMALL: `*needed` is set then.
 *
 * The caller guarantees:
 *
 * `image` leads to a tdx_sim_image with its `size` set that may be read, its `build` to a
 * tdx_sim_build or nowhere; `file` to `file_size` bytes, and `needed` to a number, that may be
 * written.
 */
enum tdx_sim_status tdx_sim_image_file(const struct tdx_sim_image *image,
                                       enum tdx_sim_image_format format,
                                       void *file,
                                       size_t file_size,
                                       size_t *needed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TDX_SIM_H */

#if !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert(sizeof(enum tdx_sim_status) == 4 && sizeof(enum tdx_sim_trap) == 4, "do not compile with short enums");
#elif defined(__cplusplus) && __cplusplus >= 201103L
static_assert(sizeof(enum tdx_sim_status) == 4 && sizeof(enum tdx_sim_trap) == 4, "do not compile with short enums");
#endif
