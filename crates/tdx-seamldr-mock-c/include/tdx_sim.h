// A simulated Intel TDX platform, for tests of module updates.
//
// Generated from the Rust sources by `cargo xtask c-header`; do not edit.
// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Platforms: tdx_sim_create() creates a platform from a structure, tdx_sim_create_from_json()
// from a description. A platform has LPs with the numbers 0, 1, 2 and so on, a P-SEAMLDR, and no
// module. tdx_sim_boot() or SEAMLDR.INSTALL installs a module. Code under test calls
// tdx_sim_seamcall() instead of executing SEAMCALL. tdx_sim_get_truth() returns the real state,
// whatever that code believes.
//
// Threads: every function may be called from any thread. Calls for one platform are executed one
// after the other. Inside a callback, functions that take a platform return
// TDX_SIM_STATUS_REENTRANT.
//
// Handles: a handle is not an address. A wrong handle, or the handle of a freed platform, is
// refused. No function keeps a pointer after it returns. Exceptions: tdx_sim_map() keeps the
// mapped memory, and callbacks are kept with their context.
//
// Errors: functions return a tdx_sim_status. After an error the function has done and written
// nothing, unless its description says otherwise. tdx_sim_last_error() says what was found and
// what was expected. "Errors: NULL" in a description stands for TDX_SIM_STATUS_NULL.
//
// Structures that begin with `size` may grow in later versions. Set `size` to sizeof of the
// structure before each call, also before functions that fill in defaults. A program compiled
// with an older header keeps working: fields that it does not know are read as 0 and not
// written. If the library is older than the header, fields that the library does not know have
// to be 0.
//
// Enumerations have 32 bits. A number that is not a value of the enumeration is refused with
// TDX_SIM_STATUS_BAD_ARGUMENT.

#ifndef TDX_SIM_H
#define TDX_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Version of this header: major << 16 | minor << 8 | patch, as in semver.org.
 */
#define TDX_SIM_VERSION 256

/**
 * SEAMLDR.INFO: describe P-SEAMLDR and the module. RCX: a tdx_sim_seamldr_info, aligned to 256
 * bytes.
 */
#define TDX_SIM_SEAMLDR_INFO UINT64_C(0x8000000000000000)

/**
 * SEAMLDR.INSTALL: install a module. Each LP calls once. RCX: a tdx_sim_seamldr_params, aligned to
 * 4096 bytes. RDX becomes 0, or 1 for a failure that destroys the module.
 */
#define TDX_SIM_SEAMLDR_INSTALL UINT64_C(0x8000000000000001)

/**
 * SEAMLDR.SHUTDOWN: shut P-SEAMLDR down. Each LP calls once.
 */
#define TDX_SIM_SEAMLDR_SHUTDOWN UINT64_C(0x8000000000000002)

/**
 * SEAMLDR.SEAMINFO: copy the platform's table of 2048 bytes to the address in RCX.
 */
#define TDX_SIM_SEAMLDR_SEAMINFO UINT64_C(0x8000000000000003)

/**
 * SEAMLDR.CLEANUP: wipe keys and caches. Each LP calls once, and again after EINTERRUPT. Only the
 * generation after 1.5.00 has it.
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
 * TDH.SYS.RD: read one metadata field. RDX: id of the field. R8 returns the value.
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
 * TDH.SYS.SHUTDOWN: shut the module down and write handoff data. RCX: version of the handoff data.
 */
#define TDX_SIM_TDH_SYS_SHUTDOWN 52

/**
 * TDH.SYS.UPDATE: restore the handoff data of the previous module.
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
 * P-SEAMLDR: the call comes at the wrong time, no update remains, or the major SVN differs.
 */
#define TDX_SIM_SEAMLDR_EBADCALL UINT64_C(0x8000000000000003)

/**
 * P-SEAMLDR: the handoff data is missing, too large, or of a version that the new module does not
 * accept.
 */
#define TDX_SIM_SEAMLDR_EBADHANDOFF UINT64_C(0x8000000000000004)

/**
 * P-SEAMLDR: keys or caches are dirty; call SEAMLDR.CLEANUP first.
 */
#define TDX_SIM_SEAMLDR_ECLEANUPREQ UINT64_C(0x8000000000000005)

/**
 * P-SEAMLDR: the major SVN of the image is 0, or differs from the running module's.
 */
#define TDX_SIM_SEAMLDR_EUNSUPPORTED UINT64_C(0x8000000000000006)

/**
 * P-SEAMLDR: the module does not fit into the SEAM range.
 */
#define TDX_SIM_SEAMLDR_ENOMEM UINT64_C(0x8000000000010002)

/**
 * P-SEAMLDR: the x2APIC id is out of range, or RDRAND failed at the first entry.
 */
#define TDX_SIM_SEAMLDR_EUNSPECERR UINT64_C(0x8000000000010003)

/**
 * P-SEAMLDR: a processor is not in the image's list of CPUs.
 */
#define TDX_SIM_SEAMLDR_EUNSUPCPU UINT64_C(0x8000000000010004)

/**
 * P-SEAMLDR: a field of the SIGSTRUCT, the signer, the SVN or the signature is invalid.
 */
#define TDX_SIM_SEAMLDR_EBADSIG UINT64_C(0x8000000000020000)

/**
 * P-SEAMLDR: the hash of the module is not the signed one.
 */
#define TDX_SIM_SEAMLDR_EBADHASH UINT64_C(0x8000000000020001)

/**
 * P-SEAMLDR: an interrupt is pending; call again.
 */
#define TDX_SIM_SEAMLDR_EINTERRUPT UINT64_C(0x8000000000030000)

/**
 * P-SEAMLDR: RDRAND failed.
 */
#define TDX_SIM_SEAMLDR_ENOENTROPY UINT64_C(0x8000000000030001)

/**
 * Module: an operand is invalid. The low 32 bits name the operand.
 */
#define TDX_SIM_TDX_OPERAND_INVALID UINT64_C(0xc000010000000000)

/**
 * Module: another LP is inside the module, or holds its global lock.
 */
#define TDX_SIM_TDX_SYS_BUSY UINT64_C(0x8000020200000000)

/**
 * Module: RDRAND failed.
 */
#define TDX_SIM_TDX_RND_NO_ENTROPY UINT64_C(0x8000020300000000)

/**
 * Module: the module is already initialised.
 */
#define TDX_SIM_TDX_SYS_INIT_NOT_PENDING UINT64_C(0xc000050000000000)

/**
 * Module: this LP is not initialised.
 */
#define TDX_SIM_TDX_SYS_LP_INIT_NOT_DONE UINT64_C(0xc000050200000000)

/**
 * Module: this LP is already initialised.
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
 * Module: there is no handoff data, or the module does not accept its version.
 */
#define TDX_SIM_TDX_SYS_INVALID_HANDOFF UINT64_C(0xc000050900000000)

/**
 * Module: the handoff versions or pages in the SIGSTRUCT differ from the module's own.
 */
#define TDX_SIM_TDX_SYS_INCOMPATIBLE_SIGSTRUCT UINT64_C(0xc000050a00000000)

/**
 * Module: the module does not wait for LPs.
 */
#define TDX_SIM_TDX_SYS_LP_INIT_NOT_PENDING UINT64_C(0xc000050b00000000)

/**
 * Module: SEAMOPS capabilities are missing, or differ between LPs.
 */
#define TDX_SIM_TDX_INCOMPATIBLE_SEAM_CAPABILITIES UINT64_C(0xc000050d00000000)

/**
 * Module: TDs are in build, or a migration is interrupted. Bits 15:0: reason; bits 31:16: number.
 */
