#include <Python.h>
#include <stdint.h>

#if defined(__linux__)
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((uintptr_t)1 << 21)
#define AT_ONCE ((size_t)1 << 26) /* bytes that are reserved for arenas at a time */
#define BLOCK ((size_t)1 << 16)   /* bytes that the C library takes from its heap */
#define BLOCKS 4096

static PyObjectArenaAllocator original;
static char *unused = NULL, *end = NULL, in_use = 0;

static void reserve_arenas(void)
{
    char *memory = mmap(NULL, AT_ONCE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return;
    unused = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    end = memory + AT_ONCE;
    madvise(unused, (size_t)(end - unused), MADV_HUGEPAGE);
}

/* Arenas lie side by side in memory that is reserved; the system gives a page when it is first written to. All
   interpreters of the process call this, also those with a GIL of their own. A caller that finds another one in here
   gets an arena of Python's own, because waiting would never end in a process that was forked in the meantime. */
static void *new_arena(void *context, size_t size)
{
    char *arena = NULL;
    (void)context;
    if (!__atomic_test_and_set(&in_use, __ATOMIC_ACQUIRE)) {
        if ((size_t)(end - unused) < size && size <= AT_ONCE / 2)
            reserve_arenas();
        if ((size_t)(end - unused) >= size) {
            arena = unused;
            unused += size;
        }
        __atomic_clear(&in_use, __ATOMIC_RELEASE);
    }
    return arena != NULL ? arena : original.alloc(original.ctx, size);
}

/* Python's own arenas are from mmap as well, so that what it does to give one back is right for both. */
static void free_arena(void *context, void *arena, size_t size)
{
    (void)context;
    original.free(original.ctx, arena, size);
}

static int arenas_in_huge_pages(void)
{
    if (original.alloc == NULL) {
        PyObjectArenaAllocator ours = {NULL, new_arena, free_arena};
        PyObject_GetArenaAllocator(&original);
        PyObject_SetArenaAllocator(&ours);
    }
    return 1;
}

/* Let the heap grow once by so many bytes, of which only those that are written to take memory. */
static int heap_in_huge_pages(size_t reserve)
{
#if defined(__GLIBC__)
    static int done = 0;
    void *blocks[BLOCKS];
    uintptr_t before = (uintptr_t)sbrk(0), after = before;
    int count = 0;
    if (done)
        return 1;
    if (!mallopt(M_TOP_PAD, (int)reserve))
        return 0;
    while (after == before && count < BLOCKS) {
        blocks[count++] = malloc(BLOCK);
        after = (uintptr_t)sbrk(0);
    }
    while (count > 0)
        free(blocks[--count]);
    mallopt(M_TOP_PAD, 1 << 17); /* This is the default. */
    before = (before + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    done = after > before && madvise((void *)before, after - before, MADV_HUGEPAGE) == 0;
    return done;
#else
    (void)reserve;
    return 0;
#endif
}
#else
static int arenas_in_huge_pages(void) { return 0; }
static int heap_in_huge_pages(size_t reserve) { (void)reserve; return 0; }
#endif
