// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Functions for the Rust files that the kernel offers only as inline functions and macros:
 * attributes, parameters, locks, addresses, cryptography. This file makes no decisions.
 */
#include <crypto/sha2.h>
#include <crypto/sig.h>
#include <linux/cpu.h>
#include <linux/device/faux.h>
#include <linux/firmware.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nmi.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/stop_machine.h>
#include <linux/vmalloc.h>
#include <asm/msr.h>
#include <asm/processor.h>

/* Functions of main.rs. */
ssize_t tdx_show_version(char *buf);
ssize_t tdx_show_seamldr_version(char *buf);
ssize_t tdx_show_num_remaining_updates(char *buf);
bool tdx_updates_are_possible(void);

/* Module parameters. */
char tdx_backend[16] = "seamcall";
module_param_string(backend, tdx_backend, sizeof(tdx_backend), 0444);
MODULE_PARM_DESC(backend, "seamcall: this machine's TDX; mock: a simulated platform");
char tdx_policy[16] = "preflight";
module_param_string(policy, tdx_policy, sizeof(tdx_policy), 0444);
MODULE_PARM_DESC(policy, "preflight: this library's updates; linux: updates as by Linux's own driver, without preflight");
char tdx_image[64] = "tdx_module.blob";
module_param_string(image, tdx_image, sizeof(tdx_image), 0444);
MODULE_PARM_DESC(image, "mock: the image of the module that runs first, a firmware file");
char tdx_fault[96];
module_param_string(fault, tdx_fault, sizeof(tdx_fault), 0600);
MODULE_PARM_DESC(fault, "mock: what goes wrong in the next update: RAX AFTER TIMES ANSWER-RAX ANSWER-RDX, or flip-sigstruct");
bool tdx_try_seamcall;
module_param_named(try_seamcall, tdx_try_seamcall, bool, 0444);
MODULE_PARM_DESC(try_seamcall, "seamcall: call P-SEAMLDR even if the processor does not announce it");
int tdx_updates = 20;
module_param_named(updates, tdx_updates, int, 0444);
MODULE_PARM_DESC(updates, "mock: updates that P-SEAMLDR can make, up to 9998");
bool tdx_allow_same_module;
module_param_named(allow_same_module, tdx_allow_same_module, bool, 0600);
MODULE_PARM_DESC(allow_same_module, "install the running module again");
bool tdx_allow_unknowns;
module_param_named(allow_unknowns, tdx_allow_unknowns, bool, 0600);
MODULE_PARM_DESC(allow_unknowns, "update although facts of the machine or of the running module are unknown; the image is verified in any case");
bool tdx_allow_damage;
module_param_named(allow_damage, tdx_allow_damage, bool, 0600);
MODULE_PARM_DESC(allow_damage, "update although TDs may be in build, whose measurements would be wrong then");
int tdx_tds_alive;
module_param_named(tds_alive, tdx_tds_alive, int, 0444);
MODULE_PARM_DESC(tds_alive, "mock: TDs that run with unchanged memory");
unsigned long tdx_stopped_ns;
module_param_named(stopped_ns, tdx_stopped_ns, ulong, 0444);
MODULE_PARM_DESC(stopped_ns, "how long the last update kept all CPUs stopped");
unsigned long tdx_firmware_ns;
module_param_named(firmware_ns, tdx_firmware_ns, ulong, 0444);
MODULE_PARM_DESC(firmware_ns, "mock: the part of stopped_ns in the simulated firmware, all CPUs together");

/* The device's attributes. */
static ssize_t version_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return tdx_show_version(buf);
}
static DEVICE_ATTR_RO(version);

static ssize_t seamldr_version_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return tdx_show_seamldr_version(buf);
}
static DEVICE_ATTR_ADMIN_RO(seamldr_version);

static ssize_t num_remaining_updates_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return tdx_show_num_remaining_updates(buf);
}
static DEVICE_ATTR_ADMIN_RO(num_remaining_updates);

static struct attribute *version_attrs[] = { &dev_attr_version.attr, NULL };
static const struct attribute_group version_group = { .attrs = version_attrs };

static struct attribute *update_attrs[] = {
	&dev_attr_seamldr_version.attr,
	&dev_attr_num_remaining_updates.attr,
	NULL
};

static umode_t update_attr_visible(struct kobject *kobj, struct attribute *attr, int index)
{
	return tdx_updates_are_possible() ? attr->mode : 0;
}