#define TDX_SIM_TDX_UPDATE_COMPATIBILITY_SENSITIVE UINT64_C(0x8000051200000000)

/**
 * Module: an MSR differs between LPs. The low 32 bits are its number.
 */
#define TDX_SIM_TDX_INCONSISTENT_MSR UINT64_C(0xc000092000000000)

/**
 * SEAMLDR.INSTALL: discard all TDs.
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
 * Size of the area for handoff data in bytes, including its header.
 */
#define TDX_SIM_HANDOFF_SIZE 131072

/**
 * Size of a page in bytes.
 */
#define TDX_SIM_PAGE_SIZE 4096

/**
 * The most calls that a platform stores.
 */
#define TDX_SIM_TRACE_LIMIT 1000000

/**
 * Any LP, or no LP.
 */
#define TDX_SIM_ANY_LP UINT32_C(0xffffffff)

/**
 * The number of times of a permanent fault: 4,294,967,295.
 */
#define TDX_SIM_ALWAYS UINT32_C(0xffffffff)

/**
 * The most faults that can be planned at the same time.
 */
#define TDX_SIM_MAX_FAULTS 32

/**
 * The longest time that a delayed call waits for other calls, in milliseconds.
 */
#define TDX_SIM_DELAY_LIMIT_MS 1000

/**
 * Result of a function of this library: 0, or a negative number. After an error the function has
 * done and written nothing, unless its description says otherwise. tdx_sim_last_error() gives the
 * details.
 */
typedef enum tdx_sim_status {
  /**
   * Success.
   */
  TDX_SIM_STATUS_OK = 0,
  /**
   * A pointer is NULL.
   */
  TDX_SIM_STATUS_NULL = -1,
  /**
   * A pointer or a physical address is misaligned.
   */
  TDX_SIM_STATUS_UNALIGNED = -2,
  /**
   * The field `size` of a structure is wrong. Set it to `sizeof` of the structure.
   */
  TDX_SIM_STATUS_BAD_SIZE = -3,
  /**
   * An argument or a field has an invalid value.
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
   * The arguments contradict each other.
   */
  TDX_SIM_STATUS_CONTRADICTION = -9,
  /**
   * The platform has no such LP.
   */
  TDX_SIM_STATUS_UNKNOWN_LP = -10,
  /**
   * Another thread's SEAMCALL on this LP has not ended.
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
   * A length is 0, not a multiple of 4096, or exceeds the address space.
   */
  TDX_SIM_STATUS_BAD_LENGTH = -14,
  /**
   * Some of the physical addresses are already mapped.
   */
  TDX_SIM_STATUS_OVERLAP = -15,
  /**
   * No mapped memory begins at this address.
   */
  TDX_SIM_STATUS_NOT_MAPPED = -16,
  /**
   * There is no room for another object.
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
   * The TD is in another phase.
   */
  TDX_SIM_STATUS_BAD_PHASE = -21,
  /**
   * No ready module knows the TD: the TD is lost, or the module is not ready yet.
   */
  TDX_SIM_STATUS_TD_GONE = -22,
  /**
   * The module found that an update left a measurement or a MAC of this TD that it cannot
   * continue.
   */
  TDX_SIM_STATUS_TD_INCOMPATIBLE = -23,
  /**
   * Firmware refused a call that the library made.
   */
  TDX_SIM_STATUS_REFUSED = -24,
  /**
   * The file is not an image of a TDX module.
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
   * The library failed internally, in this call or in an earlier call for the same platform.
   * The platform can only be freed.
   */
  TDX_SIM_STATUS_INTERNAL = -28,
} tdx_sim_status;

/**
 * Whether the instruction itself failed.
 */
