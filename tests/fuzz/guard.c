/* A malloc for LD_PRELOAD that, while it is switched on, ends every block at a page that cannot be touched.
 *
 * Reading or writing past the end faults at that instruction; so does using a block after it was freed, since no
 * address is given out twice. The bytes around a block, within its own pages, hold a pattern that is checked when
 * it is freed. A block inside another (XLA's one temporary buffer) is not seen.
 *
 * A block is   [header page][front slack | block | back slack][page that cannot be touched]
 * where the block starts in the first page after the header, so that the header is found from its address.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((uintptr_t)4096)
#define REGION ((uintptr_t)1 << 44) /* addresses only: memory is taken when a page is written */
#define SMALLEST 64
#define PATTERN 0x5a

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

typedef struct {
  size_t size, pages;
} header;

static uintptr_t region;
static _Atomic uintptr_t unused;
static _Atomic int on;
static _Atomic long blocks;
static struct sigaction before;

static void say(const char *text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(1);
}

static void on_fault(int number, siginfo_t *info, void *context) {
  uintptr_t at = (uintptr_t)info->si_addr;
  (void)number, (void)context;
  say(at - region < REGION ? "\nguard: an address past the end of a block, or of a freed one, was used\n"
                           : "\nguard: a fault outside the guarded blocks\n");
  sigaction(SIGSEGV, &before, 0); /* the instruction runs again, and ends the process this time */
}

/* Called once, from Python, before anything is guarded. Returns 0 where the addresses cannot be had. */
int guard_prepare(void) {
  void *found = mmap(0, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (found == MAP_FAILED) return 0;
  region = unused = (uintptr_t)found;
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  return sigaction(SIGSEGV, &action, &before) == 0;
}

void guard_switch(int value) { on = value; }
long guard_blocks(void) { return blocks; }

static int is_guarded(const void *block) { return region && (uintptr_t)block - region < REGION; }
static header *header_of(const void *block) { return (header *)(((uintptr_t)block & -PAGE) - PAGE); }

static void *take(size_t align, size_t size) {
  if (align < 16) align = 16;
  size_t pages = (size + PAGE - 1) / PAGE + 1;
  uintptr_t start = atomic_fetch_add(&unused, (pages + 1) * PAGE), end = start + pages * PAGE;
  if (end + PAGE > region + REGION || mprotect((void *)start, pages * PAGE, PROT_READ | PROT_WRITE))
    return __libc_memalign(align, size); /* Linux allows a process 65,000 mappings, and a block is two */
  memset((void *)start, PATTERN, pages * PAGE);
  *(header *)start = (header){size, pages};
  blocks++;
  return (void *)((end - size) & -(uintptr_t)align);
}

static void check(const unsigned char *from, const unsigned char *to) {
  for (; from < to; from++)
    if (*from != PATTERN) {
      say("\nguard: bytes around a block were overwritten\n");
      abort();
    }
}

static void give_back(unsigned char *block) {
  header *own = header_of(block), copy = *own;
  unsigned char *start = (unsigned char *)own;
  check((unsigned char *)(own + 1), block);
  check(block + copy.size, start + copy.pages * PAGE);
  madvise(start, copy.pages * PAGE, MADV_DONTNEED);
  mprotect(start, copy.pages * PAGE, PROT_NONE);
}

void *memalign(size_t align, size_t size) {
  return on && size >= SMALLEST && align <= PAGE ? take(align, size) : __libc_memalign(align, size);
}

void *aligned_alloc(size_t align, size_t size) { return memalign(align, size); }

int posix_memalign(void **block, size_t align, size_t size) {
  void *taken = memalign(align, size);
  if (taken) *block = taken;
  return taken ? 0 : ENOMEM;
}

void *malloc(size_t size) { return on && size >= SMALLEST ? take(16, size) : __libc_malloc(size); }

void *calloc(size_t count, size_t each) {
  size_t size;
  if (!on || __builtin_mul_overflow(count, each, &size) || size < SMALLEST) return __libc_calloc(count, each);
  void *block = take(16, size);
  return block ? memset(block, 0, size) : 0;
}

void free(void *block) {
  int kept = errno;
  if (is_guarded(block)) give_back(block);
  else __libc_free(block);
  errno = kept;
}

void *realloc(void *block, size_t size) {
  if (!is_guarded(block)) return block ? __libc_realloc(block, size) : malloc(size);
  size_t old = header_of(block)->size;
  void *moved = size ? malloc(size) : 0;
  if (moved) memcpy(moved, block, old < size ? old : size);
  if (moved || !size) give_back(block);
  return moved;
}

size_t malloc_usable_size(void *block) {
  /* glibc keeps the size of its own blocks in the word before them, with three flags. */
  if (!block || is_guarded(block)) return block ? header_of(block)->size : 0;
  size_t chunk = ((size_t *)block)[-1];
  return (chunk & ~(size_t)7) - (chunk & 2 ? 2 : 1) * sizeof(size_t);
}
