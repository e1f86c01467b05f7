/*
 * The scenarios: faults of a platform or of the file of the update.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TDS = 2,
    MODULE_PAGES = 8,
    NO_PAGES = -1,
    SIGSTRUCT_AT = PAGE,
    MODULE_AT = 2 * PAGE,
    /* IA32_ARCH_CAPABILITIES has to be equal on all LPs. The module accepts both values of this bit. */
    MSR = 0x10a,
    SSB_NO = 1 << 4,
};

/* A scenario. Fields that are 0 have the usual value. */
struct scenario {
    const char *name;

    /* The image, and the build of its module. */
    void (*image)(tdx_sim_image *image, tdx_sim_build *build);

    /* The SIGSTRUCT before signing, and a byte that replaces the whole module. */
    void (*sigstruct)(tdx_sim_sigstruct *sigstruct);
    uint8_t module_is_only;

    /* The file: format, pages counted and present, a byte with flipped bits, length. */
    uint32_t format;
    int sigstruct_pages, module_pages;
    struct {
        size_t at;
        uint8_t bits;
    } flip;
    long longer;
    size_t length;

    /* The platform, and calls for which the module returns `status`. */
    void (*platform)(tdx_sim *sim);
    struct {
        uint64_t leaf, status;
        uint32_t times;
    } fault;
};

static void svn_minor_6(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->svn_minor = 6;
}

static void same_version(tdx_sim_image *image, tdx_sim_build *build)
{
    image->fill = 0x90;
    build->version_update = 1;
}

static void pages_496(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->pages = TDX_SIM_MAX_MODULE_PAGES;
}

static void handoff_versions(tdx_sim_image *image, tdx_sim_build *build, uint16_t lowest, uint16_t highest)
{
    image->min_update_hv = build->min_update_hv = lowest;
    image->module_hv = build->module_hv = highest;
}

static void hv_0_to_1(tdx_sim_image *image, tdx_sim_build *build)
{
    handoff_versions(image, build, 0, 1);
}

static void hv_1_to_2(tdx_sim_image *image, tdx_sim_build *build)
{
    handoff_versions(image, build, 1, 2);
}

static void hv_1_only(tdx_sim_image *image, tdx_sim_build *build)
{
    handoff_versions(image, build, 1, 1);
}

static void hv_not_built(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->module_hv = 1;
}

static void handoff_pages_13(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->num_handoff_pages = 12;
}

static void handoff_pages_14(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->num_handoff_pages = 13;
}

static void other_cpus(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->num_cpus = 1;
    image->cpus[0] = 0xc06f0;
}

static void no_cpus(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->num_cpus = 0;
}

static void svn_minor_4(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->svn_minor = 4;
}

static void svn_major_2(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->svn_major = 2;
}

static void debug_module(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->debug = true;
}

static void much_data(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->num_global_data_pages = 0xffff;
}

static void gdt_inside(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->gdt_idt_offset = (MODULE_PAGES - 1) * PAGE;
}

static void gdt_beyond(tdx_sim_image *image, tdx_sim_build *build)
{
    (void)build;
    image->gdt_idt_offset = MODULE_PAGES * PAGE;
}

static void hash_of_nothing(tdx_sim_sigstruct *sigstruct)
{
    check(tdx_sim_sign(sigstruct, sigstruct, 0), "the hash of an empty module");
}

static void remaining_0(tdx_sim *sim)
{
    check(tdx_sim_set_remaining_updates(sim, 0), "remaining updates");
}

static void rdrand_fails(tdx_sim *sim)
{
    check(tdx_sim_set_rdrand(sim, false, 0, 0), "RDRAND");
}

static void rdrand_fails_first(tdx_sim *sim)
{
    rdrand_fails(sim);
    check(tdx_sim_set_p_seamldr_entered(sim, false), "P-SEAMLDR");
}