typedef enum tdx_sim_trap {
  /**
   * Firmware was entered and returned.
   */
  TDX_SIM_TRAP_NONE = 0,
  /**
   * VMfailInvalid, the carry flag: no firmware can be called, another LP is inside P-SEAMLDR,
   * or firmware hit a fatal error.
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
 * A register that CPUID writes.
 */
typedef enum tdx_sim_cpuid_output {
  TDX_SIM_CPUID_OUTPUT_EAX = 0,
  TDX_SIM_CPUID_OUTPUT_EBX = 1,
  TDX_SIM_CPUID_OUTPUT_ECX = 2,
  TDX_SIM_CPUID_OUTPUT_EDX = 3,
} tdx_sim_cpuid_output;

/**
 * The oldest public release with a given behaviour. A 2.0 module behaves as the 1.5 module of the
 * same time.
 */
typedef enum tdx_sim_module_generation {
  /**
   * 1.5.01, which was recorded.
   */
  TDX_SIM_MODULE_GENERATION_V1501 = 0,
  /**
   * 1.5.05 and 2.0.02: TDH.SYS.RD also has the field that Linux 7.2 reads.
   */
  TDX_SIM_MODULE_GENERATION_V1505 = 1,
  /**
   * 1.5.28 and 2.0.16: TDH.SYS.UPDATE does not check the size of the handoff data.
   */
  TDX_SIM_MODULE_GENERATION_V1528 = 2,
  /**
   * 1.5.34 and 2.0.18: TDH.SYS.UPDATE checks its operands first, and TDH.SYS.INIT has a version
   * 1.
   */
  TDX_SIM_MODULE_GENERATION_V1534 = 3,
} tdx_sim_module_generation;

/**
 * What a fault does to a call.
 */
typedef enum tdx_sim_fault_kind {
  /**
   * Sets RAX and RDX. Firmware does nothing. Exception: SEAMLDR.INSTALL with RDX not 0 destroys
   * the module and all TDs, because RDX says so.
   */
  TDX_SIM_FAULT_KIND_RETURN = 1,
  /**
   * Makes the instruction fail. Firmware is not entered.
   */
  TDX_SIM_FAULT_KIND_TRAP = 2,
  /**
   * Enters firmware, and returns only after `delay` calls of other threads, or after
   * TDX_SIM_DELAY_LIMIT_MS. The other calls find the LP inside firmware.
   */
  TDX_SIM_FAULT_KIND_DELAY = 3,
} tdx_sim_fault_kind;

/**
 * The form in which a module writes its handoff data.
 */
typedef enum tdx_sim_handoff_form {
  /**
   * As 1.5.01, in every version.
   */
  TDX_SIM_HANDOFF_FORM_PLAIN = 0,
  /**
   * As the 2.0 modules: version 0 has data of TDX Connect.
   */
  TDX_SIM_HANDOFF_FORM_CONNECT = 1,
  /**
   * Version 1 has the counts for UPDATE_COMPATIBILITY.
   */
  TDX_SIM_HANDOFF_FORM_COUNTING = 2,
  /**
   * As the newest modules: the size is rounded up to pages.
   */
  TDX_SIM_HANDOFF_FORM_ROUNDED = 3,
} tdx_sim_handoff_form;

/**
 * Format of an image file.
 */
typedef enum tdx_sim_image_format {
  /**
   * The format of Intel's releases (version 0x100).
   */
  TDX_SIM_IMAGE_FORMAT_V1 = 1,
  /**
   * The format of Linux 7.2 (version 0x200).
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
   * Held shared.
   */
  TDX_SIM_LOCK_SHARED = 1,
  /**
   * Held exclusively.
   */
  TDX_SIM_LOCK_EXCLUSIVE = 2,
} tdx_sim_lock;

/**
 * State of a module.
 */
typedef enum tdx_sim_module_state {
  /**
   * There is no module.
   */
  TDX_SIM_MODULE_STATE_NONE = 0,
  /**
   * Installed.
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
   * After TDH.SYS.SHUTDOWN. No call leaves this state.
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
   * 1.0, which cannot preserve TDs.
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
 * Phase of a TD.
 */
typedef enum tdx_sim_td_phase {
  /**
   * Running.
   */
  TDX_SIM_TD_PHASE_RUNNING = 0,
  /**
   * In build, between TDH.MNG.INIT and TDH.MR.FINALIZE; the measurement is not complete.
   */
  TDX_SIM_TD_PHASE_IN_BUILD = 1,
  /**
   * A step of the TD's migration was interrupted.
   */
  TDX_SIM_TD_PHASE_INTERRUPTED_MIGRATION = 2,
} tdx_sim_td_phase;

/**
 * A simulated platform. C sees only a handle, not a valid pointer.
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
   * Size in bytes.
   */
  uint64_t bytes;
} tdx_sim_cmr;

/**
 * The configuration of a platform. tdx_sim_platform_defaults() fills it in.
 */
typedef struct tdx_sim_platform {
  /**
   * sizeof(tdx_sim_platform), set by the caller.
   */
  uint32_t size;
  /**
   * Number of LPs that firmware counts. P-SEAMLDR and the module wait for all of them. 1 to
   * 1024; default 4. LPs have the numbers 0 to `num_lps` - 1.
   */
  uint32_t num_lps;
  /**
   * Number of sockets, 1 to 8; default 1.
   */
  uint32_t num_sockets;
  /**
   * Generation of P-SEAMLDR; default 1.5.00.
   */
  enum tdx_sim_generation generation;
  /**
   * CPUID.1:EAX of each socket; default 0x806f8.
   */
  uint32_t socket_fms[8];
  /**
   * x2APIC id of each LP. NULL: spread evenly over the sockets. Read only while the platform is
   * created.
   */
  const uint32_t *x2apic_ids;
  /**
   * Number of x2APIC ids; 0 if `x2apic_ids` is NULL. More than `num_lps`: the platform has LPs
   * that firmware does not count.
   */
  uint32_t num_x2apic_ids;
  /**
   * x2APIC id of the LP that has to call SEAMLDR.SHUTDOWN last; default 0xffffffff: that of LP
   * 0.
   */
  uint32_t acm_x2apicid;
  /**
   * Width of physical addresses in bits, including the KeyID bits; at most 52, default 46.
   */
  uint32_t max_pa;
  /**
   * Number of KeyID bits, at the top of physical addresses; default 6.
   */
  uint32_t keyid_bits;
  /**
   * The first private KeyID: KeyIDs from here on belong to TDs; default 0x20.
   */
  uint64_t private_hkid_min;
  /**
   * Base address of the SEAM range, a multiple of its size.
   */
  uint64_t seamrr_base;
  /**
   * Size of the SEAM range in bytes, a power of two; default 256 MiB.
   */
  uint64_t seamrr_size;
  /**
   * Size in bytes of P-SEAMLDR's own range, at the end of the SEAM range; default 4 MiB.
   */
  uint64_t p_seamldr_size;
  /**
   * Number of LPs that could share a socket's last-level cache, from CPUID leaf 4; 0: the
   * number of LP slots. The memory that a module needs depends on it.
   */
  uint32_t addressable_lps_per_socket;
  /**
   * Number of low bits of x2APIC ids that number the LPs of a package; 0xffffffff: as few as
   * leave `num_sockets` packages.
   */
  uint32_t package_shift;
  /**
   * SHA-384 of the modulus of the key that P-SEAMLDR trusts; default: the test key of
   * tdx_sim_sign().
   */
  uint8_t signer[48];
  /**
   * The number that RDRAND returns.
   */
  uint64_t rdrand_value;
  /**
   * SEAMOPS capabilities of each LP; default 0x7f.
   */
  uint64_t seamops_capabilities;
  /**
   * Number of entries of the SEAM database; default 64.
   */
  uint32_t seamdb_size;
  /**
   * Number of used entries; default 0.
   */
  uint32_t seamdb_used;
  /**
   * Regions of convertible memory, at most 32. NULL: from 1 MiB to 2 GiB, and from 4 GiB on
   * without the SEAM range. Read only while the platform is created.
   */
  const struct tdx_sim_cmr *cmrs;
  /**
   * Number of regions; 0 if `cmrs` is NULL.
   */
  uint32_t num_cmrs;
  /**
   * Whether RDRAND succeeds; default true.
   */
  bool rdrand_ok;
  /**
   * Whether debug modules may be installed (bit 1 of MSR 0x503); default false.
   */
  bool debug_unlocked;
  /**
   * Whether the processor has the erratum of IA32_VMX_BASIC bit 60: when P-SEAMLDR returns, the
   * LP has no current VMCS; default false.
   */
  bool seamret_clears_vmcs;
  /**
   * Whether a full SEAM database returns an error that is fatal to P-SEAMLDR, so that
   * SEAMLDR.INSTALL is fatal; default false: it looks like a lack of entropy. The
   * specifications leave this open.
   */
  bool full_seamdb_is_fatal;
  /**
   * Whether P-SEAMLDR reduces a signature that is not below the modulus, as one crypto library
   * does; default false: P-SEAMLDR rejects it.
   */
  bool accepts_large_signatures;
  /**
   * Whether the platform does not support SMRR2; default false.
   */
  bool smrr2_not_supported;
  /**
   * Whether TDX works without integrity; default false.
   */
  bool tdx_without_integrity;
  /**
   * Whether P-SEAMLDR reports a debug build; default false.
   */
  bool seamldr_debug;
  /**
   * 0.
   */
  uint32_t reserved;
} tdx_sim_platform;

/**
 * Reads `len` bytes of host memory at `physical_address`, including the KeyID, into `buffer`. The
 * bytes lie in one page. Returns 0 on success. Missing memory reads as 0 and is not an error.
 */
typedef int (*tdx_sim_read_callback)(void *context,
                                     uint64_t physical_address,
                                     void *buffer,
                                     size_t len);

/**
 * Writes `len` bytes to host memory at `physical_address`, including the KeyID. The bytes lie in
 * one page. Returns 0 on success. Writes to missing memory have no effect and are not an error.
 */
typedef int (*tdx_sim_write_callback)(void *context,
                                      uint64_t physical_address,
                                      const void *bytes,
                                      size_t len);

/**
 * Callbacks that read and write the host's memory.
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
   * Passed to the functions as `context`. May be NULL.
   */
  void *context;
  /**
   * Read function. Not NULL.
   */
  tdx_sim_read_callback read;
  /**
   * Write function. Not NULL.
   */
  tdx_sim_write_callback write;
} tdx_sim_memory_callbacks;

/**
 * The registers of SEAMCALL, before and after the call.
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
   * The LP.
   */
  uint32_t lp;
  /**
   * Number of the call on this platform, from 1, in the order in which calls ended. A gap shows
   * calls that were not stored.
   */
  uint64_t number;
  /**
   * Whether the instruction itself failed. If so, `output` equals `input`.
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
 * Called after each SEAMCALL. `call` is valid until the function returns; `call->size` is the
 * library's size.
 */
typedef void (*tdx_sim_trace_callback)(void *context, const struct tdx_sim_call *call);

/**
 * The real state of a platform.
 */
