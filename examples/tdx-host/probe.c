// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A kernel module that tests the plugin for QEMU: the carry flag that code after SEAMCALL sees, and
 * random SEAMCALLs, MSR and CPUID accesses. It works when it is loaded, and prints one line.
 */
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <asm/io.h>
#include <asm/msr.h>
#include <asm/processor.h>

static unsigned int random_calls;
module_param(random_calls, uint, 0);
MODULE_PARM_DESC(random_calls, "Random accesses; 0: look at the carry flag");

#define SEAMCALL ".byte 0x66, 0x0f, 0x01, 0xcf\n\t"
/* TDH.SYS.LP.SHUTDOWN does nothing. */
#define HARMLESS 44

/* Each form runs SEAMCALL with other code after it, and returns the carry flag. */
#define FORM(name, behind)                                                              \
	static u64 noinline form_##name(void)                                           \
	{                                                                               \
		u64 rax = HARMLESS, carry = 0x77;                                       \
		asm volatile(SEAMCALL behind                                            \
			     : "+a"(rax), [carry] "+r"(carry)                           \
			     : "b"(1ul), [zero] "r"(0ul)                                \
			     : "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc"); \
		return carry;                                                           \
	}

FORM(jc, "jc 1f\n\tmov $0, %k[carry]\n\tjmp 2f\n1:\tmov $1, %k[carry]\n2:")
FORM(jnc_near, ".byte 0x0f, 0x83\n\t.long 1f - .- 4\n\tmov $1, %k[carry]\n\tjmp 2f\n1:\tmov $0, %k[carry]\n2:")
FORM(setc, "setc %b[carry]\n\tmovzbl %b[carry], %k[carry]")
FORM(mov_setc, "mov %[zero], %%r9\n\tlea 8(%%rsp), %%r10\n\tsetc %b[carry]\n\tmovzbl %b[carry], %k[carry]")
FORM(sbb, "sbb %[carry], %[carry]\n\tneg %[carry]")
FORM(adc, "mov $0, %k[carry]\n\tadc $0, %k[carry]")
FORM(lahf, "lahf\n\tmov %%rax, %[carry]\n\tshr $8, %[carry]\n\tand $1, %[carry]")
FORM(pushf, "pushfq\n\tpop %[carry]\n\tand $1, %[carry]")
FORM(cmovc, "mov $0, %k[carry]\n\tcmovc %%ebx, %k[carry]")
FORM(twice, "setc %b[carry]\n\tjc 1f\n\tmov $0, %k[carry]\n\tjmp 2f\n1:\tmovzbl %b[carry], %k[carry]\n2:")

static u64 (*const forms[])(void) = {
	form_jc,  form_jnc_near, form_setc,  form_mov_setc, form_sbb,
	form_adc, form_lahf,	 form_pushf, form_cmovc,    form_twice,
};

static u64 state = 88172645463325252ull;

static u64 next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Firmware writes to the address in an operand: in a page of this module, or without memory. */
static u64 operand(u64 page)
{
	switch (next() % 4) {
	case 0: return page;
	case 1: return page + (next() & 0xfff);
	case 2: return next() | 1ull << 38;
	default: return next() % 64;
	}
}

static void seamcall(u64 page)
{
	register u64 r8 asm("r8") = operand(page);
	register u64 r9 asm("r9") = next();
	register u64 r10 asm("r10") = next();
	register u64 r11 asm("r11") = next();
	u64 rax = next() % 3 ? next() % 100 : next(), rcx = operand(page), rdx = operand(page);

	if (next() % 4 == 0)
		rax = 1ull << 63 | next() % 6;
	/* TDH.SYS.SHUTDOWN and SEAMLDR.SHUTDOWN would make most later calls fail. */
	if (rax == 52 || rax == (1ull << 63 | 2))
		return;
	asm volatile(SEAMCALL
		     : "+a"(rax), "+c"(rcx), "+d"(rdx), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r11)
		     :
		     : "rbx", "rsi", "rdi", "r12", "r13", "r14", "r15", "memory", "cc");
}

static int __init probe_init(void)
{
	unsigned int i, a, b, c, d;
	u64 page, value;

	if (!random_calls) {
		char text[ARRAY_SIZE(forms) + 1] = "";

		for (i = 0; i < ARRAY_SIZE(forms); i++) {
			unsigned long flags;

			local_irq_save(flags);
			value = forms[i]();
			local_irq_restore(flags);
			text[i] = value < 2 ? '0' + value : '?';
		}
		pr_emerg("probe: carry %s\n", text);
		return -EAGAIN;
	}
	page = get_zeroed_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	for (i = 0; i < random_calls; i++) {
		switch (next() % 3) {
		case 0:
			seamcall(virt_to_phys((void *)page));
			break;
		case 1:
			rdmsrq_safe(next() % 2 ? next() % 0x1500 : (u32)next(), &value);
			break;
		default:
			a = next() % 2 ? next() % 0x30 : (u32)next();
			c = next() % 4;
			asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
		}
	}
	free_page(page);
	pr_emerg("probe: %u accesses\n", random_calls);
	return -EAGAIN;
}
module_init(probe_init);
MODULE_DESCRIPTION("Tries the TDX platform of the plugin for QEMU");
MODULE_LICENSE("Dual MIT/GPL");