static void rdrand_fails_first_once(tdx_sim *sim)
{
    check(tdx_sim_set_rdrand(sim, true, 1, 1), "RDRAND");
    check(tdx_sim_set_p_seamldr_entered(sim, false), "P-SEAMLDR");
}

static void insertions_fail(tdx_sim *sim, uint32_t times)
{
    tdx_sim_truth truth = truth_of(sim);

    check(tdx_sim_set_seamdb(sim, truth.seamdb_size, truth.seamdb_used, times), "SEAMDB");
}

static void seamdb_4(tdx_sim *sim)
{
    insertions_fail(sim, 4);
}

static void seamdb_5(tdx_sim *sim)
{
    insertions_fail(sim, 5);
}

static void seamdb_always(tdx_sim *sim)
{
    insertions_fail(sim, TDX_SIM_ALWAYS);
}

static void msr_of_lp_1(tdx_sim *sim)
{
    check(tdx_sim_flip_lp_msr(sim, 1, MSR, SSB_NO), "the MSR of LP 1");
}

/* CPU 0 initialises the module first. */
static void msr_of_lp_0(tdx_sim *sim)
{
    check(tdx_sim_flip_lp_msr(sim, 0, MSR, SSB_NO), "the MSR of LP 0");
}

static void lp_1_in_module(tdx_sim *sim)
{
    check(tdx_sim_set_lp_in_module(sim, 1, true), "LP 1");
}

static void lock_is_held(tdx_sim *sim)
{
    check(tdx_sim_set_global_lock(sim, TDX_SIM_LOCK_EXCLUSIVE), "the lock");
}