typedef struct tdx_sim_truth {
  /**
   * sizeof(tdx_sim_truth), set by the caller.
   */
  uint32_t size;
  /**
   * State of the module.
   */
  enum tdx_sim_module_state module_state;
  /**
   * Whether there is a module in the SEAM range.
   */
  bool module_present;
  /**
   * Whether SEAMCALL reaches the module.
   */
  bool module_callable;
  /**
   * Whether SEAM_READY in SEAMEXTEND is 1.
   */
  bool seam_ready;
  /**
   * Whether P_SEAMLDR_READY in SEAMEXTEND is 1: P-SEAMLDR can be called.
   */
  bool p_seamldr_ready;
  /**
   * Whether the handoff data is valid.
   */
  bool handoff_valid;
  /**
   * Whether firmware hit a fatal error. No SEAMCALL succeeds until the next boot.
   */
  bool dead;
  /**
   * Whether debug modules may be installed.
   */
  bool debug_unlocked;
  /**
   * Whether P-SEAMLDR was entered since boot.
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
   * Size of the handoff data in bytes, without its header.
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
   * Highest handoff version that P-SEAMLDR told the module, or 0.
   */
  uint16_t module_hv;
  /**
   * Lowest handoff version that P-SEAMLDR told the module, or 0.
   */
  uint16_t min_update_hv;
  /**
   * Number of handoff pages that P-SEAMLDR told the module, minus one, or 0.
   */
  uint16_t num_handoff_pages;
  /**
   * The module's own KeyID, or 0.
   */
  uint16_t module_hkid;
  /**
   * Number of LPs that the module has initialised. tdx_sim_get_lp() says which.
   */
  uint32_t lps_initialized;
  /**
   * Packages that have the module's key, a bit each.
   */
  uint32_t packages_configured;
  /**
   * Number of TDMRs of the module.
   */
  uint32_t tdmrs;
  /**
   * The module's global lock.
   */
  enum tdx_sim_lock global_lock;
  /**
   * Number of remaining updates that P-SEAMLDR remembers.
   */
  uint32_t remaining_updates;
  /**
   * Number of LPs in the open INSTALL session; 0 if no session is open.
   */
  uint32_t lps_in_session;
  /**
   * Number of LPs that have called SEAMLDR.SHUTDOWN.
   */
  uint32_t lps_in_shutdown;
  /**
   * The LP that is inside P-SEAMLDR, or TDX_SIM_ANY_LP.
   */
  uint32_t lp_in_p_seamldr;
  /**
   * Number of entries of the SEAM database.
   */
  uint32_t seamdb_size;
  /**
   * Number of used entries.
   */
  uint32_t seamdb_used;
  /**
   * How many of the next insertions fail.
   */
  uint32_t seamdb_failures;
  /**
   * Number of LPs that firmware counts.
   */
  uint32_t num_lps;
  /**
   * Number of TDs that were made.
   */
  uint32_t tds;
  /**
   * Number of TDs that can run and whose memory is intact.
   */
  uint32_t tds_alive;
  /**
   * TDX_FEATURES0 of the module's build, or 0.
   */
  uint64_t features0;
  /**
   * Number of SEAMCALLs that were begun.
   */
  uint64_t calls;
  /**
   * The VMCS that the last call evicted, or 0xffffffffffffffff.
   */
  uint64_t evicted_vmcs;
} tdx_sim_truth;

/**
 * The real state of an LP.
 */
typedef struct tdx_sim_lp {
  /**
   * sizeof(tdx_sim_lp), set by the caller.
   */
  uint32_t size;
  /**
   * x2APIC id.
   */
  uint32_t x2apic_id;
  /**
   * Package.
   */
  uint32_t package;
  /**
   * The trap that tdx_sim_set_lp_trap() has set.
   */
  enum tdx_sim_trap trap;
  /**
   * Physical address of the current VMCS; 0xffffffffffffffff: none.
   */
  uint64_t current_vmcs;
  /**
   * SEAMOPS capabilities.
   */
  uint64_t capabilities;
  /**
   * Whether the module has initialised the LP.
   */
  bool initialized;
  /**
   * Whether the LP is inside the module.
   */
  bool in_module;
  /**
   * Whether the LP is inside a SEAMCALL.
   */
  bool in_call;
  /**
   * Whether the LP takes part in the open INSTALL session.
   */
  bool in_session;
  /**
   * Whether firmware counts the LP.
   */
  bool counted;
  /**
   * 0.
   */
  uint8_t reserved[3];
} tdx_sim_lp;

/**
 * SEAMEXTEND: the installed module, as the processor attests it. 136 bytes.
 */
typedef struct tdx_sim_seamextend {
  /**
   * 0x1ff if a module was installed, 0 without a module.
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
 * State of a TD.
 */
typedef struct tdx_sim_td {
  /**
   * sizeof(tdx_sim_td), set by the caller.
   */
  uint32_t size;
  /**
   * Phase.
   */
  enum tdx_sim_td_phase phase;
  /**
   * Whether a ready module knows the TD's KeyID, and the TD's memory is intact.
   */
  bool alive;
  /**
   * Whether the measurement (MRTD) so far, or the MAC of the migration so far, is correct.
   */
  bool measurement_right;
  /**
   * 0.
   */
  uint8_t reserved[6];
  /**
   * The measurement or MAC so far. Not a real hash.
   */
  uint8_t measurement[32];
} tdx_sim_td;

/**
 * A fault and the calls that it affects.
 */
typedef struct tdx_sim_fault {
  /**
   * sizeof(tdx_sim_fault), set by the caller.
   */
  uint32_t size;
  /**
   * The LP, or TDX_SIM_ANY_LP.
   */
  uint32_t lp;
  /**
   * RAX before the call, all 64 bits. Ignored if `any_rax` is true.
   */
  uint64_t rax;
  /**
   * Whether RAX may have any value.
   */
  bool any_rax;
  /**
   * 0.
   */
  uint8_t reserved[3];
  /**
   * Number of matching calls that pass before the fault.
   */
  uint32_t after;
  /**
   * Number of matching calls that the fault then affects; not 0. TDX_SIM_ALWAYS: practically
   * all.
   */
  uint32_t times;
  /**
   * What the fault does.
   */
  enum tdx_sim_fault_kind kind;
  /**
   * TDX_SIM_FAULT_KIND_TRAP: the trap, other than TDX_SIM_TRAP_NONE.
   */
  enum tdx_sim_trap trap;
  /**
   * TDX_SIM_FAULT_KIND_DELAY: number of calls; not 0.
   */
  uint32_t delay;
  /**
   * TDX_SIM_FAULT_KIND_RETURN: RAX after the call.
   */
  uint64_t answer_rax;
  /**
   * TDX_SIM_FAULT_KIND_RETURN: RDX after the call.
   */
  uint64_t answer_rdx;
} tdx_sim_fault;

/**
 * Build-time properties of a module that its SIGSTRUCT does not contain. tdx_sim_build_defaults()
 * or tdx_sim_release_build() fills it in.
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
   * Build date, YYYYMMDD, a decimal number.
   */
  uint32_t build_date;
  /**
   * Build number.
   */
  uint16_t build_num;
  /**
   * Highest handoff version. TDH.SYS.INIT fails if the SIGSTRUCT has another one.
   */
  uint16_t module_hv;
  /**
   * Lowest handoff version.
   */
  uint16_t min_update_hv;
  /**
   * Whether the module writes its highest handoff version only.
   */
  bool no_downgrade;
  /**
   * Version of the contexts of hashes and MACs in progress; 0: not reported. A module cannot
   * continue contexts of another version, or of a module that reports none.
   */
  uint8_t crypto_context;
  /**
   * Form of the handoff data.
   */
  enum tdx_sim_handoff_form handoff_form;
  /**
   * Behaviour of the leaves.
   */
  enum tdx_sim_module_generation generation;
  /**
   * TDX_FEATURES0.
   */
  uint64_t features0;
} tdx_sim_build;

/**
 * A description of an image. tdx_sim_image_defaults() fills it in. For properties without a field
 * here, change the SIGSTRUCT from tdx_sim_make_image() and sign it again with tdx_sim_sign().
 */
