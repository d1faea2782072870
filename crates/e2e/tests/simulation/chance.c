// What the kernel gives a process that differs from run to run, given to a simulation from its seed:
// random bytes, which order hash maps, tokio's choices and ids, and the date. Loaded before libc.
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

// Of each thread its own, so that threads don't change what others get.
static __thread unsigned long long drawn;

// SplitMix64.
static unsigned long long draw(unsigned long long seed) {
  unsigned long long mixed = seed + ++drawn * 0x9E3779B97F4A7C15ULL;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ULL;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBULL;
  return mixed ^ (mixed >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned flags) {
  (void)flags;
  const char *seed = getenv("INFRACHAT_CHANCE");
  unsigned long long number = seed ? strtoull(seed, NULL, 10) : 0;
  for (size_t at = 0; at < length; at++)
    ((unsigned char *)buffer)[at] = (unsigned char)draw(number);
  return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (clock == CLOCK_REALTIME) {
    now->tv_sec = 1767225600; // 2026-01-01
    now->tv_nsec = 0;
    return 0;
  }
  return (int)syscall(SYS_clock_gettime, clock, now);
}