static const struct attribute_group update_group = {
	.attrs = update_attrs,
	.is_visible = update_attr_visible,
};

static const struct attribute_group *groups[] = { &version_group, &update_group, NULL };

struct faux_device *tdx_create_device(void)
{
	return faux_device_create_with_groups("tdx_host", NULL, NULL, groups);
}

struct fw_upload *tdx_register_upload(struct faux_device *device, const struct fw_upload_ops *ops)
{
	struct fw_upload *upload = firmware_upload_register(NULL, &device->dev, "tdx_module", ops, NULL);

	return IS_ERR(upload) ? NULL : upload;
}

/* Locks: updates against readers, P-SEAMLDR, the simulated firmware. */
static DEFINE_MUTEX(update_lock);
static DEFINE_RAW_SPINLOCK(seamldr_lock);
static DEFINE_RAW_SPINLOCK(firmware_lock);

void tdx_lock_updates(void) { mutex_lock(&update_lock); }
void tdx_unlock_updates(void) { mutex_unlock(&update_lock); }

unsigned long tdx_lock_seamldr(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&seamldr_lock, flags);
	return flags;
}

void tdx_unlock_seamldr(unsigned long flags) { raw_spin_unlock_irqrestore(&seamldr_lock, flags); }

unsigned long tdx_lock_firmware(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&firmware_lock, flags);
	return flags;
}

void tdx_unlock_firmware(unsigned long flags) { raw_spin_unlock_irqrestore(&firmware_lock, flags); }

/* Under the lock for updates. */
void tdx_keep_module(bool keep)
{
	static bool kept;

	if (keep && !kept)
		__module_get(THIS_MODULE);
	if (!keep && kept)
		module_put(THIS_MODULE);
	kept = keep;
}

/* CPUs. */
unsigned int tdx_cpu(void) { return raw_smp_processor_id(); }
unsigned int tdx_online_cpus(void) { return num_online_cpus(); }

unsigned int tdx_highest_apic_id(void)
{
	unsigned int cpu, highest = 0;

	for_each_online_cpu(cpu)
		highest = max(highest, cpu_data(cpu).topo.apicid);
	return highest;
}

void tdx_pin(void) { preempt_disable(); }
void tdx_unpin(void) { preempt_enable(); }
void tdx_touch_watchdog(void) { touch_nmi_watchdog(); }
u64 tdx_now(void) { return ktime_get_mono_fast_ns(); }
int tdx_stop_machine(int (*function)(void *), void *data) { return stop_machine(function, data, cpu_online_mask); }
int tdx_rdmsr(u32 index, u64 *value) { return rdmsrq_safe(index, value); }

/* Memory. */
u64 tdx_phys_addr(const void *address)
{
	if (is_vmalloc_or_module_addr(address))
		return page_to_phys(vmalloc_to_page(address)) + offset_in_page(address);
	return virt_to_phys((void *)address);
}

void *tdx_phys_to_virt(u64 address) { return pfn_valid(PHYS_PFN(address)) ? phys_to_virt(address) : NULL; }
void *tdx_alloc(unsigned long size) { return vzalloc(size); }
void tdx_free(void *address) { vfree(address); }
void *tdx_page(void) { return (void *)get_zeroed_page(GFP_KERNEL); }
void tdx_free_page(void *page) { free_page((unsigned long)page); }

/* Cryptography. */
void tdx_sha384_init(struct sha384_ctx *context) { sha384_init(context); }
void tdx_sha384_update(struct sha384_ctx *context, const u8 *data, size_t len) { sha384_update(context, data, len); }
void tdx_sha384_final(struct sha384_ctx *context, u8 *digest) { sha384_final(context, digest); }

/* 1: valid, 0: not valid, other values: unknown. `key` is a DER RSAPublicKey, `signature` big-endian. May sleep. */
int tdx_rsa_verify(const u8 *key, unsigned int key_len, const u8 *signature, const u8 *digest)
{
	struct crypto_sig *rsa = crypto_alloc_sig("pkcs1(rsa,sha384)", 0, 0);
	int result;

	if (IS_ERR(rsa))
		return PTR_ERR(rsa);
	result = crypto_sig_set_pubkey(rsa, key, key_len);
	if (!result) {
		result = crypto_sig_verify(rsa, signature, 384, digest, 48);
		if (!result)
			result = 1;
		else if (result == -EKEYREJECTED || result == -EBADMSG || result == -EINVAL)
			result = 0;
	}
	crypto_free_sig(rsa);
	return result;
}