typedef struct tdx_sim_image {
  /**
   * sizeof(tdx_sim_image), set by the caller.
   */
  uint32_t size;
  /**
   * Number of 4 KiB pages of the module, 1 to TDX_SIM_MAX_MODULE_PAGES. With fewer than 3, the
   * default `gdt_idt_offset` and `fault_wrapper_offset` lie outside the module.
   */
  uint32_t pages;
  /**
   * Build date, YYYYMMDD, one hexadecimal digit each.
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
   * Whether the module writes its highest handoff version only.
   */
  bool no_downgrade;
  /**
   * Whether this is a debug module.
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
   * Fill byte of the unused part of the module.
   */
  uint8_t fill;
  /**
   * Whether the SIGSTRUCT contains `seamhash` instead of the hash of the module.
   */
  bool seamhash_given;
  /**
   * SHA-384, used if `seamhash_given` is true.
   */
  uint8_t seamhash[48];
  /**
   * 0.
   */
  uint8_t reserved[2];
  /**
   * Number of CPUs in the list, at most TDX_SIM_MAX_CPUS.
   */
  uint32_t num_cpus;
  /**
   * CPUs that the module runs on: CPUID.1:EAX without the stepping.
   */
  uint32_t cpus[TDX_SIM_MAX_CPUS];
  /**
   * Build of the module. NULL: derived from the SIGSTRUCT. As with released modules, the SVN
   * then determines the version: SVN 1.5 is version 1.5.05. Read only while the image is made.
   */
  const struct tdx_sim_build *build;
} tdx_sim_image;

/**
 * SIGSTRUCT: the signed properties of a module. 2048 bytes. Misaligned numbers are arrays of
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
 * SEAMLDR_INFO, the result of SEAMLDR.INFO. The address has to be a multiple of 256.
 */