/* A scenario that differs only in the run's initial state has only a name here. */
static const struct scenario SCENARIOS[] = {
    {.name = "good"},
    {.name = "erratum"},
    {.name = "same-version", .image = same_version},
    {.name = "higher-minor-svn", .image = svn_minor_6},
    {.name = "lower-minor-svn", .image = svn_minor_4},
    {.name = "other-major-svn", .image = svn_major_2},
    {.name = "496-pages", .image = pages_496},
    {.name = "hv-old1-new0"},
    {.name = "hv-old1-new1", .image = hv_0_to_1},
    {.name = "hv-old1-new2", .image = hv_1_to_2},
    {.name = "hv-old0-new1-min1", .image = hv_1_only},
    {.name = "sigstruct-hv-not-built", .image = hv_not_built},
    {.name = "handoff-pages-13", .image = handoff_pages_13},
    {.name = "handoff-pages-14", .image = handoff_pages_14},
    {.name = "cpu-not-listed", .image = other_cpus},
    {.name = "cpu-list-empty", .image = no_cpus},
    {.name = "gdt-inside-image", .image = gdt_inside},
    {.name = "gdt-beyond-image", .image = gdt_beyond},
    {.name = "memory-too-small", .image = much_data},
    {.name = "debug-module", .image = debug_module},

    {.name = "signed-not-elf", .module_is_only = 0x90},
    {.name = "zero-module-pages-empty-hash", .sigstruct = hash_of_nothing, .module_pages = NO_PAGES},

    {.name = "wrong-checksum", .flip = {2, 1}},
    {.name = "bad-magic", .flip = {4, 1}},
    {.name = "bad-version", .flip = {1, 1}},
    {.name = "v1-file", .format = TDX_SIM_IMAGE_FORMAT_V1},
    {.name = "reserved-byte", .flip = {100, 1}},
    {.name = "too-long", .longer = PAGE},
    {.name = "too-short", .longer = -1},
    {.name = "header-only-part", .length = 2000},
    {.name = "497-pages", .module_pages = 497},
    {.name = "two-sig-pages", .sigstruct_pages = 2},
    {.name = "zero-sig-pages", .sigstruct_pages = NO_PAGES},
    {.name = "zero-module-pages", .module_pages = NO_PAGES},
    {.name = "bad-signature", .flip = {SIGSTRUCT_AT + offsetof(tdx_sim_sigstruct, signature), 1}},
    {.name = "sigstruct-field-flipped", .flip = {SIGSTRUCT_AT + offsetof(tdx_sim_sigstruct, date), 1}},
    {.name = "untrusted-signer", .flip = {SIGSTRUCT_AT + offsetof(tdx_sim_sigstruct, modulus), 2}},
    {.name = "module-byte-flipped", .flip = {MODULE_AT + 5000, 1}},
    {.name = "first-module-byte-flipped", .flip = {MODULE_AT, 1}},

    {.name = "cpu-offline-1"},
    {.name = "cpu-offline-2"},
    {.name = "cpu-offline-4"},
    {.name = "remaining-0", .platform = remaining_0},
    {.name = "remaining-0-full", .platform = remaining_0},
    {.name = "full-but-remembered"},
    {.name = "rdrand-install", .platform = rdrand_fails},
    {.name = "rdrand-first-entry", .platform = rdrand_fails_first},
    {.name = "rdrand-first-entry-once", .platform = rdrand_fails_first_once},
    {.name = "seamdb-4", .platform = seamdb_4},
    {.name = "seamdb-5", .platform = seamdb_5},
    {.name = "seamdb-always", .platform = seamdb_always},
    {.name = "msr-other-lp", .platform = msr_of_lp_1},
    {.name = "msr-init-lp", .platform = msr_of_lp_0},
    {.name = "lp-busy", .platform = lp_1_in_module},
    {.name = "lock-held", .platform = lock_is_held},
    {.name = "busy-at-init", .fault = {TDX_SIM_TDH_SYS_INIT, TDX_SIM_TDX_SYS_BUSY, 1}},
    {.name = "busy-at-lp.init", .fault = {TDX_SIM_TDH_SYS_LP_INIT, TDX_SIM_TDX_SYS_BUSY, 1}},
    {.name = "busy-at-update", .fault = {TDX_SIM_TDH_SYS_UPDATE, TDX_SIM_TDX_SYS_BUSY, 1}},
    {.name = "init-entropy-1", .fault = {TDX_SIM_TDH_SYS_INIT, TDX_SIM_TDX_RND_NO_ENTROPY, 1}},
    {.name = "init-entropy-always", .fault = {TDX_SIM_TDH_SYS_INIT, TDX_SIM_TDX_RND_NO_ENTROPY, TDX_SIM_ALWAYS}},
    {.name = "lpinit-entropy-1", .fault = {TDX_SIM_TDH_SYS_LP_INIT, TDX_SIM_TDX_RND_NO_ENTROPY, 1}},
    {.name = "lpinit-entropy-9", .fault = {TDX_SIM_TDH_SYS_LP_INIT, TDX_SIM_TDX_RND_NO_ENTROPY, 9}},
    {.name = "lpinit-entropy-10", .fault = {TDX_SIM_TDH_SYS_LP_INIT, TDX_SIM_TDX_RND_NO_ENTROPY, 10}},
    {.name = "lpinit-entropy-always", .fault = {TDX_SIM_TDH_SYS_LP_INIT, TDX_SIM_TDX_RND_NO_ENTROPY, TDX_SIM_ALWAYS}},
};

static const struct scenario *find(const char *name)
{
    for (size_t i = 0; i < sizeof SCENARIOS / sizeof SCENARIOS[0]; i++)
        if (strcmp(SCENARIOS[i].name, name) == 0)
            return &SCENARIOS[i];
    fprintf(stderr, "there is no scenario %s\n", name);
    exit(EXIT_FAILURE);
}

