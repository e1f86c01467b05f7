/* Entry code: from the 32-bit entry of PVH, or the real mode of other CPUs, to Rust. */

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18              /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long boot_start

    .section .boot, "ax", @progbits
    .code32
    .global boot_start
boot_start:
    cli
    /* Maps the first 4 GiB at their physical addresses and at 0xffff800000000000: 1 GiB pages. */
    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pdpt + 3, boot_pml4 + 256 * 8
    movl $0x00000083, boot_pdpt
    movl $0x40000083, boot_pdpt + 8
    movl $0x80000083, boot_pdpt + 16
    movl $0xc0000083, boot_pdpt + 24
    lgdtl boot_gdt_pointer
    movl $0x620, %eax           /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      /* EFER */
    rdmsr
    orl $0x100, %eax            /* LME */
    wrmsr
    movl $0x80010033, %eax      /* PG, WP, NE, ET, MP, PE */
    movl %eax, %cr0
    ljmpl $8, $boot_start64

    .code64
boot_start64:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    leaq first_stack_end(%rip), %rsp
    movl %ebx, %edi             /* hvm_start_info */
    xorl %ebp, %ebp
    call main_of_first
    ud2

/* Copied to 0x8000, where a startup IPI with vector 8 begins. */
    .global boot_trampoline
    .global boot_trampoline_end
    .code16
boot_trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl boot_trampoline_gdt_pointer - boot_trampoline + 0x8000
    movl $0x620, %eax
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmpl $8, $boot_other64
    .balign 4
boot_trampoline_gdt_pointer:
    .word 23
    .long boot_gdt
boot_trampoline_end:

    .code64
boot_other64:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    /* Each CPU takes a number, and the stack with this number. */
    movl $1, %edi
    lock xaddl %edi, next_cpu(%rip)
    movl %edi, %eax
    shlq $16, %rax
    leaq other_stacks(%rip), %rsp
    addq %rax, %rsp
    xorl %ebp, %ebp
    call main_of_others
    ud2

    .balign 8
boot_gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
boot_gdt_pointer:
    .word 23
    .long boot_gdt

    .data
    .global next_cpu
    .balign 4
next_cpu:
    .long 1

    .bss
    .balign 4096
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
    .skip 0x10000
first_stack_end:
/* The stack of CPU n ends at other_stacks + n * 64 KiB. */
other_stacks:
    .skip 63 * 0x10000

    .text
/* Exceptions and interrupts: push all registers, which the Rust handler reads and changes. */
    .macro entry name, handler, error_code=0
    .global \name
\name:
    .if \error_code
    addq $8, %rsp
    .endif
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    cld
    call \handler
    fxrstor64 (%rsp)
    movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    iretq
    .endm

    entry undefined_opcode, on_undefined_opcode
    entry general_protection, on_general_protection, error_code=1
    entry stop_request, on_stop_request
    entry other_exception, on_other_exception