typedef struct tdx_sim_seamldr_info {
  /**
   * 0.
   */
  uint32_t version;
  /**
   * Bit 31: P-SEAMLDR is a debug build.
   */
  uint32_t attributes;
  /**
   * 0x8086.
   */
  uint32_t vendor;
  /**
   * Build date, YYYYMMDD, a decimal number.
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
 * SEAMLDR_PARAMS, the parameters of SEAMLDR.INSTALL. The address has to be a multiple of 4096.
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
   * Number of pages of the module.
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
 * Returns the version of the library at run time, in the form of TDX_SIM_VERSION. Header and
 * library match if the versions are equal. They also match if the first number that is not 0 is
 * equal, and the rest is not lower than the header's.
 */
uint32_t tdx_sim_version(void);

/**
 * Returns the name of a status, e.g. "TDX_SIM_STATUS_NULL". The text is static and never NULL; the
 * name of an unknown number is "unknown status".
 */
const char *tdx_sim_status_name(enum tdx_sim_status status);

/**
 * Returns a description of the last call of this thread that did not return TDX_SIM_STATUS_OK:
 * what was found, and what was expected. The text is empty if no call has failed, and never NULL.
 * It is valid until the next call of this library in this thread.
 */
const char *tdx_sim_last_error(void);

/**
 * Fills in a platform of 4 LPs on 1 socket, with P-SEAMLDR 1.5.00 that trusts the test key.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE.
 *
 * The caller guarantees:
 *
 * `platform` points to a writable tdx_sim_platform whose `size` is set.
 */
enum tdx_sim_status tdx_sim_platform_defaults(struct tdx_sim_platform *platform);

/**
 * Creates a platform as boot firmware leaves it: with P-SEAMLDR, without a module. tdx_sim_boot()
 * installs a module. On success `*sim` is the handle of the platform; free it with tdx_sim_free().
 * On failure `*sim` is NULL.
 *
 * Errors: NULL, UNALIGNED: `*sim` is not set if `sim` itself is wrong; BAD_SIZE; BAD_ARGUMENT: a
 * field has an invalid value; CONTRADICTION: fields contradict each other, e.g. two LPs have the
 * same x2APIC id; NO_ROOM: no memory or no handle is left.
 *
 * The caller guarantees:
 *
 * `platform` points to a readable tdx_sim_platform whose `size` is set, and the pointers in it to
 * the given number of readable values. `sim` points to a writable pointer.
 */
enum tdx_sim_status tdx_sim_create(const struct tdx_sim_platform *platform, struct tdx_sim **sim);

/**
 * Creates a platform from a description: a JSON object with `platform` and `initial`, in the form
 * of the project's recordings. The files README.md in the folders of
 * crates/tdx-seamldr-mock/vectors describe the form. The platform can begin in any state.
 *
 * `platform` may also have `loader_generation` ("1.0", "1.5.00", "newer" or "2.0.00"),
 * `seamret_clears_vmcs`, `full_seamdb_is_fatal` and `accepts_large_signatures`. `initial.module`
 * may also have `features0`.
 *
 * On success `*sim` is the handle of the platform; free it with tdx_sim_free(). On failure `*sim`
 * is NULL.
 *
 * Errors: NULL, UNALIGNED: `*sim` is not set if `sim` itself is wrong; NOT_UTF8; BAD_DESCRIPTION:
 * the text is not JSON, a field is missing or unknown, or fields contradict each other;
 * tdx_sim_last_error() says which; NO_ROOM: no memory or no handle is left.
 *
 * The caller guarantees:
 *
 * `description` points to text that ends with NUL. `sim` points to a writable pointer.
 */
enum tdx_sim_status tdx_sim_create_from_json(const char *description, struct tdx_sim **sim);

/**
 * Boots a platform that has no module. Firmware loads the module of an image with all checks of
 * P-SEAMLDR. Then a kernel initialises the module on all LPs that firmware counts, until the
 * module reaches the state `until`. TDX_SIM_MODULE_STATE_READY: TDs can run.
 * TDX_SIM_MODULE_STATE_SYS_INIT_PENDING: the kernel has not begun.
 *
 * `file` is an image file of either format, from tdx_sim_image_file() or from Intel. It is read
 * only during this call. Planned faults do not affect the boot, its calls are not in the trace,
 * and RDRAND succeeds.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `until` is not a state of a module;
 * BAD_IMAGE; CONTRADICTION: there is already a module, or an LP is inside a call; REFUSED:
 * firmware refused a call, see tdx_sim_last_error(). The effects of earlier calls remain.
 *
 * The caller guarantees:
 *
 * `file` points to `file_size` readable bytes.
 */
enum tdx_sim_status tdx_sim_boot(struct tdx_sim *sim,
                                 const void *file,
                                 size_t file_size,
                                 enum tdx_sim_module_state until);

/**
 * Frees a platform. Waits for a SEAMCALL that is in progress; a delayed one ends with BAD_HANDLE.
 * After this call the library uses neither mapped memory nor callbacks.
 *
 * Errors: NULL; BAD_HANDLE: also if the platform was freed before; REENTRANT.
 */
enum tdx_sim_status tdx_sim_free(struct tdx_sim *sim);

/**
 * Maps `len` bytes at `memory` as host memory at `physical_address`, including the KeyID, until
 * tdx_sim_unmap() or tdx_sim_free(). Firmware reads and writes these bytes.
 *
 * The callbacks of tdx_sim_set_memory_callbacks() handle all other memory. Without callbacks it
 * reads as 0, and writes have no effect. The same memory may be mapped at several physical
 * addresses.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNALIGNED: `physical_address` is not a multiple of 4096
 * (`memory` may have any alignment); BAD_LENGTH: `len` is 0, not a multiple of 4096, or too large;
 * OVERLAP: some of the physical addresses are already mapped.
 *
 * The caller guarantees:
 *
 * Until the memory is unmapped or the platform is freed, `memory` points to `len` readable and
 * writable bytes. While a tdx_sim_seamcall() runs, no other thread writes the bytes that this call
 * reads, nor reads or writes the bytes that it writes. The leaf and its operands determine these
 * bytes: SEAMLDR_PARAMS, the SIGSTRUCT and the module's pages that it names, or the result buffer.
 * Other threads may use all other mapped bytes meanwhile.
 */
enum tdx_sim_status tdx_sim_map(struct tdx_sim *sim,
                                uint64_t physical_address,
                                void *memory,
                                size_t len);

/**
 * Unmaps the memory that tdx_sim_map() mapped at `physical_address`. The library no longer uses
 * this memory.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; NOT_MAPPED: no mapped memory begins there.
 */
enum tdx_sim_status tdx_sim_unmap(struct tdx_sim *sim, uint64_t physical_address);

/**
 * Sets the functions with which firmware reads and writes host memory that tdx_sim_map() has not
 * mapped. NULL removes the functions. An emulator uses this to provide all of its memory.
 *
 * The thread that makes the SEAMCALL calls the functions. They have to return, and must not wait
 * for another thread that uses the same platform. Functions that take a platform return REENTRANT
 * inside them. If a callback returns a value other than 0, the SEAMCALL continues with zeros
 * instead of the bytes, and tdx_sim_seamcall() returns CALLBACK_FAILED.
 *
 * Errors: NULL: also if `read` or `write` is NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `reserved`
 * is not 0; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `callbacks` points to a readable tdx_sim_memory_callbacks whose `size` is set, or is NULL. Until
 * the callbacks are replaced or the platform is freed, each thread that makes SEAMCALLs on this
 * platform may call them with `context`. `read` writes at most `len` bytes of `buffer`, and
 * `write` reads at most `len` bytes.
 */
enum tdx_sim_status tdx_sim_set_memory_callbacks(struct tdx_sim *sim,
                                                 const struct tdx_sim_memory_callbacks *callbacks);

/**
 * Makes firmware read the byte of host memory at `physical_address` with the bits of `mask`
 * flipped. A mask of 0 restores the byte. At most 8 bytes can be flipped at the same time.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; NO_ROOM.
 */
enum tdx_sim_status tdx_sim_flip_memory(struct tdx_sim *sim,
                                        uint64_t physical_address,
                                        uint8_t mask);

/**
 * Executes SEAMCALL on an LP with these registers. `*trap` says whether the instruction itself
 * failed. If not, `*regs` are the registers that firmware returned; otherwise they do not change.
 * The status is in `regs->rax` and is not an error of this function. Signatures are checked with
 * RSA-3072 and SHA-384.
 *
 * `lp` is the number of the LP: its place in the platform's list, counted from 0, not its x2APIC
 * id. An LP that firmware counts but that never calls this function is offline.
 * tdx_sim_set_lp_trap() takes an LP out of VMX operation.
 *
 * Different threads may call for different LPs at the same time. The calls are executed one after
 * the other, unless a fault delays one of them. Other LPs then find the delayed LP inside
 * firmware.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; UNKNOWN_LP; LP_BUSY: another thread's call for
 * the same LP is delayed, and a real LP could not execute a second call; CALLBACK_FAILED: a
 * callback for memory failed. The call was made nevertheless, with zeros instead of missing bytes,
 * and `*regs` and `*trap` are set.
 *
 * The caller guarantees:
 *
 * `regs` points to writable registers, and `trap` to a writable tdx_sim_trap. For mapped memory
 * see tdx_sim_map().
 */
enum tdx_sim_status tdx_sim_seamcall(struct tdx_sim *sim,
                                     uint32_t lp,
                                     struct tdx_sim_regs *regs,
                                     enum tdx_sim_trap *trap);

/**
 * Sets a callback that is called with `context` after each SEAMCALL of this platform, in the
 * thread that makes the call. NULL removes the callback.
 *
 * The callback has to return, and must not wait for another thread that uses the same platform.
 * Functions that take a platform return REENTRANT inside it.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * Until the callback is replaced or the platform is freed, each thread that makes SEAMCALLs on
 * this platform may call it with `context`.
 */
enum tdx_sim_status tdx_sim_set_trace_callback(struct tdx_sim *sim,
                                               tdx_sim_trace_callback callback,
                                               void *context);

/**
 * Stores the last `limit` calls for tdx_sim_next_call(). 0: none. Discards the calls that are
 * stored.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `limit` is above TDX_SIM_TRACE_LIMIT.
 */
enum tdx_sim_status tdx_sim_keep_calls(struct tdx_sim *sim, uint32_t limit);

/**
 * Removes the oldest stored call and returns it. See tdx_sim_keep_calls().
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; NO_CALL: no call is stored.
 *
 * The caller guarantees:
 *
 * `call` points to a writable tdx_sim_call whose `size` is set.
 */
enum tdx_sim_status tdx_sim_next_call(struct tdx_sim *sim, struct tdx_sim_call *call);

/**
 * Writes a call as one line of text: LP, leaf, RCX and RDX, result. The text ends with a NUL, and
 * is cut if `text_size` is too small.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `call->trap` is not a tdx_sim_trap;
 * BUFFER_TOO_SMALL: `text_size` is 0.
 *
 * The caller guarantees:
 *
 * `call` points to a readable tdx_sim_call, `text` to `text_size` writable characters.
 */
enum tdx_sim_status tdx_sim_call_text(const struct tdx_sim_call *call,
                                      char *text,
                                      size_t text_size);

/**
 * Writes the name of the status that a SEAMCALL returned, e.g. "EBADSIG" or "SYS_BUSY". A status
 * without a name is written as a number. `leaf` is RAX before the call, `answer` is RAX after it.
 * The text ends with a NUL, and is cut if `text_size` is too small.
 *
 * Errors: NULL; BUFFER_TOO_SMALL: `text_size` is 0.
 *
 * The caller guarantees:
 *
 * `text` points to `text_size` writable characters.
 */
enum tdx_sim_status tdx_sim_answer_text(uint64_t leaf,
                                        uint64_t answer,
                                        char *text,
                                        size_t text_size);

/**
 * Returns the real state of a platform.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `truth` points to a writable tdx_sim_truth whose `size` is set.
 */
enum tdx_sim_status tdx_sim_get_truth(struct tdx_sim *sim, struct tdx_sim_truth *truth);

/**
 * Returns the real state of one LP.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 *
 * The caller guarantees:
 *
 * `state` points to a writable tdx_sim_lp whose `size` is set.
 */
enum tdx_sim_status tdx_sim_get_lp(struct tdx_sim *sim, uint32_t lp, struct tdx_sim_lp *state);

/**
 * Sets the result of RDRAND. `ok` true: RDRAND fails `failures` times, then returns `value`. `ok`
 * false: RDRAND always fails. P-SEAMLDR needs a number at its first entry and for each installed
 * module. The module needs one in TDH.SYS.INIT and in TDH.SYS.LP.INIT.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `ok` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_rdrand(struct tdx_sim *sim,
                                       bool ok,
                                       uint64_t value,
                                       uint32_t failures);

/**
 * Sets the SEAM database, in which the processor counts the modules that were installed since
 * boot. The database has `size` entries, of which `used` are used. The next `failures` insertions
 * fail for lack of entropy (0xffffffff: practically all). The number that P-SEAMLDR remembers does
 * not change: see tdx_sim_set_remaining_updates().
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; CONTRADICTION: `used` is above `size`.
 */
enum tdx_sim_status tdx_sim_set_seamdb(struct tdx_sim *sim,
                                       uint32_t size,
                                       uint32_t used,
                                       uint32_t failures);

/**
 * Sets the number of remaining updates that P-SEAMLDR remembers. If it is 0, SEAMLDR.INFO counts
 * the SEAM database again.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_set_remaining_updates(struct tdx_sim *sim, uint32_t count);

/**
 * Sets whether P-SEAMLDR was entered since boot. The first entry needs a random number.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `entered` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_p_seamldr_entered(struct tdx_sim *sim, bool entered);

/**
 * Sets whether debug modules may be installed: bit 1 of MSR 0x503.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `unlocked` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_debug_unlocked(struct tdx_sim *sim, bool unlocked);

/**
 * Makes the next `count` steps of SEAMLDR.CLEANUP find a pending interrupt.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_set_pending_interrupts(struct tdx_sim *sim, uint32_t count);

/**
 * Sets the results of the module's SEAMOPS(SEAMDB_GETREF) and PCONFIG; 0 is success. An error of
 * the first is fatal to TDH.SYS.INIT. TDH.SYS.KEY.CONFIG has statuses for the PCONFIG errors 2 (no
 * entropy) and 5 (busy); other errors are fatal.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_set_instruction_errors(struct tdx_sim *sim,
                                                   uint32_t seamdb_getref,
                                                   uint32_t pconfig);

/**
 * Sets how another LP holds the module's global lock. Calls that need the lock return
 * TDX_SIM_TDX_SYS_BUSY.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `lock` is not a tdx_sim_lock; NO_MODULE.
 */
enum tdx_sim_status tdx_sim_set_global_lock(struct tdx_sim *sim, enum tdx_sim_lock lock);

/**
 * Sets whether another LP is initialising a TDMR, given by its place in the list of
 * TDH.SYS.CONFIG: 0 to 63.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `tdmr` is above 63, or `held` is neither true
 * nor false; NO_MODULE.
 */
enum tdx_sim_status tdx_sim_set_tdmr_lock(struct tdx_sim *sim, uint32_t tdmr, bool held);

/**
 * Makes each SEAMCALL of one LP fail from now on. #UD: the LP is not in VMX operation. #GP: TDX is
 * not enabled. NONE ends this. TDX_SIM_TRAP_VMFAIL_INVALID is not possible here; use
 * tdx_sim_add_fault() for it.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; BAD_ARGUMENT: `trap` is not one of the three.
 */
enum tdx_sim_status tdx_sim_set_lp_trap(struct tdx_sim *sim, uint32_t lp, enum tdx_sim_trap trap);

/**
 * Sets whether one LP is inside the module, e.g. runs a TD. TDH.SYS.SHUTDOWN on other LPs then
 * returns TDX_SIM_TDX_SYS_BUSY, and calls of this LP to the module fail with VMfailInvalid.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; LP_BUSY: the LP is inside a SEAMCALL;
 * BAD_ARGUMENT: `inside` is neither true nor false.
 */
enum tdx_sim_status tdx_sim_set_lp_in_module(struct tdx_sim *sim, uint32_t lp, bool inside);

/**
 * Flips bits of an MSR on one LP, so that this LP differs from the others, or with TDX_SIM_ANY_LP
 * on all LPs. Flipping the same bits twice cancels. TDH.SYS.INIT checks MSRs. TDH.SYS.LP.INIT
 * compares them with those of the LP that called TDH.SYS.INIT.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; NO_ROOM: 2048 registers are already changed.
 */
enum tdx_sim_status tdx_sim_flip_lp_msr(struct tdx_sim *sim,
                                        uint32_t lp,
                                        uint32_t msr,
                                        uint64_t bits);

/**
 * Flips bits of one register that CPUID writes on one LP, or with TDX_SIM_ANY_LP on all LPs.
 * Flipping the same bits twice cancels. `subleaf` is 0xffffffff for leaves that have no subleaves.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; BAD_ARGUMENT: `output` is not a
 * tdx_sim_cpuid_output; NO_ROOM: 2048 registers are already changed.
 */
enum tdx_sim_status tdx_sim_flip_lp_cpuid(struct tdx_sim *sim,
                                          uint32_t lp,
                                          uint32_t leaf,
                                          uint32_t subleaf,
                                          enum tdx_sim_cpuid_output output,
                                          uint32_t bits);

/**
 * Sets the SEAMOPS capabilities of one LP.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 */
enum tdx_sim_status tdx_sim_set_lp_capabilities(struct tdx_sim *sim,
                                                uint32_t lp,
                                                uint64_t capabilities);

/**
 * Undoes tdx_sim_flip_lp_msr(), tdx_sim_flip_lp_cpuid() and tdx_sim_set_lp_capabilities() on one
 * LP, or with TDX_SIM_ANY_LP on all LPs.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
 */
enum tdx_sim_status tdx_sim_restore_lp(struct tdx_sim *sim, uint32_t lp);

/**
 * Executes VMPTRLD on one LP: `address` becomes its current VMCS. 0xffffffffffffffff: no current
 * VMCS.
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
 * `seamextend` points to a writable tdx_sim_seamextend.
 */
enum tdx_sim_status tdx_sim_get_seamextend(struct tdx_sim *sim,
                                           struct tdx_sim_seamextend *seamextend);

/**
 * Writes the register SEAMEXTEND, which no host could do. An open session stays open.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `seam_ready` or `p_seamldr_ready`
 * is neither 0 nor 1; CONTRADICTION: `seam_ready` is 1, but there is no module.
 *
 * The caller guarantees:
 *
 * `seamextend` points to a readable tdx_sim_seamextend.
 */
enum tdx_sim_status tdx_sim_set_seamextend(struct tdx_sim *sim,
                                           const struct tdx_sim_seamextend *seamextend);

/**
 * Reads `len` bytes of the handoff area from `offset`. The area begins with a header of 8 bytes
 * (valid u8, reserved u8, version u16, size u32), then the data. It has TDX_SIM_HANDOFF_SIZE
 * bytes.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_LENGTH: the bytes are not within the area.
 *
 * The caller guarantees:
 *
 * `bytes` points to `len` writable bytes.
 */
enum tdx_sim_status tdx_sim_read_handoff(struct tdx_sim *sim,
                                         size_t offset,
                                         void *bytes,
                                         size_t len);

/**
 * Writes `len` bytes to the handoff area from `offset`. See tdx_sim_read_handoff().
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; BAD_LENGTH: the bytes are not within the area.
 *
 * The caller guarantees:
 *
 * `bytes` points to `len` readable bytes.
 */
enum tdx_sim_status tdx_sim_write_handoff(struct tdx_sim *sim,
                                          size_t offset,
                                          const void *bytes,
                                          size_t len);

/**
 * Makes a TD in this phase. `*td` is its number on this platform, from 0; `td` may be NULL.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `phase` is not a tdx_sim_td_phase;
 * NOT_READY: no module is ready; NO_ROOM: no room or no KeyID is left.
 *
 * The caller guarantees:
 *
 * `td` points to a writable number, or is NULL.
 */
enum tdx_sim_status tdx_sim_create_td(struct tdx_sim *sim,
                                      enum tdx_sim_td_phase phase,
                                      uint32_t *td);

/**
 * Returns the state of a TD.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; UNKNOWN_TD.
 *
 * The caller guarantees:
 *
 * `state` points to a writable tdx_sim_td whose `size` is set.
 */
enum tdx_sim_status tdx_sim_get_td(struct tdx_sim *sim, uint32_t td, struct tdx_sim_td *state);

/**
 * Adds a page with these bytes to a TD in build, and to its measurement, as TDH.MEM.PAGE.ADD and
 * TDH.MR.EXTEND do.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_TD; BAD_LENGTH: `len` is above 4096; BAD_PHASE: the
 * TD is not in build; TD_GONE; TD_INCOMPATIBLE.
 *
 * The caller guarantees:
 *
 * `bytes` points to `len` readable bytes.
 */
enum tdx_sim_status tdx_sim_extend_td(struct tdx_sim *sim,
                                      uint32_t td,
                                      const void *bytes,
                                      size_t len);

/**
 * Completes the build of a TD, or its interrupted migration; the TD then runs. `*right` says
 * whether the measurement or the MAC is correct; `right` may be NULL.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_TD; BAD_PHASE: the TD already runs; TD_GONE;
 * TD_INCOMPATIBLE.
 *
 * The caller guarantees:
 *
 * `right` points to a writable bool, or is NULL.
 */
enum tdx_sim_status tdx_sim_finish_td(struct tdx_sim *sim, uint32_t td, bool *right);

/**
 * Adds a fault. The first fault that matches a call decides. `*id` is the number of the fault on
 * this platform: never 0, and never used again. `id` may be NULL. A fault that affects no call
 * gives no error: see tdx_sim_count_unfired_faults().
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: a field has an invalid
 * value; UNKNOWN_LP; NO_ROOM: TDX_SIM_MAX_FAULTS faults are planned and not over.
 *
 * The caller guarantees:
 *
 * `fault` points to a readable tdx_sim_fault whose `size` is set. `id` points to a writable
 * number, or is NULL.
 */
enum tdx_sim_status tdx_sim_add_fault(struct tdx_sim *sim,
                                      const struct tdx_sim_fault *fault,
                                      uint64_t *id);

/**
 * Ends a fault: it affects no further call. Has no effect on a fault that is over, and on calls
 * that are already delayed.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_FAULT: this platform never had a fault with this
 * number.
 */
enum tdx_sim_status tdx_sim_end_fault(struct tdx_sim *sim, uint64_t id);

/**
 * Returns how many more calls a fault affects. `*times` is 0 if the fault is over or was ended.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; UNKNOWN_FAULT: this platform never had a fault
 * with this number.
 *
 * The caller guarantees:
 *
 * `times` points to a writable number.
 */
enum tdx_sim_status tdx_sim_get_fault(struct tdx_sim *sim, uint64_t id, uint32_t *times);

/**
 * Counts the faults that have affected no call yet and were not ended. `*first` is the lowest
 * number of such a fault, or 0. `first` may be NULL. Call this at the end of a test: if a fault
 * has affected no call, the test has not tested it.
 *
 * Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT.
 *
 * The caller guarantees:
 *
 * `count` points to a writable number. `first` points to a writable number, or is NULL.
 */
enum tdx_sim_status tdx_sim_count_unfired_faults(struct tdx_sim *sim,
                                                 uint32_t *count,
                                                 uint64_t *first);

/**
 * Ends all faults. Calls that are already delayed stay delayed.
 *
 * Errors: NULL; BAD_HANDLE; REENTRANT.
 */
enum tdx_sim_status tdx_sim_clear_faults(struct tdx_sim *sim);

/**
 * Fills in an image of 8 pages, similar to the released module 1.5.05 (SVN 1.5).
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE.
 *
 * The caller guarantees:
 *
 * `image` points to a writable tdx_sim_image whose `size` is set.
 */
enum tdx_sim_status tdx_sim_image_defaults(struct tdx_sim_image *image);

/**
 * Fills in the build that a module of this image has if `image->build` is NULL.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has an invalid value.
 *
 * The caller guarantees:
 *
 * `image` points to a readable tdx_sim_image, and `build` to a writable tdx_sim_build, both with
 * `size` set.
 */
enum tdx_sim_status tdx_sim_build_defaults(const struct tdx_sim_image *image,
                                           struct tdx_sim_build *build);

/**
 * Fills in the build of a public release, e.g. 1, 5 and 16 for 1.5.16. Values that no public
 * source gives are 0: handoff versions and the date of some releases. An image with this build
 * needs the same `module_hv`, and `no_downgrade` if the build has it; otherwise TDH.SYS.INIT
 * fails.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: there is no such release.
 *
 * The caller guarantees:
 *
 * `build` points to a writable tdx_sim_build whose `size` is set.
 */
enum tdx_sim_status tdx_sim_release_build(uint16_t major,
                                          uint16_t minor,
                                          uint16_t update,
                                          struct tdx_sim_build *build);

/**
 * Makes an image in the parts that SEAMLDR.INSTALL reads: a SIGSTRUCT, signed with the test key,
 * and `image->pages` pages of the module.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has an invalid value;
 * BUFFER_TOO_SMALL: `module_size` is less than 4096 for each page.
 *
 * The caller guarantees:
 *
 * `image` points to a readable tdx_sim_image whose `size` is set. Its `build` points to a readable
 * tdx_sim_build whose `size` is set, or is NULL. `sigstruct` points to a writable
 * tdx_sim_sigstruct, and `module` to `module_size` writable bytes.
 */
enum tdx_sim_status tdx_sim_make_image(const struct tdx_sim_image *image,
                                       struct tdx_sim_sigstruct *sigstruct,
                                       void *module,
                                       size_t module_size);

/**
 * Signs a SIGSTRUCT with the test key, after any change: writes the modulus and the signature. If
 * `module` is not NULL, first sets `seamhash` to the SHA-384 of its `module_size` bytes. Makes no
 * other change and no check.
 *
 * Errors: NULL: `sigstruct`; UNALIGNED; BAD_LENGTH.
 *
 * The caller guarantees:
 *
 * `sigstruct` points to a readable and writable tdx_sim_sigstruct. `module` points to
 * `module_size` readable bytes, or is NULL.
 */
enum tdx_sim_status tdx_sim_sign(struct tdx_sim_sigstruct *sigstruct,
                                 const void *module,
                                 size_t module_size);

/**
 * Makes an image file from a SIGSTRUCT and a module, which need not match. `*needed` becomes the
 * size of the file, also if `file_size` is too small. So `file` may be NULL if `file_size` is 0.
 *
 * Errors: NULL; UNALIGNED; BAD_ARGUMENT: `format` is not a tdx_sim_image_format; BAD_LENGTH:
 * `module_size` is not 1 to TDX_SIM_MAX_MODULE_PAGES times 4096; BUFFER_TOO_SMALL: `*needed` is
 * set.
 *
 * The caller guarantees:
 *
 * `sigstruct` points to a readable tdx_sim_sigstruct, `module` to `module_size` readable bytes,
 * `file` to `file_size` writable bytes, and `needed` to a writable number.
 */
enum tdx_sim_status tdx_sim_pack(enum tdx_sim_image_format format,
                                 const struct tdx_sim_sigstruct *sigstruct,
                                 const void *module,
                                 size_t module_size,
                                 void *file,
                                 size_t file_size,
                                 size_t *needed);

/**
 * Makes the file of an image that tdx_sim_make_image() would make. `*needed` becomes the size of
 * the file, also if `file_size` is too small. So `file` may be NULL if `file_size` is 0.
 *
 * Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `format` is not a tdx_sim_image_format, or a
 * field of `image` has an invalid value; BUFFER_TOO_SMALL: `*needed` is set.
 *
 * The caller guarantees:
 *
 * `image` points to a readable tdx_sim_image whose `size` is set. Its `build` points to a readable
 * tdx_sim_build whose `size` is set, or is NULL. `file` points to `file_size` writable bytes, and
 * `needed` to a writable number.
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
_Static_assert(sizeof(enum tdx_sim_status) == 4 && sizeof(enum tdx_sim_trap) == 4,
    "do not compile with short enums");
#elif defined(__cplusplus) && __cplusplus >= 201103L
static_assert(sizeof(enum tdx_sim_status) == 4 && sizeof(enum tdx_sim_trap) == 4,
    "do not compile with short enums");
#endif