/* The usual image: SVN 1.5, a module like 1.5.01 with another version, 16 handoff pages. */
static void usual(tdx_sim_image *image, tdx_sim_build *build, uint16_t update)
{
    image->size = sizeof *image;
    build->size = sizeof *build;
    check(tdx_sim_image_defaults(image), "the image");
    image->svn_minor = 4;
    check(tdx_sim_build_defaults(image, build), "the module");
    image->svn_minor = 5;
    image->pages = MODULE_PAGES;
    image->num_handoff_pages = 15;
    build->version_update = update;
    image->fill = (uint8_t)update;
    image->build = build;
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);

    if (memory == NULL) {
        fputs("no memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return memory;
}

static struct file image_file(const tdx_sim_image *image, uint32_t format)
{
    struct file file;

    file.length = 0;
    (void)tdx_sim_image_file(image, format, NULL, 0, &file.length);
    file.bytes = allocate(file.length);
    check(tdx_sim_image_file(image, format, file.bytes, file.length, &file.length), "the file");
    return file;
}

/* Signs the SIGSTRUCT again, after changes of itself and of the module. */
static void sign_again(const struct scenario *scenario, const struct file *file)
{
    tdx_sim_sigstruct *sigstruct = allocate(sizeof *sigstruct);
    uint8_t *module = file->bytes + MODULE_AT;

    memcpy(sigstruct, file->bytes + SIGSTRUCT_AT, sizeof *sigstruct);
    if (scenario->module_is_only != 0) {
        memset(module, scenario->module_is_only, file->length - MODULE_AT);
        check(tdx_sim_sign(sigstruct, module, file->length - MODULE_AT), "the signature");
    }
    if (scenario->sigstruct != NULL)
        scenario->sigstruct(sigstruct);
    memcpy(file->bytes + SIGSTRUCT_AT, sigstruct, sizeof *sigstruct);
    free(sigstruct);
}

/* Changes the number of pages in the header and in the file. */
static void count_pages(const struct scenario *scenario, struct file *file)
{
    struct image_header header;
    struct file from = *file;
    size_t sigstruct_size, module_size = from.length - MODULE_AT;

    memcpy(&header, from.bytes, sizeof header);
    if (scenario->sigstruct_pages != 0)
        header.sigstruct_pages = scenario->sigstruct_pages == NO_PAGES ? 0 : (uint32_t)scenario->sigstruct_pages;
    if (scenario->module_pages != 0)
        header.module_pages = scenario->module_pages == NO_PAGES ? 0 : (uint32_t)scenario->module_pages;
    sigstruct_size = (size_t)header.sigstruct_pages * PAGE;
    file->length = PAGE + sigstruct_size + (size_t)header.module_pages * PAGE;
    file->bytes = allocate(file->length);
    memcpy(file->bytes, &header, sizeof header);
    if (sigstruct_size != 0)
        memcpy(file->bytes + PAGE, from.bytes + SIGSTRUCT_AT, PAGE);
    if (module_size > (size_t)header.module_pages * PAGE)
        module_size = (size_t)header.module_pages * PAGE;
    memcpy(file->bytes + PAGE + sigstruct_size, from.bytes + MODULE_AT, module_size);
    free(from.bytes);
}

/* Changes the length. Added bytes are 0. */
static void cut(struct file *file, size_t length)
{
    uint8_t *bytes = allocate(length);

    memcpy(bytes, file->bytes, length < file->length ? length : file->length);
    free(file->bytes);
    file->bytes = bytes;
    file->length = length;
}

struct file usual_file(void)
{
    tdx_sim_image image;
    tdx_sim_build build;

    usual(&image, &build, 2);
    return image_file(&image, TDX_SIM_IMAGE_FORMAT_V2);
}

/* Returns the unchanged file. Signing takes time, so the usual file is made once. */
static struct file unchanged_file(const struct scenario *scenario, const struct file *usual_file)
{
    tdx_sim_image image;
    tdx_sim_build build;
    struct file file;

    if (scenario->image == NULL && scenario->format == 0) {
        file.length = usual_file->length;
        file.bytes = allocate(file.length);
        memcpy(file.bytes, usual_file->bytes, file.length);
        return file;
    }
    usual(&image, &build, 2);
    if (scenario->image != NULL)
        scenario->image(&image, &build);
    return image_file(&image, scenario->format != 0 ? scenario->format : TDX_SIM_IMAGE_FORMAT_V2);
}

struct file scenario_file(const char *name, const struct file *usual_file)
{
    const struct scenario *scenario = find(name);
    struct file file = unchanged_file(scenario, usual_file);

    if (scenario->module_is_only != 0 || scenario->sigstruct != NULL)
        sign_again(scenario, &file);
    if (scenario->sigstruct_pages != 0 || scenario->module_pages != 0)
        count_pages(scenario, &file);
    file.bytes[scenario->flip.at] ^= scenario->flip.bits;
    if (scenario->longer != 0)
        cut(&file, file.length + (size_t)scenario->longer);
    if (scenario->length != 0)
        cut(&file, scenario->length);
    return file;
}

struct file good_file(void)
{
    tdx_sim_image image;
    tdx_sim_build build;

    usual(&image, &build, 3);
    image.svn_minor = 6;
    handoff_versions(&image, &build, 0, 2);
    return image_file(&image, TDX_SIM_IMAGE_FORMAT_V2);
}

struct file old_file(uint16_t hv)
{
    tdx_sim_image image;
    tdx_sim_build build;

    usual(&image, &build, 1);
    handoff_versions(&image, &build, 0, hv);
    return image_file(&image, TDX_SIM_IMAGE_FORMAT_V2);
}

tdx_sim *set_up(const struct recorded *run, const struct file *old)
{
    const struct scenario *scenario = find(run->scenario);
    tdx_sim_platform platform;
    tdx_sim_fault fault;
    tdx_sim *sim;

    platform.size = sizeof platform;
    check(tdx_sim_platform_defaults(&platform), "defaults");
    platform.num_lps = run->lps;
    platform.num_sockets = run->lps > 3 ? 2 : 1;
    platform.seamret_clears_vmcs = run->erratum;
    /* The scenario `full-but-remembered` needs this. */
    platform.full_seamdb_is_fatal = true;
    check(tdx_sim_create(&platform, &sim), "the platform");
    check(tdx_sim_boot(sim, old->bytes, old->length, TDX_SIM_MODULE_STATE_READY), "boot");
    for (int td = 0; td < TDS; td++)
        check(tdx_sim_create_td(sim, TDX_SIM_TD_PHASE_RUNNING, NULL), "a TD");
    check(tdx_sim_set_seamdb(sim, platform.seamdb_size, run->initial.seamdb_used, 0), "SEAMDB");
    check(tdx_sim_set_remaining_updates(sim, run->initial.remaining_updates), "remaining updates");
    if (scenario->platform != NULL)
        scenario->platform(sim);
    if (scenario->fault.times != 0) {
        memset(&fault, 0, sizeof fault);
        fault.size = sizeof fault;
        fault.lp = TDX_SIM_ANY_LP;
        fault.rax = scenario->fault.leaf;
        fault.times = scenario->fault.times;
        fault.kind = TDX_SIM_FAULT_KIND_RETURN;
        fault.answer_rax = scenario->fault.status;
        check(tdx_sim_add_fault(sim, &fault, NULL), "the fault");
    }
    return sim;
}

void end_faults(tdx_sim *sim)
{
    tdx_sim_truth truth = truth_of(sim);

    check(tdx_sim_clear_faults(sim), "faults");
    check(tdx_sim_set_rdrand(sim, true, 1, 0), "RDRAND");
    check(tdx_sim_set_seamdb(sim, truth.seamdb_size, truth.seamdb_used, 0), "SEAMDB");
    if (truth.module_present)
        check(tdx_sim_set_global_lock(sim, TDX_SIM_LOCK_FREE), "the lock");
    for (uint32_t lp = 0; lp < truth.num_lps; lp++) {
        check(tdx_sim_restore_lp(sim, lp), "an LP");
        check(tdx_sim_set_lp_in_module(sim, lp, false), "an LP");
    }
}
