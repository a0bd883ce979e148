# The handler of FaultGuard for x86-64, called by the kernel as handler(number, siginfo_t *, ucontext_t *). A test assembles this
# and compares it with FaultGuard.Handler:  as -o out.o FaultGuard.x64.s && objcopy -O binary -j .text out.o out.bin
#
# It runs wherever a thread of the process touches a missing page, inside the runtime's own code too: so it calls nothing, uses
# only registers that a function may change, and knows only the page of data behind its own (see FaultGuard.Guard).

        .intel_syntax noprefix
        .equ    PAGE, 4096
        .equ    GUARDS, 64
        .equ    PREVIOUS, PAGE          # the handler before this one
        .equ    NO_ACTION, PAGE + 8     # struct kernel_sigaction of zeros: SIG_DFL
        .equ    FIRST, PAGE + 64        # guards: start, length, flags, count

code:   lea     r8, [rip + code + FIRST]
        mov     ecx, GUARDS
next:   mov     rax, [rsi + 16]         # si_addr
        sub     rax, [r8]
        cmp     rax, [r8 + 8]
        jb      guarded
        add     r8, 32
        dec     ecx
        jnz     next

other:  mov     rax, [rip + code + PREVIOUS]
        cmp     rax, 1                  # SIG_DFL and SIG_IGN are no functions
        jbe     give_up
        jmp     rax

give_up:                                # back to the access, which ends the process now
        mov     edi, 7                  # SIGBUS
        lea     rsi, [rip + code + NO_ACTION]
        xor     edx, edx
        mov     r10d, 8                 # bytes of the kernel's sigset_t
        mov     eax, 13                 # rt_sigaction
        syscall
        ret

guarded:                                # first the flag, then the page: who sees zeros finds the flag
        shr     rax, 21
        add     rax, [r8 + 16]
        mov     byte ptr [rax], 1
        lock inc qword ptr [r8 + 24]
        mov     rdi, [rsi + 16]
        and     rdi, -PAGE
        mov     esi, PAGE
        mov     edx, 3                  # PROT_READ | PROT_WRITE
        mov     r10d, 0x32              # MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
        mov     r8, -1
        xor     r9d, r9d
        mov     eax, 9                  # mmap
        syscall
        cmp     rax, -PAGE
        ja      give_up
        ret
