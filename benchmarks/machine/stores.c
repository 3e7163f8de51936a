// What additions and stores cost beside multiply-adds, in 512-bit registers. The figures in docs/kernels.md come from
//     gcc -O2 -march=native benchmarks/machine/stores.c -o stores && ./stores
// Each line is the time of one round of independent instructions that all hit the first-level cache, relative to the first line.
#include <stdio.h>
#include <time.h>

#define FMA(r) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #r "\n"
#define ADD(r) "vaddps %%zmm30, %%zmm31, %%zmm" #r "\n"
#define STORE(o, r) "vmovups %%zmm" #r ", " #o "(%0)\n"
#define FMA16 FMA(0) FMA(1) FMA(2) FMA(3) FMA(4) FMA(5) FMA(6) FMA(7) FMA(8) FMA(9) FMA(10) FMA(11) FMA(12) FMA(13) FMA(14) FMA(15)
#define ADD8 ADD(16) ADD(17) ADD(18) ADD(19) ADD(20) ADD(21) ADD(22) ADD(23)
#define STORE8 STORE(0, 16) STORE(64, 17) STORE(128, 18) STORE(192, 19) STORE(256, 20) STORE(320, 21) STORE(384, 22) STORE(448, 23)
#define ROUNDS 20000000

static float buffer[128] __attribute__((aligned(64)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define MEASURE(name, code)                                                                     \
    do {                                                                                        \
        const double start = now();                                                             \
        for (long i = 0; i < ROUNDS; ++i) __asm__ volatile(code ::"r"(buffer) : "memory");      \
        const double time = now() - start;                                                      \
        if (first == 0) first = time;                                                           \
        printf("%-40s %5.2f ns  %5.2f\n", name, 1e9 * time / ROUNDS, time / first);             \
    } while (0)

int main(void) {
    double first = 0;
    for (long i = 0; i < ROUNDS; ++i) __asm__ volatile(FMA16 ::"r"(buffer) : "memory");  // the clock settles
    MEASURE("16 multiply-adds", FMA16);
    MEASURE("16 multiply-adds, 16 additions", FMA16 ADD8 ADD8);
    MEASURE("16 multiply-adds, 8 stores", FMA16 STORE8);
    MEASURE("8 stores", STORE8);
    MEASURE("16 additions, 8 stores", ADD8 ADD8 STORE8);
    return 0;
}
