/*
 * A Cortex-M4 as QEMU's mps2-an386 has it: its start, text to the terminal by semihosting, and main, which decides ten
 * times, says how many ticks of 40 instructions that took (under -icount shift=0, at 25 MHz), and says the outputs.
 */

#include <stdint.h>

#include "policy.h"
#include "observation.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

extern uint32_t stack_top;

static void host(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(uint32_t value)
{
    char text[] = "00000000\n";
    for (int i = 0; i < 8; ++i) {
        text[i] = "0123456789abcdef"[(value >> (28 - 4 * i)) & 15];
    }
    host(0x04, text);
}

#ifdef POLICY_STATE_BYTES
static policy_state state;
#define STATE &state,
#define BEGIN policy_reset(&state)
#else
#define STATE
#define BEGIN
#endif

static void decide(void)
{
    static float action[POLICY_ACTION_SIZE], outputs[POLICY_NUM_OUTPUTS];
    BEGIN;
    REGISTER(0xE000E014) = 0xFFFFFF; /* SysTick: reload, value, on with the processor's clock */
    REGISTER(0xE000E018) = 0;
    REGISTER(0xE000E010) = 5;
    const uint32_t before = REGISTER(0xE000E018);
    for (int i = 0; i < 10; ++i) {
        policy_act(STATE observation, action);
    }
    say((before - REGISTER(0xE000E018)) & 0xFFFFFF);
    BEGIN;
    policy_outputs(STATE observation, outputs);
    for (int i = 0; i < POLICY_NUM_OUTPUTS; ++i) {
        const union { float number; uint32_t bits; } value = {outputs[i]};
        say(value.bits);
    }
}

void start(void)
{
    REGISTER(0xE000ED88) |= 0xFu << 20; /* the floating point unit */
    __asm__ volatile("dsb\n isb");
    decide();
    host(0x18, (const void *)0x20026);
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {&stack_top, (const void *)start};
